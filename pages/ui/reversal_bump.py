"""The bump chart: one line per contender, its rank under every fill, and how sure that rank is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from audit_core.study.analysis import ReversalView, SchemeView
from audit_core.study.published import PublishedMark
from pages.ui import reversal_chart as chart
from pages.ui import reversal_published
from pages.ui.reversal_looks import Look, fill_title

FEW = 12  # contenders with a band and two lines of label each


def figure(
    view: ReversalView,
    scheme: SchemeView,
    looks: Mapping[str, Look],
    marks: Mapping[str, Sequence[PublishedMark]],
) -> go.Figure:
    """Fills from left to right in the view's order, rank 1 on top; marks: fill -> published marks, hollow."""
    drawn = [c for c, row in enumerate(scheme.ranks.rank) if not np.isnan(row).all()]
    sure = certain(scheme)
    found = go.Figure()
    for c in drawn if len(drawn) <= FEW else ():
        found.add_traces(list(_bands(scheme, c, looks[view.contenders[c]], view.contenders[c] in sure)))
    for c in drawn:
        found.add_trace(_line(view, scheme, c, looks[view.contenders[c]], view.contenders[c] in sure))
    for c in drawn:
        _label(found, scheme.ranks.rank[c], looks[view.contenders[c]], len(drawn) <= FEW)
    if any(marks.values()):
        reversal_published.add_rings(found, view, looks, marks)
    lines = 2 if len(drawn) <= FEW else 1
    longest = max((len(part) for c in drawn for part in _label_lines(looks[view.contenders[c]], lines)), default=8)
    high = 0.0 if not drawn else float(np.nanmax(scheme.ranks.high))
    found.update_yaxes(
        range=[max(high, len(drawn)) + 0.6, 0.4],
        tickvals=list(range(1, len(drawn) + 1)),
        zeroline=False,
        fixedrange=True,
    )
    found.add_annotation(
        text="Rank, 1 = best", x=0, xref="paper", y=1, yref="paper", yshift=20, xanchor="left", showarrow=False
    )
    found.update_xaxes(
        range=[-0.12, len(view.fills) - 0.88],
        tickvals=list(range(len(view.fills))),
        ticktext=[_tick(view, f) for f in range(len(view.fills))],
        tickfont={"size": 12},
        tickangle=0,
        zeroline=False,
        fixedrange=True,
        title={"text": "Fill, R-OMS (highest first)" if any(view.scope) else "Fill", "standoff": 10},
    )
    height = 120 + (46 if lines == 2 else 25) * max(4, len(drawn))
    return chart.dress(found, height, r=20 + int(6.2 * longest), l=24, b=84, t=28)


def certain(scheme: SchemeView) -> set[str]:
    """Contenders that change places with another one for certain."""
    return {name for p in scheme.pairs if p.reverses and p.certain for name in (p.first, p.second)}


def alt(view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look], sentence: str) -> str:
    """The finding in words: the sentence, and who leads under each fill."""
    leaders = [
        f"{fill_title(fill)}: {looks[view.contenders[int(np.nanargmin(column))]].name}"
        for fill, column in zip(view.fills, scheme.ranks.rank.T, strict=True)
        if not np.isnan(column).all()
    ]
    return f"Bump chart of {len(view.contenders)} contenders. {sentence} Best under each fill: {'; '.join(leaders)}."


def _bands(scheme: SchemeView, c: int, look: Look, strong: bool) -> Iterator[go.Scatter]:
    low, high = scheme.ranks.low[c], scheme.ranks.high[c]
    held = np.flatnonzero(~np.isnan(low))
    for part in np.split(held, np.flatnonzero(np.diff(held) > 1) + 1):
        if len(part) < 2:
            continue
        yield go.Scatter(
            x=[*part, *part[::-1]],
            y=[*(low[part] - 0.06), *(high[part][::-1] + 0.06)],
            fill="toself",
            fillcolor=chart.clear(look.colour, 0.14 if strong else 0.06),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            name="interval",
        )


def _line(view: ReversalView, scheme: SchemeView, c: int, look: Look, strong: bool) -> go.Scatter:
    width = (1.2 if look.dash == "solid" else 2.0) if look.control else 3.6 if strong else 1.8
    return go.Scatter(
        x=list(range(len(view.fills))),
        y=[None if np.isnan(r) else float(r) for r in scheme.ranks.rank[c]],
        mode="lines+markers",
        name=look.name,
        opacity=1.0 if strong else 0.65,
        line={"color": look.colour, "width": width, "dash": look.dash},
        marker={"symbol": look.marker, "size": 11 if strong else 8, "color": look.colour},
        hovertext=[_tip(view, scheme, c, f, look) for f in range(len(view.fills))],
        hoverinfo="text",
    )


def _tip(view: ReversalView, scheme: SchemeView, c: int, f: int, look: Look) -> str:
    ranks = scheme.ranks
    if np.isnan(ranks.rank[c, f]):
        return ""
    rank = f"{ranks.rank[c, f]:g} [{ranks.low[c, f]:g}, {ranks.high[c, f]:g}]"
    mean = f"{view.means[c, f]:.3f}{chart.span(scheme.low[c, f], scheme.high[c, f])}".replace("-", "−")
    return (
        f"<b>{look.name}</b><br>{fill_title(view.fills[f])}: rank {rank}<br>"
        f"{chart.metric_title(view.metric)} {mean} {chart.direction(view.better)[:1]}, n = {view.n[c, f]:,}<br>"
        f"best in {100 * ranks.probability_best[c, f]:.0f} % of the resamples"
    )


def _label(found: go.Figure, ranks: np.ndarray, look: Look, two_lines: bool) -> None:
    last = int(np.flatnonzero(~np.isnan(ranks))[-1])
    family, *rest = _label_lines(look, 2 if two_lines else 1)
    found.add_annotation(
        x=last,
        y=float(ranks[last]),
        text="<br>".join([f"<b>{family}</b>" if rest else family, *rest]),
        xanchor="left",
        xshift=14,
        showarrow=False,
        align="left",
        font={"size": 12},
    )


def _label_lines(look: Look, lines: int) -> list[str]:
    return [look.family, look.title] if lines == 2 else [look.name]


def _tick(view: ReversalView, f: int) -> str:
    scope = view.scope[f]
    told = f"<br>{scope.value:.2f}" if scope else "<br>–"
    return chart.wrapped(fill_title(view.fills[f]), 9) + told
