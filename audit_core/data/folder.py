"""A folder of the user's own images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from audit_core.data.base import DATASETS, BaseDataset, check_split
from audit_core.errors import BadData, BadImage
from audit_core.images import EXTENSIONS, read_image
from audit_core.params import Note
from audit_core.types import SourceImage


@DATASETS.register("folder")
@dataclass(frozen=True)
class Folder:
    """Images in a folder, sorted by name; with sub-folders, each sub-folder is a class.

    Read: PNG, JPEG, BMP, TIFF, WebP and .npy. A broken file is refused when it is opened, the others stay usable.
    """

    path: Annotated[str, Note("The folder, on the machine that runs this program.")] = ""
    splits: ClassVar[tuple[str, ...]] = ("all",)

    def open(self, split: str) -> FolderImages:
        """List the files; none is read yet."""
        check_split("folder", split, self.splits)
        if not self.path or not (root := Path(self.path).expanduser()).is_dir():
            raise BadData(f"folder: {self.path!r} is no folder; give one as folder(path=…)")
        files = _files(root)
        if not files:
            raise BadData(f"folder: {self.path!r} holds no image; read are {', '.join(EXTENSIONS)}")
        return FolderImages(root, files, split)

    def stamp(self) -> str:
        """The names of the files: a file that is added or removed makes the folder new."""
        root = Path(self.path).expanduser()
        return "\n".join(map(str, _files(root))) if self.path and root.is_dir() else ""


class FolderImages(BaseDataset):
    """The images below one folder; class = first sub-folder, None for a file beside the sub-folders."""

    def __init__(self, root: Path, files: list[Path], split: str) -> None:
        super().__init__("folder", sorted({file.parts[0] for file in files if len(file.parts) > 1}), split)
        self._root, self._files = root, files

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> SourceImage:
        """Decode file ``i``; ``BadImage`` if that one file is broken or gone."""
        file = self._files[self.check(i)]
        try:
            data = (self._root / file).read_bytes()
        except OSError as error:
            raise BadImage(f"{file.as_posix()} cannot be opened ({error.strerror}); list the folder again") from None
        return read_image(data, file.as_posix())

    def label(self, i: int) -> int | None:
        """Index of the sub-folder; None for a file that stands in none."""
        file = self._files[self.check(i)]
        return self.classes.index(file.parts[0]) if len(file.parts) > 1 else None


def _files(root: Path) -> list[Path]:
    """Relative paths of all images at most one folder deep, sorted; hidden ones are left out."""
    found = [file.relative_to(root) for pattern in ("*", "*/*") for file in root.glob(pattern) if file.is_file()]
    return sorted(f for f in found if f.suffix.lower() in EXTENSIONS and not any(p.startswith(".") for p in f.parts))
