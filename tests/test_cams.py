"""The CAM family against literal formulas over autograd's gradients, pytorch-grad-cam's own maps and captum."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam as grad_cam
import tiny
import torch
from captum.attr import LayerGradientXActivation
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from audit_core.classifier import BatchSize, Classifier
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.cam import CAM, AblationCAM, EigenCAM, ScoreCAM, principal_map, to_channels_first
from audit_core.keys import Choice

TARGET = torch.tensor([0, 2, 1])
PLACES = [("cnn", "stage1"), ("cnn", "stage2"), ("swin", "stage1"), ("swin", "stage2"), ("vit", "block1"), ("vit", "")]
INVARIANT = [("swin", "stage2"), ("vit", "block1")]  # read by a layer norm alone, cell by cell
GRADIENT = ("grad-cam", "hires-cam", "grad-cam-plus-plus", "x-grad-cam", "layer-cam")
LIBRARY = {
    "grad-cam": grad_cam.GradCAM, "hires-cam": grad_cam.HiResCAM, "grad-cam-plus-plus": grad_cam.GradCAMPlusPlus,
    "x-grad-cam": grad_cam.XGradCAM, "layer-cam": grad_cam.LayerCAM, "eigen-cam": grad_cam.EigenCAM,
    "score-cam": grad_cam.ScoreCAM, "ablation-cam": grad_cam.AblationCAM,
}


def built(name: str, **params: Any) -> CAM:
    return EXPLAINERS.build(Choice(name, tuple(params.items())))


def bilinear(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between cell centres along each axis, flat beyond the outer centres."""
    for axis, wanted in enumerate(size):
        places = (np.arange(wanted) + 0.5) * coarse.shape[axis] / wanted - 0.5
        coarse = np.apply_along_axis(lambda line, p=places: np.interp(p, np.arange(len(line)), line), axis, coarse)
    return coarse


def looked(found: Classifier, pixels: torch.Tensor, target: torch.Tensor, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and gradients at a stage, float64 (n, channels, rows, columns), by a hook and autograd."""
    layer, kept = found.card.layer(name), []
    handle = found.module.get_submodule(layer.module).register_forward_hook(lambda _, __, output: kept.append(output))
    logits = found.module(found.normalise(pixels).requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[torch.arange(len(pixels)), target].sum(), kept[0])
    return tuple(arranged(tensor.detach(), layer) for tensor in (kept[0], gradient))


def arranged(features: torch.Tensor, layer: Any) -> np.ndarray:
    values = features.double().numpy()
    if layer.layout == "tokens":
        values = values[:, layer.prefix_tokens :].reshape(len(values), *layer.grid, -1)
    return values if layer.layout == "NCHW" else np.moveaxis(values, -1, 1)


def literal(name: str, features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """One image, channel by channel and cell by cell, from the papers' equations."""
    result = np.zeros(features.shape[1:])
    for a, g in zip(features, gradients, strict=True):
        cells = list(itertools.product(*map(range, a.shape)))
        if name == "hires-cam":
            result += a * g
        elif name == "layer-cam":
            result += np.where(g > 0, g, 0) * a
        elif name == "grad-cam":
            result += sum(g[cell] for cell in cells) / len(cells) * a
        elif name == "x-grad-cam":
            result += sum(a[cell] / (a.sum() + 1e-7) * g[cell] for cell in cells) * a
        else:
            alpha = {cell: g[cell] ** 2 / (2 * g[cell] ** 2 + a.sum() * g[cell] ** 3 + 1e-6) for cell in cells}
            result += sum(alpha[cell] * max(g[cell], 0.0) for cell in cells) * a
    return result


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("model", "layer"), PLACES)
@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_maps_equal_their_equation(name: str, model: str, layer: str, relu: bool) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(3)
    features, gradients = looked(found, pixels, TARGET, layer)
    expected = np.stack([literal(name, a, g) for a, g in zip(features, gradients, strict=True)])
    expected = np.maximum(expected, 0) if relu else expected
    ours = built(name, layer=layer, relu=relu).attribute(found, pixels, TARGET, 0)
    scale = np.abs(expected).max()
    assert scale > 1e-3 or (name == "hires-cam" and (model, layer) in INVARIANT)
    wide = np.stack([bilinear(row, (16, 16)) for row in expected])
    np.testing.assert_allclose(ours.values, wide, atol=2e-5 * max(scale, 1))
    assert ours.signed is not relu
    assert (ours.forwards, ours.backwards) == (3, 3)
    assert (ours.extra["layer"], ours.extra["grid"]) == (found.card.layer(layer).name, list(expected.shape[1:]))
    assert min(ours.extra["largest_gradient"]) > 0


def rescaled(maps: np.ndarray) -> np.ndarray:
    low = maps.min((1, 2), keepdims=True)
    return (maps - low) / (1e-7 + (maps - low).max((1, 2), keepdims=True))


def library_map(name: str, found: Classifier, pixels: torch.Tensor, target: torch.Tensor, stage: str) -> np.ndarray:
    """What pytorch-grad-cam itself draws, from a model of its own."""
    module, layer = copy.deepcopy(found.module), found.card.layer(stage)
    place = module.get_submodule(layer.module)
    with LIBRARY[name](module, [place], reshape_transform=to_channels_first(layer)) as cam:
        return cam(found.normalise(pixels).clone(), [ClassifierOutputTarget(int(t)) for t in target])


@pytest.mark.parametrize("name", [name for name in LIBRARY if name != "eigen-cam"])
def test_maps_equal_the_librarys_after_its_rescaling(name: str) -> None:
    """At the stage whose grid is the image's, so that no enlargement stands between."""
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(3)
    target = found.predict(pixels).argmax(1)  # scores above 0, as Ablation-CAM's library version needs
    assert (found.predict(pixels).amax(1) > 0).all()
    ours = built(name, layer="stage1").attribute(found, pixels, target, 0).values
    assert ours.max() > 1e-4
    theirs = library_map(name, found, pixels, target, "stage1")
    np.testing.assert_allclose(rescaled(ours), theirs, atol=2e-4)
    assert np.ptp(theirs) > 0.9


def test_hires_cam_equals_captum() -> None:
    found, pixels = tiny.classifier(tiny.cnn(channels=3)), tiny.images(3, channels=3)
    witness = LayerGradientXActivation(found.module, found.module.relu1).attribute(found.normalise(pixels), TARGET)
    ours = built("hires-cam", layer="stage1", relu=False).attribute(found, pixels, TARGET, 0).values
    np.testing.assert_allclose(ours, witness.sum(1).detach().numpy(), atol=1e-6)


def test_before_average_pooling_hires_cam_is_grad_cam_and_sums_to_the_logit() -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(3)
    layer = found.card.layer()
    names = ("hires-cam", "grad-cam", "x-grad-cam")
    hires, plain, x_grad = (built(name).coarse(found, pixels, TARGET, layer) for name in names)
    np.testing.assert_allclose(hires, plain, atol=1e-6)
    logits = found.predict(pixels)[torch.arange(3), TARGET] - found.module.head.bias[TARGET].detach()
    np.testing.assert_allclose(hires.sum((1, 2)), logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(x_grad.sum((1, 2)), logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(("model", "layer"), PLACES)
def test_hires_cam_is_exactly_0_where_a_norm_ignores_the_length_of_the_features(model: str, layer: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(3)
    ours = built("hires-cam", layer=layer, relu=False).attribute(found, pixels, TARGET, 0).values
    assert ours.any() == ((model, layer) not in INVARIANT)
    features, gradients = looked(found, pixels, TARGET, layer)
    assert np.abs(features * gradients).max() > 1e-3, "the products themselves are not small"


# Eigen-CAM


def power_iteration(features: np.ndarray, centre: bool) -> np.ndarray:
    """Projection on the leading eigenvector of the channels' (un)centred covariance; sign by the stated rule."""
    cells = features.reshape(len(features), -1).T
    cells = cells - cells.mean(0) if centre else cells
    direction = np.ones(cells.shape[1])
    for _ in range(3000):
        direction = cells.T @ (cells @ direction)
        direction /= np.linalg.norm(direction)
    projection = (cells @ direction).reshape(features.shape[1:])
    return projection * np.sign(np.corrcoef(projection.ravel(), np.abs(features).mean(0).ravel())[0, 1])


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize(("model", "layer"), PLACES)
def test_eigen_cam_is_the_leading_direction(model: str, layer: str, centre: bool) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(3)
    features, _ = looked(found, pixels, TARGET, layer)
    expected = np.stack([bilinear(power_iteration(row, centre), (16, 16)) for row in features])
    ours = EigenCAM(layer=layer, relu=False, centre=centre).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1
    assert (ours.forwards, ours.backwards, ours.signed) == (3, 0, True)


def test_eigen_cam_equals_the_librarys_up_to_its_sign() -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(3)
    ours = EigenCAM(layer="stage1", relu=False).attribute(found, pixels, TARGET, 0).values
    theirs = library_map("eigen-cam", found, pixels, TARGET, "stage1")
    for own, other in zip(ours, theirs, strict=True):
        either = [np.abs(rescaled(np.maximum(sign * own, 0)[None])[0] - other).max() for sign in (1, -1)]
        assert min(either) < 1e-4 < max(either)


def test_eigen_cam_does_not_depend_on_the_sign_of_the_decomposition() -> None:
    features = np.random.default_rng(0).gamma(1.0, size=(5, 4, 6))
    turned = principal_map(features[::-1])  # another order of channels may well flip the library's vector
    np.testing.assert_allclose(principal_map(features), turned, atol=1e-6)
    assert np.corrcoef(turned.ravel(), features.mean(0).ravel())[0, 1] > 0
    assert not principal_map(np.ones((3, 2, 2))).any()


def test_eigen_cam_knows_no_class() -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(2)
    one, other = (EigenCAM().attribute(found, pixels, torch.full((2,), k), 0).values for k in (0, 1))
    np.testing.assert_array_equal(one, other)


# Score-CAM and Ablation-CAM


def score(logits: torch.Tensor, quantity: str) -> np.ndarray:
    return (logits if quantity == "logit" else logits.softmax(1)).double().numpy()


@pytest.mark.parametrize("quantity", ["logit", "probability"])
@pytest.mark.parametrize("baseline", ["zero-normalised", "zero"])
@pytest.mark.parametrize(("model", "layer"), PLACES)
def test_score_cam_equals_masked_images_one_by_one(model: str, layer: str, baseline: str, quantity: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(2)
    target = TARGET[:2]
    ours = ScoreCAM(layer=layer, relu=False, baseline=baseline, quantity=quantity).attribute(found, pixels, target, 0)
    features, _ = looked(found, pixels, target, layer)
    behind = 0.0 if baseline == "zero" else found.card.mean[0]
    for n in range(2):
        scores = []
        for channel in features[n]:
            seen = bilinear(channel, (16, 16))
            seen = (seen - seen.min()) / max(seen.max() - seen.min(), 1e-8)
            masked = behind + (pixels[n] - behind) * torch.from_numpy(seen).float()
            scores.append(score(found.predict(masked[None]), quantity)[0, target[n]])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = np.tensordot(weights, features[n], 1)
        np.testing.assert_allclose(ours.values[n], bilinear(expected, (16, 16)), atol=1e-5)
    assert np.ptp(ours.values) > 1e-2
    assert ours.extra["channels"] == ours.extra["of_channels"] == features.shape[1]


def rest(found: Classifier, layer: str, features: torch.Tensor) -> torch.Tensor:
    """Logits from the features of an earlier stage on."""
    module = found.module
    if found.card.name == "tiny-cnn":
        return module.head(module.relu2(module.conv2(features)).mean((2, 3)))
    later = module.blocks[1] if found.card.name == "tiny-vit" else module.layers[1]
    return module.forward_head(module.norm(later(features)))


@pytest.mark.parametrize("quantity", ["logit", "probability"])
@pytest.mark.parametrize(("model", "layer"), [("cnn", "stage1"), ("swin", "stage1"), ("vit", "block1")])
def test_ablation_cam_equals_features_zeroed_by_hand(model: str, layer: str, quantity: str) -> None:
    found, pixels, kept = tiny.classifier(tiny.MODELS[model]()), tiny.images(3), []
    where = found.card.layer(layer)
    handle = found.module.get_submodule(where.module).register_forward_hook(lambda _, __, output: kept.append(output))
    own = score(found.predict(pixels), quantity)
    handle.remove()
    features = arranged(kept[0], where)
    ours = AblationCAM(layer=layer, quantity=quantity, relu=False).attribute(found, pixels, TARGET, 0)
    for n, wanted in enumerate(TARGET.tolist()):
        expected = np.zeros(features.shape[2:])
        for k in range(features.shape[1]):
            left = kept[0][n : n + 1].clone()
            if where.layout == "NCHW":
                left[:, k] = 0
            else:
                left[..., k].flatten(1)[:, where.prefix_tokens :] = 0
            with torch.no_grad():
                fallen = own[n, wanted] - score(rest(found, layer, left), quantity)[0, wanted]
            expected += fallen / abs(own[n, wanted]) * features[n, k]
        scale = max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(ours.values[n], bilinear(expected, (16, 16)), atol=1e-4 * scale)
        assert np.abs(expected).max() > 1e-3
    assert ours.signed


def test_ablation_cam_keeps_its_direction_where_the_score_is_below_zero() -> None:
    """The library divides by the score itself, which turns its map over."""
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(3)
    with torch.no_grad():
        found.module.head.bias -= 1
    target = found.predict(pixels).argmin(1)
    assert (found.predict(pixels).amin(1) < 0).all()
    ours = AblationCAM(layer="stage1", relu=False).attribute(found, pixels, target, 0).values
    theirs = library_map("ablation-cam", found, pixels, target, "stage1")
    np.testing.assert_allclose(rescaled(np.maximum(-ours, 0)), theirs, atol=2e-4)


@pytest.mark.parametrize("name", ["score-cam", "ablation-cam"])
def test_only_the_strongest_channels_are_paid_for(name: str) -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(2)
    few = built(name, channels=3, relu=False)
    ours = few.attribute(found, pixels, TARGET[:2], 0)
    assert ours.forwards == found.forwards == 2 * 4 == 2 * few.cost(found.card).forwards
    assert ours.extra == {"layer": "stage2", "grid": [8, 8], "channels": 3, "of_channels": 8}
    assert built(name).attribute(found, pixels, TARGET[:2], 0).forwards == 2 * 9
    features, _ = looked(found, pixels, TARGET[:2], "")
    for n in range(2):
        kept = np.argsort(-features[n].mean((1, 2)))[:3]
        basis = np.stack([bilinear(features[n, k], (16, 16)).ravel() for k in kept], 1)
        residual = np.linalg.lstsq(basis, ours.values[n].ravel(), rcond=None)[1]
        assert residual.item() < 1e-8 < np.abs(ours.values[n]).max(), "a sum of the three strongest channels"


@pytest.mark.parametrize("name", ["score-cam", "ablation-cam"])
def test_channels_do_not_depend_on_batches_nor_on_memory(name: str) -> None:
    found, pixels, maps = tiny.classifier(tiny.vit()), tiny.images(1), []
    for size, fits in ((64, 64), (5, 5), (64, 7)):
        found.batch, inner = BatchSize((size,)), type(found.module).forward

        def forward(x: torch.Tensor, fits: int = fits, inner: Any = inner) -> torch.Tensor:
            if len(x) > fits:
                raise RuntimeError("not enough memory")
            return inner(found.module, x)

        found.module.forward = forward
        maps.append(built(name, layer="block1").attribute(found, pixels, TARGET[:1], 0).values)
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-5 * np.abs(maps[0]).max())


# Contrasts


def difference(found: Classifier, against: int) -> Classifier:
    """A model of its own whose head computes the differences to a class."""
    module = copy.deepcopy(found.module)
    head = module.head if isinstance(module.head, torch.nn.Linear) else module.head.fc
    with torch.no_grad():
        head.weight -= head.weight[against].clone()
        head.bias -= head.bias[against].clone()
    return Classifier(found.card, module, found.device)


@pytest.mark.parametrize("model", tiny.MODELS)
@pytest.mark.parametrize("name", [*GRADIENT, "score-cam", "ablation-cam"])
def test_a_contrast_explains_the_difference_of_logits(name: str, model: str) -> None:
    found, pixels, target = tiny.classifier(tiny.MODELS[model]()), tiny.images(2), torch.tensor([0, 2])
    explainer = built(name, relu=False, layer="stage1" if model == "swin" else "")
    ours = explainer.attribute(found.against(1), pixels, target, 0).values
    expected = explainer.attribute(difference(found, 1), pixels, target, 0).values
    np.testing.assert_allclose(ours, expected, atol=1e-4 * max(np.abs(expected).max(), 1))
    plain = explainer.attribute(found, pixels, target, 0).values
    assert np.abs(ours - plain).max() > 1e-3 * np.abs(plain).max()


@pytest.mark.parametrize("model", tiny.MODELS)
@pytest.mark.parametrize("name", ["grad-cam", "hires-cam", "x-grad-cam"])
def test_linear_maps_of_a_contrast_are_differences_of_maps(name: str, model: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(2)
    explainer = built(name, relu=False, layer="stage1" if model == "swin" else "")
    maps = [explainer.attribute(found, pixels, torch.full((2,), k), 0).values for k in (0, 2)]
    both = explainer.attribute(found.against(2), pixels, torch.zeros(2, dtype=torch.int64), 0).values
    np.testing.assert_allclose(both, maps[0] - maps[1], atol=1e-5 * max(np.abs(maps).max(), 1))


@pytest.mark.parametrize("name", LIBRARY)
def test_without_a_feature_layer_the_family_refuses(name: str) -> None:
    expected = f"{EXPLAINERS[name].title} needs a spatial feature layer; none was found in tiny-linear"
    assert built(name).refuse(tiny.linear()[0]) == expected
