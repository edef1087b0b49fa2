"""CIFAR-10 in three layouts that hold no pickle: the binary version, folders of pictures, tar.xz of such folders."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
BINARY = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
ENDINGS = (".jpg", ".jpeg", ".png")
MOST = 2**20  # bytes of one picture's file
LAYOUTS = "{split}/CLASS/*.jpg or *.png, cifar10_jpeg_{split}.tar.xz, or the binary version (data_batch_1.bin …)"


def read_cifar10(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(uint8 (n, 32, 32, 3), int64 (n,), class names) of "train" or "test", whichever layout lies in ``folder``.

    ``ValueError`` for missing, foreign or damaged files. The Python version is pickled and is never loaded.
    """
    archive = folder / f"cifar10_jpeg_{split}.tar.xz"
    if any((folder / name).is_file() for name in BINARY[split]):
        return *_read_binary([folder / name for name in BINARY[split]]), CLASSES
    if (folder / split).is_dir():
        return *_decode(_folder_files(folder, split)), CLASSES
    if archive.is_file():
        return *_decode(_archive_files(archive, split)), CLASSES
    if (folder / "data_batch_1").exists() or (folder / "cifar-10-batches-py").exists():
        raise ValueError(
            f"cifar10: {folder} holds the Python version, which is pickled and never loaded; download the binary "
            "version (cifar-10-binary.tar.gz)"
        )
    raise ValueError(f"cifar10: {folder} holds no {split} images; expected {LAYOUTS.format(split=split)}")


def _read_binary(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and the red, green and blue planes, as the official page describes them."""
    parts = []
    for path in paths:
        if not path.is_file():
            raise ValueError(f"cifar10: {path.name} is missing beside its siblings; unpack the binary version again")
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        if not data.size or data.size % RECORD:
            raise ValueError(f"cifar10: {path.name} has {data.size:,} bytes, no multiple of {RECORD}; unpack it again")
        parts.append(data.reshape(-1, RECORD))
    records = np.concatenate(parts)
    if (largest := records[:, 0].max()) >= len(CLASSES):
        raise ValueError(f"cifar10: labels must be 0 to 9, found {largest}; unpack the binary version again")
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _folder_files(folder: Path, split: str) -> Iterator[tuple[str, str, bytes]]:
    """(class, file name, content) of every picture below ``folder``/``split``."""
    for path in (folder / split).glob("[!.]*/[!.]*"):
        if path.suffix.lower() in ENDINGS:
            if path.stat().st_size > MOST:
                raise ValueError(f"cifar10: {path.name} has more than {MOST:,} bytes; pictures here have 32x32 pixels")
            yield path.parent.name, path.name, path.read_bytes()


def _archive_files(archive: Path, split: str) -> Iterator[tuple[str, str, bytes]]:
    """The same from an archive, member by member; nothing is written to disk."""
    try:
        with tarfile.open(archive, "r|xz") as members:
            for member in members:
                parts = member.name.split("/")
                if not member.isfile() or parts[-3:-2] != [split] or not parts[-1].lower().endswith(ENDINGS):
                    continue
                if member.size > MOST:
                    raise ValueError(f"cifar10: {member.name} has more than {MOST:,} bytes; 32x32 pixels need fewer")
                if (file := members.extractfile(member)) is not None and not parts[-1].startswith("."):
                    yield parts[-2], parts[-1], file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"cifar10: {archive.name} cannot be read ({error}); download it again") from None


def _decode(files: Iterator[tuple[str, str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels, ordered by class and file name, however they came."""
    found = []
    for name, file, data in files:
        if name not in CLASSES:
            raise ValueError(f"cifar10: {name!r} is none of its classes; expected {', '.join(CLASSES)}")
        found.append((name, file, _picture(data, f"{name}/{file}")))
    if missing := sorted(set(CLASSES) - {name for name, _, _ in found}):
        raise ValueError(f"cifar10: there is no picture of {', '.join(missing)}; unpack all ten classes")
    found.sort(key=lambda entry: entry[:2])
    labels = np.array([CLASSES.index(name) for name, _, _ in found], dtype=np.int64)
    return np.stack([picture for _, _, picture in found]), labels


def _picture(data: bytes, name: str) -> np.ndarray:
    """uint8 (32, 32, 3)."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            if picture.size != (SIDE, SIDE):
                raise ValueError(f"cifar10: {name} has {picture.size[1]}x{picture.size[0]} pixels, not 32x32")
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"cifar10: {name} is no readable picture ({type(error).__name__}); unpack it again") from None
