"""Noisy linear imputation (ROAD): removed pixels are grown from the ones that stay.

Every removed pixel is to be the weighted mean of its neighbours, removed ones included: a sparse linear system,
symmetric and positive definite once each row is multiplied by its weight sum. It is solved for all images and
channels at once by conjugate gradients. The preconditioner is one multigrid V-cycle on the pixels that are removed
(Galerkin coarse grids, bilinear interpolation, damped Jacobi), which needs about a dozen steps at any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar

import torch
from torch.nn import functional

from audit_core.fills.base import FILLS, Fill, FillContext, channel_mean, generator, ordered_sum
from audit_core.params import Between

DIRECT, DIAGONAL = 1 / 6, 1 / 12
TOLERANCE = 1e-10  # largest residual, in pixel units
MAX_STEPS = 200
DAMPING = 0.85  # of the Jacobi smoother; high frequencies shrink to about a third per sweep

Levels = list["_Level"]
Weights = tuple[torch.Tensor, torch.Tensor]


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
    static: ClassVar[bool] = False
    seeded: ClassVar[bool] = True

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
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

    removed: bool (n, h, w), in no image everywhere True. Each image and channel stops by its own residual.
    ``RuntimeError`` when one has not converged after 200 steps.
    """
    inside = removed[:, None]
    stencil = _stencil(inside.double())
    known = torch.where(inside, 0.0, images.double())
    start = _known_mean(known, inside).expand_as(known)
    right_side = torch.where(inside, _weighted_sum(known), 0.0)
    solved = _conjugate_gradients(stencil, right_side, torch.where(inside, start, 0.0))
    return torch.where(inside, solved.to(images.dtype), images)


def _known_mean(known: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean of the kept pixels per image and channel, (n, c, 1, 1); ``known`` is 0 where ``inside``."""
    count = ordered_sum((~inside).flatten(2).double())
    return (ordered_sum(known.flatten(2)) / count.clamp(min=1))[:, :, None, None]


def _neighbours(values: torch.Tensor) -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
    """Each of the eight neighbours of every pixel with its index (row offset + 1, column offset + 1); 0 outside."""
    height, width = values.shape[-2:]
    padded = functional.pad(values, (1, 1, 1, 1))
    for row, column in product(range(3), repeat=2):
        if (row, column) != (1, 1):
            yield (row, column), padded[..., row : row + height, column : column + width]


def _weight(at: tuple[int, int]) -> float:
    return DIRECT if 1 in at else DIAGONAL


def _stencil(inside: torch.Tensor) -> torch.Tensor:
    """The matrix as nine coefficients per pixel: float64 (3, 3, n, 1, h, w), indexed by row and column offset + 1.

    inside: 1.0 where a pixel is unknown, else 0.0. Rows and columns of known pixels are 0.
    """
    stencil = inside.new_zeros(3, 3, *inside.shape)
    for at, neighbour in _neighbours(inside):
        stencil[at] = neighbour * inside * -_weight(at)
    stencil[1, 1] = _weighted_sum(torch.ones_like(inside)) * inside
    return stencil


def _weighted_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum of the eight neighbours times their weights; neighbours beyond the border count as 0."""
    total = torch.zeros_like(values)
    for at, neighbour in _neighbours(values):
        total += neighbour * _weight(at)
    return total


def _times(stencil: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Matrix times vector for every image and channel."""
    total = stencil[1, 1] * values
    term = torch.empty_like(total)  # reused: fresh memory for every term would cost as much as the arithmetic
    for at, neighbour in _neighbours(values):
        total += torch.mul(stencil[at], neighbour, out=term)
    return total


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product over pixels: (n, c, h, w) twice -> (n, c, 1, 1)."""
    return ordered_sum((a * b).flatten(2))[:, :, None, None]


def _conjugate_gradients(stencil: torch.Tensor, right_side: torch.Tensor, solution: torch.Tensor) -> torch.Tensor:
    """Solve from the start ``solution``; a finished image and channel no longer moves while others go on."""
    levels = _levels(stencil.float())
    residual = right_side - _times(stencil, solution)
    direction = step = _precondition(levels, residual)
    energy = _dot(residual, step)
    for _ in range(MAX_STEPS):
        running = residual.abs().amax(dim=(2, 3), keepdim=True) > TOLERANCE
        if not running.any():
            return solution
        image = _times(stencil, direction)
        length = torch.where(running, energy / _dot(direction, image), 0.0)
        solution, residual = solution + direction * length, residual - image * length
        step = _precondition(levels, residual)
        previous, energy = energy, _dot(residual, step)
        direction = step + direction * torch.where(running, energy / previous, 0.0)
    raise RuntimeError(f"linear imputation has not converged after {MAX_STEPS} steps; {residual.abs().max()=}")


@dataclass(frozen=True)
class _Level:
    """One grid: its matrix (3, 3, n, 1, h, w), the damped inverse of its diagonal (n, 1, h, w), and how its rows and
    columns are interpolated from the next coarser grid."""

    stencil: torch.Tensor
    inverse: torch.Tensor
    rows: Weights
    columns: Weights


def _levels(stencil: torch.Tensor) -> Levels:
    """All grids from the finest down to a single pixel, each about half as wide and high as the one before."""
    levels = []
    while True:
        diagonal, (height, width) = stencil[1, 1], stencil.shape[-2:]
        damping = DAMPING if height * width > 1 else 1.0
        inverse = torch.where(diagonal > 0, damping / diagonal, 0.0)
        levels.append(_Level(stencil, inverse, _interpolation(height, stencil), _interpolation(width, stencil)))
        if height * width == 1:
            return levels
        stencil = _halved(stencil, levels[-1].columns).transpose(0, 1).transpose(-1, -2)
        stencil = _halved(stencil, levels[-1].rows).transpose(0, 1).transpose(-1, -2).contiguous()


def _precondition(levels: Levels, residual: torch.Tensor) -> torch.Tensor:
    """An approximate solution for ``residual`` by one V-cycle, in float32 inside."""
    step = _v_cycle(levels, residual.float()).to(residual.dtype)
    return torch.where(levels[0].inverse > 0, step, 0.0)


def _v_cycle(levels: Levels, residual: torch.Tensor) -> torch.Tensor:
    level, coarser = levels[0], levels[1:]
    step = level.inverse * residual
    if not coarser:
        return step
    rest = residual - _times(level.stencil, step)
    coarse = _restricted(_restricted(rest, level.columns).transpose(-1, -2), level.rows).transpose(-1, -2)
    correction = _v_cycle(coarser, coarse.contiguous())
    height, width = residual.shape[-2:]
    tall = _prolonged(correction.transpose(-1, -2), level.rows, height).transpose(-1, -2)
    step += _prolonged(tall, level.columns, width)
    return step + level.inverse * (residual - _times(level.stencil, step))


def _interpolation(size: int, like: torch.Tensor) -> Weights:
    """Weights by which odd places of a line take from the even place before and after; coarse places are the even ones.

    Both are half, but a last odd place has no even one after it and takes all from before. float (ceil(size / 2),).
    """
    before = torch.full(((size + 1) // 2,), 0.5, dtype=like.dtype)
    after = before.clone()
    before[-1], after[-1] = (0.0, 0.0) if size % 2 else (1.0, 0.0)
    return before.to(like.device), after.to(like.device)


def _even_odd(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second entry of the last axis from 0 and from 1 on; the odd ones get a 0 at the end if one is missing."""
    even, odd = values[..., 0::2], values[..., 1::2]
    return even, functional.pad(odd, (0, even.shape[-1] - odd.shape[-1]))


def _later(values: torch.Tensor) -> torch.Tensor:
    """Entries moved one place up the last axis, 0 at the start."""
    return functional.pad(values, (1, 0))[..., :-1]


def _restricted(values: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The transpose of :func:`_prolonged`: (…, size) -> (…, ceil(size / 2))."""
    before, after = weights
    even, odd = _even_odd(values)
    return even + before * odd + _later(after * odd)


def _prolonged(values: torch.Tensor, weights: Weights, size: int) -> torch.Tensor:
    """Linear interpolation along the last axis: (…, ceil(size / 2)) -> (…, size)."""
    before, after = weights
    result = values.new_empty(*values.shape[:-1], size)
    result[..., 0::2] = values
    odd = before * values + after * functional.pad(values, (0, 1))[..., 1:]
    result[..., 1::2] = odd[..., : size // 2]
    return result


def _halved(stencil: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The matrix on every second column: R A P with P = :func:`_prolonged`, R its transpose; axis 1 is the offset."""
    before, after = weights
    (left_even, left_odd), (centre_even, centre_odd), (right_even, right_odd) = map(_even_odd, stencil.unbind(1))
    left = left_even * _later(before) + _later(after * (before * centre_odd + left_odd))
    right = right_even * after + before * (after * centre_odd + right_odd)
    centre = centre_even + before * (right_even + left_odd + before * centre_odd)
    centre = centre + left_even * _later(after) + _later(after * (right_odd + after * centre_odd))
    return torch.stack([left, centre, right], dim=1)
