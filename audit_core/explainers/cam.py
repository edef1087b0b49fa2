"""Class activation maps, through pytorch-grad-cam, with raw values kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM as LibraryGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.params import Note
from audit_core.types import Attribution
from models.cards import FeatureLayer, ModelCard


@EXPLAINERS.register("grad-cam")
@dataclass(frozen=True)
class GradCAM(Explainer):
    """Grad-CAM: feature maps of one stage, each weighted by the mean gradient of the target's logit, summed.

    Selvaraju et al. 2017 (https://arxiv.org/abs/1610.02391). The map has the stage's grid (2x2 on the shipped
    CNNs' last stage) and is enlarged bilinearly; it is never rescaled per image. Negative sums are cut to 0
    unless ``relu`` is off.
    """

    title: ClassVar[str] = "Grad-CAM"
    reads: ClassVar[str] = "feature gradients"

    layer: Annotated[str, Note("Feature stage to read, by its name on the model card; empty for the last.")] = ""
    relu: Annotated[bool, Note("Cut negative evidence to 0, as the paper does.")] = True

    def refuse(self, card: ModelCard) -> str | None:
        """Without a spatial feature layer there is nothing to weight."""
        if not card.feature_layers:
            return f"Grad-CAM needs a spatial feature layer; none was found in {card.name}"
        return None

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward."""
        return Cost(1, 1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Raw maps, enlarged; signed only without ``relu``."""
        layer = _layer(classifier.card, self.layer)
        coarse = self.coarse(classifier, images, target, layer)
        if self.relu:
            coarse = np.maximum(coarse, 0)
        values = F.interpolate(
            torch.from_numpy(coarse)[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0].numpy()
        extra = {"layer": layer.name, "grid": list(coarse.shape[1:])}
        return Attribution(values, target.cpu().numpy(), not self.relu, None, len(images), len(images), extra)

    def coarse(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer
    ) -> np.ndarray:
        """The signed map on the stage's own grid, float32 (n, grid rows, grid columns)."""
        with classifier.lend() as module, torch.enable_grad():
            inputs = classifier.normalise(images).detach().requires_grad_()
            layers = [module.get_submodule(layer.module)]
            # Not as a context manager, which would swallow an IndexError; the loan takes the hooks off again.
            cam = LibraryGradCAM(model=module, target_layers=layers, reshape_transform=to_channels_first(layer))
            outputs = cam.activations_and_grads(inputs)
            targets = [ClassifierOutputTarget(int(t)) for t in target]
            sum(score(row) for score, row in zip(targets, outputs, strict=True)).backward()
            activations = cam.activations_and_grads.activations[0].detach().cpu().numpy()
            gradients = cam.activations_and_grads.gradients[0].detach().cpu().numpy()
            classifier.forwards += len(images)
            # The library's own call goes on to rescale each image to [0, 1]; this is the step before it.
            return np.asarray(cam.get_cam_image(inputs, layers[0], targets, activations, gradients), np.float32)


def to_channels_first(layer: FeatureLayer) -> Callable[[torch.Tensor], torch.Tensor]:
    """How to copy a feature tensor of the layer's layout to (n, channels, rows, columns).

    A copy, because an activation in place after the layer would overwrite what was recorded.
    """
    if layer.layout == "NCHW":
        return lambda features: features.clone()
    if layer.layout == "NHWC":
        return lambda features: features.permute(0, 3, 1, 2).clone()
    # Rows of tokens: the grid is that of the tokens found, so another input size of the same model works too.
    return lambda tokens: tokens[:, layer.prefix_tokens :].transpose(1, 2).unflatten(2, layer.grid).clone()


def _layer(card: ModelCard, name: str) -> FeatureLayer:
    try:
        return card.layer(name)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
