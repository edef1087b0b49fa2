"""How far the fills agree: Kendall's tau, the summary over fills, and spread compression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from audit_core.statistics import Estimate
from audit_core.study.analysis import CompressionView, ReversalView, SchemeView
from pages.ui import charts
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import INK, Look, fill_title

PAGE = "reversal"


def tau(view: ReversalView, scheme: SchemeView) -> None:
    """Kendall's tau-b between the orders under every two fills."""
    table, names = scheme.tau, [chart.wrapped(fill_title(fill), 10) for fill in view.fills]
    text = [["–" if np.isnan(v) else f"{v:.2f}".replace("-", "−") for v in row] for row in table.tau]
    tips = [
        [
            f"{fill_title(view.fills[i])} and {fill_title(view.fills[k])}: τ {text[i][k]}"
            f"{chart.span(table.low[i, k], table.high[i, k], 2)}, {table.n[i, k]} contenders"
            for k in range(len(names))
        ]
        for i in range(len(names))
    ]
    figure = go.Figure(
        go.Heatmap(
            z=np.where(np.isnan(table.tau), None, table.tau),
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            colorscale=charts.DIVERGING,
            xgap=2,
            ygap=2,
            hovertext=tips,
            hoverinfo="text",
            colorbar={
                "orientation": "h",
                "thickness": 8,
                "len": 0.7,
                "y": -0.04,
                "yanchor": "top",
                "ypad": 0,
                "tickvals": [-1, 0, 1],
                "ticktext": ["−1 turned over", "0", "1 the same"],
            },
        )
    )
    for i, k in np.ndindex(table.tau.shape):
        dark = np.isfinite(table.tau[i, k]) and table.tau[i, k] < -0.6
        colour = "#FFFFFF" if dark else "#1B2430" if np.isfinite(table.tau[i, k]) else INK[chart.theme()]
        figure.add_annotation(x=k, y=i, text=text[i][k], showarrow=False, font={"size": 14, "color": colour})
    figure.update_xaxes(side="top", showgrid=False, ticks="", tickangle=0, tickfont={"size": 11}, fixedrange=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", fixedrange=True)
    pairs = table.tau[np.triu_indices(len(names), 1)]
    known = pairs[np.isfinite(pairs)]
    said = f"between {known.min():.2f} and {known.max():.2f}" if known.size else "not defined"
    chart.show(
        chart.dress(figure, 130 + 50 * max(3, len(names)), l=76, t=52, b=46),
        f"{PAGE}.tau",
        f"Kendall's tau between the orders under every two fills: {said}",
    )
    st.caption("1: the same order; 0: unrelated; −1: turned over. Hover for the 95 % interval.")


def summary(view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look]) -> None:
    """Mean SRG of every contender, and how far its order agrees with each fill's."""
    if not scheme.summary:
        st.caption("This study has no SRG for these contenders.")
        return
    figure = _dots([fill_title(fill) for fill in view.fills], scheme.summary, "Kendall’s τ with the order by mean SRG")
    figure.add_vline(x=0, line={"color": INK[chart.theme()], "width": 1, "dash": "dot"})
    figure.update_xaxes(range=[-1.05, 1.05], tickvals=[-1, -0.5, 0, 0.5, 1], ticktext=["−1", "−0.5", "0", "0.5", "1"])
    told = "; ".join(f"{fill_title(f)} {e.value:.2f}" for f, e in zip(view.fills, scheme.summary, strict=True))
    chart.show(figure, f"{PAGE}.summary", f"Agreement of the SRG order with each fill's order: {told}")
    order = np.argsort(-np.nan_to_num(view.srg, nan=-np.inf), kind="stable")
    best = [f"{looks[view.contenders[c]].name} {_signed(view.srg[c])}" for c in order if np.isfinite(view.srg[c])]
    more = "; …" if len(best) > 8 else "."
    st.caption(f"Mean SRG over all fills, ↑ higher is better: {'; '.join(best[:8])}{more}")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def compression(view: CompressionView) -> None:
    """Spread of the families under the agnostic explainer over that under their own ones, per fill."""
    names = [fill_title(fill) for fill in view.fills]
    figure = _dots(names, view.ratios, "Spread under RISE / under own explainers")
    figure.add_vline(x=1, line={"color": INK[chart.theme()], "width": 1.2, "dash": "dot"})
    figure.update_xaxes(rangemode="tozero")
    told = "; ".join(f"{fill_title(f)} {e.value:.2f}" for f, e in zip(view.fills, view.ratios, strict=True))
    chart.show(figure, f"{PAGE}.compression", f"Spread compression per fill, below 1 is compressed: {told}")
    st.caption(
        f"Largest minus smallest mean over {len(view.pairs)} families. Below 1: RISE brings the families closer "
        "together than their own explainers do; the dotted line means unchanged."
    )


def _dots(names: list[str], estimates: tuple[Estimate, ...], title: str) -> go.Figure:
    """One dot with interval per fill."""
    held = [(k, e) for k, e in enumerate(estimates) if np.isfinite(e.value)]
    arms = [[(e.high if side else e.value) - (e.value if side else e.low) if e.low is not None and e.high is not None
             else 0 for _, e in held] for side in (1, 0)]  # fmt: skip
    figure = go.Figure(
        go.Scatter(
            x=[e.value for _, e in held],
            y=[k for k, _ in held],
            mode="markers",
            marker={"size": 11, "color": chart.STRONG[chart.theme()]},
            error_x={"type": "data", "array": arms[0], "arrayminus": arms[1], "thickness": 2.5, "width": 0,
                     "color": chart.STRONG[chart.theme()]},
            hovertext=[f"{names[k]}: {e.value:.2f}{chart.span(e.low, e.high, 2)}" for k, e in held],
            hoverinfo="text",
        )
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[chart.wrapped(name, 13) for name in names],
        range=[len(names) - 0.4, -0.6], showgrid=False, zeroline=False, fixedrange=True,
    )  # fmt: skip
    figure.update_xaxes(title=title, zeroline=False, fixedrange=True)
    return chart.dress(figure, 80 + 40 * max(3, len(names)), l=88, b=48)
