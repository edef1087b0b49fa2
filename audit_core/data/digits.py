"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from audit_core.data.base import DATASETS
from audit_core.data.pictures import SPLITS, PictureImages, open_pictures


@DATASETS.register("digits")
@dataclass(frozen=True)
class Digits:
    """Handwritten digits of 8x8 pixels (Alpaydin, Kaynak 1998; UCI 80), 1,797 of them, as scikit-learn brings them.

    A fifth of every class, drawn once and for all, is the test split; the shipped digits run never learned from it.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def open(self, split: str) -> PictureImages:
        """Read the split; it is small and comes without a file of your own."""
        return open_pictures("digits", split)

    def stamp(self) -> str:
        """No files stand behind it."""
        return ""
