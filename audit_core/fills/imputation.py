"""Noisy linear imputation (ROAD): removed pixels are grown from the ones that stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from audit_core.fills.base import FILLS, Fill, FillContext, channel_mean, generator, ordered_sum
from audit_core.fills.multigrid import neighbour_sum, solve
from audit_core.params import Between

VALUES_AT_ONCE = {"cpu": 2**17}  # that fit a core's cache; other devices take 2**24


@FILLS.register("road")
@dataclass(frozen=True)
class Road(Fill):
    """A removed pixel becomes the weighted mean of its eight neighbours, plus a little noise.

    Direct neighbours weigh 1/6, diagonal ones 1/12; at the border the weights that remain are scaled up to sum to 1.
    Neighbours that are removed too are unknown as well, so all are solved for together: colour flows in smoothly from
    what is kept, and the shape of the removed area does not give the class away. ``noise`` is the standard deviation
    of the normal noise that is then added; noise that would leave the range 0 to 1 is added with the other sign, and
    the result is clipped. The seed fixes the noise, which is the same for all images of a size. An image of which
    nothing is kept becomes its own mean colour plus the noise.
    Source: noisy linear imputation of ROAD (Rong et al. 2022, arXiv 2202.00449).
    """

    noise: Annotated[float, Between(0, 0.1, help="Standard deviation of the added noise, in pixel units.")] = 0.01

    title: ClassVar[str] = "Noisy linear imputation (ROAD)"
    family: ClassVar[str] = "imputation"
    formula: ClassVar[str] = (
        "x_p = sum_q w_pq x_q / sum_q w_pq + e_p for every removed p, q its eight neighbours, w = 1/6 (direct) or "
        "1/12 (diagonal), e_p ~ N(0, noise^2)"
    )
    source: ClassVar[str] = "Rong, Leemann et al. 2022, ROAD, https://arxiv.org/abs/2202.00449"
    witness: ClassVar[str] = (
        "a literal sparse system solved by scipy, and pytorch-grad-cam's imputer: "
        "tests/test_fills.py::test_equals_a_literal_sparse_solve"
    )
    pitfalls: ClassVar[str] = (
        "Where little is removed the filled pixels are close to the original, so curves fall late; what is kept leaks "
        "into what is removed. The noise adds detail that smooth images do not have."
    )
    static: ClassVar[bool] = False
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The mean colour of each image plus the noise."""
        field = torch.randn(images.shape[1:], generator=generator("road", context.seed)) * self.noise
        return _add_noise(channel_mean(images).expand_as(images), field.to(images))

    def apply(self, images: torch.Tensor, changed: torch.Tensor, substrate: torch.Tensor) -> torch.Tensor:
        """See :meth:`Fill.apply`; the noise is read back from ``substrate``, where it stands around the mean colour.

        In an image whose mean colour is within reach of the noise from 0 or 1, signs turned there stay turned.
        """
        nothing_kept = changed.all(dim=2).all(dim=1)[:, None, None]
        imputed = impute(images, changed & ~nothing_kept)
        filled = _add_noise(imputed, substrate - channel_mean(images))
        filled = torch.where(nothing_kept[:, None], substrate, filled)
        return torch.where(changed[:, None], filled, images)


def _add_noise(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``values`` + ``noise``, or - ``noise`` where the sum would leave [0, 1]; clipped to [0, 1]."""
    total = values + noise
    return torch.where((total < 0) | (total > 1), values - noise, total).clamp_(0, 1)


def impute(images: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """Linear imputation without noise: float32 (n, c, h, w), the solved values where ``removed``, else the image.

    removed: bool (n, h, w), in no image everywhere True. In each image and channel the solved values are within about
    1e-7 of the exact ones.
    """
    at_once = max(1, VALUES_AT_ONCE.get(images.device.type, 2**24) // math.prod(images.shape[1:]))
    parts = zip(images.split(at_once), removed[:, None].split(at_once), strict=True)
    return torch.cat([_imputed(part, inside) for part, inside in parts])


def _imputed(images: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    known = torch.where(inside, 0.0, images.double())
    right_side = torch.where(inside, neighbour_sum(known), 0.0)
    solved = solve(inside, right_side, torch.where(inside, _known_mean(known, inside), 0.0))
    return torch.where(inside, solved.to(images.dtype), images)


def _known_mean(known: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean of the kept pixels per image and channel, (n, c, 1, 1); ``known`` is 0 where ``inside``."""
    count = ordered_sum((~inside).flatten(2).double())
    return (ordered_sum(known.flatten(2)) / count.clamp(min=1))[:, :, None, None]
