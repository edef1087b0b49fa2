"""Gradients of the target's logit at the input, through captum.

Gradients are those after normalisation. Signed maps are sums over channels of a gradient times a difference of inputs,
a product that is the same in pixels and after normalisation; unsigned ones are the largest absolute gradient over the
channels. Where a method draws random numbers the draws are ours: captum takes them from the process's generators, which
differ between devices, and holds all samples at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import DeepLift as LibraryDeepLift
from captum.attr import GuidedBackprop as LibraryGuidedBackprop
from captum.attr import InputXGradient as LibraryInputXGradient
from captum.attr import IntegratedGradients as LibraryIntegratedGradients
from captum.attr import Saliency as LibrarySaliency
from torch import nn
from torch.utils.hooks import RemovableHandle

from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.explainers.occlusion import Baseline, baseline_of
from audit_core.fills import Blur, FillContext
from audit_core.params import Between, OneOf
from audit_core.types import Attribution
from models.cards import ModelCard

CHUNK = 25  # images that one backward pass holds
NOISE, REFERENCES = 11, 12  # tags of the random streams

# captum announces its own temporary hooks on every call; the loan takes them off in any case.
warnings.filterwarnings("ignore", "(?s)\\s*Setting (forward, )?backward hooks", UserWarning)


@dataclass(frozen=True)
class OneMap:
    """Map of one image with its standard error or None, float32 (rows, columns), and what it took."""

    values: np.ndarray
    error: np.ndarray | None
    backwards: int
    extra: dict[str, Any]  # Any: JSON scalars


class InputGradient(Explainer):
    """Base of the explainers that read gradients at the input; they explain the target's logit, image by image."""

    family: ClassVar[str] = "gradient"
    reads: ClassVar[str] = "input gradients"
    library: ClassVar[str] = "captum"
    signed: ClassVar[bool] = True

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward."""
        return Cost(1, 1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Raw maps; ``Refused`` where the network turns out to have no meaning for the method."""
        maps: list[OneMap] = []
        before = classifier.forwards
        with classifier.lend() as module, torch.enable_grad():
            _tell(module, len(images) * self.cost(classifier.card).forwards, report)
            for image, wanted in zip(images, target.tolist(), strict=True):
                maps.append(self.one(classifier, module, image[None].to(classifier.device), wanted, seed))
                report(len(maps) / len(images), f"image {len(maps)} of {len(images)}", maps[-1].values)
        errors = [found.error for found in maps if found.error is not None]
        extra = {name: [found.extra[name] for found in maps] for name in maps[0].extra}
        return Attribution(
            np.stack([found.values for found in maps]), target.cpu().numpy(), self.signed,
            np.stack(errors) if errors else None, classifier.forwards - before,
            sum(found.backwards for found in maps), extra,
        )  # fmt: skip

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """The map of one image, pixels (1, channels, rows, columns); counts the forwards on ``classifier``."""
        raise NotImplementedError


def _tell(module: nn.Module, total: int, report: Report) -> None:
    """Report every batch that goes through ``module``, of ``total`` images in all; the loan takes the hook off."""
    done = 0

    def tell(_: nn.Module, __: Any, logits: torch.Tensor) -> None:  # Any: the module's inputs
        nonlocal done
        done += len(logits)
        report(min(done / total, 1.0), f"{done} of {total} images", None)

    module.register_forward_hook(tell)


def leaf(inputs: torch.Tensor) -> torch.Tensor:
    """A tensor of its own that gradients can be taken at."""
    return inputs.detach().clone().requires_grad_()


def gradient(classifier: Classifier, module: nn.Module, inputs: torch.Tensor, wanted: int) -> torch.Tensor:
    """Gradient of the target's logit at normalised inputs (n, channels, rows, columns), of their shape."""
    classifier.forwards += len(inputs)
    laid_out = leaf(inputs.contiguous(memory_format=classifier.layout))
    return LibrarySaliency(module).attribute(laid_out, target=wanted, abs=False).detach()


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


@EXPLAINERS.register("saliency")
@dataclass(frozen=True)
class Saliency(InputGradient):
    """Saliency: how strongly the target's logit reacts to a small change of each pixel, whatever its sign.

    The map is the largest absolute gradient over the channels, taken after normalisation. It is unsigned: it says
    where the model looks closely, not whether the pixel speaks for the class.
    """

    title: ClassVar[str] = "Saliency (gradient)"
    formula: ClassVar[str] = "map(l) = max over channels c of |d f_t(x) / d x_c(l)|"
    source: ClassVar[str] = "Simonyan, Vedaldi and Zisserman 2014, https://arxiv.org/abs/1312.6034"
    witness: ClassVar[str] = (
        "weights of a linear model; central finite differences of the logit: "
        "tests/test_gradients.py::test_gradients_of_a_linear_model_are_its_weights, "
        "tests/test_gradients.py::test_gradients_equal_finite_differences"
    )
    pitfalls: ClassVar[str] = (
        "A gradient is local and noisy: where the logit has saturated it is small although the pixel matters, and "
        "neighbouring pixels differ for no visible reason."
    )
    signed: ClassVar[bool] = False

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """One forward, one backward."""
        found = gradient(classifier, module, classifier.normalise(image), wanted)
        return OneMap(_numpy(found.abs().amax(1)[0]), None, 1, {})


@EXPLAINERS.register("input-x-gradient")
@dataclass(frozen=True)
class InputXGradient(InputGradient):
    """Input times gradient: each pixel's normalised value times its gradient, summed over the channels.

    To first order this is the pixel's part in the difference between the image's logit and that of an image of the
    mean colour, which is 0 after normalisation. For a network of linear layers and ReLU without biases it is exact.
    """

    title: ClassVar[str] = "Input x gradient"
    formula: ClassVar[str] = "map(l) = sum over channels c of x_c(l) d f_t(x) / d x_c(l), x after normalisation"
    source: ClassVar[str] = "Shrikumar, Greenside, Shcherbina and Kundaje 2016, https://arxiv.org/abs/1605.01713"
    witness: ClassVar[str] = (
        "weights of a linear model; central finite differences of the logit: "
        "tests/test_gradients.py::test_gradients_of_a_linear_model_are_its_weights, "
        "tests/test_gradients.py::test_gradients_equal_finite_differences"
    )
    pitfalls: ClassVar[str] = (
        "A pixel of exactly the mean colour gets 0 whatever it means to the model; the bare gradient's noise stays."
    )

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """One forward, one backward."""
        classifier.forwards += 1
        product = LibraryInputXGradient(module).attribute(leaf(classifier.normalise(image)), target=wanted)
        return OneMap(_numpy(product.sum(1)[0]), None, 1, {})


def logit_difference(
    classifier: Classifier, module: nn.Module, image: torch.Tensor, hidden: torch.Tensor, wanted: int
) -> float:
    """f_t(image) - f_t(hidden), pixels (1, channels, rows, columns) each; two forwards, in full precision."""
    classifier.forwards += 2
    with torch.no_grad():
        there, gone = module(classifier.normalise(torch.cat([image, hidden])))[:, wanted].double().tolist()
    return there - gone


def completeness(total: float, difference: float) -> dict[str, float | None]:
    """How far a map's ``total`` is from the difference of logits that it should be: absolute, and relative to it.

    The relative error is None where the difference is 0.
    """
    error = abs(total - difference)
    relative = error / abs(difference) if difference else None
    return {"logit_difference": difference, "completeness_error": error, "completeness_relative": relative}


@EXPLAINERS.register("integrated-gradients")
@dataclass(frozen=True)
class IntegratedGradients(InputGradient):
    """Integrated gradients: the gradient averaged along the straight line from a baseline to the image, times their
    difference, summed over the channels.

    The map's sum is the difference of the two logits; how far it is from that is reported as the completeness error.
    The line is integrated by Gauss-Legendre quadrature with ``steps`` points.
    """

    title: ClassVar[str] = "Integrated gradients"
    formula: ClassVar[str] = "map(l) = sum_c (x_c(l) - b_c(l)) integral_0^1 d f_t(b + a (x - b)) / d x_c(l) da"
    source: ClassVar[str] = "Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365"
    witness: ClassVar[str] = (
        "closed form of a quadratic model; a literal Riemann sum; the sum f(x) - f(b): "
        "tests/test_gradients.py::test_integrated_gradients_of_a_quadratic_form, "
        "tests/test_gradients.py::test_integrated_gradients_equal_a_fine_riemann_sum"
    )
    pitfalls: ClassVar[str] = (
        "A pixel that equals the baseline gets 0 whatever it means, so black parts of an image cannot matter against a "
        "black baseline. Points of the line are no natural images."
    )

    steps: Annotated[int, Between(2, 1000, "points", "Points on the line; each costs a forward and a backward.")] = 50
    baseline: Baseline = "zero"

    def cost(self, card: ModelCard) -> Cost:
        """One forward and backward per step, two forwards for the completeness error."""
        return Cost(self.steps + 2, self.steps)

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """The quadrature runs ``CHUNK`` points at a time."""
        hidden = baseline_of(classifier, image[0], self.baseline)[None]
        found = LibraryIntegratedGradients(module).attribute(
            leaf(classifier.normalise(image)), baselines=classifier.normalise(hidden), target=wanted,
            n_steps=self.steps, internal_batch_size=CHUNK,
        ).detach()  # fmt: skip
        classifier.forwards += self.steps
        difference = logit_difference(classifier, module, image, hidden, wanted)
        extra = completeness(float(found.double().sum()), difference)
        return OneMap(_numpy(found.sum(1)[0]), None, self.steps, extra)


class Sampled(InputGradient):
    """Base of the methods that average over random inputs; a seed gives the same draws on any device."""

    samples: int

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward per sample."""
        return Cost(self.samples, self.samples)

    def mean(self, terms: Callable[[int], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard error over all samples, float64 (k, rows, columns).

        terms(count): the next ``count`` samples' terms, (count, k, rows, columns).
        """
        total = square = torch.zeros(())
        for start in range(0, self.samples, CHUNK):
            block = terms(min(CHUNK, self.samples - start)).double()
            total, square = total.to(block) + block.sum(0), square.to(block) + block.square().sum(0)
        average = total / self.samples
        variance = (square / self.samples - average.square()).clamp_min(0)
        return average, (variance / (self.samples - 1)).sqrt()


@EXPLAINERS.register("smooth-grad")
@dataclass(frozen=True)
class SmoothGrad(Sampled):
    """SmoothGrad: the gradient of the target's logit, averaged over noisy copies of the image.

    Noise is Gaussian, after normalisation, with a standard deviation of ``noise`` times the range of the normalised
    image. As for saliency the map is the largest absolute value over the channels, here of the mean gradient, and
    unsigned; without noise it is saliency. The standard error is that of the channel shown.
    """

    title: ClassVar[str] = "SmoothGrad"
    formula: ClassVar[str] = (
        "map(l) = max_c |mean_i d f_t(x + e_i) / d x_c(l)|, e_i ~ N(0, s^2), s = noise (max x - min x)"
    )
    source: ClassVar[str] = "Smilkov, Thorat, Kim, Viegas and Wattenberg 2017, https://arxiv.org/abs/1706.03825"
    library: ClassVar[str] = "captum (gradients); own sampling"
    witness: ClassVar[str] = (
        "captum's NoiseTunnel fed the same noise; the spread over seeds: "
        "tests/test_gradients.py::test_smooth_grad_equals_captums_noise_tunnel, "
        "tests/test_gradients.py::test_standard_errors_are_the_spread_over_seeds"
    )
    pitfalls: ClassVar[str] = (
        "The noise is a choice: with much of it the model is asked about images it never saw. A smooth picture is no "
        "more faithful for being smooth."
    )
    signed: ClassVar[bool] = False

    samples: Annotated[int, Between(2, 2000, "samples", "Noisy copies; each costs a forward and a backward.")] = 50
    noise: Annotated[float, Between(0.0, 1.0, help="Standard deviation of the noise, as a share of the range.")] = 0.15

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """``CHUNK`` noisy copies at a time."""
        inputs, rng = classifier.normalise(image), np.random.default_rng((seed, NOISE))
        sigma = self.noise * float(inputs.max() - inputs.min())

        def terms(count: int) -> torch.Tensor:
            drawn = sigma * rng.standard_normal((count, *image.shape[1:]), dtype=np.float32)
            return gradient(classifier, module, inputs + torch.from_numpy(drawn).to(inputs), wanted)

        average, error = self.mean(terms)
        shown = average.abs().argmax(0, keepdim=True)
        return OneMap(
            _numpy(average.gather(0, shown)[0].abs()), _numpy(error.gather(0, shown)[0]), self.samples, {}
        )


@EXPLAINERS.register("expected-gradients")
@dataclass(frozen=True)
class ExpectedGradients(Sampled):
    """Expected gradients: integrated gradients averaged over many baselines, one random point of one line per sample.

    Baselines are drawn from a stated distribution: images of independent uniform noise, images of one uniform random
    colour, or the image blurred with a Gaussian whose sigma is 1/32, 1/16, 1/8 or 1/4 of its shorter side, equally
    often. No image of a data set takes part. The map comes with its standard error.
    """

    title: ClassVar[str] = "Expected gradients"
    formula: ClassVar[str] = (
        "map(l) = mean_i sum_c (x_c(l) - b_ic(l)) d f_t(b_i + a_i (x - b_i)) / d x_c(l), a_i ~ U(0, 1)"
    )
    source: ClassVar[str] = (
        "Erion, Janizek, Sturmfels, Lundberg and Lee 2021, https://arxiv.org/abs/1906.10670; as GradientSHAP in "
        "Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874"
    )
    library: ClassVar[str] = "captum (gradients); own sampling"
    witness: ClassVar[str] = (
        "captum's GradientShap within the standard errors; the closed form of a linear model: "
        "tests/test_gradients.py::test_expected_gradients_agree_with_captums_gradient_shap, "
        "tests/test_gradients.py::test_expected_gradients_of_a_linear_model_are_weights_times_mean_differences"
    )
    pitfalls: ClassVar[str] = (
        "The map depends on the distribution of baselines as integrated gradients depend on their baseline; with few "
        "samples it is noise, so read it with its standard error."
    )

    samples: Annotated[int, Between(2, 5000, "samples", "Random points; each costs a forward and a backward.")] = 100
    baselines: Annotated[
        str, OneOf(("noise", "colour", "blur"), "What baselines are drawn from: noise images, plain colours, blurs.")
    ] = "noise"

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """``CHUNK`` random points at a time."""
        inputs, rng = classifier.normalise(image), np.random.default_rng((seed, REFERENCES))

        def terms(count: int) -> torch.Tensor:
            references = classifier.normalise(self.draw(rng, image, count))
            along = torch.from_numpy(rng.random((count, 1, 1, 1), dtype=np.float32)).to(inputs)
            found = gradient(classifier, module, torch.lerp(references, inputs, along), wanted)
            return (found * (inputs - references)).sum(1, keepdim=True)

        average, error = self.mean(terms)
        return OneMap(_numpy(average[0]), _numpy(error[0]), self.samples, {})

    def draw(self, rng: np.random.Generator, image: torch.Tensor, count: int) -> torch.Tensor:
        """``count`` baselines for an image (1, channels, rows, columns), pixels in [0, 1]."""
        if self.baselines == "blur":
            sigmas = [min(image.shape[-2:]) / share for share in (32, 16, 8, 4)]
            ladder = torch.cat([Blur(sigma).substrate(image, FillContext((), ())) for sigma in sigmas])
            return ladder[torch.from_numpy(rng.integers(0, len(ladder), count)).to(image.device)]
        size = image.shape[-2:] if self.baselines == "noise" else (1, 1)
        drawn = torch.from_numpy(rng.random((count, image.shape[1], *size), dtype=np.float32))
        return drawn.to(image.device).expand(count, *image.shape[1:])


@EXPLAINERS.register("guided-backprop")
@dataclass(frozen=True)
class GuidedBackprop(InputGradient):
    """Guided backpropagation: the gradient, where every ReLU passes back only what is positive.

    As for saliency the map is the largest absolute value over the channels, after normalisation. It needs ReLU
    modules; networks with attention, or without any ReLU, are refused.
    """

    title: ClassVar[str] = "Guided backpropagation"
    formula: ClassVar[str] = "map(l) = max_c |G_c(l)|, G the gradient with g -> max(g, 0) at the input of every ReLU"
    source: ClassVar[str] = "Springenberg, Dosovitskiy, Brox and Riedmiller 2015, https://arxiv.org/abs/1412.6806"
    witness: ClassVar[str] = (
        "a backward pass written out layer by layer: "
        "tests/test_gradients.py::test_guided_backpropagation_equals_a_literal_backward_pass"
    )
    pitfalls: ClassVar[str] = (
        "It draws edges of the image more than evidence: its maps hardly change when the weights are randomised "
        "(Adebayo et al. 2018). ReLUs that are called as functions are not seen."
    )
    signed: ClassVar[bool] = False

    def refuse(self, card: ModelCard) -> str | None:
        """Defined for convolutions and ReLU."""
        return _without_attention("guided backpropagation is defined for convolutions and ReLU", card)

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """``Refused`` where the network has no ReLU module."""
        if not any(isinstance(part, nn.ReLU) for part in module.modules()):
            raise Refused(
                "guided backpropagation changes what passes back through ReLU modules, "
                f"and {classifier.card.name} has none; choose saliency instead"
            )
        classifier.forwards += 1
        found = LibraryGuidedBackprop(module).attribute(leaf(classifier.normalise(image)), target=wanted)
        return OneMap(_numpy(found.abs().amax(1)[0]), None, 1, {})


def _without_attention(claim: str, card: ModelCard) -> str | None:
    if card.attention in ("global", "windowed"):
        return f"{claim}; {card.name} computes {card.attention} attention"
    return None


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.MaxPool2d)
LINEAR = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.AvgPool1d,
    nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Flatten,
    nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ZeroPad2d,
)  # fmt: skip


class RescaleRule(LibraryDeepLift):
    """captum's DeepLIFT with max pooling put right; in captum 0.9 it breaks the sum, by a third on a DenseNet's stem.

    Two things go wrong there. An activation that follows another at once shares its tensor, and the first one reads
    the multipliers before the second has set them. And a pixel that wins several overlapping windows keeps one share.
    """

    def _register_hooks(self, module: nn.Module, attribute_to_layer_input: bool = True) -> None:
        hooked = self._can_register_hook(module)
        super()._register_hooks(module, attribute_to_layer_input)
        if hooked:  # after captum's own hook, so that whatever comes next has a tensor of its own
            self.forward_handles.append(module.register_forward_hook(lambda _, __, output: output.clone()))

    def _remove_hooks(self, extra_hooks_to_remove: list[RemovableHandle]) -> None:
        super()._remove_hooks(extra_hooks_to_remove)
        for part in self.model.modules():  # an exception in between would leave captum's notes on the modules
            if self._is_non_linear(part):
                vars(part).pop("input", None)
                vars(part).pop("output", None)

    def _backward_hook(self, module: nn.Module, grad_input: torch.Tensor, grad_output: torch.Tensor) -> torch.Tensor:
        inputs = getattr(module, "input", None)
        if not isinstance(module, nn.MaxPool2d) or not isinstance(inputs, torch.Tensor):
            return super()._backward_hook(module, grad_input, grad_output)
        slopes = pooled_slopes(module, inputs, grad_output)
        del module.input, module.output
        return slopes


def pooled_slopes(pool: nn.MaxPool2d, inputs: torch.Tensor, multipliers: torch.Tensor) -> torch.Tensor:
    """Multipliers before a max pooling from those after it, (2 n, channels, rows, columns); images, then baselines.

    The change of each maximum is given to the place that makes it: where it rises, the image's maximum, where it
    falls, the baseline's; a place collects from all windows that it makes.
    """
    image, hidden = inputs.chunk(2)
    (top, at), (top_hidden, at_hidden) = (
        F.max_pool2d(half, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, True)
        for half in (image, hidden)
    )
    change = top - top_hidden
    place = torch.where(change > 0, at, at_hidden).flatten(2)
    shares = torch.zeros_like(image).flatten(2)
    shares.scatter_add_(2, place, (multipliers.chunk(2)[0] * change).flatten(2))
    step = image - hidden
    slopes = torch.where(step == 0, 0, shares.view_as(image) / step)  # without a step nothing is shared
    return torch.cat([slopes, slopes])


@EXPLAINERS.register("deep-lift")
@dataclass(frozen=True)
class DeepLift(InputGradient):
    """DeepLIFT, rescale rule: a backward pass in which every activation's slope is that between baseline and image.

    The map is the product with the difference of the inputs, summed over the channels; its sum is the difference of
    the logits. That holds for linear layers, ReLU-like activations and max pooling, each module used once. Networks
    with other modules are refused, and so is any image for which the sum is off by more than a thousandth.
    """

    title: ClassVar[str] = "DeepLIFT (rescale)"
    formula: ClassVar[str] = (
        "map(l) = sum_c (x_c(l) - b_c(l)) m_c(l), m the product of weights and slopes (a(z_x) - a(z_b)) / (z_x - z_b)"
    )
    source: ClassVar[str] = "Shrikumar, Greenside and Kundaje 2017, https://arxiv.org/abs/1704.02685"
    library: ClassVar[str] = "captum; own rule for max pooling"
    witness: ClassVar[str] = (
        "a backward pass with explicit slopes, layer by layer; the sum f(x) - f(b): "
        "tests/test_gradients.py::test_deep_lift_equals_the_rule_written_out"
    )
    pitfalls: ClassVar[str] = (
        "The baseline decides the map. The rescale rule gives 0 to inputs whose effects cancel inside one activation; "
        "products, as in gates and attention, are outside it."
    )
    TOLERANCE: ClassVar[float] = 1e-3

    baseline: Baseline = "zero"

    def refuse(self, card: ModelCard) -> str | None:
        """Defined without products of activations."""
        return _without_attention("DeepLIFT's rescale rule has no meaning for products of activations", card)

    def cost(self, card: ModelCard) -> Cost:
        """Image and baseline go through twice: once as they are, once with slopes, and that once back."""
        return Cost(4, 2)

    def one(self, classifier: Classifier, module: nn.Module, image: torch.Tensor, wanted: int, seed: int) -> OneMap:
        """``Refused`` names the modules, or the completeness error, that speak against the rescale rule."""
        self._check_kinds(classifier.card.name, module)
        hidden = baseline_of(classifier, image[0], self.baseline)[None]
        with _calls(module, ACTIVATIONS) as calls:
            difference = logit_difference(classifier, module, image, hidden, wanted)
        if reused := sorted({type(part).__name__ for part, count in calls.items() if count > 1}):
            raise Refused(
                f"DeepLIFT needs every activation module to be used once; {classifier.card.name} calls a "
                f"{' and a '.join(reused)} module more than once per image"
            )
        classifier.forwards += 2
        found = RescaleRule(module).attribute(
            leaf(classifier.normalise(image)), baselines=classifier.normalise(hidden), target=wanted
        ).detach()
        extra = completeness(float(found.double().sum()), difference)
        self._check_sum(classifier.card.name, extra["completeness_error"] or 0.0, difference, found)
        return OneMap(_numpy(found.sum(1)[0]), None, 2, extra)

    def _check_kinds(self, name: str, module: nn.Module) -> None:
        leaves = [part for part in module.modules() if not list(part.children())]
        foreign = sorted({type(part).__name__ for part in leaves if type(part) not in (*ACTIVATIONS, *LINEAR)})
        if foreign:
            raise Refused(
                "DeepLIFT's rescale rule holds for linear layers, ReLU-like activations and max pooling; "
                f"{name} also contains {', '.join(foreign)}"
            )

    def _check_sum(self, name: str, error: float, difference: float, found: torch.Tensor) -> None:
        # Rounding is measured against the terms of the sum, which may cancel.
        rounding = 1e-4 * float(found.double().abs().sum())
        if not error <= self.TOLERANCE * abs(difference) + rounding:
            raise Refused(
                f"DeepLIFT's map should sum to the difference of logits, {difference:.4g}; on {name} the sum is off by "
                f"{error:.4g}, so its network has operations outside the rescale rule (products, or activations called "
                "as functions)"
            )


@contextmanager
def _calls(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[dict[nn.Module, int]]:
    """How often each module of the given kinds is called in the block."""
    calls: dict[nn.Module, int] = {}

    def count(part: nn.Module, _: Any) -> None:  # Any: the module's inputs
        calls[part] = calls.get(part, 0) + 1

    handles = [part.register_forward_pre_hook(count) for part in module.modules() if type(part) in kinds]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
