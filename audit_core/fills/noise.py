"""Random fills: fresh noise, or the image's own pixels in another order.

Each draws one field from the seed and uses it for every image, so a result does not depend on the place in a batch.
Draws are made on the CPU and moved, so that all devices see the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from audit_core.fills.base import FILLS, Fill, FillContext, generator, per_channel
from audit_core.params import Between


@FILLS.register("uniform-noise")
@dataclass(frozen=True)
class UniformNoise(Fill):
    """A removed pixel becomes a random colour: every channel is drawn evenly from 0 to 1.

    The seed fixes the noise; all images with the same seed and size get the same noise.
    """

    title: ClassVar[str] = "Uniform noise"
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        field = torch.rand(images.shape[1:], generator=generator("uniform-noise", context.seed))
        return field.to(images).expand_as(images).clone()


@FILLS.register("gaussian-noise")
@dataclass(frozen=True)
class GaussianNoise(Fill):
    """A removed pixel becomes random noise around the mean colour of the training data, clipped to the range 0 to 1.

    Per channel the noise is normal with the card's normalisation mean and ``scale`` times its standard deviation.
    The seed fixes the noise; all images with the same seed and size get the same noise.
    """

    scale: Annotated[float, Between(0, 10, help="Width of the noise in standard deviations of the data.")] = 1.0

    title: ClassVar[str] = "Gaussian noise"
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        field = torch.randn(images.shape[1:], generator=generator("gaussian-noise", context.seed)).to(images)
        width = per_channel(context.std, images, "normalisation deviation") * self.scale
        noise = field * width
        return (per_channel(context.mean, images, "normalisation mean") + noise).clamp_(0, 1).expand_as(images).clone()


@FILLS.register("shuffle")
@dataclass(frozen=True)
class Shuffle(Fill):
    """A removed pixel becomes another pixel of the same image, chosen by one random permutation of all pixels.

    The wholly filled image has the same colours as the original and no shape left. Channels move together. The seed
    fixes the permutation; all images with the same seed and size are permuted alike.
    """

    title: ClassVar[str] = "Shuffled pixels"
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        height, width = images.shape[2:]
        order = torch.randperm(height * width, generator=generator("shuffle", context.seed))
        return images.flatten(2).index_select(2, order.to(images.device)).reshape(images.shape)
