"""Where analyses stand: the one that ships with the project, and those made on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from audit_core.i2x.pieces import MANIFEST
from audit_core.store import default_directory

SHIPPED = Path(__file__).resolve().parents[1] / "examples" / "i2x"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,80}")


def own() -> Path:
    """The folder beside the store whose subfolders the pages offer: ``i2x … --out .triplecheck/analyses/NAME``."""
    return default_directory().parent / "analyses"


def analyses() -> dict[str, Path]:
    """Folders of the finished analyses by name: what ships, which the pages open on, then one's own, newest first.

    A name is no path, so a link opens nothing else; the name of a shipped one is taken.
    """
    shipped = sorted(path.parent for path in SHIPPED.glob(f"*/{MANIFEST}"))
    made = sorted(own().glob(f"*/{MANIFEST}"), key=lambda path: -path.stat().st_mtime)
    found = {path.name: path for path in shipped}
    for path in made:
        if _NAME.fullmatch(path.parent.name):
            found.setdefault(path.parent.name, path.parent)
    return found
