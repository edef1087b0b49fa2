"""The published ranks over the chart: hollow rings, each with the word "published" on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from audit_core.study import published
from audit_core.study.analysis import ReversalView, SchemeView
from audit_core.study.published import PublishedMark
from pages.ui import reversal_chart as chart
from pages.ui import wording
from pages.ui.params import hold
from pages.ui.reversal_looks import Look

PAGE = "reversal"
Marks = Mapping[str, Sequence[PublishedMark]]


def marks(view: ReversalView, scheme: SchemeView) -> Marks:
    """Fill -> published marks of the contenders on screen; empty for a metric that was not published."""
    if view.metric != published.METRIC:
        return {}
    found = {}
    for fill, ranks in zip(view.fills, scheme.ranks.rank.T, strict=True):
        held = {name: float(r) for name, r in zip(view.contenders, ranks, strict=True) if not np.isnan(r)}
        if at_fill := published.published_marks(fill, held):
            found[fill] = at_fill
    return found


def switch(found: Marks) -> bool:
    """The switch, where there is anything to show; whether it is on."""
    if not found:
        return False
    hold(f"{PAGE}.published")
    return st.toggle("Show published ranks", key=f"{PAGE}.published", help=published.SOURCE)


def explain() -> None:
    """What a ring means."""
    st.caption(
        f"Hollow rings: **published** order, {wording.plain(published.SOURCE)}. The printed ranks count the four "
        "families’ own explainers only: a ring marks the place, among those that these hold here, at which the "
        "published order would put its contender."
    )


def add_rings(figure: go.Figure, view: ReversalView, looks: Mapping[str, Look], found: Marks) -> None:
    """Hollow rings in their contenders' colours, as one trace, with the printed rank below each."""
    shown = [(view.fills.index(fill), mark) for fill, marks in found.items() for mark in marks]
    figure.add_trace(
        go.Scatter(
            x=[f for f, _ in shown],
            y=[mark.place for _, mark in shown],
            mode="markers",
            name="published",
            cliponaxis=False,
            marker={
                "symbol": "circle-open",
                "size": 21,
                "color": [looks[mark.mean.contender].colour for _, mark in shown],
                "line": {"width": 2.5},
            },
            hovertext=[_tip(mark, looks[mark.mean.contender]) for _, mark in shown],
            hoverinfo="text",
        )
    )
    last = len(view.fills) - 1
    for f, mark in shown:
        figure.add_annotation(
            x=f,
            y=mark.place,
            text=f"published {mark.mean.rank}",
            yshift=-20,
            xanchor="left" if f == 0 else "right" if f == last else "center",
            xshift=-12 if f == 0 else 12 if f == last else 0,
            showarrow=False,
            font={"size": 10},
            bgcolor=chart.clear(chart.PAPER[chart.theme()], 0.75),
            borderpad=1,
        )


def _tip(mark: PublishedMark, look: Look) -> str:
    return (
        f"<b>published</b>: {look.name}<br>rank {mark.mean.rank} of 4, deletion AUC {mark.mean.area:.3f} ↓, "
        "n = 198, no interval"
    )
