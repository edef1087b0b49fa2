"""The analysis that ships with the project, and those that visitors and the command line make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audit_core.i2x.pieces import MANIFEST

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "models" / "runs"
ANALYSES = ROOT / "audit_core" / "examples" / "i2x"


@dataclass(frozen=True)
class Shipped:
    """A training run with its finished analysis; ``name`` can stand in a link."""

    name: str
    run: Path
    analysis: Path


def shipped() -> dict[str, Shipped]:
    """By name, in alphabetical order; the first is what the pages open on."""
    found = sorted(path.parent for path in ANALYSES.glob(f"*/{MANIFEST}"))
    return {path.name: Shipped(path.name, RUNS / path.name, path) for path in found if (RUNS / path.name).is_dir()}
