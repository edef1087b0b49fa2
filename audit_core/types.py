"""The few nouns of an audit. All are frozen; arrays inside them are read-only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, or a contiguous copy of it, that cannot be written to."""
    out = np.ascontiguousarray(array)
    if out is array and (array.flags.writeable or array.base is not None):  # a view's base may still be written to
        out = array.copy()
    out.setflags(write=False)
    return out


@dataclass(frozen=True)
class SourceImage:
    """An image as it came, before any model's size and channels.

    values: uint8 (rows, columns) die codes 0/1/2 when ``wafer``, else float32 (rows, columns, channels) in
    [0, 1] with 1 or 3 channels; notes: what was changed while reading it (frame chosen, alpha composited…).
    """

    values: np.ndarray
    wafer: bool
    name: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", read_only(self.values))

    @property
    def digest(self) -> str:
        """sha256 (hex) of kind, shape and exact values."""
        head = f"{'wafer' if self.wafer else 'pixels'} {self.values.dtype.str} {self.values.shape} ".encode()
        digest = hashlib.sha256(head)
        digest.update(self.values.data)  # no copy: an image may be hundreds of megabytes
        return digest.hexdigest()


@dataclass(frozen=True)
class Triple:
    """What is under audit: a checkpoint, an explainer and a fill operator."""

    checkpoint: str
    explainer: Choice
    fill: Choice

    def __str__(self) -> str:
        return f"{self.checkpoint} · {self.explainer} · {self.fill}"


DIRECTIONS = ("most", "least")
QUANTITIES = ("probability", "logit")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class AuditSpec:
    """Everything that can change a number of one audit, in words that can stand in a link.

    image: "DATASET:SPLIT:INDEX" or "upload:SHA256"; target: "predicted", "label" or a class name or index;
    steps: points after the untouched one; patch: side of the square that is changed at once, in pixels;
    direction: "most" or "least" important first; quantity: "probability" (softmax) or "logit"; against: a class
    whose logit is taken off, so that map and curves ask why the target *rather than* this class (then quantity must
    be "logit"), "" for none;
    controls: how many random orders stand behind the curve.
    """

    triple: Triple
    image: str
    target: str = "predicted"
    steps: int = 20
    patch: int = 1
    direction: str = "most"
    quantity: str = "probability"
    controls: int = 8
    seed: int = 0
    precision: str = "fp32"
    against: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 10_000),
            ("patch", 1, 1_024),
            ("controls", 0, 200),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidParameter(f"{name} must be a whole number in [{low}, {high}], got {value!r}")
        for name, options in (("direction", DIRECTIONS), ("quantity", QUANTITIES), ("precision", PRECISIONS)):
            if getattr(self, name) not in options:
                raise InvalidParameter(f"{name} must be one of {', '.join(options)}; got {getattr(self, name)!r}")
        if self.against and self.quantity != "logit":
            raise InvalidParameter(
                f"a contrast with {self.against!r} is a difference of logits, got quantity {self.quantity!r}; use logit"
            )

    @property
    def scored(self) -> str:
        """What the curves show, in words: "probability", "logit" or "logit difference"."""
        return "logit difference" if self.against else self.quantity


#: The fields of an :class:`AuditSpec` besides triple and image.
SETTINGS = tuple(name for name in AuditSpec.__dataclass_fields__ if name not in ("triple", "image"))


@dataclass(frozen=True)
class Attribution:
    """Maps of how much each pixel speaks for the target class.

    values: float32 (n, rows, columns), finite, higher = more evidence for the target; target: int64 (n,);
    signed: whether values below 0 mean evidence against; error: standard error of ``values`` where the method
    estimates one, else None; forwards, backwards: model evaluations spent, in images; extra: plain numbers and
    words that the method reports besides (grid, masks used, …).
    """

    values: np.ndarray
    target: np.ndarray
    signed: bool
    error: np.ndarray | None = None
    forwards: int = 0
    backwards: int = 0
    extra: dict[str, Any] = field(default_factory=dict)  # Any: JSON scalars and lists

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.target.shape != self.values.shape[:1]:
            raise ValueError(f"values must be (n, h, w) and target (n,), got {self.values.shape}, {self.target.shape}")
        object.__setattr__(self, "values", read_only(self.values.astype(np.float32, copy=False)))
        object.__setattr__(self, "target", read_only(self.target.astype(np.int64, copy=False)))
        if self.error is not None:
            object.__setattr__(self, "error", read_only(self.error.astype(np.float32, copy=False)))


@dataclass(frozen=True)
class Curve:
    """A score along a path of growing change.

    fraction: float64 (points,), rising from 0 to 1, share of pixels changed; score: float64 (points,), the
    model's score for the target there. One word for both kinds: a deletion curve starts at the untouched image,
    an insertion curve at the filled one.
    """

    fraction: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", read_only(np.asarray(self.fraction, dtype=np.float64)))
        object.__setattr__(self, "score", read_only(np.asarray(self.score, dtype=np.float64)))

    def auc(self) -> float:
        """Area under the curve by the trapezoid rule on the fraction axis; a constant curve at s has area s."""
        return float(np.trapezoid(self.score, self.fraction))


@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval, sample size and the method of the interval; never travels without them."""

    value: float
    low: float
    high: float
    n: int
    method: str
