"""How large a difference is in units of the spread."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from audit_core.statistics.estimates import present

#: A standard deviation below this share of the difference is rounding: the difference has no scale.
ROUNDING = 1e-6


def cohen_d(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's d = (mean a - mean b) / pooled standard deviation (Cohen 1988, section 2.2), the audited paper's.

    a, b: float (n,) and (m,), NaN left out; they need not be paired. Negative: a is the smaller one, which is better
    for deletion AUC. 0 for equal means; NaN where nothing varies (the difference has no scale) or n + m < 3.
    """
    a, b = present(a), present(b)
    if not len(a) or not len(b) or len(a) + len(b) < 3:
        return float("nan")
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in (a, b))
    return float(standardised(a.mean() - b.mean(), np.sqrt(squares / (len(a) + len(b) - 2))))


def cohen_d_z(difference: np.ndarray) -> float:
    """Cohen's d_z = mean / standard deviation of paired differences, float (n,) (Cohen 1988, section 2.3.5).

    NaN values are left out; the sign is that of the difference. 0 for mean 0; NaN where all differences are equal
    and not 0 (no scale) or n < 2.
    """
    found = present(difference)
    return float(standardised(found.mean(), found.std(ddof=1))) if len(found) > 1 else float("nan")


def hedges_g(a: np.ndarray, b: np.ndarray) -> float:
    """Hedges' g: Cohen's d times the exact small-sample correction J(n + m - 2) (Hedges 1981); arguments as there."""
    return cohen_d(a, b) * small_sample_correction(len(present(a)) + len(present(b)) - 2)


def small_sample_correction(freedom: int) -> float:
    """J(v) = gamma(v/2) / (sqrt(v/2) gamma((v-1)/2)) in (0, 1), of v degrees of freedom; NaN for v < 2.

    Hedges 1981, equation 6e; about 1 - 3 / (4 v - 1).
    """
    if freedom < 2:
        return float("nan")
    return float(np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))


def standardised(difference: np.ndarray | float, deviation: np.ndarray | float) -> np.ndarray:
    """difference / deviation, element by element; 0 where the difference is 0, NaN where only rounding varies."""
    difference, deviation = np.asarray(difference, float), np.asarray(deviation, float)
    scaled = deviation > ROUNDING * np.abs(difference)
    ratio = difference / np.where(scaled, deviation, np.nan)
    return np.where(difference == 0, 0.0, ratio)
