"""Charts of one cell: every image as a dot, class by class, and the mean curves beside those of a random order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from audit_core.study.nouns import MeanCurve, Values
from pages.ui import charts, study_words

HEIGHT = 240  # px
NAMED = {"own": charts.OWN, "control": charts.GREY}


def dots(values: Values, mean: float, control: float | None, metric: str) -> dict:
    """Vega-Lite strip of all numbers of a cell; lines: its mean, and the mean of the random order."""
    rows = [
        {"class": label or "all images", "value": float(value), "image": image}
        for value, label, image in zip(values.value, values.label, values.image, strict=True)
    ]
    title = f"{study_words.plain_metric(metric)} · {study_words.arrow(metric)}"
    x = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}}
    axis = {"labelLimit": 110, "labelOverlap": False}
    y = {"field": "class", "type": "nominal", "title": None, "axis": axis}
    tip = [{"field": "value", "format": ".3f", "title": "number"}, {"field": "class"}, {"field": "image"}]
    lines = [{"value": mean, "line": "mean of the cell"}]
    lines += [{"value": control, "line": "mean of the random order"}] if control is not None else []
    shown = [line["line"] for line in lines]
    colour = {
        "field": "line",
        "type": "nominal",
        "title": None,
        "scale": {"domain": shown, "range": [charts.ACCENT, charts.GREY][: len(shown)]},
        "legend": {"orient": "bottom", "labelLimit": 220, "direction": "vertical"},
    }
    dash = {"field": "line", "type": "nominal", "legend": None, "scale": {"domain": shown, "range": [[1, 0], [5, 4]]}}
    layers = [
        {
            "data": {"values": rows},
            "mark": {"type": "point", "filled": True, "size": 42, "opacity": 0.6, "color": charts.OWN},
            "encoding": {"x": x, "y": y, "tooltip": tip},
        },
        {
            "data": {"values": lines},
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"x": {"field": "value", "type": "quantitative"}, "color": colour, "strokeDash": dash},
        },
    ]
    heading = {"text": "Every image, by class", "anchor": "start", "fontSize": 14}
    return {"title": heading, "height": HEIGHT, "layer": layers}


def mean_curves(found: Sequence[MeanCurve], own: str, kind: str, probability: bool) -> dict:
    """Vega-Lite chart of mean curves with their 95 % intervals: the contender solid, its random order dashed grey."""
    changed = {"deletion": "removed", "insertion": "inserted"}[kind]
    x = {
        "field": "fraction",
        "type": "quantitative",
        "title": f"Share of pixels {changed}",
        "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "tickCount": 6},
    }
    y: dict = {"type": "quantitative", "title": f"Mean {'probability' if probability else 'logit'} of the target"}
    if probability:
        y["scale"] = {"domain": [0, 1]}
    layers = []
    for curve in sorted(found, key=lambda curve: curve.contender == own):
        role = "own" if curve.contender == own else "control"
        rows = [
            {"fraction": float(f), "mean": float(m), "low": _finite(low), "high": _finite(high)}
            for f, m, low, high in zip(curve.fraction, curve.mean, curve.low, curve.high, strict=True)
        ]
        dashed = {} if role == "own" else {"strokeDash": [5, 4]}
        tip = [{"field": "fraction", "format": ".0%", "title": changed}, {"field": "mean", "format": ".3f"}]
        layers += [
            {
                "data": {"values": rows},
                "mark": {"type": "area", "color": NAMED[role], "opacity": 0.18, "clip": True},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "color": NAMED[role], "strokeWidth": 2.5, **dashed},
                "encoding": {"x": x, "y": {**y, "field": "mean"}, "tooltip": tip},
            },
        ]
    way = {"deletion": "↓ lower is better", "insertion": "↑ higher is better"}[kind]
    title = {"text": f"{kind.capitalize()}, mean curve · {way}", "anchor": "start", "fontSize": 14}
    return {"title": title, "height": HEIGHT, "layer": layers}


def _finite(value: float) -> float | None:
    """JSON knows no NaN: one image has no interval."""
    return float(value) if math.isfinite(value) else None
