"""The charts of a study's report: ranks over fills, means beside their controls, differences of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_core.card import figures
from audit_core.study.means import CellMean, CellsView
from audit_core.study.nouns import Contender
from audit_core.study.pairs import PairView
from audit_core.study.published import published_marks
from audit_core.study.ranking import ReversalView
from audit_core.study.report_svg import (
    FAINT,
    INK,
    LINE,
    MUTED,
    SIZE,
    Drawing,
    dress,
    finish,
    heading,
    labels,
    sheet,
    words,
)
from audit_core.study.report_words import arrow, metric_title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.1  # inches: what fits between the margins of A4
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")  # Okabe and Ito 2008
MARKERS = ("o", "s", "D", "^", "v", "p", "P", "*", "h")
TICKS = {"random": "|", "input-intensity": ".", "centre-prior": "x", "edges": "+"}


@dataclass(frozen=True)
class Look:
    """How a contender is drawn: its family's hue, a marker of its explainer; strong: drawn in front."""

    colour: str
    marker: str
    strong: bool


def looks(contenders: Sequence[Contender], strong: Sequence[str]) -> dict[str, Look]:
    """Look of every contender by name; controls are grey."""
    families = list(dict.fromkeys(c.family for c in contenders))
    place = dict.fromkeys(families, -1)
    found = {}
    for c in contenders:
        place[c.family] += 1
        hue = FAINT if c.role == "control" else HUES[families.index(c.family) % len(HUES)]
        found[c.name] = Look(hue, MARKERS[place[c.family] % len(MARKERS)], c.name in strong)
    return found


def bump(view: ReversalView, look: Mapping[str, Look], name: str, published: bool = False) -> Drawing:
    """Rank of every contender under every fill, 1 = best on top; strong ones with the 95 % interval of their rank.

    published: whether the printed ranks of WM-811K are drawn beside these, as hollow marks.
    """
    scheme = view.schemes[-1]
    ranked = int((~np.isnan(scheme.ranks.rank)).any(axis=1).sum())
    figure, (axes,) = sheet(WIDTH, 1.1 + 0.21 * ranked)
    x = np.arange(len(view.fills))
    for c in sorted(range(len(view.contenders)), key=lambda c: look[view.contenders[c]].strong):
        one, ranks = look[view.contenders[c]], scheme.ranks.rank[c]
        if one.strong:
            axes.fill_between(x, scheme.ranks.low[c], scheme.ranks.high[c], color=one.colour, alpha=0.13, linewidth=0)
        axes.plot(x, ranks, color=one.colour, marker=one.marker, ms=5.5 if one.strong else 3.5,
                  linewidth=2.4 if one.strong else 0.9, alpha=1.0 if one.strong else 0.55)  # fmt: skip
    _bump_labels(axes, view, look)
    if published:
        _published(axes, view, look)
    labels(axes, "x", list(x), [_fill_label(view, f) for f in range(len(view.fills))])
    axes.xaxis.tick_top()
    axes.set_yticks(range(1, ranked + 1))
    axes.set_ylabel("rank (1 = best)", size=SIZE, color=MUTED)
    axes.set_ylim(ranked + 0.6, 0.4)
    axes.set_xlim(-0.15, max(len(view.fills) - 1, 0.5) + 0.15)
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    title = f"Rank by {metric_title(view.metric)} under every fill"
    return finish(figure, name, title, view.headline)


def _bump_labels(axes: Axes, view: ReversalView, look: Mapping[str, Look]) -> None:
    """Names at the right end, in the order of the last fill with a number; equal ranks are set below each other."""
    ranks, taken = view.schemes[-1].ranks.rank, set[float]()
    for c, name in enumerate(view.contenders):
        held = np.flatnonzero(~np.isnan(ranks[c]))
        if not len(held):
            continue
        y = float(ranks[c, held[-1]])
        while y in taken:
            y += 0.5
        taken.add(y)
        one, last = look[name], len(view.fills) - 1
        words(axes, last + 0.09, y, name, va="center", color=INK if one.strong else MUTED, clip_on=False,
              weight="bold" if one.strong else "normal")  # fmt: skip


def _published(axes: Axes, view: ReversalView, look: Mapping[str, Look]) -> None:
    """Hollow marks where the printed ranking puts the four families."""
    ranks = view.schemes[-1].ranks.rank
    for f, fill in enumerate(view.fills):
        here = {name: float(r) for name, r in zip(view.contenders, ranks[:, f], strict=True) if not np.isnan(r)}
        for mark in published_marks(fill, here):
            axes.plot(f, mark.place, marker="o", ms=12, mfc="none", mew=1.5, mec=look[mark.mean.contender].colour)


def _fill_label(view: ReversalView, f: int) -> str:
    scope = view.scope[f]
    return wrapped(view.fills[f], 16) + (f"\nR-OMS {figures(scope.value)}" if scope else "\nR-OMS unknown")


def means(view: CellsView, fills: Sequence[str], look: Mapping[str, Look], name: str) -> Drawing:
    """Mean and 95 % interval of every contender, a panel per fill, with its family's controls as grey marks."""
    shown = [c for c in dict.fromkeys(cell.contender for cell in view.cells if cell.role != "control")]
    by_place = {(cell.contender, cell.fill): cell for cell in view.cells}
    figure, panels = sheet(WIDTH, 1.0 + 0.2 * len(shown), max(len(fills), 1))
    rows = _rows(shown, by_place, fills)
    for axes, fill in zip(panels, fills, strict=True):
        held = [(row, by_place[contender, fill]) for row, contender in rows if (contender, fill) in by_place]
        for row, cell in held:
            _mean(axes, row, cell, look[cell.contender])
        _controls(axes, held, [cell for cell in view.cells if cell.role == "control" and cell.fill == fill])
        heading(axes, wrapped(fill, 16))
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=2)
        axes.xaxis.set_major_formatter("{x:g}")
    labels(panels[0], "y", [row for row, _ in rows], [contender for _, contender in rows])
    panels[0].set_ylim(max(row for row, _ in rows) + 0.8, -0.8)
    figure.supxlabel(f"{metric_title(view.metric)} {arrow(view.better)}", size=SIZE, color=MUTED)
    title = f"Mean {metric_title(view.metric)} under every fill, with the controls in grey"
    finding = f"{len(shown)} contenders under {len(fills)} fills; the numbers stand in the table of means."
    return finish(figure, name, title, finding)


def _rows(
    shown: Sequence[str], cells: Mapping[tuple[str, str], CellMean], fills: Sequence[str]
) -> list[tuple[float, str]]:
    """(height, contender) from the top, with a gap between families."""
    found: list[tuple[float, str]] = []
    family, row = "", -1.0
    for contender in shown:
        own = next((cells[contender, f].family for f in fills if (contender, f) in cells), "")
        row += 1.0 if own == family or not found else 1.5
        found.append((max(row, 0.0), contender))
        family = own
    return found


def _mean(axes: Axes, row: float, cell: CellMean, look: Look) -> None:
    if np.isnan(cell.mean.value):
        return
    if cell.mean.low is not None and cell.mean.high is not None:
        axes.hlines(row, cell.mean.low, cell.mean.high, color=look.colour, linewidth=1.6)
    axes.plot(cell.mean.value, row, marker=look.marker, color=look.colour, ms=4.5, zorder=3)


def _controls(axes: Axes, rows: Sequence[tuple[float, CellMean]], controls: Sequence[CellMean]) -> None:
    """Each control's mean in every row of its family, one mark per kind."""
    for kind in dict.fromkeys(c.explainer.partition(":")[0] for c in controls):
        own = {c.family: c.mean.value for c in controls if c.explainer.partition(":")[0] == kind}
        at = [(own[cell.family], row) for row, cell in rows if cell.family in own]
        axes.plot(*np.array(at).reshape(-1, 2).T, TICKS.get(kind, "|"), color=MUTED, ms=4.5, mew=0.8, zorder=2)


def forest(pairs: Sequence[PairView], name: str) -> Drawing:
    """Difference of each pair under every fill with its 95 % interval; right of 0 the first of the pair is better."""
    fills = list(dict.fromkeys(one.fill for pair in pairs for one in pair.fills))
    lines, columns = -(-len(pairs) // 2), min(2, len(pairs))
    figure, grid = sheet(WIDTH, lines * (0.75 + 0.19 * len(fills)) + 0.25, columns, lines)
    for axes in grid[len(pairs) :]:
        axes.set_visible(False)
    for axes, pair in zip(grid, pairs, strict=False):
        _forest_panel(axes, pair, fills)
    labels(grid[0], "y", [float(k) for k in range(len(fills))], fills)
    grid[0].set_ylim(len(fills) - 0.4, -0.6)
    metric = metric_title(pairs[0].metric)
    figure.supxlabel(f"difference in {metric}, turned so that right of 0 the first is better", size=SIZE, color=MUTED)
    finding = "; ".join(_turning(pair) for pair in pairs)
    return finish(figure, name, f"Pairs that change places by {metric}", f"{finding}.")


def _forest_panel(axes: Axes, pair: PairView, fills: Sequence[str]) -> None:
    turn = 1.0 if pair.better == "higher" else -1.0
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for one in pair.fills:
        found, row = one.paired.mean_difference, fills.index(one.fill)
        if np.isnan(found.value):
            continue
        wins = turn * found.value > 0
        colour = HUES[0] if wins else HUES[5]
        if found.low is not None and found.high is not None:
            axes.hlines(row, turn * found.low, turn * found.high, color=colour, linewidth=1.8)
        axes.plot(turn * found.value, row, marker="o" if wins else "s", color=colour, ms=4.5)
    heading(axes, f"{pair.a}\nagainst {pair.b}", "left")
    dress(axes)
    axes.grid(axis="x", color=LINE, linewidth=0.6)


def _turning(pair: PairView) -> str:
    turn = 1.0 if pair.better == "higher" else -1.0
    sides = [(one.fill, turn * one.paired.mean_difference.value) for one in pair.fills]
    won, lost = ([f for f, lead in sides if lead * side > 0] for side in (1, -1))
    return f"{pair.a} is ahead of {pair.b} under {', '.join(won) or 'no fill'} and behind under {', '.join(lost)}"
