"""Explainers, fills, metrics and cells of a study in the words of its page."""

from __future__ import annotations

from audit_core.errors import AuditError, InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.metrics import METRICS
from audit_core.registry import Registry
from audit_core.study.direction import better
from pages.ui import wording

#: Metric -> (title, what its number is); the metrics of every cell. All others are told of by their registry.
_KNOWN = {
    "srg": ("SRG: insertion − deletion AUC", "difference of two mean scores, −1 to 1"),
    "deletion": ("Deletion AUC", "mean score of the target while pixels go, 0 to 1"),
    "insertion": ("Insertion AUC", "mean score of the target while pixels come, 0 to 1"),
    "deletion-normalised": ("Deletion AUC ÷ untouched score", "1 = the score never falls"),
    "deletion-failed-dies": ("Deletion AUC over failed dies", "mean score of the target while failed dies go, 0 to 1"),
}
_DIRECTION = {"deletion-failed-dies": "lower"}


def metric(name: str) -> str:
    """Title of a metric with its direction."""
    return f"{plain_metric(name)} {arrow(name)}".strip()


def plain_metric(name: str) -> str:
    """Title of a metric."""
    if name in _KNOWN:
        return _KNOWN[name][0]
    try:
        base = Choice.parse(name).name
    except InvalidParameter:  # the plan says what is wrong with it
        return name
    return METRICS[base].title if base in METRICS else name


def of_every_cell(name: str) -> bool:
    """Whether every cell has this metric; slow checks are measured under the first fill only."""
    return name in _KNOWN


def unit(name: str) -> str:
    """What a metric's number is, "" where only its definition says it."""
    return _KNOWN.get(name, ("", ""))[1]


def direction(name: str) -> str:
    """ "lower", "higher" or "neither" is better."""
    try:
        return better(name)
    except AuditError:
        return _DIRECTION.get(name, "neither")


def arrow(name: str) -> str:
    """ "↓ lower is better", "↑ higher is better" or nothing."""
    return wording.DIRECTIONS.get(direction(name), "")


def ranked(names: tuple[str, ...]) -> list[str]:
    """Metrics that rank contenders, those of every cell first; R-OMS ranks fills."""
    places = list(_KNOWN)
    usable = [name for name in names if direction(name) != "neither" and name != "r-oms"]
    return sorted(usable, key=lambda name: (places.index(name) if name in places else len(places), name))


def explainer(text: str) -> str:
    """Title of an explainer with its parameters: "Grad-CAM (layer stage2)"."""
    return _titled(EXPLAINERS, text).replace(" (control)", "")


def fill(text: str) -> str:
    """Title of a fill with its parameters."""
    return _titled(FILLS, text)


def _titled(registry: Registry, text: str) -> str:
    try:
        choice = Choice.parse(text)
        title = registry[choice.name].title
    except AuditError:
        return text
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in choice.params)
    return f"{title} ({told})" if told else title


def value(number: float | None, name: str) -> str:
    """A number of a metric, three decimals where its unit is a share; with its sign where it may have either."""
    if number is None or number != number:
        return "–"
    shown = f"{number:.3f}" if name in _KNOWN else wording.number(number)
    return f"+{shown}" if name == "srg" and number > 0 else shown.replace("-", "−")


def plural(count: int, word: str) -> str:
    """ "1 image", "1,200 images"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
