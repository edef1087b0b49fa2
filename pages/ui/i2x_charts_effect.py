"""A confusion matrix before or after fine-tuning, with the pair framed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from audit_core.i2x.comparisons import Compared
from pages.ui import charts
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import INK

MOST = 20  # classes whose counts are written into the cells


def confusion(
    counts: np.ndarray, pair: tuple[int, int], classes: Sequence[str], top: float, height: int = 400
) -> go.Figure:
    """Test images, true class by row, (classes, classes); top: the largest wrong count on the colour scale."""
    wrong = np.where(np.eye(len(classes), dtype=bool), np.nan, counts)
    few = len(classes) <= MOST
    figure = go.Figure(
        go.Heatmap(
            z=wrong, x=list(classes), y=list(classes), zmin=0, zmax=top, colorscale="Cividis", xgap=1, ygap=1,
            text=[[f"{n:.3g}" if n > 0 else "" for n in row] for row in wrong] if few else None,
            texttemplate="%{text}" if few else None, customdata=counts, hoverongaps=True,
            hovertemplate="true %{y}, taken for %{x}: %{customdata:.3g}<extra></extra>",
            colorbar={"title": {"text": "wrong test images", "side": "right"}, "thickness": 12,
                      "tickfont": {"color": INK[chart.theme()]}},
        )
    )  # fmt: skip
    for a, b in (pair, pair[::-1]):
        figure.add_shape(type="rect", x0=b - 0.5, x1=b + 0.5, y0=a - 0.5, y1=a + 0.5,
                         line={"color": charts.ACCENT, "width": 3})  # fmt: skip
    for c, n in enumerate(np.diag(counts)) if few else ():
        figure.add_annotation(x=c, y=c, text=f"{n:.3g}", showarrow=False, font={"color": charts.TEXT, "size": 11})
    chart.dress(figure, height, l=50, b=50, t=8)
    figure.update_xaxes(type="category", showgrid=False, fixedrange=True, title={"text": "taken for"})
    figure.update_yaxes(type="category", showgrid=False, fixedrange=True, autorange="reversed")
    figure.update_yaxes(title={"text": "true class"})
    return figure


def largest_wrong(found: Compared, strategy: str) -> float:
    """The top of a colour scale that serves before and after."""
    both = np.maximum(np.array(found.before.confusion, dtype=float), found.confusion(strategy))
    np.fill_diagonal(both, 0)
    return max(1.0, float(both.max()))


def alt(counts: np.ndarray, pair: tuple[int, int], classes: Sequence[str], when: str) -> str:
    """The pair's confusions in words."""
    (a, b), names = pair, [classes[c] for c in pair]
    return (
        f"Confusion matrix {when}: {names[0]} was taken for {names[1]} {counts[a, b]:.3g} times, "
        f"{names[1]} for {names[0]} {counts[b, a]:.3g} times."
    )
