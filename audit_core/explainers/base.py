"""What every explainer promises: refuse with a reason, state its cost, attribute without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.documented import Documented
from audit_core.registry import Registry
from audit_core.types import Attribution
from models.cards import ModelCard

#: Signals that an explainer can read: attention matrices (alone, or with their gradients), relevance handed back layer
#: by layer, the features of a stage (alone, with their gradients, or with the scores of what is left of them),
#: gradients at the input, the model's scores, something outside, the image alone, or nothing.
READS = ("attention", "attention gradients", "relevance", "features", "feature gradients", "feature scores",
         "input gradients", "scores", "outside", "image", "nothing")  # fmt: skip

#: report(fraction done, words, running map (rows, columns) or None); may raise to stop the work.
Report = Callable[[float, str, "np.ndarray | None"], None]


def silent(fraction: float, message: str, running: np.ndarray | None) -> None:
    """The report that tells nobody."""


@dataclass(frozen=True)
class Cost:
    """Model evaluations for one image: ``forwards`` and ``backwards``, in images."""

    forwards: int
    backwards: int = 0


@dataclass(frozen=True)
class ClassMaps:
    """Maps of several classes from one pass over one image.

    values, error: float32 (k, rows, columns), ``error`` the standard error or None; classes: the k model outputs;
    extra: plain numbers that the method reports besides; forwards: model evaluations spent, in images; signed:
    whether values below 0 mean evidence against.
    """

    values: np.ndarray
    error: np.ndarray | None
    classes: list[int]
    extra: dict[str, int]
    forwards: int
    signed: bool = False


class Explainer(Documented):
    """Base of all explainers; subclasses are frozen dataclasses whose fields are the parameters.

    reads: the signal it reads, one of ``READS``; all_classes: the work does not depend on the target
    (``attribute_all`` is offered).
    """

    reads: ClassVar[str]
    all_classes: ClassVar[bool] = False
    needs: ClassVar[str] = ""  # what it must be given besides its parameters: "map" for a file with one

    def refuse(self, card: ModelCard) -> str | None:
        """The sentence why this explainer has no meaning for the checkpoint, or None."""
        return None

    def cost(self, card: ModelCard) -> Cost:
        """Model evaluations that one image takes at most."""
        raise NotImplementedError

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Maps for ``images``, float32 (n, channels, rows, columns) pixels in [0, 1], and ``target`` int64 (n,).

        The same images, target and seed give the same maps, whatever else is in the batch.
        """
        raise NotImplementedError

    def attribute_all(
        self, classifier: Classifier, image: torch.Tensor, seed: int, report: Report = silent, shown: int = 0
    ) -> ClassMaps:
        """Maps of all classes for one image (channels, rows, columns), where ``all_classes`` says so.

        ``shown`` is the class whose running map is reported; its map is always among the results.
        """
        raise NotImplementedError


EXPLAINERS: Registry[Explainer] = Registry("explainer")
