"""Infidelity: how badly a map predicts what small removals do to the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch

from audit_core.explainers.base import Cost
from audit_core.metrics.base import METRICS, Evidence, Measure, Metric, Report, silent
from audit_core.params import Between, Note, OneOf


@METRICS.register("infidelity")
@dataclass(frozen=True)
class Infidelity(Metric):
    """Infidelity: mean squared difference between the score's change that the map predicts and the one that happens.

    ``square`` fills one random square at a time with the audited fill and predicts the sum of the map inside: the map
    is read as contributions. ``gaussian`` adds normal noise to the pixels and predicts map times noise, summed: the
    map is read as a gradient. Unless ``scale`` is off, the map is first multiplied by the one number that fits best, so
    that maps in any unit compare. Extra holds the share of the changes that stays unexplained.
    """

    perturbation: Annotated[str, OneOf(("square", "gaussian"), "What is done to the image.")] = "square"
    side: Annotated[int, Between(1, 1024, "px", "Side of the squares; at most that of the image.")] = 8
    sigma: Annotated[float, Between(0.001, 1.0, help="Standard deviation of the noise, in pixel units.")] = 0.1
    samples: Annotated[int, Between(2, 100_000, "perturbations", "Each costs one forward.")] = 200
    scale: Annotated[bool, Note("Multiply the map by the best number first, so that its unit does not matter.")] = True

    title: ClassVar[str] = "Infidelity"
    family: ClassVar[str] = "faithfulness"
    better: ClassVar[str] = "lower"
    span: ClassVar[str] = "0 and up, in squared units of the score"
    formula: ClassVar[str] = "mean over I of [b I'm - (f_t(x) - f_t(x - I))]^2, b = 1 or the least-squares factor"
    source: ClassVar[str] = "Yeh et al. 2019, https://arxiv.org/abs/1901.09392"
    witness: ClassVar[str] = (
        "captum's infidelity on the same perturbations; 0 for exact maps of an additive model: "
        "tests/test_metrics.py::test_infidelity_is_captums_on_the_same_perturbations, "
        "tests/test_metrics.py::test_the_exact_map_of_an_additive_model_has_no_infidelity"
    )
    pitfalls: ClassVar[str] = (
        "Small when the score hardly changes at all: read the unexplained share. The best factor may be negative, so "
        "a map upside down does as well as the right way up."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A map of zeros predicts nothing."""
        return None if evidence.values.any() else "the map is zero everywhere, so it predicts no change"

    def cost(self, evidence: Evidence) -> Cost:
        """One image per perturbation."""
        return Cost(self.samples)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The mean squared error with its t interval over perturbations, the factor taken as known."""
        work = self._squares if self.perturbation == "square" else self._noise
        predicted, scores = work(evidence)
        changes = evidence.record.untouched - scores
        factor = self._factor(predicted, changes)
        errors, moved = (factor * predicted - changes) ** 2, float((changes**2).mean())
        share = float(errors.mean()) / moved if moved else None
        extra = {"factor": factor, "unexplained": share, "mean_squared_change": moved}
        told = "the score never moved" if share is None else f"{share:.0%} of the score's changes stay unexplained"
        words = f"Over {self.samples} perturbations ({self.perturbation}) {told}."
        return Measure.over(errors, words, "t interval over perturbations", **extra)

    def _factor(self, predicted: np.ndarray, changes: np.ndarray) -> float:
        power = float((predicted**2).mean())
        return float((predicted * changes).mean()) / power if self.scale and power else 1.0

    def _squares(self, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
        """(sum of the map inside, score without it) of every square, float64 (samples,) each."""
        inside = squares(evidence.values.shape, self.side, self.samples, evidence.record.spec.seed)
        predicted = np.array([evidence.values[one].sum(dtype=np.float64) for one in inside])
        return predicted, evidence.scores_without(inside)

    def _noise(self, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
        """(map times noise, score of the image less the noise), float64 (samples,) each."""
        pixels, seed, values = evidence.pixels, evidence.record.spec.seed, evidence.values.astype(np.float64)
        predicted = np.empty(self.samples)

        def build(start: int, stop: int) -> torch.Tensor:
            noise = np.stack([self.noise(tuple(pixels.shape[1:]), seed, n) for n in range(start, stop)])
            predicted[start:stop] = (noise.astype(np.float64) * values).sum((1, 2, 3))
            return pixels - torch.from_numpy(noise).to(pixels.device)

        scores = [evidence.score(logits) for _, logits in evidence.classifier.stream(self.samples, build)]
        return predicted, np.concatenate(scores)

    def noise(self, shape: tuple[int, ...], seed: int, n: int) -> np.ndarray:
        """The n-th noise image, float32 (channels, rows, columns)."""
        rng = np.random.default_rng((seed, 31, n))
        return (self.sigma * rng.standard_normal(shape)).astype(np.float32)


def squares(shape: tuple[int, ...], side: int, samples: int, seed: int) -> np.ndarray:
    """Squares at uniform places wholly inside, bool (samples, rows, columns); cut to the image's own sides."""
    rng = np.random.default_rng((seed, 30))
    sides = [min(side, n) for n in shape]
    starts = [rng.integers(0, n - s + 1, samples)[:, None] for n, s in zip(shape, sides, strict=True)]
    lines = [
        (np.arange(n) >= start) & (np.arange(n) < start + s)
        for n, s, start in zip(shape, sides, starts, strict=True)
    ]
    return lines[0][:, :, None] & lines[1][:, None, :]
