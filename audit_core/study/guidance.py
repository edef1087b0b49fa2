"""Which explainer the paper's rule pairs with which readout, and whether a study's numbers agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.statistics import Estimate, Scheme, resample
from audit_core.statistics.estimates import from_resamples
from audit_core.study.nouns import Contender, Grouped
from audit_core.study.plain import plain
from audit_core.study.results import Results

METRIC = "srg"
AGREEMENTS = ("agrees", "disagrees", "open")


@dataclass(frozen=True)
class Rule:
    """One line of the rule: look at how the score is read, not at the family's name (arXiv 2605.14255).

    readout: in words; explainer: its registry name; reason: why this signal.
    """

    readout: str
    explainer: str
    reason: str


RULES = (
    Rule(
        "a class token gathers the score through global attention",
        "rollout",
        "attention is the operator by which the score is gathered, and rollout follows it through all blocks",
    ),
    Rule(
        "the score is pooled from spatial feature maps (a CNN, a hierarchical transformer)",
        "grad-cam",
        "the last spatial stage is what is pooled, and Grad-CAM weights its maps by their gradients",
    ),
)

_TOKEN = ("CLS token", "distillation token")
_POOLED = ("global average pool", "mean of tokens")


def rule_for(readout: str, attention: str) -> Rule | None:
    """The rule for a card's readout and attention; None where the paper names none (class attention, unknown)."""
    if readout in _TOKEN and attention == "global":
        return RULES[0]
    return RULES[1] if readout in _POOLED else None


def facts(manifest: Mapping[str, Any], family: str) -> tuple[str, str]:  # Any: JSON data
    """Readout and attention of a family, as the manifest has them; "unknown" where it does not say."""
    for entry in manifest.get("checkpoints", ()):
        if entry.get("family") == family:
            return entry.get("readout", "unknown"), entry.get("attention", "unknown")
    return "unknown", "unknown"


def paired_by_rule(results: Results, manifest: Mapping[str, Any], family: str) -> Contender | None:  # Any: JSON data
    """The family's contender that the rule names, with the fewest parameters set; None where there is none.

    A Grad-CAM with ``layer`` set reads an earlier stage and a rollout with ``pooled`` set another grid: the one
    without such settings is the rule's.
    """
    rule = rule_for(*facts(manifest, family))
    named = [
        (len(choice.params), contender.name, contender)
        for contender in results.contenders
        for choice in [Choice.parse(contender.explainer)]
        if rule and contender.family == family and choice.name == rule.explainer
        and not {"layer", "pooled"} & dict(choice.params).keys()
    ]  # fmt: skip
    return min(named)[2] if named else None


def on_common_images(grouped: Grouped) -> Grouped:
    """Under each fill, only images on which every contender with any number under that fill has one.

    A map that is sick on hard images would otherwise be compared on easier ones. Exact for up to 2,000 images, which
    are a group each.
    """
    held = grouped.count.sum(axis=2) > 0  # (C, F, G)
    there = held | ~held.any(axis=2, keepdims=True)
    keep = there.all(axis=0)[None, :, None]
    return replace(grouped, total=np.where(keep, grouped.total, 0.0), count=np.where(keep, grouped.count, 0.0))


def scheme_for(grouped: Grouped) -> Scheme:
    """ "runs+images" where the contenders of each family were measured on the same training runs, else "images".

    A run that one of them lacks would leave it without a value in every resample that draws other runs.
    """
    held = grouped.count.sum(axis=(1, 3)) > 0  # (C, R)
    for family in np.unique(grouped.family):
        own = held[(grouped.family == family) & held.any(axis=1)]
        if (own != own[:1]).any():
            return "images"
    return "runs+images"


@dataclass(frozen=True)
class Winner:
    """Under one fill: the explainer with the highest mean SRG, and its lead over the one that the rule names.

    srg: mean over the images on which all have a number; lead: paired over these, with the interval of joint
    resamples; None where the rule's is the winner or has no number.
    """

    fill: str
    explainer: str
    srg: float
    lead: Estimate | None


@dataclass(frozen=True)
class Advice:
    """Rule and data beside each other, for one family.

    explainer: what the rule names, "" where it names nothing; reason: why; winners: among the explainers that read the
    model, per fill; best: who wins most often (the first of equals), "" without numbers; share: of the fills, in
    [0, 1]; agreement: one of ``AGREEMENTS``; ahead: fills under which a model-agnostic explainer stands above all of
    them, which the paper uses as offline reference only.
    """

    family: str
    readout: str
    attention: str
    explainer: str
    reason: str
    winners: tuple[Winner, ...]
    best: str
    share: float
    agreement: str
    sentence: str
    ahead: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """Plain data."""
        found: dict[str, Any] = plain(self)
        return found


def guidance(results: Results, manifest: Mapping[str, Any], rng: np.random.Generator) -> tuple[Advice, ...]:
    """One advice per family, by name. manifest: of the study's folder, for the readouts.

    "agrees": the rule's explainer has the highest mean SRG among those that read the model under more than half of
    the fills. "disagrees": under more than half of them another one leads it with a 95 % interval (percentile of joint
    resamples of images and training runs) above 0. "open": neither, or there is nothing to compare.
    """
    families = sorted({contender.family for contender in results.contenders if contender.role != "control"})
    return tuple(_advice(results, manifest, family, rng) for family in families)


def _advice(
    results: Results, manifest: Mapping[str, Any], family: str, rng: np.random.Generator
) -> Advice:  # Any: JSON data
    readout, attention = facts(manifest, family)
    rule, named = rule_for(readout, attention), paired_by_rule(results, manifest, family)
    winners, ahead, rivals = _winners(results, family, named, rng)
    best, share = _most(winners)
    agreement = _agreement(winners, named) if rivals else "open"
    return Advice(
        family,
        readout,
        attention,
        rule.explainer if rule else "",
        rule.reason if rule else f"the paper names no explainer for a score read from {readout}",
        winners,
        best,
        share,
        agreement,
        _sentence(family, rule, named, winners, best, agreement, rivals),
        ahead,
    )


def _winners(
    results: Results, family: str, named: Contender | None, rng: np.random.Generator
) -> tuple[tuple[Winner, ...], tuple[str, ...], int]:
    """The winner under each fill, the fills under which a model-agnostic explainer stands above it, and how many
    others than ``named`` read the model and have a number."""
    inside = [c for c in results.contenders if c.family == family and c.role != "control"]
    try:
        grouped = on_common_images(results.observations(METRIC, contenders=[c.name for c in inside]))
    except (InvalidParameter, LookupError):  # every cell is refused, or the metric is not there
        return (), (), 0
    observations = grouped.observations("higher")
    means, drawn = observations.means(), resample(observations, rng, scheme=scheme_for(grouped))
    own = np.array([c.role == "own" for c in inside])
    found, ahead = [], []
    for f, fill in enumerate(grouped.fills):
        if not np.isfinite(means[own, f]).any():
            continue
        first = int(np.nanargmax(np.where(own, means[:, f], np.nan)))
        place = inside.index(named) if named in inside else first
        lead = None
        if place != first and np.isfinite(means[place, f]):
            held = int((observations.count[[first, place], f].sum(axis=1) > 0).all(axis=0).sum())
            gap, gaps = means[first, f] - means[place, f], drawn[:, first, f] - drawn[:, place, f]
            lead = from_resamples(float(gap), gaps, held, "percentile bootstrap")
        found.append(Winner(fill, inside[first].explainer, float(means[first, f]), lead))
        ahead += [fill] * bool(np.nanmax(means[:, f]) > means[first, f])
    rivals = sum(
        c.role == "own" and c != named and bool(np.isfinite(row).any()) for c, row in zip(inside, means, strict=True)
    )
    return tuple(found), tuple(ahead), rivals


def _most(winners: tuple[Winner, ...]) -> tuple[str, float]:
    won = [winner.explainer for winner in winners]
    best = max(dict.fromkeys(won), key=won.count, default="")
    return best, won.count(best) / len(won) if won else 0.0


def _agreement(winners: tuple[Winner, ...], named: Contender | None) -> str:
    if named is None or not winners:
        return "open"
    if 2 * sum(winner.explainer == named.explainer for winner in winners) > len(winners):
        return "agrees"
    beaten = sum(w.lead is not None and w.lead.low is not None and w.lead.low > 0 for w in winners)
    return "disagrees" if 2 * beaten > len(winners) else "open"


def _sentence(
    family: str,
    rule: Rule | None,
    named: Contender | None,
    winners: tuple[Winner, ...],
    best: str,
    agreement: str,
    rivals: int,
) -> str:
    if rule is None:
        return f"{family}: the paper's rule says nothing about this readout" + (
            f"; {_led(best, winners)}." if winners else ".")  # fmt: skip
    if not winners:
        return f"{family}: the rule names {rule.explainer}; the study has no numbers of this family."
    if named is None:
        return f"{family}: the rule names {rule.explainer}, which the study did not run; {_led(best, winners)}."
    if not rivals:
        return f"{family}: the rule names {rule.explainer}, and nothing else that reads the model was run beside it."
    if agreement == "agrees":
        return f"{family}: the data agree with the rule; {_led(best, winners)}."
    if agreement == "disagrees":
        return f"{family}: the data disagree with the rule, which names {named.explainer}; {_led(best, winners)}."
    return f"{family}: the rule names {named.explainer}, and the data leave it open; {_led(best, winners)}."


def _led(best: str, winners: tuple[Winner, ...]) -> str:
    number = sum(winner.explainer == best for winner in winners)
    return f"{best} has the highest mean SRG under {number} of {len(winners)} fills"
