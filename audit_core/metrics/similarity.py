"""How alike two maps of one image are, as one number that is always there."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from audit_core.agreement import spearman

SMALL = 32  # side of the maps kept for drawing, at most


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one shape, in [-1, 1].

    0 where one of them is constant or not finite: such a map has no order, so it agrees with nothing.
    """
    flat = np.stack([first.ravel(), second.ravel()])[:, None]
    if not np.isfinite(flat).all():
        return 0.0
    found = float(spearman(flat)[0, 1])
    return found if np.isfinite(found) else 0.0


def structure(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity (SSIM) of two maps (rows, columns), each rescaled to 0 to 1 first; in [-1, 1].

    Wang et al. 2004, windows of 7 pixels or what fits. 0 where a map is constant or not finite.
    """
    if any(not np.isfinite(one).all() or np.ptp(one) == 0 for one in (first, second)):
        return 0.0
    window = min(7, *(n - 1 + n % 2 for n in first.shape))
    scaled = [(one.astype(np.float64) - one.min()) / np.ptp(one) for one in (first, second)]
    return float(structural_similarity(*scaled, data_range=1.0, win_size=window, use_sample_covariance=window > 1))


def small(values: np.ndarray) -> list[list[float]]:
    """A map (rows, columns) as plain numbers, averaged to at most 32 x 32; what is not finite becomes 0."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    size = tuple(min(n, SMALL) for n in values.shape)
    averaged = F.adaptive_avg_pool2d(torch.from_numpy(finite)[None], size)[0]
    return [[float(f"{x:.4g}") for x in row] for row in averaged.tolist()]
