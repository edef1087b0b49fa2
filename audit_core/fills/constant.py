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
    family: ClassVar[str] = "constant"
    formula: ClassVar[str] = "x_p = 0 in every channel, in pixel space"
    source: ClassVar[str] = (
        "the zero fill of the triple audit, https://arxiv.org/abs/2605.14255 (its inputs are not normalised, so its "
        "0 is black)"
    )
    witness: ClassVar[str] = (
        "closed form: tests/test_fills.py::test_zero_is_black_and_zero_normalised_is_the_mean_colour"
    )
    pitfalls: ClassVar[str] = (
        "Where the image is black already nothing is removed, and black areas in a bright image are shapes of their "
        "own. RISE with its default baseline hides pixels with the same value: method and metric then share an "
        "operator."
    )

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """Black images."""
        return torch.zeros_like(images)


@FILLS.register("zero-normalised")
@dataclass(frozen=True)
class ZeroNormalised(Fill):
    """A removed pixel becomes 0 after normalisation, which is not black: it is the mean colour of the training data.

    That colour is the ``mean`` of the checkpoint's card. This is what a zero tensor means in most published code
    (the deletion metric of RISE, Petsiuk et al. 2018, among it). With a mean of 0 it is the same as black.
    """

    title: ClassVar[str] = "Mean colour (zero after normalisation)"
    family: ClassVar[str] = "constant"
    formula: ClassVar[str] = "x_p = mean of the card, so that (x_p - mean) / std = 0"
    source: ClassVar[str] = (
        "Petsiuk et al. 2018 (RISE), https://arxiv.org/abs/1806.07421: the deletion metric of its code"
    )
    witness: ClassVar[str] = (
        "closed form: tests/test_fills.py::test_zero_is_black_and_zero_normalised_is_the_mean_colour"
    )
    pitfalls: ClassVar[str] = (
        "Depends on the checkpoint's card: two checkpoints with other normalisation get other colours. Where the "
        "mean is 0 it equals black."
    )

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The card's mean colour everywhere."""
        return per_channel(context.mean, images, "normalisation mean").expand_as(images).clone().clamp_(0, 1)


@FILLS.register("image-mean")
@dataclass(frozen=True)
class ImageMean(Fill):
    """A removed pixel becomes the average colour of this very image: one value per channel, taken over all pixels."""

    title: ClassVar[str] = "Mean of the image"
    family: ClassVar[str] = "constant"
    formula: ClassVar[str] = "x_p = (1 / |P|) sum over all pixels q in P of x_q, per channel"
    source: ClassVar[str] = "constant fills: Blücher et al. 2024, https://arxiv.org/abs/2401.06654"
    witness: ClassVar[str] = "numpy's mean: tests/test_fills.py::test_mean_of_the_image_is_numpys"
    pitfalls: ClassVar[str] = (
        "The removed pixels' own colours are part of the mean, so a large defect colours its own replacement. On "
        "images with two or three grey levels the mean is a value that no pixel has."
    )

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """Each image's mean colour everywhere."""
        return channel_mean(images).expand_as(images).clone()


@FILLS.register("dataset-mean")
@dataclass(frozen=True)
class DatasetMean(Fill):
    """A removed pixel becomes what stands at its place on average over the data set.

    Every pixel has its own mean per channel, so the filled image still shows what all images share (the round
    wafer, say) and no longer what is particular to one. An uploaded image belongs to no data set and has no such fill.
    """

    title: ClassVar[str] = "Mean of the data set"
    family: ClassVar[str] = "data"
    formula: ClassVar[str] = "x_p = (1 / n) sum over images i of x_p^(i), n at most 256, evenly spaced in the data set"
    source: ClassVar[str] = (
        "constant and train-set fills: Blücher et al. 2024, https://arxiv.org/abs/2401.06654; the mean per pixel is "
        "this project's variant"
    )
    witness: ClassVar[str] = (
        "the given picture stands in every image: tests/test_fills.py::test_given_picture_stands_in_every_image"
    )
    pitfalls: ClassVar[str] = (
        "The mean of many images is blurred and looks like none of them. The audited image may be among those averaged."
    )

    def refuse(self, context: FillContext) -> str | None:
        """See :meth:`Fill.refuse`."""
        if context.dataset_mean is None:
            return "The data-set mean needs a data set; this image belongs to none. Choose the image mean instead."
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The mean picture in every image."""
        if context.dataset_mean is None:
            raise Refused(self.refuse(context))
        return spread(context.dataset_mean, images, "data-set mean")
