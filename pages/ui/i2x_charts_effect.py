"""Confusion matrices before and after, on one scale, with the pair framed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from audit_core.i2x.comparisons import Compared
from pages.ui import charts
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import INK

MOST = 20  # classes whose counts are written into the cells


def confusions(found: Compared, strategy: str, classes: Sequence[str], height: int = 430) -> go.Figure:
    """Left the start checkpoint, right the chosen strategy; rows are the true classes, counts are test images."""
    matrices = [np.array(found.before.confusion, dtype=float), found.confusion(strategy)]
    titles = [f"before (step {found.start})", f"after “{strategy}”"]
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.09)
    wrong = [np.where(np.eye(len(classes), dtype=bool), np.nan, one) for one in matrices]
    for place, (counts, shown) in enumerate(zip(matrices, wrong, strict=True), 1):
        written = _written(shown) if len(classes) <= MOST else None
        figure.add_trace(
            go.Heatmap(
                z=shown, x=list(classes), y=list(classes), coloraxis="coloraxis", text=written, xgap=1, ygap=1,
                texttemplate="%{text}" if written else None, customdata=counts, hoverongaps=True,
                hovertemplate="true %{y}, taken for %{x}: %{customdata:.3g}<extra></extra>",
            ), 1, place,
        )  # fmt: skip
        for a, b in (found.asked.pair, found.asked.pair[::-1]):
            figure.add_shape(type="rect", x0=b - 0.5, x1=b + 0.5, y0=a - 0.5, y1=a + 0.5,
                             line={"color": charts.ACCENT, "width": 3}, row=1, col=place)  # fmt: skip
        if len(classes) <= MOST:
            for c, n in enumerate(np.diag(counts)):
                figure.add_annotation(x=c, y=c, text=f"{n:.3g}", showarrow=False, row=1, col=place,
                                      font={"color": charts.TEXT, "size": 11})  # fmt: skip
    chart.dress(figure, height, l=50, b=50, t=30)
    figure.update_xaxes(type="category", showgrid=False, fixedrange=True, title={"text": "taken for"})
    figure.update_yaxes(type="category", showgrid=False, fixedrange=True, autorange="reversed")
    figure.update_yaxes(title={"text": "true class"}, col=1)
    top = max(1.0, *(float(np.nanmax(shown)) for shown in wrong))
    bar = {"title": {"text": "wrong test images", "side": "right"}, "thickness": 12,
           "tickfont": {"color": INK[chart.theme()]}}  # fmt: skip
    figure.update_layout(coloraxis={"cmin": 0, "cmax": top, "colorscale": "Cividis", "colorbar": bar})
    return figure


def _written(shown: np.ndarray) -> list[list[str]]:
    """The wrong counts; the right ones are written beside the colours, in letters of their own."""
    return [[f"{n:.3g}" if n > 0 else "" for n in row] for row in shown]


def alt(found: Compared, strategy: str, names: Sequence[str]) -> str:
    """The finding in words."""
    a, b = found.asked.pair
    after = found.confusion(strategy)
    return (
        f"Confusion matrices. {names[0]} and {names[1]} were taken for each other {found.before.confusions} times "
        f"before and {after[a, b] + after[b, a]:.1f} times after {strategy}."
    )
