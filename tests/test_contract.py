"""What every registered explainer and fill promises. A new entry is tested here without editing this file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers import EXPLAINERS, Explainer
from audit_core.explainers.base import READS
from audit_core.fills import FILLS, FillContext
from audit_core.keys import Choice, key
from audit_core.params import Between, OneOf, Parameter
from audit_core.readouts import BADGES, relation
from audit_core.types import Attribution

TARGET = torch.tensor([2, 0, 1])
CHEAP = {"n_masks": 600}  # in place of a default, where an entry has a parameter of this name
TOLERANCE = 1e-5  # between one by one and all at once; the logits' own tolerance


class Planned(Exception):
    """Raised on purpose."""


def built(name: str, **params: Any) -> Explainer:
    cheap = {k: v for k, v in CHEAP.items() if k in EXPLAINERS.parameters(name)}
    return EXPLAINERS.build(Choice(name, tuple({**cheap, **params}.items())))


def fresh(model: str) -> Classifier:
    return tiny.classifier(tiny.MODELS[model]())


CELLS = [
    (name, model) for name in EXPLAINERS for model in tiny.MODELS
    if EXPLAINERS.build(Choice(name)).refuse(tiny.MODELS[model]()[0]) is None
]
ALL_PARAMETERS = [
    (registry, name, parameter)
    for registry in (EXPLAINERS, FILLS) for name in registry for parameter in registry.parameters(name)
]


@pytest.fixture(scope="module")
def first_result() -> dict[tuple[str, str], Attribution]:
    """The map of every cell, computed once for the tests that compare with it."""
    return {}


def base_map(known: dict[tuple[str, str], Attribution], name: str, model: str) -> Attribution:
    if (name, model) not in known:
        known[name, model] = built(name).attribute(fresh(model), tiny.images(3), TARGET, 7)
    return known[name, model]


@pytest.mark.parametrize("name", EXPLAINERS)
def test_explainer_is_described(name: str) -> None:
    entry = EXPLAINERS[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert entry.title.strip()
    assert entry.reads in READS
    assert isinstance(entry.all_classes, bool)
    assert len(EXPLAINERS.help(name)) > 40
    assert len({EXPLAINERS[other].title for other in EXPLAINERS}) == len(EXPLAINERS)


@pytest.mark.parametrize("model", tiny.MODELS)
@pytest.mark.parametrize("name", EXPLAINERS)
def test_explainer_refuses_with_the_reason_or_states_its_cost(name: str, model: str) -> None:
    card = tiny.MODELS[model]()[0]
    explainer = EXPLAINERS.build(Choice(name))
    reason = explainer.refuse(card)
    if reason is not None:
        assert card.name in reason
        assert len(reason.split()) > 5
        assert not reason.endswith(".")
    cost = explainer.cost(card)
    assert cost.forwards >= 0
    assert cost.backwards >= 0
    assert relation(explainer.reads, card).badge in BADGES


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_maps_are_finite_float32_of_the_images_size(
    name: str, model: str, first_result: dict[tuple[str, str], Attribution]
) -> None:
    found = base_map(first_result, name, model)
    assert found.values.shape == (3, 16, 16)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()
    np.testing.assert_array_equal(found.target, TARGET.numpy())
    if not found.signed:
        assert found.values.min() >= 0
    if found.error is not None:
        assert found.error.shape == found.values.shape
        assert (found.error >= 0).all()
        assert np.isfinite(found.error).all()


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_stated_evaluations_are_those_spent(name: str, model: str) -> None:
    found, explainer = fresh(model), built(name)
    spent = explainer.attribute(found, tiny.images(2), TARGET[:2], 7)
    cost = explainer.cost(found.card)
    assert spent.forwards == found.forwards <= 2 * cost.forwards
    assert spent.backwards <= 2 * cost.backwards


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_maps_are_deterministic_and_leave_the_input_alone(
    name: str, model: str, first_result: dict[tuple[str, str], Attribution]
) -> None:
    pixels, target = tiny.images(3), TARGET.clone()
    again = built(name).attribute(fresh(model), pixels, target, 7)
    np.testing.assert_allclose(again.values, base_map(first_result, name, model).values, atol=TOLERANCE)
    assert torch.equal(pixels, tiny.images(3))
    assert torch.equal(target, TARGET)
    assert not pixels.requires_grad


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_maps_do_not_depend_on_the_rest_of_the_batch(
    name: str, model: str, first_result: dict[tuple[str, str], Attribution]
) -> None:
    found, pixels, whole = fresh(model), tiny.images(3), base_map(first_result, name, model)
    for n in (2, 0):
        alone = built(name).attribute(found, pixels[n : n + 1], TARGET[n : n + 1], 7)
        np.testing.assert_allclose(alone.values[0], whole.values[n], atol=TOLERANCE)


def used(model: str) -> nn.Module:
    """A module whose owner has put modes, frozen weights, gradients and hooks of their own."""
    module = tiny.MODELS[model]()[1]
    next(module.parameters()).requires_grad_(False)
    with torch.enable_grad():
        module(tiny.images(1)).sum().backward()
    module.register_forward_hook(lambda *_: None)
    next(module.children()).register_forward_pre_hook(lambda *_: None)
    module.train()
    next(part for part in module.modules() if not list(part.children())).eval()
    return module


TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def snapshot(module: nn.Module) -> dict[str, Any]:
    return {
        "modes": [part.training for part in module.modules()],
        "hooks": [[list(getattr(part, table).items()) for table in TABLES] for part in module.modules()],
        "fused": [getattr(part, "fused_attn", None) for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "gradient objects": [id(p.grad) for p in module.parameters()],
        "gradients": [None if p.grad is None else p.grad.numpy().tobytes() for p in module.parameters()],
        "values": [value.detach().numpy().tobytes() for value in module.state_dict().values()],
    }


@pytest.mark.parametrize("fails_after", [None, 0, 2])
@pytest.mark.parametrize(("name", "model"), CELLS)
def test_the_model_is_as_found(name: str, model: str, fails_after: int | None) -> None:
    """Also after an exception in the n-th forward pass; the guard over global generators watches every test."""
    module = used(model)
    found = Classifier(tiny.MODELS[model]()[0], module, tiny.CPU)
    before = snapshot(module)
    if fails_after is not None:
        calls = iter(range(fails_after + 1))
        inner = type(module).forward

        def failing(x: torch.Tensor) -> torch.Tensor:
            if next(calls, None) == fails_after:
                raise Planned("planned failure")
            return inner(module, x)

        module.forward = failing
    try:
        built(name).attribute(found, tiny.images(2), TARGET[:2], 7)
    except Planned:
        assert fails_after is not None
    module.__dict__.pop("forward", None)
    after = snapshot(module)
    for what in before:
        assert after[what] == before[what], what
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_a_planned_failure_comes_through_unchanged(name: str, model: str) -> None:
    if EXPLAINERS.build(Choice(name)).cost(tiny.MODELS[model]()[0]).forwards == 0:
        found = fresh(model)
        found.module.forward = None  # never called
        built(name).attribute(found, tiny.images(1), TARGET[:1], 7)
        return
    found = fresh(model)

    def failing(x: torch.Tensor) -> torch.Tensor:
        raise IndexError("planned failure")

    found.module.forward = failing
    with pytest.raises(IndexError, match="planned failure"):
        built(name).attribute(found, tiny.images(1), TARGET[:1], 7)


def others(parameter: Parameter, model: str) -> Iterator[Any]:
    """Values besides the default, the cheap ones first; layer names come from the card."""
    default, limit = CHEAP.get(parameter.name, parameter.default), parameter.limit
    if isinstance(limit, OneOf):
        yield from (option for option in limit.options if option != default)
    elif parameter.type is bool:
        yield not default
    elif isinstance(limit, Between):
        near = (default / 2, default + 1, default + 0.3, limit.low, min(limit.high, 0.5), min(limit.high, 1.0))
        for value in near:
            value = parameter.type(value)
            if limit.low <= value <= limit.high and value != default:
                yield value
    else:
        yield from (layer.name for layer in tiny.MODELS[model]()[0].feature_layers)


@pytest.mark.parametrize(("registry", "name", "parameter"), ALL_PARAMETERS, ids=str)
def test_parameter_is_documented_and_part_of_the_key(registry: Any, name: str, parameter: str) -> None:
    found = registry.parameters(name)[parameter]
    assert len(found.limit.help) > 5
    assert found.parse(found.default, name) == found.default, "the default must be allowed"
    assert found.parse(str(found.default), name) == found.default, "text must do as well"
    keys = {key(choice=registry.complete(Choice(name)))}
    values = list(others(found, "vit"))
    assert values
    for value in values:
        keys.add(key(choice=registry.complete(Choice(name, ((parameter, value),)))))
    assert len(keys) >= 2


def test_every_explainer_has_a_cell_but_the_one_that_needs_a_file() -> None:
    assert set(EXPLAINERS) - {name for name, _ in CELLS} == {"outside"}


@pytest.mark.parametrize(
    ("name", "parameter"), [(n, p) for r, n, p in ALL_PARAMETERS if r is EXPLAINERS and n != "outside"], ids=str
)
def test_every_explainer_parameter_does_something(name: str, parameter: str) -> None:
    """On at least one model, some value besides the default gives another map."""
    for model in [model for cell, model in CELLS if cell == name]:
        found, pixels = fresh(model), tiny.images(1)
        base = built(name).attribute(found, pixels, TARGET[:1], 7).values
        for value in others(EXPLAINERS.parameters(name)[parameter], model):
            changed = built(name, **{parameter: value}).attribute(found, pixels, TARGET[:1], 7).values
            if np.abs(changed - base).max() > 10 * TOLERANCE * np.abs(base).max():
                return
    pytest.fail(f"no value of {parameter} changed a map of {name}")


# Fills


def context(channels: int = 1, size: int = 16, seed: int = 3) -> FillContext:
    rest = tiny.images(10, size, channels, seed=9)
    return FillContext((0.3, 0.4, 0.5)[:channels], (0.5, 0.4, 0.3)[:channels], rest[0], rest[1], seed, rest[2:])


def some_changed(n: int, size: int = 16) -> torch.Tensor:
    """Bool (n, size, size): nothing, everything, and random thirds."""
    changed = torch.rand(n, size, size, generator=torch.Generator().manual_seed(1)) < 0.3
    changed[0], changed[1] = False, True
    return changed


def filled(name: str, pixels: torch.Tensor, changed: torch.Tensor, about: FillContext, **params: Any) -> torch.Tensor:
    fill = FILLS.build(Choice(name, tuple(params.items())))
    return fill.apply(pixels, changed, fill.substrate(pixels, about))


@pytest.mark.parametrize("name", FILLS)
def test_fill_is_described(name: str) -> None:
    assert FILLS[name].title.strip()
    assert len(FILLS.help(name)) > 40
    assert len({FILLS[other].title for other in FILLS}) == len(FILLS)
    fill = FILLS.build(Choice(name))
    assert fill.refuse(context()) is None
    reason = fill.refuse(FillContext((0.3,), (0.5,)))
    assert reason is None or len(reason.split()) > 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILLS)
def test_fill_changes_exactly_the_changed_pixels(name: str, channels: int) -> None:
    pixels, changed = tiny.images(4, channels=channels), some_changed(4)
    result = filled(name, pixels, changed, context(channels))
    assert result.shape == pixels.shape
    assert result.dtype == torch.float32
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    outside = ~changed[:, None].expand_as(pixels)
    assert torch.equal(result[outside], pixels[outside]), "kept pixels must keep their bits"
    assert (result[~outside] != pixels[~outside]).float().mean() > 0.9
    substrate = FILLS.build(Choice(name)).substrate(pixels, context(channels))
    assert torch.equal(result[1], substrate[1]), "with everything changed the substrate is left"
    if FILLS[name].static:
        assert torch.equal(result, torch.where(outside, pixels, substrate))


@pytest.mark.parametrize("name", FILLS)
def test_fill_is_deterministic_and_leaves_its_input_alone(name: str) -> None:
    pixels, changed, about = tiny.images(4), some_changed(4), context()
    given = (pixels, changed, about.dataset_mean, about.reference, about.others)
    kept = [tensor.clone() for tensor in given]
    first = filled(name, pixels, changed, about)
    assert torch.equal(first, filled(name, pixels, changed, about))
    substrate = FILLS.build(Choice(name)).substrate(pixels, about)
    substrate.fill_(7)  # a caller's own tensor
    assert all(torch.equal(before, after) for before, after in zip(kept, given, strict=True))
    assert torch.equal(first, filled(name, pixels, changed, about))


@pytest.mark.parametrize("name", FILLS)
def test_fill_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    pixels, changed = tiny.images(4), some_changed(4)
    whole = filled(name, pixels, changed, context())
    for n in range(4):
        assert torch.equal(filled(name, pixels[n : n + 1], changed[n : n + 1], context())[0], whole[n])


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_without_what_it_needs_refuses(name: str) -> None:
    fill, bare = FILLS.build(Choice(name)), replace(context(), dataset_mean=None, reference=None, others=None)
    reason = fill.refuse(bare)
    if reason is None:
        assert torch.equal(fill.substrate(tiny.images(2), bare), fill.substrate(tiny.images(2), context()))
        return
    with pytest.raises(Refused, match=re.escape(reason)):
        fill.substrate(tiny.images(2), bare)


@pytest.mark.parametrize(("name", "parameter"), [(n, p) for r, n, p in ALL_PARAMETERS if r is FILLS], ids=str)
def test_every_fill_parameter_does_something(name: str, parameter: str) -> None:
    pixels, changed = tiny.images(3), some_changed(3)
    base = filled(name, pixels, changed, context())
    values = others(FILLS.parameters(name)[parameter], "vit")
    assert any(not torch.equal(filled(name, pixels, changed, context(), **{parameter: v}), base) for v in values)
