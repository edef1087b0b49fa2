"""Does curation help? Fine-tuning strategies of one or two epochs, repeated, each beside controls.

Li et al. 2026 (arXiv 2603.10234) compare full, curated and their sequences; what a removal of as many random images, or
of another prototype's images, would have done is ours. What is finished is kept, so an interrupted comparison goes on.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from audit_core.classifier import Classifier
from audit_core.i2x.curation import training_sets
from audit_core.i2x.sample import Sample
from audit_core.i2x.strategies import STRATEGIES, Comparison, Outcome, words
from audit_core.keys import key
from models.finetuning import fine_tune
from models.training import save_weights

VERSION = 2

Report = Callable[[float, str], None]


def compare(
    classifier: Classifier,
    train: Sample,
    shares: np.ndarray,
    test: Sample,
    comparison: Comparison,
    folder: Path,
    report: Report = lambda share, message: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Fine-tune copies of ``classifier`` by every strategy, ``comparison.repeats`` times; returns all outcomes.

    shares: location shares of the prototypes in the training images (n, K). Repeats differ in the order of the images
    and in what the controls remove; within a repeat all strategies see the same order, each without what it leaves out.
    Each outcome is written to ``folder`` as soon as it is there; run again, what is there is not computed again, and
    the numbers are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: value for name, value in dataclasses.asdict(comparison).items() if name != "repeats"}
    identity = key(kind="i2x fine-tuning", version=VERSION, weights=classifier.card.weights_sha256,
                   normalised=[list(classifier.card.mean), list(classifier.card.std)], train=train.digest,
                   test=test.digest, shares=shares, comparison=asked)[:16]  # more repeats go on  # fmt: skip
    found: list[Outcome] = []
    total = len(STRATEGIES) * comparison.repeats
    for repeat in range(comparison.repeats):
        try:
            for strategy, sets in _asked(shares, train, comparison, repeat):
                if stop():
                    return found
                path = folder / f"{identity}-{repeat}-{'-'.join(strategy).replace(' ', '_')}.json"
                report(len(found) / total, f"repeat {repeat + 1} of {comparison.repeats}: {words(strategy)}")
                outcome = _read(path)
                if outcome is None:
                    tell = _within(report, len(found), total, f"repeat {repeat + 1}: {words(strategy)}")
                    outcome = _one(classifier, train, sets, test, comparison, strategy, repeat, path, tell)
                found.append(outcome)
        finally:  # weights between two epochs are large; whoever goes on later makes them again
            for path in folder.glob(f"{identity}-{repeat}-*.safetensors"):
                path.unlink(missing_ok=True)
    report(1.0, "done")
    return found


def _asked(
    shares: np.ndarray, train: Sample, comparison: Comparison, repeat: int
) -> Iterator[tuple[tuple[str, ...], Mapping[str, np.ndarray]]]:
    """(strategy, training sets) of one repeat; none that needs another prototype where no other could be removed."""
    rng = np.random.default_rng([comparison.seed, repeat])
    sets = training_sets(shares, train.labels, comparison.curation, rng)
    yield from ((strategy, sets) for strategy in STRATEGIES if set(strategy) <= set(sets))


def _within(report: Report, done: int, total: int, message: str) -> Callable[[float], None]:
    return lambda share: report((done + share) / total, message)


def _one(
    classifier: Classifier,
    train: Sample,
    sets: Mapping[str, np.ndarray],
    test: Sample,
    comparison: Comparison,
    strategy: tuple[str, ...],
    repeat: int,
    path: Path,
    report: Callable[[float], None],
) -> Outcome:
    """Train the strategy's last epoch on top of the one before, which is taken from disk or made first."""
    tuned = _trained(classifier, train, sets, comparison, strategy, repeat, path.parent, path.name[:16], report)
    outcome = measure(classifier, tuned, test, comparison.pair, words(strategy), repeat, int(sets[strategy[-1]].sum()))
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
    temporary.replace(path)
    return outcome


def measure(
    classifier: Classifier, module: nn.Module, test: Sample, pair: tuple[int, int], strategy: str, repeat: int = 0,
    trained: int = 0,
) -> Outcome:  # fmt: skip
    """``module``, fed as ``classifier`` is, on the test images."""
    taken = _predict(classifier, module, test).argmax(1).numpy()
    count, (a, b) = len(test.classes), pair
    confusion = np.bincount(test.labels * count + taken, minlength=count * count).reshape(count, count)
    return Outcome(
        strategy,
        repeat,
        trained,
        float((taken == test.labels).mean()),
        int(confusion[a, b] + confusion[b, a]),
        tuple(tuple(int(n) for n in row) for row in confusion),
    )


def _trained(
    classifier: Classifier,
    train: Sample,
    sets: Mapping[str, np.ndarray],
    comparison: Comparison,
    strategy: tuple[str, ...],
    repeat: int,
    folder: Path,
    identity: str,
    report: Callable[[float], None],
) -> nn.Module:
    """A copy of the model after the epochs of ``strategy``; the weights of a first epoch are kept for its sequels."""
    weights = folder / f"{identity}-{repeat}-{strategy[0].replace(' ', '_')}.safetensors"
    if len(strategy) == 1 or not weights.is_file():
        module = _copy(classifier)
        _epoch(classifier, module, train, sets[strategy[0]], comparison, repeat, 0, report)
        save_weights(weights, module.state_dict())
    if len(strategy) == 1:
        return module
    module = _copy(classifier)
    module.load_state_dict(load_file(weights))
    _epoch(classifier, module, train, sets[strategy[1]], comparison, repeat, 1, report)
    return module


def _copy(classifier: Classifier) -> nn.Module:
    with classifier.lock:
        module = copy.deepcopy(classifier.module)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module


def _epoch(
    classifier: Classifier,
    module: nn.Module,
    train: Sample,
    keep: np.ndarray,
    comparison: Comparison,
    repeat: int,
    epoch: int,
    report: Callable[[float], None],
) -> None:
    seed = int(np.random.default_rng([comparison.seed, repeat, epoch]).integers(2**31))
    fine_tune(
        module,
        lambda places: classifier.normalise(train.pixels[places]),
        torch.from_numpy(train.labels),
        comparison.recipe,
        torch.Generator().manual_seed(seed),
        report,
        torch.from_numpy(keep),
    )


def _predict(classifier: Classifier, module: nn.Module, test: Sample) -> torch.Tensor:
    tuned = Classifier(classifier.card, module, classifier.device)
    return tuned.steady().predict(test.pixels)


def _read(path: Path) -> Outcome | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return Outcome(**{**raw, "confusion": tuple(tuple(row) for row in raw["confusion"])})
