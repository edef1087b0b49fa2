"""What the results of a study are made of: contenders, counts, values and curves. Frozen; arrays are not copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_core.statistics import Better, Observations


@dataclass(frozen=True)
class Contender:
    """A family read by one explainer; checkpoints and training_seeds: its training runs, -1 where a seed is unknown."""

    name: str
    family: str
    explainer: str
    role: str
    checkpoints: tuple[str, ...]
    training_seeds: tuple[int, ...]


@dataclass(frozen=True)
class StateCount:
    """How many rows of a cell are in a state (number, sick, refused or failed) for one reason; "" for numbers."""

    contender: str
    fill: str
    metric: str
    state: str
    reason: str
    count: int


@dataclass(frozen=True)
class CheckpointMean:
    """Mean of a metric over the n numbers of one checkpoint under one fill."""

    fill: str
    checkpoint: str
    mean: float
    n: int


@dataclass(frozen=True)
class Grouped:
    """Sums and counts of one metric over groups of images.

    contenders: C names; fills: F names; groups: int64 (G,), the unit of each group, or one of 2,000 numbers where more
    than 2,000 images were put together; total, count: float64 (C, F, R, G), R training runs by name of the checkpoint.
    """

    contenders: tuple[str, ...]
    fills: tuple[str, ...]
    groups: np.ndarray
    total: np.ndarray
    count: np.ndarray
    family: np.ndarray

    def observations(self, better: Better) -> Observations:
        """Ready for joint resampling; better: "lower" or "higher" values win."""
        return Observations(self.total, self.count, better, self.family)

    def means(self) -> np.ndarray:
        """Mean of each group over runs and seeds, float64 (C, F, G); NaN = no number."""
        total, count = self.total.sum(axis=2), self.count.sum(axis=2)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@dataclass(frozen=True)
class Values:
    """Every number of one cell, by unit, run and seed: float64 and int64 (n,), words as object (n,), "" = unknown.

    run: index into the contender's checkpoints; training_seed: -1 where unknown.
    """

    value: np.ndarray
    unit: np.ndarray
    run: np.ndarray
    training_seed: np.ndarray
    label: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class PairValues:
    """Two contenders on the images where both have a number, (n,) each, by unit.

    a, b: float64, mean over runs and seeds; image, label, predicted_a, predicted_b: words, "" = unknown, and the
    different answers of several training runs joined by " | ".
    """

    unit: np.ndarray
    a: np.ndarray
    b: np.ndarray
    image: np.ndarray
    label: np.ndarray
    predicted_a: np.ndarray
    predicted_b: np.ndarray


@dataclass(frozen=True)
class MeanCurve:
    """Mean curve of one contender over n images: float64 (points,) each, with a pointwise 95 % t interval.

    fraction: share of pixels changed; mean: over images of each image's mean over runs and seeds; low, high: NaN for
    a single image.
    """

    contender: str
    kind: str
    fraction: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int


@dataclass(frozen=True)
class ImageRow:
    """One number of a cell with what it stands for; surprise: distance from the mean of the cell, in its unit."""

    unit: int
    image: str
    label: str
    checkpoint: str
    training_seed: int
    seed: int
    predicted: str
    correct: bool
    value: float
    surprise: float
