"""Deletion and insertion: orders, points, scores. Petsiuk et al. 2018 (https://arxiv.org/abs/1806.07421).

An *order* ranks every pixel; rank 0 is changed first. A *point* of a curve changes the pixels whose rank lies in
[low, high). Deletion at a cut changes [0, cut); insertion at a cut still has [cut, units) changed. Both curves
share their end points: the untouched image changes nothing, the filled image everything. So one order costs
2 (steps - 1) forwards and the ends 2 more, however many orders there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.fills.base import Fill

TIE = 8 * float(np.finfo(np.float32).eps)  # relative; about what enlarging a map and averaging a patch round off


def rank_pixels(values: np.ndarray, patch: int = 1, direction: str = "most", seed: int = 0) -> np.ndarray:
    """Rank of every pixel's unit, int32 (rows, columns); 0 is changed first.

    values: float (rows, columns), higher = more important. Units are squares of ``patch`` pixels (smaller at the
    right and lower border) ranked by their mean. Equal values are visited in a pseudo-random order that depends
    on ``seed`` and the grid alone, never on where they lie in memory: large flat areas of a rectified map would
    otherwise be wiped from the top left. Values that differ by less than single precision can tell (``TIE``) are
    equal: an enlarged coarse map is flat at its border, and rounding would order it there, differently in every batch.
    "least" is the exact reverse of "most". NaN is refused.
    """
    if not np.isfinite(values).all():
        raise InvalidParameter(f"{int((~np.isfinite(values)).sum())} of {values.size} map values are not finite")
    units = unit_means(np.asarray(values, dtype=np.float64), patch)
    tie = np.random.default_rng((seed, *units.shape)).permutation(units.size)
    order = np.lexsort((tie, -levels(units.ravel())))
    if direction == "least":
        order = order[::-1]
    rank = np.empty(units.size, dtype=np.int32)
    rank[order] = np.arange(units.size, dtype=np.int32)
    grid = rank.reshape(units.shape).repeat(patch, axis=0).repeat(patch, axis=1)
    return np.ascontiguousarray(grid[: values.shape[0], : values.shape[1]])


def levels(values: np.ndarray) -> np.ndarray:
    """Place of each value (n,) among the distinct ones, int64, 0 = the lowest; neighbours within ``TIE`` are one."""
    rising = np.argsort(values, kind="stable")
    ordered = values[rising]
    apart = np.diff(ordered) > TIE * np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    level = np.empty(len(values), dtype=np.int64)
    level[rising] = np.concatenate([[0], np.cumsum(apart)])
    return level


def unit_means(values: np.ndarray, patch: int) -> np.ndarray:
    """Mean of every patch x patch square; squares at the right and lower border may be smaller."""
    if patch == 1:
        return values
    rows, columns = (np.arange(0, n, patch) for n in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    heights, widths = (np.diff(np.append(starts, n)) for starts, n in zip((rows, columns), values.shape, strict=True))
    return sums / (heights[:, None] * widths[None, :])


def cuts(units: int, steps: int) -> np.ndarray:
    """How many units are changed at each of the steps + 1 points, int64, from 0 to exactly ``units``."""
    if steps > units:
        raise InvalidParameter(f"{steps} steps were asked for, but there are only {units} units; use fewer steps")
    return np.round(np.arange(steps + 1) * units / steps).astype(np.int64)


def fractions(rank: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Share of *pixels* changed at each cut, float64, exact also when border units are smaller."""
    sizes = np.bincount(rank.ravel())
    return np.concatenate([[0], np.cumsum(sizes)])[at] / rank.size


@dataclass(frozen=True)
class Points:
    """Perturbed images to score: ``image[i]`` with the pixels changed that ``order[i]`` ranks in [low, high)."""

    image: np.ndarray
    order: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def plan(image_of_order: np.ndarray, at: np.ndarray) -> Points:
    """All points of all orders, coarse to fine: first the ends of every image, then middles, quarters, …

    image_of_order: int (orders,); at: the cuts of one curve. Orders keep their position as priority, so the
    attribution's own curves come before those of the controls.
    """
    units, inner = int(at[-1]), coarse_to_fine(len(at) - 1)
    rows = [(int(i), int(o), 0, 0) for o, i in enumerate(image_of_order) if i not in image_of_order[:o]]
    rows += [(i, o, 0, units) for i, o, *_ in rows]
    for order, image in enumerate(image_of_order):
        for step in inner:
            rows += [(int(image), order, 0, int(at[step])), (int(image), order, int(at[step]), units)]
    return Points(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def coarse_to_fine(steps: int) -> list[int]:
    """The inner steps 1 … steps - 1, each halving the gaps left by those before it.

    >>> coarse_to_fine(8)
    [4, 2, 6, 1, 3, 5, 7]
    """
    ordered, gaps = [], [(0, steps)]
    while gaps:
        wider = []
        for low, high in gaps:
            middle = (low + high) // 2
            if low < middle < high:
                ordered.append(middle)
                wider += [(low, middle), (middle, high)]
        gaps = wider
    return ordered


def changed_pixels(ranks: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Bool (n, rows, columns): True where the rank lies in [low, high). ranks: int32 (n, rows, columns)."""
    return (ranks >= low[:, None, None]) & (ranks < high[:, None, None])


def score_points(
    classifier: Classifier,
    fill: Fill,
    images: torch.Tensor,
    substrates: torch.Tensor,
    ranks: torch.Tensor,
    points: Points,
    first: int | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Build the perturbed images on the device, batch by batch, and score them; yields (start, logits).

    images, substrates: float32 (n, channels, rows, columns) pixels; ranks: int32 (orders, rows, columns).
    """
    device = classifier.device
    images, substrates, ranks = (t.to(device) for t in (images, substrates, ranks))
    image, order = (torch.from_numpy(part).to(device) for part in (points.image, points.order))
    low, high = (torch.from_numpy(part).to(device, torch.int32) for part in (points.low, points.high))
    if fill.static:
        # Normalisation acts on each pixel alone, so choosing between normalised images gives the same bits.
        switch = BitSwitch(classifier.normalise(images), classifier.normalise(substrates))

    def build(start: int, stop: int) -> torch.Tensor:
        part = slice(start, stop)
        if fill.static:
            return switch.switched(image[part], ranks[order[part]], low[part], high[part])
        changed = changed_pixels(ranks[order[part]], low[part], high[part])
        return fill.apply(images[image[part]], changed, substrates[image[part]])

    yield from classifier.stream(len(points), build, first, normalised=fill.static)


class BitSwitch:
    """Takes pixels from one of two sets of float32 images, exactly, with vectorised integer operations only.

    ``torch.where`` gives the same bits and takes three times as long on a CPU, a twentieth of a small network's time.
    """

    def __init__(self, images: torch.Tensor, others: torch.Tensor) -> None:
        self.bits = images.view(torch.int32)
        self.differing = self.bits ^ others.view(torch.int32)

    def switched(self, index: torch.Tensor, ranks: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Images ``index`` (n,) with the pixels whose rank lies in [low, high) taken from the others.

        ranks: int32 (n, rows, columns), overwritten; low, high: int32 (n,). All ranks and bounds are far below 2^31,
        so the sign bits of low - 1 - rank and rank - high say on which side a rank lies.
        """
        inside = (low[:, None, None] - 1) - ranks
        inside &= ranks.sub_(high[:, None, None])
        inside >>= 31  # arithmetic: all bits set where both are negative
        chosen = self.differing[index]
        chosen &= inside[:, None]
        chosen ^= self.bits[index]
        return chosen.view(torch.float32)


@dataclass(frozen=True)
class CurveTable:
    """Where each point's score stands: ``deletion`` and ``insertion`` are int64 (orders, steps + 1) point indices."""

    deletion: np.ndarray
    insertion: np.ndarray


def table(points: Points, orders: int, at: np.ndarray, image_of_order: np.ndarray) -> CurveTable:
    """Index of the point behind every curve position; the end points of an image serve all of its orders."""
    units = int(at[-1])
    place = {
        (int(i), int(o) if int(lo) > 0 or int(hi) < units else -1, int(lo), int(hi)): n
        for n, (i, o, lo, hi) in enumerate(zip(points.image, points.order, points.low, points.high, strict=True))
        if not (lo == 0 and hi == 0)
    }
    untouched = {int(i): n for n, (i, hi) in enumerate(zip(points.image, points.high, strict=True)) if hi == 0}
    deletion = np.empty((orders, len(at)), dtype=np.int64)
    insertion = np.empty_like(deletion)
    for order in range(orders):
        image = int(image_of_order[order])
        for step, cut in enumerate(int(c) for c in at):
            filled = place[image, -1, 0, units]
            deletion[order, step] = (
                untouched[image] if cut == 0 else filled if cut == units else place[image, order, 0, cut]
            )
            insertion[order, step] = (
                filled if cut == 0 else untouched[image] if cut == units else place[image, order, cut, units]
            )
    return CurveTable(deletion, insertion)
