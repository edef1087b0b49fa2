"""What a classifier computes at one feature stage: features, and raw class-specific saliency on the stage's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.cam import channels_first
from audit_core.i2x.settings import Settings
from audit_core.keys import Choice
from models.cards import FeatureLayer

GRAD_CAM = "grad-cam"


def batches(classifier: Classifier, pixels: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """(start, images from there) in batches that depend on the number of images alone."""
    size = classifier.steady().batch.next()
    for start in range(0, len(pixels), size):
        yield start, pixels[start : start + size]


def stage(classifier: Classifier, name: str) -> FeatureLayer:
    """The feature stage called ``name``, the last for the empty word; ``InvalidParameter`` names the known ones."""
    try:
        return classifier.card.layer(name)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def spatial_features(classifier: Classifier, pixels: torch.Tensor, layer: FeatureLayer) -> np.ndarray:
    """Features of one batch, float32 (n, rows, columns, channels); pixels: (n, channels, rows, columns) in [0, 1]."""
    kept: list[torch.Tensor] = []
    with classifier.lend() as module, torch.no_grad():
        place = module.get_submodule(layer.module)
        place.register_forward_hook(lambda _, __, output: kept.append(channels_first(output, layer).float().clone()))
        module(classifier.normalise(pixels))
    classifier.forwards += len(pixels)
    return kept[0].movedim(1, -1).cpu().numpy()


@dataclass(frozen=True)
class Look:
    """One batch seen by one checkpoint.

    saliency: float32 (n, targets, rows, columns), raw: comparable over checkpoints; confidence: softmax (n, classes).
    """

    saliency: np.ndarray
    confidence: np.ndarray


def look(classifier: Classifier, pixels: torch.Tensor, labels: np.ndarray, settings: Settings) -> Look:
    """Saliency and confidence of one batch; labels: int (n,), the classes explained where the target is "true".

    With the target "all" there is one map per class, else one. Never rescaled per image, unless asked for: a change of
    magnitude between checkpoints is the signal.
    """
    layer = stage(classifier, settings.layer)
    if settings.explainer == GRAD_CAM:
        maps, logits = _grad_cam(classifier, pixels, labels, layer, settings)
    else:
        maps, logits = _explained(classifier, pixels, labels, layer, settings)
    if settings.relu:
        maps = maps.clamp(min=0)
    if settings.normalisation == "max":
        maps = maps / maps.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return Look(maps.cpu().numpy(), logits.softmax(1).cpu().numpy())


def _targets(logits: torch.Tensor, labels: np.ndarray, target: str) -> list[torch.Tensor]:
    n, classes = logits.shape
    if target == "all":
        return [torch.full((n,), c, device=logits.device) for c in range(classes)]
    if target == "predicted":
        return [logits.argmax(1)]
    return [torch.as_tensor(labels, device=logits.device)]


def _grad_cam(
    classifier: Classifier, pixels: torch.Tensor, labels: np.ndarray, layer: FeatureLayer, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw Grad-CAM (Selvaraju et al. 2017): gradients flow back to the stage only, not through the layers below it."""
    kept: list[torch.Tensor] = []

    def cut(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # a copy: what follows may work in place

    with classifier.lend() as module, torch.enable_grad():
        module.get_submodule(layer.module).register_forward_hook(cut)
        logits = module(classifier.normalise(pixels)).float()
        maps = []
        for target in _targets(logits.detach(), labels, settings.target):
            score = logits.gather(1, target[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept[-1], retain_graph=True)
            weights = channels_first(gradient, layer).mean((2, 3), keepdim=True)
            maps.append((weights * channels_first(kept[-1].detach(), layer)).sum(1))
    classifier.forwards += len(pixels)
    return torch.stack(maps, 1).float(), logits.detach()


def _explained(
    classifier: Classifier, pixels: torch.Tensor, labels: np.ndarray, layer: FeatureLayer, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of any registered explainer, averaged over the cells of the stage's grid."""
    explainer = EXPLAINERS.build(EXPLAINERS.complete(Choice.parse(settings.explainer)))
    if reason := explainer.refuse(classifier.card):
        raise InvalidParameter(f"{reason}; choose another explainer for the intensities")
    logits = classifier.logits(pixels).float()
    maps = []
    for target in _targets(logits, labels, settings.target):
        values = explainer.attribute(classifier, pixels, target.cpu(), settings.seed).values
        maps.append(F.adaptive_avg_pool2d(torch.tensor(values, dtype=torch.float32)[:, None], layer.grid)[:, 0])
    return torch.stack(maps, 1), logits.clone()
