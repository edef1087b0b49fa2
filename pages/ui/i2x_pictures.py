"""Small pictures of I2X: an image under its heatmap, patches with a frame where they sit, a colour bar."""

from __future__ import annotations

import base64
import functools
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
    above = Image.fromarray(_colours(values, span)).resize((side, side), Image.Resampling.NEAREST)
    return Image.blend(below, above, OPACITY)


def bar(span: tuple[float, float], width: int = 128, height: int = 14) -> Image.Image:
    """The colour scale from its low to its high end, as it looks over a black image's opposite: unmixed."""
    colours = _colours(np.linspace(*span, width)[None], span)
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


def _colours(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """uint8 (rows, columns, 3) of values (rows, columns); two-sided where the span has a negative end."""
    share = np.clip((values - span[0]) / (span[1] - span[0]), 0, 1)
    return _palette("signed" if span[0] < 0 else "rising")[np.rint(share * 255).astype(np.uint8)]


@functools.cache
def _palette(kind: str) -> np.ndarray:
    """256 colours, uint8 (256, 3)."""
    scale = charts.DIVERGING if kind == "signed" else "Cividis"
    found = [unlabel_rgb(colour) for colour in sample_colorscale(scale, list(np.linspace(0, 1, 256)))]
    return np.rint(np.array(found)).astype(np.uint8)
