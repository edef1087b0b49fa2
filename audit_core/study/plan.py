"""What a study comes to: its images, its tasks, the cells that have no meaning, and what it will cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audit_core import audit
from audit_core.data import open_split
from audit_core.data.base import DATASETS, Dataset, format_reference
from audit_core.data.splits import sample
from audit_core.errors import AuditError, BadCheckpoint, InvalidParameter, Refused
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.base import Cost
from audit_core.fills import FILLS
from audit_core.keys import Choice, key
from audit_core.study.definition import Entry, Study
from audit_core.study.tables import contender
from audit_core.study.task import Task
from audit_core.types import AuditSpec, Triple
from audit_core.workbench import Workbench
from models.cards import ModelCard

VERSION = 2  # of a task's numbers: raise it when they change although no setting did
TASK_FORWARDS = 20_000  # a task is about this long, so that a kill loses little and a worker's progress shows
TASK_IMAGES = 66  # and never more images than this
BYTES_PER_CURVE_IMAGE = 420  # on disk per image and cell, with curves of 20 steps; read off the demo study
BYTES_PER_IMAGE = 60  # without the curves
CHECK_MAPS = 20  # maps that a slow metric makes again, about
CURVES, CHECKS = "curves", "checks"


@dataclass(frozen=True)
class Member:
    """A checkpoint of the study, opened: its reference in the workbench and its card; family and training seed."""

    entry: Entry
    reference: str
    card: ModelCard

    @property
    def family(self) -> str:
        """Checkpoints of one family are training runs of it."""
        return self.entry.family or self.card.family

    @property
    def training_seed(self) -> int | None:
        """As the study says, else as the card says; None where neither does."""
        return self.entry.training_seed if self.entry.training_seed >= 0 else self.card.seed


@dataclass(frozen=True)
class Picture:
    """One image of the study: its reference, and its class where the data set knows one."""

    reference: str
    label: str | None


@dataclass(frozen=True)
class RefusedCell:
    """A cell that has no meaning, known before anything was computed; an empty fill stands for all of them."""

    checkpoint: str
    explainer: str
    fill: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """A study resolved: nothing has been computed yet, no weights were loaded."""

    study: Study
    members: tuple[Member, ...]
    pictures: tuple[Picture, ...]
    check_units: tuple[int, ...]
    tasks: tuple[Task, ...]
    refused: tuple[RefusedCell, ...]

    @property
    def forwards(self) -> int:
        """Model evaluations of all tasks at most, in images."""
        return sum(task.forwards for task in self.tasks)

    @property
    def backwards(self) -> int:
        """Backward passes of all tasks at most, in images."""
        return sum(task.backwards for task in self.tasks)

    @property
    def cells(self) -> int:
        """(checkpoint, explainer, fill, seed) combinations that will be computed."""
        return len(set(self._cells()))

    @property
    def disk(self) -> int:
        """Bytes that the results will take, about."""
        each = BYTES_PER_CURVE_IMAGE if self.study.curves.kept else BYTES_PER_IMAGE
        images = sum(task.stop - task.start for task in self.tasks if task.kind == CURVES)
        return images * len(self.study.fills) * each

    def _cells(self) -> Iterator[tuple[str, str, str, int]]:
        gone = {(cell.checkpoint, cell.explainer, cell.fill) for cell in self.refused}
        for task in self.tasks:
            for fill in self.study.fills:
                if (task.checkpoint, task.explainer, fill) not in gone:
                    yield task.checkpoint, task.explainer, fill, task.seed

    def member(self, name: str) -> Member:
        """The checkpoint of that name."""
        return next(member for member in self.members if member.entry.name == name)


def make_plan(study: Study, bench: Workbench) -> Plan:
    """Open cards and images, choose the images, cut the work into tasks; loads no weights into memory.

    ``AuditError`` names in one sentence what cannot be opened. A cell that has no meaning is listed with its reason.
    """
    members = tuple(open_member(entry, bench) for entry in study.checkpoints)
    for name in (*study.explainers, *(e for entry in study.checkpoints for e in entry.explainers)):
        EXPLAINERS.complete(Choice.parse(name))
    for name in study.fills:
        FILLS.complete(Choice.parse(name))
    _check_metrics(study)
    pictures, stamp = choose_pictures(study)
    check_units = _check_units(study, pictures)
    refused: list[RefusedCell] = []
    tasks: list[Task] = []
    for member in members:
        for explainer in dict.fromkeys((*member.entry.explainers, *study.explainers)):
            gone = list(_refusals(study, member, explainer, pictures[0].reference, bench))
            refused += gone
            fills = [fill for fill in study.fills if fill not in {cell.fill for cell in gone}]
            if fills and not any(not cell.fill for cell in gone):
                for seed in study.curves.seeds:
                    tasks += _tasks(study, member, explainer, fills, seed, pictures, check_units, stamp)
    return Plan(study, members, pictures, check_units, tuple(tasks), tuple(refused))


def open_member(entry: Entry, bench: Workbench) -> Member:
    """The checkpoint that an entry names: shipped, published beside its card, or any weights with their facts."""
    if not entry.path:
        return Member(entry, entry.name, bench.card(entry.name))
    path = Path(entry.path).expanduser()
    if not path.is_file():
        raise BadCheckpoint(f"checkpoint {entry.name!r}: there is no file {entry.path}; correct its path")
    if not entry.arch and path.with_suffix(".json").is_file():
        reference = bench.open_published(path)
        return Member(entry, reference, bench.card(reference))
    if not entry.arch:
        raise InvalidParameter(
            f"checkpoint {entry.name!r}: {path.name} has no card beside it; give its arch, for example 'resnet18'"
        )
    facts = (entry.num_classes or None, entry.in_chans or None, entry.img_size or None)
    lists = (entry.mean or None, entry.std or None, entry.classes or None)
    reference = bench.add_checkpoint(path.read_bytes(), path.name, entry.arch, *facts, *lists, entry.encoding)
    return Member(entry, reference, bench.card(reference))


def choose_pictures(study: Study) -> tuple[tuple[Picture, ...], str]:
    """The stratified sample of the data set, in the data set's order, and what identifies the data set's files."""
    asked = study.images
    choice = DATASETS.complete(Choice.parse(asked.dataset))
    dataset = open_split(choice, asked.split)
    labels = [dataset.label(i) for i in range(len(dataset))]
    if unknown := sorted(set(asked.leave_out) - set(dataset.classes)):
        known = ", ".join(dataset.classes)
        raise InvalidParameter(f"[images] leave_out names {unknown[0]!r}, which is no class here; known: {known}")
    places = _places(dataset, labels, study)
    if not places:
        raise InvalidParameter(f"[images] leaves no image of {asked.dataset}:{asked.split}; draw more, leave out less")
    words = [None if labels[i] is None else dataset.classes[labels[i]] for i in places]  # type: ignore[index]
    pictures = [Picture(format_reference(choice, asked.split, i), word) for i, word in zip(places, words, strict=True)]
    return tuple(pictures), key(dataset=choice, split=asked.split, stamp=DATASETS.build(choice).stamp())


def _places(dataset: Dataset, labels: Sequence[int | None], study: Study) -> list[int]:
    import numpy as np

    asked = study.images
    out = {dataset.classes.index(name) for name in asked.leave_out}
    known = np.array([-1 if label is None else label for label in labels])
    if (known < 0).all():  # nobody labelled them: one class of its own
        known = np.zeros(len(labels), dtype=int)
    return [int(i) for i in sample(known, asked.per_class, asked.seed, tuple(out)) if known[i] >= 0]


def _check_units(study: Study, pictures: Sequence[Picture]) -> tuple[int, ...]:
    if not study.checks.metrics:
        return ()
    seen: dict[str | None, int] = {}
    chosen = []
    for unit, picture in enumerate(pictures):
        seen[picture.label] = seen.get(picture.label, 0) + 1
        if seen[picture.label] <= study.checks.per_class or not study.checks.per_class:
            chosen.append(unit)
    return tuple(chosen)


def _check_metrics(study: Study) -> None:
    from audit_core.metrics import METRICS

    for name in study.checks.metrics:
        METRICS.complete(Choice.parse(name))


def _refusals(study: Study, member: Member, explainer: str, image: str, bench: Workbench) -> Iterator[RefusedCell]:
    """The cells of one (checkpoint, explainer) that have no meaning on the first image."""
    name = member.entry.name
    found = []
    for fill in study.fills:
        try:
            spec = spec_of(study, member, explainer, fill, image, study.curves.seeds[0])
            if spec.target == "label":  # whether one image has one says nothing about the cell
                spec = replace(spec, target="predicted")
            audit.prepare(spec, bench)
        except Refused as reason:
            found.append(RefusedCell(name, explainer, fill, str(reason)))
        except AuditError as error:
            raise type(error)(f"{name} · {explainer} · {fill}: {error}") from None
    if len(found) == len(study.fills) and len({cell.reason for cell in found}) == 1:
        found = [RefusedCell(name, explainer, "", found[0].reason)]
    yield from found


def spec_of(study: Study, member: Member, explainer: str, fill: str, image: str, seed: int) -> AuditSpec:
    """The audit of one image in one cell, as a spot audit would be asked for it."""
    triple = Triple(member.reference, EXPLAINERS.complete(Choice.parse(explainer)), FILLS.complete(Choice.parse(fill)))
    return AuditSpec(triple, image, **study.settings(seed))


def _tasks(
    study: Study,
    member: Member,
    explainer: str,
    fills: Sequence[str],
    seed: int,
    pictures: Sequence[Picture],
    check_units: Sequence[int],
    stamp: str,
) -> Iterator[Task]:
    """Curves in runs of neighbouring images, then each checked image by itself; cut by cost, never by the clock."""
    choice = EXPLAINERS.complete(Choice.parse(explainer))
    cost = EXPLAINERS.build(choice).cost(member.card)
    each = cost.forwards + 2 * len(fills) * study.curves.steps + 1
    size = max(1, min(TASK_IMAGES, TASK_FORWARDS // max(1, each + 2 * cost.backwards)))
    cause = {
        "version": VERSION,
        "weights": member.card.weights_sha256,
        "card": _seen(member.card),
        "names": [member.entry.name, member.family, member.training_seed, explainer, list(fills)],
        "explainer": choice,
        "fills": [FILLS.complete(Choice.parse(fill)) for fill in fills],
        "settings": study.settings(seed),
        "kept": study.curves.kept,
        "data": stamp,
    }

    def task(kind: str, start: int, stop: int, forwards: int, backwards: int, **more: object) -> Task:
        images = [picture.reference for picture in pictures[start:stop]]
        identity = key(kind=f"study {kind}", start=start, images=images, **cause, **more)
        return Task(identity[:24], kind, member.entry.name, explainer, seed, start, stop, forwards, backwards)

    for start in range(0, len(pictures), size):
        stop = min(start + size, len(pictures))
        yield task(CURVES, start, stop, (stop - start) * each, (stop - start) * cost.backwards)
    checked = ("own",) if study.checks.own_only else ("own", "agnostic")
    for unit in check_units if role_of(explainer) in checked else ():
        repeated = sum(_check_maps(name, cost) for name in study.checks.metrics)
        forwards, backwards = each + repeated * (cost.forwards + 1), repeated * cost.backwards
        checks = {"metrics": list(study.checks.metrics), "under": FILLS.complete(Choice.parse(study.fills[0]))}
        yield task(CHECKS, unit, unit + 1, forwards, backwards, **checks)


def _seen(card: ModelCard) -> dict[str, Any]:  # Any: JSON values
    """What a card says of how the weights are read: all but names and measured scores."""
    names: tuple[str, ...] = ("architecture", "input_size", "channels", "encoding", "mean", "std", "classes")
    names += ("feature_layers", "readout", "attention")
    whole = json.loads(card.to_json())
    return {name: whole[name] for name in names}


def _check_maps(metric: str, cost: Cost) -> int:
    """About how many maps a slow metric makes again: what its budget pays for, ``CHECK_MAPS`` at most."""
    from audit_core.metrics import METRICS

    budget = getattr(METRICS.build(Choice.parse(metric)), "budget", None)
    affordable = CHECK_MAPS if budget is None else int(budget) // (cost.forwards + cost.backwards + 1)
    return min(CHECK_MAPS, affordable)


def contender_of(member: Member, explainer: str) -> str:
    """Name of what is ranked."""
    return contender(member.family, explainer)


def role_of(explainer: str) -> str:
    """ "own" reads the model's inside, "agnostic" its scores alone, "control" no model at all."""
    reads = EXPLAINERS[Choice.parse(explainer).name].reads
    return {"scores": "agnostic", "image": "control", "nothing": "control"}.get(reads, "own")
