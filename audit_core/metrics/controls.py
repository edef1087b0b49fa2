"""Does the map beat maps that no explanation went into, under the same fill, steps and target?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from audit_core.curves import cuts, fractions, plan, rank_pixels, score_points, table
from audit_core.explainers.base import Cost
from audit_core.explainers.controls import CentrePrior, Control, Edges, InputIntensity
from audit_core.intervals import mean_interval
from audit_core.metrics.base import FLAT, METRICS, OVER_ORDERS, Evidence, Measure, Metric, Report, silent
from audit_core.metrics.faithfulness import removal_areas


class _Beats(Metric):
    """The SRG of the map less that of a control."""

    opponent: ClassVar[str]
    family: ClassVar[str] = "controls"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = "-2 to 2 for a probability; any number for a logit; above 0 the map wins"
    source: ClassVar[str] = "Adebayo et al. 2018, https://arxiv.org/abs/1810.03292 (edges); SRG: see srg"

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map orders nothing."""
        return FLAT if evidence.flat else None

    def words(self, evidence: Evidence, gain: float, low: float) -> str:
        """Whether the map beats the control, said in so many words."""
        verb, side = "beats" if low > 0 else "does not beat", "above" if gain > 0 else "below"
        fill = evidence.record.spec.triple.fill.name
        return f"Under the {fill} fill the map {verb} {self.opponent}: its SRG is {abs(gain):.3g} {side} that one's."


def own_gain(evidence: Evidence) -> float:
    """The SRG of the audited map."""
    most, least = removal_areas(evidence.record)
    return least - most


def score_map(evidence: Evidence, values: np.ndarray) -> tuple[float, float]:
    """Deletion and insertion AUC of another map (rows, columns), exactly as the audit scores its own.

    Most important first; 2 steps forwards.
    """
    spec, pixels = evidence.record.spec, evidence.pixels
    rank, one = rank_pixels(values, spec.patch, "most", spec.seed), np.zeros(1, dtype=np.int64)
    at = cuts(int(rank.max()) + 1, spec.steps)
    points = plan(one, at)
    substrate = evidence.fill.substrate(pixels, evidence.context)
    ranks = torch.from_numpy(rank)[None]
    stream = score_points(evidence.classifier, evidence.fill, pixels, substrate, ranks, points)
    scores = np.concatenate([evidence.score(logits) for _, logits in stream])
    where, share = table(points, 1, at, one), fractions(rank, at)
    deletion, insertion = (scores[rows[0]] for rows in (where.deletion, where.insertion))
    return float(np.trapezoid(deletion, share)), float(np.trapezoid(insertion, share))


@METRICS.register("beats-random")
@dataclass(frozen=True)
class BeatsRandom(_Beats):
    """Against random order: the SRG of the map less that of each random order of the audit, mean with its interval.

    A map whose interval reaches 0 tells no more about this image than knowing nothing.
    """

    title: ClassVar[str] = "Beats random order"
    opponent: ClassVar[str] = "random order"
    formula: ClassVar[str] = "SRG(map) - mean over random orders r of SRG(r)"
    witness: ClassVar[str] = (
        "differences of areas written out by hand; scipy's t interval: "
        "tests/test_metrics.py::test_beats_random_is_a_difference_of_areas"
    )
    pitfalls: ClassVar[str] = "The interval is over random orders of this image; it says nothing about other images."

    def refuse(self, evidence: Evidence) -> str | None:
        """It is made of the audit's random orders."""
        found = len(evidence.record.controls.deletion_auc)
        few = None if found > 1 else f"it needs at least 2 random orders, the audit has {found}; raise controls"
        return super().refuse(evidence) or few

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """From the audit alone, without further forwards."""
        controls = evidence.record.controls
        gains = own_gain(evidence) - (controls.insertion_auc - controls.deletion_auc)
        found = Measure.over(gains, "", OVER_ORDERS)
        words = self.words(evidence, float(gains.mean()), found.low if found.low is not None else 0.0)
        return Measure.over(gains, words, OVER_ORDERS, own=own_gain(evidence))


class _BeatsMap(_Beats):
    """Against one control map, for which one more pair of curves is scored."""

    control: ClassVar[Control]
    witness: ClassVar[str] = (
        "an audit of the control itself as explainer; the exact map of an additive model, which beats every control: "
        "tests/test_metrics.py::test_beating_a_control_is_the_difference_to_an_audit_of_it, "
        "tests/test_metrics.py::test_the_exact_map_beats_every_control_and_its_opposite_none"
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """The control must have an order, and must not be what was audited."""
        if isinstance(evidence.explainer, type(self.control)):
            return f"the audited map is {self.opponent} itself"
        if np.ptp(self.drawn(evidence)) == 0:
            return f"{self.opponent} is constant on this image, so it has no order to compare with"
        return super().refuse(evidence)

    def cost(self, evidence: Evidence) -> Cost:
        """One pair of curves."""
        return Cost(2 * evidence.record.spec.steps)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The difference of two SRGs."""
        deletion, insertion = score_map(evidence, self.drawn(evidence))
        most, least = removal_areas(evidence.record)
        parts = {"deletion": deletion - most, "insertion": least - insertion}  # both above 0 where the map is better
        gain = parts["deletion"] + parts["insertion"]
        words = f"{self.words(evidence, gain, gain)[:-1]} ({', '.join(f'{k} {v:+.3g}' for k, v in parts.items())})."
        return Measure(gain, words, extra={"own": own_gain(evidence), "control": insertion - deletion, **parts})

    def drawn(self, evidence: Evidence) -> np.ndarray:
        """The control's map of the audited image."""
        return self.control.draw(np.array(evidence.record.pixels), evidence.record.spec.seed)


@METRICS.register("beats-intensity")
@dataclass(frozen=True)
class BeatsIntensity(_BeatsMap):
    """Against input intensity: the SRG of the map less that of the image itself, taken as a map.

    On wafer maps bright pixels are failed dies, so this control is hard to beat and a map that loses to it has
    explained nothing that the image did not show.
    """

    title: ClassVar[str] = "Beats input intensity"
    opponent: ClassVar[str] = "the input's intensity"
    control: ClassVar[Control] = InputIntensity()
    formula: ClassVar[str] = "SRG(map) - SRG(mean of the image over channels)"
    pitfalls: ClassVar[str] = "Under a zero fill intensity has an advantage: filling dark pixels changes nothing."


@METRICS.register("beats-centre")
@dataclass(frozen=True)
class BeatsCentre(_BeatsMap):
    """Against a centre prior: the SRG of the map less that of a Gaussian in the middle of the image.

    Photographs have their subject in the middle; a map that loses to this control could be blind to the image.
    """

    title: ClassVar[str] = "Beats the centre prior"
    opponent: ClassVar[str] = "the centre prior"
    control: ClassVar[Control] = CentrePrior()
    formula: ClassVar[str] = "SRG(map) - SRG(exp(-d^2 / 2)), d the distance from the middle in quarters of the side"
    pitfalls: ClassVar[str] = "Easy to beat where the evidence lies at the border, hard where it lies in the middle."


@METRICS.register("beats-edges")
@dataclass(frozen=True)
class BeatsEdges(_BeatsMap):
    """Against an edge detector: the SRG of the map less that of the image's Sobel gradient.

    Many explainers draw edges whatever the model learned; a map that loses to this control may be one of them.
    """

    title: ClassVar[str] = "Beats edges"
    opponent: ClassVar[str] = "the image's edges"
    control: ClassVar[Control] = Edges()
    formula: ClassVar[str] = "SRG(map) - SRG(|Sobel gradient|, mean over channels)"
    pitfalls: ClassVar[str] = "Edges surround an object and miss its inside; a filled object is better found by area."


RANDOM_MAPS = 3  # maps of noise beside which a metric other than an area is measured
COMPARED = ("road", "sufficiency", "confidence-drop", "confidence-increase", "infidelity")
OPPONENTS: dict[str, Control] = {"intensity": InputIntensity(), "centre": CentrePrior(), "edges": Edges()}
MAPS_COMPARED = RANDOM_MAPS + len(OPPONENTS)


def with_map(evidence: Evidence, values: np.ndarray) -> Evidence:
    """The same evidence for another map (rows, columns) of the same image."""
    return replace(evidence, record=replace(evidence.record, values=np.asarray(values, dtype=np.float32)))


def differences(metric: Metric, evidence: Evidence, own: float) -> dict[str, dict[str, float | int | None]]:
    """Control -> value, low, high, n: how much better the map does than the control, above 0 is better.

    own: the metric of the audited map. Random order has a t interval over ``RANDOM_MAPS`` maps of noise; controls that
    are constant on this image, or are what was audited, are left out.
    """
    sign, spec = (1.0 if metric.better == "higher" else -1.0), evidence.record.spec
    noise = [np.random.default_rng((spec.seed, 2, k)).random(evidence.values.shape) for k in range(RANDOM_MAPS)]
    maps = {"random": noise}
    for name, control in OPPONENTS.items():
        drawn = control.draw(np.array(evidence.record.pixels), spec.seed)
        if np.ptp(drawn) > 0 and not isinstance(evidence.explainer, type(control)):
            maps[name] = [drawn]
    found: dict[str, dict[str, float | int | None]] = {}
    for name, rows in maps.items():
        others = [metric.measure(with_map(evidence, row)).value for row in rows]
        gains = np.array([sign * (own - other) for other in others if other is not None])
        if len(gains):
            value, low, high = mean_interval(gains)
            found[name] = {"value": value, "low": low, "high": high, "n": len(gains)}
    return found


def said_of(found: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """Which controls the map beats by this metric, in a sentence; an interval that reaches 0 beats nothing."""
    edge = {name: row["value"] if row["low"] is None else row["low"] for name, row in found.items()}
    lost = [name for name, low in edge.items() if low is None or low <= 0]
    return f" It does not beat {', '.join(lost)}." if lost else f" It beats {', '.join(found)}."
