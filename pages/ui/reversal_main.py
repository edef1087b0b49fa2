"""The upper half of the page: which contenders, the sentence, the bump chart, and what is missing from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from audit_core.errors import AuditError
from audit_core.study.analysis import ReversalView, SchemeView
from audit_core.study.filters import Filters
from pages.ui import (
    reversal_bump,
    reversal_filters,
    reversal_looks,
    reversal_published,
    reversal_tables,
    reversal_work,
    wording,
)
from pages.ui import reversal_chart as chart
from pages.ui.params import hold
from pages.ui.reversal_looks import Look, fill_title, worded
from pages.ui.reversal_work import Opened

PAGE = "reversal"
PRESETS = {
    "default": ("Own + RISE", ":material/star:", "Each family’s own explainer, and RISE."),
    "own": ("All own", ":material/visibility:", "Every explainer that reads the model’s inside."),
    "control": ("Controls", ":material/casino:", "What needs no model: random order, input intensity, centre, edges."),
    "all": ("Everything", ":material/select_all:", "All contenders of the study."),
}


def unfinished(study: str) -> None:
    """Say how much of a running study is here."""
    done, planned = reversal_work.progress(study)
    if done < planned:
        st.info(f"This study is still running: {done} of {planned} parts are here.", icon=":material/timelapse:")


def choose(opened: Opened, looks: Mapping[str, Look]) -> tuple[list[str], DeltaGenerator]:
    """(the contenders on screen in the study's order, the row of buttons for what else belongs there)."""
    every = [c.name for c in opened.results.contenders]
    key = f"{PAGE}.contenders"
    st.session_state[key] = [name for name in st.session_state.get(key, []) if name in every]
    row = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with row:
        for kind, (label, icon, why) in PRESETS.items():
            st.button(
                label, key=f"{PAGE}.preset.{kind}", icon=icon, help=why, on_click=_set, args=(kind, opened),
                disabled=not reversal_filters.preset(kind, opened),
            )  # fmt: skip
        with st.popover(f"{len(st.session_state[key])} of {len(every)} contenders", icon=":material/checklist:"):
            hold(key)
            chosen = st.multiselect(
                "Contenders", every, key=key, format_func=lambda name: looks[name].name, placeholder="Two or more"
            )
    return [name for name in every if name in chosen], row


def _set(kind: str, opened: Opened) -> None:
    st.session_state[f"{PAGE}.contenders"] = reversal_filters.preset(kind, opened)


def headline(view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look]) -> str:
    """The one sentence in large type, and what it rests on; returns the sentence."""
    sentence = worded(scheme.headline, looks, view.fills)
    st.markdown(f"### {wording.plain(sentence)}")
    return sentence


def bump(
    opened: Opened,
    view: ReversalView,
    scheme: SchemeView,
    looks: Mapping[str, Look],
    sentence: str,
    row: DeltaGenerator,
) -> bool:
    """The chart; returns whether published ranks are switched on."""
    marks = reversal_published.marks(view, scheme)
    with row:
        shown = reversal_published.switch(marks)
    figure = reversal_bump.figure(view, scheme, looks, marks if shown else {})
    chart.show(figure, f"{PAGE}.bump", reversal_bump.alt(view, scheme, looks, sentence))
    st.caption(_how_to_read(view, scheme))
    if shown:
        reversal_published.explain()
    _missing(opened, view, scheme, looks)
    return shown


def compressed(opened: Opened, metric: str, filters: Filters, scheme: SchemeView) -> None:
    """Whether RISE brings the families together."""
    st.markdown("**Does a model-agnostic explainer bring the families together?**")
    native = list(reversal_looks.native(opened.results.contenders, opened.manifest).values())
    try:
        reversal_tables.compression(reversal_work.compression(opened, metric, filters, native, scheme.scheme))
    except AuditError as problem:
        st.caption(wording.plain(str(problem)))


def _how_to_read(view: ReversalView, scheme: SchemeView) -> str:
    counts = sorted({int(n) for n in view.n.ravel() if n})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    strong = len(reversal_bump.certain(scheme))
    band = "Band: 95 % interval of the rank."
    if len(view.contenders) > reversal_bump.FEW:
        band = "The 95 % interval of a rank is in its tip: these are too many for bands."
    lines = "none is certain" if not strong else f"{strong} of {len(view.contenders)} here"
    scope = " R-OMS: the higher, the more a fill keeps images in the model’s scope (Blücher et al. 2024)."
    scope = scope if any(view.scope) else ""
    note = f" {wording.plain(view.scope_note)}." if view.scope_note else ""
    return (
        f"Ranked by mean {chart.metric_title(view.metric)} ({chart.direction(view.better)}), {n} numbers each; "
        f"images: {wording.plain(view.filters.sentence)}. {band} Strong lines change places "
        f"with another one for certain ({lines}); grey: controls.{scope}{note}"
    )


def _missing(opened: Opened, view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look]) -> None:
    """Cells without a number, with their reasons: a gap in a line is a result."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in opened.results.counts(view.metric):
        if one.state != "number" and one.contender in view.contenders:
            c = view.contenders.index(one.contender)
            if one.fill not in view.fills or np.isnan(scheme.ranks.rank[c, view.fills.index(one.fill)]):
                reasons.setdefault((one.contender, one.reason or one.state), []).append(one.fill)
    if not reasons:
        return
    cells = {(name, fill) for (name, _), fills in reasons.items() for fill in fills}
    with st.expander(f"{len(cells)} cell{'s' * (len(cells) > 1)} without a rank", icon=":material/block:"):
        for (name, reason), fills in reasons.items():
            under = chart.listed([fill_title(fill) for fill in dict.fromkeys(fills)])
            st.caption(f"**{wording.plain(looks[name].name)}**, {wording.plain(under)}: {wording.plain(reason)}")
