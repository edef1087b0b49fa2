"""Real wafer maps of WM-811K from the user's own copy."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from audit_core.data.base import DATASETS, BaseDataset, check_split
from audit_core.data.splits import SHARES, WORDS, SplitSeed, grouped, repeated
from audit_core.data.wm811k.lswmd import read_pickle
from audit_core.errors import BadData, InvalidParameter
from audit_core.params import Between, Note
from audit_core.types import SourceImage
from models.wafers import WaferMaps, fingerprint, read_npz


@DATASETS.register("wm811k")
@dataclass(frozen=True)
class Wm811k:
    """Wafer maps of WM-811K (Wu, Jang, Chen 2015) from your own copy: an npz file, or LSWMD.pkl itself.

    A pickle is never run: it is read as plain records, and only labelled maps are taken. Reading the full LSWMD.pkl
    takes minutes and about three times its size in memory, so convert it once:
    ``python -m audit_core.data.wm811k LSWMD.pkl wm811k.npz``.

    Where the file knows the production lots, "train", "val" and "test" deal whole lots, seeded, 70/15/15 of the maps
    unless said otherwise: wafers of one lot look alike, so no lot stands in two of them. Maps without a lot are dealt
    one by one. A file with split words of its own has these splits instead.
    """

    path: Annotated[str, Note("An npz file of wafer maps, or LSWMD.pkl, on the machine that runs this program.")] = ""
    split_seed: SplitSeed = 0
    train_share: Annotated[float, Between(0.0, 1.0, "", "Share of the maps for train.")] = SHARES[0]
    val_share: Annotated[float, Between(0.0, 1.0, "", "Share of the maps for val; the rest is for test.")] = SHARES[1]
    drop_duplicates: Annotated[
        bool, Note("Leave out of val what also stands in train, byte by byte, and out of test what stands in either.")
    ] = True
    splits: ClassVar[tuple[str, ...]] = ("all", *WORDS)

    def open(self, split: str) -> WaferFile:
        """Read and check the file. An npz with an array ``split`` (one word a map) has these splits besides "all"."""
        file = Path(self.path).expanduser()
        if not self.path or not file.is_file():
            raise BadData(f"wm811k: {self.path!r} is no file; give an npz of wafer maps or LSWMD.pkl as wm811k(path=…)")
        maps, own = (read_pickle(file)[0], None) if _is_pickle(file) else _read_npz(file)
        check_split("wm811k", split, self._offered(file.name, maps, own, split))
        if split == "all":
            return WaferFile(file.name, maps, np.arange(len(maps)), split)
        words = self._dealt(maps) if own is None else own
        return WaferFile(file.name, maps, np.flatnonzero(words == split), split)

    def _offered(self, file: str, maps: WaferMaps, own: np.ndarray | None, split: str) -> tuple[str, ...]:
        """The splits that a file has; ``InvalidParameter`` where it would have ``split`` if it knew its lots."""
        if own is not None:
            return ("all", *sorted(set(own.tolist()) - {"all"}))
        if maps.lots is None and split in WORDS:
            raise InvalidParameter(
                f"wm811k: {file} knows no lots, so it has no split {split!r}, only all; convert LSWMD.pkl with its "
                "column lotName, or give the npz an array lot"
            )
        return ("all",) if maps.lots is None else self.splits

    def _dealt(self, maps: WaferMaps) -> np.ndarray:
        """The words train, val or test per map by its lot; the empty word for what is left out as a duplicate."""
        shares = (self.train_share, self.val_share, 1.0 - self.train_share - self.val_share)
        words = grouped(() if maps.lots is None else maps.lots, self.split_seed, shares)
        if self.drop_duplicates:
            words[repeated(words, map(fingerprint, maps.maps))] = ""
        return words

    def stamp(self) -> str:
        """Size and time of change of the file."""
        file = Path(self.path).expanduser()
        if not self.path or not file.is_file():
            return ""
        return f"{file.stat().st_size} {file.stat().st_mtime_ns}"


class WaferFile(BaseDataset):
    """The maps of one file, or those of one split of it, in the file's order."""

    def __init__(self, file: str, maps: WaferMaps, kept: np.ndarray, split: str) -> None:
        super().__init__("wm811k", maps.classes, split)
        self._file, self._maps, self._kept = file, maps, kept

    def __len__(self) -> int:
        return len(self._kept)

    def image(self, i: int) -> SourceImage:
        """Die codes of map ``i``; its name is the file and the position in it."""
        row = int(self._kept[self.check(i)])
        return SourceImage(self._maps.maps[row], True, f"{self._file}:{row}")

    def label(self, i: int) -> int | None:
        """Index into ``classes``; None where the file says -1."""
        label = int(self._maps.labels[self._kept[self.check(i)]])
        return None if label < 0 else label

    def lot(self, i: int) -> str | None:
        """The production lot of map ``i``; None where it is not known."""
        row = self._kept[self.check(i)]
        return None if self._maps.lots is None else str(self._maps.lots[row]) or None


def _is_pickle(file: Path) -> bool:
    """By content: an npz is a zip archive, everything else is for the pickle reader to judge."""
    with file.open("rb") as opened:
        return opened.read(2) != b"PK"


def _read_npz(file: Path) -> tuple[WaferMaps, np.ndarray | None]:
    try:
        maps = read_npz(file)
        with np.load(file, allow_pickle=False) as arrays:
            words = arrays["split"].astype(str) if "split" in arrays.files else None
    except (ValueError, OSError, EOFError, KeyError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(f"wm811k: {file.name} is no npz of wafer maps ({error}); convert LSWMD.pkl to one") from None
    if len(maps) and not -1 <= maps.labels.min() <= maps.labels.max() < len(maps.classes):
        raise BadData(f"wm811k: {file.name} has labels outside its {len(maps.classes)} classes; convert it again")
    if words is not None and words.shape != maps.labels.shape:
        raise BadData(f"wm811k: {file.name} has {len(maps)} maps but {words.size} split words; convert it again")
    return maps, words
