"""A fill that puts another, unremarkable image in the place of what is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from audit_core.errors import Refused
from audit_core.fills.base import FILLS, Fill, FillContext, spread


@FILLS.register("reference")
@dataclass(frozen=True)
class Reference(Fill):
    """A removed pixel becomes the pixel at the same place of a nominal image, such as a wafer of the class "none".

    It asks what the model would see if nothing were wrong there, and stays closer to real data than a flat colour.
    Images without a nominal counterpart have no such fill.
    """

    title: ClassVar[str] = "Nominal reference image"

    def refuse(self, context: FillContext) -> str | None:
        if context.reference is None:
            return "The reference fill needs a nominal image; this data set has none. Choose another fill."
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        if context.reference is None:
            raise Refused(self.refuse(context))
        return spread(context.reference, images, "reference image")
