"""What an audit can name: checkpoints, images and stored results. One per process; safe to share between threads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_core.classifier import Classifier, pick_device
from audit_core.data import dataset_of
from audit_core.errors import BadCheckpoint, BadImage, InvalidParameter, StoreError, UnknownName
from audit_core.explainers import Explainer
from audit_core.explainers.outside import Outside, read_map
from audit_core.fills.base import FillContext
from audit_core.images import input_digest, prepare, read_image
from audit_core.keys import key
from audit_core.store import Store
from audit_core.types import SourceImage
from models import zoo
from models.cards import ModelCard
from models.checkpoint import CheckpointError, load_custom
from models.synthetic import nominal
from models.wafers import ENCODINGS

LOADED_AT_ONCE = 6  # models kept in memory; the least recently used one goes


@dataclass(frozen=True)
class Subject:
    """An image ready for one model: the source, its label in the model's classes, the pixels the model sees.

    pixels: float32 (channels, rows, columns) in [0, 1]; mean, nominal: the same shape, where the image's data
    set offers a mean image and a nominal one; others: float32 (m, channels, rows, columns), where it has other images.
    """

    source: SourceImage
    label: int | None
    pixels: np.ndarray
    mean: np.ndarray | None
    nominal: np.ndarray | None
    others: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """Identity of the pixels the model sees."""
        return input_digest(self.pixels)


class Workbench:
    """Loads checkpoints and images by reference and remembers what users bring, by content.

    References: a shipped checkpoint's name or "custom:ID"; "DATASET:SPLIT:INDEX" or "upload:SHA256".
    """

    def __init__(self, store: Store, device: str = "auto") -> None:
        self.store = store
        self.device = pick_device(device)
        self._classifiers: OrderedDict[tuple[str, str], Classifier] = OrderedDict()
        self._cards: dict[str, ModelCard] = {}
        self._published: dict[str, Path] = {}
        self._lock = threading.RLock()
        self.problem = ""

    def keep(self, put: Callable[[], None]) -> None:
        """Store a result if the store takes it; a full or broken one is remembered in ``problem``, nothing is lost."""
        try:
            put()
            self.problem = ""
        except StoreError as error:
            self.problem = f"{error}; the result is shown but not kept"

    def card(self, checkpoint: str) -> ModelCard:
        """The card of a shipped or brought checkpoint; ``UnknownName`` lists what there is."""
        if checkpoint in zoo.names():
            return zoo.card(checkpoint)
        if checkpoint in self._published:
            return zoo.card(self._published[checkpoint].stem, self._published[checkpoint].parent)
        with self._lock:
            if checkpoint not in self._cards:
                raw = self.store.get_json(f"card:{checkpoint}") if checkpoint.startswith("custom:") else None
                if raw is None:
                    raise UnknownName(_no_checkpoint(checkpoint))
                self._cards[checkpoint] = ModelCard.from_json(json.dumps(raw["card"]))
            return self._cards[checkpoint]

    def classifier(self, checkpoint: str, precision: str = "fp32") -> Classifier:
        """The loaded checkpoint on this workbench's device, from memory when it is there."""
        with self._lock:
            found = self._classifiers.get((checkpoint, precision))
            if found is None:
                found = Classifier(self.card(checkpoint), self._module(checkpoint), self.device, precision)
                self._classifiers[checkpoint, precision] = found
                while len(self._classifiers) > LOADED_AT_ONCE:
                    self._classifiers.popitem(last=False)
            self._classifiers.move_to_end((checkpoint, precision))
            return found

    def _module(self, checkpoint: str) -> torch.nn.Module:
        if checkpoint in zoo.names():
            return zoo.load(checkpoint).module
        if checkpoint in self._published:
            return zoo.load(self._published[checkpoint].stem, self._published[checkpoint].parent).module
        raw, data = self.store.get_json(f"card:{checkpoint}"), self.store.get_bytes(f"weights:{checkpoint}")
        if raw is None or data is None:
            raise BadCheckpoint(f"{checkpoint} is no longer in the store; add the file again on the Checkpoints page")
        return load_custom(data, **raw["options"]).module

    def add_checkpoint(
        self,
        data: bytes,
        name: str,
        arch: str,
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        encoding: str = "",
    ) -> str:
        """Load a user's weights safely, keep them in the store and return their reference "custom:ID".

        encoding: of wafer maps, one of ``ENCODINGS``, "" for unknown. ``BadCheckpoint`` says in one sentence what is
        wrong with the file or does not fit the architecture.
        """
        options: dict[str, Any] = {  # Any: JSON scalars and lists
            "name": name,
            "arch": arch,
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": img_size,
            "mean": list(mean) if mean is not None else None,
            "std": list(std) if std is not None else None,
            "classes": list(classes) if classes is not None else None,
        }
        try:
            loaded = load_custom(data, **options)
        except CheckpointError as error:
            raise BadCheckpoint(str(error)) from None
        if encoding and encoding not in ENCODINGS:
            raise BadCheckpoint(f"{name}: encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
        card = replace(loaded.card, encoding=encoding) if encoding else loaded.card
        named = {**options, "encoding": encoding} if encoding else options
        reference = "custom:" + key(weights=card.weights_sha256, options=named)[:20]
        self.store.put_bytes(f"weights:{reference}", data)
        kept = {"card": json.loads(card.to_json()), "options": options, "notes": list(loaded.notes)}
        self.store.put_json(f"card:{reference}", kept)
        return reference

    def open_published(self, path: Path) -> str:
        """Open weights beside which their card stands, as ``python -m models publish`` writes them.

        Returns the reference "file:ID", known to this workbench alone: it is no word that a link could carry.
        """
        try:
            found = zoo.card(path.stem, path.parent)
        except ValueError as error:
            raise BadCheckpoint(f"{path.name}: {error}") from None
        reference = f"file:{found.weights_sha256[:20]}"
        self._published[reference] = path
        return reference

    def notes(self, checkpoint: str) -> tuple[str, ...]:
        """What was read off a user's weights or assumed about them because nobody declared it; else empty."""
        raw = self.store.get_json(f"card:{checkpoint}") if checkpoint.startswith("custom:") else None
        return tuple(raw.get("notes", ())) if raw else ()

    def add_image(self, data: bytes, name: str) -> str:
        """Read an uploaded image, keep it in the store and return its reference "upload:SHA256"."""
        return self.keep_image(read_image(data, name))

    def keep_image(self, source: SourceImage) -> str:
        """Keep an image in the store by content; returns "upload:SHA256"."""
        digest = source.digest
        head = json.dumps({"wafer": source.wafer, "name": source.name, "notes": list(source.notes)}).encode()
        self.store.put_arrays(f"image:{digest}", {"values": source.values, "head": np.frombuffer(head, np.uint8)})
        return f"upload:{digest}"

    def add_map(self, data: bytes, name: str) -> str:
        """Read a map made elsewhere (.npy or .npz), keep it in the store and return the sha256 of its file."""
        values, digest = read_map(data, name), hashlib.sha256(data).hexdigest()
        self.store.put_arrays(f"outside:{digest}", {"values": values})
        return digest

    def bind(self, explainer: Explainer) -> Explainer:
        """The explainer with what it needs from the store; ``InvalidParameter`` when its map is no longer there."""
        if not isinstance(explainer, Outside) or not explainer.map:
            return explainer
        kept = self.store.get_arrays(f"outside:{explainer.map}")
        if kept is None:
            raise InvalidParameter(f"no map {explainer.map[:12]!r} is in the store (any more); give its file again")
        return explainer.bound(kept["values"])

    def source(self, reference: str) -> SourceImage:
        """The image behind a reference, before any model's size and channels."""
        if not reference.startswith("upload:"):
            dataset, index = dataset_of(reference)
            return dataset.image(index)
        arrays = self.store.get_arrays(f"image:{reference.removeprefix('upload:')}")
        if arrays is None:
            raise BadImage("this uploaded image is no longer in the store; upload it again")
        head = json.loads(arrays["head"].tobytes())
        return SourceImage(arrays["values"], head["wafer"], head["name"], tuple(head["notes"]))

    def subject(self, reference: str, card: ModelCard) -> Subject:
        """The image as this checkpoint sees it, with what its data set knows about it."""
        source = self.source(reference)
        pixels = prepare(source, card)
        if reference.startswith("upload:"):
            clean = SourceImage(nominal(source.values), True, "nominal wafer") if source.wafer else None
            label, mean, others = None, None, None
        else:
            dataset, index = dataset_of(reference)
            name = dataset.label(index)
            label = _label_in(card, dataset.classes[name]) if name is not None else None
            clean, mean, others = dataset.reference(index), dataset.mean_pixels(card), dataset.others(pixels, card)
        ready = prepare(clean, card) if clean is not None else None
        return Subject(source, label, pixels, mean, ready, others)


def fill_context(subject: Subject, card: ModelCard, seed: int) -> FillContext:
    """What a fill may know about this image."""
    as_tensor = lambda array: torch.from_numpy(np.array(array)) if array is not None else None
    mean, nominal, others = map(as_tensor, (subject.mean, subject.nominal, subject.others))
    return FillContext(card.mean, card.std, mean, nominal, seed, others)


def _label_in(card: ModelCard, name: str) -> int | None:
    return card.classes.index(name) if name in card.classes else None


def _no_checkpoint(reference: str) -> str:
    if reference.startswith("custom:"):
        return f"{reference} is not in the store; add the checkpoint file again on the Checkpoints page"
    return f"no checkpoint named {reference!r}; known: {', '.join(zoo.names())}, or the path of a weights file"
