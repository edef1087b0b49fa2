"""Class activation maps: features of one stage, weighted and summed over channels, with raw values kept.

Those that weight by gradients go through pytorch-grad-cam up to the step before it rescales each image. Eigen-CAM,
Score-CAM and Ablation-CAM are our own: the library's decomposition needs a square matrix of all pixels, it replaces a
layer of the model, and its batches are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytorch_grad_cam as grad_cam
import torch
import torch.nn.functional as F
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.health import GRADIENT
from audit_core.params import Between, Note, OneOf
from audit_core.types import Attribution
from models.cards import FeatureLayer, ModelCard


@dataclass(frozen=True)
class CAM(Explainer):
    """Base of the family: a map on the grid of one feature stage, cut at 0 if wanted, enlarged bilinearly."""

    family: ClassVar[str] = "CAM"

    layer: Annotated[str, Note("Feature stage to read, by its name on the model card; empty for the last.")] = ""
    relu: Annotated[bool, Note("Cut negative values to 0, as the papers do.")] = True

    def refuse(self, card: ModelCard) -> str | None:
        """Without a spatial feature layer there is nothing to weight."""
        if not card.feature_layers:
            return f"{self.title} needs a spatial feature layer; none was found in {card.name}"
        return None

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Raw maps, enlarged; signed only without ``relu``. ``extra``: the stage's name and its grid."""
        layer, before = _layer(classifier.card, self.layer), classifier.forwards
        coarse, extra = self._maps(classifier, images, target, layer, report)
        if self.relu:
            coarse = np.maximum(coarse, 0)
        values = F.interpolate(
            torch.from_numpy(coarse)[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0].numpy()
        extra = {"layer": layer.name, "grid": list(coarse.shape[1:]), **extra}
        spent = classifier.forwards - before
        backwards = self.cost(classifier.card).backwards * len(images)
        return Attribution(values, target.cpu().numpy(), not self.relu, None, spent, backwards, extra)

    def _maps(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer, report: Report
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Uncut maps on the stage's grid, float32 (n, grid rows, grid columns), and what to report besides."""
        raise NotImplementedError


class GradientCAM(CAM):
    """Base of the maps that weight features by gradients of the target's logit, computed by pytorch-grad-cam."""

    reads: ClassVar[str] = "feature gradients"
    library: ClassVar[str] = "pytorch-grad-cam (raw values, before it rescales each image)"
    recipe: ClassVar[type[BaseCAM]]

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward."""
        return Cost(1, 1)

    def coarse(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer
    ) -> np.ndarray:
        """The uncut map on the stage's own grid, float32 (n, grid rows, grid columns)."""
        return self.checked(*self._weighed(classifier, images, target, layer))

    def _weighed(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The library's map (n, rows, columns), and the features and gradients (n, channels, rows, columns)."""
        with classifier.lend() as module, torch.enable_grad():
            inputs = classifier.normalise(images).detach().requires_grad_()
            layers = [module.get_submodule(layer.module)]
            # Not as a context manager, which would swallow an IndexError; the loan takes the hooks off again.
            cam = self.recipe(model=module, target_layers=layers, reshape_transform=to_channels_first(layer))
            outputs = cam.activations_and_grads(inputs)
            targets = [ClassifierOutputTarget(int(t)) for t in target]
            sum(score(row) for score, row in zip(targets, outputs, strict=True)).backward()
            activations = cam.activations_and_grads.activations[0].detach().cpu().numpy()
            gradients = cam.activations_and_grads.gradients[0].detach().cpu().numpy()
            classifier.forwards += len(images)
            # The library's own call goes on to rescale each image to [0, 1]; this is the step before it.
            raw = cam.get_cam_image(inputs, layers[0], targets, activations, gradients, False)
        return np.asarray(raw, np.float32), activations, gradients

    def checked(self, raw: np.ndarray, activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """The library's map (n, rows, columns), beside the features and gradients (n, channels, rows, columns)."""
        return raw

    def _maps(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer, report: Report
    ) -> tuple[np.ndarray, dict[str, Any]]:
        raw, activations, gradients = self._weighed(classifier, images, target, layer)
        largest = np.abs(gradients).reshape(len(images), -1).max(1)
        return self.checked(raw, activations, gradients), {GRADIENT: largest.tolist()}


@EXPLAINERS.register("grad-cam")
@dataclass(frozen=True)
class GradCAM(GradientCAM):
    """Grad-CAM: feature maps of one stage, each weighted by the mean gradient of the target's logit, summed.

    Selvaraju et al. 2017 (https://arxiv.org/abs/1610.02391). The map has the stage's grid (2x2 on the shipped
    CNNs' last stage) and is enlarged bilinearly; it is never rescaled per image. Negative sums are cut to 0
    unless ``relu`` is off.
    """

    title: ClassVar[str] = "Grad-CAM"
    formula: ClassVar[str] = "relu(sum_k a_k A_k), a_k = mean over cells of dy/dA_k"
    source: ClassVar[str] = "Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391"
    witness: ClassVar[str] = (
        "captum's LayerGradCam; sums over autograd's gradients: tests/test_explainers.py::test_grad_cam_equals_captum, "
        "tests/test_cams.py::test_gradient_maps_equal_their_equation"
    )
    pitfalls: ClassVar[str] = (
        "Averaging the gradient moves evidence to places that the model did not use. The grid is coarse: part of any "
        "difference to another method is resolution."
    )
    recipe: ClassVar[type[BaseCAM]] = grad_cam.GradCAM


@EXPLAINERS.register("hires-cam")
@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    """HiResCAM: features times the gradient of the target's logit, cell by cell, summed over channels.

    Draelos and Carin 2020 (https://arxiv.org/abs/2011.08891). Grad-CAM without the average over cells; the two are
    equal where the stage is averaged and read by a linear head. There the map sums to the logit without its bias.
    Where a cell's products cancel to rounding (below 1e-5 of their magnitudes) the map is 0: a layer norm that reads
    features cell by cell ignores their length, so there the sum is 0 whatever the model does.
    """

    title: ClassVar[str] = "HiResCAM"
    formula: ClassVar[str] = "relu(sum_k A_k * dy/dA_k), cell by cell"
    source: ClassVar[str] = "Draelos and Carin 2020, https://arxiv.org/abs/2011.08891"
    witness: ClassVar[str] = (
        "sums over autograd's gradients; equality with Grad-CAM before average pooling: "
        "tests/test_cams.py::test_gradient_maps_equal_their_equation, "
        "tests/test_cams.py::test_before_average_pooling_hires_cam_is_grad_cam_and_sums_to_the_logit"
    )
    pitfalls: ClassVar[str] = (
        "Only before a linear head does the map add up to the logit. It is 0 everywhere, by algebra, on features that "
        "go straight into a layer norm: Swin's last stage and the last block but one of a class token's transformer."
    )
    recipe: ClassVar[type[BaseCAM]] = grad_cam.HiResCAM

    def checked(self, raw: np.ndarray, activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """``raw`` without what rounding left of products that cancel."""
        return np.where(np.abs(raw) > 1e-5 * np.abs(activations * gradients).sum(1), raw, np.float32(0))


@EXPLAINERS.register("grad-cam-plus-plus")
@dataclass(frozen=True)
class GradCAMPlusPlus(GradientCAM):
    """Grad-CAM++: each channel weighted by its positive gradients, cells with a lone strong gradient counting more.

    Chattopadhyay et al. 2018 (https://arxiv.org/abs/1710.11063). The paper scores the exponential of the logit, so
    that second and third derivatives are powers of the first; a share of it per cell weights the positive gradients.
    """

    title: ClassVar[str] = "Grad-CAM++"
    formula: ClassVar[str] = (
        "relu(sum_k w_k A_k), w_k = sum over cells of relu(g) g^2 / (2 g^2 + g^3 sum A_k + 1e-6), g = dy/dA_k"
    )
    source: ClassVar[str] = "Chattopadhyay et al. 2018, https://arxiv.org/abs/1710.11063"
    witness: ClassVar[str] = (
        "equation 19 written out cell by cell; pytorch-grad-cam's own map after rescaling: "
        "tests/test_cams.py::test_gradient_maps_equal_their_equation, "
        "tests/test_cams.py::test_maps_equal_the_librarys_after_its_rescaling"
    )
    pitfalls: ClassVar[str] = (
        "Negative evidence is dropped. Made for features >= 0: on a transformer's signed features the denominator may "
        "come near 0. The constant 1e-6 damps maps whose gradients are below about 1e-3."
    )
    recipe: ClassVar[type[BaseCAM]] = grad_cam.GradCAMPlusPlus


@EXPLAINERS.register("x-grad-cam")
@dataclass(frozen=True)
class XGradCAM(GradientCAM):
    """XGrad-CAM: each channel weighted by its gradients averaged with the features themselves as weights.

    Fu et al. 2020 (https://arxiv.org/abs/2008.02312). The weights are chosen so that the map comes close to two
    axioms: removing a channel changes the score by its share (sensitivity), and the shares sum to it (conservation).
    """

    title: ClassVar[str] = "XGrad-CAM"
    formula: ClassVar[str] = "relu(sum_k w_k A_k), w_k = sum over cells of (A_k / (sum A_k + 1e-7)) dy/dA_k"
    source: ClassVar[str] = "Fu et al. 2020, https://arxiv.org/abs/2008.02312"
    witness: ClassVar[str] = (
        "the weights written out cell by cell; the sum over cells, which HiResCAM shares: "
        "tests/test_cams.py::test_gradient_maps_equal_their_equation, "
        "tests/test_cams.py::test_before_average_pooling_hires_cam_is_grad_cam_and_sums_to_the_logit"
    )
    pitfalls: ClassVar[str] = (
        "Made for features >= 0: where a channel's signed features nearly cancel (transformers), dividing by their sum "
        "lets that channel drown all others."
    )
    recipe: ClassVar[type[BaseCAM]] = grad_cam.XGradCAM


@EXPLAINERS.register("layer-cam")
@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    """LayerCAM: features times the positive part of the gradient, cell by cell, summed over channels.

    Jiang et al. 2021 (https://doi.org/10.1109/TIP.2021.3089943). Made for early stages, whose finer grid shows
    detail that the last stage has lost.
    """

    title: ClassVar[str] = "LayerCAM"
    formula: ClassVar[str] = "relu(sum_k relu(dy/dA_k) * A_k), cell by cell"
    source: ClassVar[str] = "Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943"
    witness: ClassVar[str] = (
        "sums over autograd's gradients; pytorch-grad-cam's own map after rescaling: "
        "tests/test_cams.py::test_gradient_maps_equal_their_equation, "
        "tests/test_cams.py::test_maps_equal_the_librarys_after_its_rescaling"
    )
    pitfalls: ClassVar[str] = (
        "Evidence against the target is dropped, so the map cannot tell a cell that helps from one that helps and "
        "harms as much."
    )
    recipe: ClassVar[type[BaseCAM]] = grad_cam.LayerCAM


@EXPLAINERS.register("eigen-cam")
@dataclass(frozen=True)
class EigenCAM(CAM):
    """Eigen-CAM: the features of one stage projected on their first principal direction; no class, no gradient.

    Muhammad and Yeasin 2020 (https://arxiv.org/abs/2008.00299). The sign of a principal direction is arbitrary; it
    is chosen such that the map correlates positively with the mean magnitude of the features. The channels are
    centred first, as pytorch-grad-cam does and the paper does not, unless ``centre`` is off.
    """

    title: ClassVar[str] = "Eigen-CAM"
    reads: ClassVar[str] = "features"
    formula: ClassVar[str] = (
        "relu(s A v), A (cells, channels) = U S V', v = first row of V', s = sign(cov(A v, mean |A|))"
    )
    source: ClassVar[str] = "Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299"
    witness: ClassVar[str] = (
        "pytorch-grad-cam's map up to its sign; power iteration on the channels' covariance: "
        "tests/test_cams.py::test_eigen_cam_equals_the_librarys_up_to_its_sign, "
        "tests/test_cams.py::test_eigen_cam_is_the_leading_direction"
    )
    pitfalls: ClassVar[str] = (
        "The map is the same for every class: it shows what varies most, which may be the background. Below 0 means "
        "the opposite end of that direction, not evidence against."
    )

    centre: Annotated[bool, Note("Take each channel's mean off first, as pytorch-grad-cam does.")] = True

    def cost(self, card: ModelCard) -> Cost:
        """One forward."""
        return Cost(1)

    def _maps(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer, report: Report
    ) -> tuple[np.ndarray, dict[str, Any]]:
        with classifier.lend() as module:
            features, _ = _look(classifier, module, images, layer)
        return np.stack([principal_map(row, self.centre) for row in features.double().cpu().numpy()]), {}


def principal_map(features: np.ndarray, centre: bool = True) -> np.ndarray:
    """Projection of (channels, rows, columns) on the first right singular vector of cells by channels, float32.

    Its sign is that of a positive covariance with the mean magnitude over channels; constant features give 0 when
    centred.
    """
    cells = features.reshape(len(features), -1).T
    if centre:
        cells = cells - cells.mean(0)
    projection = cells @ np.linalg.svd(cells, full_matrices=False)[2][0]
    magnitude = np.abs(features).mean(0).ravel()
    if projection @ (magnitude - magnitude.mean()) < 0:
        projection = -projection
    return projection.reshape(features.shape[1:]).astype(np.float32)


@dataclass(frozen=True)
class Channels:
    """What is known of one image: its features at ``layer``, float32 (channels, rows, columns), the channels chosen,
    and its own scores, float32 (1, classes).
    """

    layer: FeatureLayer
    features: torch.Tensor
    chosen: torch.Tensor
    scores: torch.Tensor

    @property
    def kept(self) -> torch.Tensor:
        """The chosen channels only."""
        return self.features[self.chosen]


@dataclass(frozen=True)
class ChannelCAM(CAM):
    """Base of the maps that weight channels by the score of the model with one channel alone, or without it.

    One forward per channel. Of a wider stage the ``channels`` with the largest mean magnitude are used, which makes
    the cost known beforehand; ``extra`` says how many there were.
    """

    reads: ClassVar[str] = "feature scores"

    channels: Annotated[
        int, Between(1, 8192, "channels", "Most channels to try, strongest first; each costs one forward.")
    ] = 64
    quantity: Annotated[
        str, OneOf(("logit", "probability"), "What is scored; under a contrast always the difference of logits.")
    ] = "logit"

    def cost(self, card: ModelCard) -> Cost:
        """At most one forward per channel, and one for the image itself."""
        return Cost(self.channels + 1)

    def weights(
        self, classifier: Classifier, place: nn.Module, image: torch.Tensor, found: Channels, report: Report
    ) -> torch.Tensor:
        """The weight of each chosen channel for every class, float32 (channels, classes)."""
        raise NotImplementedError

    def _maps(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: FeatureLayer, report: Report
    ) -> tuple[np.ndarray, dict[str, Any]]:
        maps, used = [], 0
        with classifier.lend() as module:
            place = module.get_submodule(layer.module)
            # One by one, so that the choice of channels cannot depend on the rest of the batch.
            for image, wanted in zip(images, target.tolist(), strict=True):
                features, logits = _look(classifier, module, image[None], layer)
                chosen = strongest(features[0], self.channels)
                found = Channels(layer, features[0], chosen, self._score(classifier, logits))
                weights = self.weights(classifier, place, image, found, report)[:, wanted]
                maps.append(torch.einsum("k,krc->rc", weights, found.kept).float().cpu().numpy())
                used, total = len(found.chosen), len(found.features)
        return np.stack(maps), {"channels": used, "of_channels": total}

    def _score(self, classifier: Classifier, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.quantity == "logit" else classifier.scores(logits)

    def _scores(
        self, classifier: Classifier, count: int, build: Callable[[int, int], torch.Tensor], report: Report
    ) -> torch.Tensor:
        """Scores of ``count`` normalised images that ``build`` makes, float32 (count, classes)."""
        rows = []
        for start, logits in classifier.stream(count, build, normalised=True):
            rows.append(self._score(classifier, logits))
            done = start + len(logits)
            report(done / count, f"{done} of {count} channels", None)
        return torch.cat(rows)


@EXPLAINERS.register("score-cam")
@dataclass(frozen=True)
class ScoreCAM(ChannelCAM):
    """Score-CAM: each channel weighted by the score of the image seen through that channel.

    Wang et al. 2020 (https://arxiv.org/abs/1910.01279). A channel is enlarged bilinearly, scaled to [0, 1] over the
    image and multiplied with the image; the softmax over channels of the scores are the weights, which makes the
    paper's subtraction of a baseline score void. Where nothing is kept stands the baseline: ``zero-normalised``, the
    mean colour, is what multiplying the network's own input leaves; ``zero`` is black. A flat channel keeps nothing.
    """

    title: ClassVar[str] = "Score-CAM"
    formula: ClassVar[str] = (
        "relu(sum_k w_k A_k), w = softmax_k y(b + (x - b) * m_k), m_k = enlarged A_k scaled to [0, 1]"
    )
    source: ClassVar[str] = "Wang et al. 2020, https://arxiv.org/abs/1910.01279"
    witness: ClassVar[str] = (
        "masked images one by one; pytorch-grad-cam's own map after rescaling: "
        "tests/test_cams.py::test_score_cam_equals_masked_images_one_by_one, "
        "tests/test_cams.py::test_maps_equal_the_librarys_after_its_rescaling"
    )
    pitfalls: ClassVar[str] = (
        "The softmax makes every weight positive, and with probabilities almost equal. Masked images lie off the "
        "training data, with the same fill operator problem that deletion has."
    )

    baseline: Annotated[
        str, OneOf(("zero-normalised", "zero"), "What hidden pixels show: mean colour or black.")
    ] = "zero-normalised"

    def weights(
        self, classifier: Classifier, place: nn.Module, image: torch.Tensor, found: Channels, report: Report
    ) -> torch.Tensor:
        """Softmax over channels of the scores of the masked images."""
        pixels = classifier.normalise(image[None])
        hidden = classifier.normalise(0 * image[None]) if self.baseline == "zero" else torch.zeros_like(pixels)

        def build(start: int, stop: int) -> torch.Tensor:
            return torch.lerp(hidden, pixels, unit_masks(found.kept[start:stop], image.shape[-2:])[:, None])

        return self._scores(classifier, len(found.chosen), build, report).softmax(0)


@EXPLAINERS.register("ablation-cam")
@dataclass(frozen=True)
class AblationCAM(ChannelCAM):
    """Ablation-CAM: each channel weighted by how far the score falls when the channel is set to 0.

    Desai and Ramaswamy 2020 (https://doi.org/10.1109/WACV45572.2020.9093360). The fall is divided by the size of the
    score, so that a channel that speaks for the target has a positive weight also where the score is below 0. Class
    and register tokens keep their values: only the patches are features in space.
    """

    title: ClassVar[str] = "Ablation-CAM"
    formula: ClassVar[str] = "relu(sum_k w_k A_k), w_k = (y - y with A_k = 0) / max(|y|, 1e-6)"
    source: ClassVar[str] = "Desai and Ramaswamy 2020, https://doi.org/10.1109/WACV45572.2020.9093360"
    witness: ClassVar[str] = (
        "features zeroed by hand and run through the rest of the model; pytorch-grad-cam's own map after rescaling: "
        "tests/test_cams.py::test_ablation_cam_equals_features_zeroed_by_hand, "
        "tests/test_cams.py::test_maps_equal_the_librarys_after_its_rescaling"
    )
    pitfalls: ClassVar[str] = (
        "0 is a neutral value only after a rectifier; for signed features it is one value among others. Channels that "
        "back each other up fall one by one without any effect."
    )

    def weights(
        self, classifier: Classifier, place: nn.Module, image: torch.Tensor, found: Channels, report: Report
    ) -> torch.Tensor:
        """Relative fall of each class's score."""
        pixels, silent_now = classifier.normalise(image[None]), found.chosen

        def build(start: int, stop: int) -> torch.Tensor:
            nonlocal silent_now
            silent_now = found.chosen[start:stop]
            return pixels.expand(stop - start, -1, -1, -1)

        def ablate(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:  # Any: hooks get untyped inputs
            output = output.clone()
            channels_first(output, found.layer)[torch.arange(len(output), device=output.device), silent_now] = 0
            return output

        with place.register_forward_hook(ablate):
            left = self._scores(classifier, len(found.chosen), build, report)
        return (found.scores - left) / found.scores.abs().clamp_min(1e-6)


def strongest(features: torch.Tensor, count: int) -> torch.Tensor:
    """Indices, in rising order, of at most ``count`` channels of (channels, rows, columns) by mean magnitude."""
    ranked = features.abs().mean((1, 2)).argsort(descending=True, stable=True)
    return ranked[:count].sort().values


def unit_masks(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Each map of (k, rows, columns) enlarged bilinearly to ``size`` and scaled to [0, 1]; a flat one becomes 0."""
    wide = F.interpolate(features[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    low, high = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
    return (wide - low) / (high - low).clamp_min(1e-8)


def channels_first(features: torch.Tensor, layer: FeatureLayer) -> torch.Tensor:
    """View of a feature tensor of the layer's layout as (n, channels, rows, columns); prefix tokens left out."""
    if layer.layout == "NCHW":
        return features
    if layer.layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    return features[:, layer.prefix_tokens :].transpose(1, 2).unflatten(2, layer.grid)


def to_channels_first(layer: FeatureLayer) -> Callable[[torch.Tensor], torch.Tensor]:
    """How to copy a feature tensor of the layer's layout to (n, channels, rows, columns).

    A copy, because an activation in place after the layer would overwrite what was recorded.
    """
    return lambda features: channels_first(features, layer).clone()


def _look(
    classifier: Classifier, module: nn.Module, images: torch.Tensor, layer: FeatureLayer
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, channels, rows, columns) of a lent module at ``layer``, and the logits, from one forward."""
    kept: list[torch.Tensor] = []
    copied = to_channels_first(layer)
    place = module.get_submodule(layer.module)
    with place.register_forward_hook(lambda _, __, output: kept.append(copied(output).float())):
        logits = classifier.logits(images)
    return kept[0], logits


def _layer(card: ModelCard, name: str) -> FeatureLayer:
    try:
        return card.layer(name)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
