"""What stands in each row and cell of a study's grid, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit_core.keys import Choice
from audit_core.study.judgement import Judgement
from audit_core.study.means import CellMean
from audit_core.study.nouns import StateCount
from pages.ui import study_colours, study_words

ROLES = ("own", "agnostic", "control")
SIGNS = {"supported": "✓", "qualified": "◐", "not supported": "✕", "not computable": "–"}
Entry = dict[str, Any]  # Any: JSON data, an entry of manifest["contenders"] or of the table that is drawn


def contenders(manifest: Mapping[str, Any], every_control: bool) -> list[Entry]:
    """Entries in the order of the rows: families together, what reads the model's inside first, controls last."""
    families = list(dict.fromkeys(entry["family"] for entry in manifest["contenders"]))
    shown = [
        entry
        for entry in manifest["contenders"]
        if every_control or entry["role"] != "control" or Choice.parse(entry["explainer"]).name == "random"
    ]
    return sorted(shown, key=lambda entry: (families.index(entry["family"]), ROLES.index(entry["role"])))


def fills(manifest: Mapping[str, Any], counts: Sequence[StateCount], metric: str) -> list[str]:
    """The study's fills in its order; a slow check runs under the first one only."""
    told = {count.fill for count in counts}
    return [fill for fill in manifest["fills"] if fill in told or study_words.of_every_cell(metric)]


@dataclass(frozen=True)
class Ground:
    """What all cells share. images: of the study; whole: all its tasks are done."""

    metric: str
    scale: study_colours.Scale
    images: int
    whole: bool


def rows(
    manifest: Mapping[str, Any],
    entries: Sequence[Entry],
    columns: Sequence[str],
    found: Mapping[tuple[str, str], CellMean],
    counts: Sequence[StateCount],
    judged: Mapping[str, Judgement],
    ground: Ground,
) -> list[Entry]:
    """A heading for each family, and a row with its cells for each contender."""
    made: list[Entry] = []
    gaps: dict[tuple[str, str], list[StateCount]] = {}
    for count in counts:
        if count.state != "number":
            gaps.setdefault((count.contender, count.fill), []).append(count)
    for entry in entries:
        if not made or made[-1]["family"] != entry["family"]:
            made.append({"family": entry["family"], "heading": _heading(entry["family"], manifest)})
        places = [(entry["contender"], fill) for fill in columns]
        cells = [_cell(entry, place[1], found.get(place), gaps.get(place, []), ground) for place in places]
        made.append({**_labels(entry, judged.get(entry["contender"])), "cells": cells})
    return made


def _heading(family: str, manifest: Mapping[str, Any]) -> str:
    runs = sum(one["family"] == family for one in manifest["checkpoints"])
    return f"{family} · {runs} training runs" if runs > 1 else family


def _labels(entry: Entry, found: Judgement | None) -> Entry:
    """The words at both ends of a row."""
    badge = {"own": entry["badge"], "agnostic": "model-agnostic"}.get(entry["role"], "control")
    verdict = found and {"text": f"{SIGNS[found.word]} {found.word}", "word": found.word, "tip": found.sentence}
    return {
        "family": entry["family"],
        "label": study_words.explainer(entry["explainer"]),
        "badge": badge or entry["role"],
        "why": entry["badge_sentence"],
        "control": entry["role"] == "control",
        "verdict": verdict,
    }


def _cell(entry: Entry, fill: str, cell: CellMean | None, gaps: Sequence[StateCount], ground: Ground) -> Entry:
    """Colour, number and the sentence about one cell."""
    place = f"{entry['family']} · {study_words.explainer(entry['explainer'])} under {study_words.fill(fill)}"
    common, lost = {"id": f"{entry['contender']}|{fill}"}, "; ".join(f"{g.count:,} {g.state}: {g.reason}" for g in gaps)
    if cell is None or not cell.n:
        if lost:
            return {**common, "text": "–", "state": gaps[0].state, "tip": f"{place}: {lost}"}
        waiting = "not measured here" if ground.whole else "not computed yet"
        return {**common, "text": "·", "state": "waiting", "tip": f"{place}: {waiting}"}
    mean, metric = cell.mean, ground.metric
    told = f"{place}: {study_words.value(mean.value, metric)}"
    if mean.low is not None:
        told += f" [{study_words.value(mean.low, metric)}, {study_words.value(mean.high, metric)}]"
    told += f", mean of {study_words.plural(mean.n, 'image')}; {study_words.arrow(metric)}. {lost}"
    partial = not ground.whole and mean.n < ground.images
    return {
        **common,
        **({} if entry["role"] == "control" else ground.scale.colours(mean.value)),
        "text": study_words.value(mean.value, metric),
        "state": "number",
        "sub": f"{mean.n:,} of {ground.images:,}" if partial else "",
        "tip": told.strip(),
    }
