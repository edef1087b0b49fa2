"""A deliberately bad explainer, loaded by ``test_bad_plugin.py`` alone: what the contract suite must catch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.params import Between
from audit_core.types import Attribution
from models.cards import ModelCard


@EXPLAINERS.register("bad-plugin")
@dataclass(frozen=True)
class BadPlugin(Explainer):
    """Bad in every way that a plug-in can be: unseeded, careless with what it was lent, wrong in kind and in count."""

    title: ClassVar[str] = "Bad plug-in"
    reads: ClassVar[str] = "scores"

    strength: Annotated[float, Between(0, 1, help="A parameter that does nothing.")] = 0.5

    def cost(self, card: ModelCard) -> Cost:
        return Cost(1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        classifier.module.train()  # a mode that nobody restores
        classifier.module.register_forward_hook(lambda *_: None)  # a hook that nobody takes off
        for _ in range(3):  # more forwards than it said
            classifier.logits(images)
        images.mul_(0.5)  # its input
        values = np.random.rand(*images.shape[:1], *images.shape[2:])  # noqa: NPY002  (unseeded, on purpose)
        values[:, 0, 0] = np.nan
        return Attribution(values, target.cpu().numpy(), False, None, 1)
