"""Which way of a metric is better, as a word and as a sign."""

from __future__ import annotations

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.statistics import Better

#: The metrics of every cell; any other metric says it itself in its registry.
_KNOWN = {
    "deletion": "lower",
    "insertion": "higher",
    "srg": "higher",
    "deletion-normalised": "lower",
    "deletion-failed-dies": "lower",
    "r-oms": "higher",
}


def better(metric: str) -> str:
    """ "higher", "lower" or "neither" (a description, not a merit); ``UnknownName`` for a metric nobody registered."""
    name = Choice.parse(metric).name
    if name in _KNOWN:
        return _KNOWN[name]
    from audit_core.metrics import METRICS  # imports torch, which reading a table does not need

    return METRICS[name].better


def sign(metric: str) -> float:
    """+1 where higher is better, -1 where lower is; ``InvalidParameter`` for a metric that ranks nothing."""
    signs = {"higher": 1.0, "lower": -1.0}
    if (word := better(metric)) not in signs:
        raise InvalidParameter(f"{metric!r} describes and ranks nothing: no way of it is better; choose another metric")
    return signs[word]


def better_of(metric: str) -> Better:
    """ "higher" or "lower"; ``InvalidParameter`` for a metric that ranks nothing."""
    return "higher" if sign(metric) > 0 else "lower"
