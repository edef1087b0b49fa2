"""Input gradients against closed forms, finite differences, literal backward passes and captum's own averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from captum.attr import GradientShap, NoiseTunnel
from captum.attr import Saliency as LibrarySaliency
from scipy import ndimage
from torch import nn

from audit_core.borrow import untouched_random_state
from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.gradients import DeepLift, ExpectedGradients, IntegratedGradients, SmoothGrad
from audit_core.explainers.occlusion import BASELINES, baseline_of
from audit_core.fills import FILLS, FillContext
from audit_core.keys import Choice

TARGET = torch.tensor([2, 0])


def maps(name: str, found: Classifier, pixels: torch.Tensor, target: torch.Tensor = TARGET) -> np.ndarray:
    return EXPLAINERS.build(Choice.parse(name)).attribute(found, pixels, target[: len(pixels)], 7).values


def modelled(module: nn.Module, channels: int = 1, size: int = 8) -> Classifier:
    """A classifier around ``module`` with three classes."""
    return tiny.classifier((tiny.linear(size=size, channels=channels)[0], module.eval()))


def numeric_gradient(found: Classifier, pixels: torch.Tensor, target: int) -> np.ndarray:
    """Central differences of one logit at one normalised image, in float64: (channels, rows, columns)."""
    module, inputs = copy.deepcopy(found.module).double(), found.normalise(pixels)[0].double()
    steps = 1e-5 * torch.eye(inputs.numel(), dtype=torch.float64).view(-1, *inputs.shape)
    with torch.no_grad():
        rise = (module(inputs + steps) - module(inputs - steps))[:, target]
    return (rise / 2e-5).view(inputs.shape).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_a_linear_model_are_its_weights(channels: int) -> None:
    found, pixels = tiny.classifier(tiny.linear(channels=channels)), tiny.images(2, 8, channels)
    weights = found.module[1].weight.detach().numpy().reshape(3, channels, 8, 8)[TARGET]
    inputs = found.normalise(pixels).numpy()
    np.testing.assert_allclose(maps("saliency", found, pixels), np.abs(weights).max(1), rtol=1e-5)
    np.testing.assert_allclose(maps("input-x-gradient", found, pixels), (weights * inputs).sum(1), atol=1e-5)


@pytest.mark.parametrize("model", ["vit", "cnn"])
def test_gradients_equal_finite_differences(model: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(1)
    slope, inputs = numeric_gradient(found, pixels, 2), found.normalise(pixels)[0].numpy()
    np.testing.assert_allclose(maps("saliency", found, pixels)[0], np.abs(slope).max(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        maps("input-x-gradient", found, pixels)[0], (slope * inputs).sum(0), rtol=1e-3, atol=1e-5
    )


# Baselines


def test_baselines_are_the_fills_of_the_same_names() -> None:
    found, image = tiny.classifier(tiny.cnn(channels=3)), tiny.images(1, 16, 3)[0]
    context = FillContext(found.card.mean, found.card.std)
    for name in BASELINES:
        ours = baseline_of(found, image, name)
        if name == "white":
            expected = torch.ones(3, 16, 16)
        elif name == "blur":
            smooth = [ndimage.gaussian_filter(c.double().numpy(), 2.0, mode="reflect") for c in image]
            expected = torch.from_numpy(np.stack(smooth)).float()
        else:
            expected = FILLS.build(Choice(name)).substrate(image[None], context)[0]
        torch.testing.assert_close(ours, expected)
    assert found.normalise(baseline_of(found, image, "zero-normalised")[None]).abs().max() < 1e-6


# Integrated gradients


class Quadratic(nn.Module):
    """Logits x' A_k x / 2 with symmetric A_k, for 1-channel images."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        rows = torch.randn(3, pixels, pixels, generator=torch.Generator().manual_seed(4)) / pixels
        self.form = nn.Parameter(rows + rows.transpose(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return torch.einsum("ni,kij,nj->nk", flat, self.form, flat) / 2


@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_of_a_quadratic_form(baseline: str) -> None:
    found, pixels = modelled(Quadratic(64)), tiny.images(2, 8)
    hidden = torch.stack([baseline_of(found, image, baseline) for image in pixels])
    x, b = (found.normalise(p).flatten(1).double() for p in (pixels, hidden))
    slope = torch.einsum("nij,nj->ni", found.module.form.double()[TARGET], (x + b) / 2)  # the mean along the line
    ours = IntegratedGradients(3, baseline).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, ((x - b) * slope).detach().view(2, 8, 8).numpy(), atol=1e-5)
    assert max(ours.extra["completeness_error"]) < 1e-4
    assert (ours.forwards, ours.backwards) == (2 * 5, 2 * 3)


def test_integrated_gradients_equal_a_fine_riemann_sum() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    module, x = copy.deepcopy(found.module).double(), found.normalise(pixels).double()
    b = found.normalise(torch.zeros_like(pixels)).double()
    line = torch.cat([b + (k + 0.5) / 500 * (x - b) for k in range(500)]).requires_grad_()
    (slopes,) = torch.autograd.grad(module(line)[:, 2].sum(), line)
    expected = ((x - b) * slopes.mean(0)).sum(1)[0].numpy()
    ours = IntegratedGradients(60).attribute(found, pixels, TARGET[:1], 0)
    np.testing.assert_allclose(ours.values[0], expected, atol=2e-3 * np.abs(expected).max())
    with torch.no_grad():
        difference = float(module(x)[0, 2] - module(b)[0, 2])
    assert ours.extra["logit_difference"][0] == pytest.approx(difference, abs=1e-4)
    stated = abs(float(ours.values.sum(dtype=np.float64)) - difference)
    assert ours.extra["completeness_error"][0] == pytest.approx(stated, abs=1e-4)
    assert ours.extra["completeness_relative"][0] == pytest.approx(
        ours.extra["completeness_error"][0] / abs(ours.extra["logit_difference"][0])
    )


def test_few_steps_show_in_the_completeness_error() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    coarse, fine = (
        IntegratedGradients(steps).attribute(found, pixels, TARGET[:1], 0).extra["completeness_error"][0]
        for steps in (2, 100)
    )
    assert coarse > 100 * fine


# Averages over random inputs


def noise_of(seed: int, count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The standard normal numbers that SmoothGrad draws for one image."""
    rng = np.random.default_rng((seed, 11))
    return torch.from_numpy(rng.standard_normal((count, *shape), dtype=np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_smooth_grad_equals_captums_noise_tunnel(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, pixels = tiny.classifier(tiny.cnn(channels=channels)), tiny.images(1, 16, channels)
    inputs = found.normalise(pixels)
    sigma = 0.2 * float(inputs.max() - inputs.min())
    given = inputs + sigma * noise_of(7, 10, inputs.shape[1:])
    monkeypatch.setattr(NoiseTunnel, "_add_noise_to_input", staticmethod(lambda *_: given))
    tunnel = NoiseTunnel(LibrarySaliency(found.module))
    theirs = tunnel.attribute(inputs, nt_samples=10, stdevs=sigma, target=2, abs=False)
    expected = theirs.detach().abs().amax(1).numpy()
    ours = SmoothGrad(10, 0.2).attribute(found, pixels, TARGET[:1], 7)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-4, atol=1e-7)
    assert (ours.values != maps("saliency", found, pixels)).any()


def test_smooth_grad_without_noise_is_saliency() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(2)
    ours = SmoothGrad(3, 0.0).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, maps("saliency", found, pixels), rtol=1e-4, atol=1e-6)
    assert ours.error is not None
    assert ours.error.max() < 1e-3 * ours.values.max()


@pytest.mark.parametrize("explainer", [SmoothGrad(40, 0.3), ExpectedGradients(40)], ids=["smooth", "expected"])
def test_standard_errors_are_the_spread_over_seeds(explainer: SmoothGrad | ExpectedGradients) -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    runs = [explainer.attribute(found, pixels, TARGET[:1], seed) for seed in range(30)]
    values, stated = np.stack([run.values for run in runs]), np.stack([run.error for run in runs])
    # An absolute value folds the spread where it crosses 0, so look where it stays away from it.
    clear = np.abs(values.mean(0)) > (0 if runs[0].signed else 3 * stated.mean(0))
    assert clear.sum() > 10
    ratio = (values.std(0, ddof=1) / stated.mean(0))[clear]
    assert 0.85 < ratio.mean() < 1.15


@pytest.mark.parametrize("baselines", ["noise", "colour", "blur"])
def test_expected_gradients_of_a_linear_model_are_weights_times_mean_differences(baselines: str) -> None:
    found, pixels = tiny.classifier(tiny.linear(channels=3)), tiny.images(2, 8, 3)
    weights = found.module[1].weight.detach().view(3, 3, 8, 8)[TARGET]
    explainer = ExpectedGradients(400, baselines)
    ours = explainer.attribute(found, pixels, TARGET, 3)
    if baselines == "blur":
        ladder = [
            ndimage.gaussian_filter(pixels.double().numpy(), (0, 0, 8 / share, 8 / share), mode="reflect")
            for share in (32, 16, 8, 4)
        ]
        mean = torch.from_numpy(np.mean(ladder, axis=0)).float()
    else:
        mean = torch.full_like(pixels, 0.5)
    expected = (weights * (found.normalise(pixels) - found.normalise(mean))).sum(1).numpy()
    assert (np.abs(ours.values - expected) < 4.5 * ours.error + 1e-5).all()
    assert ours.error.max() < 0.3 * np.abs(expected).max()


def test_expected_gradients_agree_with_captums_gradient_shap() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    ours = ExpectedGradients(1500).attribute(found, pixels, TARGET[:1], 1)
    noise = np.random.default_rng(5).random((9000, 1, 16, 16), dtype=np.float32)
    references = found.normalise(torch.from_numpy(noise))
    with untouched_random_state():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  (captum draws from the global generators)
        theirs = GradientShap(found.module).attribute(
            found.normalise(pixels), references, n_samples=1500, stdevs=0.0, target=2
        )
    difference = (ours.values - theirs.detach().sum(1).numpy()) / (math.sqrt(2) * ours.error)
    assert np.abs(difference).max() < 4.5
    assert 0.8 < difference.std() < 1.25
    assert (np.abs(ours.values) / ours.error).max() > 10, "the map must stand out from the noise"


def test_baselines_of_expected_gradients_follow_the_seed_and_stay_in_range() -> None:
    image = tiny.images(1, 16, 3)
    for name in ("noise", "colour", "blur"):
        drawn = ExpectedGradients(8, name).draw(np.random.default_rng(0), image, 50)
        again = ExpectedGradients(8, name).draw(np.random.default_rng(0), image, 50)
        assert torch.equal(drawn, again)
        assert drawn.shape == (50, 3, 16, 16)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        spread = drawn.flatten(2).std(2)
        assert (spread.max() < 1e-6) == (name == "colour")


# Guided backpropagation


def test_guided_backpropagation_equals_a_literal_backward_pass() -> None:
    found, pixels = tiny.classifier(tiny.cnn(channels=3)), tiny.images(2, 16, 3)
    net = found.module
    with torch.no_grad():
        scale = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
        one = net.norm(net.conv1(found.normalise(pixels)))
        two = net.conv2(one.relu())
        back = net.head.weight[TARGET][:, :, None, None].expand_as(two) / (two.shape[2] * two.shape[3])
        back = (back * (two > 0)).clamp_min(0)
        back = F.conv_transpose2d(back, net.conv2.weight, stride=2, padding=1, output_padding=1)
        back = (back * (one > 0)).clamp_min(0) * scale[:, None, None]
        expected = F.conv_transpose2d(back, net.conv1.weight, padding=1).abs().amax(1).numpy()
    ours = maps("guided-backprop", found, pixels)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert np.abs(ours - maps("saliency", found, pixels)).max() > 0.05 * ours.max(), "the guidance must show"


def test_guided_backpropagation_refuses_what_has_no_relu() -> None:
    explainer = EXPLAINERS.build(Choice("guided-backprop"))
    for model, kind in (("vit", "global"), ("swin", "windowed")):
        assert f"tiny-{model} computes {kind} attention" in str(explainer.refuse(tiny.MODELS[model]()[0]))
    with pytest.raises(Refused, match="ReLU modules, and tiny-linear has none; choose saliency"):
        explainer.attribute(tiny.classifier(tiny.linear()), tiny.images(1, 8), TARGET[:1], 0)


# DeepLIFT


class Pooled(nn.Module):
    """Convolution, activation, max pooling, convolution, ReLU, linear; the pooling's windows overlap or not."""

    def __init__(self, kernel: int, stride: int, act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(1, 4, 3, padding=1), act()
        self.pool = nn.MaxPool2d(kernel, stride, padding=kernel // 2 if stride < kernel else 0)
        self.conv2, self.act2 = nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
        self.head(self.conv2(self.pool(self.conv1(torch.zeros(1, 1, 8, 8)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act2(self.conv2(self.pool(self.act1(self.conv1(x))))))


def pooled(kernel: int, stride: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    return tiny.seeded(lambda: Pooled(kernel, stride, act), 8, 2.0)


def literal_pooling(pool: nn.MaxPool2d, x: np.ndarray, b: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Multipliers before the pooling, window by window: the change of the maximum goes to the place that makes it."""
    shares = np.zeros_like(x)
    for channel, row, column in np.ndindex(*after.shape):
        top, left = row * pool.stride - pool.padding, column * pool.stride - pool.padding
        places = [
            (channel, r, c)
            for r in range(max(top, 0), min(top + pool.kernel_size, x.shape[1]))
            for c in range(max(left, 0), min(left + pool.kernel_size, x.shape[2]))
        ]
        best, was = max(places, key=x.__getitem__), max(places, key=b.__getitem__)
        change = x[best] - b[was]
        shares[best if change > 0 else was] += change * after[channel, row, column]
    step = x - b
    return np.divide(shares, step, out=np.zeros_like(shares), where=step != 0)


def literal_deep_lift(net: Pooled, x: torch.Tensor, b: torch.Tensor, target: int) -> np.ndarray:
    """Rescale rule written out, float64: slopes of the activations, transposes of the linear layers."""
    net = copy.deepcopy(net).double()
    with torch.no_grad():
        runs = []
        for inputs in (x.double(), b.double()):
            before = net.conv1(inputs)
            active = net.act1(before.clone())  # it may work in place
            deep = net.conv2(net.pool(active))
            runs.append((before, active, deep, net.act2(deep)))
        (z1, a1, z2, a2), (y1, c1, y2, c2) = runs
        back = net.head[1].weight[target].view_as(z2)
        back = back * torch.where(z2 == y2, 0, (a2 - c2) / (z2 - y2))
        back = F.conv_transpose2d(back, net.conv2.weight, padding=1)
        back = torch.from_numpy(literal_pooling(net.pool, a1[0].numpy(), c1[0].numpy(), back[0].numpy()))[None]
        back = back * torch.where(z1 == y1, 0, (a1 - c1) / (z1 - y1))
        back = F.conv_transpose2d(back, net.conv1.weight, padding=1)
        return ((x - b).double() * back).sum(1)[0].numpy()


@pytest.mark.parametrize("act", [nn.ReLU, nn.ELU, lambda: nn.ReLU(inplace=True)], ids=["relu", "elu", "in place"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
@pytest.mark.parametrize("baseline", ["zero", "white", "blur"])
def test_deep_lift_equals_the_rule_written_out(baseline: str, kernel: int, stride: int, act: Callable) -> None:
    found, pixels = modelled(pooled(kernel, stride, act)), tiny.images(2, 8)
    ours = DeepLift(baseline).attribute(found, pixels, TARGET, 0)
    for n in range(2):
        hidden = baseline_of(found, pixels[n], baseline)[None]
        x, b = found.normalise(pixels[n : n + 1]), found.normalise(hidden)
        expected = literal_deep_lift(found.module, x, b, int(TARGET[n]))
        np.testing.assert_allclose(ours.values[n], expected, atol=2e-5 * np.abs(expected).max())
        assert ours.extra["completeness_error"][n] < 1e-5 * np.abs(expected).sum()
    assert (ours.forwards, ours.backwards) == (8, 4)
    assert not any({"input", "output"} & set(vars(part)) for part in found.module.modules())


class Odd(nn.Module):
    """A network that DeepLIFT cannot explain, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.conv, self.more = way, nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.late = nn.ReLU(inplace=way == "shared in place"), nn.ReLU()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
        if way == "unknown module":
            self.norm = nn.LayerNorm([4, 8, 8])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.way == "gate":
            x = self.relu(x) * self.late(self.more(x))
        elif self.way == "reused":
            x = self.relu(self.more(self.relu(x)))
        elif self.way == "function":
            x = F.relu(self.more(self.relu(x)))
        elif self.way == "shared in place":
            x = self.relu(x) + 2 * x
        else:
            x = self.relu(self.norm(x))
        return self.head(x)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("gate", "tiny-linear the sum is off by"),
        ("function", "tiny-linear the sum is off by"),
        ("shared in place", "tiny-linear the sum is off by"),
        ("reused", "used once; tiny-linear calls a ReLU module more than once"),
        ("unknown module", "tiny-linear also contains LayerNorm"),
    ],
)
def test_deep_lift_refuses_what_its_rule_does_not_hold_for(way: str, reason: str) -> None:
    found = modelled(tiny.seeded(lambda: Odd(way), 3, 2.0))
    with pytest.raises(Refused, match=reason):
        DeepLift().attribute(found, tiny.images(1, 8), TARGET[:1], 0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in found.module.modules())


def test_deep_lift_refuses_attention_before_anything_runs() -> None:
    for model, kind in (("vit", "global"), ("swin", "windowed")):
        assert f"tiny-{model} computes {kind} attention" in str(DeepLift().refuse(tiny.MODELS[model]()[0]))


# Contrasts


LINEAR_IN_THE_LOGIT = ("input-x-gradient", "integrated-gradients:steps=10", "expected-gradients:samples=10")


@pytest.mark.parametrize(
    ("name", "model"), [("deep-lift", "cnn"), *((name, model) for name in LINEAR_IN_THE_LOGIT for model in tiny.MODELS)]
)
def test_a_contrast_is_the_difference_of_two_maps(name: str, model: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(2)
    ours = maps(name, found.against(1), pixels)
    expected = maps(name, found, pixels) - maps(name, found, pixels, torch.tensor([1, 1]))
    np.testing.assert_allclose(ours, expected, atol=2e-5 * np.abs(ours).max())
    assert np.abs(ours - maps(name, found, pixels)).max() > 0.1 * np.abs(ours).max()


def test_saliency_under_a_contrast_is_that_of_the_difference() -> None:
    found, pixels = tiny.classifier(tiny.linear(channels=3)), tiny.images(2, 8, 3)
    weights = found.module[1].weight.detach().numpy().reshape(3, 3, 8, 8)
    expected = np.abs(weights[TARGET] - weights[1]).max(1)
    np.testing.assert_allclose(maps("saliency", found.against(1), pixels), expected, rtol=1e-4)
    np.testing.assert_allclose(maps("smooth-grad:samples=4", found.against(1), pixels), expected, rtol=1e-4)
