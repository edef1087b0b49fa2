"""Evidence for metrics: a real audit of a tiny model, computed without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tiny
import torch
from torch import nn

from audit_core import audit
from audit_core.classifier import Classifier
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.base import Cost, Explainer
from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.metrics import Evidence
from audit_core.selftest import Outcome
from audit_core.types import Attribution, AuditSpec, SourceImage, Triple
from audit_core.workbench import Subject, fill_context
from models.cards import ModelCard


class Given(Explainer):
    """Hands out a map that a test wrote down."""

    title, reads = "Given", "nothing"

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values, dtype=np.float32)

    def cost(self, card: ModelCard) -> Cost:
        return Cost(0)

    def attribute(self, classifier, images, target, seed, report=None) -> Attribution:
        return Attribution(np.stack([self.values] * len(images)), target.cpu().numpy(), bool(self.values.min() < 0))


class Pixelwise(Explainer):
    """A map that is a function of every pixel alone, and of nothing else."""

    title, reads = "Pixelwise", "image"

    def cost(self, card: ModelCard) -> Cost:
        return Cost(0)

    def attribute(self, classifier, images, target, seed, report=None) -> Attribution:
        return Attribution(images.mean(1).cpu().numpy() ** 2, target.cpu().numpy(), False)


class Believing:
    """In place of a workbench: it keeps nothing, and takes every explainer for tested on these tiny models."""

    @property
    def store(self) -> Believing:
        return self

    def get_json(self, key: str) -> dict[str, object]:
        return Outcome(True).to_json()


def evidence(
    pair: tuple[ModelCard, nn.Module] | None = None,
    explainer: str | Explainer = "grad-cam:layer=stage1,relu=false",
    fill: str = "zero",
    pixels: torch.Tensor | None = None,
    region: np.ndarray | None = None,
    label: int | None = None,
    **settings: object,
) -> Evidence:
    """One audited image of a tiny model (the CNN unless given); settings: of the spec, 4 steps and 3 random orders."""
    found = tiny.classifier(pair or tiny.cnn())
    card = found.card
    image = tiny.images(1, card.input_size[0], card.channels)[0] if pixels is None else pixels
    named = Choice.parse(explainer) if isinstance(explainer, str) else Choice("given")
    made = explainer if isinstance(explainer, Explainer) else EXPLAINERS.build(named)
    spec = AuditSpec(
        Triple(card.name, named, FILLS.complete(Choice.parse(fill))), "synthetic:sample:0",
        **{"steps": 4, "controls": 3, **settings},
    )
    array = image.numpy()
    source = SourceImage(np.zeros((4, 4), np.uint8), True, "made by hand")
    subject = Subject(source, label, array, np.full_like(array, 0.4), np.full_like(array, 0.5))
    prepared = audit.Prepared(
        spec, card, subject, made, FILLS.build(spec.triple.fill), fill_context(subject, card, spec.seed)
    )
    record = audit.compute(prepared, found, Believing(), fresh=True)
    contrast = audit.contrast_of(spec, card, record.target)
    found.forwards = 0
    return Evidence(record, found.against(contrast), made, prepared.fill, prepared.context, region)


def given(values: Sequence | np.ndarray, region: np.ndarray | None = None, **settings: object) -> Evidence:
    """The additive model of the size of ``values`` with that very map."""
    values = np.asarray(values, dtype=np.float32)
    return evidence(tiny.linear(size=len(values)), Given(values), region=region, **settings)


def remade(found: Evidence, **changes: object) -> Evidence:
    """The same evidence with other fields of the record."""
    return replace(found, record=replace(found.record, **changes))


def weights(found: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel of the additive model adds to the target's logit: untouched and when black, (rows, columns)."""
    classifier, shape = found.classifier, found.values.shape
    row = classifier.module[1].weight.detach()[found.record.target].double().numpy()
    per_pixel = row.reshape(classifier.card.channels, *shape)
    mean, std = (np.array(x)[:, None, None] for x in (classifier.card.mean, classifier.card.std))
    there = per_pixel * (found.record.pixels.astype(np.float64) - mean) / std
    return there.sum(0), (per_pixel * (0 - mean) / std).sum(0)


def scores_of(found: Evidence, images: np.ndarray) -> np.ndarray:
    """The audited quantity of pixels (n, channels, rows, columns), one by one through the bare module."""
    classifier, scores = found.classifier, []
    for image in torch.from_numpy(images):
        with torch.no_grad():
            logits = classifier.module(classifier.normalise(image[None].float()))[0].double()
        if classifier.contrast is not None:
            logits = logits - logits[classifier.contrast]
        row = logits if found.record.spec.quantity == "logit" else logits.softmax(0)
        scores.append(float(row[found.record.target]))
    return np.array(scores)


def twin_classifier(found: Classifier) -> dict[str, object]:
    """Everything of a classifier's module that a metric must leave alone."""
    module = found.module
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "modes": [part.training for part in module.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "frozen": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [parameter.grad is None for parameter in module.parameters()],
    }
