"""InvRISE: what its published descriptions can mean, each in terms of RISE.

The paper's formula is not public. With f the target's probability, M the masks and p the chance that a cell is kept,
p E[f | M(l) = 1] + (1 - p) E[f | M(l) = 0] = E[f] at every pixel l, so all readings that average a score linearly are
affine functions of RISE: they choose its sign and carry nothing more. The names here keep that visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.explainers.base import EXPLAINERS, ClassMaps, Report, silent
from audit_core.explainers.rise import RISE
from audit_core.params import OneOf
from audit_core.types import Attribution

#: variant -> (over masks that hide the pixel, of the other classes' score, what it is beside RISE)
VARIANTS = {
    "target-hidden": (True, False, "a reconstruction, not the paper's formula: RISE upside down"),
    "other-hidden": (True, True, "RISE itself up to scale and shift: the same ranking"),
    "other-visible": (False, True, "RISE upside down"),
}


@EXPLAINERS.register("inv-rise")
@dataclass(frozen=True)
class InvRISE(RISE):
    """InvRISE: mean score over random masks that *hide* a pixel. A reconstruction, not the paper's formula.

    Meant for defects: a scratch that is painted black is still a defect, so RISE may point at sound parts instead.
    The paper's formula is not public; these are readings of its descriptions. ``target-hidden`` is the mean probability
    of the class while the pixel is hidden: RISE upside down. ``other-hidden`` is that of all other classes while the
    pixel is hidden: RISE itself, with the same ranking. ``other-visible`` is that of all other classes while the pixel
    is visible: RISE upside down. None of them knows more than RISE; they choose its sign.
    """

    title: ClassVar[str] = "InvRISE (reconstruction)"
    formula: ClassVar[str] = "target-hidden: S_inv(l) = sum_i f_t(x * M_i) (1 - M_i(l)) / sum_i (1 - M_i(l))"
    source: ClassVar[str] = (
        "named in Gramelt, Hoefer and Schmid 2024, https://arxiv.org/abs/2410.12817, whose formula is not public; "
        "masks as in Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421"
    )
    witness: ClassVar[str] = (
        "all masks of a small grid, enumerated; the affine relation to RISE, mask by mask: "
        "tests/test_perturbation.py::test_inv_rise_converges_to_the_conditional_mean, "
        "tests/test_perturbation.py::test_inv_rise_is_an_affine_function_of_rise"
    )
    pitfalls: ClassVar[str] = (
        "Every variant is RISE with one sign or the other. Upside down it ranks first what the class needs least, so a "
        "deletion curve that it loses says nothing new about the model."
    )

    variant: Annotated[
        str,
        OneOf(
            tuple(VARIANTS),
            "Whose score is averaged over which masks: the target's while hidden (the reconstruction), or that of all "
            "other classes while hidden or visible.",
        ),
    ] = "target-hidden"

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """As RISE; ``extra`` says what the variant is beside RISE."""
        found = super().attribute(classifier, images, target, seed, report)
        return replace(found, extra={**found.extra, "beside_rise": VARIANTS[self.variant][2]})

    def attribute_all(
        self, classifier: Classifier, image: torch.Tensor, seed: int, report: Report = silent, shown: int = 0
    ) -> ClassMaps:
        """As RISE. ``coverage`` off divides by the expected count of masks that hide (or show) the pixel."""
        found = super().attribute_all(classifier, image, seed, report, shown)
        # RISE divides by N p where coverage is off; a pixel is hidden N (1 - p) times.
        scale = self.p / (1 - self.p) if self._hides and not self.coverage else 1.0
        error = found.error if found.error is None else np.float32(scale) * found.error
        return replace(found, values=np.float32(scale) * found.values, error=error)

    @property
    def _hides(self) -> bool:
        return VARIANTS[self.variant][0]

    def _scored(
        self, classifier: Classifier, baseline: torch.Tensor, image: torch.Tensor, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """RISE's masks and scores, as this variant weighs them; under a contrast the other side is the negative."""
        whole = 1.0 if classifier.contrast is None else 0.0
        for keep, scores in super()._scored(classifier, baseline, image, seed):
            yield 1 - keep if self._hides else keep, whole - scores if VARIANTS[self.variant][1] else scores
