"""Synthetic wafer maps in the nine classes of WM-811K, each with the region of its defect signature.

A map is drawn in four steps: a die grid (size and aspect), the round footprint of dies on it, background noise that
rises towards the wafer's edge, and a *signature*: the die region of a process fault, with a failure rate inside it.
Sizes, aspects and noise rates follow quantiles measured on labelled WM-811K maps (Wu, Jang, Chen 2015); no real map
is stored or copied. All coordinates are fractions of the wafer radius: centre (0, 0), rim at radius 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.wafers import CLASSES, FAILED, NO_DIE, PASSED, WaferMaps, digest_of

#: Fewest and most dies along one side of the grid, as in WM-811K.
SMALLEST_SIDE, LARGEST_SIDE = 22, 212
#: A signature covers at least this many dies.
FEWEST_DIES = 6

_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_COMMON_GRIDS = ((25, 27), (27, 25), (26, 26))
_COMMON_SHARES = (0.50, 0.28, 0.22)
_ASPECTS = (0.60, 0.82, 0.95, 1.02, 1.10, 1.27, 1.70)


@dataclass(frozen=True)
class SyntheticWafer:
    """One generated map.

    codes: uint8 (rows, columns), 0 no die, 1 passed, 2 failed; region: bool (rows, columns), True = die inside the
    defect signature (every die for Random, all but a spared patch for Near-full, no die for none); label: index into
    ``models.wafers.CLASSES``.
    """

    codes: np.ndarray
    region: np.ndarray
    label: int


@dataclass(frozen=True)
class _Grid:
    """Die centres in units of the wafer radius; ``inside`` is True where a die stands on the wafer."""

    y: np.ndarray
    x: np.ndarray
    radius: np.ndarray
    inside: np.ndarray

    @property
    def pitch(self) -> float:
        """Larger die pitch, in wafer radii."""
        return 2.0 / min(self.inside.shape)


#: A signature: bool region and float failure rate in [0, 1], both (rows, columns).
_Signature = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Look:
    """What differs between classes: die grids, background noise and the painter of the signature.

    common: share of maps on the three commonest grids; sides: quantiles (at ``_LEVELS``) of the geometric mean side
    of the other grids; noise: median background failure rate of a grid of 26 dies across, finer grids having less;
    spread: standard deviation of its logarithm.
    """

    common: float
    sides: tuple[float, ...]
    noise: float
    spread: float
    paint: Callable[[_Grid, np.random.Generator], _Signature]


def wafer(label: int, rng: np.random.Generator) -> SyntheticWafer:
    """Draw one map of class ``label`` (index into ``models.wafers.CLASSES``); a pure function of ``rng``'s state.

    Raises ``ValueError`` for a label outside the nine classes.
    """
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"a wafer of class {label} was asked for; choose a label from 0 to {len(CLASSES) - 1}")
    look = _LOOKS[CLASSES[label]]
    grid = _draw_grid(look, rng)
    region, rate = _signature(grid, look, rng)
    noise = _background(grid, look, rng)
    failed = rng.random(noise.shape) < 1.0 - (1.0 - noise) * (1.0 - rate)
    codes = np.where(failed, FAILED, PASSED).astype(np.uint8)
    codes[~grid.inside] = NO_DIE
    return SyntheticWafer(codes, region, int(label))


def wafers(n: int, seed: int, labels: Sequence[int] | None = None) -> list[SyntheticWafer]:
    """Draw ``n`` maps; map i depends on (seed, i) and its label alone, so a longer list begins with the shorter one.

    labels: class of each map; None cycles through the nine classes, so that they are balanced. Raises ``ValueError``
    when ``labels`` has another length than ``n`` or ``seed`` is negative.
    """
    if labels is not None and len(labels) != n:
        raise ValueError(f"{n} wafers were asked for with {len(labels)} labels; give one label per wafer")
    if seed < 0:
        raise ValueError(f"the seed is {seed}; choose 0 or a larger whole number")
    chosen = [i % len(CLASSES) for i in range(n)] if labels is None else [int(label) for label in labels]
    return [wafer(label, np.random.default_rng((seed, i))) for i, label in enumerate(chosen)]


def wafer_maps(n: int, seed: int) -> WaferMaps:
    """The balanced maps of :func:`wafers` as a data set, for training and evaluation."""
    drawn = wafers(n, seed)
    maps = [item.codes for item in drawn]
    labels = np.array([item.label for item in drawn], dtype=np.int64)
    return WaferMaps(maps, labels, CLASSES, digest_of(maps, labels))


def nominal(codes: np.ndarray) -> np.ndarray:
    """The same footprint with every die passed: uint8 of the shape of ``codes`` (0/1/2), a faultless "none" wafer."""
    return np.where(np.asarray(codes) == NO_DIE, NO_DIE, PASSED).astype(np.uint8)


def _quantile(table: Sequence[float], rng: np.random.Generator) -> float:
    return float(np.interp(rng.random(), _LEVELS, table))


def _draw_grid(look: _Look, rng: np.random.Generator) -> _Grid:
    if rng.random() < look.common:
        rows, columns = _COMMON_GRIDS[rng.choice(len(_COMMON_GRIDS), p=_COMMON_SHARES)]
    else:
        side, aspect = _quantile(look.sides, rng), _quantile(_ASPECTS, rng)
        low, high = SMALLEST_SIDE, LARGEST_SIDE
        rows = int(np.clip(round(side * aspect**0.5), low, high))
        columns = int(np.clip(round(side / aspect**0.5), low, high))
    shift = rng.uniform(-0.15, 0.15, 2)
    y = ((np.arange(rows) - (rows - 1) / 2 + shift[0]) * 2 / rows)[:, None]
    x = ((np.arange(columns) - (columns - 1) / 2 + shift[1]) * 2 / columns)[None, :]
    radius = np.hypot(y, x)
    inside = radius <= 1.0 - rng.uniform(0.1, 0.6) / max(rows, columns)
    if rng.random() < 0.06:
        inside &= rng.random(inside.shape) >= rng.uniform(2, 16) / inside.size
    return _Grid(y, x, radius, inside)


def _signature(grid: _Grid, look: _Look, rng: np.random.Generator) -> _Signature:
    """Paint until the signature covers ``FEWEST_DIES`` dies; a ragged rim can eat a small one entirely."""
    while True:
        region, rate = look.paint(grid, rng)
        region &= grid.inside
        if look.paint is _paint_none or region.sum() >= FEWEST_DIES:
            return region, rate


def _background(grid: _Grid, look: _Look, rng: np.random.Generator) -> np.ndarray:
    """Failure rate of the dies outside any signature: higher in the outermost dies, softly uneven elsewhere."""
    base = min(0.23, look.noise * (13.0 * grid.pitch) ** 1.7 * rng.lognormal(0.0, look.spread))
    rim = min(0.6, (1.6 * base + 0.1 * min(1.0, base / 0.02)) * rng.lognormal(0.0, 0.25))
    near = np.clip((grid.radius - 0.85) / 0.08, 0.0, 1.0)
    broad, fine = rng.uniform(0.05, 0.25), rng.uniform(0.0, 0.45)
    uneven = broad * _ripple(grid, rng, 4) + fine * _ripple(grid, rng, 14) - (broad**2 + fine**2) / 2.0
    rate = base * (1.0 + 0.35 * near) * np.exp(uneven)
    return np.where(grid.radius > 1.0 - 1.1 * grid.pitch, rim, np.minimum(rate, 0.9))


def _ripple(grid: _Grid, rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth Gaussian noise of mean 0 and variance 1 at every die, with about ``cells`` bumps across the wafer."""
    nodes = np.linspace(-1.2, 1.2, cells + 1)
    spread = 0.75 * (nodes[1] - nodes[0])

    def weights(at: np.ndarray) -> np.ndarray:
        kernel = np.exp(-0.5 * ((at.reshape(-1, 1) - nodes) / spread) ** 2)
        return kernel / np.linalg.norm(kernel, axis=1, keepdims=True)

    return weights(grid.y) @ rng.standard_normal((cells + 1, cells + 1)) @ weights(grid.x).T


def _fade(depth: np.ndarray, density: float, softness: float) -> np.ndarray:
    """Failure rate from the signed depth (positive inside): ``density`` well inside, half of it on the border."""
    return density * np.clip(0.5 + depth / (2.0 * softness), 0.0, 1.0)


def _ellipse(
    grid: _Grid, rng: np.random.Generator, centre: tuple[float, float], size: float, ratio: float, ragged: float = 0.3
) -> np.ndarray:
    """Signed depth of an ellipse of random tilt and ragged rim: 1 at its centre, 0 on its border, negative outside."""
    tilt = rng.uniform(0.0, np.pi)
    dy, dx = grid.y - centre[0], grid.x - centre[1]
    along, across = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    distance = np.hypot(along / (size * ratio**0.5), across * ratio**0.5 / size)
    return 1.0 - distance + rng.uniform(0.2 * ragged, ragged) * _ripple(grid, rng, 10)


def _polar(distance: float, angle: float) -> tuple[float, float]:
    return distance * float(np.sin(angle)), distance * float(np.cos(angle))


def _turn(grid: _Grid, angle: float) -> np.ndarray:
    """Angle between each die and the direction ``angle``, in [0, pi]."""
    return np.abs(np.angle(np.exp(1j * (np.arctan2(grid.y, grid.x) - angle))))


def _paint_center(grid: _Grid, rng: np.random.Generator) -> _Signature:
    centre = _polar(abs(rng.normal(0.0, 0.05)), rng.uniform(0.0, 2 * np.pi))
    typical = 0.24 * (13.0 * grid.pitch) ** 0.35
    size = max(2.2 * grid.pitch, float(np.clip(rng.lognormal(np.log(typical), 0.4), 0.08, 0.5)))
    depth = _ellipse(grid, rng, centre, size, rng.uniform(1.0, 1.6))
    return (depth > 0) & (grid.radius < 0.7), _fade(depth, rng.uniform(0.7, 1.0), rng.uniform(0.1, 0.7))


def _paint_donut(grid: _Grid, rng: np.random.Generator) -> _Signature:
    centre = _polar(rng.uniform(0.0, 0.12), rng.uniform(0.0, 2 * np.pi))
    inner = rng.uniform(0.16, 0.34)
    width = max(2.0 * grid.pitch, float(np.clip(rng.lognormal(np.log(0.30), 0.4), 0.13, 0.65)))
    distance = 1.0 - _ellipse(grid, rng, centre, 1.0, rng.uniform(1.0, 1.25), ragged=0.05)
    depth = np.minimum(distance - inner, inner + width - distance) / width
    depth = depth + rng.uniform(0.0, 0.2) * _ripple(grid, rng, 10)
    lean = rng.uniform(0.0, 0.8) * (1.0 - np.cos(_turn(grid, rng.uniform(0.0, 2 * np.pi)))) / 2.0
    hole = distance < inner
    rate = np.where(hole, rng.uniform(0.0, 0.2), 0.0)
    region = (depth > 0) & (distance > inner)
    return region, np.maximum(rate, _fade(depth, rng.uniform(0.7, 1.0), rng.uniform(0.02, 0.3)) * (1.0 - lean))


def _edge_arc(grid: _Grid, rng: np.random.Generator, angle: float) -> np.ndarray:
    """Signed depth of a lens along the rim around the direction ``angle``."""
    thickest = max(2.2 * grid.pitch, float(rng.uniform(0.08, 0.22)))
    arch = 1.0 - (_turn(grid, angle) / rng.uniform(0.25, 0.9)) ** 2
    lens = np.sqrt(np.maximum(arch, 0.0)) + np.minimum(arch, 0.0)
    return lens - (1.0 - grid.radius) / thickest + 0.12 * _ripple(grid, rng, 10)


def _paint_edge_loc(grid: _Grid, rng: np.random.Generator) -> _Signature:
    angle, kind = rng.uniform(0.0, 2 * np.pi), rng.random()
    if kind < 0.25:
        depth = _ellipse(grid, rng, _polar(rng.uniform(0.9, 1.1), angle), rng.uniform(0.25, 0.8), rng.uniform(1, 1.6))
    else:
        depth = _edge_arc(grid, rng, angle)
    if kind > 0.85:
        depth = np.maximum(depth, _edge_arc(grid, rng, angle + rng.uniform(1.5, 4.8)))
    return depth > 0, _fade(depth, rng.uniform(0.65, 1.0), rng.uniform(0.05, 0.4))


def _paint_edge_ring(grid: _Grid, rng: np.random.Generator) -> _Signature:
    width = max(1.2 * grid.pitch, float(rng.uniform(0.015, 0.09)))
    away = _turn(grid, rng.uniform(0.0, 2 * np.pi))
    depth = 1.0 + rng.uniform(0.0, 0.5) * np.cos(away) - (1.0 - grid.radius) / width + 0.1 * _ripple(grid, rng, 10)
    weak = rng.uniform(0.0, 0.6) * (rng.random() < 0.35) * (1.0 - np.cos(away)) / 2.0
    density = 1.0 - 0.35 * rng.random() ** 2
    return depth > 0, _fade(depth, density, rng.uniform(0.05, 0.3)) * (1.0 - weak)


def _paint_loc(grid: _Grid, rng: np.random.Generator) -> _Signature:
    region, rate = np.zeros(grid.inside.shape, bool), np.zeros(grid.inside.shape)
    for _ in range(1 + int(rng.random() < 0.15)):
        size = max(1.8 * grid.pitch, float(np.clip(rng.lognormal(np.log(0.17), 0.45), 0.06, 0.5)))
        place = rng.uniform(0.3, max(0.35, 0.82 - 0.6 * size))
        depth = _ellipse(grid, rng, _polar(place, rng.uniform(0.0, 2 * np.pi)), size, rng.uniform(1.0, 2.8), ragged=0.4)
        region |= depth > 0
        rate = np.maximum(rate, _fade(depth, rng.uniform(0.65, 1.0), rng.uniform(0.1, 0.7)))
    return region, rate


def _paint_near_full(grid: _Grid, rng: np.random.Generator) -> _Signature:
    density, kind = (1.0 if rng.random() < 0.25 else rng.uniform(0.75, 0.99)), rng.random()
    if kind < 0.35:
        return grid.inside.copy(), np.full(grid.inside.shape, density)
    if kind < 0.6:
        spared = _edge_arc(grid, rng, rng.uniform(0.0, 2 * np.pi))
    else:
        place = _polar(rng.choice([0.1, 0.95]), rng.uniform(0.0, 2 * np.pi))
        spared = _ellipse(grid, rng, place, rng.uniform(0.15, 0.45), rng.uniform(1.0, 2.5))
    return spared <= 0, density * (1.0 - _fade(spared, rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.8)))


def _paint_random(grid: _Grid, rng: np.random.Generator) -> _Signature:
    level = rng.uniform(0.25, 0.56)
    broad = rng.uniform(0.05, 0.25) if rng.random() < 0.75 else rng.uniform(0.25, 0.6)
    uneven = broad * _ripple(grid, rng, 4) + rng.uniform(0.0, 0.25) * _ripple(grid, rng, 14)
    return grid.inside.copy(), np.clip(level * np.exp(uneven), 0.1, 0.8)


def _scratch_path(grid: _Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices along a gently bent line, in steps of a quarter die."""
    rows, columns = grid.inside.shape
    step = 0.5 / max(rows, columns)
    length = max(6.0 * grid.pitch, float(rng.uniform(0.3, 1.2)))
    angle, place, start = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.1, 0.8), rng.uniform(0.0, 2 * np.pi)
    bend, kind = rng.normal(0.0, 0.7), rng.random()
    if kind < 0.35:  # inwards from the rim
        start, place = angle + rng.normal(0.0, 0.3), max(0.1, 1.0 - length / 2)
    elif kind < 0.45:  # along the rim
        place = rng.uniform(0.7, 0.9)
        start, bend = angle + np.pi / 2, rng.normal(0.9, 0.2) / place
    elif kind < 0.65:  # along rows or columns
        start = round(start / (np.pi / 2)) * np.pi / 2 + rng.normal(0.0, 0.05)
    along = np.arange(-length / 2, length / 2, step)
    heading = start + bend * along
    heading = heading + 0.5 * np.sqrt(step) * np.cumsum(rng.standard_normal(along.size))
    middle, half = _polar(place, angle), along.size // 2
    y, x = np.cumsum(np.sin(heading)) * step, np.cumsum(np.cos(heading)) * step
    row = np.floor((y - y[half] + middle[0] + 1.0) * rows / 2).astype(np.int64)
    column = np.floor((x - x[half] + middle[1] + 1.0) * columns / 2).astype(np.int64)
    within = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return row[within], column[within]


def _paint_scratch(grid: _Grid, rng: np.random.Generator) -> _Signature:
    region = np.zeros(grid.inside.shape, bool)
    count = int(rng.choice(np.array([1, 2, 3, 5]), p=np.array([0.78, 0.14, 0.04, 0.04])))
    for _ in range(count):
        row, column = _scratch_path(grid, rng)
        region[row, column] = True
        if rng.random() < 0.25:
            region[np.minimum(row + 1, grid.inside.shape[0] - 1), column] = True
    return region, np.where(region, rng.uniform(0.8, 1.0), 0.0)


def _paint_none(grid: _Grid, rng: np.random.Generator) -> _Signature:
    return np.zeros(grid.inside.shape, bool), np.zeros(grid.inside.shape)


_LOOKS: dict[str, _Look] = {
    "Center": _Look(0.55, (26, 30, 33, 38, 41, 60, 140), 0.155, 0.35, _paint_center),
    "Donut": _Look(0.01, (30, 33, 37, 41, 41, 60, 69), 0.115, 0.35, _paint_donut),
    "Edge-Loc": _Look(0.17, (26, 27, 32, 38, 42, 57, 127), 0.125, 0.45, _paint_edge_loc),
    "Edge-Ring": _Look(0.02, (27, 36, 37, 52, 62, 115, 169), 0.115, 0.4, _paint_edge_ring),
    "Loc": _Look(0.16, (27, 29, 33, 37, 42, 70, 162), 0.12, 0.65, _paint_loc),
    "Near-full": _Look(0.40, (28, 29, 31, 33, 38, 40, 68), 0.1, 0.4, _paint_near_full),
    "Random": _Look(0.22, (28, 31, 34, 41, 42, 47, 127), 0.17, 0.4, _paint_random),
    "Scratch": _Look(0.06, (27, 28, 33, 40, 55, 115, 133), 0.10, 0.4, _paint_scratch),
    "none": _Look(0.77, (27, 34, 35, 44, 49, 70, 206), 0.125, 0.3, _paint_none),
}
