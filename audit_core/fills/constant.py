"""Fills of one colour, or of one picture that is the same for a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from audit_core.errors import Refused
from audit_core.fills.base import FILLS, Fill, FillContext, channel_mean, per_channel, spread


@FILLS.register("zero")
@dataclass(frozen=True)
class Zero(Fill):
    """A removed pixel becomes black: 0 in every channel, before normalisation.

    The deletion curve's usual fill. Where an image is already black nothing changes: on binary wafer maps it
    removes failed dies only, on three-level ones it turns dies into background.
    """

    title: ClassVar[str] = "Zero (black)"

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        return torch.zeros_like(images)


@FILLS.register("zero-normalised")
@dataclass(frozen=True)
class ZeroNormalised(Fill):
    """A removed pixel becomes 0 after normalisation, which is not black: it is the mean colour of the training data.

    That colour is the ``mean`` of the checkpoint's card. This is what a zero tensor means in most published code
    (the deletion metric of RISE, Petsiuk et al. 2018, among it). With a mean of 0 it is the same as black.
    """

    title: ClassVar[str] = "Mean colour (zero after normalisation)"

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        return per_channel(context.mean, images, "normalisation mean").expand_as(images).clone().clamp_(0, 1)


@FILLS.register("image-mean")
@dataclass(frozen=True)
class ImageMean(Fill):
    """A removed pixel becomes the average colour of this very image: one value per channel, taken over all pixels."""

    title: ClassVar[str] = "Mean of the image"

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        return channel_mean(images).expand_as(images).clone()


@FILLS.register("dataset-mean")
@dataclass(frozen=True)
class DatasetMean(Fill):
    """A removed pixel becomes what stands at its place on average over the data set.

    Every pixel has its own mean per channel, so the filled image still shows what all images share (the round
    wafer, say) and no longer what is particular to one. An uploaded image belongs to no data set and has no such fill.
    """

    title: ClassVar[str] = "Mean of the data set"

    def refuse(self, context: FillContext) -> str | None:
        if context.dataset_mean is None:
            return "The data-set mean needs a data set; this image belongs to none. Choose the image mean instead."
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        if context.dataset_mean is None:
            raise Refused(self.refuse(context))
        return spread(context.dataset_mean, images, "data-set mean")
