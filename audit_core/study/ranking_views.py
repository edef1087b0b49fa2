"""What a ranking under several fills shows: means, ranks, agreement of fills, and pairs that change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_core.statistics import Estimate, RankTable, Scheme, TauTable
from audit_core.study.filters import Filters
from audit_core.study.plain import View


@dataclass(frozen=True)
class PairReversal:
    """Two contenders over all fills; fields of :class:`~audit_core.statistics.Reversal` with names.

    wins_under, loses_under: the two fills at which ``first`` changes from better to worse most surely, "" where the
    means do not reverse; directed: share of the resamples with just that order under these two fills; gap: the smaller
    of the two differences of means there, in the metric's unit; probability: share of the resamples in which any two
    fills disagree; share_of_fills: of all fills, under how many ``first`` is the better one.
    """

    first: str
    second: str
    reverses: bool
    certain: bool
    wins_under: str
    loses_under: str
    directed: float
    gap: float
    probability: float
    share_of_fills: Estimate


@dataclass(frozen=True)
class SchemeView:
    """What resampling says; scheme: "images" (for these very networks) or "runs+images" (for retrained networks).

    low, high: float64 (C, F), 95 % percentile interval of the means; ranks: (C, F); mean_rank: per contender over the
    fills; tau: (F, F); pairs: surest reversal first; summary: agreement of mean SRG with each fill's order (tau-b),
    empty where the study has no SRG; headline: one sentence.
    """

    scheme: Scheme
    low: np.ndarray
    high: np.ndarray
    ranks: RankTable
    mean_rank: tuple[Estimate, ...]
    tau: TauTable
    pairs: tuple[PairReversal, ...]
    summary: tuple[Estimate, ...]
    headline: str


@dataclass(frozen=True)
class ReversalView(View):
    """Contenders (C) under fills (F), the fill that keeps images best in the model's scope first.

    scope: mean R-OMS of each fill over checkpoints with its t interval, None where it was not measured; such fills
    stand last, and ``scope_note`` says so. means: float64 (C, F), n: numbers behind them; srg: mean SRG of each
    contender over the fills, float64 (C,), NaN = none. schemes: "images" and, where a family has two training runs,
    "runs+images".
    headline: that of the last, most demanding scheme.
    """

    metric: str
    better: str
    filters: Filters
    contenders: tuple[str, ...]
    fills: tuple[str, ...]
    scope: tuple[Estimate | None, ...]
    scope_note: str
    means: np.ndarray
    n: np.ndarray
    srg: np.ndarray
    schemes: tuple[SchemeView, ...]
    headline: str

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers and words
        """One row per contender, fill and scheme."""
        return [
            {
                "scheme": one.scheme,
                "contender": contender,
                "fill": fill,
                "n": int(self.n[c, f]),
                "mean": self.means[c, f],
                "low": one.low[c, f],
                "high": one.high[c, f],
                "rank": one.ranks.rank[c, f],
                "rank_low": one.ranks.low[c, f],
                "rank_high": one.ranks.high[c, f],
                "probability_best": one.ranks.probability_best[c, f],
            }
            for one in self.schemes
            for c, contender in enumerate(self.contenders)
            for f, fill in enumerate(self.fills)
        ]
