"""A finished I2X analysis, read back from its folder. Imports no torch, so that a page opens at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_core.errors import BadData
from audit_core.i2x.mapping import Transition
from audit_core.i2x.pieces import MANIFEST, Pieces, moment_name
from audit_core.i2x.prototypes import Prototypes
from audit_core.i2x.settings import Settings
from audit_core.i2x.trajectory import Moment, Trajectory
from models.cards import ModelCard


@dataclass(frozen=True)
class Analysis:
    """A finished analysis: what the pages draw and the command line prints."""

    name: str
    settings: Settings
    prototypes: Prototypes
    trajectory: Trajectory
    transitions: tuple[Transition, ...]
    classes: tuple[str, ...]
    references: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    manifest: Mapping[str, Any]  # Any: JSON values
    card: ModelCard  # of the model that the prototypes come from: how it sees an image

    def check(self, step: int, card: ModelCard) -> None:
        """``BadData`` unless ``card`` is that of the very checkpoint that was analysed at ``step``."""
        pieces = self.manifest["pieces"]
        analysed = dict(zip(self.trajectory.steps, pieces["moments"], strict=True)).get(step)
        if analysed != moment_name(step, card.weights_sha256, pieces["prototypes"], self.prototypes):
            raise BadData(
                f"step {step} of {self.name} is no longer the checkpoint that was analysed; run the analysis again"
            )

    @property
    def beta(self) -> np.ndarray:
        """(transitions, K, classes)."""
        return np.stack([one.beta for one in self.transitions])

    def pushes(self, members: np.ndarray | None = None) -> np.ndarray:
        """beta times the mean change of intensity: how far each prototype moved each class, (transitions, K, classes).

        In units of confidence; positive where the class was pushed up. members: bool (n,), the images meant, all for
        None. beta alone is a rate: it can be large where next to nothing changed. With one intensity per class, each
        class's own.
        """
        seen = self.trajectory.intensity if members is None else self.trajectory.intensity[:, members]
        change = np.diff(seen.mean(1, dtype=np.float64), axis=0)
        return self.beta * change  # a single intensity is spread over the classes

    def of_classes(self, *classes: int) -> np.ndarray:
        """The images of these classes, bool (n,)."""
        return np.isin(self.trajectory.labels, classes)

    @property
    def present(self) -> np.ndarray:
        """Whether an image holds a prototype at all, bool (n, K)."""
        return self.trajectory.shares > 0


def read(root: Path) -> Analysis:
    """Open a finished analysis; ``BadData`` where there is none, or a piece of it is missing."""
    try:
        raw = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadData(f"{root.name} holds no finished I2X analysis; make it with audit_core i2x trajectory") from None
    try:
        return _read(root, raw)
    except BadData:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadData(f"{root.name} is no I2X analysis of this version; run the command that made it again") from None


def _read(root: Path, raw: Mapping[str, Any]) -> Analysis:
    folder, pieces = Pieces(root), raw["pieces"]
    found = folder.read_prototypes(pieces["prototypes"])
    arrays = [folder.read(name) for name in pieces["moments"]]
    steps = [folder.read(name) for name in pieces["transitions"]]
    if found is None or None in arrays or None in steps:
        raise BadData(f"{root.name} lacks a piece of its analysis; run the same command again, only that piece is made")
    moments = [Moment(one["intensity"], one["confidence"]) for one in arrays if one is not None]
    labels = np.array(raw["labels"], dtype=np.int64)
    return Analysis(
        raw["name"],
        Settings.parse(raw["settings"]),
        found,
        Trajectory.of(raw["steps"], moments, found, labels),
        tuple(as_transition(one) for one in steps if one is not None),
        tuple(raw["classes"]),
        tuple(raw["references"]),
        tuple((file, reason) for file, reason in raw["broken"]),
        raw,
        ModelCard.from_json(json.dumps(raw["card"])),
    )


def as_transition(arrays: Mapping[str, np.ndarray]) -> Transition:
    """A transition from the arrays of its piece."""
    plain: dict[str, Any] = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    return Transition(**plain)
