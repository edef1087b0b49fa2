"""What fine-tuning did, over its repeats: means as published, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from audit_core.i2x.strategies import Outcome
from audit_core.statistics.estimates import Estimate


@dataclass(frozen=True)
class Row:
    """One strategy: mean and standard deviation (ddof 0, as published) of both numbers over n repeats.

    accuracy: in [0, 1], higher is better; confusions: of the pair, lower is better; the two differences are against
    the baseline of as many epochs, repeat by repeat, with 95 % t intervals; None for a baseline itself.
    """

    strategy: str
    n: int
    accuracy: float
    accuracy_sd: float
    confusions: float
    confusions_sd: float
    baseline: str
    accuracy_difference: Estimate | None
    confusions_difference: Estimate | None


def table(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row per strategy, in the order of their first appearance; baselines: "full" and "full → full"."""
    names = list(dict.fromkeys(outcome.strategy for outcome in outcomes))
    rows = []
    for name in names:
        own = {outcome.repeat: outcome for outcome in outcomes if outcome.strategy == name}
        baseline = "full → full" if "→" in name else "full"
        base = {outcome.repeat: outcome for outcome in outcomes if outcome.strategy == baseline}
        shared = sorted(set(own) & set(base)) if name != baseline else []
        accuracy = np.array([outcome.accuracy for outcome in own.values()])
        confusions = np.array([outcome.confusions for outcome in own.values()], dtype=float)
        rows.append(
            Row(
                name,
                len(own),
                float(accuracy.mean()),
                float(accuracy.std()),
                float(confusions.mean()),
                float(confusions.std()),
                baseline,
                difference([own[r].accuracy - base[r].accuracy for r in shared]) if shared else None,
                difference([own[r].confusions - base[r].confusions for r in shared]) if shared else None,
            )
        )
    return rows


HELPED, HURT, UNKNOWN = "helped", "hurt", "not known"


def verdict(row: Row) -> str:
    """Whether a strategy changed the confusions of the pair, against its baseline: "helped", "hurt" or "not known".

    Only an interval that leaves out 0 decides; one repeat has none.
    """
    told = row.confusions_difference
    if told is None or told.low is None or told.high is None or told.low <= 0 <= told.high:
        return UNKNOWN
    return HELPED if told.high < 0 else HURT


def difference(values: Sequence[float]) -> Estimate:
    """Mean of paired differences with its 95 % interval by Student's t; none for fewer than two, or without spread."""
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(mean, None, None, len(found), "", "one repeat has no interval")
    error = float(found.std(ddof=1) / np.sqrt(len(found)))
    if error == 0:
        return Estimate(mean, None, None, len(found), "", "the repeats do not differ")
    half = float(stats.t.ppf(0.975, len(found) - 1)) * error
    return Estimate(mean, mean - half, mean + half, len(found), "paired t")
