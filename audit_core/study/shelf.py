"""Where studies stand: the one that ships with the project, those run here, and those that a visitor built."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from audit_core.errors import UnknownName
from audit_core.store import default_directory
from audit_core.study.folder import MANIFEST, StudyFolder

SHIPPED = "embedded"
VISITOR = "visitor-"  # studies built on a page: found by their link alone
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,80}")


@dataclass(frozen=True)
class Shelf:
    """Study folders below ``root``, by name; a name is no path, so a link opens nothing else."""

    root: Path

    @classmethod
    def default(cls) -> Shelf:
        """Beside the store."""
        return cls(default_directory().parent / "studies")

    def names(self) -> tuple[str, ...]:
        """The shipped study, then those run on this machine, newest first; visitors' studies are not told of."""
        own = sorted(self.root.glob(f"*/{MANIFEST}"), key=lambda path: -path.stat().st_mtime)
        found = [path.parent.name for path in own if _NAME.fullmatch(path.parent.name)]
        return (*([SHIPPED] if shipped() else []), *(name for name in found if not name.startswith(VISITOR)))

    def folder(self, name: str) -> StudyFolder:
        """The study called ``name``; ``UnknownName`` where there is none."""
        if name == SHIPPED and (path := shipped()):
            return StudyFolder(path)
        if _NAME.fullmatch(name) and (self.root / name / MANIFEST).is_file():
            return StudyFolder(self.root / name)
        raise UnknownName(f"there is no study {name!r} here; known: {', '.join(self.names()) or 'none'}")

    def fresh(self) -> str:
        """A new name that nobody can guess, for a study built on a page."""
        return VISITOR + secrets.token_hex(8)


def shipped() -> Path | None:
    """Folder of the study that ships with the project, None where it is missing."""
    path = Path(__file__).resolve().parents[1] / "examples" / "study"
    return path if (path / MANIFEST).is_file() else None
