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
    reads: ClassVar[str] = "nothing"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Uniform in [0, 1)."""
        return np.random.default_rng(seed).random(image.shape[1:])


@EXPLAINERS.register("input-intensity")
@dataclass(frozen=True)
class InputIntensity(Control):
    """Input intensity: the image itself, mean over channels. On wafer maps this marks the failed dies."""

    title: ClassVar[str] = "Input intensity (control)"
    reads: ClassVar[str] = "image"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Mean over channels, in [0, 1]."""
        return image.mean(0)


@EXPLAINERS.register("centre-prior")
@dataclass(frozen=True)
class CentrePrior(Control):
    """Centre prior: 1 in the middle, falling as a Gaussian of a quarter of the side. Blind to the image."""

    title: ClassVar[str] = "Centre prior (control)"
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
    reads: ClassVar[str] = "image"

    def draw(self, image: np.ndarray, seed: int) -> np.ndarray:
        """hypot of the two Sobel responses, reflected border; >= 0."""
        strength = [np.hypot(ndimage.sobel(channel, 0), ndimage.sobel(channel, 1)) for channel in image]
        return np.mean(strength, axis=0)
