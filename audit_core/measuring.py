"""Metrics of a finished audit: what is known, what can be measured, kept by content in the workbench's store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audit_core import audit, examples
from audit_core.borrow import untouched_random_state
from audit_core.data import dataset_of
from audit_core.errors import AuditError, BadCheckpoint, InvalidParameter, Refused
from audit_core.images import input_digest, prepare
from audit_core.keys import Choice, key
from audit_core.metrics import METRICS, Evidence, Measure
from audit_core.metrics.base import Report, silent
from audit_core.metrics.controls import COMPARED, MAPS_COMPARED, differences, said_of
from audit_core.record import AuditRecord
from audit_core.types import AuditSpec, SourceImage
from audit_core.workbench import Workbench
from models.cards import ModelCard
from models.wafers import FAILED

VERSION = 3  # of the metrics: raise it when numbers change although no parameter did


@dataclass(frozen=True)
class Session:
    """A record whose names are resolved: everything that metrics and their keys follow from, weights not yet loaded."""

    record: AuditRecord
    prepared: audit.Prepared
    region: np.ndarray | None

    def key(self, choice: Choice) -> str:
        """Identity of one measure of this record: its curves, its map and its region, the weights and the metric."""
        record = self.record
        made = [record.values, record.pixels, record.deletion.score, record.insertion.score, record.controls.deletion]
        return key(
            kind="measure",
            version=VERSION,
            record=record.key,
            made=made,
            weights=self.prepared.card.weights_sha256,
            region=self.region,
            metric=METRICS.complete(choice),
        )

    def evidence(self, bench: Workbench) -> Evidence:
        """What metrics may look at, the model loaded and set against the audit's contrast."""
        record, prepared = self.record, self.prepared
        classifier = bench.classifier(record.spec.triple.checkpoint, record.spec.precision)
        contrast = audit.contrast_of(record.spec, prepared.card, record.target)
        return Evidence(
            record, classifier.against(contrast), prepared.explainer, prepared.fill, prepared.context, self.region
        )


def open_session(record: AuditRecord, bench: Workbench) -> Session:
    """Resolve the names of a record; ``BadCheckpoint`` when the weights here are not those that it was made with."""
    prepared = _prepared(audit.with_image(record, bench), bench)
    made, here = record.provenance.get("weights_sha256"), prepared.card.weights_sha256
    if made is not None and made != here:
        raise BadCheckpoint(
            f"the record was made with other weights of {prepared.card.name} (sha256 {str(made)[:12]}…) than those "
            f"here ({here[:12]}…); audit the image again"
        )
    if prepared.subject.digest != input_digest(record.pixels):  # the same words name another image here
        return Session(record, _prepared(audit.with_recorded_input(record, bench), bench), None)
    return Session(record, prepared, region_of(record.spec.image, prepared.card))


def _prepared(spec: AuditSpec, bench: Workbench) -> audit.Prepared:
    """The target stands in the record already, so an image that lost its label on the way is no hindrance."""
    return audit.prepare(replace(spec, target="predicted"), bench)


def region_of(reference: str, card: ModelCard) -> np.ndarray | None:
    """Where the evidence for the image's label lies in the model's input, bool (rows, columns); None when unknown.

    It takes the way of a wafer map to the input (nearest neighbour over the whole frame, as :func:`prepare` does), so
    it lies where the image lies. Uploads have none.
    """
    if reference.startswith("upload:"):
        return None
    try:
        dataset, index = dataset_of(reference)
    except AuditError:
        return None  # the record came from elsewhere and its data set is not here
    region = dataset.region(index)
    if region is None:
        return None
    codes = SourceImage(np.where(region, FAILED, 0).astype(np.uint8), True, "region")
    return prepare(codes, card)[0] > 0.5


def find(record: AuditRecord, bench: Workbench, names: Iterable[str] | None = None) -> dict[str, Measure]:
    """The measures that are kept already, by name as asked; loads no weights and never fails on a foreign record."""
    try:
        session = open_session(record, bench)
    except AuditError:
        return {}
    found = {name: _stored(session.key(choice), bench) for name, choice in _choices(names).items()}
    return {name: measure for name, measure in found.items() if measure is not None}


def forwards(record: AuditRecord, bench: Workbench, names: Iterable[str] | None = None) -> int:
    """Forwards that the metrics not yet in the store take at most."""
    session = open_session(record, bench)
    evidence = session.evidence(bench)
    total = 0
    for choice in _choices(names).values():
        metric = METRICS.build(choice)
        if _stored(session.key(choice), bench) is None and metric.refuse(evidence) is None:
            maps = 1 + MAPS_COMPARED if choice.name in COMPARED else 1
            total += maps * metric.cost(evidence).forwards
    return total


def measure(
    record: AuditRecord, bench: Workbench, names: Iterable[str] | None = None, report: Report = silent
) -> dict[str, Measure]:
    """Name as asked -> measure or refusal, in the order asked; all metrics at their defaults unless ``names`` is given.

    names: "name" or "name:key=value,…". A metric that meets an ``AuditError`` is refused with its sentence, the others
    go on; ``AuditError`` when the record's checkpoint or image cannot be opened here. Results are kept in the store.
    The model and global random state are as found afterwards.
    """
    session, choices = open_session(record, bench), _choices(names)
    evidence = session.evidence(bench)
    found: dict[str, Measure] = {}
    for n, (name, choice) in enumerate(choices.items()):
        title = METRICS[choice.name].title

        def tell(fraction: float, words: str, n: int = n, title: str = title) -> None:
            report((n + fraction) / len(choices), f"{title}: {words}" if words else title)

        tell(0.0, "")
        found[name] = _measured(session, choice, evidence, bench, tell)
    report(1.0, "All measured")
    return found


def _choices(names: Iterable[str] | None) -> dict[str, Choice]:
    return {name: METRICS.complete(Choice.parse(name)) for name in (METRICS if names is None else names)}


def _measured(session: Session, choice: Choice, evidence: Evidence, bench: Workbench, report: Report) -> Measure:
    """As it was kept, else measured and kept; what failed for lack of room or files is not kept."""
    place = session.key(choice)
    if (known := _stored(place, bench)) is not None:
        return known
    try:
        with evidence.classifier.lock, untouched_random_state():
            found = _asked(choice, evidence, report)
    except (Refused, InvalidParameter) as reason:
        found = Measure.refusal(str(reason))
    except AuditError as reason:
        return Measure.refusal(str(reason))
    bench.keep(lambda: bench.store.put_json(place, found.to_json()))
    return found


def _asked(choice: Choice, evidence: Evidence, report: Report) -> Measure:
    metric = METRICS.build(choice)
    reason = metric.refuse(evidence)
    if reason is not None:
        return Measure.refusal(reason)
    found = metric.measure(evidence, report)
    if choice.name not in COMPARED or found.value is None:
        return found
    beside = differences(metric, evidence, found.value)
    return replace(found, sentence=found.sentence + said_of(beside), extra={**found.extra, "controls": beside})


def _stored(place: str, bench: Workbench) -> Measure | None:
    raw = examples.measures().get(place) or bench.store.get_json(place)
    return None if raw is None else Measure(**raw)


def table(measures: Mapping[str, Measure]) -> list[dict[str, Any]]:  # Any: JSON scalars
    """One row per measure, as plain data: name, title, family, value, low, high, n, better, sentence, refused."""
    rows = []
    for name, found in measures.items():
        entry = METRICS[Choice.parse(name).name]
        rows.append(
            {
                "name": name,
                "title": entry.title,
                "family": entry.family,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "better": entry.better,
                "sentence": found.sentence,
                "refused": found.refused,
            }
        )
    return rows
