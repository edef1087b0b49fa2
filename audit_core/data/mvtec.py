"""MVTec AD from the user's own copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from audit_core.data.base import DATASETS, BaseDataset, check_split
from audit_core.data.splits import WORDS, SplitSeed, stratified
from audit_core.errors import BadData, BadImage, InvalidParameter
from audit_core.images import read_image
from audit_core.params import Note, OneOf
from audit_core.types import SourceImage

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
POOLED = "all"
BINARY, BY_TYPE = "good/defective", "defect type"
GOOD, DEFECTIVE = "good", "defective"


@dataclass(frozen=True)
class Place:
    """One image in the official layout; part: "train" or "test"; kind: the defect type, or "good"."""

    category: str
    part: str
    kind: str
    file: str

    @property
    def image(self) -> str:
        """Relative path of the image."""
        return f"{self.category}/{self.part}/{self.kind}/{self.file}"

    @property
    def truth(self) -> str:
        """Relative path of the drawing of its defect."""
        return f"{self.category}/ground_truth/{self.kind}/{Path(self.file).stem}_mask.png"


@DATASETS.register("mvtec")
@dataclass(frozen=True)
class Mvtec:
    """MVTec AD (Bergmann et al. 2019, 2021) from your own copy: photographs of 15 goods, with their defects drawn.

    Read in the official layout: PATH/CATEGORY/train/good, test/TYPE and ground_truth/TYPE. The official training images
    are all good, so no classifier can learn from them alone: "train", "val" and "test" deal the images of both folders
    70/15/15, seeded, within each category and class. What is audited on "test" then stayed out of training, unlike in
    arXiv 2605.14255, which drew the images of its audit from the official test folder ("official-test" here).
    """

    path: Annotated[str, Note("The folder with the 15 category folders, on the machine that runs this program.")] = ""
    category: Annotated[str, OneOf((POOLED, *CATEGORIES), "One category, or all of them pooled.")] = POOLED
    task: Annotated[str, OneOf((BINARY, BY_TYPE), "Two classes, or good and the defect types of a category.")] = BINARY
    split_seed: SplitSeed = 0
    splits: ClassVar[tuple[str, ...]] = ("all", "official-train", "official-test", *WORDS)

    def open(self, split: str) -> MvtecImages:
        """List the files; none is read yet. ``BadData`` for missing folders, ``InvalidParameter`` for pooled types."""
        check_split("mvtec", split, self.splits)
        if self.task == BY_TYPE and self.category == POOLED:
            raise InvalidParameter(f"mvtec: the task {BY_TYPE!r} needs one category, got {POOLED!r}; choose one")
        root = Path(self.path).expanduser()
        if not self.path or not root.is_dir():
            raise BadData(f"mvtec: {self.path!r} is no folder; give that of the category folders as mvtec(path=…)")
        if missing := [name for name in self._wanted() if not (root / name).is_dir()]:
            words = f"{self.path!r} has no folder {', '.join(missing)}"
            raise BadData(f"mvtec: {words}; unpack what is missing or choose a category that is there")
        places = [place for name in self._wanted() for place in _places(root, name)]
        names = [self._class(place) for place in places]
        classes = (GOOD, DEFECTIVE) if self.task == BINARY else (GOOD, *sorted(set(names) - {GOOD}))
        kept = np.flatnonzero(self._stands(places, names, split))
        labels = [classes.index(names[k]) for k in kept]
        return MvtecImages(root, [places[k] for k in kept], labels, classes, split)

    def stamp(self) -> str:
        """Time of change of every folder that is listed: one with an added or removed file is read again."""
        root = Path(self.path).expanduser()
        if not self.path or not root.is_dir():
            return ""
        listed = [folder for name in self._wanted() for folder in _folders(root, name)]
        return "\n".join(f"{found.relative_to(root)} {found.stat().st_mtime_ns}" for found in listed if found.is_dir())

    def _wanted(self) -> tuple[str, ...]:
        return CATEGORIES if self.category == POOLED else (self.category,)

    def _class(self, place: Place) -> str:
        return DEFECTIVE if self.task == BINARY and place.kind != GOOD else place.kind

    def _stands(self, places: Sequence[Place], names: Sequence[str], split: str) -> np.ndarray:
        """bool (n,), True for the images of ``split``; the seeded ones fall alike, categories pooled or not."""
        if split in WORDS:
            strata = [f"{place.category} {name}" for place, name in zip(places, names, strict=True)]
            return stratified(strata, self.split_seed) == split
        return np.array([split in ("all", f"official-{place.part}") for place in places])


class MvtecImages(BaseDataset):
    """The images of one split: category by category, training folder first, good before the defect types, by name."""

    def __init__(
        self, root: Path, places: Sequence[Place], labels: Sequence[int], classes: Sequence[str], split: str
    ) -> None:
        super().__init__("mvtec", classes, split)
        self._root, self._places, self._labels = root, places, labels

    def __len__(self) -> int:
        return len(self._places)

    def image(self, i: int) -> SourceImage:
        """Decode image ``i``; ``BadImage`` if that one file is broken or gone. Grey categories have one channel."""
        return self._read(self._places[self.check(i)].image)

    def label(self, i: int) -> int:
        """Index into ``classes``; 0 is good."""
        return self._labels[self.check(i)]

    def region(self, i: int) -> np.ndarray | None:
        """bool (rows, columns) of the image, True on the drawn defect; None for a good image, which has none.

        ``BadData`` where the drawing is missing or of another size than the image, ``BadImage`` where it is broken.
        """
        place = self._places[self.check(i)]
        if place.kind == GOOD:
            return None
        if not (self._root / place.truth).is_file():
            raise BadData(f"mvtec: {place.image} is defective, but {place.truth} is missing; unpack ground_truth again")
        inside = self._read(place.truth).values.max(axis=2) > 0
        if inside.shape != (shape := self._read(place.image).values.shape[:2]):
            raise BadData(f"mvtec: {place.truth} has {inside.shape} pixels, its image {shape}; unpack both again")
        return inside

    def _read(self, file: str) -> SourceImage:
        try:
            data = (self._root / file).read_bytes()
        except OSError as error:
            raise BadImage(f"{file} cannot be opened ({error.strerror}); unpack MVTec AD again") from None
        return read_image(data, file)


def _folders(root: Path, category: str) -> list[Path]:
    """The folders with images of one category: training first, then the test folders, good before the defect types."""
    test = root / category / "test"
    kinds = sorted(found for found in test.glob("[!.]*") if found.is_dir()) if test.is_dir() else []
    return [root / category / "train" / GOOD, *sorted(kinds, key=lambda folder: folder.name != GOOD)]


def _places(root: Path, category: str) -> list[Place]:
    """All images of one category; hidden files and formats other than PNG are left out."""
    for needed in (f"{category}/train/{GOOD}", f"{category}/test"):
        if not (root / needed).is_dir():
            raise BadData(f"mvtec: the folder {needed} is missing; unpack the category {category} again")
    return [
        Place(category, folder.parent.name, folder.name, file)
        for folder in _folders(root, category)
        for file in sorted(found.name for found in folder.glob("[!.]*.png"))
    ]
