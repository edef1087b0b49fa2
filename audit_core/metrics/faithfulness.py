"""Does the score follow the map? Read from the audit's curves where they hold it, else asked of the model again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch

from audit_core.curves import rank_pixels
from audit_core.explainers.base import Cost
from audit_core.fills.imputation import Road
from audit_core.metrics.base import FLAT, METRICS, OVER_ORDERS, Evidence, Measure, Metric, Report, silent
from audit_core.params import Between, OneOf
from audit_core.record import AuditRecord

SPAN = "0 to 1 for a probability; any number for a logit"
PERCENTS = range(10, 100, 10)  # shares removed by ROAD


def removal_areas(record: AuditRecord) -> tuple[float, float]:
    """Areas under the curves that remove the most and the least important pixels first.

    An insertion curve at a share f is the opposite removal at 1 - f, so its area is that of the opposite removal; this
    holds whichever of the two directions the audit followed.
    """
    areas = record.deletion_auc, record.insertion_auc
    return areas if record.spec.direction == "most" else areas[::-1]


def _relative(record: AuditRecord, area: float) -> str:
    share = record.normalised(area)
    return "" if share is None else f", {share:.1%} of the untouched score"


class _Area(Metric):
    """An area that the audit already holds."""

    family: ClassVar[str] = "faithfulness"
    span: ClassVar[str] = SPAN
    source: ClassVar[str] = "Petsiuk, Das and Saenko 2018, https://arxiv.org/abs/1806.07421"
    witness: ClassVar[str] = (
        "pixels removed one by one, and a trapezoid sum written out: "
        "tests/test_metrics.py::test_deletion_insertion_and_srg_are_those_of_a_literal_removal"
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map orders nothing."""
        return FLAT if evidence.flat else None

    def _measure(self, record: AuditRecord, area: float, random: np.ndarray, words: str) -> Measure:
        level = f" Random orders come to {random.mean():.3g}." if len(random) else ""
        extra = {"normalised": record.normalised(area), "random": random.tolist()}
        return Measure(area, f"{words} leaves an area of {area:.3g}{_relative(record, area)}.{level}", extra=extra)


@METRICS.register("deletion")
@dataclass(frozen=True)
class Deletion(_Area):
    """Deletion: area under the score while the most important pixels are filled first.

    Low when the score collapses early, which is what pixels that matter should do. Read from the audit, also where it
    went through the least important pixels first. Extra holds the area divided by the untouched score.
    """

    title: ClassVar[str] = "Deletion AUC"
    better: ClassVar[str] = "lower"
    formula: ClassVar[str] = "integral_0^1 f_t(x with the top share a of the pixels filled) da, by the trapezoid rule"
    pitfalls: ClassVar[str] = (
        "A fill that looks foreign to the model lowers the score by itself; a small area may show just that."
    )

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The area, without further forwards."""
        record = evidence.record
        return self._measure(
            record, removal_areas(record)[0], record.controls.deletion_auc, "Removing the most important pixels first"
        )


@METRICS.register("insertion")
@dataclass(frozen=True)
class Insertion(_Area):
    """Insertion: area under the score while the most important pixels are revealed first on the filled image.

    High when few pixels bring the score back. Read from the audit, also where it went through the least important
    pixels first. Extra holds the area divided by the untouched score.
    """

    title: ClassVar[str] = "Insertion AUC"
    better: ClassVar[str] = "higher"
    formula: ClassVar[str] = "integral_0^1 f_t(filled x with the top share a of the pixels restored) da"
    pitfalls: ClassVar[str] = (
        "A fill that keeps the class visible (a weak blur) makes every order look good; compare with random orders."
    )

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The area, without further forwards."""
        record = evidence.record
        return self._measure(
            record, removal_areas(record)[1], record.controls.insertion_auc, "Revealing the most important pixels first"
        )


@METRICS.register("srg")
@dataclass(frozen=True)
class SymmetricRelevanceGain(Metric):
    """Symmetric relevance gain: area between the removal of the least and of the most important pixels first.

    Random order has 0 on average under any fill, so maps can be ranked although fills disagree about each single
    curve. Removing the least important first is insertion read backwards, so it needs no further forwards.
    """

    title: ClassVar[str] = "Symmetric relevance gain (SRG)"
    family: ClassVar[str] = "faithfulness"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = "-1 to 1 for a probability; any number for a logit"
    formula: ClassVar[str] = "AUC(least important removed first) - AUC(most important removed first)"
    source: ClassVar[str] = "Bluecher, Vielhaben and Strodthoff 2024, https://arxiv.org/abs/2401.06654"
    witness: ClassVar[str] = (
        "curves removed pixel by pixel in both directions; the closed form of an additive model: "
        "tests/test_metrics.py::test_deletion_insertion_and_srg_are_those_of_a_literal_removal, "
        "tests/test_metrics.py::test_srg_of_an_additive_model_has_a_closed_form"
    )
    pitfalls: ClassVar[str] = (
        "It cancels what a fill does to all orders alike, not what it does to one; it is still a number under one fill."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map orders nothing."""
        return FLAT if evidence.flat else None

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The difference of two areas that the audit holds."""
        most, least = removal_areas(evidence.record)
        gain, fill = least - most, evidence.record.spec.triple.fill.name
        how, extra = "more" if gain > 0 else "no more", {"most_first": most, "least_first": least}
        words = f"Under the {fill} fill the score rests {how} on the top of the map than on its bottom"
        return Measure(gain, f"{words}: {gain:+.3g} of area between the two removals.", extra=extra)


@METRICS.register("r-oms")
@dataclass(frozen=True)
class RandomOrderScope(Metric):
    """Reference score of a fill (R-OMS): area under the removal of pixels in random order, mean over the orders.

    The larger, the longer the half-filled image stays within what the model knows. It is a property of the fill on
    this image, not of the map, and so neither way is better: a fill that changes nothing would score highest. Each
    order is removed from both of its ends; the mean of the two areas counts as one.
    """

    title: ClassVar[str] = "Random-order reference (R-OMS)"
    family: ClassVar[str] = "faithfulness"
    better: ClassVar[str] = "neither"
    span: ClassVar[str] = SPAN
    formula: ClassVar[str] = "mean over random orders r of [AUC(r removed from the front) + AUC(r from the back)] / 2"
    source: ClassVar[str] = "Bluecher, Vielhaben and Strodthoff 2024, https://arxiv.org/abs/2401.06654"
    witness: ClassVar[str] = (
        "a model that adds up its pixels, where it is the mean of untouched and filled score: "
        "tests/test_metrics.py::test_r_oms_of_an_additive_model_lies_midway_without_spread"
    )
    pitfalls: ClassVar[str] = (
        "High also for a fill that hides nothing. Here it follows the audited target, not the true label, on one image."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """It is made of the audit's random orders."""
        found = len(evidence.record.controls.deletion_auc)
        return None if found > 1 else f"it needs at least 2 random orders, the audit has {found}; raise controls"

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The mean with its t interval over the orders."""
        controls, fill = evidence.record.controls, evidence.record.spec.triple.fill.name
        sample = (controls.deletion_auc + controls.insertion_auc) / 2
        words = f"Removing pixels at random under the {fill} fill leaves an area of {sample.mean():.3g}"
        return Measure.over(sample, f"{words}{_relative(evidence.record, float(sample.mean()))}.", OVER_ORDERS)


@METRICS.register("road")
@dataclass(frozen=True)
class RoadCombined(Metric):
    """ROAD, combined: half the score's difference when the least and the most important pixels are imputed.

    Averaged over 10 to 90 % of the pixels. Removed pixels are grown from the kept ones by noisy linear imputation,
    whatever fill was audited, so that the shape of the removed area does not give the class away. Pixels are taken by
    rank, so the flat part of a rectified map is cut where the share says and not as a whole.
    """

    noise: Annotated[float, Between(0, 0.1, help="Standard deviation of the noise added to imputed pixels.")] = 0.01

    title: ClassVar[str] = "ROAD, combined"
    family: ClassVar[str] = "faithfulness"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = "-0.5 to 0.5 for a probability; any number for a logit"
    formula: ClassVar[str] = "mean over p in 10 %, …, 90 % of [f_t(least p imputed) - f_t(most p imputed)] / 2"
    source: ClassVar[str] = "Rong et al. 2022, https://arxiv.org/abs/2202.00449"
    witness: ClassVar[str] = (
        "pytorch-grad-cam's ROAD classes, combined, with their noise switched off: "
        "tests/test_metrics.py::test_road_is_that_of_pytorch_grad_cam"
    )
    pitfalls: ClassVar[str] = (
        "Linear imputation is blur-like: thin structures vanish and large removed areas turn into one grey surface."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map orders nothing."""
        return FLAT if evidence.flat else None

    def cost(self, evidence: Evidence) -> Cost:
        """Two images per share."""
        return Cost(2 * len(PERCENTS))

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The combined value; extra holds both series."""
        rank = rank_pixels(evidence.values, 1, "most", evidence.record.spec.seed)
        # As many as lie at or above the matching percentile of the values, where no two are equal.
        counts = [1 + percent * (rank.size - 1) // 100 for percent in PERCENTS]
        changed = np.stack([rank < k for k in counts] + [rank >= rank.size - k for k in counts])
        most, least = evidence.scores_without(changed, Road(self.noise)).reshape(2, -1)
        value = float((least - most).mean() / 2)
        extra = {"percent": list(PERCENTS), "most_first": most.tolist(), "least_first": least.tolist()}
        more = f"{2 * abs(value):.3g} {'more' if value > 0 else 'less'}"
        words = f"Imputing the most important pixels costs {more} of the score than imputing the least important"
        return Measure(value, f"{words}, on average over {len(PERCENTS)} shares.", extra=extra)


@METRICS.register("sufficiency")
@dataclass(frozen=True)
class Sufficiency(Metric):
    """Sufficiency: the score when only the most important share of the pixels is kept and the rest is filled.

    A map that found what the model needs keeps the score up with few pixels. Extra holds the same for the audit's
    random orders, read off their curves.
    """

    share: Annotated[float, Between(0.01, 0.99, help="Share of the pixels that is kept.")] = 0.1

    title: ClassVar[str] = "Sufficiency of the top pixels"
    family: ClassVar[str] = "faithfulness"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = SPAN
    formula: ClassVar[str] = "f_t(x with all but the top share of the pixels filled)"
    source: ClassVar[str] = "after sufficiency of DeYoung et al. 2020, https://arxiv.org/abs/1911.03429"
    witness: ClassVar[str] = (
        "the closed form of a model that adds up its pixels; the point of an insertion curve: "
        "tests/test_metrics.py::test_sufficiency_of_an_additive_model, "
        "tests/test_metrics.py::test_sufficiency_is_a_point_of_the_insertion_curve"
    )
    pitfalls: ClassVar[str] = (
        "One point of the insertion curve: it depends on the share, and the model never learned from filled images."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map has no top."""
        return FLAT if evidence.flat else None

    def cost(self, evidence: Evidence) -> Cost:
        """One image."""
        return Cost(1)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The score of the reduced image."""
        record = evidence.record
        rank = rank_pixels(evidence.values, 1, "most", record.spec.seed)
        kept = max(1, round(self.share * rank.size))
        value = float(evidence.scores_without((rank >= kept)[None])[0])
        random = [np.interp(kept / rank.size, record.insertion.fraction, row) for row in record.controls.insertion]
        words = f"The top {self.share:.0%} of the pixels score {value:.3g}, the whole image {record.untouched:.3g}"
        level = f", as many random pixels about {np.mean(random):.3g}." if random else "."
        return Measure(value, words + level, extra={"kept_pixels": kept, "random": [float(x) for x in random]})


class _Multiplied(Metric):
    """What the score does when the image is multiplied by its map."""

    space: str
    family: ClassVar[str] = "faithfulness"
    source: ClassVar[str] = "Chattopadhyay et al. 2018, https://arxiv.org/abs/1710.11063"

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map cannot be rescaled; a share of a score needs a positive one."""
        if evidence.flat:
            return "the map is constant, so it cannot be rescaled to 0 to 1"
        if evidence.record.untouched <= 0:
            return f"the untouched score is {evidence.record.untouched:.3g}; a drop of it needs a positive one"
        return None

    def cost(self, evidence: Evidence) -> Cost:
        """One image."""
        return Cost(1)

    def score(self, evidence: Evidence) -> float:
        """The audited quantity of the image times its map, rescaled to 0 to 1."""
        low, high = float(evidence.values.min()), float(evidence.values.max())
        weight = torch.from_numpy((np.array(evidence.values) - low) / (high - low)).to(evidence.classifier.device)
        if self.space == "pixels":
            return float(evidence.scores(evidence.pixels * weight)[0])
        classifier = evidence.classifier
        return float(evidence.score(classifier.evaluate(classifier.normalise(evidence.pixels) * weight))[0])


@METRICS.register("confidence-drop")
@dataclass(frozen=True)
class ConfidenceDrop(_Multiplied):
    """Confidence drop: the share of the score that is lost when the image is multiplied by its map.

    The map is rescaled to 0 to 1 by its smallest and largest value; a rising score counts as no drop. Averaged over
    images it is known as average drop.
    """

    space: Annotated[str, OneOf(("pixels", "normalised"), "Multiply pixels, or what the network sees.")] = "pixels"

    title: ClassVar[str] = "Confidence drop"
    better: ClassVar[str] = "lower"
    span: ClassVar[str] = "0 to 1 for a probability; 0 and up for a logit"
    formula: ClassVar[str] = "max(0, f_t(x) - f_t(x * m)) / f_t(x), m the map rescaled to 0 to 1"
    witness: ClassVar[str] = (
        "pytorch-grad-cam's DropInConfidence; the product of image and map written out: "
        "tests/test_metrics.py::test_confidence_changes_are_those_of_pytorch_grad_cam, "
        "tests/test_metrics.py::test_confidence_drop_in_pixels_is_a_product"
    )
    pitfalls: ClassVar[str] = (
        "A map that is bright everywhere changes nothing and wins. Multiplying pixels darkens them; multiplying "
        "normalised values pulls them to the mean colour."
    )

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The lost share."""
        before, after = evidence.record.untouched, self.score(evidence)
        value = max(0.0, before - after) / before
        words = f"Multiplied by its map the image scores {after:.3g} instead of {before:.3g}: {value:.0%} is lost."
        return Measure(value, words, extra={"before": before, "after": after})


@METRICS.register("confidence-increase")
@dataclass(frozen=True)
class ConfidenceIncrease(_Multiplied):
    """Confidence increase: 1 if the score rises when the image is multiplied by its map, else 0.

    One image gives a yes or no; over many images the mean is the rate of increase.
    """

    space: Annotated[str, OneOf(("pixels", "normalised"), "Multiply pixels, or what the network sees.")] = "pixels"

    title: ClassVar[str] = "Confidence increase"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = "0 or 1"
    formula: ClassVar[str] = "1 if f_t(x * m) > f_t(x) else 0, m the map rescaled to 0 to 1"
    witness: ClassVar[str] = (
        "pytorch-grad-cam's IncreaseInConfidence; the product of image and map written out: "
        "tests/test_metrics.py::test_confidence_changes_are_those_of_pytorch_grad_cam, "
        "tests/test_metrics.py::test_confidence_drop_in_pixels_is_a_product"
    )
    pitfalls: ClassVar[str] = (
        "Says nothing about how much. A score that is near 1 already can hardly rise, whatever the map shows."
    )

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """1 or 0; extra holds both scores."""
        before, after = evidence.record.untouched, self.score(evidence)
        word = "rises" if after > before else "does not rise"
        words = f"Multiplied by its map the image scores {after:.3g} instead of {before:.3g}: the score {word}."
        return Measure(float(after > before), words, extra={"before": before, "after": after})
