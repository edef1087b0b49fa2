"""The images of a cell, most surprising first, each with a link to its spot audit."""

from __future__ import annotations

from typing import Any

import streamlit as st

from audit_core.data import dataset_of
from audit_core.errors import AuditError
from audit_core.images import prepare
from audit_core.study.means import CellMean
from audit_core.study.nouns import ImageRow
from audit_core.study.results import Results
from audit_core.study.shelf import Shelf
from models import zoo
from pages.ui import charts, link, params, study_guard, study_results, study_words, wording

ORDERS = {"surprise": "Most surprising", "worst": "Worst", "best": "Best"}
PER_ROW, FIRST = 3, 9
SHOWN = "study.shown"


def draw(name: str, place: tuple[str, str], metric: str, cell: CellMean) -> None:
    """Tiles in the chosen order; more on a click."""
    results = study_results.opened(name)
    if results is None:
        return
    st.markdown("**The images behind this cell**")
    st.session_state.setdefault("study.order", "surprise")
    params.hold("study.order")
    order = st.segmented_control(
        "Order", list(ORDERS), key="study.order", format_func=ORDERS.__getitem__, required=True,
        help="Most surprising: farthest from the mean of the cell.",
    )  # fmt: skip
    kept = st.session_state.get(SHOWN)
    count = kept[1] if kept and kept[0] == (name, place) else FIRST
    rows = results.images(*place, metric, order, limit=count + 1)
    settings = _settings(name)
    _tell_stand_ins(rows[:count], results, place)
    for start in range(0, min(count, len(rows)), PER_ROW):
        for column, row in zip(st.columns(PER_ROW), rows[start : min(start + PER_ROW, count)], strict=False):
            with column.container(border=True, gap="xsmall"):
                _tile(row, place, metric, cell, results, settings)
    if len(rows) > count:
        st.button("Show more images", key="study.more", on_click=_more, args=((name, place), count + FIRST))


def _more(where: tuple[str, tuple[str, str]], count: int) -> None:
    st.session_state[SHOWN] = (where, count)


def _tell_stand_ins(rows: tuple[ImageRow, ...], results: Results, place: tuple[str, str]) -> None:
    """Say when a link opens something else than what was measured."""
    told = []
    if any(not study_guard.openable(row.image) for row in rows):
        told.append("The images of this study do not ship with the project: a link opens a generated map of the class.")
    family = results.contender(place[0]).family
    if any(study_guard.checkpoint(row.checkpoint, family) not in (row.checkpoint, None) for row in rows):
        told.append("Checkpoints that do not ship are replaced by the shipped one of their family.")
    if told:
        st.caption(" ".join(told))


def _tile(
    row: ImageRow, place: tuple[str, str], metric: str, cell: CellMean, results: Results, settings: dict[str, str]
) -> None:
    side = "above" if row.value > cell.mean.value else "below"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if study_guard.openable(row.image):
            _picture(row)
        far = wording.number(row.surprise)
        st.markdown(f"**{wording.plain(study_words.value(row.value, metric))}** · {far} {side} the mean")
    right = "✓" if row.correct else "✕"
    said = f"{row.label or 'no label'}, predicted {row.predicted} {right if row.label else ''}".strip()
    st.caption(wording.plain(f"{said} · {row.checkpoint} · seed {row.seed} · image {row.unit + 1}"))
    target = _target(row, place, results, settings)
    if target is None:
        st.caption("The spot audit can open neither this image nor one like it.")
        return
    label = "Open in Spot audit" if target["image"] == row.image else f"Open a generated “{row.label}” map"
    st.page_link("pages/spot_audit.py", label=label, icon=":material/arrow_forward:", query_params=target)


def _target(row: ImageRow, place: tuple[str, str], results: Results, settings: dict[str, str]) -> dict[str, str] | None:
    """The words of the spot audit's address; None where it could open nothing that resembles the row."""
    contender = results.contender(place[0])
    image = row.image if study_guard.openable(row.image) else study_guard.lookalike(row.label)
    checkpoint = study_guard.checkpoint(row.checkpoint, contender.family)
    if image is None or checkpoint is None:
        return None
    return {
        "checkpoint": checkpoint, "explainer": contender.explainer, "fill": place[1], "image": image,
        **settings, "seed": str(row.seed),
    }  # fmt: skip


def _settings(name: str) -> dict[str, str]:
    """Target and curve settings of the study, as far as a spot audit has them, too."""
    asked: dict[str, Any] = Shelf.default().folder(name).study().settings(0)
    return {key: str(value) for key, value in asked.items() if key in link.DEFAULTS and key != "controls"}


def _picture(row: ImageRow) -> None:
    pixels = _pixels(row.image)
    if pixels is not None:
        st.image(pixels, width=56, alt=f"{row.label or 'unlabelled'} wafer map")


@st.cache_data(max_entries=200, show_spinner=False)
def _pixels(reference: str):
    try:
        dataset, index = dataset_of(reference)
        return charts.picture(prepare(dataset.image(index), zoo.card(zoo.names()[0])))
    except AuditError:
        return None
