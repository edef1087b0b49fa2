"""Fills that put another image in the place of what is removed: a nominal one, or one of the same data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from audit_core.errors import Refused
from audit_core.fills.base import FILLS, Fill, FillContext, spread
from audit_core.params import Between


@FILLS.register("reference")
@dataclass(frozen=True)
class Reference(Fill):
    """A removed pixel becomes the pixel at the same place of a nominal image, such as a wafer of the class "none".

    It asks what the model would see if nothing were wrong there, and stays closer to real data than a flat colour.
    Images without a nominal counterpart have no such fill.
    """

    title: ClassVar[str] = "Nominal reference image"
    family: ClassVar[str] = "data"
    formula: ClassVar[str] = "x_p = r_p, r the nominal image (for a wafer: the same wafer with every die passed)"
    source: ClassVar[str] = (
        "this project's; a counterfactual baseline in the sense of Sturmfels et al. 2020, "
        "https://distill.pub/2020/attribution-baselines"
    )
    witness: ClassVar[str] = (
        "the given picture stands in every image: tests/test_fills.py::test_given_picture_stands_in_every_image"
    )
    pitfalls: ClassVar[str] = (
        "Needs data with a known nominal state. Pixels that equal the nominal image are not changed at all, so only "
        "the defect counts."
    )

    def refuse(self, context: FillContext) -> str | None:
        """See :meth:`Fill.refuse`."""
        if context.reference is None:
            return "The reference fill needs a nominal image; this data set has none. Choose another fill."
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The nominal image in every image."""
        if context.reference is None:
            raise Refused(self.refuse(context))
        return spread(context.reference, images, "reference image")


@FILLS.register("other-image")
@dataclass(frozen=True)
class OtherImage(Fill):
    """A removed pixel becomes the pixel at the same place of another image of the same data set.

    The seed counts through the first ``among`` of at most eight other images, which are spread evenly over the data
    set; one stands in for all removed pixels. It is never the audited image itself, nor a copy of it. What is filled in
    is real data, of whichever class the other image has. An uploaded image belongs to no data set and has no such fill.
    Source: the train-set fill of Blücher et al. 2024.
    """

    among: Annotated[int, Between(1, 8, "images", "How many other images the seed counts through, at most.")] = 8

    title: ClassVar[str] = "Another image"
    family: ClassVar[str] = "data"
    formula: ClassVar[str] = "x_p = x_p^(j) for all p, j = seed mod min(among, m), m other images"
    source: ClassVar[str] = (
        "Blücher et al. 2024, https://arxiv.org/abs/2401.06654; Sturmfels et al. 2020, "
        "https://distill.pub/2020/attribution-baselines"
    )
    witness: ClassVar[str] = "the given images in turn: tests/test_fills.py::test_another_image_is_one_of_those_given"
    pitfalls: ClassVar[str] = (
        "The other image brings evidence of its own: insertion starts from its class, and a curve may follow what was "
        "added rather than what was removed. One image stands for the fill; look at several seeds."
    )
    seeded: ClassVar[bool] = True

    def refuse(self, context: FillContext) -> str | None:
        """See :meth:`Fill.refuse`."""
        if context.others is None:
            return "Another image needs a data set with other images; this image has none. Choose another fill."
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The chosen other image in every image."""
        if context.others is None:
            raise Refused(self.refuse(context))
        chosen = context.seed % min(self.among, len(context.others))
        return spread(context.others[chosen], images, "other image")
