"""One image through the training of a model: where every checkpoint looks for the image's class, on one scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_core.data import open_image
from audit_core.i2x.analysis import Analysis
from audit_core.images import prepare
from audit_core.keys import key
from models.cards import ModelCard

if TYPE_CHECKING:
    from audit_core.i2x.runs import TrainingRun


@dataclass(frozen=True)
class Strip:
    """Raw saliency of one image, checkpoint by checkpoint.

    steps: those done so far; maps: float32 (T, rows, columns) on the stage's grid, never rescaled, so that a change of
    magnitude over training stays visible; confidence: softmax, float32 (T, classes).
    """

    steps: tuple[int, ...]
    maps: np.ndarray
    confidence: np.ndarray

    @property
    def span(self) -> tuple[float, float]:
        """The range that holds all maps: from 0 upwards, or symmetric around 0 where a map has negative values."""
        high = float(np.abs(self.maps).max(initial=0.0)) or 1.0
        return (-high if (self.maps < 0).any() else 0.0), high


def pixels_of(reference: str, card: ModelCard) -> np.ndarray:
    """The image as a checkpoint of ``card`` sees it, float32 (channels, rows, columns) in [0, 1]."""
    return prepare(open_image(reference), card)


def identity(analysis: Analysis, reference: str) -> str:
    """Equal for equal checkpoints, settings and image: the moments' names hold the weights' digests."""
    steps = dict(zip(analysis.trajectory.steps, analysis.manifest["pieces"]["moments"], strict=True))
    moments = {str(step): name for step, name in steps.items()}
    return key(kind="i2x strip", version=2, moments=moments, reference=reference,
               settings=dataclasses.asdict(analysis.settings))  # fmt: skip


def follow(
    analysis: Analysis,
    run: TrainingRun,
    reference: str,
    label: int,
    device: str = "cpu",
    report: Callable[[float, str, Strip], None] = lambda share, message, so_far: None,
) -> Strip:
    """Look at one image with the checkpoints that were analysed; the map is that of class ``label``.

    ``BadData`` where the files of the run are no longer those.
    """
    import torch  # here: a page that reads a strip does not need it

    from audit_core.i2x.features import look

    steps, settings = analysis.trajectory.steps, dataclasses.replace(analysis.settings, target="true")
    pixels = torch.from_numpy(pixels_of(reference, analysis.card))[None]
    maps, confidence = [], []
    for place, step in enumerate(steps):
        classifier = run.classifier(step, device)
        analysis.check(step, classifier.card)
        seen = look(classifier, pixels, np.array([label]), settings)
        maps.append(seen.saliency[0, 0])
        confidence.append(seen.confidence[0])
        so_far = Strip(tuple(steps[: place + 1]), np.stack(maps), np.stack(confidence))
        report((place + 1) / len(steps), f"checkpoint {place + 1} of {len(steps)}", so_far)
    return so_far
