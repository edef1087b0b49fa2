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

from audit_core.borrow import borrowed
from audit_core.classifier import Classifier
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
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
        """Maps of the target classes; unsigned, in [0, 1] with ``coverage``; ``error`` is the standard error."""
        maps, errors, used = [], [], []
        for image, wanted in zip(images, target.tolist(), strict=True):
            every = self.attribute_all(classifier, image, seed, report, wanted)
            row = every.classes.index(wanted)
            maps.append(every.values[row])
            errors.append(every.error[row])
            used.append(every.masks)
        extra = {"masks": used, "grid": [self.grid, self.grid]}
        return Attribution(
            np.stack(maps), target.cpu().numpy(), False, np.stack(errors), sum(used) + len(used), 0, extra
        )

    def attribute_all(
        self, classifier: Classifier, image: torch.Tensor, seed: int, report: Report = silent, shown: int = 0
    ) -> ClassMaps:
        """Maps of all classes (beyond 64 classes: of the 16 most probable and ``shown``) from one pass.

        image: (channels, rows, columns); ``shown`` is the class whose running map is reported. Whether to stop
        is decided on the predicted class after whole blocks, so the result depends on the seed alone.
        """
        image = image.to(classifier.device)
        baseline = (
            torch.zeros_like(image) if self.baseline == "zero" else image.mean((1, 2), keepdim=True).expand_as(image)
        )
        done = 0
        with borrowed(classifier.module):
            classes = tracked(classifier.logits(image[None])[0], shown)
            sums = _Sums(len(classes), image.shape[-2:], classifier.device)
            for keep in self.masks(image.shape[-2:], seed, classifier.device):
                sums.add(self._scores(classifier, image, baseline, keep)[:, classes], keep)
                done += len(keep)
                running = sums.maps(self, classes.index(shown))[0][0]
                report(done / self.n_masks, f"{done} of at most {self.n_masks} masks", running)
                if self.settle < 1 and done >= 5 * BLOCK and sums.agreement(self, 0) >= self.settle:
                    break
        values, error = sums.maps(self)
        return ClassMaps(values, error, classes, done)

    def masks(self, size: torch.Size, seed: int, device: torch.device) -> Iterator[torch.Tensor]:
        """Blocks of masks, float32 (block, rows, columns) in [0, 1]; 1 keeps the pixel. A function of the seed."""
        cell = [math.ceil(n / self.grid) for n in size]
        for block in range(math.ceil(self.n_masks / BLOCK)):
            rng = np.random.default_rng((seed, 1, block))
            count = min(BLOCK, self.n_masks - block * BLOCK)
            cells = (rng.random((count, self.grid, self.grid)) < self.p).astype(np.float32)
            offsets = rng.integers(0, cell, (count, 2)) if self.shift else np.zeros((count, 2), dtype=np.int64)
            yield enlarge(torch.from_numpy(cells).to(device), cell, tuple(size), offsets, self.shift)

    def _scores(
        self, classifier: Classifier, image: torch.Tensor, baseline: torch.Tensor, keep: torch.Tensor
    ) -> torch.Tensor:
        def build(start: int, stop: int) -> torch.Tensor:
            part = keep[start:stop, None]
            return image * part + baseline * (1 - part)

        return torch.cat([logits.softmax(1) for _, logits in classifier.stream(len(keep), build)])


@dataclass(frozen=True)
class ClassMaps:
    """Maps and standard errors, float32 (k, rows, columns), of ``classes`` (k model outputs), and the masks used."""

    values: np.ndarray
    error: np.ndarray
    classes: list[int]
    masks: int


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
    if not shifted:
        return F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    wide = F.interpolate(cells[:, None], size=[(grid + 1) * c for c in cell], mode="bilinear", align_corners=False)[
        :, 0
    ]
    crops = [
        one[top : top + size[0], left : left + size[1]] for one, (top, left) in zip(wide, offsets.tolist(), strict=True)
    ]
    return torch.stack(crops)


class _Sums:
    """Running sums over masks, in two halves so that their agreement tells how settled the ranking is."""

    def __init__(self, classes: int, size: torch.Size, device: torch.device) -> None:
        pixels = size[0] * size[1]
        self.size = size
        # One accumulator per half; float64 so that the order of many small terms does not matter.
        self.weighted = torch.zeros(2, classes, pixels, dtype=torch.float64, device=device)
        self.squared = torch.zeros(2, classes, pixels, dtype=torch.float64, device=device)
        self.crossed = torch.zeros(2, classes, pixels, dtype=torch.float64, device=device)
        self.kept = torch.zeros(2, pixels, dtype=torch.float64, device=device)
        self.kept_squared = torch.zeros(2, pixels, dtype=torch.float64, device=device)
        self.count = [0, 0]

    def add(self, scores: torch.Tensor, keep: torch.Tensor) -> None:
        """Add a block: scores (block, classes), keep (block, rows, columns); odd and even masks to separate halves."""
        flat, scores = keep.flatten(1).double(), scores.double()
        for half in (0, 1):
            part, score = flat[half::2], scores[half::2]
            self.weighted[half] += score.T @ part
            self.squared[half] += score.square().T @ part.square()
            self.crossed[half] += score.T @ part.square()
            self.kept[half] += part.sum(0)
            self.kept_squared[half] += part.square().sum(0)
            self.count[half] += len(part)

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
