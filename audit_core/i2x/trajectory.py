"""Intensities and confidences over a training run, one checkpoint after the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit_core.i2x.explanation import confused
from audit_core.i2x.prototypes import Prototypes, location_shares


@dataclass(frozen=True)
class Moment:
    """What one checkpoint shows: intensity float32 (n, K, targets), confidence float32 (n, classes)."""

    intensity: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """All moments of a run.

    steps: training steps (T,); intensity: float32 (T, n, K, targets); confidence: float32 (T, n, classes); shares:
    location shares (n, K); labels: int (n,).
    """

    steps: tuple[int, ...]
    intensity: np.ndarray
    confidence: np.ndarray
    shares: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(
        cls, steps: Sequence[int], moments: Sequence[Moment], prototypes: Prototypes, labels: np.ndarray
    ) -> Trajectory:
        """Moments in the order of their steps."""
        return cls(
            tuple(steps),
            np.stack([one.intensity for one in moments]),
            np.stack([one.confidence for one in moments]),
            location_shares(prototypes.assignments, prototypes.count),
            labels,
        )

    @property
    def accuracy(self) -> np.ndarray:
        """Share of the images whose class is the most confident one, float64 (T,); higher is better."""
        return (self.confidence.argmax(2) == self.labels).mean(1)

    def confusion(self, at: int = -1) -> np.ndarray:
        """Images of class row that were taken for class column at moment ``at``, int (classes, classes)."""
        count = self.confidence.shape[2]
        taken = self.confidence[at].argmax(1)
        return np.bincount(self.labels * count + taken, minlength=count * count).reshape(count, count)

    @property
    def most_confused(self) -> tuple[int, int]:
        """The two classes with images most often taken for each other, at the last moment that still confuses any."""
        own = self.populated
        for at in range(len(self.steps) - 1, -1, -1):
            wrong = self.confusion(at)[np.ix_(own, own)]
            np.fill_diagonal(wrong, 0)
            if wrong.any():
                a, b = confused(wrong)
                return own[a], own[b]
        return (own[0], own[1]) if len(own) > 1 else (0, 1)

    @property
    def populated(self) -> list[int]:
        """The classes that have images here, rising; the data may hold only some of the model's."""
        return [int(c) for c in np.unique(self.labels)]

    def mean_intensity(self, members: np.ndarray) -> np.ndarray:
        """Mean over the images ``members``, bool (n,), that hold the prototype: float64 (T, K); NaN where none does.

        With one intensity per class the image's own class is meant.
        """
        held = (self.shares > 0) & members[:, None]
        own = self.intensity[..., 0] if self.intensity.shape[3] == 1 else self._own()
        weight = held.sum(0)
        with np.errstate(invalid="ignore"):
            return np.einsum("tnk,nk->tk", own, held.astype(np.float64)) / np.where(weight, weight, np.nan)

    def mean_confidence(self, members: np.ndarray) -> np.ndarray:
        """Mean confidence of the images ``members``, bool (n,): float64 (T, classes)."""
        return self.confidence[:, members].mean(1, dtype=np.float64)

    def _own(self) -> np.ndarray:
        return np.take_along_axis(self.intensity, self.labels[None, :, None, None], axis=3)[..., 0]
