"""Checkpoints that a user brings: read without executing anything, fitted strictly into a named architecture."""

from __future__ import annotations

import difflib
import hashlib
import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import nn

from models.architectures import ARCHITECTURES
from models.cards import UNKNOWN, FeatureLayer, ModelCard
from models.structure import describe
from models.zoo import Loaded

LIMIT = 2**30
NESTS = ("state_dict", "model_state_dict", "model", "net", "module", "weights", "state_dict_ema", "model_ema", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.")
SAFE_WAY = "save the state dict with safetensors.torch.save_file and bring that file"


class CheckpointError(ValueError):
    """A file that cannot be loaded safely, or does not fit the architecture: one sentence for the user."""


@dataclass(frozen=True)
class State:
    """Named tensors of a checkpoint file, and what was unwrapped to reach them."""

    tensors: dict[str, torch.Tensor]
    notes: tuple[str, ...] = ()


def read_state(data: bytes, name: str, limit: int = LIMIT) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint file, on the CPU; see :func:`read_checkpoint`."""
    return read_checkpoint(data, name, limit).tensors


def read_checkpoint(data: bytes, name: str, limit: int = LIMIT) -> State:
    """Read safetensors, or a torch ``.pt``/``.pth`` file through ``torch.load(weights_only=True)``, by content.

    Nothing from the file is executed. A nest such as ``{"state_dict": …}`` and the prefixes of parallel or
    compiled training are taken off and noted. limit: largest size of file and of tensors, in bytes.
    :class:`CheckpointError` for anything else: pickled objects, TorchScript, damaged files, NaN or infinite weights.
    """
    if not data:
        raise CheckpointError(f"{name} is empty; export the checkpoint again and upload the complete file")
    if len(data) > limit:
        raise CheckpointError(
            f"{name} has {_mib(len(data))}, more than the limit of {_mib(limit)}; bring a smaller checkpoint, "
            "without the optimizer state"
        )
    mapping, note = _unwrap(_reader(data, name)(data, name, limit), name)
    tensors, prefix = _strip(_dense(mapping, name, limit))
    notes = (*note, *([f"prefix {prefix!r} taken off all {len(tensors)} names"] if prefix else []))
    return State(tensors, notes)


def _reader(data: bytes, name: str) -> Callable[[bytes, str, int], object]:
    """The reader for the file's content, whatever its name says."""
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 100_000_000:
        return _read_safetensors
    if data[:4] == b"PK\x03\x04":
        return _read_zip
    if data[:1] == b"\x80":
        return _read_pickle
    if data[:6] == b"\x93NUMPY":
        raise CheckpointError(f"{name} is a NumPy array, not a checkpoint; {SAFE_WAY}")
    raise CheckpointError(
        f"{name} is neither safetensors nor a torch .pt/.pth file (it begins with {data[:8]!r}); {SAFE_WAY}"
    )


def _read_safetensors(data: bytes, name: str, limit: int) -> object:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise CheckpointError(
            f"{name} is a safetensors file that is damaged or cut short ({reason}); copy or download it again"
        ) from None


def _read_zip(data: bytes, name: str, limit: int) -> object:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError):
        raise CheckpointError(f"{name} is a zip file that is damaged or cut short; copy or download it again") from None
    parts = {entry.filename.rsplit("/", 1)[-1] for entry in entries}
    if (total := sum(entry.file_size for entry in entries)) > limit:
        raise CheckpointError(f"{name} unpacks to {_mib(total)}, the limit is {_mib(limit)}; bring a smaller one")
    if "constants.pkl" in parts:
        raise CheckpointError(f"{name} is a TorchScript archive, a program; nothing was executed; {SAFE_WAY}")
    if "data.pkl" not in parts:
        kind = "a NumPy archive" if any(part.endswith(".npy") for part in parts) else "a zip archive"
        raise CheckpointError(f"{name} is {kind} and holds no torch checkpoint; {SAFE_WAY}")
    return _read_pickle(data, name, limit)


def _read_pickle(data: bytes, name: str, limit: int) -> object:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken file may raise anything; each case becomes one sentence
        blocked = blocked_globals(data, str(error))
        if blocked:
            raise CheckpointError(
                f"{name} was refused because its pickle asks for {_some(blocked)} beyond plain tensors; "
                f"nothing was executed; {SAFE_WAY}"
            ) from None
        if "GLOBAL" in str(error) or "nsupported" in str(error):
            raise CheckpointError(
                f"{name} was refused because its pickle holds more than plain tensors; nothing was executed; {SAFE_WAY}"
            ) from None
        raise CheckpointError(
            f"{name} is a torch file that is damaged or cut short ({type(error).__name__}); copy or download it again"
        ) from None


def blocked_globals(data: bytes, message: str = "") -> list[str]:
    """Dotted names that a pickle wants to import and that plain tensors do not need; read, never imported.

    message: the error of ``torch.load``, searched where the file is not in torch's zip format.
    """
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
        return sorted(found)
    except Exception:
        named = re.findall(r"GLOBAL ([\w.]+)", message)
        return sorted(set(named)) or _pickled_globals(data)


def _pickled_globals(data: bytes) -> list[str]:
    """The imports of a bare pickle, from its opcodes alone."""
    found, texts = set(), [""]
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                found.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.add(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # cut short: what was read so far is still worth naming
        return sorted(found)
    return sorted(found)


def _unwrap(loaded: object, name: str) -> tuple[Mapping[object, object], tuple[str, ...]]:
    """The mapping that holds the tensors, and the path to it."""
    path: list[str] = []
    while isinstance(loaded, Mapping):
        inner = next((key for key in NESTS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None or len(path) == 3:
            break
        path.append(inner)
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping) or not loaded:
        found = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise CheckpointError(f"{name} holds {found}, not a dict of named tensors; {SAFE_WAY}")
    foreign = [
        f"{key} ({type(value).__name__})"
        for key, value in loaded.items()
        if not isinstance(key, str) or not isinstance(value, torch.Tensor)
    ]
    if foreign:
        entries = f"{len(foreign)} of {len(loaded)} entries that are no named tensors: {_some(foreign)}"
        raise CheckpointError(f"{name} holds {entries}; {SAFE_WAY}")
    return loaded, (f"read from {' / '.join(path)!r} inside the file",) if path else ()


def _dense(mapping: Mapping[object, object], name: str, limit: int) -> dict[str, torch.Tensor]:
    """The tensors, checked: ordinary memory, within the limit, finite."""
    tensors = {str(key): value.detach() for key, value in mapping.items() if isinstance(value, torch.Tensor)}
    odd = [
        key
        for key, value in tensors.items()
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu"
    ]
    if odd:
        raise CheckpointError(f"{name} holds sparse, quantized or complex tensors: {_some(odd)}; save dense ones")
    if (total := sum(value.numel() * value.element_size() for value in tensors.values())) > limit:
        raise CheckpointError(f"{name} unpacks to {_mib(total)}, the limit is {_mib(limit)}; bring a smaller one")
    # isfinite is not written for the 8-bit floats; float32 holds every float of fewer bits exactly
    broken = [
        key
        for key, value in tensors.items()
        if value.is_floating_point()
        and not bool(torch.isfinite(value.float() if value.element_size() < 4 else value).all())
    ]
    if broken:
        raise CheckpointError(
            f"{name} holds NaN or infinite weights in {len(broken)} of {len(tensors)} tensors: {_some(broken)}; "
            "bring a checkpoint from before the training diverged"
        )
    return tensors


def _strip(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Names without the prefixes that all of them share, and what was taken off."""
    taken = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        taken += prefix
    return tensors, taken


def load_into(module: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy ``state`` into ``module``, strictly; ``what`` opens the sentence when it does not fit.

    Derived buffers that the module recomputes itself (not part of its own state dict) are passed over.
    :class:`CheckpointError` counts missing and unexpected names and wrong shapes, with up to three examples of
    each and the likely cause; nothing is copied then.
    """
    module.load_state_dict(check_fit(module, state, what), strict=True)


def check_fit(module: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    """The part of ``state`` to copy into ``module`` (meta device allowed); raises as :func:`load_into` does."""
    own = module.state_dict()
    derived = {name for name, _ in module.named_buffers()} - set(own)
    given = {name: value for name, value in state.items() if name not in derived}
    if problem := misfit(module, own, given):
        raise CheckpointError(f"{what} does not fit: {problem}")
    return given


def misfit(module: nn.Module, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    """What keeps ``given`` from fitting the state dict ``own`` of ``module``, and the likely cause; "" when it fits."""
    missing, unexpected = [k for k in own if k not in given], [k for k in given if k not in own]
    other = [k for k in own if k in given and own[k].shape != given[k].shape]
    shapes = [f"{k} is {tuple(given[k].shape)}, the architecture wants {tuple(own[k].shape)}" for k in other]
    parts = [
        f"{len(found)} {word} ({_some(found)})"
        for found, word in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if found
    ]
    if not parts:
        return ""
    hints = {_hint(module, k, tuple(given[k].shape), tuple(own[k].shape)) for k in other}
    if other and "" not in hints and not missing and not unexpected:
        cause = f"give {' and '.join(sorted(hints))}"
    elif len(missing) > len(own) / 2:
        cause = "the file is of another architecture: name the one that it was trained with"
    else:
        cause = "the file is of another variant of this architecture: name that one, or give its --img-size"
    return f"{', '.join(parts)}; {cause}"


def _hint(module: nn.Module, name: str, got: tuple[int, ...], want: tuple[int, ...]) -> str:
    """The option that would mend one wrong shape; "" where none would."""
    classifiers, first = ends(module)
    owner = name.rpartition(".")[0]
    if owner in classifiers and got[1:] == want[1:]:
        return f"--num-classes {got[0]}"
    if owner == first and len(got) == len(want) == 4 and got[0] == want[0] and got[2:] == want[2:]:
        return f"--in-chans {got[1]}"
    if name == "pos_embed" and (side := _image_side(module, got)):
        return f"--img-size {side}"
    return ""


def ends(module: nn.Module) -> tuple[tuple[str, ...], str]:
    """(names of the classifier layers, name of the first convolution), from timm's declaration or by position."""
    declared = getattr(module, "pretrained_cfg", None) or {}
    last = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)][-1:]
    convolutions = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)][:1]
    classifiers, first = declared.get("classifier") or tuple(last), declared.get("first_conv") or "".join(convolutions)
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    return classifiers, first if isinstance(first, str) else first[0]


def _image_side(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Image side for which a position embedding of ``shape`` (1, tokens, channels) was made; 0 if unclear."""
    patches, own = getattr(module, "patch_embed", None), getattr(module, "pos_embed", None)
    grid, patch = getattr(patches, "grid_size", None), getattr(patches, "patch_size", None)
    if grid is None or patch is None or own is None or len(shape) != 3 or own.ndim != 3:
        return 0
    count = shape[1] - (own.shape[1] - math.prod(grid))
    side = math.isqrt(max(count, 0))
    return side * int(patch[0]) if side * side == count else 0


def build_timm(arch: str, num_classes: int, in_chans: int, img_size: int | None = None) -> nn.Module:
    """A fresh module of one of our definitions or of any timm architecture, never with downloaded weights.

    img_size is handed on where the architecture takes one; others see whatever size they are given. The global
    random state is left as found. :class:`CheckpointError` for an unknown name (with the nearest ones) or for
    numbers that the architecture refuses.
    """
    for option, value, low, high in (
        ("num_classes", num_classes, 2, 100_000),
        ("in_chans", in_chans, 1, 64),
        ("img_size", img_size or 64, 8, 2048),
    ):
        if not low <= value <= high:
            raise CheckpointError(f"{option} must be in [{low}, {high}], got {value}")
    known_architecture(arch)
    with torch.random.fork_rng(devices=[]):
        if arch in ARCHITECTURES:
            return _build_ours(arch, num_classes, in_chans, img_size)
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
        try:
            return _create(arch, {**options, "img_size": img_size} if img_size else options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return _create(arch, options)


def _create(arch: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(arch, pretrained=False, **options)
    except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise CheckpointError(f"{arch} cannot be built with {given} ({_line(error)}); choose other numbers") from None


def _build_ours(arch: str, num_classes: int, in_chans: int, img_size: int | None) -> nn.Module:
    module = ARCHITECTURES[arch].build(num_classes, in_chans)
    fixed = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if img_size and fixed and img_size != fixed[0]:
        raise CheckpointError(f"{arch} takes {fixed[0]} px images, img_size={img_size} was asked; leave img_size out")
    return module


def architecture_names() -> list[str]:
    """Every architecture that a checkpoint can be loaded into: ours first, then all of timm's."""
    return [*ARCHITECTURES, *timm.list_models()]


def known_architecture(arch: str) -> None:
    """Raise :class:`CheckpointError` with the nearest names unless ``arch`` is ours or one of timm's."""
    if arch in ARCHITECTURES or (":" not in arch and "/" not in arch and timm.is_model(arch)):
        return
    near = difflib.get_close_matches(arch, architecture_names(), n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "timm.list_models() lists the names that exist"
    raise CheckpointError(
        f"no architecture is called {arch!r}; {hint} (ours: {', '.join(sorted(ARCHITECTURES))}; any of timm's)"
    )


def load_custom(
    data: bytes,
    name: str,
    arch: str,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Loaded:
    """A user's checkpoint as a card and a module (eval mode, float32, CPU).

    What is not given is read off the weights (classes, channels, image side) or taken from the architecture
    (mean, std), and said in ``notes``; everything nobody declared is "unknown" on the card. The shapes are
    compared before any memory is spent on the module. :class:`CheckpointError`: one sentence.
    """
    known_architecture(arch)
    state = read_checkpoint(data, name)
    outline = _outline(arch)
    k, c, side, notes = _inferred(outline, arch, state.tensors, num_classes, in_chans, img_size)
    what = f"{name} as {arch} with num_classes={k}, in_chans={c}, img_size={side}"
    size = img_size or _size_option(outline, side)
    with torch.device("meta"):
        check_fit(build_timm(arch, k, c, size), state.tensors, what)
    module = build_timm(arch, k, c, size)
    load_into(module, state.tensors, what)
    module.float().eval()
    center, spread, said = _normalisation(outline, arch, c, mean, std)
    labels = _class_names(classes, k)
    layers, readout, attention = _described(module, arch, side, c, k)
    entry = ARCHITECTURES.get(arch)
    card = ModelCard(
        name=name,
        family=entry.family if entry else type(module).__name__,
        architecture=arch,
        input_size=(side, side),
        channels=c,
        encoding=UNKNOWN,
        mean=center,
        std=spread,
        classes=labels,
        feature_layers=layers,
        readout=readout,
        attention=attention,
        parameters=sum(p.numel() for p in module.parameters()),
        narrowed=entry.narrowed if entry else UNKNOWN,
        weights_sha256=hashlib.sha256(data).hexdigest(),
    )
    named = () if classes is not None else ("class names: numbered, as none were given",)
    return Loaded(card, module, (*state.notes, *notes, *said, *named))


def _outline(arch: str) -> nn.Module:
    """The architecture at its own sizes, without memory for its weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return ARCHITECTURES[arch].build(9, 1) if arch in ARCHITECTURES else timm.create_model(arch, pretrained=False)


def size_option(arch: str, side: int) -> int | None:
    """The ``img_size`` that :func:`build_timm` needs for images of ``side`` pixels; None where it takes any."""
    return _size_option(_outline(arch), side)


def _size_option(outline: nn.Module, side: int) -> int | None:
    """``side`` where the architecture is built for one image size that differs from it, else None."""
    own = getattr(getattr(outline, "patch_embed", None), "img_size", None)
    return side if own and own[0] != side else None


def _inferred(
    outline: nn.Module,
    arch: str,
    state: Mapping[str, torch.Tensor],
    num_classes: int | None,
    in_chans: int | None,
    img_size: int | None,
) -> tuple[int, int, int, tuple[str, ...]]:
    """(classes, channels, image side, what was read off the weights)."""
    declared, notes = getattr(outline, "pretrained_cfg", None) or {}, []
    classifiers, first = ends(outline)
    head, stem = state.get(f"{classifiers[0]}.weight" if classifiers else ""), state.get(f"{first}.weight")
    if num_classes is None:
        num_classes = head.shape[0] if head is not None else declared.get("num_classes", 9)
        notes.append(f"num_classes={num_classes} " + ("read off the head" if head is not None else "assumed"))
    if in_chans is None:
        known = stem is not None and stem.ndim == 4
        in_chans = stem.shape[1] if stem is not None and known else declared.get("input_size", (1,))[0]
        notes.append(f"in_chans={in_chans} " + ("read off the first convolution" if known else "assumed"))
    if img_size is None:
        own = declared.get("input_size", (3, 224, 224))[-1]
        embedded = _image_side(outline, tuple(state["pos_embed"].shape)) if "pos_embed" in state else 0
        img_size = ARCHITECTURES[arch].input_size if arch in ARCHITECTURES else embedded or own
        notes.append(f"img_size={img_size} " + ("read off the position embedding" if embedded else "assumed"))
    return int(num_classes), int(in_chans), int(img_size), tuple(notes)


def _normalisation(
    outline: nn.Module, arch: str, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """(mean, std, what was assumed), one number per channel."""
    declared, notes, out = getattr(outline, "pretrained_cfg", None) or {}, [], []
    for word, given, plain in (("mean", mean, 0.0), ("std", std, 1.0)):
        usual = tuple(declared.get(word) or ())
        if given is not None:
            values = tuple(map(float, given))
        elif arch not in ARCHITECTURES and len(usual) == channels:
            values = usual
            notes.append(f"{word}={values} assumed, as timm declares for {arch}")
        else:
            values = (plain,)
            notes.append(f"{word}={plain:g} assumed: none was given")
        values = values * channels if len(values) == 1 else values
        if len(values) != channels or not all(map(math.isfinite, values)) or (word == "std" and min(values) <= 0):
            limits = "positive numbers" if word == "std" else "finite numbers"
            raise CheckpointError(f"{word} needs 1 or {channels} {limits}, one per channel, got {list(values)}")
        out.append(values)
    return out[0], out[1], tuple(notes)


def _class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return tuple(f"class {index}" for index in range(count))
    if len(classes) != count or len(set(classes)) != count:
        raise CheckpointError(
            f"the checkpoint has {count} classes, {len(classes)} names were given ({len(set(classes))} different); "
            f"give {count} different names, one per line, in the order of the head"
        )
    return tuple(map(str, classes))


def _described(
    module: nn.Module, arch: str, side: int, channels: int, count: int
) -> tuple[tuple[FeatureLayer, ...], str, str]:
    """What :func:`describe` finds, after a look at whether the module classifies images of this size at all."""
    parameter = next(module.parameters())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = module(torch.zeros((1, channels, side, side), dtype=parameter.dtype))
        structure = describe(module, (side, side), channels)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise CheckpointError(
            f"{arch} cannot take {side}x{side} images ({_line(error)}); give another img_size"
        ) from None
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (1, count):
        raise CheckpointError(f"{arch} answers one image with {shape}, not with one logit for each of {count} classes")
    return structure


def _some(found: Sequence[str]) -> str:
    """Up to three of the names, and an ellipsis for the rest."""
    return ", ".join(found[:3]) + (", …" if len(found) > 3 else "")


def _line(error: BaseException) -> str:
    """The first line of an error, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
