"""Two contenders on the same images: how far apart, how surely, and on which images they disagree."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics import Better, Estimate, Observations, Paired, friedman, holm, resample
from audit_core.statistics.bootstrap import GROUPS, random_groups
from audit_core.statistics.estimates import from_resamples
from audit_core.study.comparing import compare
from audit_core.study.direction import better_of
from audit_core.study.filters import Filters
from audit_core.study.grouping import summed
from audit_core.study.means import RETRAINED, caution
from audit_core.study.nouns import Grouped
from audit_core.study.pair_views import Comparison, ControlsView, Disagreement, PairsView, PairUnderFill, PairView
from audit_core.study.results import EVERYTHING, Results

__all__ = [
    "Comparison",
    "ControlsView",
    "Disagreement",
    "PairUnderFill",
    "PairView",
    "PairsView",
    "compare",
    "controls",
    "pair",
    "pairs",
]


def pair(
    results: Results,
    a: str,
    b: str,
    metric: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    k: int = 6,
) -> PairView:
    """A against B under every fill, with the ``k`` images that disagree most in either direction.

    rng: default a generator with seed 0. ``InvalidParameter`` for one contender twice, or a metric that ranks nothing.
    """
    rng, way = rng or np.random.default_rng(0), better_of(metric)
    if a == b:
        raise InvalidParameter(f"a pair needs two contenders, got {a!r} twice; choose another one")
    both = results.by_unit_and_run(metric, filters, (a, b), results.fills_of(metric))
    values = both.means()  # (2, F, U)
    compared = compare(values[0], values[1], way, rng, resamples)
    adjusted = holm(np.array([one.p for one in compared]))
    again = _retrained(both, compared, way, rng, resamples)
    words, means = results.shown(a, b, both.groups, filters), _means_of_pairs(values)
    found = []
    for f, fill in enumerate(both.fills):
        for_a, for_b = _disagreements(both.groups, values[:, f], words, way, k)
        mean_a, mean_b = map(float, means[:, f])
        found.append(PairUnderFill(fill, mean_a, mean_b, compared[f], float(adjusted[f]), again[f], for_a, for_b))
    return PairView(metric, way, filters, a, b, tuple(found))


def pairs(
    results: Results,
    metric: str,
    fill: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    contenders: Collection[str] = (),
    roles: Collection[str] = ("own", "agnostic"),
) -> PairsView:
    """Every pair of the contenders (names, else all of these roles) under one fill; errors as :func:`pair`."""
    rng, way = rng or np.random.default_rng(0), better_of(metric)
    names = [c.name for c in results.named(contenders, roles)]
    if len(names) < 2:
        raise InvalidParameter(f"a pair needs two contenders, got {', '.join(names) or 'none'}; choose more")
    values = results.by_unit(metric, filters, names, (fill,)).means()[:, 0]
    first, second = np.triu_indices(len(names), 1)
    compared = compare(values[first], values[second], way, rng, resamples)
    adjusted = holm(np.array([one.p for one in compared]))
    found = tuple(
        Comparison(names[i], names[j], fill, one, float(p))
        for i, j, one, p in zip(first, second, compared, adjusted, strict=True)
    )
    return PairsView(metric, way, filters, fill, tuple(names), found, friedman(values.T, way))


def controls(
    results: Results,
    metric: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    contenders: Collection[str] = (),
) -> ControlsView:
    """Each contender (names, else all that read the model) against the controls of its family under each fill."""
    rng, way = rng or np.random.default_rng(0), better_of(metric)
    chosen = [c for c in results.named(contenders, ("own", "agnostic")) if c.role != "control"]
    beside = [
        (c.name, control.name)
        for c in chosen
        for control in results.named(roles=("control",))
        if control.family == c.family
    ]
    if not beside:
        raise InvalidParameter("no chosen contender has a control in its family; add for example 'random' to the study")
    names = list(dict.fromkeys(name for both in beside for name in both))
    grouped = results.by_unit(metric, filters, names, results.fills_of(metric))
    values, place = grouped.means(), {name: at for at, name in enumerate(grouped.contenders)}
    asked = [(a, b, f) for a, b in beside for f in range(len(grouped.fills))]
    left, right = (
        np.stack([values[place[name], f] for name, f in side])
        for side in ([(a, f) for a, _, f in asked], [(b, f) for _, b, f in asked])
    )
    compared = compare(left, right, way, rng, resamples)
    adjusted = holm(np.array([one.p for one in compared]))
    found = tuple(
        Comparison(a, b, grouped.fills[f], one, float(p))
        for (a, b, f), one, p in zip(asked, compared, adjusted, strict=True)
    )
    return ControlsView(metric, way, filters, found)


def _retrained(
    both: Grouped, compared: list[Paired], way: Better, rng: np.random.Generator, resamples: int
) -> list[Estimate]:
    """Each fill's paired difference with the interval over training runs of either family and images."""
    held = (both.count.sum(axis=2) > 0).all(axis=0)  # (F, U): both have a number
    total, count = (np.where(held[:, None], values, 0.0) for values in (both.total, both.count))
    runs = (count.sum(axis=3) > 0).sum(axis=2)  # (2, F)
    if runs.max(initial=0) < 2:
        return [_without_runs(one, int(runs[:, f].max())) for f, one in enumerate(compared)]
    if held.shape[1] > GROUPS:
        group = random_groups(held.shape[1], rng)
        total, count = summed(total, group), summed(count, group)
    drawn = resample(Observations(total, count, way, both.family), rng, resamples, "runs+images")
    found = []
    for f, one in enumerate(compared):
        few = int(runs[:, f].min())
        note = "the one training run of a family is held fixed" if few == 1 else caution(few)
        estimate = from_resamples(one.mean_difference.value, drawn[:, 0, f] - drawn[:, 1, f], few, RETRAINED, note)
        found.append(estimate if runs[:, f].max() > 1 else _without_runs(one, few))
    return found


def _without_runs(one: Paired, runs: int) -> Estimate:
    note = "one training run each: how much retraining changes it is unknown" if runs else "no image has both values"
    return Estimate(one.mean_difference.value, None, None, runs, RETRAINED, note)


def _means_of_pairs(values: np.ndarray) -> np.ndarray:
    """Means of either side over the units where both have a value, (2, F, U) to (2, F); NaN without any."""
    held = ~np.isnan(values).any(axis=0)
    n = held.sum(axis=-1)
    total = np.where(held, values, 0.0).sum(axis=-1)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _disagreements(
    units: np.ndarray, values: np.ndarray, words: tuple[np.ndarray, ...], way: Better, k: int
) -> list[tuple[Disagreement, ...]]:
    """The k images that speak most for a, and for b; ties by unit. Images that do not differ speak for neither."""
    lead = np.nan_to_num((values[0] - values[1]) * (1.0 if way == "higher" else -1.0))
    found = []
    for side in (lead, -lead):
        most = np.argsort(-side, kind="stable")[: min(k, int((side > 0).sum()))]
        found.append(tuple(_disagreement(int(units[i]), values[:, i], [word[i] for word in words]) for i in most))
    return found


def _disagreement(unit: int, values: np.ndarray, words: list[str]) -> Disagreement:
    image, label, predicted_a, predicted_b = words
    a, b = map(float, values)
    return Disagreement(unit, image, label, predicted_a, predicted_b, a, b, a - b)
