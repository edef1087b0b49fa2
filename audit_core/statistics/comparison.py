"""Two contenders on the same units: difference, effect sizes, test and probability to win."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics.bootstrap import bca_many
from audit_core.statistics.effects import cohen_d, cohen_d_z, small_sample_correction, standardised
from audit_core.statistics.estimates import Better, Estimate, direction


@dataclass(frozen=True)
class Paired:
    """A against B over the n units on which both have a value.

    mean_difference: A - B in the values' unit. d, d_z, g: A - B in units of the pooled spread, of the differences'
    spread, and d corrected for small samples. p: two-sided Wilcoxon signed-rank test. probability: share of the units
    on which A beats B, ties half, in [0, 1]; 0.5 = neither. note: what is special about the test; mostly empty.
    """

    n: int
    mean_difference: Estimate
    d: Estimate
    d_z: Estimate
    g: Estimate
    p: float
    probability: Estimate
    note: str = ""


def paired(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 2000, *, better: Better) -> Paired:
    """Compare A with B, float (n,) each, unit by unit; pairs with a NaN are left out and ``n`` counts the others.

    All intervals are BCa (Efron 1987) from the same resamples of units, 2,000 random groups of them where there are
    more. d: Cohen 1988; g: Hedges 1981; p: Wilcoxon 1945, zero differences dropped as he did (scipy's "wilcox"), exact
    for small samples, else by the normal law; probability: P(A beats B) + P(tie) / 2, the measure of
    Vargha & Delaney (2000) over pairs of the same unit instead of all pairs. ``better`` says whether "lower" or
    "higher" values win. Written answers: no difference at all gives p = 1 with a note; no pair gives p = NaN with a
    note; effect sizes without a scale are NaN with a note.
    """
    sign, (a, b) = direction(better), _pairs(a, b)
    n, difference = len(a), a - b
    wins = np.where(difference == 0, 0.5, (sign * difference > 0).astype(float))
    if n < 2:
        return _too_few(difference, wins)
    middle = (a.mean() + b.mean()) / 2  # taken off, so that the sums of squares keep their digits
    x, y = a - middle, b - middle
    columns = [np.ones(n), difference, x + y, x**2 + y**2, difference**2, wins]
    values = [difference.mean(), cohen_d(a, b), cohen_d_z(difference), wins.mean()]
    mean, d, d_z, probability = bca_many(columns, _from_sums, values, n, rng, resamples)
    g = _times(d, small_sample_correction(2 * n - 2))
    p, note = _signed_rank(difference)
    return Paired(n, mean, _scaled(d), _scaled(d_z), _scaled(g), p, probability, note)


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidParameter(f"paired values must be two arrays (n,) over the same units: {a.shape} and {b.shape}")
    if infinite := int((np.isinf(a) | np.isinf(b)).sum()):
        raise InvalidParameter(f"{infinite} of {len(a)} pairs are infinite; write NaN where a value is missing")
    both = ~np.isnan(a - b)
    return a[both], b[both]


def _from_sums(*columns: np.ndarray) -> np.ndarray:
    """Mean difference, d, d_z and share of wins from sums over the last axis; six (..., groups) to (4, ...).

    A resample of groups has nearly n units; dividing by units - 1 is then what dividing by n - 1 is for the sample.
    """
    n, difference, both, squares, difference_squares, wins = (column.sum(axis=-1) for column in columns)
    pooled = np.maximum(squares - (both**2 + difference**2) / (2 * n), 0) / (2 * n - 2)
    spread = np.maximum(difference_squares - difference**2 / n, 0) / (n - 1)
    difference = difference / n
    d, d_z = (standardised(difference, np.sqrt(variance)) for variance in (pooled, spread))
    return np.stack([difference, d, d_z, wins / n])


def _signed_rank(difference: np.ndarray) -> tuple[float, str]:
    if not difference.any():
        return 1.0, "no unit differs: p is 1 by definition"
    return float(stats.wilcoxon(difference, zero_method="wilcox").pvalue), ""


def _times(effect: Estimate, factor: float) -> Estimate:
    low, high = (None if bound is None else bound * factor for bound in (effect.low, effect.high))
    return replace(effect, value=effect.value * factor, low=low, high=high)


def _scaled(effect: Estimate) -> Estimate:
    if not np.isnan(effect.value):
        return effect
    return replace(effect, low=None, high=None, note="the values do not vary: the difference has no scale")


def _too_few(difference: np.ndarray, wins: np.ndarray) -> Paired:
    """Written answer for no pair or one."""
    n = len(difference)
    note = "one pair has no spread" if n else "no unit has both values"
    mean, won = (Estimate(float(x[0]) if n else np.nan, None, None, n, "none", note) for x in (difference, wins))
    scale = Estimate(float("nan"), None, None, n, "none", note)
    return Paired(n, mean, scale, scale, scale, 1.0 if n else float("nan"), won, note)
