"""The grid of a study: contenders down, fills across, the mean of a metric in each cell, by colour and number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import streamlit as st

from audit_core.study.judgement import Judgement
from pages.ui import study_colours, study_link, study_results, study_rows, study_table, study_words, wording


def chosen(manifest: Mapping[str, Any], cells: study_results.Cells) -> tuple[str, str] | None:
    """The cell of the link, else the first one with a number; None where there is none yet."""
    contender, _, fill = st.session_state.get(study_link.CELL, "").rpartition("|")
    names = {entry["contender"]: entry for entry in manifest["contenders"]}
    if contender in names and fill in manifest["fills"]:
        return contender, fill
    usable = [(e["contender"], f) for f in manifest["fills"] for e in manifest["contenders"] if e["role"] == "own"]
    return next((place for place in usable if place in cells and cells[place].n), None)


def draw(name: str, metric: str, every_control: bool, whole: bool) -> None:
    """The table as it stands now; a click sets the cell that the page is about. whole: all tasks are done."""
    manifest, state = study_link.read_manifest(name), study_results.fingerprint(name)
    found, counts = study_results.table(name, state, metric)
    judged = study_results.verdicts(name, state) if whole else {}
    entries, columns = study_rows.contenders(manifest, every_control), study_rows.fills(manifest, counts, metric)
    own = [cell.mean.value for cell in found.values() if cell.n and cell.role != "control"]
    scale = study_colours.Scale.of(own, metric)
    ground = study_rows.Ground(metric, scale, len(manifest["images"]), whole)
    known = judged if isinstance(judged, dict) else {}
    marked = chosen(manifest, found)
    study_table.draw(
        {
            "caption": f"Mean {study_words.metric(metric)} of each contender under each fill",
            "columns": [study_words.fill(fill) for fill in columns],
            "verdicts": bool(known),
            "rows": study_rows.rows(manifest, entries, columns, found, counts, known, ground),
            "legend": scale.legend(metric),
            "hint": "Point at a cell or reach it with Tab: its numbers stand here. Click or Enter shows its images.",
            "chosen": "|".join(marked) if marked else "",
        },
        {f"{entry['contender']}|{fill}" for entry in entries for fill in columns},
    )
    _summary(judged)


def _summary(judged: dict[str, Judgement] | str) -> None:
    """The verdicts in one sentence, or why there are none."""
    if isinstance(judged, str):
        st.caption(wording.plain(f"No verdicts: {judged}."))
    elif judged:
        count = Counter(found.word for found in judged.values())
        words = ", ".join(f"{count[word]} {word}" for word in study_rows.SIGNS if count[word])
        st.caption(f"Verdicts by the criteria that were fixed before the study began: {words}. Point at one for why.")
