"""Charts of an analysis, pure functions of it and of choices: trajectories, and beta as a heatmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.settings import Settings
from pages.ui import charts
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import INK

SIGNED = {"light": ("#D55E00", "#0072B2"), "dark": ("#E69F00", "#56B4E9")}  # up, down; as the diverging map
HUES = ("#009E73", "#CC79A7", "#B8A800", "#56B4E9", "#E69F00", "#0072B2")  # first those that no sign has
CLASS_HUES = {"light": ("#1B2430", "#6E7681"), "dark": ("#E6EBF2", "#9AA3AF")}
UNIT = "gradient-weighted activation, logits"


def unit(settings: Settings) -> str:
    """Of the intensities and of the strip."""
    if settings.normalisation == "max":
        return "share of the image’s largest"
    return UNIT if settings.explainer == "grad-cam" else "in the explainer’s unit"


def hue(chosen: Sequence[int], k: int) -> str:
    """Colour of a prototype among the chosen ones."""
    return HUES[list(chosen).index(k) % len(HUES)]


def trajectory(
    made: Analysis,
    pair: tuple[int, int],
    chosen: Sequence[int],
    means: Sequence[tuple[np.ndarray, np.ndarray]],
    at: int | None = None,
    height: int = 520,
) -> go.Figure:
    """Above the confidences, below the intensities of ``chosen`` prototypes, checkpoint by checkpoint.

    means: for each class of ``pair`` (mean intensity (T, K), mean confidence (T, classes)) of its images; at: the
    transition to mark, None for none. The first class is drawn solid, the second dashed.
    """
    seen, names = made.trajectory, [made.classes[c] for c in pair]
    ticks = list(range(len(seen.steps)))
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.42, 0.58])
    for side, (c, dash, colour) in enumerate(zip(pair, ("solid", "dash"), CLASS_HUES[chart.theme()], strict=True)):
        other = pair[1 - side]
        for target, width, opacity in ((c, 2.6, 1.0), (other, 1.2, 0.8)):
            figure.add_scatter(
                x=ticks, y=means[side][1][:, target], mode="lines", opacity=opacity, row=1, col=1,
                name=f"{names[side]} taken for {made.classes[target]}" if target != c else f"{names[side]} right",
                line={"color": colour, "width": width, "dash": dash if target == c else "dot"},
                hovertemplate="%{y:.3f}",
            )  # fmt: skip
    for k in chosen:
        for side, dash in enumerate(("solid", "dash")):
            figure.add_scatter(
                x=ticks, y=means[side][0][:, k], mode="lines+markers", row=2, col=1, name=f"P-{k} in {names[side]}",
                line={"color": hue(chosen, k), "width": 2.2, "dash": dash}, marker={"size": 5},
                hovertemplate="%{y:.3g}",
            )  # fmt: skip
    if at is not None:
        figure.add_vrect(at, at + 1, fillcolor=charts.ACCENT, opacity=0.13, line_width=0)
        figure.add_vline(at + 1, line={"color": charts.ACCENT, "width": 2})
    chart.dress(figure, height, l=56, b=54, t=26)
    for text, axis in (("Mean confidence (0 to 1)", "y"), (f"Mean intensity ({unit(made.settings)})", "y2")):
        figure.add_annotation(text=text, xref="paper", x=0, yref=f"{axis} domain", y=1, xanchor="left",
                              yanchor="bottom", showarrow=False, xshift=-44)  # fmt: skip
    figure.update_yaxes(range=[0, 1.03], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    figure.update_yaxes(fixedrange=True, zeroline=False)
    figure.update_xaxes(tickvals=ticks, ticktext=[str(step) for step in seen.steps], zeroline=False)
    figure.update_xaxes(title={"text": "Training step (one place per checkpoint)"}, row=2, col=1)
    figure.update_layout(hovermode="x unified", hoversubplots="axis")
    return figure


def beta(made: Analysis, at: int, height: int = 0) -> go.Figure:
    """beta of a transition, prototypes by rows: what one unit of intensity did to each class's confidence."""
    values = made.transitions[at].beta
    high = float(np.abs(values).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values, x=list(made.classes), y=[f"P-{k}" for k in range(len(values))], zmin=-high, zmax=high,
            colorscale=charts.DIVERGING, xgap=1, ygap=1,
            colorbar={"title": {"text": "β, confidence / intensity", "side": "right"},
                      "thickness": 12, "tickformat": ".2g", "tickfont": {"color": INK[chart.theme()]}},
            hovertemplate="%{y} → class %{x}<br>β = %{z:+.3g}<extra></extra>",
        )
    )  # fmt: skip
    chart.dress(figure, height or 90 + 20 * max(8, len(values)), l=44, b=44)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, fixedrange=True, dtick=1)
    figure.update_xaxes(type="category", showgrid=False, fixedrange=True, title={"text": "Class"})
    return figure
