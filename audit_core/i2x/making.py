"""Make an I2X analysis piece by piece, each named by what it depends on, so that nothing is made twice.

Killed at any moment and run again, it goes on and ends with the same numbers. A checkpoint that does not load is named
in the manifest, and the others are analysed.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import audit_core
from audit_core.classifier import Classifier
from audit_core.errors import BadCheckpoint, BadData
from audit_core.i2x import finding
from audit_core.i2x.analysis import Analysis, as_transition, read
from audit_core.i2x.mapping import Transition, transition
from audit_core.i2x.moments import moment
from audit_core.i2x.pieces import Pieces, moment_name
from audit_core.i2x.prototypes import Prototypes
from audit_core.i2x.runs import TrainingRun
from audit_core.i2x.sample import Sample
from audit_core.i2x.settings import Settings
from audit_core.i2x.trajectory import Moment, Trajectory
from audit_core.keys import key
from models.cards import ModelCard

FEW = 8  # images that the final model is tried on
VERSION = 1  # of the numbers: raise it when they change although no setting did

Report = Callable[[float, str], None]


class Stopped(Exception):
    """The caller asked to stop; what was made stays."""


def analyse(
    run: TrainingRun,
    sample: Sample,
    settings: Settings,
    root: Path,
    source: str = "",
    per_class: int = 0,
    device: str = "cpu",
    report: Report = lambda share, message: None,
    stop: Callable[[], bool] = lambda: False,
) -> Analysis:
    """Make, or finish, the analysis of ``run`` on the labelled images ``sample`` in the folder ``root``.

    source, per_class: where the images come from and how many of each class were drawn (0 is all), so that they can be
    opened again. :class:`Stopped` when ``stop`` says so, between two pieces.
    """
    folder = Pieces(root)
    broken = list(run.broken)

    def check() -> None:
        if stop():
            raise Stopped(f"stopped; {root} keeps what was made")

    check()
    first, found, steps, card = _prototypes(folder, run, sample, settings, device, report, broken)
    moments, used = [], []
    for place, step in enumerate(steps):
        check()
        tell = _within(report, place, len(steps), f"checkpoint {place + 1} of {len(steps)}, step {step}")
        tell(0.0)
        try:
            one, name = _moment(folder, run, step, sample, found, settings, first, device, tell)
        except BadCheckpoint as reason:
            broken.append((f"step {step}", str(reason)))
            continue
        moments.append(one)
        used.append((step, name))
    if len(moments) < 2:
        raise BadData(f"{run.name}: only {len(moments)} checkpoints load, two are needed for a transition")
    kept = tuple(step for step, _ in used)
    trajectory = Trajectory.of(kept, moments, found, sample.labels)
    transitions = []
    for t in range(len(kept) - 1):
        check()
        report(0.9 + 0.1 * t / (len(kept) - 1), f"transition {t + 1} of {len(kept) - 1}")
        transitions.append(_transition(folder, used[t][1], used[t + 1][1], trajectory, t, settings))
    pieces = {"prototypes": first, "moments": [name for _, name in used],
              "transitions": [_between(a[1], b[1]) for a, b in pairwise(used)]}  # fmt: skip
    origin = {"source": source, "per_class": per_class, "run": _way(root, run.folder)}
    folder.finish(_manifest(run, card, sample, settings, origin, kept, broken, pieces, trajectory))
    report(1.0, "done")
    return read(root)


def prototypes_of(
    run: TrainingRun, sample: Sample, settings: Settings, root: Path, device: str = "cpu",
    report: Report = lambda share, message: None,
) -> tuple[Prototypes, list[tuple[str, str]]]:  # fmt: skip
    """(prototypes of the last model that answers, made or read; what is broken): the first step alone."""
    broken = list(run.broken)
    return _prototypes(Pieces(root), run, sample, settings, device, report, broken)[1], broken


def _prototypes(
    folder: Pieces, run: TrainingRun, sample: Sample, settings: Settings, device: str, report: Report,
    broken: list[tuple[str, str]],
) -> tuple[str, Prototypes, list[int], ModelCard]:  # fmt: skip
    """(name of the piece, prototypes, steps to look at, card); what does not load is added to ``broken``."""
    final, steps = _last_that_answers(run, sample, device, broken)
    card = final.card
    facts = [card.architecture, list(card.mean), list(card.std), list(card.classes)]
    name = "prototypes-" + key(version=VERSION, weights=card.weights_sha256, card=facts, images=sample.digest,
                               settings=dataclasses.asdict(settings))[:16]  # fmt: skip
    found = folder.read_prototypes(name)
    if found is None:
        found = finding.find(final, sample.pixels, settings, lambda share, words: report(0.3 * share, words))
        folder.write(name, _arrays(found))
    return name, found, steps, card


def _within(report: Report, place: int, total: int, message: str) -> Callable[[float], None]:
    """Progress of one checkpoint among all of them, which take from 30 % to 90 %."""
    return lambda share: report(0.3 + 0.6 * (place + share) / total, message)


def _last_that_answers(
    run: TrainingRun, sample: Sample, device: str, broken: list[tuple[str, str]]
) -> tuple[Classifier, list[int]]:
    """The last model that loads and answers a few images with finite numbers, and the steps up to it."""
    steps = list(run.steps)
    while steps:
        try:
            final = run.classifier(steps[-1], device)
            if not torch.isfinite(final.predict(sample.pixels[:FEW])).all():
                raise BadCheckpoint("it answers with numbers that are not finite; its training diverged")
            return final, steps
        except BadCheckpoint as reason:
            broken.append((f"step {steps.pop()}", str(reason)))
    raise BadData(f"{run.name}: no checkpoint loads ({broken[-1][1]})")


def _moment(
    folder: Pieces, run: TrainingRun, step: int, sample: Sample, found: Prototypes, settings: Settings, first: str,
    device: str, report: Callable[[float], None],
) -> tuple[Moment, str]:  # fmt: skip
    classifier = run.classifier(step, device)
    name = moment_name(step, classifier.card.weights_sha256, first, found)
    arrays = folder.read(name)
    if arrays is None:
        made = moment(classifier, sample, found, settings, report)
        arrays = {"intensity": made.intensity, "confidence": made.confidence}
        folder.write(name, arrays)
    return Moment(arrays["intensity"], arrays["confidence"]), name


def _between(a: str, b: str) -> str:
    return f"transition-{key(a=a, b=b)[:16]}"


def _transition(folder: Pieces, a: str, b: str, seen: Trajectory, t: int, settings: Settings) -> Transition:
    name = _between(a, b)
    arrays = folder.read(name)
    if arrays is None:
        rng = np.random.default_rng([settings.seed, seen.steps[t]])
        change = seen.intensity[t + 1] - seen.intensity[t], seen.confidence[t + 1] - seen.confidence[t]
        made = transition(*change, settings, rng)
        folder.write(name, {field.name: np.asarray(getattr(made, field.name)) for field in dataclasses.fields(made)})
        return made
    return as_transition(arrays)


def _way(root: Path, folder: Path) -> str:
    """The way from the analysis to its run, so that both can move together."""
    return Path(os.path.relpath(folder.expanduser().resolve(), root.resolve())).as_posix()


def _arrays(found: Prototypes) -> dict[str, np.ndarray]:
    raw = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return {name: np.asarray(value) for name, value in raw.items()}


def _manifest(
    run: TrainingRun, card: ModelCard, sample: Sample, settings: Settings, origin: Mapping[str, Any],
    steps: tuple[int, ...], broken: list[tuple[str, str]], pieces: Mapping[str, Any], trajectory: Trajectory,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": run.name,
        "triplecheck": audit_core.__version__,
        "architecture": run.facts.architecture,
        "facts": dataclasses.asdict(run.facts),
        "card": json.loads(card.to_json()),
        "classes": list(sample.classes),
        "settings": dataclasses.asdict(settings),
        **origin,
        "images": len(sample),
        "images_sha256": sample.digest,
        "steps": list(steps),
        "accuracy": [round(float(value), 6) for value in trajectory.accuracy],
        "broken": [list(entry) for entry in broken],
        "pieces": dict(pieces),
        "references": list(sample.references),
        "labels": sample.labels.tolist(),
    }
