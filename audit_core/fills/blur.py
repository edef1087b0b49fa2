"""A fill that keeps the coarse layout of the image and removes its detail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from audit_core.fills.base import FILLS, Fill, FillContext
from audit_core.params import Between

TRUNCATE = 4.0  # the Gaussian is cut at this many sigma


@FILLS.register("blur")
@dataclass(frozen=True)
class Blur(Fill):
    """A removed pixel becomes its value in a blurred copy of the whole image.

    The blur is Gaussian with standard deviation ``sigma``, each channel by itself, cut at 4 sigma, with the image
    mirrored at its borders: the numbers of scipy.ndimage.gaussian_filter. Detail goes; coarse shape and brightness
    stay.
    Source: the blurred start image of the insertion metric (Petsiuk et al. 2018, RISE).
    """

    sigma: Annotated[float, Between(0.1, 50, "px", "Standard deviation of the Gaussian; larger removes more.")] = 3.0

    title: ClassVar[str] = "Gaussian blur"
    family: ClassVar[str] = "blur"
    formula: ClassVar[str] = "x_p = sum_q g(p - q) x_q / sum_q g(p - q), g(d) = exp(-|d|^2 / (2 sigma^2))"
    source: ClassVar[str] = (
        "Petsiuk et al. 2018 (start image of insertion), https://arxiv.org/abs/1806.07421; "
        "Fong and Vedaldi 2017, https://arxiv.org/abs/1704.03296"
    )
    witness: ClassVar[str] = "scipy.ndimage.gaussian_filter: tests/test_fills.py::test_equals_scipy"
    pitfalls: ClassVar[str] = (
        "What is wider than about sigma stays visible, so coarse evidence is never removed; on sparse images it also "
        "adds grey where there was nothing. Results depend on sigma: try several."
    )

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The blurred images."""
        rows = _smooth(images.double().transpose(2, 3), self.sigma).transpose(2, 3)
        return _smooth(rows, self.sigma).to(images.dtype).clamp_(0, 1)


def _smooth(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian average along the last axis, float64 -> float64 of the same shape, borders mirrored."""
    size, radius = values.shape[-1], int(TRUNCATE * sigma + 0.5)
    taps = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
    total = taps[0] + 2 * math.fsum(taps[1:])
    padded = values.index_select(-1, _mirrored(size, radius).to(values.device))
    result = padded[..., radius : radius + size] * (taps[0] / total)
    for distance in range(1, radius + 1):
        before = padded[..., radius - distance : radius - distance + size]
        after = padded[..., radius + distance : radius + distance + size]
        result += (before + after) * (taps[distance] / total)
    return result


def _mirrored(size: int, radius: int) -> torch.Tensor:
    """Which pixel stands at places -radius … size - 1 + radius when the line is mirrored again and again.

    The border pixel is repeated (c b a | a b c | c b a); int64 (size + 2 * radius,).
    """
    place = torch.arange(-radius, size + radius) % (2 * size)
    return torch.minimum(place, 2 * size - 1 - place)
