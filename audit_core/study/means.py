"""The mean of every cell, with what it rests on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from audit_core.statistics import Better, Estimate, resample
from audit_core.statistics.estimates import from_resamples
from audit_core.study.direction import better
from audit_core.study.filters import Filters
from audit_core.study.joint import bca_of_sums, ratio, times_drawn
from audit_core.study.nouns import Contender, Grouped
from audit_core.study.plain import View, columns
from audit_core.study.results import EVERYTHING, Results

RETRAINED = "training runs and images drawn, percentile"
FEW = 10  # fewer training runs than this carry a caution


@dataclass(frozen=True)
class CellMean:
    """One contender under one fill.

    n: numbers, of ``mean.n`` images; n_sick, n_refused, n_failed: rows without a number, which enter nothing, and the
    most frequent reason; mean: over all numbers, with the BCa interval over images (for these very networks);
    retrained: the same mean with the interval over training runs and images (for retrained networks), or the note why
    there is none; median, sd: of the single numbers; by_class, by_training_seed: means.
    """

    contender: str
    family: str
    explainer: str
    role: str
    fill: str
    n: int
    n_sick: int
    n_refused: int
    n_failed: int
    reason: str
    mean: Estimate
    retrained: Estimate
    median: float
    sd: float
    by_class: Mapping[str, float]
    by_training_seed: Mapping[int, float]


@dataclass(frozen=True)
class CellsView(View):
    """All cells of one metric; better: "higher", "lower" or "neither"."""

    metric: str
    better: str
    filters: Filters
    cells: tuple[CellMean, ...]

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One row per cell."""
        plain = ("contender", "fill", "n", "n_sick", "n_refused", "n_failed", "reason", "median", "sd")
        return [
            {name: getattr(cell, name) for name in plain}
            | columns("mean", cell.mean)
            | columns("retrained", cell.retrained)
            for cell in self.cells
        ]


def cells(
    results: Results,
    metric: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    contenders: Collection[str] = (),
    roles: Collection[str] = (),
) -> CellsView:
    """Every contender under every fill that has rows of this metric; contenders: names, else all of these roles.

    rng: default a generator with seed 0. ``InvalidParameter`` where no number is left.
    """
    rng = rng or np.random.default_rng(0)
    way = better(metric)
    chosen = results.named(contenders, roles)
    with ThreadPoolExecutor(1) as beside:  # the database needs no Python while it counts
        asked = beside.submit(_Table, results, metric, filters)
        grouped = results.observations(metric, filters, [c.name for c in chosen])
        again = retrained(grouped, "lower" if way == "lower" else "higher", rng, resamples)
    table = asked.result()
    shape = grouped.total.shape[:2]
    units = np.array([[table.units(c.name, fill) for fill in grouped.fills] for c in chosen])
    sums = np.stack([a.sum(axis=2).reshape(shape[0] * shape[1], -1) for a in (grouped.total, grouped.count)])
    note = f"{results.units} images in {len(grouped.groups)} groups" if units.max() > len(grouped.groups) else ""
    means = bca_of_sums(sums, ratio, units.ravel(), times_drawn(len(grouped.groups), resamples, rng), note)[0]
    found = [
        table.cell(contender, fill, means[at], again[at], grouped, (c, f))
        for at, ((c, contender), (f, fill)) in enumerate(product(enumerate(chosen), enumerate(grouped.fills)))
    ]
    return CellsView(metric, way, filters, tuple(cell for cell in found if cell is not None))


def runs_of(grouped: Grouped) -> np.ndarray:
    """How many training runs have a number, int (C, F)."""
    found: np.ndarray = (grouped.count.sum(axis=3) > 0).sum(axis=2)
    return found


def retrained(grouped: Grouped, way: Better, rng: np.random.Generator, resamples: int) -> list[Estimate]:
    """Mean of every cell (contender by contender) with the interval over training runs and images."""
    observations, runs = grouped.observations(way), runs_of(grouped).ravel()
    point = observations.means().ravel()
    images = (grouped.count.sum(axis=2) > 0).sum(axis=-1).ravel()
    if runs.max(initial=0) < 2:
        return [without_runs(value, int(n), int(r)) for value, n, r in zip(point, images, runs, strict=True)]
    drawn = resample(observations, rng, resamples, "runs+images").reshape(resamples, -1)
    return [
        from_resamples(point[k], drawn[:, k], int(runs[k]), RETRAINED, caution(int(runs[k])))
        if runs[k] > 1
        else without_runs(point[k], int(images[k]), int(runs[k]))
        for k in range(len(point))
    ]


def caution(runs: int) -> str:
    """What weakens an interval over few training runs."""
    return f"only {runs} training runs: the interval tends to be too narrow" if runs < FEW else ""


def without_runs(value: float, images: int, runs: int) -> Estimate:
    """The written answer where there is nothing to draw training runs from."""
    note = "one training run: how much retraining changes it is unknown" if runs else "no value is present"
    return Estimate(float(value), None, None, runs, RETRAINED, note)


class _Table:
    """What the database says about all cells of a metric, by (contender, fill)."""

    def __init__(self, results: Results, metric: str, filters: Filters) -> None:
        self._results = results
        condition, values = filters.condition()
        where, values = f"metric = $metric::metric_name AND {condition}", {"metric": metric, **values}
        self._single = _by_cell(
            results.query(
                f"""SELECT contender, fill, median(value) AS median, stddev_samp(value) AS sd, count(*) AS n,
                    count(DISTINCT unit) AS units FROM numbers WHERE {where} GROUP BY contender, fill""",
                values,
            )
        )
        self._classes = _by_cell(
            results.query(
                f"""SELECT contender, fill, label, avg(value) AS mean FROM numbers JOIN images USING (unit)
                    WHERE {where} AND label IS NOT NULL GROUP BY contender, fill, label ORDER BY label""",
                values,
            )
        )
        self._gaps = _by_cell(
            results.query(
                f"""SELECT contender, fill, state, reason, count(*) AS n FROM gaps WHERE {where}
                    GROUP BY contender, fill, state, reason ORDER BY n DESC, state, reason""",
                values,
            )
        )

    def units(self, contender: str, fill: str) -> int:
        """Images with a number."""
        found = self._single.get((contender, fill))
        return int(found[0][3]) if found else 0

    def cell(
        self,
        contender: Contender,
        fill: str,
        mean: Estimate,
        again: Estimate,
        grouped: Grouped,
        at: tuple[int, int],
    ) -> CellMean | None:
        """One cell, or None where the metric was never asked for."""
        place = (contender.name, fill)
        gaps = self._gaps.get(place, [])
        if place not in self._single and not gaps:
            return None
        median, sd, n, _ = self._single.get(place, [(np.nan, np.nan, 0, 0)])[0]
        sick, refused, failed = (
            sum(int(row[2]) for row in gaps if row[0] == state) for state in ("sick", "refused", "failed")
        )
        return CellMean(
            contender.name,
            contender.family,
            contender.explainer,
            contender.role,
            fill,
            int(n),
            sick,
            refused,
            failed,
            gaps[0][1] if gaps else "",
            mean,
            again,
            float(median),
            float(sd),
            {str(row[0]): float(row[1]) for row in self._classes.get(place, [])},
            self._by_training_seed(contender, grouped, at),
        )

    def _by_training_seed(self, contender: Contender, grouped: Grouped, at: tuple[int, int]) -> dict[int, float]:
        total, count = grouped.total[at].sum(axis=-1), grouped.count[at].sum(axis=-1)
        runs, seeds = np.array(self._results.places_of_runs(contender)), np.array(contender.training_seeds)
        sums = {int(seed): (total[runs[seeds == seed]].sum(), count[runs[seeds == seed]].sum()) for seed in set(seeds)}
        return {seed: float(value / n) for seed, (value, n) in sorted(sums.items()) if n}


def _by_cell(found: dict[str, np.ndarray]) -> dict[tuple[str, str], list[tuple[Any, ...]]]:  # Any: values of a row
    by_cell: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for contender, fill, *rest in zip(*found.values(), strict=True):
        by_cell.setdefault((contender, fill), []).append(tuple(rest))
    return by_cell
