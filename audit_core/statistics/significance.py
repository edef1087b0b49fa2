"""Several tests at once: Holm's correction, Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics.estimates import Better
from audit_core.statistics.ranks import rank

ALPHA = 0.05


@dataclass(frozen=True)
class Friedman:
    """Do C contenders differ over n units?

    statistic: chi-squared with C - 1 degrees of freedom, None where there is none. p: in [0, 1]. mean_ranks: float64
    (C,), 1 = best on every unit. critical_difference: mean ranks that differ by at least this much differ
    significantly at 0.05 (None where undefined). cliques: contenders' indices, best first, in maximal groups of two
    or more that do not differ significantly: the bars of a critical-difference diagram. note: which case this is.
    """

    statistic: float | None
    p: float
    mean_ranks: np.ndarray
    n: int
    critical_difference: float | None
    cliques: list[list[int]]
    note: str = ""


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number by Holm's step-down rule (1979), float64 of the shape of ``p``, in [0, 1].

    NaN (no test) stays NaN and does not count. ``InvalidParameter`` for values outside [0, 1].
    """
    found = np.array(p, dtype=np.float64)
    tested = ~np.isnan(found)
    if not tested.any():
        return found
    if ((found[tested] < 0) | (found[tested] > 1)).any():
        raise InvalidParameter(f"p-values must be in [0, 1], got {np.nanmin(found):g} to {np.nanmax(found):g}")
    from statsmodels.stats.multitest import multipletests  # slow to import

    found[tested] = multipletests(found[tested], method="holm")[1]
    return found


def friedman(values: np.ndarray, better: Better) -> Friedman:
    """Friedman's rank test (1937) of contenders over units, with Nemenyi's critical difference (1963; Demsar 2006).

    values: float (U, C); units with a NaN are left out, ``n`` counts the others. Ties share their mean rank and the
    statistic is corrected for them. CD = q(0.05, C, infinity) / sqrt(2) * sqrt(C (C + 1) / (6 n)). Contenders are
    told apart only when p < 0.05; else all form one clique.
    Written answers: two contenders get Wilcoxon's signed-rank p and no statistic; one contender, fewer than two units
    or nothing but ties get p = 1; the note says which.
    """
    if np.ndim(values) != 2:
        raise InvalidParameter(f"values must be (units, contenders), got shape {np.shape(values)}")
    whole = np.asarray(values, dtype=np.float64)[~np.isnan(values).any(axis=1)]
    n, contenders = whole.shape
    mean_ranks = rank(whole, better, axis=1).mean(axis=0) if n else np.full(contenders, np.nan)
    statistic, p, note = _test(whole)
    gap = critical_difference(contenders, n) if n > 1 and contenders > 1 else None
    if p >= ALPHA or gap is None:
        bars = cliques(mean_ranks, np.inf)
    else:
        bars = cliques(mean_ranks, gap if contenders > 2 else 0.0)
    return Friedman(statistic, p, mean_ranks, n, gap, bars, note)


def critical_difference(contenders: int, n: int) -> float:
    """Nemenyi's critical difference of mean ranks at 0.05 for C >= 2 contenders over n units (Demsar 2006, eq. 6)."""
    quantile = stats.studentized_range.ppf(1 - ALPHA, contenders, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(contenders * (contenders + 1) / (6 * n)))


def cliques(mean_ranks: np.ndarray, gap: float) -> list[list[int]]:
    """Maximal runs of neighbours in mean rank, float (C,), whose ends differ by less than ``gap``; two or more each.

    Indices, best first; runs may overlap. Contenders without a mean rank (NaN) belong to none.
    """
    order = [int(i) for i in np.argsort(mean_ranks, kind="stable") if not np.isnan(mean_ranks[i])]
    ordered, found, reached = np.asarray(mean_ranks, dtype=float)[order], [], 1
    for start in range(len(order)):
        end = int(np.searchsorted(ordered, ordered[start] + gap))  # the first one that differs
        if end > max(reached, start + 1):
            found.append(order[start:end])
            reached = end
    return found


def _test(values: np.ndarray) -> tuple[float | None, float, str]:
    n, contenders = values.shape
    if contenders < 2:
        return None, 1.0, "one contender has nothing to differ from"
    if n < 2:
        return None, 1.0, f"the test needs two units with every value, found {n}"
    if (values == values[:, :1]).all():
        return (0.0 if contenders > 2 else None), 1.0, "every unit is a tie of all contenders"
    if contenders == 2:
        p = float(stats.wilcoxon(values[:, 0] - values[:, 1], zero_method="wilcox").pvalue)
        return None, p, "Friedman's test needs three contenders: p is that of Wilcoxon's signed-rank test"
    statistic, p = stats.friedmanchisquare(*values.T)
    note = "" if p < ALPHA else "the contenders do not differ significantly as a whole: none are told apart"
    return float(statistic), float(p), note
