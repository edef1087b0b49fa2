"""Joint resampling of all contenders and fills over the same units, and of training runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics.bootstrap import GROUPS, random_groups
from audit_core.statistics.estimates import Better, direction

Scheme = Literal["images", "runs+images"]
_BATCH = 4_000_000  # weights held at once


@dataclass(frozen=True)
class Observations:
    """Sums and counts of the values of C contenders under F fills in R training runs over G groups of units.

    total, count: float64 (C, F, R, G); (C, F, G) stands for one run. A group holds the same units for every contender,
    fill and run, so drawing groups keeps the pairing; count 0 = no value. better: "lower" or "higher" values win.
    family: int (C,), contenders with the same number share their training runs; needed to draw runs.
    """

    total: np.ndarray
    count: np.ndarray
    better: Better
    family: np.ndarray | None = None

    def __post_init__(self) -> None:
        direction(self.better)
        total, count = (np.asarray(a, dtype=np.float64) for a in (self.total, self.count))
        total, count = (a[:, :, None] if a.ndim == 3 else a for a in (total, count))
        if total.ndim != 4 or total.shape != count.shape or not total.size:
            raise InvalidParameter(
                "total and count must have one shape (contenders, fills, runs, groups) and not be empty, "
                f"got {np.shape(self.total)} and {np.shape(self.count)}"
            )
        if self.family is not None and np.shape(self.family) != total.shape[:1]:
            raise InvalidParameter(f"family must name {len(total)} contenders, got shape {np.shape(self.family)}")
        if not np.isfinite(total).all() or not (count >= 0).all():
            raise InvalidParameter("totals must be finite and counts 0 or more; a missing value has total 0, count 0")
        object.__setattr__(self, "total", total)
        object.__setattr__(self, "count", count)

    @classmethod
    def of_units(
        cls,
        values: np.ndarray,
        better: Better,
        family: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> Observations:
        """From single values, float (C, F, U) or (C, F, R, U), NaN = missing: every unit is its own group.

        With ``rng``, more than 2,000 units are first put together at random into 2,000 groups.
        """
        values = np.asarray(values, dtype=np.float64)
        held = ~np.isnan(values)
        total, count = np.where(held, values, 0.0), held.astype(np.float64)
        if rng is not None and values.shape[-1] > GROUPS:
            group = random_groups(values.shape[-1], rng)
            total, count = _summed(total, group), _summed(count, group)
        return cls(total, count, better, family)

    def means(self) -> np.ndarray:
        """Point estimate of every cell, float64 (C, F): the mean over all values of all its runs, NaN without any."""
        return _ratio(self.total.sum(axis=(2, 3)), self.count.sum(axis=(2, 3)))


def resample(
    observations: Observations, rng: np.random.Generator, resamples: int = 2000, scheme: Scheme = "images"
) -> np.ndarray:
    """Resampled means of every cell, float64 (B, C, F); NaN where a resample has no value of the cell.

    "images": groups are drawn with replacement, the same ones for all contenders, fills and runs (the paired
    bootstrap, Efron 1979); runs are fixed, and the intervals speak about other images for these very networks.
    "runs+images": each family's runs are drawn with replacement too, the same for all its contenders, crossed with
    the drawn groups (Owen 2007); the intervals speak about retrained networks. With R runs the variance between runs
    comes out too small by the factor (R - 1) / R, and a family with one run shows none of it.
    """
    if scheme not in ("images", "runs+images"):
        raise InvalidParameter(f"scheme must be 'images' or 'runs+images', got {scheme!r}")
    if resamples < 1:
        raise InvalidParameter(f"resamples must be at least 1, got {resamples}; 2000 is usual")
    total, count = observations.total, observations.count
    if scheme == "images":
        total, count = (a.sum(axis=2, keepdims=True) for a in (total, count))
    (contenders, fills, runs, groups), parts = total.shape, []
    same = bool((count == count[:1, :1]).all())  # the complete design needs one column of counts per run
    counted = count[:1, :1] if same else count
    for weight in _weights(rng, resamples, groups):
        drawn_runs = _run_weights(observations, rng, len(weight)) if runs > 1 else np.ones((len(weight), contenders, 1))
        sums = (weight @ total.reshape(-1, groups).T).reshape(-1, contenders, fills, runs)
        counts = (weight @ counted.reshape(-1, groups).T).reshape(-1, *counted.shape[:2], runs)
        chosen = drawn_runs[:, :, None, :]
        parts.append(_ratio((sums * chosen).sum(axis=-1), (counts * chosen).sum(axis=-1)))
    return np.concatenate(parts)


def _weights(rng: np.random.Generator, resamples: int, groups: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, float64 (batch, G); every row sums to G."""
    step = max(1, _BATCH // groups)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield _times_drawn(rng, size, groups)


def _times_drawn(rng: np.random.Generator, rows: int, places: int) -> np.ndarray:
    index = rng.integers(places, size=(rows, places)) + np.arange(rows)[:, None] * places
    return np.bincount(index.ravel(), minlength=rows * places).reshape(rows, places).astype(np.float64)


def _run_weights(observations: Observations, rng: np.random.Generator, rows: int) -> np.ndarray:
    """How often each run of each contender's family is drawn, float64 (rows, C, R); absent runs are never drawn."""
    if observations.family is None:
        raise InvalidParameter("drawing training runs needs family: which contenders share their runs")
    held = observations.count.sum(axis=(1, 3)) > 0
    weights = np.zeros((rows, *held.shape))
    for family in np.unique(observations.family):
        own = np.asarray(observations.family) == family
        runs = np.flatnonzero(held[own].any(axis=0))
        if len(runs):
            weights[np.ix_(np.arange(rows), np.flatnonzero(own), runs)] = _times_drawn(rng, rows, len(runs))[:, None]
    return weights


def _summed(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums over the units of each group, (..., U) to (..., G)."""
    order = np.argsort(group, kind="stable")
    return np.add.reduceat(values[..., order], np.searchsorted(group[order], np.arange(group.max() + 1)), axis=-1)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    shape = np.broadcast(total, count).shape
    return np.divide(total, count, out=np.full(shape, np.nan), where=np.broadcast_to(count > 0, shape))
