"""The published ranking that this project set out to check: native explainers of four families under two fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice

SOURCE = "arXiv 2605.14255, Table 8: deletion AUC of the primary training seed, n = 198 images of WM-811K, no interval"
METRIC = "deletion"  # lower is better
_DEFAULTS: dict[str, dict[str, float | str]] = {"blur": {"sigma": 3.0}}  # of the registered fills, which import torch


@dataclass(frozen=True)
class PublishedMean:
    """One printed number. family, explainer: as studies write them; area: deletion AUC in [0, 1], lower is better;
    rank: among the four families under that fill, 1 = best."""

    family: str
    explainer: str
    fill: str
    area: float
    rank: int

    @property
    def contender(self) -> str:
        """The name under which a study ranks it."""
        return f"{self.family} · {self.explainer}"


MEANS = (
    PublishedMean("ViT-Tiny", "rollout", "zero", 0.221, 1),
    PublishedMean("Swin-Tiny", "grad-cam", "zero", 0.440, 2),
    PublishedMean("ResNet18+CBAM", "grad-cam", "zero", 0.486, 3),
    PublishedMean("DenseNet121", "grad-cam", "zero", 0.544, 4),
    PublishedMean("ResNet18+CBAM", "grad-cam", "blur:sigma=3", 0.559, 1),
    PublishedMean("DenseNet121", "grad-cam", "blur:sigma=3", 0.681, 2),
    PublishedMean("ViT-Tiny", "rollout", "blur:sigma=3", 0.693, 3),
    PublishedMean("Swin-Tiny", "grad-cam", "blur:sigma=3", 0.700, 4),
)


@dataclass(frozen=True)
class PublishedMark:
    """A published rank on the scale of a larger ranking. place: the rank, among all that are ranked here, at which the
    contender would stand if the published order of those present were right; mean: what was printed; of: how many of
    the four families are present."""

    place: float
    mean: PublishedMean
    of: int


def published_marks(fill: str, ranks: Mapping[str, float]) -> tuple[PublishedMark, ...]:
    """Published order of the contenders of ``ranks`` (name -> rank under ``fill``, 1 = best; without NaN).

    The published contenders that are present keep the places that they hold together, and share them out in the
    published order: a mark lies on its contender's own rank where both orders agree. Empty for a fill that was not
    published; parameters of a fill are compared as numbers, so "blur:sigma=3.0" and "blur" are "blur:sigma=3".
    """
    here = sorted((m for m in MEANS if _same(m.fill, fill) and m.contender in ranks), key=lambda m: m.rank)
    places = sorted(ranks[m.contender] for m in here)
    return tuple(PublishedMark(place, mean, len(here)) for place, mean in zip(places, here, strict=True))


def published_fills(fills: Sequence[str]) -> tuple[str, ...]:
    """Those of ``fills`` under which the ranking was published."""
    return tuple(fill for fill in fills if any(_same(m.fill, fill) for m in MEANS))


def _same(one: str, other: str) -> bool:
    try:
        return _parsed(one) == _parsed(other)
    except InvalidParameter:
        return False


def _parsed(fill: str) -> tuple[str, dict[str, float | str]]:
    choice = Choice.parse(fill)
    return choice.name, _DEFAULTS.get(choice.name, {}) | {name: _number(value) for name, value in choice.params}


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
