"""How far each fill keeps images inside the scope of the model, and the order of fills that follows from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit_core.intervals import mean_interval
from audit_core.statistics import Estimate
from audit_core.study.filters import Filters
from audit_core.study.results import Results

#: R-OMS of the random control (Bluecher et al. 2024), higher = further inside.
SCOPE = "r-oms"


def by_scope(
    results: Results, filters: Filters, fills: Sequence[str]
) -> tuple[list[str], tuple[Estimate | None, ...], str]:
    """Fills by falling mean R-OMS, that of each, and what to say about those without one."""
    found: dict[str, list[float]] = {}
    if SCOPE in results.metrics:
        for row in results.checkpoint_means(SCOPE, filters):
            found.setdefault(row.fill, []).append(row.mean)
    scope = {fill: _over_checkpoints(np.array(values)) for fill, values in found.items()}
    ordered = sorted(fills, key=lambda fill: -scope[fill].value if fill in scope else np.inf)
    without = [fill for fill in ordered if fill not in scope]
    note = f"no R-OMS for {', '.join(without)}: listed last, in no order of scope" if without else ""
    return ordered, tuple(scope.get(fill) for fill in ordered), note


def _over_checkpoints(values: np.ndarray) -> Estimate:
    mean, low, high = mean_interval(values)
    note = "" if low is not None else "one checkpoint has no interval"
    return Estimate(mean, low, high, len(values), "t interval over checkpoints", note)
