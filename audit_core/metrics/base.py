"""What every metric promises: a number with its direction and interval, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.documented import Documented
from audit_core.explainers.base import Cost, Explainer
from audit_core.fills.base import Fill, FillContext
from audit_core.record import AuditRecord
from audit_core.registry import Registry

FAMILIES = ("faithfulness", "controls", "sanity", "stability", "complexity", "localisation")
BETTER = ("higher", "lower", "neither")

#: report(fraction done, words); may raise to stop the work.
Report = Callable[[float, str], None]


def silent(fraction: float, message: str) -> None:
    """The report that tells nobody."""


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at: one finished audit, and the model to ask more about it.

    classifier: as the audit asked it (a contrast is set already); its lock is held by the caller. region: bool
    (rows, columns) in the model's input, where the evidence for the image's label truly lies, None when unknown.
    """

    record: AuditRecord
    classifier: Classifier
    explainer: Explainer
    fill: Fill
    context: FillContext
    region: np.ndarray | None = None

    @property
    def pixels(self) -> torch.Tensor:
        """The model's input before normalisation, float32 (1, channels, rows, columns) on the classifier's device."""
        return torch.from_numpy(np.array(self.record.pixels))[None].to(self.classifier.device)

    @property
    def values(self) -> np.ndarray:
        """The map, float32 (rows, columns), higher = more evidence for the target."""
        return self.record.values

    def score(self, logits: torch.Tensor) -> np.ndarray:
        """The audited quantity of the target, float64 (n,): softmax probability or logit, as the audit was asked."""
        rows = logits if self.record.spec.quantity == "logit" else logits.softmax(1)
        return rows[:, self.record.target].double().cpu().numpy()

    def explain(self, pixels: torch.Tensor, classifier: Classifier | None = None) -> np.ndarray:
        """Maps of other images (n, channels, rows, columns) by the same explainer, target and seed, float32 (n, r, c)."""
        target = torch.full((len(pixels),), self.record.target)
        seed = self.record.spec.seed
        return self.explainer.attribute(classifier or self.classifier, pixels, target, seed).values


@dataclass(frozen=True)
class Measure:
    """One measured number, or the reason why there is none.

    value: None when refused; low, high: 95 % interval, None where the number has no sampling error; n: what the
    interval is over (``method`` says which units); sentence: what the number means here; extra: plain data to draw.
    """

    value: float | None
    sentence: str
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: str = ""
    extra: dict[str, Any] = field(default_factory=dict)  # Any: JSON scalars and lists
    refused: bool = False

    def __post_init__(self) -> None:
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if not all(map(math.isfinite, numbers)) or self.refused != (self.value is None):
            raise ValueError(f"a measure is finite or refused, got {self}")

    @classmethod
    def refusal(cls, reason: str) -> Measure:
        """No number, and why."""
        return cls(None, reason, refused=True)

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``Measure(**data)`` reads it back."""
        return asdict(self)


class Metric(Documented):
    """Base of all metrics; subclasses are frozen dataclasses whose fields are the parameters.

    better: which way is better, "higher", "lower" or "neither" (a description, not a merit); span: the values it can
    take; family: one of ``FAMILIES``.
    """

    better: ClassVar[str]
    span: ClassVar[str]

    def refuse(self, evidence: Evidence) -> str | None:
        """The sentence why there is no such number here, or None."""
        return None

    def cost(self, evidence: Evidence) -> Cost:
        """Model evaluations at most, in images."""
        return Cost(0)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The number; called only where :meth:`refuse` says None. The model is left as found."""
        raise NotImplementedError


METRICS: Registry[Metric] = Registry("metric")
