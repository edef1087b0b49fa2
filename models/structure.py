"""What a model looks like inside, asked of the model itself: feature layers, readout and attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models.cards import UNKNOWN, FeatureLayer

#: What :func:`describe` can say about the readout and the attention, besides "unknown".
READOUTS = (
    "global average pool",
    "mean of tokens",
    "CLS token",
    "class attention",
    "distillation token",
    "attention pool",
    "flattened map",
)
ATTENTIONS = ("global", "windowed", "auxiliary", "none")

_GATES = (
    "cbam",
    "squeezeexcite",
    "semodule",
    "effectivese",
    "ecamodule",
    "gatherexcite",
    "globalcontext",
    "splitattn",
    "selectivekernel",
    "channelattn",
    "spatialattn",
)
_NO_MATRIX = ("xca", "crosscovariance", "channelattention", "lambdalayer", "linearselfattention")  # of positions


@dataclass(frozen=True)
class _Trace:
    """Shape of the tensor that each module took and gave in one pass, and the order of the first calls."""

    taken: dict[str, tuple[int, ...]]
    given: dict[str, tuple[int, ...]]


def describe(
    module: nn.Module, input_size: tuple[int, int], channels: int
) -> tuple[tuple[FeatureLayer, ...], str, str]:
    """(feature layers, readout, attention) of ``module``, derived from passes over an image of noise.

    Feature layers stand in order of depth at a quarter of the input's resolution or less; the last block of a
    transformer is read at its first norm where only its class token reaches the head. readout, one of ``READOUTS``
    or "unknown": put noise in place of the last tensor that still has positions, and see what the score answers to.
    attention, one of ``ATTENTIONS`` or "unknown": "global" (over all tokens of a stage), "windowed" (in groups),
    "auxiliary" (gates between convolutions). Hooks, training flags and the global random state are left as
    found; the forward pass's own errors are passed on.
    """
    with _borrowed(module):
        image = _noise(module, input_size, channels)
        trace = _trace(module, image)
        layers = _feature_layers(module, trace, input_size)
        pooled = _last_with_positions(module, image, layers[-1].grid if layers else None)
        readout = _readout(module, image, pooled, layers)
        layers = layers or _only_layer(pooled, readout, input_size)
        attention = _attention(module, image, trace, layers, readout)
        if readout in ("global average pool", "mean of tokens"):
            layers = _pooled_last(module, image, pooled, layers)
        if readout in ("CLS token", "distillation token"):
            layers = _patches_that_matter(layers, trace)
    return layers, readout, attention


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


def _noise(module: nn.Module, input_size: tuple[int, int], channels: int) -> torch.Tensor:
    """One image: noise, because without biases an image of zeros leaves nothing to see."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn((1, channels, *input_size), generator=rng).to(next(module.parameters()))


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
    layers = [layer for layer in found if layer is not None and _like_the_image(layer.grid, size)]
    coarse = [layer for layer in layers if 4 * layer.grid[0] <= size[0] and 4 * layer.grid[1] <= size[1]]
    layers = coarse or layers
    tokens = bool(layers) and all(layer.layout == "tokens" for layer in layers)
    word = "block" if tokens else "stage"
    return tuple(
        FeatureLayer(f"{word}{i + 1}", x.module, x.layout, x.grid, x.prefix_tokens) for i, x in enumerate(layers)
    )


def _like_the_image(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether the grid has the image's aspect, up to a cell: tables of positions often have not."""
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


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


@dataclass(frozen=True)
class _Place:
    """The last module whose output still has positions: its output's layout, grid and tokens before the patches."""

    module: str
    layout: str
    grid: tuple[int, int]
    prefix_tokens: int


def _has_positions(shape: tuple[int, ...]) -> bool:
    """Whether, besides the batch, more than the channels are left."""
    return sum(n > 1 for n in shape[1:]) > 1


def _last_with_positions(module: nn.Module, image: torch.Tensor, grid: tuple[int, int] | None) -> _Place | None:
    """Where the score stops being spatial; ``grid`` is that of the last feature layer, None where none is known."""
    last: list[tuple[str, tuple[int, ...]]] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, torch.Tensor) and len(output) == 1 and _has_positions(tuple(output.shape)):
                last[:] = [(name, tuple(output.shape))]

        return note

    with _hooked([part.register_forward_hook(watch(name)) for name, part in module.named_modules() if name]):
        module(image)
    return _place(module, *last[0], grid) if last else None


def _place(module: nn.Module, name: str, shape: tuple[int, ...], grid: tuple[int, int] | None) -> _Place | None:
    if len(shape) == 3:
        before = shape[1] - math.prod(grid) if grid else 0
        layer = _read_tokens(module, name, shape[1]) if before < 0 or grid is None else None
        if layer is not None:
            return _Place(name, "tokens", layer.grid, layer.prefix_tokens)
        return _Place(name, "tokens", grid, before) if grid and before >= 0 else None
    if len(shape) != 4:
        return None
    own = getattr(module, "output_fmt", None) == "NHWC"
    last = own if shape[1] == shape[2] == shape[3] else shape[1:3] == grid or (shape[1] == shape[2] != shape[3])
    rows, columns = shape[1:3] if last and shape[2:] != grid else shape[2:]
    return _Place(name, "NHWC" if (rows, columns) != shape[2:] or own else "NCHW", (rows, columns), 0)


def _only_layer(place: _Place | None, readout: str, size: tuple[int, int]) -> tuple[FeatureLayer, ...]:
    """The place itself as the only feature layer, for models that name none whose output is one tensor."""
    if place is None or min(place.grid) < 2 or not _like_the_image(place.grid, size) or "token" in readout.split():
        return ()  # only the score token is read there, its patches reach nothing
    return (FeatureLayer("stage1", place.module, place.layout, place.grid, place.prefix_tokens),)


@dataclass(frozen=True)
class _Answers:
    """What the score does when noise stands at a place.

    patches, prefix: whether it changes with the patches, and with which of the tokens before them; order: whether
    it changes when patches change places; additive: whether the first vector after the place is a sum of terms,
    each from one position.
    """

    patches: bool
    prefix: tuple[int, ...]
    order: bool
    additive: bool


def _answers(module: nn.Module, image: torch.Tensor, place: _Place) -> _Answers:
    """Evaluate the place's output replaced by: b; b shuffled; a; a and b exchanged on half; b with a's token i."""
    vectors: list[torch.Tensor] = []
    rows = 5 + place.prefix_tokens

    def put(part: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        vectors.clear()  # what came before the place is no readout of it
        return _probes(output[:1], place)

    def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for value in (*inputs[:1], output):
            if isinstance(value, torch.Tensor) and len(value) == rows and not _has_positions(tuple(value.shape)):
                vectors.append(value.flatten(1).clone())  # an activation in place may follow

    watched = [part.register_forward_hook(note) for name, part in module.named_modules() if name]
    with _hooked([*watched, module.get_submodule(place.module).register_forward_hook(put)]):
        logits = module(image.expand(rows, -1, -1, -1))
    varied = [v for v in ([logits] if _differ(logits) else vectors) if _differ(v)]
    moved = [any(_unlike(v[0], v[row], v) for v in varied) for row in range(rows)]
    sums = [v for v in vectors[:1] if not _unlike(v[0] + v[2], v[3] + v[4], v)]
    return _Answers(moved[2], tuple(i for i in range(place.prefix_tokens) if moved[5 + i]), moved[1], bool(sums))


def _probes(output: torch.Tensor, place: _Place) -> torch.Tensor:
    """Rows of noise of the output's own scale, as :func:`_answers` lists them, in the place's layout."""
    rng = torch.Generator().manual_seed(0)
    scale = float(output.std()) or 1.0
    a, b = (scale * torch.randn((math.prod(place.grid), _channels(output, place)), generator=rng) for _ in range(2))
    half = torch.rand(len(a), 1, generator=rng) < 0.5
    half[:2] = torch.tensor([[True], [False]])
    patches = [b, b[torch.randperm(len(b), generator=rng)], a, torch.where(half, a, b), torch.where(half, b, a)]
    prefix = scale * torch.randn((2, place.prefix_tokens, a.shape[1]), generator=rng)
    rows = [torch.cat([prefix[0], patch]) for patch in patches]
    for i in range(place.prefix_tokens):
        changed = prefix[0].clone()
        changed[i] = prefix[1, i]
        rows.append(torch.cat([changed, b]))
    tokens = torch.stack(rows).to(output)
    if place.layout == "tokens":
        return tokens
    spread = tokens.unflatten(1, place.grid)
    return spread if place.layout == "NHWC" else spread.permute(0, 3, 1, 2).contiguous()


def _channels(output: torch.Tensor, place: _Place) -> int:
    return output.shape[1] if place.layout == "NCHW" else output.shape[-1]


def _differ(rows: torch.Tensor) -> bool:
    return bool((rows - rows[:1]).abs().max() > 1e-9)


def _unlike(one: torch.Tensor, other: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether two rows differ by more than rounding, in units of what varies among all rows."""
    return float((one - other).abs().max()) > 1e-3 * float((rows - rows[:1]).abs().max())


def _readout(module: nn.Module, image: torch.Tensor, place: _Place | None, layers: tuple[FeatureLayer, ...]) -> str:
    """Word for how the score is read, from what it answers to at the last place with positions."""
    if any("attentionpool" in type(part).__name__.lower() for _, part in _near(module)):
        return "attention pool"
    if place is None or math.prod((layers[-1] if layers else place).grid) < 2:
        return UNKNOWN  # of one position, every way of pooling is the same
    found = _answers(module, image, place)
    if not found.patches and found.prefix == (0,):
        late = bool(layers) and layers[-1].layout == "tokens" and not layers[-1].prefix_tokens
        return "class attention" if late else "CLS token"
    if not found.patches:
        return "distillation token" if found.prefix == (0, 1) else UNKNOWN
    if found.prefix or not found.additive:
        return UNKNOWN
    if found.order:
        return "flattened map"
    return "mean of tokens" if place.layout == "tokens" else "global average pool"


def _near(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules at most one level down: where heads and their pools live."""
    return ((name, part) for name, part in module.named_modules() if name.count(".") <= 1)


def _pooled_last(
    module: nn.Module, image: torch.Tensor, place: _Place | None, layers: tuple[FeatureLayer, ...]
) -> tuple[FeatureLayer, ...]:
    """The layers; the last becomes the pooled map itself where the model mixes positions between the two."""
    last = layers[-1] if layers else None
    if place is None or last is None or place.grid != last.grid or place.prefix_tokens != last.prefix_tokens:
        return layers
    found = _answers(module, image, _Place(last.module, last.layout, last.grid, last.prefix_tokens))
    if found.additive and not found.order:
        return layers
    return (*layers[:-1], FeatureLayer(last.name, place.module, place.layout, place.grid, place.prefix_tokens))


class _Matrices(TorchFunctionMode):
    """Notes the shape of every softmax over keys during a forward pass: (groups, heads, queries, keys) and others."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[nn.Module] = []
        self.shapes: list[tuple[int, ...]] = []
        self.others = False  # a softmax over channels, which relates no positions

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass every call on unchanged."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "scaled_dot_product_attention":
            self._note((*args[0].shape[:-1], args[1].shape[-2]))
        elif name == "softmax" and (args[1] if len(args) > 1 else kwargs.get("dim")) in (-1, args[0].ndim - 1):
            self._note(tuple(args[0].shape))
        return function(*args, **kwargs)

    def _note(self, shape: tuple[int, ...]) -> None:
        kinds = [type(part).__name__.lower() for part in self.inside]
        if any(word in kind for kind in kinds for word in _NO_MATRIX):
            self.others = True
        elif len(shape) > 2 and min(shape[-2:]) > 1 and not any(word in kinds[-1] for word in _GATES):
            heads = getattr(self.inside[-1], "num_heads", 0)
            merged = len(shape) == 3 and heads and shape[0] % heads == 0
            self.shapes.append((shape[0] // heads, heads, *shape[1:]) if merged else shape)


def _attention_matrices(module: nn.Module, image: torch.Tensor, last: FeatureLayer | None) -> _Matrices:
    """Every attention matrix formed for one image until the last feature layer has its output."""
    notes = _Matrices()
    done: list[bool] = []

    def leave(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        while notes.inside and notes.inside.pop() is not part:
            pass
        if last is not None and part is module.get_submodule(last.module):
            done.append(True)
            notes.shapes = list(notes.shapes)
            kept.extend(notes.shapes)

    kept: list[tuple[int, ...]] = []
    handles = [part.register_forward_pre_hook(lambda part, _: notes.inside.append(part)) for part in module.modules()]
    handles += [part.register_forward_hook(leave) for part in module.modules()]
    with _hooked(handles), notes:
        module(image)
    notes.shapes = kept if done else notes.shapes
    return notes


def _attention(
    module: nn.Module, image: torch.Tensor, trace: _Trace, layers: tuple[FeatureLayer, ...], readout: str
) -> str:
    """Word for the attention that makes the features, from the matrices that one image forms on its way."""
    matrices = _attention_matrices(module, image, layers[-1] if layers else None)
    groups = [math.prod(shape[:-3]) if len(shape) > 3 else shape[0] for shape in matrices.shapes]
    if any(count > 1 for count, shape in zip(groups, matrices.shapes, strict=True) if len(shape) > 3):
        return "windowed"
    if layers and layers[-1].layout == "tokens" and (layers[-1].prefix_tokens or readout == "CLS token"):
        return "global" if _every_block_sees_all(module, trace, layers[0]) else UNKNOWN
    if groups:
        return "global" if max(groups) == 1 else UNKNOWN
    kinds = {type(part).__name__.lower() for part in module.modules()}
    gates = {kind for kind in kinds if any(word in kind for word in _GATES)}
    others = {kind for kind in kinds if any(word in kind for word in ("attention", "attn", "litemla"))} - gates
    if matrices.others or {kind for kind in others if "attentionpool" not in kind}:
        return UNKNOWN
    return "auxiliary" if gates else "none"


def _every_block_sees_all(module: nn.Module, trace: _Trace, layer: FeatureLayer) -> bool:
    """Whether every block holds timm's softmax attention (``attn`` with ``attn_drop``) over all tokens."""
    count = layer.prefix_tokens + math.prod(layer.grid)
    blocks = [part for name, part in module.named_modules() if name.startswith("blocks.") and name.count(".") == 1]
    windowed = any(getattr(block, "window_size", 0) for block in blocks)
    return (
        bool(blocks)
        and not windowed
        and all(_sees_all(f"blocks.{i}.attn", block, trace, count) for i, block in enumerate(blocks))
    )


def _sees_all(name: str, block: nn.Module, trace: _Trace, count: int) -> bool:
    attention = getattr(block, "attn", None)
    softmax = "Attention" in type(attention).__name__ and hasattr(attention, "attn_drop")
    return softmax and trace.taken.get(name, (0, 0))[1:2] == (count,)
