"""How concentrated a map is: a description of how it reads, not of whether it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from audit_core.metrics.base import METRICS, Evidence, Measure, Metric, Report, silent


class _Concentration(Metric):
    """A number of the map's absolute values."""

    family: ClassVar[str] = "complexity"
    better: ClassVar[str] = "neither"

    def refuse(self, evidence: Evidence) -> str | None:
        """A map of zeros has nothing to share out."""
        return None if evidence.values.any() else "the map is zero everywhere, so there is nothing to share out"


@METRICS.register("gini")
@dataclass(frozen=True)
class Gini(_Concentration):
    """Sparseness: the Gini index of the map's absolute values.

    0 when all pixels weigh the same, close to 1 when a single pixel holds everything. The papers prefer sparse maps
    because people read them with less effort; that makes none of them true, so no direction is better here.
    """

    title: ClassVar[str] = "Sparseness (Gini index)"
    span: ClassVar[str] = "0 to 1 - 1/N"
    formula: ClassVar[str] = "sum_i (2 i - N - 1) |m|_(i) / (N sum |m|), |m| in rising order"
    source: ClassVar[str] = "Chalasani et al. 2020, https://arxiv.org/abs/1810.06583"
    witness: ClassVar[str] = (
        "quantus' Sparseness; 0 for a constant map, 1 - 1/N for a single pixel: "
        "tests/test_metrics.py::test_concentration_is_that_of_quantus, "
        "tests/test_metrics.py::test_concentration_of_the_two_extremes"
    )
    pitfalls: ClassVar[str] = "One bright pixel at a wrong place is as sparse as can be; an enlarged map never is."

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The index."""
        rising = np.sort(np.abs(evidence.values.astype(np.float64)).ravel())
        n = rising.size
        value = float((2 * np.arange(1, n + 1) - n - 1) @ rising / (n * rising.sum()))
        return Measure(value, f"The map's Gini index is {value:.2f} (0: spread evenly, 1: a single pixel).")


@METRICS.register("entropy")
@dataclass(frozen=True)
class Entropy(_Concentration):
    """Complexity: the entropy of how the map's absolute values are shared out over the pixels.

    Its exponential is the number of pixels that would hold as much if they shared it evenly; extra holds it. A low
    value is easy to read and no more likely to be true, so no direction is better here.
    """

    title: ClassVar[str] = "Complexity (entropy)"
    span: ClassVar[str] = "0 to ln N nats"
    formula: ClassVar[str] = "-sum_i p_i ln p_i, p = |m| / sum |m|"
    source: ClassVar[str] = "Bhatt, Weller and Moura 2020, https://arxiv.org/abs/2005.00631"
    witness: ClassVar[str] = (
        "quantus' Complexity; ln N for a constant map, 0 for a single pixel: "
        "tests/test_metrics.py::test_concentration_is_that_of_quantus, "
        "tests/test_metrics.py::test_concentration_of_the_two_extremes"
    )
    pitfalls: ClassVar[str] = "It cannot tell an area from as many scattered pixels; it grows with the image's size."

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The entropy in nats."""
        weights = np.abs(evidence.values.astype(np.float64)).ravel()
        shares = weights[weights > 0] / weights.sum()
        value = max(0.0, float(-(shares * np.log(shares)).sum()))
        effective = float(np.exp(value))
        words = f"The map is spread as over {effective:,.0f} of {weights.size:,} pixels ({value:.2f} nats)."
        return Measure(value, words, extra={"effective_pixels": effective, "pixels": weights.size})
