"""A forest plot: the paired difference of two contenders under each fill, and which side is the better one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from audit_core.statistics import Estimate
from audit_core.study.analysis import PairUnderFill, PairView
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import INK, Look, fill_title


def figure(view: PairView, shown: Sequence[PairUnderFill], a: Look, b: Look) -> go.Figure:
    """Difference A − B under each fill: thick bar over images, thin bar over training runs and images."""
    found, rows = go.Figure(), list(range(len(shown)))
    values = [one.paired.mean_difference for one in shown]
    retrained = [one.retrained for one in shown]
    ink = INK[chart.theme()]
    if any(one.low is not None for one in retrained):
        found.add_trace(_bar(retrained, [row + 0.22 for row in rows], ink, 1.4, "training runs and images"))
    found.add_trace(_bar(values, rows, ink, 4, "images"))
    found.add_trace(
        go.Scatter(
            x=[one.value for one in values],
            y=rows,
            mode="markers",
            name="difference",
            marker={"size": 10, "symbol": "diamond", "color": [_winner(view, one.value, a, b) for one in values],
                    "line": {"width": 1.5, "color": ink}},
            hovertext=[_tip(one, a, b) for one in shown],
            hoverinfo="text",
        )
    )  # fmt: skip
    reach = max((abs(x) for e in [*values, *retrained] for x in (e.low, e.high, e.value) if _finite(x)), default=0.1)
    reach = 1.12 * (reach or 0.1)
    found.add_vline(x=0, line={"color": ink, "width": 1.2, "dash": "dot"})
    left, right = ("A", "B") if view.better == "lower" else ("B", "A")
    for word, x, side in ((f"◀ {left} better", -reach, "left"), (f"{right} better ▶", reach, "right")):
        found.add_annotation(
            x=x, y=1.0, yref="paper", yshift=24, text=f"<b>{word}</b>", xanchor=side, showarrow=False, font={"size": 14}
        )
    found.update_xaxes(
        range=[-reach, reach],
        title=f"{chart.metric_title(view.metric)}, A − B",
        zeroline=False,
        fixedrange=True,
        nticks=6,
        tickformat=".2~f",
    )
    found.update_yaxes(
        tickvals=rows,
        ticktext=[chart.wrapped(fill_title(one.fill), 13) for one in shown],
        range=[len(rows) - 0.4, -0.5],
        showgrid=False,
        zeroline=False,
        fixedrange=True,
    )
    return chart.dress(found, 100 + 50 * len(rows), t=40, b=52, l=92, r=14)


def alt(view: PairView, shown: Sequence[PairUnderFill], a: Look, b: Look) -> str:
    """Who is better under which fill, and where the interval leaves it open."""
    told = []
    for one in shown:
        found = one.paired.mean_difference
        if not _finite(found.value):
            told.append(f"{fill_title(one.fill)}: no number")
        elif found.low is None or found.high is None or found.low <= 0 <= found.high:
            told.append(f"{fill_title(one.fill)}: open")
        else:
            told.append(f"{fill_title(one.fill)}: {'A' if a_better(view, found.value) else 'B'} better")
    return f"Forest plot of {a.name} (A) against {b.name} (B). {'; '.join(told)}."


def a_better(view: PairView, difference: float) -> bool:
    """Whether a difference A − B speaks for A."""
    return (difference < 0) == (view.better == "lower")


def _bar(estimates: Sequence[Estimate], rows: Sequence[float], colour: str, width: float, name: str) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for estimate, row in zip(estimates, rows, strict=True):
        if estimate.low is not None and estimate.high is not None:
            xs += [estimate.low, estimate.high, None]
            ys += [row, row, None]
    return go.Scatter(
        x=xs, y=ys, mode="lines", name=name, line={"color": chart.clear(colour, 0.75), "width": width}, hoverinfo="skip"
    )


def _winner(view: PairView, difference: float, a: Look, b: Look) -> str:
    return a.colour if a_better(view, difference) else b.colour


def _tip(one: PairUnderFill, a: Look, b: Look) -> str:
    found, again = one.paired.mean_difference, one.retrained
    if not _finite(found.value):
        return ""
    lines = [
        f"<b>{fill_title(one.fill)}</b>",
        f"A − B {found.value:+.3f}{chart.span(found.low, found.high, sign='+')}, n = {one.paired.n:,}",
        f"A, {a.name}: {one.mean_a:.3f}",
        f"B, {b.name}: {one.mean_b:.3f}",
    ]
    if again.low is not None:
        lines.insert(2, f"with training runs{chart.span(again.low, again.high, sign='+')}")
    return "<br>".join(lines).replace("-", "−")


def _finite(value: Any) -> bool:  # Any: a number or None
    return value is not None and math.isfinite(value)
