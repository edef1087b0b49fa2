"""Generated wafer maps: the data that travels with the program."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from audit_core.data.base import DATASETS, BaseDataset, check_split
from audit_core.params import Between, Seed
from audit_core.types import SourceImage, read_only
from models.synthetic import SyntheticWafer, wafer
from models.wafers import CLASSES


@DATASETS.register("synthetic")
@dataclass(frozen=True)
class Synthetic:
    """Generated wafer maps in the nine classes of WM-811K, with the true region of every defect signature.

    Map i has class i modulo 9 and is a pure function of (seed, i).
    """

    seed: Seed = 7
    n: Annotated[int, Between(1, 100_000, "maps", "How many maps the data set has.")] = 90
    splits: ClassVar[tuple[str, ...]] = ("sample",)

    def open(self, split: str) -> SyntheticWafers:
        """Nothing is drawn before it is asked for."""
        return SyntheticWafers(self.seed, self.n, check_split("synthetic", split, self.splits))

    def stamp(self) -> str:
        """No files stand behind it."""
        return ""


class SyntheticWafers(BaseDataset):
    """The maps of one seed, drawn one by one when asked for."""

    def __init__(self, seed: int, n: int, split: str) -> None:
        super().__init__("synthetic", CLASSES, split)
        self._seed, self._n = seed, n
        self._draw = functools.lru_cache(maxsize=64)(self._drawn)

    def __len__(self) -> int:
        return self._n

    def image(self, i: int) -> SourceImage:
        """Die codes of map ``i``; its name is the reference without parameters."""
        return SourceImage(self._draw(self.check(i)).codes, True, f"synthetic:{self.split}:{i}")

    def label(self, i: int) -> int:
        """``i`` modulo 9."""
        return self.check(i) % len(CLASSES)

    def region(self, i: int) -> np.ndarray:
        """bool (rows, columns), read-only: the dies of the defect signature; empty for "none"."""
        return self._draw(self.check(i)).region

    def _drawn(self, i: int) -> SyntheticWafer:
        drawn = wafer(i % len(CLASSES), np.random.default_rng((self._seed, i)))
        return SyntheticWafer(read_only(drawn.codes), read_only(drawn.region), drawn.label)
