"""Charts of an audit: maps, curves, probabilities. Colours from a set that colour-blind readers can tell apart."""

from __future__ import annotations

import base64
import io

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from PIL import Image
from plotly.subplots import make_subplots

OWN, GREY, ACCENT = "#0072B2", "#8A8F98", "#D55E00"
TEXT = "#777D87"  # contrast above 4:1 on the light and on the dark page alike
DIVERGING = [[0.0, "#2166AC"], [0.5, "#F7F7F7"], [1.0, "#E08214"]]
SIDE = 300  # px, height of the pictures in a row


def picture(pixels: np.ndarray) -> Image.Image:
    """Model input (channels, rows, columns) in [0, 1] as an 8-bit picture."""
    rgb = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels[:3]
    return Image.fromarray((np.clip(rgb, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8))


def _data_url(image: Image.Image) -> str:
    # Enlarged with hard edges here: browsers smooth small pictures, and a die is a square.
    factor = max(1, 384 // max(image.size))
    buffer = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def show_picture(pixels: np.ndarray, alt: str, caption: str = "") -> None:
    """The model's input, crisp."""
    st.image(_data_url(picture(pixels)), width="stretch", caption=caption or None, alt=alt)


def scale(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """Colour range of a map: symmetric around 0 when signed, else from its lowest to its highest value."""
    high = float(np.abs(values).max()) or 1.0
    if signed:
        return -high, high
    low, top = float(values.min()), float(values.max())
    return low, top if top > low else low + 1.0


def heatmap(
    pixels: np.ndarray,
    values: np.ndarray,
    signed: bool,
    opacity: float,
    scope: str = "this image",
    span: tuple[float, float] | None = None,
    height: int = SIDE,
) -> go.Figure:
    """The map over the input, with its colour bar; ``scope`` says what the scale was taken from."""
    rows, columns = values.shape
    low, high = span or scale(values, signed)
    figure = go.Figure()
    figure.add_layout_image(
        source=_data_url(picture(pixels)),
        x=-0.5,
        y=-0.5,
        sizex=columns,
        sizey=rows,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    figure.add_trace(
        go.Heatmap(
            z=np.asarray(values, dtype=np.float32),
            zmin=low,
            zmax=high,
            opacity=opacity,
            colorscale=DIVERGING if signed else "Cividis",
            colorbar={
                "title": {"text": f"evidence ({scope})", "side": "right"},
                "thickness": 12,
                "len": 1.0,
                "tickformat": ".2g",
            },
            hovertemplate="row %{y}, column %{x}<br>%{z:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(visible=False, range=[-0.5, columns - 0.5], constrain="domain", constraintoward="left")
    figure.update_yaxes(
        visible=False, range=[rows - 0.5, -0.5], scaleanchor="x", constrain="domain", constraintoward="top"
    )
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 0, "t": 0, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT},
        dragmode=False,
    )
    return figure


def map_strip(maps: list[np.ndarray], titles: list[str], height: int = 210) -> go.Figure:
    """Small maps side by side, each divided by its largest absolute value, so that one colour bar serves all."""
    figure = make_subplots(1, len(maps), subplot_titles=titles, horizontal_spacing=0.02)
    for place, values in enumerate(maps, 1):
        shown = values / (float(np.abs(values).max()) or 1.0)
        hover = "row %{y}, column %{x}<br>%{z:.3g} of the largest<extra></extra>"
        figure.add_trace(go.Heatmap(z=shown, coloraxis="coloraxis", hovertemplate=hover), 1, place)
        figure.update_yaxes(visible=False, autorange="reversed", scaleanchor=f"x{place}", row=1, col=place)
    low = -1 if any((values < 0).any() for values in maps) else 0
    bar = {"title": {"text": "share of each map's largest", "side": "right"}, "thickness": 12}
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_annotations(font_size=11)
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 0, "t": 44, "b": 0},
        coloraxis={"cmin": low, "cmax": 1, "colorscale": DIVERGING if low else "Cividis", "colorbar": bar},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT},
        dragmode=False,
    )
    return figure


def curve_rows(
    fraction: np.ndarray, score: np.ndarray, random: np.ndarray
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """(own points, random band) as chart rows; points that are not scored yet are left out."""
    own = [{"fraction": float(f), "score": float(s)} for f, s in zip(fraction, score, strict=True) if np.isfinite(s)]
    band = []
    for f, column in zip(fraction, random.T if random.size else [], strict=False):
        known = column[np.isfinite(column)]
        if len(known):
            band.append(
                {
                    "fraction": float(f),
                    "low": float(known.min()),
                    "high": float(known.max()),
                    "mean": float(np.mean(known)),
                }
            )
    return own, band


def curve_spec(
    fraction: np.ndarray,
    score: np.ndarray,
    random: np.ndarray,
    title: str,
    change: str,
    scored: str,
    cursor: float | None = None,
) -> dict:
    """Vega-Lite chart of one curve with the random orders' range behind it and a cursor at a fraction."""
    own, band = curve_rows(fraction, score, random)
    y = {"type": "quantitative", "title": scored.capitalize()}
    if scored == "probability":
        y["scale"] = {"domain": [0, 1]}
    x = {
        "field": "fraction",
        "type": "quantitative",
        "title": f"Share of pixels {change}",
        "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "tickCount": 6},
    }
    tip = [{"field": "fraction", "format": ".1%", "title": "changed"}, {"field": "score", "format": ".4f"}]
    layers = [
        {
            "data": {"values": band},
            "mark": {"type": "area", "color": GREY, "opacity": 0.25},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "data": {"values": band},
            "mark": {"type": "line", "color": GREY, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {"x": x, "y": {**y, "field": "mean"}},
        },
        {
            "data": {"values": own},
            "mark": {"type": "line", "color": OWN, "strokeWidth": 2.5, "point": {"color": OWN, "size": 32}},
            "encoding": {"x": x, "y": {**y, "field": "score"}, "tooltip": tip},
        },
    ]
    if cursor is not None:
        layers.append(
            {
                "data": {"values": [{"fraction": cursor}]},
                "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 2},
                "encoding": {"x": x},
            }
        )
    return {"title": {"text": title, "anchor": "start", "fontSize": 15}, "height": 240, "layer": layers}


def probabilities(names: list[str], values: np.ndarray, target: str) -> dict:
    """Vega-Lite bars of class probabilities; the target stands out by colour and label."""
    rows = [
        {"class": n + (" (target)" if n == target else ""), "probability": float(p), "own": n == target}
        for n, p in zip(names, values, strict=True)
    ]
    colour = {"condition": {"test": "datum.own", "value": OWN}, "value": GREY}
    axis = {"labelLimit": 140, "labelOverlap": False}
    y = {"field": "class", "type": "nominal", "sort": None, "title": None, "axis": axis}
    x = {
        "field": "probability",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "tickCount": 3},
        "title": "Probability",
    }
    tip = [{"field": "class"}, {"field": "probability", "format": ".4f"}]
    return {
        "data": {"values": rows},
        "height": max(120, 24 * len(rows)),
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {"y": y, "x": x, "color": colour, "tooltip": tip},
    }


def curve(spec: dict, key: str, alt: str) -> None:
    """Draw a chart in place: it keeps its element while points are added."""
    st.vega_lite_chart(spec, width="stretch", height=spec["height"] + 70, key=key, alt=alt)
