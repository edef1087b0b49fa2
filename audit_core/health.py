"""Health of a map: what must be known before any number made from it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SEVERITIES = ("sick", "odd")
SATURATED = 1e-6  # a probability closer to 1 than this leaves float32 gradients next to nothing
COMPLETE = 0.1  # relative error from which on a map's sum no longer tells the score's difference
CONSERVED = (0.0, 2.0)  # sum of a relevance map over its logit; biases keep a part, so it need not be 1
TIED = 0.5  # share of pixels of one value from which on the tie rule orders most of the map

#: What explainers report in ``extra``: the largest absolute gradient at the layer that a method reads; how far a map's
#: sum is from the score's difference, relative to it; a map's sum over the logit.
GRADIENT, COMPLETENESS, CONSERVATION = "largest_gradient", "completeness_relative", "conservation"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong ("sick": nothing may be concluded from the map) or noteworthy ("odd")."""

    code: str
    severity: str
    sentence: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}; got {self.severity!r}")


def findings(
    values: np.ndarray, untouched: float, quantity: str, n_classes: int, extra: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """All findings about a map and its score, the gravest first; empty when nothing is odd.

    values: float (rows, columns), may hold NaN; untouched: score of the untouched image; quantity: "probability" or
    "logit"; n_classes: classes of the model; extra: what the explainer reported (``GRADIENT`` and the two sums).
    """
    found = [
        *_of_map(values),
        *_of_gradient(extra or {}),
        *_of_score(untouched, quantity, n_classes),
        *_of_laws(extra or {}),
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _of_map(values: np.ndarray) -> list[Finding]:
    broken = int((~np.isfinite(values)).sum())
    if broken:
        words = f"{broken} of {values.size} map values are not finite: such a map cannot be ranked."
        return [Finding("not-finite", "sick", words)]
    if np.ptp(values) == 0:
        code, what = ("constant", "constant") if values.any() else ("zero", "zero everywhere")
        words = f"The map is {what}: its order is the tie rule's, so the curves say nothing about the explainer."
        return [Finding(code, "sick", words)]
    commonest = int(np.unique(values, return_counts=True)[1].max())
    if commonest > TIED * values.size:
        share = commonest / values.size
        words = f"{share:.0%} of the pixels share one value: among them the curves follow the tie rule, not the map."
        return [Finding("tied", "odd", words)]
    return []


def _of_gradient(extra: Mapping[str, Any]) -> list[Finding]:
    largest = _number(extra.get(GRADIENT))
    if largest != 0:
        return []
    words = "No gradient reaches the layer that the method reads: the map is not made from the model's answer."
    return [Finding("no-gradient", "sick", words)]


def _of_score(untouched: float, quantity: str, n_classes: int) -> list[Finding]:
    if quantity != "probability":
        return []
    if untouched < 1 / n_classes:
        words = f"The untouched image scores {untouched:.3g} for the target, below chance ({1 / n_classes:.3g})."
        return [Finding("below-chance", "odd", words)]
    if untouched > 1 - SATURATED:
        words = "The untouched probability is 1 to six digits: it hides early changes; audit the logit instead."
        return [Finding("saturated", "odd", words)]
    return []


def _of_laws(extra: Mapping[str, Any]) -> list[Finding]:
    found, error, share = [], _number(extra.get(COMPLETENESS)), _number(extra.get(CONSERVATION))
    if error is not None and not abs(error) <= COMPLETE:
        words = f"The map breaks completeness: its sum is {abs(error):.0%} away from the score it should add up to."
        found.append(Finding("completeness", "odd", words))
    if share is not None and not CONSERVED[0] <= share <= CONSERVED[1]:
        words = f"The map's sum is {share:.3g} times the logit that it should conserve: relevance was made or lost."
        found.append(Finding("conservation", "odd", words))
    return found


def _number(reported: Any) -> float | None:  # Any: what an explainer reported: a number, a list with one per image
    """The reported number of the (first) image; None where there is none."""
    while isinstance(reported, list | tuple):
        reported = reported[0] if reported else None
    return float(reported) if isinstance(reported, int | float) else None
