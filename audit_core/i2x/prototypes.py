"""Abstract prototypes of the final model, as they are kept (Li et al. 2026, arXiv 2603.10234). Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prototypes:
    """K centres in the reduced space, and the prototype of every location, fixed from here on.

    assignments: int (n, rows, columns) in [0, K); distances: float32 of the same shape, to the own centre, lower is
    more typical; centres: (K, components); mean: (channels,) and components: (components, channels) of the PCA, no
    rows where there was none; explained: share of the variance that the PCA keeps; judged: (K, score) of the
    candidates, higher is better, empty where K was given.
    """

    layer: str
    assignments: np.ndarray
    distances: np.ndarray
    centres: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    explained: float
    judged: tuple[tuple[int, float], ...] = ()

    @property
    def count(self) -> int:
        """K."""
        return len(self.centres)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the stage."""
        return self.assignments.shape[1], self.assignments.shape[2]

    @property
    def shares(self) -> np.ndarray:
        """Share of each image's locations that belong to each prototype, float64 (n, K); rows sum to 1."""
        return location_shares(self.assignments, self.count)

    def strongest(self, prototype: int, most: int = 9) -> list[tuple[int, int, int]]:
        """(image, row, column) of the most typical locations of a prototype, each from another image."""
        distances = np.where(self.assignments == prototype, self.distances, np.inf).reshape(len(self.assignments), -1)
        place, best = distances.argmin(1), distances.min(1)
        order = np.argsort(best, kind="stable")[:most]
        return [(int(i), *divmod(int(place[i]), self.grid[1])) for i in order if np.isfinite(best[i])]


def location_shares(assignments: np.ndarray, count: int) -> np.ndarray:
    """Share of each image's locations per prototype, float64 (n, K); assignments: int (n, rows, columns)."""
    flat = assignments.reshape(len(assignments), -1).astype(np.int64)
    owner = np.arange(len(flat))[:, None] * count
    counts = np.bincount((flat + owner).ravel(), minlength=len(flat) * count)
    return counts.reshape(len(flat), count) / flat.shape[1]
