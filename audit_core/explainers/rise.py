"""RISE: randomised input sampling (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from audit_core.classifier import Classifier
from audit_core.explainers.base import EXPLAINERS, ClassMaps, Cost, Explainer, Report, silent
from audit_core.params import Between, Note, OneOf
from audit_core.types import Attribution
from models.cards import ModelCard

BLOCK = 100  # masks drawn from one generator state; fixed, so that the batch size cannot change a mask


@EXPLAINERS.register("rise")
@dataclass(frozen=True)
class RISE(Explainer):
    """RISE: mean score over random masks that keep a pixel, from the model's outputs alone.

    Petsiuk et al. 2018 (https://arxiv.org/abs/1806.07421). A coarse grid of kept cells (probability ``p``) is
    enlarged bilinearly, with a random shift unless it is off; hidden parts show the baseline. One pass gives
    the maps of all classes with their standard errors. Sampling ends early when the ranking has settled.
    """

    title: ClassVar[str] = "RISE"
    family: ClassVar[str] = "perturbation"
    formula: ClassVar[str] = "S_p = sum_i f(m_i x + (1 - m_i) b) m_ip / sum_i m_ip, m_i random masks, b the baseline"
    source: ClassVar[str] = "Petsiuk, Das and Saenko 2018, https://arxiv.org/abs/1806.07421"
    witness: ClassVar[str] = (
        "the sum over all masks of a small grid: "
        "tests/test_explainers.py::test_rise_converges_to_the_sum_over_all_masks"
    )
    pitfalls: ClassVar[str] = (
        "Noisy for few masks: look at the standard errors. With the zero baseline it hides pixels by the very value "
        "that the zero fill uses, so that curve favours it. Nothing finer than a cell of the grid is resolved."
    )
    reads: ClassVar[str] = "scores"
    all_classes: ClassVar[bool] = True

    n_masks: Annotated[int, Between(2, 100_000, "masks", "Random masks at most; each costs one forward.")] = 2000
    grid: Annotated[int, Between(1, 64, "cells", "Cells along each side of the coarse grid.")] = 8
    p: Annotated[float, Between(0.01, 0.99, help="Probability that a cell is kept.")] = 0.5
    shift: Annotated[bool, Note("Shift each mask by a random part of a cell, as the original does.")] = True
    baseline: Annotated[str, OneOf(("zero", "image-mean"), "What hidden pixels show.")] = "zero"
    coverage: Annotated[bool, Note("Divide by how often a pixel was kept instead of the expected N p.")] = True
    settle: Annotated[
        float,
        Between(
            0.0,
            1.0,
            help="Stop once two halves of the masks rank pixels alike: rank correlation of the "
            "whole reaches this; 1 never stops early.",
        ),
    ] = 0.98

    def cost(self, card: ModelCard) -> Cost:
        """At most one forward per mask, and one for the image itself."""
        return Cost(self.n_masks + 1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Maps of the target classes, unsigned (signed under a contrast); ``error`` is the standard error."""
        maps, errors, used, before = [], [], [], classifier.forwards
        for image, wanted in zip(images, target.tolist(), strict=True):
            every = self.attribute_all(classifier, image, seed, report, wanted)
            row = every.classes.index(wanted)
            maps.append(every.values[row])
            errors.append(np.asarray(every.error)[row])
            used.append(every.extra["masks"])
        extra = {"masks": used, "grid": [self.grid, self.grid]}
        forwards = classifier.forwards - before
        signed = classifier.contrast is not None
        return Attribution(np.stack(maps), target.cpu().numpy(), signed, np.stack(errors), forwards, 0, extra)

    def attribute_all(
        self, classifier: Classifier, image: torch.Tensor, seed: int, report: Report = silent, shown: int = 0
    ) -> ClassMaps:
        """Maps of all classes (beyond 64 classes: of the 16 most probable and ``shown``) from one pass.

        image: (channels, rows, columns); ``shown`` is the class whose running map is reported. Whether to stop
        is decided on the predicted class after whole blocks, so the result depends on the seed alone.
        """
        image, before = image.to(classifier.device), classifier.forwards
        baseline = (
            torch.zeros_like(image) if self.baseline == "zero" else image.mean((1, 2), keepdim=True).expand_as(image)
        )
        done = 0
        with classifier.lend():
            classes = tracked(classifier.logits(image[None])[0], shown)
            sums = _Sums(len(classes), image.shape[-2:], classifier.device)
            mixed = classifier.normalise(torch.stack([baseline, image]))
            for keep, scores in self._scored(classifier, mixed[0], mixed[1], seed):
                sums.add(scores[:, classes], keep)
                done += len(keep)
                running = sums.maps(self, classes.index(shown))[0][0]
                report(done / self.n_masks, f"{done} of at most {self.n_masks} masks", running)
                if self.settle < 1 and done >= 5 * BLOCK and sums.agreement(self, 0) >= self.settle:
                    break
        values, error = sums.maps(self)
        signed = classifier.contrast is not None
        return ClassMaps(values, error, classes, {"masks": done}, classifier.forwards - before, signed)

    def masks(self, size: torch.Size, seed: int, device: torch.device) -> Iterator[torch.Tensor]:
        """Blocks of masks, float32 (block, rows, columns) in [0, 1]; 1 keeps the pixel. A function of the seed."""
        cell = [math.ceil(n / self.grid) for n in size]
        for block in range(math.ceil(self.n_masks / BLOCK)):
            rng = np.random.default_rng((seed, 1, block))
            count = min(BLOCK, self.n_masks - block * BLOCK)
            cells = (rng.random((count, self.grid, self.grid)) < self.p).astype(np.float32)
            offsets = rng.integers(0, cell, (count, 2)) if self.shift else np.zeros((count, 2), dtype=np.int64)
            yield enlarge(torch.from_numpy(cells).to(device), cell, tuple(size), offsets, self.shift)

    def _scored(
        self, classifier: Classifier, baseline: torch.Tensor, image: torch.Tensor, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(masks, class probabilities) block by block; image and baseline are normalised, which commutes with mixing.

        Batches run across the borders of blocks, so whoever stops early has paid for at most one batch more.
        """
        drawn = self.masks(image.shape[-2:], seed, classifier.device)
        kept = torch.empty(0, *image.shape[-2:], device=classifier.device)  # the masks not handed out yet
        given, scores = 0, torch.empty(0, len(classifier.card.classes), device=classifier.device)

        def build(start: int, stop: int) -> torch.Tensor:
            nonlocal kept
            while given + len(kept) < stop:
                kept = torch.cat([kept, next(drawn)])
            return torch.lerp(baseline, image, kept[start - given : stop - given, None])

        for _, logits in classifier.stream(self.n_masks, build, normalised=True):
            scores = torch.cat([scores, classifier.scores(logits)])
            while len(scores) >= (block := min(BLOCK, self.n_masks - given)) > 0:
                yield kept[:block], scores[:block]
                kept, scores, given = kept[block:], scores[block:], given + block


def tracked(logits: torch.Tensor, wanted: int) -> list[int]:
    """The classes to keep maps of, most probable first: all up to 64, else the top 16; always ``wanted`` too."""
    ranked = [int(k) for k in logits.argsort(descending=True, stable=True)]
    kept = ranked if len(ranked) <= 64 else ranked[:16]
    return kept if wanted in kept else [*kept, wanted]


def enlarge(
    cells: torch.Tensor, cell: list[int], size: tuple[int, ...], offsets: np.ndarray, shifted: bool
) -> torch.Tensor:
    """Coarse cells (n, grid, grid) -> (n, rows, columns), bilinear.

    Shifted: enlarged to (grid + 1) cells and cropped at the offset, so that cell borders fall anywhere.
    """
    grid = cells.shape[-1]
    wide = [(grid + 1) * c for c in cell] if shifted else size
    # Bilinear is linear along each axis: a mask is rows @ cells @ columns.T, and only the crop is ever computed.
    rows, columns = (
        line_weights(grid, long, cells)[torch.from_numpy(offset).to(cells.device)[:, None] + _count(n, cells)]
        for long, offset, n in zip(wide, offsets.T, size, strict=True)
    )
    return (rows @ (cells @ columns.transpose(1, 2))).clamp_(0, 1)


def line_weights(cells: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """Share of each cell in each of ``length`` pixels of a line enlarged linearly from ``cells``: (length, cells)."""
    return F.interpolate(torch.eye(cells).to(like)[:, None], size=length, mode="linear", align_corners=False)[:, 0].T


def _count(n: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(n, device=like.device)


class _Sums:
    """Running sums over masks, in two halves so that their agreement tells how settled the ranking is."""

    def __init__(self, classes: int, size: torch.Size, device: torch.device) -> None:
        pixels = size[0] * size[1]
        self.size = size
        # One accumulator per half; float64 so that the order of many small terms does not matter. Rows of the sums
        # over m are those weighted by each class's score and by 1; over m^2 by score^2, score and 1.
        linear = torch.zeros(2, classes + 1, pixels, dtype=torch.float64, device=device)
        square = torch.zeros(2, 2 * classes + 1, pixels, dtype=torch.float64, device=device)
        self.weighted, self.kept = linear[:, :-1], linear[:, -1]
        self.squared, self.crossed, self.kept_squared = square[:, :classes], square[:, classes:-1], square[:, -1]
        self._linear, self._square = linear, square
        self.count = [0, 0]

    def add(self, scores: torch.Tensor, keep: torch.Tensor) -> None:
        """Add a block: scores (block, classes), keep (block, rows, columns); odd and even masks to separate halves."""
        flat, scores = keep.flatten(1).double(), scores.double()
        linear = torch.cat([scores, torch.ones_like(scores[:, :1])], dim=1)
        square = torch.cat([scores.square(), linear], dim=1)
        for half in (0, 1):
            self._linear[half].addmm_(linear[half::2].T, flat[half::2])
            self.count[half] += len(flat[half::2])
        flat.square_()
        for half in (0, 1):
            self._square[half].addmm_(square[half::2].T, flat[half::2])

    def maps(self, rise: RISE, only: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Estimate and standard error, float32 (classes, rows, columns); one class when ``only`` is given."""
        rows = slice(None) if only is None else slice(only, only + 1)
        weighted, squared = self.weighted[:, rows].sum(0), self.squared[:, rows].sum(0)
        kept, n = self.kept.sum(0), sum(self.count)
        if rise.coverage:
            value = weighted / kept.clamp_min(1e-12)
            # Delta method for a ratio of means: residuals s_i m_i - value m_i.
            crossed = self.crossed[:, rows].sum(0)
            spread = squared - 2 * value * crossed + value.square() * self.kept_squared.sum(0)
            error = spread.clamp_min(0).sqrt() / kept.clamp_min(1e-12)
        else:
            value = weighted / (n * rise.p)
            error = (squared / n - (weighted / n).square()).clamp_min(0).sqrt() / (math.sqrt(n) * rise.p)
        shape = (-1, *self.size)
        return value.float().reshape(shape).cpu().numpy(), error.float().reshape(shape).cpu().numpy()

    def agreement(self, rise: RISE, wanted: int) -> float:
        """Rank correlation to expect between this estimate and a repetition: Spearman of the halves, stepped up.

        Spearman-Brown: 2 r / (1 + r) is the reliability of the whole when r is that of its halves.
        """
        halves = self.weighted[:, wanted] / (self.kept.clamp_min(1e-12) if rise.coverage else 1.0)
        first, second = (rankdata(half.cpu().numpy()) for half in halves)
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            return 0.0
        r = float(np.corrcoef(first, second)[0, 1])
        return 2 * r / (1 + r) if r > 0 else 0.0
