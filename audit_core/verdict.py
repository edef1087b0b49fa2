"""What one audit lets you say, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit_core.record import AuditRecord

if TYPE_CHECKING:
    from audit_core.metrics import Measure


@dataclass(frozen=True)
class Verdict:
    """word: "supported", "qualified", "not supported" or "not computable"; sentence: why, for this fill alone."""

    word: str
    sentence: str


def verdict(record: AuditRecord) -> Verdict:
    """Judge the map against random order of the same pixels under the same fill.

    A curve counts as better when the 95 % interval of its advantage lies above 0; the scope is this image, this
    fill and these steps, never the explainer as such.
    """
    fill = record.spec.triple.fill.name
    if record.sick:
        return Verdict("not computable", f"The map is sick and is not judged: {record.sick[0]}")
    if not record.advantage:
        return Verdict("not computable", "Without at least two random orders there is no level to compare with.")
    better = [name for name, effect in record.advantage.items() if effect.low > 0]
    worse = [name for name, effect in record.advantage.items() if effect.high < 0]
    if len(better) == 2:
        return Verdict(
            "supported", f"Under the {fill} fill this map finds pixels that matter to the model better than chance."
        )
    if better:
        other = "insertion" if better[0] == "deletion" else "deletion"
        how = "worse than" if worse else "no better than"
        return Verdict("qualified", f"Under the {fill} fill {better[0]} beats random order, {other} is {how} it.")
    how = "worse than" if len(worse) == 2 else "no better than"
    return Verdict("not supported", f"Under the {fill} fill this map is {how} removing pixels at random.")


@dataclass(frozen=True)
class Point:
    """One question that a map has to answer: topic, whether it speaks for the map (None: not known yet), and why."""

    topic: str
    good: bool | None
    sentence: str


CONTROLS = ("beats-random", "beats-intensity", "beats-centre", "beats-edges")
SIMILAR = 0.5  # rank correlation above which a map of a randomised model, or of another class, is "the same map"


def points(record: AuditRecord, measures: Mapping[str, Measure]) -> tuple[Point, ...]:
    """Health, SRG, controls and sanity of a map, each with its sentence; what was not measured yet is unknown."""
    return (
        _health(record),
        _srg(measures.get("srg")),
        _controls(measures),
        _sanity("parameters", "parameter-randomisation", measures),
        _sanity("class", "label-flip", measures),
    )


def _health(record: AuditRecord) -> Point:
    return Point("health", not record.sick, " ".join(record.health) or "Nothing is odd about the map or the score.")


def _srg(measure: Measure | None) -> Point:
    if measure is None or measure.value is None:
        return Point("SRG", None, measure.sentence if measure else "Not measured yet.")
    return Point("SRG", measure.value > 0, measure.sentence)


def _controls(measures: Mapping[str, Measure]) -> Point:
    known = {name: found for name in CONTROLS if (found := measures.get(name)) and found.value is not None}
    if not known:
        return Point("controls", None, "Not measured yet.")
    edge = {name: found.value if found.low is None else found.low for name, found in known.items()}
    lost = [name.removeprefix("beats-") for name, low in edge.items() if low is not None and low <= 0]
    if lost:
        return Point("controls", False, f"The map does not beat {', '.join(lost)} under this fill.")
    return Point("controls", True, f"The map beats all {len(known)} controls under this fill.")


def _sanity(topic: str, name: str, measures: Mapping[str, Measure]) -> Point:
    found = measures.get(name)
    if found is None or found.value is None:
        return Point(topic, None, found.sentence if found else "Not measured yet.")
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if low < SIMILAR <= high:
        wide = f"{found.sentence} The interval [{low:.2f}, {high:.2f}] leaves it open; more draws would tell."
        return Point(topic, None, wide)
    return Point(topic, high < SIMILAR, found.sentence)
