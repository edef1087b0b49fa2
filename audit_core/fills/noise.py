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
    family: ClassVar[str] = "noise"
    formula: ClassVar[str] = "x_p ~ U(0, 1), independent per pixel and channel"
    source: ClassVar[str] = "Samek et al. 2017 (region perturbation), https://arxiv.org/abs/1509.06321"
    witness: ClassVar[str] = (
        "Kolmogorov-Smirnov test against the uniform law: tests/test_fills.py::test_uniform_noise_is_uniform_and_shared"
    )
    pitfalls: ClassVar[str] = (
        "Far from any natural image: a fall of the score may be due to the noise rather than to what it hides. One "
        "draw stands for the fill; look at several seeds."
    )
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """One field of noise for all images."""
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
    family: ClassVar[str] = "noise"
    formula: ClassVar[str] = "x_p = clip(mean + scale std e_p, 0, 1), e_p ~ N(0, 1), independent per pixel and channel"
    source: ClassVar[str] = (
        "Fong and Vedaldi 2017, https://arxiv.org/abs/1704.03296; Sturmfels et al. 2020, "
        "https://distill.pub/2020/attribution-baselines"
    )
    witness: ClassVar[str] = (
        "Kolmogorov-Smirnov test against the normal law of the card: "
        "tests/test_fills.py::test_gaussian_noise_has_the_cards_moments"
    )
    pitfalls: ClassVar[str] = (
        "Clipping piles values up at 0 and 1 when scale is large. One draw stands for the fill; look at several seeds."
    )
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """One field of noise for all images."""
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
    family: ClassVar[str] = "noise"
    formula: ClassVar[str] = "x_p = x_pi(p), pi one random permutation of the image's pixels"
    source: ClassVar[str] = (
        "this project's; close to the colour-histogram fill of Blücher et al. 2024, https://arxiv.org/abs/2401.06654"
    )
    witness: ClassVar[str] = (
        "sorted colours are equal before and after: "
        "tests/test_fills.py::test_shuffle_keeps_the_pixels_and_their_channels_together"
    )
    pitfalls: ClassVar[str] = (
        "Pixels of the evidence itself are scattered over the image. Sparse images turn into salt and pepper, a "
        "texture that no model was trained on."
    )
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """Each image permuted by the same order."""
        height, width = images.shape[2:]
        order = torch.randperm(height * width, generator=generator("shuffle", context.seed))
        return images.flatten(2).index_select(2, order.to(images.device)).reshape(images.shape)


@FILLS.register("histogram")
@dataclass(frozen=True)
class Histogram(Fill):
    """A removed pixel becomes a colour whose channels are drawn one by one from the image's own values.

    Each pixel and channel is drawn by itself, evenly from all pixels of that channel and with replacement: a sample of
    the channel's histogram. Shuffled pixels are a permutation instead: there, every colour of the image appears exactly
    as often as before and its channels stay together; here, colours that the image does not have may appear. The seed
    fixes the draw; all images with the same seed and size are sampled alike.
    Source: the colour-histogram fill of Blücher et al. 2024.
    """

    title: ClassVar[str] = "Colour histogram"
    family: ClassVar[str] = "noise"
    formula: ClassVar[str] = "x_pk = x_qk, q ~ U(all pixels), independent per pixel p and channel k"
    source: ClassVar[str] = "Blücher et al. 2024, https://arxiv.org/abs/2401.06654"
    witness: ClassVar[str] = (
        "chi-square test of the drawn values against each channel's histogram: "
        "tests/test_fills.py::test_histogram_draws_each_channel_from_its_own_values"
    )
    pitfalls: ClassVar[str] = (
        "The removed pixels' own values are in the histogram. Colour images get hues that they do not contain, sparse "
        "images salt and pepper."
    )
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """Each image sampled at the same places."""
        channels, height, width = images.shape[1:]
        rng = generator("histogram", context.seed)
        places = torch.randint(height * width, (channels, height * width), generator=rng).to(images.device)
        return images.flatten(2).gather(2, places.expand(len(images), -1, -1)).reshape(images.shape)
