"""What the charts of a study's rankings share: letters, margins, directions in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from pages.ui.reversal_looks import INK

PAPER = {"light": "#FFFFFF", "dark": "#11161D"}
STRONG = {"light": "#0072B2", "dark": "#56B4E9"}
FADED = {"light": "#D8DDE4", "dark": "#313C4A"}
WORDS = {
    "deletion": "Deletion AUC",
    "insertion": "Insertion AUC",
    "srg": "SRG (insertion − deletion AUC)",
    "deletion-normalised": "Deletion AUC / untouched score",
    "deletion-failed-dies": "Deletion AUC over failed dies",
}


def theme() -> str:
    """ "light" or "dark", as the page is shown."""
    return "dark" if st.context.theme.type == "dark" else "light"


def metric_title(metric: str) -> str:
    """A metric in menu words."""
    return WORDS.get(metric, metric.replace("-", " ").capitalize())


def direction(better: str) -> str:
    """Which way of a metric is better, as an arrow with words."""
    return {"lower": "↓ lower is better", "higher": "↑ higher is better"}.get(better, "")


def dress(figure: go.Figure, height: int, **margins: int) -> go.Figure:
    """The page's letters and colours, no tools; margins in px (l, r, t, b)."""
    ink, grid = INK[theme()], FADED[theme()]
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10, **margins},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "Source Sans, sans-serif", "size": 13, "color": ink},
        hoverlabel={"font": {"family": "Source Sans, sans-serif", "size": 13}, "align": "left"},
        dragmode=False,
        showlegend=False,
    )
    figure.update_xaxes(gridcolor=grid, zerolinecolor=grid, linecolor=grid)
    figure.update_yaxes(gridcolor=grid, zerolinecolor=grid, linecolor=grid)
    return figure


def show(figure: go.Figure, key: str, alt: str) -> None:
    """Draw with a text for those who cannot see it."""
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False}, alt=alt)


def wrapped(text: str, width: int) -> str:
    """A label broken at spaces into lines of about ``width`` letters, as Plotly takes it."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "<br>".join(lines)


def clear(hex_colour: str, opacity: float) -> str:
    """A colour as Plotly's rgba."""
    red, green, blue = (int(hex_colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def span(low: Any, high: Any, digits: int = 3, sign: str = "") -> str:
    """An interval in brackets, "" where there is none; low, high: numbers, None or NaN."""
    if low is None or high is None or low != low or high != high:
        return ""
    return f" [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words as a sentence says them: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
