"""Prototype intensity: the mean saliency over the locations that belong to a prototype.

Li et al. 2026 (arXiv 2603.10234), step 2.
"""

from __future__ import annotations

import numpy as np

from audit_core.i2x.prototypes import location_shares


def prototype_intensity(saliency: np.ndarray, assignments: np.ndarray, count: int) -> np.ndarray:
    """Intensity of every prototype in every image, float32 (n, K, targets); in the unit of the saliency.

    saliency: float (n, targets, rows, columns); assignments: int (n, rows, columns) in [0, K). A prototype that an
    image does not hold has intensity 0; :func:`presence` tells it from one that nothing answers to.
    """
    n, targets = saliency.shape[:2]
    cells = assignments.shape[1] * assignments.shape[2]
    owner = (assignments.reshape(n, -1).astype(np.int64) + np.arange(n)[:, None] * count).ravel()
    held = location_shares(assignments, count) * cells
    sums = np.stack(
        [np.bincount(owner, saliency[:, t].reshape(-1).astype(np.float64), n * count) for t in range(targets)], axis=1
    ).reshape(n, count, targets)
    return (sums / np.maximum(held, 1)[:, :, None]).astype(np.float32)


def presence(assignments: np.ndarray, count: int, least: float = 0.0) -> np.ndarray:
    """Whether more than the share ``least`` of an image's locations belong to a prototype, bool (n, K)."""
    return location_shares(assignments, count) > least
