"""Controls: maps that no explanation went into. A heatmap that does not beat them has not explained anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage

from audit_core.classifier import Classifier
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.types import Attribution
from models.cards import ModelCard


class Control(Explainer):
    """A map made without the model: free of cost, never refused, always unsigned."""

    family: ClassVar[str] = "control"

    def cost(self, card: ModelCard) -> Cost:
        """Nothing."""
        return Cost(0)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """One map per image; the classifier is not asked."""
        maps = np.stack([self.draw(image, seed) for image in images.cpu().numpy()])
        return Attribution(maps, target.cpu().numpy(), signed=False)

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """The map of one image (channels, rows, columns), float (rows, columns)."""
        raise NotImplementedError


@EXPLAINERS.register("random")
@dataclass(frozen=True)
class RandomOrder(Control):
    """Random order: independent uniform noise; the same seed gives the same order. The level of knowing nothing."""

    title: ClassVar[str] = "Random order (control)"
    formula: ClassVar[str] = "S_p ~ U(0, 1), independent per pixel"
    source: ClassVar[str] = (
        "the random heatmap of Samek et al. 2017, https://arxiv.org/abs/1509.06321, and the random baseline of Hooker "
        "et al. 2019 (ROAR), https://arxiv.org/abs/1806.10758"
    )
    witness: ClassVar[str] = (
        "quartiles of the uniform law: tests/test_explainers.py::test_random_order_is_uniform_and_seeded"
    )
    pitfalls: ClassVar[str] = (
        "Scattered pixels can disturb a model more than a compact area of the same size, so a good map may lose to it "
        "early on a deletion curve."
    )
    reads: ClassVar[str] = "nothing"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Uniform in [0, 1)."""
        return np.random.default_rng(seed).random(image.shape[1:])


@EXPLAINERS.register("input-intensity")
@dataclass(frozen=True)
class InputIntensity(Control):
    """Input intensity: the image itself, mean over channels. On wafer maps this marks the failed dies."""

    title: ClassVar[str] = "Input intensity (control)"
    formula: ClassVar[str] = "S_p = (1 / C) sum_k x_pk, x in pixel space"
    source: ClassVar[str] = "this project's; on binary wafer maps it is the input itself taken as the heatmap"
    witness: ClassVar[str] = (
        "a mean by hand: tests/test_explainers.py::test_intensity_is_the_mean_over_channels"
    )
    pitfalls: ClassVar[str] = (
        "Under the zero fill it visits first what changes most, so on bright-on-dark images it is hard to beat. It "
        "marks whatever is bright, on dark defects the wrong part."
    )
    reads: ClassVar[str] = "image"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Mean over channels, in [0, 1]."""
        return image.mean(0)


@EXPLAINERS.register("centre-prior")
@dataclass(frozen=True)
class CentrePrior(Control):
    """Centre prior: 1 in the middle, falling as a Gaussian of a quarter of the side. Blind to the image."""

    title: ClassVar[str] = "Centre prior (control)"
    formula: ClassVar[str] = "S_p = exp(-8 (u^2 + v^2)), u and v the offsets from the middle in units of the sides"
    source: ClassVar[str] = "the centre bias of photographs, Tatler 2007, https://doi.org/10.1167/7.14.4"
    witness: ClassVar[str] = "closed form: tests/test_explainers.py::test_centre_prior_in_closed_form"
    pitfalls: ClassVar[str] = (
        "Strong where objects are centred, as in most photographs: beating random order means little if this is not "
        "beaten too."
    )
    reads: ClassVar[str] = "nothing"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """exp(-d^2 / 2) with d in units of a quarter of each side; in (0, 1]."""
        rows, columns = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in image.shape[1:])
        return np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / 2)


@EXPLAINERS.register("edges")
@dataclass(frozen=True)
class Edges(Control):
    """Edges: strength of the Sobel gradient of the image, mean over channels (Sobel 1968). Blind to the model."""

    title: ClassVar[str] = "Edges (control)"
    formula: ClassVar[str] = "S_p = (1 / C) sum_k hypot(sobel_rows(x_k), sobel_columns(x_k))_p"
    source: ClassVar[str] = (
        "the edge detector that Adebayo et al. 2018 set beside saliency maps, https://arxiv.org/abs/1810.03292; "
        "operator: Sobel 1968"
    )
    library: ClassVar[str] = "SciPy (ndimage.sobel)"
    witness: ClassVar[str] = "closed forms: tests/test_explainers.py::test_edges_of_a_ramp_and_a_step"
    pitfalls: ClassVar[str] = (
        "Looks like an explanation to the eye because people see objects by their outlines; that is why it stands here."
    )
    reads: ClassVar[str] = "image"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """hypot of the two Sobel responses, reflected border; >= 0."""
        strength = [np.hypot(ndimage.sobel(channel, 0), ndimage.sobel(channel, 1)) for channel in image]
        return np.mean(strength, axis=0)
