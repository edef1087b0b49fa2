"""A number with its interval and sample size, and the percentile interval from resampled values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from audit_core.errors import InvalidParameter

Better = Literal["lower", "higher"]
LEVEL = 0.95
#: Above this share of resamples without a value an interval would describe the others only: none is given.
MISSING = 0.025


@dataclass(frozen=True)
class Interval:
    """Closed interval [low, high] that covers with probability ``level`` (0 to 1); ``method`` names how it was made."""

    low: float
    high: float
    level: float = LEVEL
    method: str = ""


@dataclass(frozen=True)
class Estimate:
    """A number that never travels without its interval and sample size.

    value: NaN only where ``note`` says why. low, high: 95 % interval, both None where there is none. n: how many
    things (units, contenders, fills: the maker says which) the value rests on. method: how the interval was made.
    note: why there is no interval, or what weakens it; empty when there is nothing to say.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str
    note: str = ""

    @property
    def interval(self) -> Interval | None:
        """The interval as one object, None where there is none."""
        if self.low is None or self.high is None:
            return None
        return Interval(self.low, self.high, LEVEL, self.method)


def direction(better: Better) -> float:
    """+1 when higher values are better, -1 when lower ones are; ``InvalidParameter`` for any other word."""
    if better not in ("lower", "higher"):
        raise InvalidParameter(f"better must be 'lower' or 'higher', got {better!r}; deletion AUC is better lower")
    return 1.0 if better == "higher" else -1.0


def present(values: np.ndarray) -> np.ndarray:
    """The values that are not NaN, float64 (n,). ``InvalidParameter`` for several axes or an infinite value."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise InvalidParameter(f"values must be one-dimensional (n,), got shape {found.shape}; flatten them first")
    if infinite := int(np.isinf(found).sum()):
        raise InvalidParameter(f"{infinite} of {found.size} values are infinite; write NaN where a value is missing")
    return found[~np.isnan(found)]


def percentile_bounds(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % quantile over the first axis (Efron 1979), float64 of shape resampled.shape[1:] each.

    resampled: float (B, ...); NaN is left out, and a place without any value gets NaN.
    """
    flat = resampled.reshape(len(resampled), int(np.prod(resampled.shape[1:], dtype=int)))
    bounds = np.full((2, flat.shape[1]), np.nan)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    missing = np.isnan(flat)
    whole = ~missing.any(axis=0)
    if whole.any():
        bounds[:, whole] = np.quantile(flat[:, whole], tails, axis=0)
    for place in np.flatnonzero(~whole & ~missing.all(axis=0)):
        bounds[:, place] = np.quantile(flat[~missing[:, place], place], tails)
    low, high = bounds.reshape(2, *resampled.shape[1:])
    return low, high


def from_resamples(value: float, resampled: np.ndarray, n: int, method: str, note: str = "") -> Estimate:
    """``value`` with the percentile interval of its resampled values, float (B,); NaN where a resample had none.

    A NaN value, or more than 2.5 % of the resamples without a value, gets no interval, and the note says so.
    """
    if np.isnan(value):
        return Estimate(float("nan"), None, None, n, method, note or "the value is not defined")
    defined = resampled[np.isfinite(resampled)]
    absent = len(resampled) - len(defined)
    if not len(defined) or absent > MISSING * len(resampled):
        why = f"{absent} of {len(resampled)} resamples have no value; more units are needed for an interval"
        return Estimate(float(value), None, None, n, method, why)
    low, high = percentile_bounds(defined)
    return Estimate(float(value), float(low), float(high), n, method, note)
