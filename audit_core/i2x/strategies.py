"""Fine-tuning strategies, what is asked of them, and what came out. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from audit_core.i2x.curation import CURATED, FULL, OTHER_PROTOTYPE, RANDOM, Curation
from models.finetuning import FineTuning

#: Training sets one epoch after the other; a strategy is written as its sets joined by an arrow.
STRATEGIES: tuple[tuple[str, ...], ...] = (
    (FULL,),
    (CURATED,),
    (RANDOM,),
    (OTHER_PROTOTYPE,),
    (FULL, FULL),
    (CURATED, CURATED),
    (CURATED, FULL),
    (RANDOM, FULL),
    (OTHER_PROTOTYPE, FULL),
)


def words(strategy: Sequence[str]) -> str:
    """ "curated → full"."""
    return " → ".join(strategy)


@dataclass(frozen=True)
class Comparison:
    """What is compared: curation, recipe, repeats, and the pair of classes (indices) whose confusions are counted."""

    curation: Curation
    pair: tuple[int, int]
    recipe: FineTuning = field(default_factory=FineTuning)
    repeats: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """One strategy in one repeat, measured on the test images.

    trained: images of the last epoch's set; accuracy: in [0, 1], higher is better; confusions: test images of either
    class of the pair taken for the other, lower is better; confusion: int (classes, classes), true class by row.
    """

    strategy: str
    repeat: int
    trained: int
    accuracy: float
    confusions: int
    confusion: tuple[tuple[int, ...], ...]
