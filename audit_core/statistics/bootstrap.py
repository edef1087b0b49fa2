"""Bootstrap intervals over independent units: bias-corrected and accelerated (BCa)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics.estimates import Estimate, from_resamples, present

#: More units than this are first put together at random into so many groups.
GROUPS = 2_000
BATCH = 2_000_000  # drawn indices held at once


def random_groups(n: int, rng: np.random.Generator, groups: int = GROUPS) -> np.ndarray:
    """Group of each of ``n`` units, int64 (n,) in [0, min(n, groups)); random, and equal in size to within one.

    The resampling spread of a sum over groups drawn whole is, up to a factor 1 - 1/groups, that of the sum over units.
    """
    return rng.permutation(n) % max(1, min(n, groups))


def grouped(columns: Sequence[np.ndarray], rng: np.random.Generator, groups: int = GROUPS) -> list[np.ndarray]:
    """Columns float (n,) summed within random groups where n is above ``groups``, else as they are."""
    if len(columns[0]) <= groups:
        return list(columns)
    group = random_groups(len(columns[0]), rng, groups)
    return [np.bincount(group, column, groups) for column in columns]


def bca(
    sample: np.ndarray, statistic: Literal["mean", "median"], rng: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """Mean or median of a sample with its bias-corrected and accelerated 95 % bootstrap interval (Efron 1987).

    sample: float (n,), NaN = missing and left out; n of the estimate = the values used. More than 2,000 values are
    first put together at random into 2,000 groups, whose sums and counts are resampled (mean), or the order
    statistics of the resamples are drawn from their exact law with a percentile interval (median); the note says so.
    Written answers: no value gives NaN, one value gives no interval, equal values give an interval of width 0; where
    the acceleration or the bias is not defined the interval is the percentile one. Each has a note, none warns.
    """
    if statistic not in ("mean", "median"):
        raise InvalidParameter(f"statistic must be 'mean' or 'median', got {statistic!r}")
    values = present(sample)
    if len(values) < 2 or np.ptp(values) == 0:
        return without_spread(values)
    if statistic == "median" and len(values) > GROUPS:
        return _median_of_many(values, rng, resamples)
    n = len(values)
    if statistic == "median":
        return bca_many([values], _median, [float(np.median(values))], n, rng, resamples)[0]
    return bca_many([values, np.ones(n)], _mean, [float(values.mean())], n, rng, resamples)[0]


def bca_many(
    columns: Sequence[np.ndarray],
    statistics: Callable[..., np.ndarray],
    values: Sequence[float],
    n: int,
    rng: np.random.Generator,
    resamples: int,
) -> list[Estimate]:
    """BCa intervals of k statistics from the same resamples of the rows of ``columns`` (float (n,) each).

    statistics: maps columns (..., n) to (k, ...); values: its k results on the whole sample, as reported. A statistic
    that BCa cannot treat gets the percentile interval of its defined resamples, with a note.
    """
    columns = grouped(columns, rng)
    note = f"{n} units in {GROUPS} random groups" if n > GROUPS else ""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            columns,
            lambda *rows, axis=-1: _rounded(statistics(*rows)),
            paired=True,
            vectorized=True,
            method="BCa",
            n_resamples=resamples,
            batch=max(1, BATCH // (4 * len(columns[0]))),
            rng=rng,
        )
    drawn, (lows, highs) = found.bootstrap_distribution, found.confidence_interval
    return [
        _one(float(value), float(low), float(high), row, n, note)
        for value, low, high, row in zip(values, lows, highs, drawn, strict=True)
    ]


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return (total.sum(axis=-1) / count.sum(axis=-1))[None]


def _median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=-1)[None]


def _rounded(values: np.ndarray) -> np.ndarray:
    """To 12 digits of the mantissa: resamples that tie but for rounding must tie, or the bias correction is off."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa, 12), exponent)


def _median_of_many(values: np.ndarray, rng: np.random.Generator, resamples: int) -> Estimate:
    n, drawn = len(values), _resampled_medians(np.sort(values), rng, resamples)
    note = f"{n} units: the resamples' order statistics are drawn from their exact law"
    return from_resamples(float(np.median(values)), drawn, n, "percentile bootstrap", note)


def _resampled_medians(ordered: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """The m-th smallest of n uniform draws follows Beta(m, n - m + 1), and the next one given it is a minimum."""
    n = len(ordered)
    middle = (n + 1) // 2
    lower = rng.beta(middle, n - middle + 1, resamples)
    upper = lower + (1 - lower) * rng.beta(1, n - middle, resamples) if n % 2 == 0 else lower
    at = [np.minimum((place * n).astype(int), n - 1) for place in (lower, upper)]
    return (ordered[at[0]] + ordered[at[1]]) / 2


def without_spread(values: np.ndarray, method: str = "percentile bootstrap") -> Estimate:
    """The written answers for no value, one value, and values float (n,) that are all equal."""
    if not len(values):
        return Estimate(float("nan"), None, None, 0, method, "no value is present")
    if len(values) == 1:
        return Estimate(float(values[0]), None, None, 1, method, "one value has no interval")
    value = float(values[0])
    return Estimate(value, value, value, len(values), method, "all values are equal: the interval has width 0")


def _one(value: float, low: float, high: float, drawn: np.ndarray, n: int, note: str) -> Estimate:
    if np.isfinite(drawn).all() and low < high:
        return Estimate(value, low, high, n, "BCa bootstrap", note)
    if np.isfinite(drawn).all() and np.ptp(drawn) == 0:
        why = "every resample gives the same value: the interval has width 0"
    else:
        why = "BCa is not defined here: percentile interval of the resamples that have a value"
    return from_resamples(value, drawn, n, "percentile bootstrap", why)
