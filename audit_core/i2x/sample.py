"""The images of an analysis, as one model sees them, with their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from audit_core.data import open_split
from audit_core.data.base import DATASETS, format_reference
from audit_core.data.splits import sample
from audit_core.errors import InvalidParameter
from audit_core.images import input_digest, prepare
from audit_core.keys import Choice
from models.cards import ModelCard


@dataclass(frozen=True)
class Sample:
    """Labelled images as a checkpoint of ``card`` sees them before normalisation.

    pixels: float32 (n, channels, rows, columns) in [0, 1]; labels: int64 (n,), indices into ``classes``; references:
    the images' names, to open them again; digest: identity of pixels and labels.
    """

    pixels: torch.Tensor
    labels: np.ndarray
    references: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, keep: np.ndarray) -> Sample:
        """The images where ``keep``, bool (n,), says so."""
        pixels, labels = self.pixels[torch.from_numpy(keep)], self.labels[keep]
        names = tuple(name for name, kept in zip(self.references, keep, strict=True) if kept)
        return Sample(pixels, labels, names, self.classes, digest_of(pixels, labels))


def digest_of(pixels: torch.Tensor, labels: np.ndarray) -> str:
    """sha256 (hex) of the exact pixels and labels."""
    return input_digest(pixels.numpy())[:32] + input_digest(np.asarray(labels, np.int64))[:32]


def open_sample(dataset: str, split: str, card: ModelCard, per_class: int = 0, seed: int = 0) -> Sample:
    """Images of a registered data set, ``name`` or ``name:key=value,…``; per_class: 0 for all, else a seeded draw.

    ``InvalidParameter`` where an image has no class, or a class that the model does not know.
    """
    choice = DATASETS.complete(Choice.parse(dataset))
    source = open_split(choice, split)
    labels = np.array([-1 if (label := source.label(i)) is None else label for i in range(len(source))])
    if len(labels) == 0 or (labels < 0).any():
        missing = int((labels < 0).sum())
        raise InvalidParameter(f"{dataset}:{split}: {missing} of {len(labels)} images have no class; label them all")
    if unknown := sorted(set(source.classes) - set(card.classes)):
        raise InvalidParameter(
            f"{dataset} has the class {unknown[0]!r}, which {card.name} does not; give the data of its training"
        )
    at = np.array([card.classes.index(name) for name in source.classes])
    places = np.asarray(sample(labels, per_class, seed, ()), dtype=np.int64)
    pixels = torch.empty((len(places), card.channels, *card.input_size))
    for k, i in enumerate(places):
        pixels[k] = torch.from_numpy(prepare(source.image(int(i)), card))
    names = tuple(format_reference(choice, split, int(i)) for i in places)
    chosen = at[labels[places]].astype(np.int64)
    return Sample(pixels, chosen, names, card.classes, digest_of(pixels, chosen))
