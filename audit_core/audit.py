"""One audit: the only place where model, image, explainer, fill and curves meet."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

import audit_core
from audit_core import examples
from audit_core.borrow import untouched_random_state
from audit_core.classifier import Classifier
from audit_core.curves import (
    CurveTable,
    changed_pixels,
    cuts,
    fractions,
    plan,
    rank_pixels,
    score_points,
    table,
)
from audit_core.errors import AuditError, BadImage, InvalidParameter, Refused
from audit_core.explainers import EXPLAINERS, Explainer
from audit_core.fills import FILLS
from audit_core.fills.base import Fill, FillContext
from audit_core.health import findings
from audit_core.intervals import mean_interval
from audit_core.keys import Choice, canonical, key
from audit_core.readouts import relation
from audit_core.record import AuditRecord, Controls, StepProbabilities, from_json
from audit_core.selftest import Outcome, identity, self_test
from audit_core.types import SETTINGS, Attribution, AuditSpec, Curve, Effect, SourceImage, Triple
from audit_core.workbench import Subject, Workbench, fill_context
from models.cards import ModelCard

ALL_CLASSES = 64  # a model of more classes keeps the maps of some only, so those depend on the target
KEPT_CLASSES = 12  # class probabilities kept along the curves
UNTESTED = ("scores", "image", "nothing", "outside")  # what these read cannot be the wrong place of a model
PACKAGES = ("torch", "timm", "grad-cam", "captum", "scikit-image", "numpy", "scipy")
FIRST_BATCH = 8  # images in the first batch of a curve, so that the first points show at once


@dataclass(frozen=True)
class Partial:
    """What is known while an audit runs: the map so far, then curve points (NaN where not yet scored)."""

    values: np.ndarray | None = None
    fractions: np.ndarray | None = None
    deletion: np.ndarray | None = None
    insertion: np.ndarray | None = None
    random_deletion: np.ndarray | None = None
    random_insertion: np.ndarray | None = None
    scored: str = "probability"


#: report(fraction done, words, partial result); may raise to stop the audit within one batch.
Report = Callable[[float, str, Partial], None]


def silent(fraction: float, message: str, partial: Partial) -> None:
    """The report that tells nobody."""


def spec(checkpoint: str, explainer: str, fill: str, image: str, **settings: Any) -> AuditSpec:
    """An :class:`AuditSpec` from words: ``spec("wafer-vit-tiny", "rise:n_masks=500", "blur", "synthetic:sample:3")``.

    settings: the other fields of AuditSpec. Names and parameters are checked and written out in full.
    """
    triple = Triple(checkpoint, EXPLAINERS.complete(Choice.parse(explainer)), FILLS.complete(Choice.parse(fill)))
    return AuditSpec(triple, image, **settings)


@dataclass(frozen=True)
class Prepared:
    """An audit whose names are resolved: everything but the computation."""

    spec: AuditSpec
    card: ModelCard
    subject: Subject
    explainer: Explainer
    fill: Fill
    context: FillContext

    @property
    def key(self) -> str:
        """Identity of the result: cache key, job id and record key."""
        spec, subject = self.spec, self.subject
        settings = {name: getattr(spec, name) for name in SETTINGS}
        # Only a fill that needs more than the card depends on what the image's data set offers.
        informed = self.fill.refuse(FillContext(self.card.mean, self.card.std)) is not None
        offered = {"mean": subject.mean, "nominal": subject.nominal, "others": subject.others}
        background = canonical(offered) if informed else {}
        return key(kind="audit", **self._cause(), fill=spec.triple.fill, background=background, settings=settings)

    @property
    def map_key(self) -> str:
        """Identity of the attribution alone, which all fills share (and all targets, where the method gives all)."""
        wide = self.explainer.all_classes and len(self.card.classes) <= ALL_CLASSES
        target, spec = "all" if wide else self.spec.target, self.spec
        return key(
            kind="map", **self._cause(), target=target, against=spec.against, seed=spec.seed, precision=spec.precision
        )

    def _cause(self) -> dict[str, Any]:
        """What an attribution follows from, besides seed and target."""
        card = self.card
        return {
            "weights": card.weights_sha256,
            "architecture": card.architecture,
            "normalisation": [list(card.mean), list(card.std)],
            "classes": list(card.classes),
            "image": self.subject.digest,
            "label": self.subject.label if self.spec.target == "label" else None,
            "explainer": self.spec.triple.explainer,
        }


def prepare(spec: AuditSpec, bench: Workbench) -> Prepared:
    """Resolve the names of ``spec``; cheap, loads no weights. ``Refused`` when the cell has no meaning."""
    triple = spec.triple
    full = Triple(triple.checkpoint, EXPLAINERS.complete(triple.explainer), FILLS.complete(triple.fill))
    spec = replace(spec, triple=full)
    card = bench.card(full.checkpoint)
    explainer, fill = bench.bind(EXPLAINERS.build(full.explainer)), FILLS.build(full.fill)
    subject = bench.subject(spec.image, card)
    context = fill_context(subject, card, spec.seed)
    if reason := explainer.refuse(card) or fill.refuse(context):
        raise Refused(reason)
    resolve_target(spec.target, card, subject.label, 0)
    if spec.against:
        resolve_class(spec.against, card, "against")
    return Prepared(spec, card, subject, explainer, fill, context)


def resolve_target(target: str, card: ModelCard, label: int | None, predicted: int) -> int:
    """Model output that is explained: "predicted", "label", a class name or an index."""
    if target == "predicted":
        return predicted
    if target == "label":
        if label is None:
            raise InvalidParameter(
                f"target 'label' was asked for, the image has no label among {card.name}'s classes; choose a class"
            )
        return label
    return resolve_class(target, card, "target must be predicted, label,")


def resolve_class(name: str, card: ModelCard, what: str) -> int:
    """Model output of a class by name or index; ``InvalidParameter`` lists the classes. what: begins its sentence."""
    if name in card.classes:
        return card.classes.index(name)
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(card.classes):
        return int(name)
    shown = ", ".join(card.classes[:12]) + (" …" if len(card.classes) > 12 else "")
    begin = what if " " in what else f"{what} must be"
    raise InvalidParameter(f"{begin} a class or its index; got {name!r}. Classes: {shown}")


def contrast_of(spec: AuditSpec, card: ModelCard, target: int) -> int | None:
    """Model output that the target is set against; ``InvalidParameter`` when it is the target itself."""
    if not spec.against:
        return None
    contrast = resolve_class(spec.against, card, "against")
    if contrast == target:
        raise InvalidParameter(
            f"the target is {card.classes[target]!r}, and so is the class it was set against; choose another class"
        )
    return contrast


def find(prepared: Prepared, bench: Workbench) -> AuditRecord | None:
    """The stored record of this audit, if there is one."""
    raw = bench.store.get_json(f"record:{prepared.key}")
    return from_json(raw) if raw is not None else None


def run(spec: AuditSpec, bench: Workbench, report: Report = silent, fresh: bool = False) -> AuditRecord:
    """Compute one audit, or return it from the store; ``fresh`` computes in any case and stores nothing.

    Global random state and the model are as found afterwards. ``AuditError`` children name what the user can mend.
    """
    prepared = prepare(spec, bench)
    if not fresh and (known := find(prepared, bench)) is not None:
        return known
    classifier = bench.classifier(spec.triple.checkpoint, spec.precision)
    with classifier.lock, untouched_random_state():
        record = compute(prepared, classifier, bench, report, fresh)
    if not fresh:
        bench.keep(lambda: bench.store.put_json(f"record:{prepared.key}", record.to_json()))
    return record


def compute(
    prepared: Prepared, classifier: Classifier, bench: Workbench, report: Report = silent, fresh: bool = False
) -> AuditRecord:
    """Predict, explain, score the curves; the caller holds the classifier's lock."""
    began, before = time.perf_counter(), classifier.forwards
    spec, card = prepared.spec, prepared.card
    pixels = torch.from_numpy(np.array(prepared.subject.pixels))[None].to(classifier.device)
    report(0.0, "Loading the model's prediction", Partial())
    logits = classifier.logits(pixels)[0].cpu()
    target = resolve_target(spec.target, card, prepared.subject.label, int(logits.argmax()))
    classifier = classifier.against(contrast_of(spec, card, target))
    attribution = explain(prepared, classifier, bench, pixels, target, report, fresh)
    curves = score_curves(prepared, classifier, pixels, attribution.values[0], target, report)
    badge = relation(prepared.explainer.reads, card, str(getattr(prepared.explainer, "layer", "")))
    provenance = make_provenance(prepared, classifier)
    if spec.precision == "bf16":
        provenance["largest_difference_from_fp32"] = precision_gap(
            prepared, classifier, bench, pixels, attribution.values[0]
        )
    return AuditRecord(
        key=prepared.key,
        spec=spec,
        classes=card.classes,
        predicted=int(logits.argmax()),
        target=target,
        label=prepared.subject.label,
        probabilities=logits.double().softmax(0).numpy(),
        deletion=curves.deletion,
        insertion=curves.insertion,
        controls=curves.controls,
        advantage=advantage(curves, spec.direction),
        along=curves.along,
        values=attribution.values[0],
        error=None if attribution.error is None else attribution.error[0],
        signed=attribution.signed,
        pixels=prepared.subject.pixels,
        badge=badge.badge,
        badge_sentence=badge.sentence,
        health=tuple(
            finding.sentence
            for finding in findings(
                attribution.values[0],
                float(curves.deletion.score[0]),
                spec.quantity,
                len(card.classes),
                attribution.extra,
            )
        ),
        forwards=classifier.forwards - before,
        backwards=attribution.backwards,
        seconds=time.perf_counter() - began,
        extra=attribution.extra,
        provenance=provenance,
    )


def explain(
    prepared: Prepared,
    classifier: Classifier,
    bench: Workbench,
    pixels: torch.Tensor,
    target: int,
    report: Report = silent,
    fresh: bool = False,
) -> Attribution:
    """The map of the target, from the store when it is there; ``Refused`` when it holds NaN or infinity."""
    stored = None if fresh else bench.store.get_arrays(f"map:{prepared.map_key}")
    if stored is not None and target in stored["classes"]:
        row = int(np.flatnonzero(stored["classes"] == target)[0])
        error = stored["error"][row : row + 1] if "error" in stored else None
        extra = {name.removeprefix("extra_"): stored[name].tolist() for name in stored if name.startswith("extra_")}
        return Attribution(
            stored["values"][row : row + 1], np.array([target]), bool(stored["signed"]), error, extra=extra
        )

    prove(prepared, classifier, bench, report)

    def tell(fraction: float, message: str, running: np.ndarray | None) -> None:
        report(0.5 * fraction, message, Partial(values=running))

    explainer, seed = prepared.explainer, prepared.spec.seed
    if explainer.all_classes:
        every = explainer.attribute_all(classifier, pixels[0], seed, tell, target)
        arrays = {"values": every.values, "classes": np.array(every.classes)}
        arrays |= {} if every.error is None else {"error": every.error}
        row = every.classes.index(target)
        error = None if every.error is None else every.error[row][None]
        found = Attribution(
            every.values[row][None], np.array([target]), every.signed, error, every.forwards, extra=dict(every.extra)
        )
    else:
        found = explainer.attribute(classifier, pixels, torch.tensor([target]), seed, tell)
        arrays = {"values": found.values, "classes": found.target}
    if not np.isfinite(found.values).all():
        raise Refused(
            f"{prepared.spec.triple.explainer.name} returned {int((~np.isfinite(found.values)).sum())} values that are "
            f"not finite on {prepared.card.name}; such a map cannot be ranked, so nothing was scored"
        )
    if not fresh:
        extra = {f"extra_{name}": np.asarray(value) for name, value in found.extra.items()}
        arrays |= {**extra, "signed": np.array(found.signed)}
        bench.keep(lambda: bench.store.put_arrays(f"map:{prepared.map_key}", arrays))
    return found


def prove(prepared: Prepared, classifier: Classifier, bench: Workbench, report: Report = silent) -> None:
    """``Refused`` when the explainer fails its self-test on this checkpoint; tried before the first use, then kept."""
    prove_on(prepared.card, prepared.spec.triple.explainer, prepared.explainer, classifier, bench, report)


def prove_on(
    card: ModelCard, choice: Choice, explainer: Explainer, classifier: Classifier, bench: Workbench,
    report: Report = silent,
) -> None:  # fmt: skip
    """:func:`prove` without an image; choice: the explainer with all its parameters written out."""
    if explainer.reads in UNTESTED:
        return
    place = identity(card, choice)
    raw = examples.self_tests().get(place) or bench.store.get_json(place)
    if raw is None:
        report(0.0, f"Self-test of {explainer.title} on {card.name}", Partial())
        outcome = self_test(card, classifier.module, explainer)
        bench.keep(lambda: bench.store.put_json(place, outcome.to_json()))
    else:
        outcome = Outcome(**raw)
    if not outcome.works:
        raise Refused(f"{explainer.title} failed its self-test on {card.name}: {outcome.reason}")


@dataclass(frozen=True)
class Scored:
    """All curves of one audit."""

    deletion: Curve
    insertion: Curve
    controls: Controls
    along: StepProbabilities


def score_curves(
    prepared: Prepared,
    classifier: Classifier,
    pixels: torch.Tensor,
    values: np.ndarray,
    target: int,
    report: Report = silent,
) -> Scored:
    """Deletion and insertion of the map and of the random orders, coarse to fine, in one stream of batches."""
    spec = prepared.spec
    ranks = orders(spec, values)
    at = cuts(int(ranks[0].max()) + 1, spec.steps)
    image_of_order = np.zeros(len(ranks), dtype=np.int64)
    points = plan(image_of_order, at)
    lookup = table(points, len(ranks), at, image_of_order)
    substrate = prepared.fill.substrate(pixels, prepared.context)
    scores = np.full((len(points), len(prepared.card.classes)), np.nan)
    share = np.stack([fractions(rank, at) for rank in ranks])
    stream = score_points(classifier, prepared.fill, pixels, substrate, torch.from_numpy(ranks), points, FIRST_BATCH)
    for start, logits in stream:
        rows = logits if spec.quantity == "logit" else logits.softmax(1)
        scores[start : start + len(rows)] = rows.double().cpu().numpy()
        done = (start + len(rows)) / len(points)
        report(
            0.5 + 0.5 * done, "Scoring the curves", _partial(values, share[0], scores[:, target], lookup, spec.scored)
        )
    return _scored(scores, share, lookup, target, classifier, prepared)


def precision_gap(
    prepared: Prepared, classifier: Classifier, bench: Workbench, pixels: torch.Tensor, values: np.ndarray
) -> float:
    """Largest difference of any class probability between this precision and fp32 along the deletion curve."""
    spec, full = prepared.spec, bench.classifier(prepared.spec.triple.checkpoint)
    rank = torch.from_numpy(rank_pixels(values, spec.patch, spec.direction, spec.seed)).to(classifier.device)
    at = torch.from_numpy(cuts(int(rank.max()) + 1, spec.steps)).to(classifier.device)
    changed = changed_pixels(rank.expand(len(at), -1, -1), torch.zeros_like(at), at)
    substrate = prepared.fill.substrate(pixels, prepared.context)
    images = prepared.fill.apply(pixels.expand(len(at), -1, -1, -1), changed, substrate.expand(len(at), -1, -1, -1))
    with full.lock:
        gaps = [
            (classifier.predict(part).softmax(1) - full.predict(part).softmax(1)).abs().max()
            for part in images.split(64)
        ]
    return float(max(gaps))


def orders(spec: AuditSpec, values: np.ndarray) -> np.ndarray:
    """Ranks of the map and of every random order, int32 (1 + controls, rows, columns)."""
    own = rank_pixels(values, spec.patch, spec.direction, spec.seed)
    random = [
        rank_pixels(np.random.default_rng((spec.seed, 2, control)).random(values.shape), spec.patch, "most", spec.seed)
        for control in range(spec.controls)
    ]
    return np.stack([own, *random])


def _partial(values: np.ndarray, share: np.ndarray, scores: np.ndarray, lookup: CurveTable, scored: str) -> Partial:
    deletion, insertion = scores[lookup.deletion], scores[lookup.insertion]
    return Partial(values, share, deletion[0], insertion[0], deletion[1:], insertion[1:], scored)


def _scored(
    scores: np.ndarray, share: np.ndarray, lookup: CurveTable, target: int, classifier: Classifier, prepared: Prepared
) -> Scored:
    deletion, insertion = scores[lookup.deletion][..., target], scores[lookup.insertion][..., target]
    areas = [
        np.array([np.trapezoid(s, f) for s, f in zip(c[1:], share[1:], strict=True)]) for c in (deletion, insertion)
    ]
    start = scores[lookup.deletion[0, 0]]
    kept = sorted({int(k) for k in np.argsort(-start, kind="stable")[:KEPT_CLASSES]} | {target})
    along = (scores[lookup.deletion[0]], scores[lookup.insertion[0]])
    return Scored(
        Curve(share[0], deletion[0]),
        Curve(share[0], insertion[0]),
        Controls(deletion[1:], insertion[1:], *areas),
        StepProbabilities(tuple(kept), *(rows[:, kept].astype(np.float32) for rows in along)),
    )


def advantage(curves: Scored, direction: str) -> dict[str, Effect]:
    """How much better than random order, > 0 is better: random - own deletion AUC, own - random insertion AUC.

    With the least important pixels first a good map keeps the score up, so both differences change their sign.

    The interval is Student's t over the random orders (it says how well the random level is known, not how the
    result would vary over images); absent with fewer than two orders.
    """
    sign = 1.0 if direction == "most" else -1.0
    gains = {
        "deletion": sign * (curves.controls.deletion_auc - curves.deletion.auc()),
        "insertion": sign * (curves.insertion.auc() - curves.controls.insertion_auc),
    }
    return {name: mean_effect(gain, "t interval over random orders") for name, gain in gains.items() if len(gain) > 1}


def mean_effect(sample: np.ndarray, method: str) -> Effect:
    """Mean of a sample (n > 1) with its 95 % Student t interval."""
    mean, low, high = mean_interval(sample)
    if low is None or high is None:
        raise ValueError("an interval needs at least two values")
    return Effect(mean, low, high, len(sample), method)


def make_provenance(prepared: Prepared, classifier: Classifier) -> dict[str, Any]:
    """Everything needed to redo the audit and to tell where it was made."""
    device = classifier.device
    return {
        "triplecheck": audit_core.__version__,
        "versions": versions(PACKAGES),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "precision": prepared.spec.precision,
        "checkpoint": prepared.card.name,
        "architecture": prepared.card.architecture,
        "weights_sha256": prepared.card.weights_sha256,
        "image": prepared.subject.source.name,
        "image_sha256": prepared.subject.source.digest,
        "input_sha256": prepared.subject.digest,
        "seed": prepared.spec.seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(prepared.spec),
    }


def command(spec: AuditSpec) -> str:
    """The command line that repeats the audit."""
    triple, defaults = spec.triple, AuditSpec.__dataclass_fields__
    words = [
        "python",
        "-m",
        "audit_core",
        "audit",
        "--checkpoint",
        triple.checkpoint,
        "--explainer",
        str(triple.explainer),
        "--fill",
        str(triple.fill),
        "--image",
        spec.image,
    ]
    for name in SETTINGS:
        if getattr(spec, name) != defaults[name].default:
            words += [f"--{name}", str(getattr(spec, name))]
    return shlex.join(words)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed version of each package and of Python; "absent" where one is not installed."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def perturbed(record: AuditRecord, bench: Workbench, curve: str, step: int) -> np.ndarray:
    """The exact image the model saw at a step of "deletion" or "insertion", float32 (channels, rows, columns)."""
    if curve not in ("deletion", "insertion") or not 0 <= step < len(record.deletion.fraction):
        raise InvalidParameter(
            f"curve must be deletion or insertion and step within 0 to {len(record.deletion.fraction) - 1}"
        )
    card = bench.card(record.spec.triple.checkpoint)
    fill = FILLS.build(record.spec.triple.fill)
    context = fill_context(bench.subject(with_image(record, bench).image, card), card, record.spec.seed)
    rank = torch.from_numpy(rank_pixels(record.values, record.spec.patch, record.spec.direction, record.spec.seed))
    at = cuts(int(rank.max()) + 1, record.spec.steps)
    low, high = (0, int(at[step])) if curve == "deletion" else (int(at[step]), int(at[-1]))
    pixels = torch.from_numpy(np.array(record.pixels))[None]
    changed = changed_pixels(rank[None], torch.tensor([low]), torch.tensor([high]))
    return fill.apply(pixels, changed, fill.substrate(pixels, context))[0].numpy()


def with_image(record: AuditRecord, bench: Workbench) -> AuditSpec:
    """The record's spec, its image replaced by the recorded model input where the reference opens nothing here."""
    try:
        bench.source(record.spec.image)
    except AuditError:
        return with_recorded_input(record, bench)
    return record.spec


def with_recorded_input(record: AuditRecord, bench: Workbench) -> AuditSpec:
    """The record's spec on the very input that it carries; ``BadImage`` for other than 1 or 3 channels."""
    values = np.array(record.pixels).transpose(1, 2, 0)
    if values.shape[2] not in (1, 3):
        raise BadImage(f"the recorded input has {values.shape[2]} channels; only 1 or 3 can be opened as an image")
    name = str(record.provenance.get("image", "recorded input"))
    image = bench.keep_image(SourceImage(values, False, name))
    target = record.classes[record.target] if record.spec.target == "label" else record.spec.target  # the label is gone
    return replace(record.spec, image=image, target=target)


@dataclass(frozen=True)
class Verification:
    """A record beside its recomputation: the largest differences, and whether they are within the tolerance."""

    key: str
    same: bool
    map_difference: float
    curve_difference: float
    tolerance: float
    note: str


TOLERANCE = 1e-4  # of probabilities and maps between machines; on one machine differences are below 1e-5


def verify(record: AuditRecord, bench: Workbench, report: Report = silent) -> Verification:
    """Recompute a record and compare map, curves and random orders.

    An upload that is no longer in the store is rebuilt from the model input that the record carries.
    """
    again = run(with_image(record, bench), bench, report, fresh=True)
    scale = max(float(np.abs(record.values).max()), 1e-12)
    maps = (
        float(np.abs(record.values - again.values).max()) / scale
        if record.values.shape == again.values.shape
        else np.inf
    )
    pairs = ((record.deletion, again.deletion), (record.insertion, again.insertion))
    curves = max(float(np.abs(a.score - b.score).max()) if a.score.shape == b.score.shape else np.inf for a, b in pairs)
    controls = record.controls.deletion, again.controls.deletion
    if controls[0].size and controls[0].shape == controls[1].shape:
        curves = max(curves, float(np.abs(controls[0] - controls[1]).max()))
    same_key = record.key == again.key
    same = same_key and maps <= TOLERANCE and curves <= TOLERANCE
    note = "" if same_key else "the key differs: image, weights or settings are not those of the record"
    return Verification(record.key, same, maps, curves, TOLERANCE, note)


__all__ = ["Partial", "Prepared", "find", "prepare", "run", "spec", "verify"]
