"""BCa intervals of many statistics from the same resamples: one product of matrices in place of a loop over cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from audit_core.statistics import Estimate
from audit_core.statistics.estimates import from_resamples

BCA, PERCENTILE = "BCa bootstrap", "percentile bootstrap"
_TAILS = special.ndtri([0.025, 0.975])

#: Sums (S, ...) of S columns over the drawn groups -> T statistics (T, ...).
Statistics = Callable[[np.ndarray], np.ndarray]


def times_drawn(groups: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each group is drawn in each resample, float64 (resamples, groups); every row sums to ``groups``."""
    index = rng.integers(groups, size=(resamples, groups)) + np.arange(resamples)[:, None] * groups
    return np.bincount(index.ravel(), minlength=resamples * groups).reshape(resamples, groups).astype(np.float64)


def bca_of_sums(
    columns: np.ndarray, statistics: Statistics, n: np.ndarray, drawn: np.ndarray, note: str = ""
) -> list[list[Estimate]]:
    """95 % BCa intervals (Efron 1987) of T statistics of each of K samples; result[t][k].

    columns: float (S, K, G), sums over each of G groups of units; drawn: :func:`times_drawn`, shared by all samples, so
    that they stay paired; n: int (K,), units behind each sample. Bias and acceleration (jackknife over groups) as in
    ``scipy.stats.bootstrap``. Written answers: no unit gives NaN, one gives no interval, resamples that all agree give
    width 0; where BCa is not defined the interval is the percentile one. Each has a note.
    """
    held = columns.any(axis=0).sum(axis=-1)  # groups behind each sample
    with np.errstate(all="ignore"):
        total = columns.sum(axis=-1)
        point, found = statistics(total), statistics(_products(columns, drawn))
        low, high = _bounds(point, found, statistics(total[..., None] - columns))
    return [
        [_one(point[t, k], low[t, k], high[t, k], found[t, k], int(n[k]), int(held[k]), note) for k in range(len(n))]
        for t in range(len(point))
    ]


def ratio(sums: np.ndarray) -> np.ndarray:
    """The mean from (total, count), (2, ...) to (1, ...)."""
    return (sums[0] / sums[1])[None]


def _products(columns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Sums over the drawn groups, (S, K, G) x (B, G) to (S, K, B)."""
    return (columns.reshape(-1, columns.shape[-1]) @ drawn.T).reshape(*columns.shape[:2], len(drawn))


def _bounds(point: np.ndarray, drawn: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the BCa interval, (T, K) each, from resamples (T, K, B) and jackknife (T, K, G); NaN = undefined."""
    tolerance = 1e-12 * np.maximum(np.abs(point), np.ptp(drawn, axis=-1))  # what ties but for rounding must tie
    below = (drawn < (point - tolerance)[..., None]).mean(axis=-1)
    share = (below + (drawn <= (point + tolerance)[..., None]).mean(axis=-1)) / 2
    away = left_out.mean(axis=-1, keepdims=True) - left_out
    acceleration = (away * away * away).sum(axis=-1) / (6 * (away * away).sum(axis=-1) ** 1.5)
    bias = special.ndtri(share)
    ordered = np.sort(drawn, axis=-1)
    defined = np.isfinite(bias) & np.isfinite(acceleration) & np.isfinite(ordered[..., -1])
    low, high = (
        np.where(
            defined, _quantile(ordered, special.ndtr(bias + (bias + tail) / (1 - acceleration * (bias + tail)))), np.nan
        )
        for tail in _TAILS
    )
    return low, high


def _quantile(ordered: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear quantile of sorted values (..., B), each at a place of its own in [0, 1], (...)."""
    at = np.nan_to_num(place) * (ordered.shape[-1] - 1)
    first = np.minimum(at.astype(int), ordered.shape[-1] - 2)
    left, right = (np.take_along_axis(ordered, (first + step)[..., None], axis=-1)[..., 0] for step in (0, 1))
    found: np.ndarray = left + (at - first) * (right - left)
    return found


def _one(point: float, low: float, high: float, drawn: np.ndarray, n: int, groups: int, note: str) -> Estimate:
    if not n:
        return Estimate(float("nan"), None, None, 0, BCA, "no value is present")
    if n == 1 or groups == 1:
        return Estimate(float(point), None, None, n, BCA, "one image has no interval")
    if np.isnan(point):
        return Estimate(float("nan"), None, None, n, BCA, "the values do not vary: the difference has no scale")
    if float(np.ptp(drawn)) <= 1e-12 * abs(point):
        return Estimate(float(point), float(point), float(point), n, PERCENTILE, "all resamples agree: width 0")
    if low < high:
        return Estimate(float(point), float(low), float(high), n, BCA, note)
    return from_resamples(float(point), drawn, n, PERCENTILE, "BCa is not defined here: percentile interval")
