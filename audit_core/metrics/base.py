"""What every metric promises: a number with its direction and interval, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.documented import Documented
from audit_core.errors import Refused
from audit_core.explainers.base import Cost, Explainer
from audit_core.fills.base import Fill, FillContext
from audit_core.intervals import mean_interval
from audit_core.params import Between
from audit_core.record import AuditRecord
from audit_core.registry import Registry

FAMILIES = ("faithfulness", "controls", "sanity", "stability", "complexity", "localisation")
BETTER = ("higher", "lower", "neither")
OVER_ORDERS = "t interval over random orders"

#: report(fraction done, words); may raise to stop the work.
Report = Callable[[float, str], None]

#: How much a metric that explains again and again may spend.
Budget = Annotated[
    int,
    Between(
        1,
        10_000_000,
        "evaluations",
        "Forwards and backwards at most; repetitions are cut to fit, or the metric is refused.",
    ),
]


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

    @property
    def flat(self) -> bool:
        """Whether the map is constant: it has no order of its own."""
        return bool(np.ptp(self.values) == 0)

    def score(self, logits: torch.Tensor) -> np.ndarray:
        """The audited quantity of the target, float64 (n,): softmax probability or logit, as the audit was asked."""
        rows = logits if self.record.spec.quantity == "logit" else logits.softmax(1)
        return rows[:, self.record.target].double().cpu().numpy()

    def scores(self, images: torch.Tensor) -> np.ndarray:
        """The audited quantity of pixels (n, channels, rows, columns), float64 (n,)."""
        return self.score(self.classifier.predict(images))

    def scores_without(self, changed: np.ndarray, fill: Fill | None = None) -> np.ndarray:
        """The audited quantity of the image with pixels filled, float64 (n,).

        changed: bool (n, rows, columns), True where the pixel is filled; fill: in place of the audited one.
        """
        fill, pixels = fill or self.fill, self.pixels
        substrate = fill.substrate(pixels, self.context)

        def build(start: int, stop: int) -> torch.Tensor:
            where = torch.from_numpy(changed[start:stop]).to(pixels.device)
            images, substrates = (one.expand(stop - start, -1, -1, -1) for one in (pixels, substrate))
            return fill.apply(images, where, substrates)

        return np.concatenate([self.score(logits) for _, logits in self.classifier.stream(len(changed), build)])

    def explain(
        self, pixels: torch.Tensor, classifier: Classifier | None = None, target: int | None = None
    ) -> np.ndarray:
        """Maps of other images (n, channels, rows, columns) by the audit's explainer and seed, float32 (n, r, c).

        classifier, target: in place of the audited ones. The seed is the audit's, so a sampling method draws the
        same masks again and differences are not those of sampling.
        """
        if self.explainer.needs:
            raise Refused(f"{self.explainer.title} cannot be made again for another image or model, which this needs")
        wanted = torch.full((len(pixels),), self.record.target if target is None else target)
        return self.explainer.attribute(classifier or self.classifier, pixels, wanted, self.record.spec.seed).values

    def explanations(self, budget: int) -> int:
        """How many maps ``budget`` evaluations pay for, each with one forward more to see what the model says."""
        return budget // (self.map_cost.forwards + self.map_cost.backwards + 1)

    @property
    def map_cost(self) -> Cost:
        """Evaluations of one map at most."""
        return self.explainer.cost(self.classifier.card)

    def cost_of(self, maps: int, forwards: int = 0) -> Cost:
        """Evaluations of ``maps`` maps at most, and of ``forwards`` images besides."""
        return Cost(maps * self.map_cost.forwards + forwards, maps * self.map_cost.backwards)


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

    @classmethod
    def over(cls, sample: np.ndarray, sentence: str, method: str, **extra: Any) -> Measure:  # Any: JSON data
        """The mean of a sample with its 95 % t interval; a single number has none."""
        mean, low, high = mean_interval(sample)
        return cls(mean, sentence, low, high, len(sample), method if len(sample) > 1 else "", extra)

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

FLAT = "the map is constant, so its order is the tie rule's and not the explainer's"


def over_budget(evidence: Evidence, maps: int, budget: int) -> str | None:
    """The sentence why not even ``maps`` maps fit into the budget, or None."""
    if evidence.explanations(budget) >= maps:
        return None
    each = evidence.map_cost.forwards + evidence.map_cost.backwards + 1
    name = evidence.record.spec.triple.explainer.name
    return f"{maps} more maps by {name} take up to {maps * each:,} evaluations, the budget is {budget:,}; raise it"
