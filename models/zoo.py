"""The shipped checkpoints: their names, their cards (without torch) and their weights."""

from __future__ import annotations

import difflib
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.cards import ModelCard

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"
FAMILIES = ("ViT-Tiny", "Swin-Tiny", "ResNet18+CBAM", "DenseNet121")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to be asked: card, module (eval mode, float32, CPU) and what was assumed on the way."""

    card: ModelCard
    module: nn.Module
    notes: tuple[str, ...] = ()


def names(folder: Path = WEIGHTS) -> tuple[str, ...]:
    """Names of all shipped checkpoints, in the order ViT, Swin, ResNet, DenseNet, then any other family."""
    order = {family: place for place, family in enumerate(FAMILIES)}
    cards = [(_read(path), path.stem) for path in folder.glob("*.json")]
    return tuple(stem for _, stem in sorted((order.get(c.family, len(order)), stem) for c, stem in cards))


def card(name: str, folder: Path = WEIGHTS) -> ModelCard:
    """The card of one shipped checkpoint; ``ValueError`` suggests the nearest name. Imports no torch."""
    known = names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no shipped checkpoint is called {name!r}.{hint} Known: {', '.join(known) or 'none'}")
    return _read(folder / f"{name}.json")


def _read(path: Path) -> ModelCard:
    """The card in a file; parsed anew only when the file changed, as pages ask for it many times a click."""
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _parsed(path: Path, changed: int) -> ModelCard:
    return ModelCard.from_json(path.read_text(encoding="utf-8"))


def load(name: str, folder: Path = WEIGHTS) -> Loaded:
    """Build the architecture of a shipped checkpoint and fill in its weights, cast from float16 to float32.

    ``ValueError`` when the weights are missing, are not the bytes that the card was written for, or do not fit.
    """
    found, path = card(name, folder), folder / f"{name}.safetensors"
    if not path.is_file():
        raise ValueError(f"the weights of {name} are missing: there is no {path.name} in {folder}; restore that file")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != found.weights_sha256:
        raise ValueError(
            f"{path.name} is not the file its card describes: sha256 {digest[:12]}… found, "
            f"{found.weights_sha256[:12]}… expected; restore that file"
        )
    from models.checkpoint import build_timm, load_into, read_state

    module = build_timm(found.architecture, len(found.classes), found.channels, found.input_size[0])
    load_into(module, read_state(data, path.name), f"{path.name} as {found.architecture}")
    return Loaded(found, module.eval())
