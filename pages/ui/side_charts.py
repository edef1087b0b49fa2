"""Charts of Side by side: the bump chart with one contender in front, and that contender's rank along the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from audit_core.i2x.beside import Place
from pages.ui import charts
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import Look

BEHIND = 0.3  # opacity of the contenders that are not in front


def in_front(figure: go.Figure, name: str) -> go.Figure:
    """Fade every line of a bump chart but the one called ``name``; bands of the others vanish."""
    for trace in figure.data:
        if trace.mode == "lines+markers":
            own = trace.name == name
            trace.opacity = 1.0 if own else BEHIND
            if own:
                trace.line.width = 4
        else:
            trace.opacity = 0.6
    return figure


def name_at_the_end(figure: go.Figure, names: Mapping[str, str]) -> None:
    """Write a word at the last point of the named lines of a trajectory, in their colour, instead of a legend."""
    for trace in figure.data:
        if trace.name in names:
            figure.add_annotation(
                x=trace.x[-1], y=trace.y[-1], xref=trace.xaxis or "x", yref=trace.yaxis or "y", text=names[trace.name],
                xanchor="left", xshift=8, showarrow=False, font={"color": trace.line.color, "size": 12},
            )  # fmt: skip
    count = len(figure.data[0].x)
    figure.update_layout(margin={"r": 40, "b": 34, "t": 22})
    figure.update_xaxes(title=None, range=[-0.35, count - 0.65])


def rank_path(place: Place, steps: Sequence[int], look: Look, count: int, at: int, height: int = 146) -> go.Figure:
    """Rank of one contender at every checkpoint with its 95 % band, 1 on top; at: the checkpoint in front."""
    ticks = np.arange(len(steps))
    held = ~np.isnan(place.ranks)
    found = go.Figure()
    found.add_scatter(
        x=[*ticks[held], *ticks[held][::-1]], y=[*place.low[held], *place.high[held][::-1]], fill="toself",
        mode="lines", fillcolor=chart.clear(look.colour, 0.16), line={"width": 0}, hoverinfo="skip", name="interval",
    )  # fmt: skip
    found.add_scatter(
        x=ticks, y=[None if np.isnan(rank) else float(rank) for rank in place.ranks], mode="lines+markers",
        line={"color": look.colour, "width": 3, "shape": "hv"}, marker={"size": 8, "color": look.colour},
        hovertext=[_tip(place, t, steps, look) for t in range(len(steps))], hoverinfo="text", name=look.family,
    )  # fmt: skip
    found.add_vline(at, line={"color": charts.ACCENT, "width": 2})
    chart.dress(found, height, l=56, r=40, b=44, t=22)
    found.add_annotation(text="Rank here, 1 = best", xref="paper", x=0, yref="paper", y=1, xanchor="left",
                         yanchor="bottom", showarrow=False, xshift=-44)  # fmt: skip
    found.update_yaxes(range=[count + 0.5, 0.5], tickvals=list(range(1, count + 1)), fixedrange=True, zeroline=False)
    found.update_xaxes(
        tickvals=ticks.tolist(), ticktext=[str(step) for step in steps], fixedrange=True, zeroline=False,
        range=[-0.35, len(steps) - 0.65], title={"text": "Training step (one place per checkpoint)"},
    )  # fmt: skip
    return found


def _tip(place: Place, t: int, steps: Sequence[int], look: Look) -> str:
    if np.isnan(place.ranks[t]):
        return ""
    rank = f"{place.ranks[t]:g} [{place.low[t]:g}, {place.high[t]:g}]"
    agree = f"τ of the whole order with the last {place.tau[t]:+.2f}"
    return f"<b>{look.family}</b><br>step {steps[t]}: rank {rank}<br>{agree}"
