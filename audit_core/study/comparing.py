"""Many paired comparisons at once, from the same resamples of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from audit_core.statistics import Better, Estimate, Paired
from audit_core.statistics.bootstrap import GROUPS, random_groups
from audit_core.statistics.effects import small_sample_correction, standardised
from audit_core.study.joint import bca_of_sums, times_drawn


def compare(a: np.ndarray, b: np.ndarray, way: Better, rng: np.random.Generator, resamples: int = 2000) -> list[Paired]:
    """K paired comparisons at once, each as :func:`audit_core.statistics.paired`, from the same resamples of units.

    a, b: float (K, U), NaN = missing; a pair counts where both are there. More than 2,000 units are put together at
    random into 2,000 groups, the same for all comparisons.
    """
    units = a.shape[1]
    group = np.arange(units) if units <= GROUPS else random_groups(units, rng)
    groups = int(group.max(initial=0)) + 1
    sums = np.stack([_sums(x, y, way, group, groups) for x, y in zip(a, b, strict=True)], axis=1)
    n = sums[0].sum(axis=-1).astype(np.int64)
    note = f"{units} images in {groups} random groups" if units > groups else ""
    found = bca_of_sums(sums, _effects, n, times_drawn(groups, resamples, rng), note)
    return [_paired(a[k], b[k], int(n[k]), *(row[k] for row in found)) for k in range(len(n))]


def _sums(a: np.ndarray, b: np.ndarray, way: Better, group: np.ndarray, groups: int) -> np.ndarray:
    """Six columns of sums by group, float64 (6, G): n, a - b, a + b, a² + b², (a - b)², wins of a (ties half)."""
    held = ~np.isnan(a - b)
    x, y, at = a[held], b[held], group[held]
    middle = (x.mean() + y.mean()) / 2 if len(x) else 0.0  # taken off, so that the sums of squares keep their digits
    wins = np.where(x == y, 0.5, (x > y) if way == "higher" else (x < y))
    x, y = x - middle, y - middle
    return np.stack(
        [np.bincount(at, one, groups) for one in (np.ones(len(x)), x - y, x + y, x**2 + y**2, (x - y) ** 2, wins)]
    )


def _effects(sums: np.ndarray) -> np.ndarray:
    """Mean difference, d (Cohen 1988, pooled spread), d_z and share of wins, (6, …) to (4, …)."""
    n, difference, both, squares, difference_squares, wins = sums
    pooled = np.maximum(squares - (both**2 + difference**2) / (2 * n), 0) / (2 * n - 2)
    spread = np.maximum(difference_squares - difference**2 / n, 0) / (n - 1)
    mean = difference / n
    return np.stack([mean, standardised(mean, np.sqrt(pooled)), standardised(mean, np.sqrt(spread)), wins / n])


def _corrected(d: Estimate, n: int) -> Estimate:
    """Hedges' g (1981) of Cohen's d over n pairs."""
    factor = small_sample_correction(2 * n - 2)
    low, high = (None if bound is None else bound * factor for bound in (d.low, d.high))
    return replace(d, value=d.value * factor, low=low, high=high)


def _paired(
    a: np.ndarray, b: np.ndarray, n: int, mean: Estimate, d: Estimate, d_z: Estimate, probability: Estimate
) -> Paired:
    """With Hedges' g and the p of Wilcoxon's signed-rank test (1945), zero differences dropped."""
    difference = (a - b)[~np.isnan(a - b)]
    p, note = float("nan"), "no image has both values"
    if len(difference) and not difference.any():
        p, note = 1.0, "no image differs: p is 1 by definition"
    elif len(difference):
        p, note = float(stats.wilcoxon(difference, zero_method="wilcox").pvalue), ""
    return Paired(n, mean, d, d_z, _corrected(d, n), p, probability, note)
