"""The graph from prototypes to classes at one transition, with all transitions as frames to be played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.choices import Edge, strongest_edges
from pages.ui import reversal_chart as chart
from pages.ui.i2x_charts import SIGNED, hue
from pages.ui.reversal_looks import GREY, INK

EDGES = 18  # drawn at most
WIDEST = 12.0  # px
MILLISECONDS = 900  # per frame


def figure(
    made: Analysis,
    pushes: np.ndarray,
    at: int,
    chosen: Sequence[int] = (),
    bold: Sequence[int] = (),
    patches: Mapping[int, str] | None = None,
    height: int = 520,
    play: bool = True,
) -> go.Figure:
    """Prototypes on the left, classes on the right, the strongest pushes of transition ``at`` between them.

    pushes: (transitions, K, classes), in units of confidence; widths are over the largest push of all transitions.
    chosen: prototypes drawn in their colour; bold: classes in bold letters; patches: prototype -> picture as a data
    address; play: with a button that runs through all transitions in the browser and comes back to ``at``.
    """
    top = float(np.abs(pushes).max(initial=0.0)) or 1.0
    heights = _heights(pushes.shape[1]), _heights(pushes.shape[2])
    found = go.Figure(_edges(pushes[at], top, heights, made.classes) + _nodes(made, heights, chosen, bold))
    frames = range(len(pushes)) if play else ()
    found.frames = [
        go.Frame(
            name=str(t), data=_edges(pushes[t], top, heights, made.classes), traces=list(range(EDGES + 1)),
            layout={"title": {"text": _title(made, t)}},
        )
        for t in frames
    ]  # fmt: skip
    chart.dress(found, height, l=6, r=6, t=40, b=46 if play else 8)
    for k, address in (patches or {}).items():
        found.add_layout_image(source=address, x=-0.19, y=heights[0][k], xref="x", yref="y", sizex=0.16,
                               sizey=0.9 / max(pushes.shape[1], 8), xanchor="right", yanchor="middle")  # fmt: skip
    found.update_xaxes(visible=False, range=[-0.36 if patches else -0.2, 1.22], fixedrange=True)
    found.update_yaxes(visible=False, range=[-0.04, 1.04], fixedrange=True)
    found.update_layout(title={"text": _title(made, at), "x": 0, "font": {"size": 14, "color": INK[chart.theme()]}})
    if play:
        found.update_layout(updatemenus=[_buttons(len(pushes), at)])
    return found


def alt(made: Analysis, pushes: np.ndarray, at: int) -> str:
    """The three strongest pushes in words."""
    strongest = strongest_edges(pushes[at], 3)[::-1]
    told = ", ".join(
        f"P-{edge.prototype} pushed {made.classes[edge.target]} {'up' if edge.push > 0 else 'down'} by "
        f"{abs(edge.push):.3f}"
        for edge in strongest
    )
    return f"Graph from prototypes to classes, {_title(made, at)}. {told or 'No prototype pushed any class'}."


def _title(made: Analysis, t: int) -> str:
    steps, groups = made.trajectory.steps, made.transitions[t].groups
    return f"step {steps[t]} → {steps[t + 1]}" + ("" if groups else ": nothing is explained")


def _heights(count: int) -> np.ndarray:
    return np.linspace(1, 0, count) if count > 1 else np.array([0.5])


def _edges(
    pushes: np.ndarray, top: float, heights: tuple[np.ndarray, np.ndarray], classes: Sequence[str]
) -> list[go.Scatter]:
    """Always as many traces, empty ones for edges that are not there, and one of marks that are hovered."""
    edges = strongest_edges(pushes, EDGES)
    lines = [_edge(edge, top, heights) for edge in edges]
    lines += [go.Scatter(x=[None], y=[None], mode="lines", hoverinfo="skip") for _ in range(EDGES - len(edges))]
    return [*lines, _marks(edges, heights, classes)]


def _edge(edge: Edge, top: float, heights: tuple[np.ndarray, np.ndarray]) -> go.Scatter:
    x, y = _curve(edge, heights)
    up, down = SIGNED[chart.theme()]
    line = {"color": up if edge.push > 0 else down, "width": max(0.8, WIDEST * abs(edge.push) / top)}
    return go.Scatter(
        x=x, y=y, mode="lines", hoverinfo="skip", line={**line, "dash": "solid" if edge.push > 0 else "8px,5px"}
    )


def _curve(edge: Edge, heights: tuple[np.ndarray, np.ndarray]) -> tuple[list[float], list[float]]:
    """A line that leaves and arrives level."""
    x = np.linspace(0, 1, 13)
    ease = x * x * (3 - 2 * x)
    low, high = heights[0][edge.prototype], heights[1][edge.target]
    return x.round(3).tolist(), (low + (high - low) * ease).round(4).tolist()


def _marks(edges: Sequence[Edge], heights: tuple[np.ndarray, np.ndarray], classes: Sequence[str]) -> go.Scatter:
    up, down = SIGNED[chart.theme()]
    points = [tuple(part[8] for part in _curve(edge, heights)) for edge in edges]
    return go.Scatter(
        x=[x for x, _ in points], y=[y for _, y in points], mode="text",
        text=["+" if edge.push > 0 else "−" for edge in edges],
        textfont={"size": 15, "color": [up if edge.push > 0 else down for edge in edges]},
        hovertext=[f"P-{edge.prototype} → {classes[edge.target]}: {edge.push:+.3f} of confidence" for edge in edges],
        hoverinfo="text",
    )  # fmt: skip


def _nodes(
    made: Analysis, heights: tuple[np.ndarray, np.ndarray], chosen: Sequence[int], bold: Sequence[int]
) -> list[go.Scatter]:
    grey = GREY[chart.theme()]
    count, classes = len(heights[0]), made.classes
    left = {"color": [hue(chosen, k) if k in chosen else grey for k in range(count)], "size": 11}
    names = [f"<b>P-{k}</b>" if k in chosen else f"P-{k}" for k in range(count)]
    told = [f"<b>{name}</b>" if c in bold else name for c, name in enumerate(classes)]
    shared = {"mode": "markers+text", "hoverinfo": "skip", "textfont": {"size": 13}}
    return [
        go.Scatter(x=[-0.02] * count, y=heights[0], text=names, textposition="middle left", marker=left, **shared),
        go.Scatter(x=[1.02] * len(classes), y=heights[1], text=told, textposition="middle right",
                   marker={"color": grey, "size": 11, "symbol": "square"}, **shared),
    ]  # fmt: skip


def _buttons(count: int, at: int) -> dict:
    timing = {"frame": {"duration": MILLISECONDS, "redraw": True}, "transition": {"duration": 0}, "mode": "immediate",
              "fromcurrent": False}  # fmt: skip
    order = [*map(str, range(count)), str(at)]
    stop = [[str(at)], {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}]
    return {
        "type": "buttons", "direction": "left", "showactive": False, "x": 0, "y": 0, "xanchor": "left",
        "yanchor": "top", "pad": {"t": 8},
        "buttons": [{"label": "▶ Play all transitions", "method": "animate", "args": [order, timing]},
                    {"label": "■ Stop", "method": "animate", "args": stop}],
    }  # fmt: skip
