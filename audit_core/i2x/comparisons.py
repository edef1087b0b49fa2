"""A finished comparison of fine-tuning strategies as one small file: what was asked, before, after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_core.errors import BadData
from audit_core.i2x.analysis import Analysis
from audit_core.i2x.choices import removed_per_class
from audit_core.i2x.curation import Curation
from audit_core.i2x.strategies import Comparison, Outcome
from audit_core.keys import key
from models.finetuning import FineTuning

if TYPE_CHECKING:
    from audit_core.i2x.runs import TrainingRun
    from audit_core.i2x.sample import Sample

FILE = "comparison.json"  # of the example that stands beside an analysis
VERSION = 2
BEFORE = "before"


@dataclass(frozen=True)
class Compared:
    """identity: of the question; start: step of the checkpoint that was fine-tuned; removed: images that the curation
    took out of each class, and images: out of how many, both (classes,); tested: test images; before: the start
    checkpoint on them; outcomes: of every strategy and repeat; test: which images these were, in words that tell them
    from others, "" for all test images of the analysis's own data set.
    """

    identity: str
    start: int
    asked: Comparison
    removed: tuple[int, ...]
    images: tuple[int, ...]
    tested: int
    before: Outcome
    outcomes: tuple[Outcome, ...]
    test: str = ""

    def confusion(self, strategy: str) -> np.ndarray:
        """Mean test images over the repeats, true class by row, float64 (classes, classes); NaN without a repeat."""
        own = [outcome.confusion for outcome in self.outcomes if outcome.strategy == strategy]
        return np.mean(own, axis=0) if own else np.full(np.shape(self.before.confusion), np.nan)


def identity(analysis: Analysis, start: int, asked: Comparison, test: str = "") -> str:
    """Equal for equal questions to equal checkpoints, prototypes and images; known before anything is opened.

    test: as in :class:`Compared`.
    """
    pieces = analysis.manifest["pieces"]
    moments = dict(zip(analysis.trajectory.steps, pieces["moments"], strict=True))
    return key(kind="i2x comparison", version=VERSION, prototypes=pieces["prototypes"], start=moments[start],
               asked=dataclasses.asdict(asked), test=test)  # fmt: skip


def make(
    run: TrainingRun,
    analysis: Analysis,
    train: Sample,
    test: Sample,
    start: int,
    asked: Comparison,
    folder: Path,
    device: str = "cpu",
    report: Callable[[float, str], None] = lambda share, message: None,
    test_words: str = "",
) -> Compared:
    """Fine-tune and measure, see :func:`compare`; the result is also written to ``folder``, under its identity.

    test_words: as in :class:`Compared`. ``BadData`` where ``train`` are not the images that the prototypes were found
    on, or the run's files not the checkpoints that were analysed.
    """
    from audit_core.i2x.finetune import compare, measure  # torch, which reading a comparison does not need

    if train.digest != analysis.manifest["images_sha256"]:
        raise BadData(f"{analysis.name} was analysed on other images than those given; open the very same ones")
    classifier = run.classifier(start, device)
    analysis.check(start, classifier.card)
    shares, labels, count = analysis.trajectory.shares, train.labels, len(analysis.classes)
    before = measure(classifier, classifier.module, test, asked.pair, BEFORE)
    outcomes = compare(classifier, train, shares, test, asked, folder, report)
    gone = removed_per_class(shares, labels, asked.curation, count)
    images = np.bincount(labels, minlength=count)
    made = Compared(
        identity(analysis, start, asked, test_words), start, asked, tuple(gone.tolist()), tuple(images.tolist()),
        len(test), before, tuple(outcomes), test_words,
    )  # fmt: skip
    write(made, folder / f"{made.identity}.json")
    return made


def images_of(analysis: Analysis, split: str = "test") -> tuple[Sample, Sample]:
    """(the images of the analysis, all images of ``split`` of the same data set)."""
    from audit_core.i2x.sample import open_sample  # torch, likewise

    dataset, _, own = str(analysis.manifest["source"]).rpartition(":")
    card = analysis.card
    few = int(analysis.manifest.get("per_class", 0))
    return open_sample(dataset, own, card, few), open_sample(dataset, split, card)


def write(made: Compared, path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(made)) + "\n", encoding="utf-8")
    temporary.replace(path)


def read(path: Path) -> Compared | None:
    """A finished comparison, None where there is none or another version wrote it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        asked = raw["asked"]
        curation = {**asked["curation"], "classes": tuple(asked["curation"]["classes"])}
        question = Comparison(
            Curation(**curation), _pair(asked["pair"]), FineTuning(**asked["recipe"]), asked["repeats"], asked["seed"]
        )
        return Compared(
            raw["identity"], raw["start"], question, tuple(raw["removed"]), tuple(raw["images"]), raw["tested"],
            _outcome(raw["before"]), tuple(_outcome(one) for one in raw["outcomes"]), raw["test"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def example(analysis: Analysis, folder: Path) -> Compared | None:
    """The comparison that stands beside an analysis; None where there is none, or it belongs to another analysis."""
    return of_analysis(read(folder / FILE), analysis)


def of_analysis(found: Compared | None, analysis: Analysis) -> Compared | None:
    """``found`` if it is a comparison of this very analysis, else None."""
    if found is None or found.start not in analysis.trajectory.steps:
        return None
    return found if found.identity == identity(analysis, found.start, found.asked, found.test) else None


def _pair(raw: Sequence[int]) -> tuple[int, int]:
    return int(raw[0]), int(raw[1])


def _outcome(raw: Mapping[str, Any]) -> Outcome:  # Any: JSON values
    return Outcome(**{**raw, "confusion": tuple(tuple(row) for row in raw["confusion"])})
