"""Small pictures of I2X: an image under its heatmap, patches with a frame where they sit, a colour bar."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from plotly.colors import sample_colorscale, unlabel_rgb

from pages.ui import charts

OPACITY = 0.62  # of a heatmap over its image


def tile(pixels: np.ndarray, values: np.ndarray | None, span: tuple[float, float], side: int = 128) -> Image.Image:
    """The image, crisp, and over it the map on its own grid; span: values at the ends of the colour scale."""
    below = charts.picture(pixels).resize((side, side), Image.Resampling.NEAREST)
    if values is None:
        return below
    rows, columns = values.shape
    colours = np.array([_colour(value, span) for value in values.ravel()], np.uint8).reshape(rows, columns, 3)
    above = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
    return Image.blend(below, above, OPACITY)


def bar(span: tuple[float, float], width: int = 128, height: int = 14) -> Image.Image:
    """The colour scale from its low to its high end, as it looks over a black image's opposite: unmixed."""
    colours = np.array([[_colour(value, span) for value in np.linspace(*span, width)]], np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def framed(
    pixels: np.ndarray, place: tuple[int, int], grid: tuple[int, int], colour: str, side: int = 96
) -> Image.Image:
    """The image with a frame around one location (row, column) of the grid."""
    found = charts.picture(pixels).resize((side, side), Image.Resampling.NEAREST)
    (row, column), (rows, columns) = place, grid
    box = [side * column // columns, side * row // rows, side * (column + 1) // columns, side * (row + 1) // rows]
    ImageDraw.Draw(found).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=colour, width=4)
    return found


def patch(pixels: np.ndarray, place: tuple[int, int], grid: tuple[int, int], side: int = 32) -> str:
    """The location alone, enlarged, as a data address."""
    (row, column), (rows, columns) = place, grid
    whole = charts.picture(pixels)
    wide, high = whole.width / columns, whole.height / rows
    cut = whole.crop((round(column * wide), round(row * high), round((column + 1) * wide), round((row + 1) * high)))
    buffer = io.BytesIO()
    cut.resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def row(pictures: Sequence[Image.Image], gap: int = 6) -> Image.Image:
    """Pictures of one size side by side on nothing."""
    side = pictures[0].height
    sheet = Image.new("RGBA", (len(pictures) * (side + gap) - gap, side))
    for place, one in enumerate(pictures):
        sheet.paste(one, (place * (side + gap), 0))
    return sheet


def _colour(value: float, span: tuple[float, float]) -> tuple[int, int, int]:
    share = min(1.0, max(0.0, (value - span[0]) / (span[1] - span[0])))
    red, green, blue = unlabel_rgb(sample_colorscale(charts.DIVERGING if span[0] < 0 else "Cividis", [share])[0])
    return round(red), round(green), round(blue)
