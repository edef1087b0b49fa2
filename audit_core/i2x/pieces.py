"""Pieces of an analysis on disk: each whole or absent, none ever pickled."""

from __future__ import annotations

import hashlib
import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_core.i2x.prototypes import Prototypes
from audit_core.keys import key

MANIFEST, PIECES = "analysis.json", "pieces"
#: what numpy and zipfile raise for a file that was cut, overwritten in the middle, or is something else
BROKEN = (OSError, ValueError, EOFError, KeyError, NotImplementedError, SyntaxError, tokenize.TokenError,
          zipfile.BadZipFile, zlib.error)  # fmt: skip


def moment_name(step: int, weights_sha256: str, prototypes: str, found: Prototypes) -> str:
    """The piece of one checkpoint: named by its weights, and by the prototypes' piece and what it holds.

    Prototypes that are made again on another machine may come out in another order, which no setting would tell.
    """
    held = hashlib.sha256(np.ascontiguousarray(found.assignments).tobytes()).hexdigest()
    return f"moment-{step:06d}-{key(weights=weights_sha256, prototypes=prototypes, held=held)[:16]}"


@dataclass(frozen=True)
class Pieces:
    """The folder ``root``: analysis.json, and pieces/ with one npz file per piece."""

    root: Path

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Whole or not at all."""
        path = self.root / PIECES / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a piece; None where it is missing or broken: it is then made again."""
        try:
            with np.load(self.root / PIECES / f"{name}.npz", allow_pickle=False) as file:
                return {entry: file[entry] for entry in file.files}
        except BROKEN:
            return None

    def read_prototypes(self, name: str) -> Prototypes | None:
        """The prototypes of a piece, None where it is missing."""
        arrays = self.read(name)
        if arrays is None:
            return None
        judged = tuple((int(count), float(score)) for count, score in arrays.pop("judged").reshape(-1, 2))
        layer, explained = str(arrays.pop("layer")), float(arrays.pop("explained"))
        return Prototypes(layer=layer, explained=explained, judged=judged, **arrays)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Say what the analysis is made of; until then it counts as unfinished."""
        temporary = self.root / f"{MANIFEST}.tmp"
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.root / MANIFEST)
