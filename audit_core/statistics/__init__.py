"""Statistics of a study: pure functions on arrays. C contenders, F fills, R training runs, U units; NaN = missing."""

from audit_core.statistics.bootstrap import bca, random_groups
from audit_core.statistics.clusters import clustered_bootstrap, paired_clustered
from audit_core.statistics.comparison import Paired, paired
from audit_core.statistics.compression import spread_compression
from audit_core.statistics.concordance import TauTable, agreement_of, fill_agreement
from audit_core.statistics.effects import cohen_d, cohen_d_z, hedges_g
from audit_core.statistics.estimates import Better, Estimate, Interval
from audit_core.statistics.ranks import RankTable, mean_ranks, rank, rank_intervals
from audit_core.statistics.resampling import Observations, Scheme, resample
from audit_core.statistics.reversal import Reversal, reversals
from audit_core.statistics.significance import Friedman, critical_difference, friedman, holm

__all__ = [
    "Better",
    "Estimate",
    "Friedman",
    "Interval",
    "Observations",
    "Paired",
    "RankTable",
    "Reversal",
    "Scheme",
    "TauTable",
    "agreement_of",
    "bca",
    "clustered_bootstrap",
    "cohen_d",
    "cohen_d_z",
    "critical_difference",
    "fill_agreement",
    "friedman",
    "hedges_g",
    "holm",
    "mean_ranks",
    "paired",
    "paired_clustered",
    "random_groups",
    "rank",
    "rank_intervals",
    "resample",
    "reversals",
    "spread_compression",
]
