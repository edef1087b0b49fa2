"""CIFAR-10 from the user's own copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from audit_core.data.base import DATASETS
from audit_core.data.pictures import SPLITS, PictureImages, open_pictures, stamp_of
from audit_core.params import Note


@DATASETS.register("cifar10")
@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009) from your own copy: 32x32 colour photographs of ten classes, 50,000 and 10,000.

    Read from the binary version (data_batch_1.bin …), from folders train/CLASS and test/CLASS of JPEG or PNG files, or
    from cifar10_jpeg_train.tar.xz and cifar10_jpeg_test.tar.xz, member by member. The Python version is pickled and
    refused. JPEG copies are lossy: a network trained on exact pixels loses some points on them.
    """

    path: Annotated[str, Note("The folder with one of these layouts, on the machine that runs this program.")] = ""
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def open(self, split: str) -> PictureImages:
        """Read and decode the split; some seconds for JPEG files."""
        return open_pictures("cifar10", split, self.path)

    def stamp(self) -> str:
        """Size and time of change of the files, and of the class folders: one with an added file is read again."""
        return stamp_of(self.path, _files)


def _files(root: Path) -> list[Path]:
    patterns = ("*_batch*.bin", "cifar10_jpeg_*.tar.xz", "train/*", "test/*")
    return sorted(found for pattern in patterns for found in root.glob(pattern))
