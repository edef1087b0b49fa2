"""The interval that stands beside a mean, in one place."""

from __future__ import annotations

import numpy as np
from scipy import stats


def mean_interval(sample: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean of a sample (n >= 1) and its 95 % Student t interval; no interval for a single number.

    Student 1908; the sample's units are drawn independently. Equal values give an interval of width 0.
    """
    mean, n = float(np.mean(sample)), len(sample)
    if n < 2:
        return mean, None, None
    half = float(stats.t.ppf(0.975, n - 1) * np.std(sample, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half
