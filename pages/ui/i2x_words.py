"""Sentences of I2X: what a transition can be trusted for, and what fine-tuning did."""

from __future__ import annotations

from collections.abc import Sequence

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.choices import sensitivity
from audit_core.i2x.comparisons import Compared
from audit_core.i2x.effects import HELPED, HURT, Row, verdict
from audit_core.i2x.explanation import competition
from audit_core.i2x.mapping import Transition
from audit_core.statistics.estimates import Estimate

NO_GROUPS = (
    "No groups: the images moved all alike or each on its own. Nothing is explained here, and β is 0; choose another "
    "transition."
)


def left_out(broken: Sequence[tuple[str, str]]) -> list[str]:
    """Which checkpoints are not in the analysis and why, one sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for file, reason in broken:
        by_reason.setdefault(reason, []).append(file)
    return [
        f"{', '.join(files)} {'is' if len(files) == 1 else 'are'} left out: {reason}"
        for reason, files in by_reason.items()
    ]


def trust(transition: Transition) -> list[str]:
    """What limits the reading of a transition, one sentence each."""
    if not transition.groups:
        return [NO_GROUPS]
    told = []
    if transition.driven_by_penalty:
        told.append(
            f"There are fewer groups ({transition.groups}) than prototypes ({len(transition.beta)}): the data leave β "
            "open, and the penalty λ decides it. Read signs and sizes with care."
        )
    if transition.error >= 1:
        told.append(
            "A group left out is predicted no better than by “nothing changed” (error ≥ 1): β describes these groups "
            "and does not carry over to others."
        )
    parts = [
        f"λ × {one.factor:g} changes β by {one.change:.0%} of its size and turns {one.flips:.0%} of the strong signs"
        for one in sensitivity(transition)
    ]
    return [*told, f"Sensitivity: {'; '.join(parts)}."] if parts else told


def leading(made: Analysis, at: int, prototype: int) -> str:
    """Which classes a rise of a prototype pushed up and down."""
    sides = competition(made.transitions[at].beta, prototype)
    up, down = (", ".join(f"“{made.classes[c]}”" for c in side) for side in sides)
    return f"A rise of P-{prototype} went with a rise of {up or 'no class'} and a fall of {down or 'no class'}."


def outcome(rows: Sequence[Row], strategy: str, found: Compared, names: Sequence[str]) -> tuple[str, str]:
    """(verdict, what the chosen strategy did to the pair, with interval, and what a random removal did)."""
    by_name = {row.strategy: row for row in rows}
    row = by_name[strategy]
    if row.strategy == row.baseline:
        return "", f"“{strategy}” is what the others are measured against; choose another strategy."
    word = verdict(row)
    start = {HELPED: "It helped", HURT: "It hurt"}.get(word, "Not known whether it helped")
    told = (
        f"{start}: {names[0]} and {names[1]} were confused {row.confusions:.1f} times in {found.tested:,} test images "
        f"({found.before.confusions} before), {difference(row.confusions_difference, 1)} against “{row.baseline}”; "
        f"accuracy {row.accuracy:.1%} ({found.before.accuracy:.1%} before), "
        f"{difference(row.accuracy_difference, 1, 100)} percentage points."
    )
    control = by_name.get(strategy.replace("curated", "random", 1)) if strategy.startswith("curated") else None
    if control is not None and control.strategy != strategy and control.confusions_difference is not None:
        told += f" As many random images instead: {difference(control.confusions_difference, 1)} confusions."
    return word, told


def difference(found: Estimate | None, digits: int, unit: float = 1.0, short: bool = False) -> str:
    """A paired difference with sign and 95 % interval, or why there is none (a dash for it where ``short``)."""
    if found is None:
        return "–"
    value = f"{unit * found.value:+.{digits}f}"
    if found.low is None or found.high is None:
        return f"{value} [–]".replace("-", "−") if short else f"{value} (no interval: {found.note})".replace("-", "−")
    return f"{value} [{unit * found.low:+.{digits}f}, {unit * found.high:+.{digits}f}]".replace("-", "−")
