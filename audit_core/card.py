"""The card of an audit: one picture with heatmap, curves, numbers and verdict that carries its whole record.

Importing this needs neither torch nor matplotlib; only :func:`card_png` loads the latter.
"""

from __future__ import annotations

import io
import math
import threading
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from audit_core.record import AuditRecord
from audit_core.verdict import verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.font_manager import FontProperties

KEYWORD = "triplecheck-record"
MAX_LINE = 4_000  # letters of a text that are looked at for drawing

# Sizes and places below are pixels of the card, from its upper left corner.
WIDTH, HEIGHT, DPI = 1600, 900, 100
PAPER, PANEL, INK, MUTED, LINE = "#FFFFFF", "#F3F5F8", "#1B2430", "#5A6573", "#D3D9E0"
OWN, RANDOM, WARNING = "#0072B2", "#7A828C", "#B84A00"  # Okabe-Ito blue and a darker vermilion
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
LEFT, COLUMN, RIGHT = 40, 930, 1560
LOOKS = {
    "native": ("●", "#00785A"), "adapted": ("◆", "#8A5A00"), "mismatched": ("▲", WARNING),
    "model-agnostic": ("■", "#0B5FA5"), "control": ("○", MUTED),
    "supported": ("●", "#0B5FA5"), "qualified": ("◆", "#8A5A00"), "not supported": ("▲", WARNING),
    "not computable": ("○", MUTED),
}  # fmt: skip
_DRAWING = threading.Lock()  # matplotlib's caches are not safe between threads


def card_png(record: AuditRecord) -> bytes:
    """A picture of the record, 1600×900 px, with the whole record in its metadata (compressed text, exact).

    It shows input, map with its own scale, both curves with the random orders behind, areas with their advantage
    over random order, prediction, readout, warnings, cost and origin. Names are drawn literally.
    """
    with _DRAWING:
        sheet = _Sheet()
        _draw(sheet, record)
        picture = sheet.image()
    info, out = PngInfo(), io.BytesIO()
    info.add_text("Title", f"Triplecheck audit {record.key[:16]}")
    info.add_text(KEYWORD, record.dumps(), zip=True)
    picture.save(out, "PNG", pnginfo=info, optimize=False)
    return out.getvalue()


def _draw(sheet: _Sheet, record: AuditRecord) -> None:
    _draw_head(sheet, record)
    _draw_pictures(sheet, record)
    for at, name in ((LEFT + 52, "deletion"), (LEFT + 482, "insertion")):
        _draw_curve(sheet, record, name, at)
    _draw_prediction(sheet, record)
    _draw_metrics(sheet, record)
    _draw_trust(sheet, record)
    _draw_foot(sheet, record)


class _Sheet:
    """A blank card to write on; x and y in px from the upper left corner, y of text is its baseline."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=PAPER)
        self.canvas = FigureCanvasAgg(self.figure)

    def image(self) -> Image.Image:
        """The card as RGB."""
        self.canvas.draw()
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose data area is the given box."""
        return self.figure.add_axes((x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT))

    def width(self, text: str, look: Look) -> float:
        """Width of one line in px."""
        return self.canvas.get_renderer().get_text_width_height_descent(text, look.font(), False)[0]

    def write(self, x: float, y: float, text: str, look: Look, room: float = math.inf, align: str = "left") -> float:
        """Draw one line, cut to ``room`` px, and return where it ends."""
        shown = self.cut(plain(text), look, room)
        self.figure.text(
            x / WIDTH, 1 - y / HEIGHT, shown, fontproperties=look.font(), color=look.color, ha=align, va="baseline",
            parse_math=False,
        )  # fmt: skip
        return x + self.width(shown, look)

    def cut(self, text: str, look: Look, room: float) -> str:
        """``text`` if it fits, else its longest beginning that does with an ellipsis."""
        if math.isinf(room) or self.width(text, look) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(text[:middle] + "…", look) <= room else (low, middle - 1)
        return text[:low] + "…"

    def paragraph(self, x: float, y: float, text: str, look: Look, room: float, lines: int) -> float:
        """Draw ``text`` in at most ``lines`` lines; returns the baseline after the last one."""
        rest = plain(text).split(" ")
        for number in range(lines):
            count = len(rest) if number == lines - 1 else self._words(rest, look, room)
            self.write(x, y, " ".join(rest[:count]), look, room)
            rest, y = rest[count:], y + 1.5 * look.size
            if not rest:
                break
        return y

    def _words(self, words: list[str], look: Look, room: float) -> int:
        """How many words fit on a line; at least one."""
        count = 1
        while count < len(words) and self.width(" ".join(words[: count + 1]), look) <= room:
            count += 1
        return count

    def rule(self, y: float, x: float = LEFT, end: float = RIGHT) -> None:
        """A thin horizontal line."""
        from matplotlib.lines import Line2D

        across, height = [x / WIDTH, end / WIDTH], [1 - y / HEIGHT] * 2
        self.figure.add_artist(Line2D(across, height, color=LINE, linewidth=1))

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """A filled rectangle."""
        from matplotlib.patches import Rectangle

        corner = (x / WIDTH, 1 - (y + height) / HEIGHT)
        self.figure.add_artist(Rectangle(corner, width / WIDTH, height / HEIGHT, color=color, linewidth=0))


@dataclass(frozen=True)
class Look:
    """How text looks; size: px."""

    size: float = 15
    color: str = INK
    weight: str = "normal"
    family: str = SANS

    def font(self) -> FontProperties:
        """For matplotlib, which counts in points."""
        from matplotlib.font_manager import FontProperties

        return FontProperties(family=[self.family], size=self.size * 72 / DPI, weight=self.weight)


HEADING = Look(16, weight="bold")
SMALL = Look(13, MUTED)


@cache
def _drawable() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=[SANS]))).get_charmap())


def plain(text: str) -> str:
    """One printable line: what the font lacks and unseen marks become □; cut to :data:`MAX_LINE`."""
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    shown = (c if ord(c) in _drawable() and unicodedata.category(c) not in hidden else "□" for c in text[:MAX_LINE])
    return "".join(shown)


def figures(value: float | None, sign: bool = False) -> str:
    """Three significant digits with a true minus; a dash for None."""
    if value is None:
        return "—"
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        text = f"{value:+.2e}" if sign else f"{value:.2e}"
    else:
        text = (f"{value:+#.3g}" if sign else f"{value:#.3g}") if abs(value) < 1000 else f"{value:.0f}"
    return text.rstrip(".").replace("-", "−")


def percent(share: float) -> str:
    """A probability for reading, such as 97.3 %; what rounds to none or all of it says so."""
    return "< 0.1 %" if 0 < share < 0.001 else "> 99.9 %" if 0.999 < share < 1 else f"{figures(100 * share)} %"


def shortened(text: str, most: int) -> str:
    """``text`` without its middle where it is longer than ``most`` letters: both ends of a file name tell something."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _draw_head(sheet: _Sheet, record: AuditRecord) -> None:
    spec, triple = record.spec, record.spec.triple
    brand = Look(17, MUTED, "bold")
    sheet.write(RIGHT, 56, "Triplecheck", brand, align="right")
    sheet.write(RIGHT, 84, "spot audit", SMALL, align="right")
    room, tail = RIGHT - LEFT - 160, plain(f" · {triple.explainer.name} · {triple.fill.name}")
    sizes = [Look(size, weight="bold") for size in (32, 28, 24, 21)]
    fitting = (look for look in sizes if sheet.width(plain(triple.checkpoint) + tail, look) <= room)
    look = next(fitting, sizes[-1])
    end = sheet.write(LEFT, 56, triple.checkpoint, look, room - sheet.width(tail, look))
    sheet.write(end, 56, tail, look, room)
    chosen = [str(choice) for choice in (triple.explainer, triple.fill) if choice.params]
    patches = f" of {spec.patch}×{spec.patch} px squares" if spec.patch > 1 else ""
    words = [
        f"image {shortened(str(record.provenance.get('image', spec.image)), 34)}",
        *chosen,
        f"{spec.direction} important first",
        f"{spec.steps} steps{patches}",
    ]
    sheet.write(LEFT, 84, " · ".join(words), Look(15, MUTED), room)
    sheet.rule(104)


def _draw_pictures(sheet: _Sheet, record: AuditRecord) -> None:
    side, top, middle = 326, 148, LEFT + 388
    channels, rows, columns = record.pixels.shape
    end = sheet.write(LEFT, top - 14, "What the model sees", HEADING)
    sheet.write(end + 10, top - 14, f"{rows}×{columns} px, {channels} ch", SMALL)
    end = sheet.write(middle, top - 14, "Heatmap over it", HEADING)
    kind = "for and against" if record.signed else "unsigned"
    sheet.write(end + 10, top - 14, f"{kind}, target {record.classes[record.target]}", SMALL, middle + 420 - end - 10)
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.full(channels, 1 / channels)  # Rec. 601
    grey = np.tensordot(weights, record.pixels, 1)
    seen = np.moveaxis(record.pixels, 0, 2) if channels == 3 else np.repeat(grey[..., None], 3, axis=2)
    colors, scale = _color_scale(record.values, record.signed)
    heat = np.asarray(colors(scale(record.values)))[..., :3]
    over = 0.68 * heat + 0.32 * grey[..., None]
    for x, picture in ((LEFT, seen), (middle, over)):
        axes = sheet.axes(x, top, side, side)
        smooth = "nearest" if min(rows, columns) <= 112 else "antialiased"
        axes.imshow(np.clip(picture, 0, 1), origin="upper", interpolation=smooth, aspect="equal")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=LINE, linewidth=1)
    _draw_scale(sheet, record, colors, scale, middle + side + 14, top, side)


def _color_scale(values: np.ndarray, signed: bool) -> tuple[Colormap, Normalize]:
    """Cividis from the lowest to the highest value, or blue-white-orange centred on 0; of this image alone."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    reach = float(np.abs(values).max()) or 1.0
    if not signed:
        low, high = float(values.min()), float(values.max())
        return colormaps["cividis"], Normalize(low, high if high > low else low + 1.0)
    stops = ["#2166AC", "#F7F7F7", "#E08214"]
    return LinearSegmentedColormap.from_list("blue-white-orange", stops), Normalize(-reach, reach)


def _draw_scale(
    sheet: _Sheet, record: AuditRecord, colors: Colormap, scale: Normalize, x: float, top: float, side: float
) -> None:
    low, high = float(scale.vmin or 0), float(scale.vmax or 0)
    axes = sheet.axes(x, top, 16, side)
    ramp = np.linspace(low, high, 256)[:, None]
    axes.imshow(colors(scale(ramp)), origin="lower", aspect="auto", extent=(0, 1, low, high))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=LINE, linewidth=1)
    for value in (low, (low + high) / 2, high):
        y = top + side * (high - value) / (high - low)
        shown = figures(value) if abs(value) > 1e-4 * (high - low) else "0"
        sheet.write(x + 22, min(max(y + 5, top + 11), top + side), shown, SMALL)
    note = "scale: this image"
    if record.error is not None:
        note += f" · largest standard error {figures(float(record.error.max()))}"
    if np.ptp(record.values) == 0:
        note = f"the map is {figures(float(record.values.flat[0]))} everywhere"
    if record.signed:
        note = "orange: for the target, blue: against · " + note
    sheet.write(x + 60, top + side + 20, note, SMALL, 560, align="right")


def _draw_curve(sheet: _Sheet, record: AuditRecord, name: str, x: float) -> None:
    top, wide, high = 594, 352, 180
    curve = getattr(record, name)
    orders: np.ndarray = getattr(record.controls, name)
    better = record.better(name)
    end = sheet.write(x - 52, top - 60, name.capitalize(), HEADING)
    sheet.write(end + 10, top - 60, f"{_arrow(better)} {better} is better", Look(14, INK))
    sheet.write(x - 52, top - 38, _finding(record, name), Look(14, MUTED), wide + 52)
    axes = sheet.axes(x, top, wide, high)
    axes.plot(curve.fraction, curve.score, color=OWN, linewidth=2.4, label="this map", marker="o", ms=3, zorder=3)
    if len(orders):
        mean, low, high_band = band(orders)
        axes.fill_between(curve.fraction, low, high_band, color=RANDOM, alpha=0.25, linewidth=0)
        words = f"random order: mean, 95 % of {len(orders)}" if len(orders) > 1 else "one random order"
        axes.plot(curve.fraction, mean, color=RANDOM, linestyle="--", linewidth=1.6, label=words)
    _dress(axes, record, curve.score, orders)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-52 / wide, 1),
        ncols=2,
        frameon=False,
        prop=Look(12).font(),
        labelcolor=MUTED,
        borderpad=0.1,
        borderaxespad=0.3,
        handlelength=2.2,
        columnspacing=1.2,
    )
    verb = "filled" if name == "deletion" else "shown again"
    sheet.write(x + wide / 2, top + high + 36, f"share of pixels {verb} (%)", SMALL, align="center")


def _dress(axes: Axes, record: AuditRecord, score: np.ndarray, orders: np.ndarray) -> None:
    """Limits, ticks and grid of a curve's axes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    probability = record.spec.quantity == "probability"
    highest = max(float(score.max()), float(orders.max(initial=0)))
    axes.set_xlim(0, 1)
    if probability:
        axes.set_ylim(0, 1.02 if highest > 0.5 else max(1.15 * highest, 1e-6))
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=9, colors=MUTED, labelfontfamily=SANS, length=3)
    axes.set_ylabel(f"{record.spec.quantity} of the target", fontproperties=SMALL.font(), color=MUTED)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=LINE)


def _arrow(better: str) -> str:
    return "↓" if better == "lower" else "↑"


def _finding(record: AuditRecord, name: str) -> str:
    """What the curve does beside random order, in words."""
    verb, effect = "falls" if name == "deletion" else "rises", record.advantage.get(name)
    if effect is None:
        return "too few random orders to compare with"
    if effect.low <= 0 <= effect.high:
        return "not told apart from random order"
    score = getattr(record, name).score
    if (score[-1] < score[0]) != (name == "deletion"):
        return f"lies {'below' if (effect.value > 0) == (record.better(name) == 'lower') else 'above'} random order"
    sooner = (effect.value > 0) == (record.spec.direction == "most")
    return f"{verb} {'faster' if sooner else 'slower'} than random order"


def _draw_prediction(sheet: _Sheet, record: AuditRecord) -> None:
    top = 134
    sheet.write(COLUMN, top, "Prediction", HEADING)
    likely = f"{percent(float(record.probabilities[record.predicted]))}"
    end = sheet.write(COLUMN, top + 36, record.classes[record.predicted], Look(25, weight="bold"), 480)
    sheet.write(end + 14, top + 36, likely, Look(25, OWN, "bold"))
    asked = record.spec.target if record.spec.target in ("predicted", "label") else "chosen"
    known = record.label is not None
    label = f"label {record.classes[record.label or 0]}" if known else "label unknown"
    verdict = " (correct)" if record.label == record.predicted else " (wrong)" if known else ""
    words = f"target {record.classes[record.target]} ({asked}) · {label}{verdict}"
    sheet.write(COLUMN, top + 62, words, Look(15, MUTED), RIGHT - COLUMN)
    shown = [int(k) for k in np.argsort(-record.probabilities, kind="stable")[:5]]
    for row, k in enumerate(shown if record.target in shown else [*shown[:4], record.target]):
        y, share = top + 94 + 23 * row, float(record.probabilities[k])
        sheet.write(COLUMN, y, record.classes[k], Look(14), 200)
        sheet.box(COLUMN + 214, y - 11, 320, 13, PANEL)
        sheet.box(COLUMN + 214, y - 11, max(320 * share, 1), 13, OWN if k == record.target else RANDOM)
        sheet.write(RIGHT, y, percent(share), Look(14), align="right")


def _draw_metrics(sheet: _Sheet, record: AuditRecord) -> None:
    top, ends = 372, (COLUMN + 258, COLUMN + 362, COLUMN + 446, RIGHT)
    sheet.rule(top - 26, COLUMN)
    sheet.write(COLUMN, top, "Area under the curve", HEADING)
    gain = "advantage over random"
    for end, head in zip(ends, ("AUC", "÷ untouched", "random", gain), strict=True):
        sheet.write(end, top, head, SMALL, align="right")
    for y, name in ((top + 36, "deletion"), (top + 84, "insertion")):
        _draw_area(sheet, record, name, y, ends)
    sheet.write(COLUMN, top + 126, _footing(record), SMALL, RIGHT - COLUMN)


def _draw_area(sheet: _Sheet, record: AuditRecord, name: str, y: float, ends: tuple[float, ...]) -> None:
    area, better = float(getattr(record, f"{name}_auc")), record.better(name)
    areas: np.ndarray = getattr(record.controls, f"{name}_auc")
    sheet.write(COLUMN, y, f"{_arrow(better)} {name.capitalize()}", Look(18))
    sheet.write(COLUMN + 20, y + 18, f"{better} is better", SMALL)
    sheet.write(ends[0], y, figures(area), Look(22, OWN, "bold"), align="right")
    sheet.write(ends[1], y, figures(record.normalised(area)), Look(16), align="right")
    sheet.write(ends[2], y, figures(float(areas.mean())) if len(areas) else "none", Look(16), align="right")
    effect = record.advantage.get(name)
    sheet.write(ends[3], y, figures(effect.value, True) if effect else "—", Look(18, weight="bold"), align="right")
    if effect:
        sheet.write(ends[3], y + 18, f"[{figures(effect.low)}, {figures(effect.high)}]", SMALL, align="right")


def _footing(record: AuditRecord) -> str:
    """How the advantages were made, or why there are none."""
    if not record.advantage:
        return f"Random orders: {len(record.controls.deletion)}; an advantage needs at least 2 of them."
    effect = next(iter(record.advantage.values()))
    return f"> 0 is better · 95 % {effect.method}, n = {effect.n} · untouched score {figures(record.untouched)}"


def _draw_trust(sheet: _Sheet, record: AuditRecord) -> None:
    """Verdict, readout badge, health of the map, cost."""
    judged = verdict(record)
    sheet.rule(514, COLUMN)
    y = _draw_badge(sheet, 538, "Verdict", judged.word, judged.sentence)
    y = _draw_badge(sheet, y + 12, "Readout", record.badge, record.badge_sentence)
    end = sheet.write(COLUMN, y + 12, "Map health", HEADING)
    words = f"▲ {len(record.health)} warning{'s' if len(record.health) > 1 else ''}" if record.health else "● healthy"
    sheet.write(end + 12, y + 12, words, Look(16, WARNING if record.health else "#00785A", "bold"))
    _draw_health(sheet, y + 35, record.health or ("Nothing odd was found about the map or the score.",))
    _draw_cost(sheet, record)


def _draw_badge(sheet: _Sheet, y: float, title: str, word: str, sentence: str) -> float:
    """Title, shape and word, then the sentence; returns the next free baseline."""
    shape, color = LOOKS.get(word, ("□", MUTED))
    end = sheet.write(COLUMN, y, title, HEADING)
    sheet.write(end + 12, y, f"{shape} {word}", Look(16, color, "bold"))
    return sheet.paragraph(COLUMN, y + 23, sentence, Look(15), RIGHT - COLUMN, 2)


def _draw_health(sheet: _Sheet, y: float, sentences: tuple[str, ...]) -> None:
    """One paragraph each; those that find no room are counted."""
    last = 764
    for number, sentence in enumerate(sentences):
        left = len(sentences) - number
        lines = int((last - y) // 22) if left > 1 else int((last - y) // 22) + 1
        if lines < 1:
            sheet.write(COLUMN, y, f"… and {left} more in the record", Look(15, MUTED))
            return
        y = sheet.paragraph(COLUMN, y, sentence, Look(15), RIGHT - COLUMN, min(lines, 2))


def _draw_cost(sheet: _Sheet, record: AuditRecord) -> None:
    origin = record.provenance
    words = [
        f"{record.forwards:,} forwards",
        f"{record.backwards:,} backwards",
        f"{figures(record.seconds)} s",
        str(origin.get("device", "unknown device")),
        record.spec.precision,
        f"seed {record.spec.seed}",
    ]
    sheet.rule(778, COLUMN)
    sheet.write(COLUMN, 802, " · ".join(words), Look(14, MUTED), RIGHT - COLUMN)


def _draw_foot(sheet: _Sheet, record: AuditRecord) -> None:
    origin = record.provenance
    sheet.box(0, 832, WIDTH, HEIGHT - 832, PANEL)
    facts = (
        ("key", record.key[:16]),
        ("weights", str(origin.get("weights_sha256", "unknown"))[:16]),
        ("version", str(origin.get("triplecheck", "unknown"))),
        ("made", str(origin.get("time", "unknown"))),
    )
    x = float(LEFT)
    for name, value in facts:
        x = sheet.write(x, 854, name, SMALL) + 7
        x = sheet.write(x, 854, value, Look(13, INK, family=MONO), 260) + 26
    sheet.write(RIGHT, 854, "the full record travels inside this PNG", SMALL, align="right")
    command = Look(12, INK, family=MONO)
    sheet.write(LEFT, 874, "repeat", SMALL)
    sheet.paragraph(LEFT + 60, 874, str(origin.get("command", "unknown")), command, RIGHT - LEFT - 60, 2)


def band(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, 2.5 and 97.5 percentile over random orders (orders, points), at each point."""
    low, high = np.percentile(orders, [2.5, 97.5], axis=0)
    return orders.mean(axis=0), low, high
