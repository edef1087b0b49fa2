"""Wafer maps: the nine classes, the two encodings, and plain npz files of maps with variable die grids.

A *wafer map* is a uint8 grid of dies with the codes of WM-811K: 0 no die, 1 die passed, 2 die failed.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch", "none")
NO_DIE, PASSED, FAILED = 0, 1, 2

#: Die code -> network input. ``three-level`` keeps wafer shape visible; ``binary`` is what the code behind
#: arXiv 2605.14255 feeds (background and passed dies are both 0, so a zero fill changes failed dies only).
ENCODINGS: dict[str, tuple[float, float, float]] = {
    "three-level": (0.0, 0.5, 1.0),
    "binary": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class WaferMaps:
    """Maps of different die grids with their labels.

    maps: sequence of uint8 (rows, columns) with codes 0/1/2; labels: int64 (n,), indices into ``classes``;
    digest: sha256 over codes, shapes and labels, the identity of the data; lots: words (n,), the production lot of each
    map, the empty word where it is unknown, or None where no lot is known.
    """

    maps: Sequence[np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...] = CLASSES
    digest: str = ""
    lots: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_npz(path: str | Path) -> WaferMaps:
    """Read ``pixels`` (all maps, row-major, uint8), ``offsets`` (n+1), ``shapes`` (n, 2), ``labels`` (n), ``classes``.

    ``lot`` (n words) is read where it is there. Nothing is unpickled. Raises ``ValueError`` with one sentence when the
    file has another layout.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if missing := sorted({"pixels", "offsets", "shapes", "labels"} - set(arrays.files)):
                raise ValueError(f"{path.name} lacks the arrays {missing}; it has {sorted(arrays.files)}")
            pixels, offsets = arrays["pixels"], arrays["offsets"]
            shapes, labels = arrays["shapes"], arrays["labels"].astype(np.int64)
            classes = tuple(map(str, arrays["classes"])) if "classes" in arrays.files else CLASSES
            lots = np.char.strip(arrays["lot"].astype(str)) if "lot" in arrays.files else None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} could not be read as an npz file of wafer maps: {error}") from None
    sizes = shapes.astype(np.int64).prod(axis=1)
    if len(offsets) != len(labels) + 1 or not np.array_equal(np.diff(offsets), sizes) or offsets[-1] != len(pixels):
        raise ValueError(f"{path.name}: offsets, shapes and pixels disagree; expected pixels[offsets[i]:offsets[i+1]]")
    if pixels.size and pixels.max() > FAILED:
        raise ValueError(f"{path.name}: die codes must be 0, 1 or 2, found {int(pixels.max())}")
    if lots is not None and lots.shape != labels.shape:
        raise ValueError(f"{path.name}: {len(labels)} maps but {lots.size} lots; expected one lot for every map")
    lots = None if lots is None or not (lots != "").any() else lots
    maps = [pixels[a:b].reshape(tuple(s)) for a, b, s in zip(offsets[:-1], offsets[1:], shapes, strict=True)]
    return WaferMaps(maps, labels, classes, digest_of(maps, labels), lots)


def write_npz(path: str | Path, data: WaferMaps) -> None:
    """Write the layout that :func:`read_npz` reads; lots only where they are known."""
    shapes = np.array([m.shape for m in data.maps], dtype=np.int16).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum([m.size for m in data.maps])]).astype(np.int64)
    pixels = np.concatenate([m.ravel() for m in data.maps]) if len(data) else np.zeros(0, np.uint8)
    known: dict[str, Any] = {} if data.lots is None else {"lot": data.lots}
    np.savez_compressed(
        path,
        pixels=pixels.astype(np.uint8),
        offsets=offsets,
        shapes=shapes,
        labels=data.labels,
        classes=np.array(data.classes),
        **known,
    )


def digest_of(maps: Sequence[np.ndarray], labels: np.ndarray) -> str:
    """sha256 (hex) over shapes, codes and labels, in order."""
    digest = hashlib.sha256()
    for grid in maps:
        digest.update(np.asarray(grid.shape, dtype=np.int64).tobytes())
        digest.update(np.ascontiguousarray(grid, dtype=np.uint8).tobytes())
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    return digest.hexdigest()


def resize(codes: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resize of a (rows, columns) grid to (size, size); die codes stay die codes.

    Pixel p of the result shows the source cell that contains its centre: floor((p + 0.5) * n / size).
    """
    rows = ((np.arange(size) + 0.5) * codes.shape[0] / size).astype(np.int64)
    columns = ((np.arange(size) + 0.5) * codes.shape[1] / size).astype(np.int64)
    return codes[rows[:, None], columns[None, :]]


def encode(codes: np.ndarray, encoding: str = "three-level") -> np.ndarray:
    """Die codes (any shape, 0/1/2) -> float32 of the same shape in [0, 1]."""
    if encoding not in ENCODINGS:
        raise ValueError(f"no encoding named {encoding!r}; known: {', '.join(ENCODINGS)}")
    return np.asarray(ENCODINGS[encoding], dtype=np.float32)[codes]


def stack(data: WaferMaps, size: int) -> np.ndarray:
    """All maps resized to one grid: uint8 (n, size, size), die codes."""
    out = np.empty((len(data), size, size), dtype=np.uint8)
    for row, codes in enumerate(data.maps):
        out[row] = resize(codes, size)
    return out


def fingerprint(codes: np.ndarray) -> str:
    """Identity of one map: equal for byte-identical maps of equal shape."""
    return f"{codes.shape[0]}x{codes.shape[1]}:" + hashlib.sha256(np.ascontiguousarray(codes).tobytes()).hexdigest()


def split_validation(val: WaferMaps, training: Sequence[WaferMaps]) -> tuple[WaferMaps, WaferMaps]:
    """Cut a validation file once into (early stopping, held out), by index parity.

    Even positions choose the checkpoint; odd positions are only ever reported. A held-out map that stands
    byte-identically in the training files or in the early-stopping half is dropped from the held-out half.
    """
    seen = {fingerprint(codes) for part in training for codes in part.maps}
    seen |= {fingerprint(val.maps[i]) for i in range(0, len(val), 2)}
    held_out = [i for i in range(1, len(val), 2) if fingerprint(val.maps[i]) not in seen]
    return take(val, range(0, len(val), 2)), take(val, held_out)


def take(data: WaferMaps, indices: Sequence[int]) -> WaferMaps:
    """The maps at ``indices``, in that order, with their lots and their own digest."""
    rows = np.asarray(indices, dtype=np.int64)
    maps, labels = [data.maps[i] for i in rows], data.labels[rows]
    lots = None if data.lots is None else data.lots[rows]
    return WaferMaps(maps, labels, data.classes, digest_of(maps, labels), lots)


def join(parts: Sequence[WaferMaps]) -> WaferMaps:
    """Concatenate data sets of equal classes; lots are known where any part knows them."""
    classes = parts[0].classes
    if any(part.classes != classes for part in parts):
        raise ValueError(f"cannot join data sets of different classes: {[part.classes for part in parts]}")
    maps = [codes for part in parts for codes in part.maps]
    labels = np.concatenate([part.labels for part in parts])
    lots = None
    if any(part.lots is not None for part in parts):
        lots = np.concatenate([np.full(len(part), "") if part.lots is None else part.lots for part in parts])
    return WaferMaps(maps, labels, classes, digest_of(maps, labels), lots)
