"""The one interface of all data sets, their registry, and references like ``synthetic:sample:3``.

A *reference* names one image in words that can stand in a link: ``NAME:SPLIT:INDEX``, or with parameters
``NAME(key=value,key=value):SPLIT:INDEX``. Inside a value a comma is written ``%2C`` and a per cent sign ``%25``.
"""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol
from urllib.parse import unquote

import numpy as np

from audit_core.errors import BadData, InvalidParameter
from audit_core.images import prepare
from audit_core.keys import Choice
from audit_core.registry import Registry
from audit_core.types import SourceImage, read_only
from models.cards import ModelCard
from models.synthetic import nominal

MEAN_IMAGES = 256
OTHER_IMAGES = 8
OPEN_DATASETS = 4

_REFERENCE = re.compile(r"(?P<name>[\w.\-]+)(?:\((?P<params>.*)\))?:(?P<split>[^:()]+):(?P<index>-?\d+)", re.DOTALL)
_GRAMMAR = "NAME:SPLIT:INDEX or NAME(key=value,…):SPLIT:INDEX, for example synthetic:sample:3"


class Dataset(Protocol):
    """Images with labels; ``label`` indexes ``classes``. An index outside 0..len-1 raises ``InvalidParameter``."""

    name: str
    classes: tuple[str, ...]
    split: str

    def __len__(self) -> int: ...

    def image(self, i: int) -> SourceImage:
        """Image ``i`` as it came."""

    def label(self, i: int) -> int | None:
        """Index into ``classes``; None where nobody labelled it."""

    def region(self, i: int) -> np.ndarray | None:
        """bool (rows, columns) at the source's resolution, True inside the true signature; None where unknown."""

    def reference(self, i: int) -> SourceImage | None:
        """The nominal image of image ``i``: the same wafer with every die passed; None for pictures."""

    def mean_pixels(self, card: ModelCard) -> np.ndarray | None:
        """Per-pixel mean, float32 (channels, rows, columns) in [0, 1], of the images as ``card``'s model sees them."""

    def others(self, pixels: np.ndarray, card: ModelCard) -> np.ndarray | None:
        """A few images besides ``pixels``, all as ``card``'s model sees them: (m, channels, rows, columns), or None."""


class Source(Protocol):
    """A registered data set before it is opened: a frozen dataclass whose fields are its parameters."""

    splits: ClassVar[tuple[str, ...]]

    def open(self, split: str) -> Dataset:
        """Read ``split``; ``InvalidParameter`` for an unknown one, ``BadData`` for missing or foreign files."""

    def stamp(self) -> str:
        """Changes whenever the files behind the data set do; the empty word where there are none."""


DATASETS: Registry[Source] = Registry("data set")


class BaseDataset(ABC):
    """What every data set shares: checked indices, the nominal reference and the mean of what a model sees."""

    def __init__(self, name: str, classes: Sequence[str], split: str) -> None:
        self.name, self.classes, self.split = name, tuple(classes), split
        self._means: dict[tuple[tuple[int, int], int, str], np.ndarray] = {}
        self._spread: dict[tuple[tuple[int, int], int, str], tuple[np.ndarray, ...]] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, i: int) -> SourceImage:
        """Image ``i`` as it came."""

    def label(self, i: int) -> int | None:
        """Unlabelled, unless a data set knows better."""
        self.check(i)
        return None

    def region(self, i: int) -> np.ndarray | None:
        """No known signature region, unless a data set knows better."""
        self.check(i)
        return None

    def reference(self, i: int) -> SourceImage | None:
        """The wafer of image ``i`` with every die passed; None for a picture."""
        image = self.image(i)
        if not image.wafer:
            return None
        return SourceImage(nominal(image.values), True, f"nominal {image.name}", ("every die passed",))

    def mean_pixels(self, card: ModelCard) -> np.ndarray | None:
        """Mean of up to 256 evenly spaced images, each as ``card``'s model sees it before normalisation.

        float32 (channels, rows, columns) in [0, 1], read-only, summed in float64 and kept for the next call;
        None for an empty data set. A broken image raises its ``BadImage``: a mean never skips one silently.
        """
        contract = (card.input_size, card.channels, card.encoding)
        if contract not in self._means and len(self):
            places = evenly(len(self), MEAN_IMAGES)
            total = np.zeros((card.channels, *card.input_size), dtype=np.float64)
            for k in places:
                total += prepare(self.image(k), card)
            self._means[contract] = read_only((total / len(places)).astype(np.float32))
        return self._means.get(contract)

    def others(self, pixels: np.ndarray, card: ModelCard) -> np.ndarray | None:
        """Up to 8 evenly spaced images of the data set, none of them equal to ``pixels``.

        pixels: an image as ``card``'s model sees it before normalisation, float32 (channels, rows, columns); so are the
        others, (m, channels, rows, columns) in [0, 1]; None where there is no other image. The same ones for every
        call; nine are kept like the mean, and a broken one raises likewise.
        """
        contract = (card.input_size, card.channels, card.encoding)
        if contract not in self._spread:
            places = evenly(len(self), OTHER_IMAGES + 1)
            self._spread[contract] = tuple(prepare(self.image(k), card) for k in places)
        found = [other for other in self._spread[contract] if not np.array_equal(other, pixels)]
        return np.stack(found[:OTHER_IMAGES]) if found else None

    def check(self, i: int) -> int:
        """``i`` if it is an index of this data set; ``InvalidParameter`` names the length otherwise."""
        if not 0 <= i < len(self):
            raise InvalidParameter(
                f"{self.name}:{self.split} has {len(self)} images, numbered 0 to {len(self) - 1}; there is no image {i}"
            )
        return i


def evenly(length: int, most: int) -> list[int]:
    """Indices of at most ``most`` entries, spread evenly over 0 … ``length`` - 1, the first among them."""
    n = min(length, most)
    return [k * length // n for k in range(n)]


def check_split(name: str, split: str, known: Sequence[str]) -> str:
    """``split`` if it is one of ``known``; ``InvalidParameter`` lists them otherwise."""
    if split not in known:
        raise InvalidParameter(f"data set {name!r} has no split {split!r}; known: {', '.join(known)}")
    return split


def parse_reference(reference: str) -> tuple[Choice, str, int]:
    """``NAME:SPLIT:INDEX`` or ``NAME(key=value,…):SPLIT:INDEX`` -> (choice, split, index).

    The choice has all its parameters, checked and typed. ``UnknownName`` for a name that is not registered,
    ``InvalidParameter`` for anything else that is wrong.
    """
    found = _REFERENCE.fullmatch(reference.strip())
    if found is None:
        raise InvalidParameter(f"cannot read the image reference {reference!r}; expected {_GRAMMAR}")
    params = []
    for part in filter(None, (found["params"] or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InvalidParameter(f"expected key=value in the image reference {reference!r}, got {part!r}")
        params.append((key.strip(), unquote(value)))
    if len({key for key, _ in params}) < len(params):
        raise InvalidParameter(f"a parameter is given twice in the image reference {reference!r}")
    return DATASETS.complete(Choice(found["name"], tuple(params))), found["split"], int(found["index"])


def format_reference(choice: Choice, split: str, index: int) -> str:
    """The reference that :func:`parse_reference` reads back; parameters at their default are left out."""
    defaults = DATASETS.defaults(choice.name)
    given = [(k, str(v)) for k, v in DATASETS.complete(choice).params if v != defaults[k]]
    shown = ",".join(f"{key}={value.replace('%', '%25').replace(',', '%2C')}" for key, value in given)
    return f"{choice.name}({shown}):{split}:{index}" if shown else f"{choice.name}:{split}:{index}"


def dataset_of(reference: str) -> tuple[Dataset, int]:
    """The data set that ``reference`` names, opened, and the checked index in it.

    The few data sets used last stay open; one whose files changed is read again.
    """
    choice, split, index = parse_reference(reference)
    dataset = open_split(choice, split)
    if not 0 <= index < len(dataset):
        raise InvalidParameter(
            f"{reference!r}: {choice.name}:{split} has {len(dataset)} images, numbered 0 to {len(dataset) - 1}"
        )
    return dataset, index


def open_split(choice: Choice, split: str) -> Dataset:
    """The opened data set; the few used last are shared, so that menus and audits read files once."""
    choice = DATASETS.complete(choice)
    return _opened(format_reference(choice, split, 0), DATASETS.build(choice).stamp())


def open_image(reference: str) -> SourceImage:
    """The one image that ``reference`` names."""
    dataset, index = dataset_of(reference)
    return dataset.image(index)


@functools.lru_cache(maxsize=OPEN_DATASETS)
def _opened(first: str, stamp: str) -> Dataset:
    """Keyed by words only: the reference of image 0 and the state of the files (data sets, never models)."""
    choice, split, _ = parse_reference(first)
    dataset = DATASETS.build(choice).open(split)
    if not len(dataset):
        raise BadData(f"{choice.name}:{split} holds no image; point it to data that does")
    return dataset
