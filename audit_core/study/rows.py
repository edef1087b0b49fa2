"""Rows of the results: which cell and image, which number, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from audit_core.study.plan import Member, Plan, Task, contender_of, role_of

#: What every cell gets; deletion: lower is better, the others as their names say (see ``docs/studies.md``).
AREAS = ("deletion", "insertion", "srg", "deletion-normalised", "deletion-failed-dies")

Row = dict[str, Any]  # Any: the values of one row of ``tables.MEASURES`` or ``tables.CURVES``


def number(value: float | str) -> Row:
    """The columns of a number, or of the reason why there is none."""
    if isinstance(value, str):
        return {"value": None, "state": "refused", "reason": value}
    return {"value": value, "state": "number"}


def where(task: Task, whole: Plan, member: Member, fill: str, unit: int, predicted: int | None = None) -> Row:
    """The columns that say which cell and image a row is about; predicted: the model's class, None where unknown."""
    picture = whole.pictures[unit]
    word = None if predicted is None else member.card.classes[predicted]
    known = word is not None and picture.label in member.card.classes
    return {
        "contender": contender_of(member, task.explainer),
        "checkpoint": member.entry.name,
        "family": member.family,
        "training_seed": member.training_seed,
        "explainer": task.explainer,
        "role": role_of(task.explainer),
        "fill": fill,
        "seed": task.seed,
        "unit": unit,
        "image": picture.reference,
        "label": picture.label,
        "predicted": word,
        "correct": word == picture.label if known else None,
    }


def reasoned(
    task: Task, whole: Plan, member: Member, fill: str, unit: int, state: str, reason: str, predicted: int | None = None
) -> list[Row]:
    """A row per area that says why there is no number."""
    place = where(task, whole, member, fill, unit, predicted)
    return [{**place, "metric": name, "value": None, "state": state, "reason": reason} for name in AREAS]


def curve_rows(place: Row, share: np.ndarray, deletion: np.ndarray, insertion: np.ndarray) -> Iterator[Row]:
    """Both curves of one map; place: what :func:`where` said."""
    named = {name: place[name] for name in ("checkpoint", "contender", "explainer", "fill", "seed", "unit")}
    for kind, score in (("deletion", deletion), ("insertion", insertion)):
        yield {**named, "kind": kind, "fraction": share.astype(np.float32), "score": score.astype(np.float32)}


def refused_rows(whole: Plan) -> list[Row]:
    """A row per image and area of every cell that the plan refused, so that the results hold all cells once."""
    rows = []
    for cell in whole.refused:
        member = whole.member(cell.checkpoint)
        for seed in whole.study.curves.seeds:
            task = Task("", "curves", cell.checkpoint, cell.explainer, seed, 0, len(whole.pictures), 0, 0)
            for fill in [cell.fill] if cell.fill else whole.study.fills:
                for unit in range(len(whole.pictures)):
                    rows += reasoned(task, whole, member, fill, unit, "refused", cell.reason)
    return rows
