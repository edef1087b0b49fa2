"""The result of one audit, as data that needs no torch: curves, controls, map, provenance; JSON in and out."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_core.errors import BadData
from audit_core.health import findings
from audit_core.keys import Choice
from audit_core.types import SETTINGS, AuditSpec, Curve, Effect, Triple, read_only

SCHEMA = "triplecheck/audit-record/1"


@dataclass(frozen=True)
class Controls:
    """Curves of random orders of the same pixels: float64 (orders, steps + 1) each, and their areas (orders,)."""

    deletion: np.ndarray
    insertion: np.ndarray
    deletion_auc: np.ndarray
    insertion_auc: np.ndarray


@dataclass(frozen=True)
class StepProbabilities:
    """What the model said along the curves: ``classes`` (k,) model outputs; float32 (steps + 1, k) each."""

    classes: tuple[int, ...]
    deletion: np.ndarray
    insertion: np.ndarray


@dataclass(frozen=True)
class AuditRecord:
    """One finished audit; enough to draw it, to send it and to redo it.

    probabilities: softmax of the untouched image per class; deletion, insertion: curves of the target's score;
    *_auc: area under the curve (:meth:`better` says which way is better), *_normalised: divided by
    the untouched score (None where that is not positive); advantage: how much better than random order, > 0 is
    better, None without controls; values: the map, float32 (rows, columns); pixels: the model's input before
    normalisation, float32 (channels, rows, columns); health: what is odd about the map, in sentences.
    """

    key: str
    spec: AuditSpec
    classes: tuple[str, ...]
    predicted: int
    target: int
    label: int | None
    probabilities: np.ndarray
    deletion: Curve
    insertion: Curve
    controls: Controls
    advantage: dict[str, Effect]
    along: StepProbabilities
    values: np.ndarray
    error: np.ndarray | None
    signed: bool
    pixels: np.ndarray
    badge: str
    badge_sentence: str
    health: tuple[str, ...]
    forwards: int
    backwards: int
    seconds: float
    extra: dict[str, Any]  # Any: what the explainer reported, JSON scalars and lists
    provenance: dict[str, Any]  # Any: JSON scalars, lists and objects

    def __post_init__(self) -> None:
        for name in ("probabilities", "values", "pixels"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def deletion_auc(self) -> float:
        """Area under the deletion curve; lower is better, unless the least important pixels go first."""
        return self.deletion.auc()

    @property
    def insertion_auc(self) -> float:
        """Area under the insertion curve; higher is better, unless the least important pixels come first."""
        return self.insertion.auc()

    @property
    def untouched(self) -> float:
        """Score of the untouched image: where deletion starts and insertion ends."""
        return float(self.deletion.score[0])

    @property
    def sick(self) -> tuple[str, ...]:
        """Why nothing may be concluded from the map, in sentences; empty when it is fit to be ranked."""
        found = findings(self.values, self.untouched, self.spec.quantity, len(self.classes), self.extra)
        return tuple(finding.sentence for finding in found if finding.severity == "sick")

    def better(self, curve: str) -> str:
        """Which way is better for "deletion" or "insertion": "lower" or "higher"; least important first turns both."""
        return "lower" if (curve == "deletion") == (self.spec.direction == "most") else "higher"

    def normalised(self, auc: float) -> float | None:
        """``auc`` divided by the untouched score; None where that is not positive (a logit may be)."""
        return auc / self.untouched if self.untouched > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Plain data of the published schema (``docs/audit-record.schema.json``)."""
        spec = self.spec
        return {
            "schema": SCHEMA,
            "key": self.key,
            "checkpoint": spec.triple.checkpoint,
            "explainer": str(spec.triple.explainer),
            "fill": str(spec.triple.fill),
            "image": spec.image,
            "settings": {name: getattr(spec, name) for name in SETTINGS},
            "classes": list(self.classes),
            "predicted": self.classes[self.predicted],
            "predicted_index": self.predicted,
            "target": self.classes[self.target],
            "target_index": self.target,
            "label_index": self.label,
            "probabilities": [float(p) for p in self.probabilities],
            "fractions": self.deletion.fraction.tolist(),
            "deletion": self.deletion.score.tolist(),
            "insertion": self.insertion.score.tolist(),
            "deletion_auc": self.deletion_auc,
            "insertion_auc": self.insertion_auc,
            "deletion_auc_normalised": self.normalised(self.deletion_auc),
            "insertion_auc_normalised": self.normalised(self.insertion_auc),
            "random": {f.name: getattr(self.controls, f.name).tolist() for f in dataclasses.fields(Controls)},
            "advantage": {name: dataclasses.asdict(effect) for name, effect in self.advantage.items()},
            "along": {
                "classes": list(self.along.classes),
                "deletion": pack(self.along.deletion),
                "insertion": pack(self.along.insertion),
            },
            "map": {
                "values": pack(self.values),
                "error": pack(self.error) if self.error is not None else None,
                "signed": self.signed,
                "health": list(self.health),
                "extra": self.extra,
            },
            "input": pack(self.pixels),
            "readout": {"badge": self.badge, "sentence": self.badge_sentence},
            "forwards": self.forwards,
            "backwards": self.backwards,
            "seconds": self.seconds,
            "provenance": self.provenance,
        }

    def dumps(self) -> str:
        """:meth:`to_json` as one line of text."""
        return json.dumps(self.to_json(), allow_nan=False)


def from_json(raw: Any) -> AuditRecord:  # Any: whatever a file held; checked here
    """Read a record back; ``BadData`` with one sentence when it is not one."""
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise BadData(
            f"expected an audit record of schema {SCHEMA!r}, found {found!r}; choose a file that Triplecheck wrote"
        )
    try:
        return _read(raw)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadData(f"the audit record is damaged ({type(error).__name__}: {error}); export it again") from None


def _read(raw: dict[str, Any]) -> AuditRecord:
    triple = Triple(str(raw["checkpoint"]), Choice.parse(raw["explainer"]), Choice.parse(raw["fill"]))
    fractions, settings = np.asarray(raw["fractions"], dtype=np.float64), raw["settings"]
    field, along = raw["map"], raw["along"]
    classes = tuple(str(name) for name in raw["classes"])
    predicted, target = int(raw["predicted_index"]), int(raw["target_index"])
    if not (0 <= predicted < len(classes) and 0 <= target < len(classes)):
        raise ValueError("class index out of range")
    steps = len(fractions)
    curves = {name: Curve(fractions, np.asarray(raw[name], dtype=np.float64)) for name in ("deletion", "insertion")}
    if any(curve.score.shape != (steps,) for curve in curves.values()):
        raise ValueError("curves and fractions differ in length")
    return AuditRecord(
        key=str(raw["key"]),
        spec=AuditSpec(triple, str(raw["image"]), **settings),
        classes=classes,
        predicted=predicted,
        target=target,
        label=raw["label_index"],
        probabilities=np.asarray(raw["probabilities"], dtype=np.float64),
        **curves,
        controls=Controls(
            **{
                f.name: np.asarray(raw["random"][f.name], dtype=np.float64).reshape(
                    (-1, steps) if not f.name.endswith("auc") else (-1,)
                )
                for f in dataclasses.fields(Controls)
            }
        ),
        advantage={str(name): Effect(**effect) for name, effect in raw["advantage"].items()},
        along=StepProbabilities(tuple(along["classes"]), unpack(along["deletion"]), unpack(along["insertion"])),
        values=unpack(field["values"]),
        error=unpack(field["error"]) if field["error"] else None,
        signed=bool(field["signed"]),
        pixels=unpack(raw["input"]),
        badge=str(raw["readout"]["badge"]),
        badge_sentence=str(raw["readout"]["sentence"]),
        health=tuple(field["health"]),
        forwards=int(raw["forwards"]),
        backwards=int(raw["backwards"]),
        seconds=float(raw["seconds"]),
        extra=dict(field["extra"]),
        provenance=dict(raw["provenance"]),
    )


def loads(text: str | bytes) -> AuditRecord:
    """Read the text of a record; ``BadData`` when it is not JSON or not a record."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError, UnicodeDecodeError):
        raise BadData(
            "expected an audit record, found text that is not JSON; choose a file that Triplecheck wrote"
        ) from None
    return from_json(raw)


def pack(array: np.ndarray) -> dict[str, Any]:
    """Exact bytes of a float32 array (little-endian, row-major) as base64, with its shape."""
    data = np.ascontiguousarray(array, dtype="<f4")
    return {"dtype": "float32", "shape": list(data.shape), "base64": base64.b64encode(data.tobytes()).decode()}


def unpack(raw: dict[str, Any]) -> np.ndarray:
    """Inverse of :func:`pack`; ``ValueError`` when shape and bytes disagree or the dtype is another."""
    if raw["dtype"] != "float32":
        raise ValueError(f"dtype {raw['dtype']!r} is not float32")
    flat = np.frombuffer(base64.b64decode(raw["base64"], validate=True), dtype="<f4")
    return flat.reshape([int(n) for n in raw["shape"]]).astype(np.float32)
