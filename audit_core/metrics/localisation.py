"""Does the map lie where the evidence is known to lie? Only where somebody knows the region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy import ndimage, stats

from audit_core.curves import rank_pixels
from audit_core.metrics.base import METRICS, Evidence, Measure, Metric, Report, silent
from audit_core.params import Between


class _Localisation(Metric):
    """A comparison of the map with the region of the image's label."""

    family: ClassVar[str] = "localisation"
    better: ClassVar[str] = "higher"

    def refuse(self, evidence: Evidence) -> str | None:
        """There must be a region, it must be that of the target, and the map must point somewhere."""
        record, region = evidence.record, evidence.region
        if region is None:
            return "the region of this image is not known"
        if not region.any() or region.all():
            return f"the region covers {'no pixel' if not region.any() else 'every pixel'}, so any map would do"
        if record.label is not None and record.label != record.target:
            label, target = record.classes[record.label], record.classes[record.target]
            return f"the region is that of {label!r}, the map explains {target!r}; set target to label"
        return "the map is constant, so it points nowhere" if evidence.flat else None


def _region(evidence: Evidence) -> np.ndarray:
    if evidence.region is None:
        raise ValueError("measure is called only where refuse says None")
    return evidence.region


@METRICS.register("pointing-game")
@dataclass(frozen=True)
class PointingGame(_Localisation):
    """Pointing game: whether the map's largest value lies in the region.

    1 for a hit and 0 for a miss; where several pixels share the largest value, the share of them inside, which is the
    chance of a hit if one of them is picked at random. ``tolerance`` widens the region first. Extra holds the base
    rate, the area of the widened region as a share of the image.
    """

    tolerance: Annotated[int, Between(0, 100, "px", "How far beside the region still counts.")] = 0

    title: ClassVar[str] = "Pointing game"
    span: ClassVar[str] = "0 to 1; base rate: the region's share of the image"
    formula: ClassVar[str] = "share of argmax m inside the region"
    source: ClassVar[str] = "Zhang et al. 2018, https://arxiv.org/abs/1608.00507"
    witness: ClassVar[str] = (
        "quantus' PointingGame; regions and ties counted by hand: "
        "tests/test_metrics.py::test_localisation_is_that_of_quantus, "
        "tests/test_metrics.py::test_localisation_counted_by_hand"
    )
    pitfalls: ClassVar[str] = (
        "One pixel decides. The paper allows 15 pixels beside the region; here none, unless tolerance says so."
    )

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """Hit, miss or the share of tied pixels inside."""
        region = _region(evidence)
        near = ndimage.distance_transform_edt(~region) <= self.tolerance
        top = evidence.values == evidence.values.max()
        value, base = float(near[top].mean()), float(near.mean())
        tied = f"{int(near[top].sum())} of {int(top.sum())} tied largest values lie inside"
        hit = "The largest value lies " + ("inside" if value else "outside")
        words = tied[0].upper() + tied[1:] if top.sum() > 1 else hit
        return Measure(
            value, f"{words}; a pixel at random hits with {base:.0%}.", extra={"base": base, "tied": int(top.sum())}
        )


@METRICS.register("energy-inside")
@dataclass(frozen=True)
class EnergyInside(_Localisation):
    """Energy inside: the share of the map's positive evidence that lies in the region.

    Evidence against the target counts as none. A map spread evenly has the region's share of the image, which extra
    holds as the base rate.
    """

    title: ClassVar[str] = "Energy inside the region"
    span: ClassVar[str] = "0 to 1; base rate: the region's share of the image"
    formula: ClassVar[str] = "sum_{l in R} max(m(l), 0) / sum_l max(m(l), 0)"
    source: ClassVar[str] = "Wang et al. 2020, https://arxiv.org/abs/1910.01279"
    witness: ClassVar[str] = (
        "quantus' RelevanceMassAccuracy; sums written out by hand: "
        "tests/test_metrics.py::test_localisation_is_that_of_quantus, "
        "tests/test_metrics.py::test_localisation_counted_by_hand"
    )
    pitfalls: ClassVar[str] = (
        "A coarse map bleeds over the border of a thin region. A model may rightly look at what surrounds it."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """There must be positive evidence."""
        reason = super().refuse(evidence)
        return reason or (None if evidence.values.max() > 0 else "the map holds no positive evidence")

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The share inside."""
        region, energy = _region(evidence), np.maximum(evidence.values.astype(np.float64), 0)
        value, base = float(energy[region].sum() / energy.sum()), float(region.mean())
        words = f"{value:.0%} of the positive evidence lies in {base:.0%} of the image"
        return Measure(value, f"{words}: {value - base:+.0%} against an even spread.", extra={"base": base})


@METRICS.register("top-k-iou")
@dataclass(frozen=True)
class TopIou(_Localisation):
    """Top-k IoU: overlap of the region with as many top pixels of the map, intersection over union.

    Ties are cut by the audit's own tie rule. Extra holds the base rate: the mean over all choices of as many pixels
    at random.
    """

    title: ClassVar[str] = "Top-k overlap (IoU)"
    span: ClassVar[str] = "0 to 1; base rate: the mean over random choices of as many pixels"
    formula: ClassVar[str] = "|T and R| / |T or R|, T the top |R| pixels of m"
    source: ClassVar[str] = "after Arras, Osman and Samek 2022 (rank accuracy), https://arxiv.org/abs/2003.07258"
    witness: ClassVar[str] = (
        "quantus' RelevanceRankAccuracy turned into an IoU; base rate by enumeration: "
        "tests/test_metrics.py::test_localisation_is_that_of_quantus, "
        "tests/test_metrics.py::test_the_base_rate_of_the_overlap_is_the_mean_over_all_choices"
    )
    pitfalls: ClassVar[str] = "It asks for the whole region; a model may need a part only and rightly show just that."

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The overlap."""
        region = _region(evidence)
        size = int(region.sum())
        top = rank_pixels(evidence.values, 1, "most", evidence.record.spec.seed) < size
        value, base = float((top & region).sum() / (top | region).sum()), random_iou(region.size, size)
        words = f"The top {size} pixels and the region of as many overlap by {value:.2f}"
        extra = {"base": base, "rank_accuracy": float(region[top].mean())}
        return Measure(value, f"{words}: {value - base:+.2f} against random pixels.", extra=extra)


def random_iou(pixels: int, size: int) -> float:
    """Mean intersection over union of a set of ``size`` of ``pixels`` pixels with a random one of the same size."""
    shared = np.arange(size + 1)
    chance = stats.hypergeom(pixels, size, size).pmf(shared)
    return float((chance * shared / (2 * size - shared)).sum())
