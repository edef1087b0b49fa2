"""Which pairs of contenders change places when the fill changes, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_core.statistics.estimates import LEVEL, Better, Estimate, direction, from_resamples
from audit_core.statistics.ranks import PERCENTILE, check


@dataclass(frozen=True)
class Reversal:
    """Contenders ``first`` < ``second`` (indices) over F fills.

    reverses: the better one by the point estimates is the worse one under another fill. between: pairs (i, k), i < k,
    of fills that disagree. probability: share of the resamples in which at least two fills disagree.
    probability_between: float64 (F, F), the same for each two fills; NaN where a number is missing. certain: under
    one fill ``first`` wins in more than 97.5 % of the resamples and under another ``second`` does, so the 95 %
    percentile intervals of the difference lie on opposite sides of 0 (each by itself, not corrected for the number
    of pairs). share_of_fills: share of the fills under which ``first`` beats ``second``, ties half; its ``n`` is the
    number of fills with both. No difference at all is neither order.
    """

    first: int
    second: int
    reverses: bool
    between: tuple[tuple[int, int], ...]
    probability: float
    probability_between: np.ndarray
    certain: bool
    share_of_fills: Estimate


def reversals(point: np.ndarray, resampled: np.ndarray, better: Better) -> list[Reversal]:
    """Every pair of contenders (first < second), in order: does the fill decide which of the two is better?

    point: float (C, F) means; resampled: float (B, C, F) means of joint resamples; NaN = no number, left out.
    A probability counts the resamples of numbers that exist; with fewer than two fills nothing can reverse.
    """
    check(point, resampled)
    sign = direction(better)
    by_cell = np.ascontiguousarray(resampled.transpose(1, 2, 0))  # (C, F, B)
    found = []
    for first in range(len(point) - 1):
        lead = sign * (point[first] - point[first + 1 :])
        drawn = sign * (by_cell[first] - by_cell[first + 1 :])
        found += _with_all_later(first, lead, np.where(np.isnan(lead)[:, :, None], np.nan, drawn))
    return found


def _with_all_later(first: int, lead: np.ndarray, drawn: np.ndarray) -> list[Reversal]:
    """lead (K, F), drawn (K, F, B): advantage of ``first`` over each of the K contenders after it; above 0 = wins."""
    wins, losses, held = drawn > 0, drawn < 0, ~np.isnan(drawn)
    any_two = (wins.any(axis=1) & losses.any(axis=1)).mean(axis=1)
    two = _two_disagree(*(truth.astype(np.float32) for truth in (wins, losses, held)))
    number = held.sum(axis=2)
    certain = _beyond(wins, number) & _beyond(losses, number)
    shares = _share(wins, losses, held)
    point = _share(lead > 0, lead < 0, ~np.isnan(lead))
    fills = (~np.isnan(lead)).sum(axis=1)
    return [
        Reversal(
            first,
            first + 1 + k,
            bool(between := _disagreeing(lead[k])),
            between,
            float(any_two[k]),
            two[k],
            bool(certain[k]),
            from_resamples(point[k], shares[k], int(fills[k]), PERCENTILE, "" if fills[k] else "no fill has both"),
        )
        for k in range(len(lead))
    ]


def _disagreeing(lead: np.ndarray) -> tuple[tuple[int, int], ...]:
    signs = np.sign(np.nan_to_num(lead))
    return tuple((int(i), int(k)) for i, k in np.argwhere(np.triu(np.outer(signs, signs) < 0)))


def _two_disagree(wins: np.ndarray, losses: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Share of the resamples with both numbers in which two fills disagree, float32 (K, F, B) to float64 (K, F, F)."""
    opposite = (wins @ losses.transpose(0, 2, 1)).astype(np.float64)
    opposite += opposite.transpose(0, 2, 1).copy()
    together = (held @ held.transpose(0, 2, 1)).astype(np.float64)
    return opposite / np.where(together > 0, together, np.nan)


def _beyond(true: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Is more than 97.5 % of the resamples true under some fill, bool (K, F, B) to (K,)."""
    return (true.sum(axis=2) > (1 + LEVEL) / 2 * number).any(axis=1)


def _share(wins: np.ndarray, losses: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Share of the present fills (axis 1) that are won, ties half; NaN without any."""
    fills = held.sum(axis=1)
    return (0.5 + 0.5 * (wins.sum(axis=1) - losses.sum(axis=1)) / np.where(fills > 0, fills, np.nan)).astype(np.float64)
