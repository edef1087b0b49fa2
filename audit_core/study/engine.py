"""One task of a study: many images of one checkpoint and explainer, explained together, under every fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from audit_core import audit, measuring
from audit_core.borrow import untouched_random_state
from audit_core.classifier import Classifier
from audit_core.curves import cuts, fractions, plan, rank_pixels, score_points, table
from audit_core.errors import AuditError, Refused
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.base import Explainer
from audit_core.fills import FILLS
from audit_core.health import findings
from audit_core.images import prepare
from audit_core.keys import Choice
from audit_core.study.definition import Study
from audit_core.study.plan import CHECKS, Member, Plan, Task, spec_of
from audit_core.study.rows import Row, curve_rows, number, reasoned, where
from audit_core.study.tables import CURVES, MEASURES, as_table
from audit_core.types import SourceImage
from audit_core.workbench import Subject, Workbench, fill_context
from models.wafers import FAILED

SCOPE = "r-oms"  # made of the random orders, for the fill alone

#: report(fraction done); may raise to stop the work.
Report = Callable[[float], None]


def silent(fraction: float) -> None:
    """The report that tells nobody."""


@dataclass(frozen=True)
class Part:
    """Result of one task: rows as in ``tables.MEASURES`` and ``tables.CURVES``, and the forwards spent, in images."""

    measures: pa.Table
    curves: pa.Table
    forwards: int


@dataclass(frozen=True)
class Explained:
    """The images of a task with their maps: targets int64 (n,), values float32 (n, rows, columns), sick (n) reasons."""

    subjects: tuple[Subject, ...]
    units: tuple[int, ...]
    pixels: torch.Tensor
    predicted: np.ndarray
    target: np.ndarray
    untouched: np.ndarray
    values: np.ndarray
    extras: tuple[dict[str, Any], ...]


def perform(task: Task, whole: Plan, bench: Workbench, report: Report = silent) -> Part:
    """Compute one task; what a user can mend becomes rows with the reason, anything else is raised.

    The model and global random state are as found afterwards. Equal tasks give equal rows, bit for bit, on one kind
    of machine with one number of threads.
    """
    member = whole.member(task.checkpoint)
    if task.kind == CHECKS:
        return _checks(task, whole, member, bench)
    classifier = bench.classifier(member.reference, whole.study.curves.precision).steady()
    with classifier.lock, untouched_random_state():
        rows, curves = _perform(task, whole, member, classifier, bench, report)
    return Part(as_table(rows, MEASURES), as_table(curves, CURVES), classifier.forwards)


def _perform(
    task: Task, whole: Plan, member: Member, classifier: Classifier, bench: Workbench, report: Report
) -> tuple[list[Row], list[Row]]:
    classifier.forwards = 0
    gone = {(cell.checkpoint, cell.explainer, cell.fill) for cell in whole.refused}
    fills = [fill for fill in whole.study.fills if (task.checkpoint, task.explainer, fill) not in gone]
    usable, reasons = _subjects(task, whole, member, bench)
    explained = None
    if usable:
        try:
            explained = _explain(task, whole.study, member, classifier, bench, usable)
        except AuditError as reason:
            reasons |= dict.fromkeys(usable, str(reason))
    rows = [
        row
        for fill in fills
        for unit, reason in reasons.items()
        for row in reasoned(task, whole, member, fill, unit, "refused", reason)
    ]
    curves: list[Row] = []
    if explained is None:
        return rows, curves
    report(0.4)
    for done, fill in enumerate(fills, 1):
        more = _under_fill(task, whole, member, classifier, explained, fill)
        rows += more[0]
        curves += more[1]
        report(0.4 + 0.6 * done / len(fills))
    return rows, curves


def _subjects(task: Task, whole: Plan, member: Member, bench: Workbench) -> tuple[dict[int, Subject], dict[int, str]]:
    """unit -> the image as the model sees it; unit -> why it cannot be audited."""
    usable, broken = {}, {}
    for unit in range(task.start, task.stop):
        try:
            subject = bench.subject(whole.pictures[unit].reference, member.card)
            audit.resolve_target(whole.study.curves.target, member.card, subject.label, 0)
            usable[unit] = subject
        except AuditError as error:
            broken[unit] = str(error)
    return usable, broken


def _explain(
    task: Task, study: Study, member: Member, classifier: Classifier, bench: Workbench, usable: dict[int, Subject]
) -> Explained:
    """Predict, choose targets, prove the explainer, and make all maps in batches."""
    subjects, units = tuple(usable.values()), tuple(usable)
    pixels = torch.from_numpy(np.stack([subject.pixels for subject in subjects])).to(classifier.device)
    logits = classifier.predict(pixels)
    predicted = logits.argmax(1).numpy()
    target = np.array(
        [
            audit.resolve_target(study.curves.target, member.card, subject.label, int(best))
            for subject, best in zip(subjects, predicted, strict=True)
        ]
    )
    untouched = _scores(study, logits)[np.arange(len(target)), target]
    explainer = bench.bind(EXPLAINERS.build(Choice.parse(task.explainer)))
    spec = spec_of(study, member, task.explainer, study.fills[0], "", task.seed)
    audit.prove_on(member.card, spec.triple.explainer, explainer, classifier, bench)
    values, extras = [], []
    for part in torch.arange(len(pixels)).split(classifier.batch.ceiling):
        made, more = _attribute(explainer, classifier, pixels[part], torch.from_numpy(target)[part], task.seed)
        values.append(made)
        extras += more
    return Explained(subjects, units, pixels, predicted, target, untouched, np.concatenate(values), tuple(extras))


def _attribute(
    explainer: Explainer, classifier: Classifier, pixels: torch.Tensor, target: torch.Tensor, seed: int
) -> tuple[np.ndarray, list[Row]]:
    """Maps of a batch, and what the explainer reported of each image."""
    found, n = explainer.attribute(classifier, pixels, target, seed), len(pixels)
    own = [
        {name: said[i] if isinstance(said, list) and len(said) == n else said for name, said in found.extra.items()}
        for i in range(n)
    ]
    return found.values, own


def _scores(study: Study, logits: torch.Tensor) -> np.ndarray:
    """The scored quantity of every class, float64 (n, classes)."""
    rows = logits if study.curves.quantity == "logit" else logits.softmax(1)
    return rows.double().cpu().numpy()


def _under_fill(
    task: Task, whole: Plan, member: Member, classifier: Classifier, explained: Explained, fill: str
) -> tuple[list[Row], list[Row]]:
    """Both curves of every map that is fit to be ranked, in one stream of batches."""
    study, settings = whole.study, whole.study.curves
    rows: list[Row] = []
    curves: list[Row] = []
    fit = []
    for i, unit in enumerate(explained.units):
        if reason := _sick(study, member, explained, i):
            rows += reasoned(task, whole, member, fill, unit, "sick", reason, int(explained.predicted[i]))
        else:
            fit.append(i)
    if not fit:
        return rows, curves
    operator = FILLS.build(Choice.parse(fill))
    pixels = explained.pixels[fit]
    substrates = torch.cat(
        [
            operator.substrate(pixels[k : k + 1], fill_context(explained.subjects[i], member.card, task.seed))
            for k, i in enumerate(fit)
        ]
    )
    ranks = np.stack([rank_pixels(explained.values[i], settings.patch, settings.direction, task.seed) for i in fit])
    at = cuts(int(ranks[0].max()) + 1, settings.steps)
    owner = np.arange(len(fit))
    points = plan(owner, at)
    lookup = table(points, len(fit), at, owner)
    scores = np.empty(len(points))
    wanted = explained.target[fit][points.image]
    stream = score_points(classifier, operator, pixels, substrates, torch.from_numpy(ranks), points)
    for start, logits in stream:
        part = slice(start, start + len(logits))
        scores[part] = _scores(study, logits)[np.arange(len(logits)), wanted[part]]
    for k, i in enumerate(fit):
        share = fractions(ranks[k], at)
        deletion, insertion = scores[lookup.deletion[k]], scores[lookup.insertion[k]]
        place = where(task, whole, member, fill, explained.units[i], int(explained.predicted[i]))
        areas = _areas(deletion, insertion, share, control=Choice.parse(task.explainer).name == "random")
        areas["deletion-failed-dies"] = _over_failed_dies(deletion, ranks[k], at, explained.subjects[i], member)
        rows += [{**place, "metric": name, **number(value)} for name, value in areas.items()]
        if settings.kept:
            curves += curve_rows(place, share, deletion, insertion)
    return rows, curves


def _areas(deletion: np.ndarray, insertion: np.ndarray, share: np.ndarray, control: bool) -> dict[str, float | str]:
    """Areas by the trapezoid rule, or the reason for none; the random control tells the scope of the fill besides."""
    deleted, inserted = float(np.trapezoid(deletion, share)), float(np.trapezoid(insertion, share))
    start = float(deletion[0])
    normalised = deleted / start if start != 0 else "the untouched score is 0: nothing to divide by"
    scope: dict[str, float | str] = {SCOPE: (deleted + inserted) / 2} if control else {}
    gain = inserted - deleted
    return {"deletion": deleted, "insertion": inserted, "srg": gain, "deletion-normalised": normalised, **scope}


def _over_failed_dies(
    deletion: np.ndarray, rank: np.ndarray, at: np.ndarray, subject: Subject, member: Member
) -> float | str:
    """Area of the deletion curve over the share of *failed dies* removed: how early they are visited drops out."""
    if not subject.source.wafer:
        return "only a wafer map has failed dies"
    codes = np.where(subject.source.values == FAILED, FAILED, 0).astype(np.uint8)
    failed = prepare(SourceImage(codes, True, "failed dies"), member.card)[0] > 0.5
    if not failed.any():
        return "the wafer has no failed die"
    counts = np.bincount(rank[failed], minlength=int(at[-1]))
    share = np.concatenate([[0], np.cumsum(counts)])[at] / failed.sum()
    return float(np.trapezoid(deletion, share))


def _sick(study: Study, member: Member, explained: Explained, i: int) -> str | None:
    found = findings(
        explained.values[i],
        float(explained.untouched[i]),
        study.curves.quantity,
        len(member.card.classes),
        explained.extras[i],
    )
    return next((finding.sentence for finding in found if finding.severity == "sick"), None)


def _checks(task: Task, whole: Plan, member: Member, bench: Workbench) -> Part:
    """The slow metrics of one image under the first fill, by the same code that a spot audit runs."""
    study = whole.study
    rows: list[Row] = []
    fill, unit = study.fills[0], task.start
    place = where(task, whole, member, fill, unit)
    try:
        spec = spec_of(study, member, task.explainer, fill, whole.pictures[unit].reference, task.seed)
        record = audit.run(spec, bench)
        if record.sick:
            raise Refused(record.sick[0])
        place = where(task, whole, member, fill, unit, record.predicted)
        found = measuring.measure(record, bench, study.checks.metrics)
        for name, measure in found.items():
            reason = measure.sentence if measure.refused else None
            state = "refused" if measure.refused else "number"
            rows.append({**place, "metric": name, "value": measure.value, "state": state, "reason": reason})
    except AuditError as reason:
        rows = [
            {**place, "metric": name, "value": None, "state": "refused", "reason": str(reason)}
            for name in study.checks.metrics
        ]
    return Part(as_table(rows, MEASURES), as_table([], CURVES), task.forwards)
