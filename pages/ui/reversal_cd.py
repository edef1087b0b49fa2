"""Critical differences under one fill: Friedman's test over images, Nemenyi's groups as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from audit_core.errors import AuditError
from audit_core.study.analysis import PairsView
from audit_core.study.filters import Filters
from pages.ui import reversal_chart as chart
from pages.ui import reversal_work, wording
from pages.ui.reversal_looks import INK, Look, fill_title
from pages.ui.reversal_work import Opened

PAGE = "reversal"


def draw(
    opened: Opened, metric: str, filters: Filters, contenders: Sequence[str], fill: str, looks: Mapping[str, Look]
) -> None:
    """The diagram in a fold; nothing is computed before it is opened."""
    fold = st.expander(
        f"Which of them differ at all under {fill_title(fill)}? (critical differences)",
        key=f"{PAGE}.cd_open",
        icon=":material/leaderboard:",
        on_change="rerun",
    )
    if not fold.open:
        return
    with fold:
        try:
            found = reversal_work.pairs(opened, metric, filters, _with_numbers(opened, metric, contenders, fill), fill)
        except AuditError as problem:
            st.info(wording.plain(str(problem)))
            return
        chart.show(figure(found, looks), f"{PAGE}.cd", _alt(found, looks))
        st.caption(wording.plain(_sentence(found)))


def figure(found: PairsView, looks: Mapping[str, Look]) -> go.Figure:
    """One row per contender, best first; a bar joins contenders that do not differ significantly."""
    ranks = found.friedman.mean_ranks
    order = [int(c) for c in np.argsort(ranks, kind="stable") if np.isfinite(ranks[c])]
    row = {c: k for k, c in enumerate(order)}
    ink, drawn = INK[chart.theme()], go.Figure()
    for clique in found.friedman.cliques:
        rows = [row[c] for c in clique]
        drawn.add_trace(
            go.Scatter(
                x=[float(ranks[clique[0]]), float(ranks[clique[-1]])],
                y=[min(rows), max(rows)],
                mode="lines",
                line={"color": chart.clear(ink, 0.28), "width": 9},
                name="no significant difference",
                hoverinfo="skip",
            )
        )
    names = [looks[found.contenders[c]] for c in order]
    drawn.add_trace(
        go.Scatter(
            x=[float(ranks[c]) for c in order],
            y=list(range(len(order))),
            mode="markers",
            name="mean rank",
            marker={"size": 11, "color": [n.colour for n in names], "symbol": ["circle" for _ in names]},
            hovertext=[f"{look.name}: mean rank {ranks[c]:.2f}" for look, c in zip(names, order, strict=True)],
            hoverinfo="text",
        )
    )
    gap = found.friedman.critical_difference
    if gap is not None:
        drawn.add_shape(type="line", x0=1, x1=1 + gap, y0=-0.85, y1=-0.85, line={"color": ink, "width": 3})
        drawn.add_annotation(x=1, y=-0.85, yshift=11, xanchor="left", showarrow=False, text=f"CD {gap:.2f}")
    drawn.update_yaxes(
        tickvals=list(range(len(order))), ticktext=[f"{n.family}<br>{n.title}" for n in names],
        range=[len(order) - 0.5, -1.5], showgrid=False, zeroline=False, fixedrange=True, tickfont={"size": 12},
    )  # fmt: skip
    drawn.update_xaxes(title="Mean rank over images (1 = best)", zeroline=False, fixedrange=True)
    return chart.dress(drawn, 110 + 40 * max(3, len(order)), l=128, b=50)


def _with_numbers(opened: Opened, metric: str, contenders: Sequence[str], fill: str) -> list[str]:
    """Contenders with numbers under this fill: one without any would leave no image that all share."""
    held = {c.contender for c in opened.results.counts(metric) if c.fill == fill and c.state == "number"}
    return [name for name in contenders if name in held]


def _sentence(found: PairsView) -> str:
    test = found.friedman
    said = f"Over the {test.n:,} images on which all have a number: "
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    if test.statistic is not None:
        said += f"Friedman’s chi-squared {test.statistic:.1f}, {p}. "
    else:
        said += f"{p}. "
    said += f"{test.note}. " if test.note else ""
    return said + "Bars join contenders whose mean ranks differ by less than the critical difference (Nemenyi, 5 %)."


def _alt(found: PairsView, looks: Mapping[str, Look]) -> str:
    ranks = found.friedman.mean_ranks
    if not np.isfinite(ranks).any():
        return "Critical-difference diagram without ranks"
    best = looks[found.contenders[int(np.nanargmin(ranks))]].name
    joined = len(found.friedman.cliques)
    return f"Critical-difference diagram of {len(ranks)} contenders: {best} has the best mean rank; {joined} groups"
