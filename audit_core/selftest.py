"""A test that a checkpoint and an explainer pass before the pair is first used: does it do here what it claims to do?

No map is judged right or wrong by it. It finds out whether the features stand where the model card says, whether the
gradients that a method reads are those of the score, and whether a map comes out at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from audit_core.borrow import borrowed
from audit_core.classifier import Classifier
from audit_core.errors import AuditError
from audit_core.explainers.base import Explainer
from audit_core.explainers.rollout import recorded_attention
from audit_core.keys import Choice, key
from models.cards import UNKNOWN, FeatureLayer, ModelCard

VERSION = 2  # of the test: part of :func:`identity`
CHECKS = ("structure", "scores", "layer", "place", "gradient", "attention", "map", "error")

#: Steps of the finite differences, as shares of the norm of the features.
STEPS = {torch.float32: (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4), torch.float64: (1e-5, 1e-6, 1e-7, 1e-8)}
GRADIENT_TOLERANCE = 0.05  # relative, at the step that fits best
CLEAR = 0.1  # of the grid's side: a response that moves less is a hint at most
IMAGES = 4  # a rectified map may be flat on one image; on all of them it says nothing


@dataclass(frozen=True)
class Outcome:
    """Whether an explainer works on a checkpoint.

    check: "" or which of ``CHECKS`` failed; reason: the sentence for the user, "" when it works; measured: numbers
    that the checks found (``gradient``: relative error; ``place``: least shift of the response, as a share of the
    grid's side, when the change in the image moves from one half to the other).
    """

    works: bool
    check: str = ""
    reason: str = ""
    measured: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``Outcome(**data)`` reads it back."""
        return asdict(self)


class _Failed(Exception):
    """A check that found something: (check, sentence)."""


def identity(card: ModelCard, choice: Choice) -> str:
    """Key under which an outcome may be kept: equal keys have equal outcomes, except for weights nobody hashed.

    Part of it are the structure on the card, the weights' hash ("random" where unknown), and the explainer with
    its parameters; ``choice`` should be complete (``EXPLAINERS.complete``).
    """
    weights = "random" if card.weights_sha256 == UNKNOWN else card.weights_sha256
    structure = (card.architecture, card.options, card.input_size, card.channels, card.feature_layers)
    return key(self_test=VERSION, structure=structure, readout=card.readout, weights=weights, choice=choice)


def self_test(card: ModelCard, module: nn.Module, explainer: Explainer) -> Outcome:
    """Try ``explainer`` on ``module``, described by ``card``; never raises for what the two do.

    Checks, in order: the explainer's own refusal; scores that are finite and differ between images; for methods
    that read features, one output of the claimed shape whose places answer to places in the image; the gradient
    at the features (or pixels) against finite differences; attention whose rows sum to 1; a finite map that is
    not flat, within the stated cost. The module is left as found, except for its memory layout; it stays on its
    device. Random draws are fixed, so the outcome is a function of the arguments.
    """
    return self_tests(card, module, {"": explainer})[""]


def self_tests(card: ModelCard, module: nn.Module, explainers: Mapping[str, Explainer]) -> dict[str, Outcome]:
    """:func:`self_test` of several explainers by name; checks that ask the model alone are made once."""
    known: dict[tuple[str, str], _Finding] = {}
    with borrowed(module):
        return {name: _outcome(card, module, explainer, known) for name, explainer in explainers.items()}


@dataclass(frozen=True)
class _Finding:
    """What a check of the model found: numbers, and the failure, if it was one."""

    measured: dict[str, float]
    failed: _Failed | None = None


def _outcome(
    card: ModelCard, module: nn.Module, explainer: Explainer, known: dict[tuple[str, str], _Finding]
) -> Outcome:
    measured: dict[str, float] = {}
    try:
        if reason := explainer.refuse(card):
            return Outcome(False, "structure", reason)
        trial = _Trial(Classifier(card, module, next(module.parameters()).device), explainer, measured)
        for check in _checks(explainer):
            place = (check.__name__, str(getattr(explainer, "layer", "")))
            if place not in known:
                known[place] = _found(check, trial)
            measured |= known[place].measured
            if (failed := known[place].failed) is not None:
                raise failed
        check_map(trial)
    except _Failed as failed:
        return Outcome(False, failed.args[0], failed.args[1], measured)
    except AuditError as error:
        return Outcome(False, "map", str(error), measured)
    except Exception as error:  # whatever a foreign model or method does is a finding, not a crash
        reason = f"trying {explainer.title} on {card.name} failed with {type(error).__name__}: {_line(error)}"
        return Outcome(False, "error", reason, measured)
    return Outcome(True, measured=measured)


def _found(check: Callable[[_Trial], None], trial: _Trial) -> _Finding:
    measured: dict[str, float] = {}
    try:
        check(replace(trial, measured=measured))
    except _Failed as failed:
        return _Finding(measured, failed)
    return _Finding(measured)


def plain_images(n: int, channels: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Smooth blobs with noise, float32 (n, channels, rows, columns) in [0, 1): a function of the arguments."""
    rng = np.random.default_rng((seed, 3))
    coarse = torch.from_numpy(rng.random((n, channels, 4, 4), dtype=np.float32))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return 0.8 * smooth + 0.2 * torch.from_numpy(rng.random((n, channels, *size), dtype=np.float32))


@dataclass(frozen=True)
class _Trial:
    """What every check gets; ``measured`` is written to."""

    classifier: Classifier
    explainer: Explainer
    measured: dict[str, float]

    @property
    def card(self) -> ModelCard:
        return self.classifier.card

    @property
    def layer(self) -> FeatureLayer:
        return self.card.layer(str(getattr(self.explainer, "layer", "")))

    def pixels(self, n: int = IMAGES) -> torch.Tensor:
        """Plain images of the card's size and channels, on the classifier's device."""
        return plain_images(n, self.card.channels, self.card.input_size, seed=0).to(self.classifier.device)

    def targets(self, pixels: torch.Tensor) -> torch.Tensor:
        """The predicted class of the first and second image, the second and third best of the next ones."""
        ranked = self.classifier.logits(pixels).argsort(dim=1, descending=True, stable=True).cpu()
        return torch.stack([row[min(max(i - 1, 0), len(row) - 1)] for i, row in enumerate(ranked)])


def _checks(explainer: Explainer) -> tuple[Callable[[_Trial], None], ...]:
    """The checks of the model that fit what the explainer reads, the cheap ones first; :func:`check_map` is for all."""
    reads = explainer.reads
    if reads in ("image", "nothing", "outside"):
        return ()
    if reads.startswith("feature"):
        return (check_scores, check_place, check_layer_gradient)
    if reads.startswith("attention"):
        return (check_scores, check_attention)
    if reads in ("input gradients", "relevance"):
        return (check_scores, check_input_gradient)
    return (check_scores,)


def check_scores(trial: _Trial) -> None:
    """Logits (n, classes), finite, not the same for every image."""
    logits = trial.classifier.predict(trial.pixels())
    if logits.shape != (IMAGES, len(trial.card.classes)):
        raise _Failed("scores", f"{trial.card.name} answers {IMAGES} images with {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise _Failed("scores", f"{trial.card.name} answers plain images with scores that are not finite")
    if not (logits - logits[:1]).any():
        raise _Failed("scores", f"the scores of {trial.card.name} do not depend on the image")


def check_place(trial: _Trial) -> None:
    """The features have the claimed shape, and a change in one part of the image shows most in that part of the grid.

    Two images are changed in one quarter each, four times. The centre of the change in the features must move down the
    claimed rows when the changed quarter moves down, and along the columns when it moves right: rows and columns
    that are really channels, or each other, do not. Where every cell sees the whole image the centre hardly moves;
    then a wider image must give more columns, and nothing else more.
    """
    base = trial.pixels(2)
    changed = torch.cat([base, *(_changed_quarter(base, row, column) for row in (0, 1) for column in (0, 1))])
    features = _claimed(_features(trial, changed), trial)
    if min(trial.layer.grid) < 2:
        cells = "x".join(map(str, trial.layer.grid))
        raise _Failed("layer", f"{trial.layer.name} of {trial.card.name} is a grid of {cells}, too coarse for a map")
    before, after = features.unflatten(0, (5, 2)).double().split((1, 4))
    response = (after - before).abs().mean(-1)  # of quarter, image, row, column
    if not response.sum((2, 3)).min() > 0:
        raise _Failed("place", f"{trial.layer.module} of {trial.card.name} does not answer to every part of the image")
    down, right = _shifts((response / response.sum((2, 3), keepdim=True)).mean(1))
    trial.measured["place"] = min(down[0], right[1])
    if _follows(*down) and _follows(*right[::-1]):
        return
    where = f"{trial.layer.name} of {trial.card.name}"
    if _contradicts(*down) or _contradicts(*right[::-1]):
        raise _Failed(
            "place",
            f"a change in the image does not show in the same part of {where}: read as {trial.layer.layout}, its rows "
            "and columns are not those of the image",
        )
    if not _widens(trial, features.shape):
        raise _Failed(
            "place",
            f"places in {where} cannot be tied to places in the image: wherever the image changes, they all answer "
            "alike",
        )


def _follows(along: float, across: float) -> bool:
    return along > (1 if along > CLEAR else 2) * abs(across)


def _contradicts(along: float, across: float) -> bool:
    return -along > CLEAR or (abs(across) > CLEAR and abs(across) > 2 * abs(along))


def _widens(trial: _Trial, shape: torch.Size) -> bool:
    """Whether an image of twice the width gives more columns, read as claimed, and the same rows and channels."""
    if trial.layer.layout == "tokens":
        return False  # a count of tokens does not say which way they go
    pixels = trial.pixels(1)
    try:
        wide = _channels_last(_features(trial, torch.cat([pixels, pixels.flip(-1)], dim=-1)), trial.layer)
    except Exception:  # a model of one size only
        return False
    return wide is not None and wide.shape[2] > shape[2] and (wide.shape[1], wide.shape[3]) == (shape[1], shape[3])


def _features(trial: _Trial, pixels: torch.Tensor) -> torch.Tensor:
    """The layer's output for the images, as the module gives it."""
    with trial.classifier.lend() as module, torch.no_grad(), _recorded(module, trial.layer.module) as seen:
        module(trial.classifier.normalise(pixels))
        return _once(seen, trial)


def check_layer_gradient(trial: _Trial) -> None:
    """The gradient of the predicted class's logit at the layer, against differences of the logit."""
    pixels = trial.pixels(1)
    target = int(trial.targets(pixels)[0])
    with trial.classifier.lend() as module:
        inputs = trial.classifier.normalise(pixels)
        with torch.enable_grad(), _recorded(module, trial.layer.module) as seen:
            logit = module(inputs.detach().requires_grad_())[0, target]
            features = _once(seen, trial)
            gradient = _gradient(logit, features)

        def logits(network: nn.Module, moved: torch.Tensor) -> torch.Tensor:
            place = network.get_submodule(trial.layer.module)
            with place.register_forward_hook(lambda *_: moved.clone()), torch.no_grad():
                return network(inputs.to(moved.dtype).expand(len(moved), -1, -1, -1))[:, target]

        where = f"{trial.layer.name} ({trial.layer.module}) of {trial.card.name}"
        _compare(trial, features.detach(), gradient, partial(_differences, module, logits), where)


def check_input_gradient(trial: _Trial) -> None:
    """The gradient of the predicted class's logit at the normalised pixels, against differences of the logit."""
    pixels = trial.pixels(1)
    target = int(trial.targets(pixels)[0])
    with trial.classifier.lend() as module:
        inputs = trial.classifier.normalise(pixels).detach()
        with torch.enable_grad():
            start = inputs.clone().requires_grad_()
            gradient = _gradient(module(start)[0, target], start)

        def logits(network: nn.Module, moved: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return network(moved)[:, target]

        _compare(trial, inputs, gradient, partial(_differences, module, logits), f"the input of {trial.card.name}")


def check_attention(trial: _Trial) -> None:
    """Recorded attention covers exactly the card's tokens, each row sums to 1, and recording changes no score."""
    pixels, layer = trial.pixels(1), trial.layer
    tokens = layer.prefix_tokens + layer.grid[0] * layer.grid[1]
    with trial.classifier.lend() as module:
        plain = trial.classifier.logits(pixels)
        with recorded_attention(module) as seen:
            recorded = trial.classifier.logits(pixels)
    if not seen:
        raise _Failed("attention", f"no attention was recorded in {trial.card.name}; its layers are of another kind")
    if {matrix.shape[-2:] for matrix in seen} != {(tokens, tokens)}:
        raise _Failed("attention", f"attention in {trial.card.name} is not over its {tokens} tokens alone")
    if max(float((matrix.float().sum(-1) - 1).abs().max()) for matrix in seen) > 1e-3:
        raise _Failed("attention", f"rows of the attention in {trial.card.name} do not sum to 1")
    if not torch.allclose(plain, recorded, rtol=1e-3, atol=1e-3 * float(plain.abs().max())):
        raise _Failed("attention", f"recording the attention of {trial.card.name} changes its scores")


def check_map(trial: _Trial) -> None:
    """Finite maps of the image's size, within the stated cost, of which at least one is not flat.

    A map whose negative part was cut off may be flat on any image for a good reason, so it is asked for uncut too.
    """
    pixels = trial.pixels()
    targets = trial.targets(pixels)
    uncut = [replace(trial.explainer, relu=False)] if getattr(trial.explainer, "relu", False) else []  # type: ignore[type-var]
    for explainer in (trial.explainer, *uncut):
        for image, target in zip(pixels.split(1), targets.split(1), strict=True):
            if np.ptp(values := _sound_map(trial, explainer, image, target)) > 1e-5 * np.abs(values).max():
                return
    raise _Failed("map", f"the map of {trial.explainer.title} on {trial.card.name} is flat on each of {IMAGES} images")


def _sound_map(trial: _Trial, explainer: Explainer, image: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """The map of one image, float32 (rows, columns), after a look at what every map promises."""
    name, before, cost = explainer.title, trial.classifier.forwards, explainer.cost(trial.card)
    found = explainer.attribute(trial.classifier, image, target, 0)
    if found.values.shape != (1, *trial.card.input_size):
        raise _Failed("map", f"{name} gives a map of {found.values.shape[1:]}, not of the image's size")
    if not np.isfinite(found.values).all():
        raise _Failed("map", f"{name} gives values that are not finite on {trial.card.name}")
    if not found.signed and found.values.min() < 0:
        raise _Failed("map", f"{name} calls its map unsigned and gives values below 0 on {trial.card.name}")
    if trial.classifier.forwards - before > cost.forwards or found.backwards > cost.backwards:
        raise _Failed("map", f"{name} takes more evaluations of {trial.card.name} than it states")
    return found.values[0]


@contextmanager
def _recorded(module: nn.Module, name: str) -> Iterator[list[Any]]:  # Any: foreign modules give what they like
    """The outputs of a submodule, in the order of its calls; copies go on, so that nothing overwrites them."""
    seen: list[Any] = []

    def keep(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        seen.append(output)
        return output.clone() if isinstance(output, torch.Tensor) else None

    with module.get_submodule(name).register_forward_hook(keep):
        yield seen


def _once(seen: list[Any], trial: _Trial) -> torch.Tensor:
    """The one output of the layer."""
    where = f"{trial.layer.module} of {trial.card.name}"
    if len(seen) != 1:
        raise _Failed("layer", f"{where} runs {len(seen)} times per image; its features are those of one run")
    if not isinstance(seen[0], torch.Tensor):
        raise _Failed("layer", f"{where} gives a {type(seen[0]).__name__}, not one tensor of features")
    return seen[0]


def _claimed(features: torch.Tensor, trial: _Trial) -> torch.Tensor:
    """Features as (n, rows, columns, channels), read as the card claims; refused when the shape says otherwise."""
    layer, grid = trial.layer, _channels_last(features, trial.layer)
    if grid is None or tuple(grid.shape[1:3]) != tuple(layer.grid):
        raise _Failed(
            "layer",
            f"{layer.module} of {trial.card.name} gives {tuple(features.shape[1:])} per image, which read as "
            f"{layer.layout} is no grid of {layer.grid[0]}x{layer.grid[1]}",
        )
    return grid


def _channels_last(features: torch.Tensor, layer: FeatureLayer) -> torch.Tensor | None:
    """(n, rows, columns, channels) of features in the layer's layout; None where the layout cannot be theirs."""
    if layer.layout == "tokens":
        count = layer.prefix_tokens + layer.grid[0] * layer.grid[1]
        fits = features.ndim == 3 and features.shape[1] == count
        return features[:, layer.prefix_tokens :].unflatten(1, layer.grid) if fits else None
    if features.ndim != 4:
        return None
    return features.permute(0, 2, 3, 1) if layer.layout == "NCHW" else features


def _changed_quarter(images: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """The images (n, channels, rows, columns) with one quarter inverted."""
    out = images.clone()
    half, side = images.shape[2] // 2, images.shape[3] // 2
    quarter = out[:, :, row * half : (row + 1) * half, column * side : (column + 1) * side]
    quarter.copy_(1 - quarter)
    return out


def _shifts(share: torch.Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far the centre of (4, rows, columns) shares moves, along (rows, columns) as parts of the side.

    First when the change goes from the upper to the lower quarters, then from the left to the right ones.
    """
    rows, columns = (torch.linspace(0, 1, n).to(share) for n in share.shape[1:])
    centre = torch.stack([share.sum(2) @ rows, share.sum(1) @ columns], dim=1).unflatten(0, (2, 2))
    down, right = (centre[1] - centre[0]).mean(0), (centre[:, 1] - centre[:, 0]).mean(0)
    return (float(down[0]), float(down[1])), (float(right[0]), float(right[1]))


def _gradient(logit: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Gradient at the features; zero where the logit does not hang on them."""
    if not logit.requires_grad or not features.requires_grad:
        return torch.zeros_like(features)
    (gradient,) = torch.autograd.grad(logit, features, allow_unused=True)
    return torch.zeros_like(features) if gradient is None else gradient


def _compare(
    trial: _Trial,
    start: torch.Tensor,
    gradient: torch.Tensor,
    differences: Callable[[torch.Tensor, torch.Tensor, torch.dtype], list[float]],
    where: str,
) -> None:
    """Inner product of gradient and direction against differences of the logit along it, the best step counting.

    The direction is half random, half the gradient's own: a random one alone is nearly orthogonal to it, and its
    difference drowns in rounding. A bend (ReLU) or rounding spoils some steps, a wrong gradient all of them. Where
    float32 does not settle it, float64 does, whose steps can be small enough for any network.
    """
    if not torch.isfinite(gradient).all():
        raise _Failed("gradient", f"the gradient at {where} is not finite")
    if not gradient.any():
        raise _Failed("gradient", f"the score does not depend on {where}: its gradient there is zero")
    rng = torch.Generator().manual_seed(0)
    random = torch.randn(start.shape, generator=rng).to(start)
    direction = random / random.norm() + gradient / gradient.norm()
    slope = float((gradient.double() * direction.double()).sum())
    for precision in (torch.float32, torch.float64):
        found = min(differences(start, direction, precision), key=lambda one: abs(one - slope))
        trial.measured["gradient"] = error = abs(slope - found) / max(abs(slope), abs(found))
        if error <= GRADIENT_TOLERANCE:
            return
    raise _Failed(
        "gradient",
        f"the gradient at {where} is not that of the score: it gives a slope of {slope:.3g}, differences {found:.3g}",
    )


def _differences(
    module: nn.Module,
    logits: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    direction: torch.Tensor,
    precision: torch.dtype,
) -> list[float]:
    """Central differences of ``logits(module, features)`` along the direction, one per step."""
    network = module if precision == start.dtype else copy.deepcopy(module).to(precision)
    start, direction = start.to(precision), direction.to(precision)
    steps = (float(start.norm()) or 1.0) * torch.tensor(STEPS[precision], dtype=precision, device=start.device)
    ends = [start + step * direction for step in (*steps, *-steps)]
    ahead, behind = logits(network, torch.cat(ends)).double().chunk(2)
    return ((ahead - behind) / (2 * steps.double())).tolist()


def _line(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")[:200]
