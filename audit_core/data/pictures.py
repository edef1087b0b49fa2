"""What the data sets of small pictures share: one split in memory, each picture an image in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from audit_core.data.base import BaseDataset, check_split
from audit_core.errors import BadData
from audit_core.types import SourceImage
from models.pictures import Pictures, read_pictures

SPLITS = ("train", "test")


class PictureImages(BaseDataset):
    """The pictures of one split, in the order of their files."""

    def __init__(self, name: str, pictures: Pictures, split: str) -> None:
        super().__init__(name, pictures.classes, split)
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def image(self, i: int) -> SourceImage:
        """float32 (rows, columns, 1 or 3): codes / 255."""
        values = self._pictures.images[self.check(i)].astype(np.float32) / 255
        return SourceImage(values, False, f"{self.name}:{self.split}:{i}")

    def label(self, i: int) -> int:
        """Index into ``classes``."""
        return int(self._pictures.labels[self.check(i)])


def open_pictures(name: str, split: str, path: str | None = None) -> PictureImages:
    """Read a split of ``name``, from the folder ``path`` where it has one.

    ``InvalidParameter`` for an unknown split; ``BadData`` for a folder that is not there, and files that do not fit.
    """
    check_split(name, split, SPLITS)
    if path is not None and (not path or not Path(path).expanduser().is_dir()):
        raise BadData(f"{name}: {path!r} is no folder; give the one of its files as {name}(path=…)")
    try:
        return PictureImages(name, read_pictures(name if path is None else f"{name}:{path}", split), split)
    except ValueError as error:
        raise BadData(str(error)) from None


def stamp_of(path: str, wanted: Callable[[Path], list[Path]]) -> str:
    """Name, size and time of change of the files and folders that ``wanted`` finds below ``path``."""
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        return ""
    found = [(file.relative_to(root), file.stat()) for file in wanted(root)]
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found)
