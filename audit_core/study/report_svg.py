"""Charts as inline SVG: drawn by matplotlib without any global figure, cleaned so that many stand in one page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from audit_core import card

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
INK, MUTED, LINE, FAINT = card.INK, card.MUTED, card.LINE, "#AEB6C0"
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # Verdana has the same widths
SIZE = 8  # pt, of all letters
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "triplecheck",
}  # Any: rcParams; letters stay text, equal figures equal bytes
_NAMED = re.compile(r"(url\(#|^#)([^)]+)")


@dataclass(frozen=True)
class Drawing:
    """A chart for the page; title: what it shows; finding: what is to be seen, also for those who cannot see it."""

    svg: Markup
    title: str
    finding: str


def sheet(width: float, height: float, columns: int = 1, lines: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches and its panels, line by line, with shared axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)  # measures letters while the figure is laid out
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for axes in panels:
        dress(axes)
    return figure, panels


def dress(axes: Axes) -> None:
    """Quiet axes: a line below, no ticks."""
    axes.set_facecolor("none")
    axes.tick_params(labelsize=SIZE, colors=MUTED, labelcolor=INK, length=0)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=LINE, linewidth=0.8)


def words(axes: Axes, x: float, y: float, text: str, **looks: object) -> None:
    """Write user text literally: no mathematics, no hidden letters."""
    axes.text(x, y, _lines(text), parse_math=False, **{"size": SIZE, "color": INK, **looks})  # type: ignore[arg-type]


def labels(axes: Axes, which: str, places: list[float], texts: list[str]) -> None:
    """Literal tick labels on the axis ``which``, "x" or "y"."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(places)
    for label in axis.set_ticklabels([_lines(text) for text in texts]):
        label.set_parse_math(False)


def heading(axes: Axes, text: str, side: str = "center") -> None:
    """Literal title of a panel."""
    axes.set_title(_lines(text), size=SIZE, color=INK, loc=side, parse_math=False)  # type: ignore[arg-type]


def finish(figure: Figure, name: str, title: str, finding: str) -> Drawing:
    """The figure as a drawing; name: unique in the page, it starts every id of the drawing."""
    import matplotlib

    out = io.BytesIO()
    with card._DRAWING, matplotlib.rc_context(_SETTINGS):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(out.getvalue())
    _clean(root, name)
    _describe(root, name, title, finding)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return Drawing(Markup(ElementTree.tostring(root, encoding="unicode")), title, finding)


def _lines(text: str) -> str:
    """Every line literally."""
    return "\n".join(card.plain(line) for line in text.split("\n"))


def _clean(root: ElementTree.Element, name: str) -> None:
    """Ids of its own for each drawing; no metadata; no style sheet, which would reach the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif "#" in value and (found := _NAMED.search(value)) and found.group(1) in ("url(#", "#"):
                element.set(key, _NAMED.sub(rf"\g<1>{name}-\g<2>", value))
        for rule in element.attrib.pop("style", "").split(";"):  # as attributes: printers read styles as HTML's
            key, _, value = (part.strip() for part in rule.partition(":"))
            if key:
                element.set(key, FONTS if key == "font-family" else value)
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")


def _describe(root: ElementTree.Element, name: str, title: str, finding: str) -> None:
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for place, (tag, text) in enumerate((("title", title), ("desc", finding))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = card.plain(text)
        root.insert(place, element)
