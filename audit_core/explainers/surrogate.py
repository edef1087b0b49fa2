"""KernelSHAP and LIME over segments: a linear model of how the score depends on which segments are shown.

Both sample coalitions (which segments are shown), score the images, and fit a weighted linear model whose coefficients
are the map: each pixel gets its segment's. The sampling is ours, so that it is batched, reproducible on any device and
complete where all coalitions fit into the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Annotated, ClassVar

import numpy as np
import torch
from skimage.segmentation import slic

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.explainers.occlusion import Baseline, Turn, baseline_of
from audit_core.params import Between, OneOf
from audit_core.types import Attribution
from models.cards import ModelCard

COALITIONS = 13  # tag of the random stream
KIND = Annotated[str, OneOf(("slic", "grid"), "How the image is cut: SLIC superpixels, or the cells of a square grid.")]
COUNT = Annotated[
    int, Between(2, 400, "segments", "Segments aimed at; a grid takes the next square number, SLIC comes close.")
]
COMPACTNESS = Annotated[
    float, Between(0.01, 1000, help="SLIC alone: larger makes squarer segments, smaller follows colours more.")
]


@dataclass(frozen=True)
class Fit:
    """Coefficients of the segments with their standard errors, float64 (segments,), and R^2 (None if undefined)."""

    coefficients: np.ndarray
    error: np.ndarray
    r_squared: float | None


class Surrogate(Explainer):
    """Base of the two; what differs is which coalitions are drawn and how the linear model is fitted."""

    family: ClassVar[str] = "perturbation"
    reads: ClassVar[str] = "scores"

    segments: str
    n_segments: int
    compactness: float
    baseline: str
    n_samples: int

    def cost(self, card: ModelCard) -> Cost:
        """At most one forward per coalition."""
        return Cost(self.n_samples)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Signed maps with standard errors; ``InvalidParameter`` where the samples cannot determine the segments."""
        fits: list[Fit] = []
        before, values, errors, counts = classifier.forwards, [], [], []
        with classifier.lend():
            for image, wanted in zip(images, target.tolist(), strict=True):
                places, turn = self.cut(image), Turn(len(fits), len(images), report)
                fits.append(self._one(classifier, image.to(classifier.device), places, wanted, seed, turn))
                counts.append(int(places.max()) + 1)
                values.append(fits[-1].coefficients[places])
                errors.append(fits[-1].error[places])
        extra = {"n_segments": counts, "r_squared": [fit.r_squared for fit in fits]}
        forwards = classifier.forwards - before
        return Attribution(np.stack(values), target.cpu().numpy(), True, np.stack(errors), forwards, 0, extra)

    def cut(self, image: torch.Tensor) -> np.ndarray:
        """Segment of every pixel, int64 (rows, columns), numbered from 0 without gaps; a function of the image."""
        rows, columns = image.shape[-2:]
        if self.segments == "grid":
            return grid(rows, columns, int(np.ceil(np.sqrt(self.n_segments))))
        pixels = image.cpu().numpy() if len(image) == 3 else np.repeat(image.mean(0, keepdim=True).cpu().numpy(), 3, 0)
        # In Lab colours for grey images too, so that the compactness means the same for both.
        found = slic(
            pixels.transpose(1, 2, 0).astype(np.float64), self.n_segments, self.compactness, start_label=0,
            channel_axis=-1, convert2lab=True,
        )  # fmt: skip
        return np.unique(found, return_inverse=True)[1].reshape(rows, columns)

    def coalitions(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Which of ``count`` segments are shown, bool (at most n_samples, count); the first row shows all."""
        raise NotImplementedError

    def fit(self, shown: np.ndarray, scores: np.ndarray) -> Fit:
        """The linear model of the scores, float64 (m,), of coalitions ``shown``, bool (m, segments)."""
        raise NotImplementedError

    def _one(
        self, classifier: Classifier, image: torch.Tensor, places: np.ndarray, wanted: int, seed: int, turn: Turn
    ) -> Fit:
        count = int(places.max()) + 1
        if self.n_samples < 2 * count + 2:
            raise InvalidParameter(
                f"{self.n_samples} samples were asked for, the image has {count} segments; "
                f"raise n_samples to {2 * count + 2} or more, or lower n_segments"
            )
        shown = self.coalitions(count, np.random.default_rng((seed, COALITIONS)))
        hidden = baseline_of(classifier, image, self.baseline)
        keep, where = torch.from_numpy(shown).to(image.device), torch.from_numpy(places).to(image.device)

        def build(start: int, stop: int) -> torch.Tensor:
            return torch.where(keep[start:stop][:, where][:, None], image, hidden)

        return self.fit(shown, turn.scores(classifier, len(shown), build, wanted))


def grid(rows: int, columns: int, side: int) -> np.ndarray:
    """Cells of a ``side`` x ``side`` grid numbered row by row, int64 (rows, columns); no more cells than pixels."""
    down, across = min(side, rows), min(side, columns)
    return (np.arange(rows) * down // rows)[:, None] * across + np.arange(columns) * across // columns


def r_squared(scores: np.ndarray, residuals: np.ndarray, weights: np.ndarray) -> float | None:
    """Weighted share of the scores' variance that the model explains; None when they do not vary."""
    spread = float(weights @ (scores - np.average(scores, weights=weights)) ** 2)
    return 1 - float(weights @ residuals**2) / spread if spread > 0 else None


@EXPLAINERS.register("kernel-shap")
@dataclass(frozen=True)
class KernelSHAP(Surrogate):
    """KernelSHAP: Shapley values of the image's segments, from a linear model of the score over coalitions.

    A segment's Shapley value is its mean contribution over all orders in which segments may be shown, the others
    showing the baseline. Where all coalitions fit into the samples they are all scored and the values are exact. Else
    coalitions are drawn by the Shapley kernel, each with its complement; the values always sum to the difference
    between the whole image's score and the baseline's.
    """

    title: ClassVar[str] = "KernelSHAP"
    formula: ClassVar[str] = (
        "argmin_phi sum_S k(|S|) (v(S) - v(none) - sum_{j in S} phi_j)^2 with sum_j phi_j = v(all) - v(none), "
        "k(s) = (M - 1) / (C(M, s) s (M - s))"
    )
    source: ClassVar[str] = (
        "Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874; sampling in pairs after Covert and Lee 2021, "
        "https://arxiv.org/abs/2012.01536"
    )
    library: ClassVar[str] = "own; segments by scikit-image"
    witness: ClassVar[str] = (
        "Shapley values by their definition over all coalitions; captum's KernelShap: "
        "tests/test_perturbation.py::test_kernel_shap_with_all_coalitions_is_exact, "
        "tests/test_perturbation.py::test_captums_kernel_shap_scatters_around_our_exact_values"
    )
    pitfalls: ClassVar[str] = (
        "A value belongs to a whole segment, whatever its size, so large segments come early in an order of pixels. "
        "Other segments or another baseline are another game with other values."
    )

    segments: KIND = "slic"
    n_segments: COUNT = 32
    compactness: COMPACTNESS = 10.0
    baseline: Baseline = "zero"
    n_samples: Annotated[int, Between(6, 100_000, "coalitions", "Coalitions at most; each costs one forward.")] = 512

    def coalitions(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """All, none, then every other coalition if they fit, else pairs drawn by the Shapley kernel."""
        ends = np.array([[True] * count, [False] * count])
        if 2**count <= self.n_samples:
            every = np.array(list(product([False, True], repeat=count)))
            return np.concatenate([ends, every[1:-1]])
        sizes = np.arange(1, count)
        chance = 1 / (sizes * (count - sizes))
        drawn = rng.choice(sizes, (self.n_samples - 2) // 2, p=chance / chance.sum())
        first = rng.random((len(drawn), count)).argsort(1).argsort(1) < drawn[:, None]
        return np.concatenate([ends, np.stack([first, ~first], 1).reshape(-1, count)])

    def fit(self, shown: np.ndarray, scores: np.ndarray) -> Fit:
        """Least squares under the sum's constraint; drawn coalitions weigh alike, enumerated ones by the kernel."""
        count, total = shown.shape[1], scores[0] - scores[1]
        if count == 1:
            return Fit(np.array([total]), np.zeros(1), None)
        inside, rest = shown[2:].astype(np.float64), scores[2:] - scores[1]
        complete = len(scores) == 2**count
        sizes = inside.sum(1).astype(int)
        weights = np.ones(len(rest))
        if complete:
            weights = np.array([1 / (comb(count, s) * s * (count - s)) for s in sizes])
        # The last coefficient is the total less the others, so the others are a free regression.
        design, response = inside[:, :-1] - inside[:, -1:], rest - inside[:, -1] * total
        inverse = np.linalg.pinv(design.T @ (weights[:, None] * design), hermitian=True)
        free = inverse @ (design.T @ (weights * response))
        residuals = response - design @ free
        last = np.concatenate([np.eye(count - 1), -np.ones((1, count - 1))])
        # A complete enumeration is exact; else pairs are the independent draws.
        paired = (design * residuals[:, None]).reshape(-1, 2, count - 1).sum(1) @ (last @ inverse).T
        freedom = len(paired) - (count - 1)
        error = np.zeros(count) if complete else np.sqrt((paired**2).sum(0) * len(paired) / freedom)
        return Fit(np.append(free, total - free.sum()), error, r_squared(rest, residuals, weights))


@EXPLAINERS.register("lime")
@dataclass(frozen=True)
class LIME(Surrogate):
    """LIME: a ridge regression of the score on which segments are shown, weighted towards images like the original.

    Every segment is shown or hidden with probability 1/2; an image with a share s of its segments shown weighs
    exp(-(1 - sqrt(s))^2 / (2 width^2)), as the authors' code does for images. The map is the coefficients.
    """

    title: ClassVar[str] = "LIME"
    formula: ClassVar[str] = (
        "argmin_{b, beta} sum_i w_i (f_t(x_i) - b - sum_j z_ij beta_j)^2 + ridge |beta|^2, "
        "w_i = exp(-d_i^2 / (2 width^2)), d_i = 1 - sqrt(mean_j z_ij)"
    )
    source: ClassVar[str] = "Ribeiro, Singh and Guestrin 2016, https://arxiv.org/abs/1602.04938"
    library: ClassVar[str] = "own; segments by scikit-image"
    witness: ClassVar[str] = (
        "scikit-learn's Ridge; captum's Lime: tests/test_perturbation.py::test_lime_fits_as_scikit_learn_does, "
        "tests/test_perturbation.py::test_lime_agrees_with_captums"
    )
    pitfalls: ClassVar[str] = (
        "With a narrow width few samples count and the map is noise; the ridge shrinks it. A low R^2 says that the "
        "score is not additive in the segments: then the coefficients describe little."
    )

    segments: KIND = "slic"
    n_segments: COUNT = 32
    compactness: COMPACTNESS = 10.0
    baseline: Baseline = "zero"
    n_samples: Annotated[int, Between(6, 100_000, "samples", "Perturbed images; each costs one forward.")] = 512
    width: Annotated[float, Between(0.01, 100, help="Width of the weighting; large values weigh all alike.")] = 0.25
    ridge: Annotated[float, Between(0.0, 1e6, help="Strength of the ridge penalty; 0 is plain least squares.")] = 1.0

    def coalitions(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """The whole image, then independent fair coins."""
        return np.concatenate([np.ones((1, count), bool), rng.random((self.n_samples - 1, count)) < 0.5])

    def fit(self, shown: np.ndarray, scores: np.ndarray) -> Fit:
        """Weighted ridge with a free intercept; standard errors by the sandwich formula."""
        design = shown.astype(np.float64)
        weights = np.exp(-((1 - np.sqrt(design.mean(1))) ** 2) / (2 * self.width**2))
        centred = design - np.average(design, axis=0, weights=weights)
        response = scores - np.average(scores, weights=weights)
        gram = centred.T @ (weights[:, None] * centred) + self.ridge * np.eye(shown.shape[1])
        inverse = np.linalg.pinv(gram, hermitian=True)
        coefficients = inverse @ (centred.T @ (weights * response))
        residuals = response - centred @ coefficients
        spread = (weights * residuals)[:, None] * centred @ inverse
        freedom = len(shown) - shown.shape[1] - 1
        error = np.sqrt((spread**2).sum(0) * len(shown) / freedom)
        return Fit(coefficients, error, r_squared(scores, residuals, weights))
