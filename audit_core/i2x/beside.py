"""What stands between a ranking and a trajectory: when a rank changed, and which prototype rose at that time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.ranking import RankPath


@dataclass(frozen=True)
class Place:
    """One contender under one fill along a run.

    ranks, low, high: float64 (T,), 1 is best, with 95 % interval over images, NaN where there is no number; tau: of
    the whole order with the last checkpoint's, float64 (T,); changes: moments t whose rank differs from that of t - 1.
    """

    ranks: np.ndarray
    low: np.ndarray
    high: np.ndarray
    tau: np.ndarray
    changes: tuple[int, ...]

    @property
    def settled(self) -> int:
        """The first moment from which on the rank no longer changes."""
        return self.changes[-1] if self.changes else 0


def place_of(path: RankPath, explainer: str, fill: str) -> Place:
    """The path of one explainer under one fill."""
    at, table = path.explainers.index(explainer), path.ranks[fill]
    ranks = table.rank[at]
    both = ~np.isnan(ranks[1:]) & ~np.isnan(ranks[:-1])
    changes = tuple(int(t) + 1 for t in np.flatnonzero(both & (np.diff(ranks) != 0)))
    tau = np.array([one.value for one in path.tau[fill]], dtype=np.float64)
    return Place(ranks, table.low[at], table.high[at], tau, changes)


@dataclass(frozen=True)
class Rise:
    """The prototype whose mean intensity rose most at a transition.

    rise: in the unit of the intensity; up: the class that it pushed most, by ``push`` in units of confidence.
    """

    prototype: int
    rise: float
    up: int
    push: float


def riser(made: Analysis, transition: int, members: np.ndarray) -> Rise | None:
    """Over the images ``members``, bool (n,), at one transition; None where no intensity rose."""
    seen = made.trajectory
    change = np.nan_to_num(np.diff(seen.mean_intensity(members), axis=0)[transition])
    k = int(change.argmax())
    if change[k] <= 0:
        return None
    pushes = made.pushes(members)[transition, k]
    return Rise(k, float(change[k]), int(pushes.argmax()), float(pushes.max()))
