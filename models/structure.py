"""What a model looks like inside, asked of the model itself: feature layers, readout and attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from models.cards import UNKNOWN, FeatureLayer

_GATES = (
    "cbam",
    "squeezeexcite",
    "semodule",
    "effectivese",
    "eca",
    "gatherexcite",
    "globalcontext",
    "splitattn",
    "channelattn",
    "spatialattn",
)


@dataclass(frozen=True)
class _Trace:
    """Shape of the tensor that each module took and gave in one pass, and the order of the first calls."""

    taken: dict[str, tuple[int, ...]]
    given: dict[str, tuple[int, ...]]


def describe(
    module: nn.Module, input_size: tuple[int, int], channels: int
) -> tuple[tuple[FeatureLayer, ...], str, str]:
    """(feature layers, readout, attention) of ``module``, derived from a pass over one image of zeros.

    Feature layers stand in order of depth at a quarter of the input's resolution or less; the last block of a
    transformer is read at its first norm, because only its class token reaches the head. readout: "CLS token",
    "mean of tokens", "attention pool", "global average pool" or "unknown"; attention: "global" (over all
    tokens), "windowed", "auxiliary" (gates between convolutions), "none" or "unknown". Hooks, training flags
    and the global random state are left as found; the forward pass's own errors are passed on.
    """
    with _borrowed(module):
        image = _zeros(module, input_size, channels)
        trace = _trace(module, image)
        layers = _feature_layers(module, trace, input_size)
        readout = _declared_readout(module, layers)
        if readout == UNKNOWN and layers and _pool_name(module) is None:
            readout = _probed_readout(module, image, layers[-1])
        if readout == "CLS token":
            layers = _patches_that_matter(layers, trace)
    return layers, readout, _attention(module, trace, layers)


@contextmanager
def _borrowed(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and a random state of its own; everything is given back as it was.

    Not ``inference_mode``: a tensor that a model caches in it (rotary embeddings) could never meet autograd again.
    """
    flags = [(part, part.training) for part in module.modules()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, training in flags:
                part.training = training


def _zeros(module: nn.Module, input_size: tuple[int, int], channels: int) -> torch.Tensor:
    parameter = next(module.parameters())
    return torch.zeros((1, channels, *input_size), device=parameter.device, dtype=parameter.dtype)


@contextmanager
def _hooked(handles: list[Any]) -> Iterator[None]:  # Any: torch's removable handles, of several private classes
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _trace(module: nn.Module, image: torch.Tensor) -> _Trace:
    taken: dict[str, tuple[int, ...]] = {}
    given: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name not in given and isinstance(output, torch.Tensor):
                given[name] = tuple(output.shape)
            if inputs and isinstance(inputs[0], torch.Tensor):
                taken.setdefault(name, tuple(inputs[0].shape))

        return note

    with _hooked([part.register_forward_hook(watch(name)) for name, part in module.named_modules()]):
        module(image)
    return _Trace(taken, given)


def _feature_layers(module: nn.Module, trace: _Trace, size: tuple[int, int]) -> tuple[FeatureLayer, ...]:
    wanted = [(info.get("module", ""), info.get("num_chs", 0)) for info in getattr(module, "feature_info", [])]
    wanted = [(_before_norm(module, trace, name), count) for name, count in wanted if name in trace.given]
    found = [_read(module, trace, name, count) for name, count in wanted or _last_per_grid(module, trace)]
    layers = [layer for layer in found if layer is not None]
    coarse = [layer for layer in layers if 4 * layer.grid[0] <= size[0] and 4 * layer.grid[1] <= size[1]]
    layers = coarse or layers
    tokens = bool(layers) and all(layer.layout == "tokens" for layer in layers)
    word = "block" if tokens else "stage"
    return tuple(
        FeatureLayer(f"{word}{i + 1}", x.module, x.layout, x.grid, x.prefix_tokens) for i, x in enumerate(layers)
    )


def _patches_that_matter(layers: tuple[FeatureLayer, ...], trace: _Trace) -> tuple[FeatureLayer, ...]:
    """The layers with the last block read at its first norm, where its patches still reach the class token."""
    last = layers[-1]
    if not last.prefix_tokens or f"{last.module}.norm1" not in trace.given:
        return layers
    return (*layers[:-1], replace(last, module=f"{last.module}.norm1"))


def _before_norm(module: nn.Module, trace: _Trace, name: str) -> str:
    """The sibling before a batch norm, where it has the same output shape: the stage itself, not its norm."""
    if not isinstance(module.get_submodule(name), nn.BatchNorm2d):
        return name
    parent, _, own = name.rpartition(".")
    siblings = [child for child, _ in module.get_submodule(parent).named_children()]
    place = siblings.index(own)
    before = f"{parent}.{siblings[place - 1]}".lstrip(".") if place else name
    return before if trace.given.get(before) == trace.given[name] else name


def _last_per_grid(module: nn.Module, trace: _Trace) -> list[tuple[str, int]]:
    """The last direct child at each resolution, for models without ``feature_info``: (name, channels)."""
    last: dict[tuple[int, ...], tuple[str, int]] = {}
    for name, shape in trace.given.items():
        if name and "." not in name and len(shape) == 4 and min(shape[2:]) > 1:
            last[shape[2:]] = (name, shape[1])
    return list(last.values())


def _read(module: nn.Module, trace: _Trace, name: str, channels: int) -> FeatureLayer | None:
    """Layout and grid of one module's output; None where it holds no spatial grid."""
    shape = trace.given.get(name, ())
    if len(shape) == 4:
        last = getattr(module, "output_fmt", None) == "NHWC" or (shape[3] == channels and shape[1] != channels)
        rows, columns = shape[1:3] if last else shape[2:4]
        return FeatureLayer("", name, "NHWC" if last else "NCHW", (rows, columns))
    if len(shape) == 3:
        return _read_tokens(module, name, shape[1])
    return None


def _read_tokens(module: nn.Module, name: str, count: int) -> FeatureLayer | None:
    prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    declared = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    for before in dict.fromkeys((prefix, 0, 1)):
        if declared is not None and math.prod(declared) == count - before:
            return FeatureLayer("", name, "tokens", (int(declared[0]), int(declared[1])), before)
        side = math.isqrt(max(count - before, 0))
        if side and side * side == count - before:
            return FeatureLayer("", name, "tokens", (side, side), before)
    return None


def _pool_name(module: nn.Module) -> str | None:
    """timm's word for the pooling ("avg", "token", "map", …); None where the model declares none."""
    for owner in (module, getattr(module, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if isinstance(pool, str):
            return pool
        if isinstance(pool, nn.Module):
            if "AttentionPool" in type(pool).__name__:
                return "map"
            return str(getattr(pool, "pool_type", "")) or UNKNOWN
    if any("AttentionPool" in type(child).__name__ for child in module.children()):
        return "map"
    return None


def _declared_readout(module: nn.Module, layers: tuple[FeatureLayer, ...]) -> str:
    pool, tokens = _pool_name(module), bool(layers) and layers[-1].layout == "tokens"
    if any("AttentionPool" in type(part).__name__ for _, part in _near(module)) or pool == "map":
        return "attention pool"
    if pool == "token" and tokens:
        return "CLS token"
    if pool == "avg":
        return "mean of tokens" if tokens else "global average pool"
    return UNKNOWN


def _near(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules at most one level down: where heads and their pools live."""
    return ((name, part) for name, part in module.named_modules() if name.count(".") <= 1)


def _probed_readout(module: nn.Module, image: torch.Tensor, layer: FeatureLayer) -> str:
    """Put noise in place of the last features and see whether the head's last linear layer receives its mean."""
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linears:
        return UNKNOWN
    rng, sent, received = torch.Generator().manual_seed(0), [], []

    def send(part: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        sent.append(torch.randn(output.shape, generator=rng).to(output))
        return sent[-1].clone()

    def receive(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        received.append(inputs[0])

    with _hooked(
        [module.get_submodule(layer.module).register_forward_hook(send), linears[-1].register_forward_pre_hook(receive)]
    ):
        module(image)
    if not sent or not received:
        return UNKNOWN
    noise = sent[-1][:, layer.prefix_tokens :] if layer.layout == "tokens" else sent[-1]
    mean = noise.mean(dim={"NCHW": (2, 3), "NHWC": (1, 2), "tokens": (1,)}[layer.layout])
    if received[-1].shape == mean.shape and torch.allclose(received[-1], mean, atol=1e-5):
        return "mean of tokens" if layer.layout == "tokens" else "global average pool"
    return UNKNOWN


def _attention(module: nn.Module, trace: _Trace, layers: tuple[FeatureLayer, ...]) -> str:
    kinds = {type(part).__name__.lower() for part in module.modules()}
    if any("windowattention" in kind for kind in kinds):
        return "windowed"
    if layers and layers[-1].layout == "tokens":
        blocks = [part for name, part in module.named_modules() if name.startswith("blocks.") and name.count(".") == 1]
        if any(getattr(block, "window_size", 0) for block in blocks):
            return "windowed"
        count = layers[0].prefix_tokens + math.prod(layers[0].grid)
        if blocks and all(_sees_all(f"blocks.{i}.attn", block, trace, count) for i, block in enumerate(blocks)):
            return "global"
    gates = {kind for kind in kinds if any(word in kind for word in _GATES)}
    others = {kind for kind in kinds if "attention" in kind or "attn" in kind or "mla" in kind} - gates
    if others:
        return UNKNOWN
    return "auxiliary" if gates else "none"


def _sees_all(name: str, block: nn.Module, trace: _Trace, count: int) -> bool:
    """Whether a block holds timm's softmax attention (``attn`` with ``attn_drop``) over all ``count`` tokens."""
    attention = getattr(block, "attn", None)
    softmax = "Attention" in type(attention).__name__ and hasattr(attention, "attn_drop")
    return softmax and trace.taken.get(name, (0, 0))[1:2] == (count,)
