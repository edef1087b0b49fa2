"""The official files of MNIST: idx, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAGIC = {3: 2051, 1: 2049}  # 0x0803: bytes in three dimensions; 0x0801: in one
PARTS = {"train": "train", "test": "t10k"}
MOST = 2**30


def read_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 (n, rows, columns), int64 (n,)) of "train" or "test"; ``ValueError`` for missing or foreign files."""
    part = PARTS[split]
    images, labels = read_idx(folder, f"{part}-images-idx3-ubyte", 3), read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ValueError(f"mnist: {len(images)} images but {len(labels)} labels for {split}; download both files again")
    if labels.size and labels.max() > 9:
        raise ValueError(f"mnist: labels must be 0 to 9, found {labels.max()}; download {part}-labels-idx1-ubyte again")
    return images, labels.astype(np.int64)


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """The bytes of ``name`` or ``name.gz`` in ``folder``, exactly, as uint8 with 1 or 3 dimensions."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else zipped
    if not path.is_file():
        raise ValueError(f"mnist: there is no {name} or {name}.gz in {folder}; put the four official idx files there")
    try:
        with gzip.open(path) if path == zipped else path.open("rb") as file:
            return _parse(file, path.name, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"mnist: {path.name} cannot be read ({error}); download it again") from None


def _parse(file: BinaryIO | gzip.GzipFile, name: str, dimensions: int) -> np.ndarray:
    head = file.read(4 * (1 + dimensions))
    if len(head) < 4 * (1 + dimensions):
        raise ValueError(f"mnist: {name} ends after {len(head)} bytes, within its own header; download it again")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", head)
    if magic != MAGIC[dimensions]:
        raise ValueError(f"mnist: {name} begins with number {magic}, not {MAGIC[dimensions]}; it is no such idx file")
    if 0 in shape:
        raise ValueError(f"mnist: {name} announces nothing (shape {tuple(shape)}); download it again")
    if (count := math.prod(shape)) > MOST:
        raise ValueError(f"mnist: {name} claims {count:,} bytes, more than {MOST:,}; download the official file")
    data = file.read(count + 1)
    if len(data) != count:
        said = "more" if len(data) > count else f"only {len(data):,}"
        raise ValueError(f"mnist: {name} announces {count:,} bytes and holds {said}; download it again")
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(shape)
