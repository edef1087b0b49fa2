"""A borrowed model comes back as it was, whatever happened meanwhile."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from audit_core.borrow import borrowed, untouched_random_state


class Planned(Exception):
    """Raised on purpose."""


def state(module: nn.Module) -> dict[str, object]:
    """Everything that a loan may not change, by object identity where it matters."""
    tables = (
        "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    )
    return {
        "training": [(name, part.training) for name, part in module.named_modules()],
        "hooks": [[(k, id(h)) for k, h in getattr(part, t).items()] for part in module.modules() for t in tables],
        "requires_grad": [(name, p.requires_grad) for name, p in module.named_parameters()],
        "grad": [id(p.grad) for p in module.parameters()],
        "grad values": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "values": {name: value.tolist() for name, value in module.state_dict().items()},
    }


def used_model() -> nn.Module:
    """A model in the middle of somebody's work: mixed modes, a frozen parameter, a gradient, hooks of its own."""
    module = tiny.cnn()[1]
    module.train()
    module.norm.eval()
    module.conv1.bias.requires_grad_(False)
    module(tiny.images(2)).sum().backward()
    module.conv2.register_forward_hook(lambda *_: None)
    module.register_forward_pre_hook(lambda *_: None)
    module.head.register_full_backward_hook(lambda *_: None)
    return module


def misuse(module: nn.Module) -> None:
    """What careless explainers do."""
    for part in module.modules():
        part.register_forward_hook(lambda *_: None)
        part.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        part.register_full_backward_hook(lambda *_: None)
        part.register_full_backward_pre_hook(lambda *_: None)
    module.conv2._forward_hooks.clear()
    module.train()
    module.conv1.weight.requires_grad_(True)
    module.norm.eval()
    module(tiny.images(2)).sum().backward()
    module.head.weight.grad = None
    module.zero_grad()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_found(fails: bool) -> None:
    with torch.random.fork_rng(devices=[]):  # dropout in training mode draws
        module = used_model()
    before, gradient = state(module), module.head.weight.grad
    try:
        with borrowed(module):
            misuse(module)
            if fails:
                raise Planned
    except Planned:
        assert fails
    after = state(module)
    for name in before:
        assert after[name] == before[name], name
    assert module.head.weight.grad is gradient


def test_inside_the_model_is_frozen_and_in_eval_mode() -> None:
    with torch.random.fork_rng(devices=[]):
        module = used_model()
    with borrowed(module) as inside:
        assert inside is module
        assert not any(part.training for part in inside.modules())
        assert not any(parameter.requires_grad for parameter in inside.parameters())
        assert len(inside.conv2._forward_hooks) == 1  # the owner's hook stays in force


def test_the_owners_hooks_keep_their_order_and_still_run() -> None:
    module, calls = tiny.cnn()[1], []
    module.conv1.register_forward_hook(lambda *_: calls.append("first"))
    second = module.conv1.register_forward_hook(lambda *_: calls.append("second"))
    with borrowed(module):
        module.conv1._forward_hooks.clear()
        module.conv1.register_forward_hook(lambda *_: calls.append("guest"))
    module(tiny.images(1))
    assert calls == ["first", "second"]
    second.remove()
    module(tiny.images(1))
    assert calls == ["first", "second", "first"]


def test_loans_nest() -> None:
    module = tiny.cnn()[1].train()
    with borrowed(module):
        with borrowed(module):
            pass
        assert not module.training
    assert module.training


@pytest.mark.parametrize("fails", [False, True])
def test_global_generators_are_untouched(fails: bool) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        with untouched_random_state():
            random.random()
            np.random.rand(3)  # noqa: NPY002
            torch.rand(3)
            torch.manual_seed(0)
            if fails:
                raise Planned
    except Planned:
        assert fails
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[2])
