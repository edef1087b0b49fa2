"""Ranks of contenders, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics.estimates import Better, Estimate, direction, from_resamples

PERCENTILE = "percentile of joint resamples"


@dataclass(frozen=True)
class RankTable:
    """Rank of every contender under every fill, float64 (C, F) each; 1 = best, NaN = no number.

    rank: of the point estimates, ties share their mean rank. low, high: 95 % interval of the rank, widened outwards
    to ranks that occurred. probability_best: share of the resamples in which the contender has the best value,
    divided among ties; sums to 1 under each fill.
    """

    rank: np.ndarray
    low: np.ndarray
    high: np.ndarray
    probability_best: np.ndarray


def rank(values: np.ndarray, better: Better, axis: int = 0) -> np.ndarray:
    """Ranks along ``axis``, float64 of the shape of ``values``: 1 = best, ties share their mean rank.

    values: float (C,) or more axes; NaN stays NaN and takes no rank. ``better``: "lower" or "higher" values win.
    """
    oriented = -direction(better) * np.asarray(values, dtype=np.float64)
    missing = np.isnan(oriented)
    ranks = stats.rankdata(np.where(missing, np.inf, oriented), axis=axis).astype(np.float64)
    ranks[missing] = np.nan
    return ranks


def rank_intervals(point: np.ndarray, resampled: np.ndarray, better: Better) -> RankTable:
    """Ranks of the means ``point`` float (C, F) with percentile intervals from ``resampled`` float (B, C, F).

    Resamples come from :func:`~audit_core.statistics.resample`: all contenders share the drawn units. Near ties the
    bootstrap of a rank is not consistent (Hall & Miller 2009): it shows how easily the order changes and is no test.
    """
    check(point, resampled)
    ranks = rank(resampled, better, axis=1)
    low, high = np.full(point.shape, np.nan), np.full(point.shape, np.nan)
    for place in np.argwhere(~np.isnan(point)):
        drawn = ranks[:, place[0], place[1]]
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            low[tuple(place)] = np.quantile(drawn, 0.025, method="lower")
            high[tuple(place)] = np.quantile(drawn, 0.975, method="higher")
    return RankTable(rank(point, better), low, high, _probability_best(point, resampled, better))


def mean_ranks(point: np.ndarray, resampled: np.ndarray, better: Better) -> list[Estimate]:
    """Mean rank of each contender over the fills, 1 = best under every fill, with a percentile interval.

    point: float (C, F); resampled: float (B, C, F). ``n`` = the fills under which the contender has a number; without
    any the value is NaN and the note says so. Contenders with fewer fills are ranked among those present there.
    """
    check(point, resampled)
    held = ~np.isnan(point)
    middle = _mean_over_fills(rank(point, better), held)
    drawn = _mean_over_fills(rank(resampled, better, axis=1), held)
    return [
        from_resamples(middle[c], drawn[:, c], int(held[c].sum()), PERCENTILE, "" if held[c].any() else "no number")
        for c in range(len(point))
    ]


def check(point: np.ndarray, resampled: np.ndarray) -> None:
    """``InvalidParameter`` unless point is (C, F) and resampled (B, C, F) with B >= 1."""
    if np.ndim(point) != 2 or np.shape(resampled)[1:] != np.shape(point) or not len(resampled):
        raise InvalidParameter(
            "point must be (contenders, fills) and resampled (resamples, contenders, fills), "
            f"got {np.shape(point)} and {np.shape(resampled)}"
        )


def _mean_over_fills(ranks: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the places ``held`` (C, F); NaN where a held place or all of them have no rank."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(held, ranks, 0.0).sum(axis=-1) / held.sum(axis=-1)


def _probability_best(point: np.ndarray, resampled: np.ndarray, better: Better) -> np.ndarray:
    oriented = np.where(np.isnan(resampled), -np.inf, direction(better) * resampled)
    top = oriented.max(axis=1, keepdims=True)
    best = (oriented == top) & np.isfinite(top)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(best, 1.0 / best.sum(axis=1, keepdims=True), 0.0).sum(axis=0)
        share /= np.isfinite(top[:, 0]).sum(axis=0)
    return np.where(np.isnan(point), np.nan, share)
