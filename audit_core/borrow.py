"""Lend a model: whatever happens inside, hooks, modes, gradients and global random state are as found afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_HOOK_TABLES = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


@contextmanager
def borrowed(module: nn.Module) -> Iterator[nn.Module]:
    """``module`` in eval mode with frozen parameters; restored on the way out, also after an exception."""
    training = [(m, m.training) for m in module.modules()]
    gradients = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    hooks = _hooks(module)
    with untouched_random_state():
        try:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None  # a backward inside would otherwise add to the owner's tensor
            yield module
        finally:
            for child, flag in training:
                child.training = flag
            for parameter, flag, gradient in gradients:
                parameter.requires_grad_(flag)
                parameter.grad = gradient
            _restore_hooks(hooks)


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Python, numpy and torch global generators (CPU and CUDA) keep their state over the block."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  (global state is saved, not used)
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def _hooks(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    tables = [getattr(m, name) for m in module.modules() for name in _HOOK_TABLES if hasattr(m, name)]
    return [(table, dict(table)) for table in tables]


def _restore_hooks(hooks: list[tuple[dict[Any, Any], dict[Any, Any]]]) -> None:
    for table, before in hooks:
        if list(table.items()) != list(before.items()):
            table.clear()
            table.update(before)  # in the order in which their owner added them
