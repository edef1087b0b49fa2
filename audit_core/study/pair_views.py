"""What a comparison of contenders shows: one pair under every fill, all pairs under one, and everyone's controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from audit_core.statistics import Estimate, Friedman, Paired
from audit_core.study.filters import Filters
from audit_core.study.plain import View, columns


@dataclass(frozen=True)
class Disagreement:
    """One image with both values; difference: a - b. predicted: what the checkpoints said."""

    unit: int
    image: str
    label: str
    predicted_a: str
    predicted_b: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class PairUnderFill:
    """A against B under one fill, on the ``paired.n`` images where both have a number (mean over runs and seeds).

    paired: difference A - B, effect sizes, Wilcoxon's p and the share of images on which A beats B; p_holm: p adjusted
    for the number of fills, NaN = no test; retrained: the difference with the interval over training runs and images,
    or the note why there is none; for_a, for_b: the images that speak most for either.
    """

    fill: str
    mean_a: float
    mean_b: float
    paired: Paired
    p_holm: float
    retrained: Estimate
    for_a: tuple[Disagreement, ...]
    for_b: tuple[Disagreement, ...]


@dataclass(frozen=True)
class PairView(View):
    """Two contenders under every fill."""

    metric: str
    better: str
    filters: Filters
    a: str
    b: str
    fills: tuple[PairUnderFill, ...]

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One row per fill."""
        return [
            {"fill": one.fill, "mean_a": one.mean_a, "mean_b": one.mean_b}
            | _columns(one.paired, one.p_holm)
            | columns("retrained", one.retrained)
            for one in self.fills
        ]


@dataclass(frozen=True)
class Comparison:
    """``a`` against ``b``, with p adjusted by Holm for all comparisons of its view."""

    a: str
    b: str
    fill: str
    paired: Paired
    p_holm: float


@dataclass(frozen=True)
class PairsView(View):
    """Every pair of contenders under one fill, and all of them at once; friedman.mean_ranks follow ``contenders``."""

    metric: str
    better: str
    filters: Filters
    fill: str
    contenders: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    friedman: Friedman

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One row per pair."""
        return [{"a": one.a, "b": one.b} | _columns(one.paired, one.p_holm) for one in self.comparisons]


@dataclass(frozen=True)
class ControlsView(View):
    """Each contender (a) against each control (b) of its family under each fill; p_holm: over all of these.

    The difference is a - b in the metric's own direction; ``beats`` turns it so that above 0 the contender is better.
    """

    metric: str
    better: str
    filters: Filters
    comparisons: tuple[Comparison, ...]

    def beats(self, one: Comparison) -> Estimate:
        """By how much the contender is better than the control, with its interval."""
        found = one.paired.mean_difference
        if self.better == "higher":
            return found
        low, high = (None if bound is None else -bound for bound in (found.high, found.low))
        return replace(found, value=-found.value, low=low, high=high)

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One row per contender, control and fill."""
        return [
            {"contender": one.a, "control": one.b, "fill": one.fill}
            | columns("beats_by", self.beats(one))
            | _columns(one.paired, one.p_holm)
            for one in self.comparisons
        ]


def _columns(paired: Paired, p_holm: float) -> dict[str, Any]:  # Any: numbers, words and None
    return {
        "n": paired.n,
        **columns("difference", paired.mean_difference),
        **columns("d", paired.d),
        **columns("d_z", paired.d_z),
        **columns("g", paired.g),
        **columns("probability", paired.probability),
        "p": paired.p,
        "p_holm": p_holm,
    }
