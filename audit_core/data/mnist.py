"""MNIST from the user's own copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from audit_core.data.base import DATASETS
from audit_core.data.pictures import SPLITS, PictureImages, open_pictures, stamp_of
from audit_core.params import Note


@DATASETS.register("mnist")
@dataclass(frozen=True)
class Mnist:
    """MNIST (LeCun, Cortes, Burges 1998) from your own copy: 28x28 grey handwritten digits, 60,000 and 10,000.

    Read from the four official idx files, plain or .gz, exactly as they are.
    """

    path: Annotated[str, Note("The folder with the four idx files, on the machine that runs this program.")] = ""
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def open(self, split: str) -> PictureImages:
        """Read and check both files of the split."""
        return open_pictures("mnist", split, self.path)

    def stamp(self) -> str:
        """Size and time of change of the idx files."""
        return stamp_of(self.path, _files)


def _files(root: Path) -> list[Path]:
    return sorted(root.glob("*-ubyte*"))
