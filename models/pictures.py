"""Small labelled pictures: scikit-learn's digits, and MNIST and CIFAR-10 from the user's own copy."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.cifar import read_cifar10
from models.idx import read_mnist

SOURCES = "digits, mnist:FOLDER or cifar10:FOLDER"
DIGITS = tuple(map(str, range(10)))


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size with their labels.

    images: uint8 (n, rows, columns, channels), 1 or 3 channels; labels: int64 (n,), indices into ``classes``.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 (hex) over classes, shape, pixels and labels: the identity of the data."""
        digest = hashlib.sha256(f"{self.classes} {self.images.shape} ".encode())
        digest.update(np.ascontiguousarray(self.images, dtype=np.uint8).data)
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        return digest.hexdigest()


def is_picture_source(word: str) -> bool:
    """Whether ``word`` begins like a source of pictures; files of wafer maps do not."""
    return word.partition(":")[0] in _READERS


def read_pictures(source: str, split: str) -> Pictures:
    """Read one split of ``digits``, ``mnist:FOLDER`` or ``cifar10:FOLDER``; nothing is written or kept.

    ``ValueError``: one sentence, for an unknown source or split, and for missing, foreign or damaged files.
    """
    name, colon, folder = source.partition(":")
    if name not in _READERS or bool(folder) == (name == "digits") or (colon and not folder):
        raise ValueError(f"pictures come from {SOURCES}, got {source!r}; name one of these")
    if split not in ("train", "test"):
        raise ValueError(f"{source} has the splits train and test, got {split!r}")
    root = Path(folder).expanduser()
    if folder and not root.is_dir():
        raise ValueError(f"{name}: {folder!r} is no folder; give the one that holds its files")
    images, labels, classes = _READERS[name](root, split)
    if not len(labels):
        raise ValueError(f"{source} holds no picture in its split {split}; unpack its files again")
    return Pictures(f"{name}:{split}", images, labels, classes)


def stratified(pictures: Pictures, per_class: int, rng: np.random.Generator) -> Pictures:
    """``per_class`` pictures of every class, drawn without replacement, in the order in which they stood.

    A class with fewer gives all it has. ``ValueError`` for less than one a class.
    """
    if per_class < 1:
        raise ValueError(f"{pictures.name}: at least one picture of each of {len(pictures.classes)} classes is needed")
    drawn = [rng.permutation(np.flatnonzero(pictures.labels == k))[:per_class] for k in range(len(pictures.classes))]
    rows = np.sort(np.concatenate(drawn))
    return Pictures(pictures.name, pictures.images[rows], pictures.labels[rows], pictures.classes)


def _read_digits(root: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """1,797 digits of 8x8 pixels, 0…16 scaled to 0…255; a fifth of each class, drawn once and for all, is the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int64)
    rng, test = np.random.default_rng(0), np.zeros(len(labels), dtype=bool)
    for k in range(10):
        rows = rng.permutation(np.flatnonzero(labels == k))
        test[rows[: round(0.2 * len(rows))]] = True
    kept = test if split == "test" else ~test
    return images[kept], labels[kept], DIGITS


def _read_mnist(root: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    images, labels = read_mnist(root, split)
    return images[..., None], labels, DIGITS


_READERS: dict[str, Callable[[Path, str], tuple[np.ndarray, np.ndarray, tuple[str, ...]]]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "cifar10": read_cifar10,
}
