"""The linear system of noisy linear imputation, solved for many images and channels at once.

Every unknown pixel is to be the weighted mean of its eight neighbours, unknown ones included. Multiplied by its weight
sum, the system is symmetric and positive definite; multiplied by 12, its numbers are small integers, exact in any
precision. Conjugate gradients in float32 solve for a correction, what is left is measured in float64, and so on until
the error of every pixel is below the tolerance. The preconditioner is one multigrid V-cycle on the unknown pixels
(Galerkin coarse grids, bilinear interpolation, damped Jacobi): about a dozen steps at any size. Sums over pixels are
element-wise additions in a fixed order, so that an image's result depends neither on its batch nor on threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from audit_core.fills.base import ordered_sum

TOLERANCE = 1e-7  # largest error left in a pixel, as a V-cycle estimates it; float32 resolves 6e-8 near 1
MAX_ROUNDS, MAX_STEPS = 20, 50
GAIN = 1e-4  # by which one round shrinks the error; much more is beyond float32
DAMPING = 0.85  # of the Jacobi smoother; high frequencies shrink to about a third per sweep
DIRECT = 8  # a grid of at most so many rows and columns is solved by its inverse
RIDGE = 1e-4  # share of the diagonal added there: places that move the same unknown pixel make the matrix singular


def solve(inside: torch.Tensor, right_side: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The unknown pixels of the system, float64 (n, c, h, w); 0 elsewhere.

    inside: bool (n, 1, h, w), True where unknown, in no image everywhere; right_side: 12 times the weighted sum of
    known neighbours; start: a first guess; both float64 (n, c, h, w), 0 where known. Each image and channel stops by
    its own error. ``RuntimeError`` when one has not converged after 20 rounds.
    """
    exact, levels, solution = _Pixels.of(inside, torch.float64), _levels(inside), start
    for _ in range(MAX_ROUNDS):
        residual = (right_side - exact.times(solution)).float()
        error = _v_cycle(levels, residual)
        running = _largest(error) > TOLERANCE
        if not running.any():
            return solution
        solution = solution + torch.where(running, _conjugate_gradients(levels, residual, error), 0.0)
    raise RuntimeError(f"linear imputation has not converged after {MAX_ROUNDS} rounds; {error.abs().max()=}")


def neighbour_sum(values: torch.Tensor) -> torch.Tensor:
    """12 times the weighted sum of the eight neighbours: direct ones count twice; 0 beyond the border."""
    return _box(values).sub_(values, alpha=4)


def _box(values: torch.Tensor) -> torch.Tensor:
    """Sum over 3 x 3 pixels with the weights 1 2 1 down times 1 2 1 across; 0 beyond the border."""
    across = values * 2
    across[..., 1:] += values[..., :-1]
    across[..., :-1] += values[..., 1:]
    total = across * 2
    total[..., 1:, :] += across[..., :-1, :]
    total[..., :-1, :] += across[..., 1:, :]
    return total


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product over pixels: (n, c, h, w) twice -> (n, c, 1, 1)."""
    return ordered_sum((a * b).flatten(2))[:, :, None, None]


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude per image and channel: (n, c, h, w) -> (n, c, 1, 1)."""
    return values.abs().amax(dim=(2, 3), keepdim=True)


def _conjugate_gradients(levels: Levels, residual: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """A correction for ``residual`` that leaves about ``GAIN`` of the error; ``step`` is the residual's V-cycle."""
    correction, direction, energy = torch.zeros_like(step), step, _dot(residual, step)
    goal = (_largest(step) * GAIN).clamp(min=TOLERANCE / 2)
    for _ in range(MAX_STEPS):
        running = _largest(step) > goal  # a finished image and channel no longer moves while others go on
        if not running.any():
            break
        image = levels[0].matrix.times(direction)
        length = torch.where(running, energy / _dot(direction, image), 0.0)
        correction += direction * length
        residual = residual - image * length
        step = _v_cycle(levels, residual)
        previous, energy = energy, _dot(residual, step)
        direction = step + direction * torch.where(running, energy / previous, 0.0)
    return correction


@dataclass(frozen=True)
class _Pixels:
    """The matrix on the pixels. The unknown ones are 1 in ``inside`` (n, 1, h, w); ``weights`` (h, w) is the sum of
    those weights of :func:`_box` that lie in the image."""

    inside: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, inside: torch.Tensor, dtype: torch.dtype) -> _Pixels:
        return cls(inside.to(dtype), _box(torch.ones(inside.shape[-2:], dtype=dtype, device=inside.device)))

    def times(self, values: torch.Tensor) -> torch.Tensor:
        """Matrix times vector for every image and channel; what stands in known pixels counts as 0."""
        values = values * self.inside
        return (self.weights * values).sub_(_box(values)).mul_(self.inside)

    def stencil(self) -> torch.Tensor:
        """The matrix as nine coefficients per pixel: (3, 3, n, 1, h, w), indexed by row and column offset + 1."""
        weights = self.inside.new_tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]])[:, :, None, None, None, None]
        stencil = _windows(self.inside) * self.inside * -weights
        stencil[1, 1] = (self.weights - 4) * self.inside
        return stencil


@dataclass(frozen=True)
class _Places:
    """The matrix on a coarser grid: nine coefficients per place, (3, 3, n, 1, h, w)."""

    coefficients: torch.Tensor

    def times(self, values: torch.Tensor) -> torch.Tensor:
        """Matrix times vector for every image and channel."""
        windows = _windows(values)
        lines = self.coefficients[0] * windows[0]
        lines += self.coefficients[1] * windows[1]
        lines += self.coefficients[2] * windows[2]
        return (lines[0] + lines[1]).add_(lines[2])

    def stencil(self) -> torch.Tensor:
        return self.coefficients


@dataclass(frozen=True)
class _Level:
    """One grid: its matrix, and the damped inverse of its diagonal (n, 1, h, w), 0 where nothing is unknown; on the
    coarsest grid the inverse of the whole matrix (n, 1, h * w, h * w)."""

    matrix: _Pixels | _Places
    inverse: torch.Tensor


Levels = list[_Level]


def _levels(inside: torch.Tensor) -> Levels:
    """All grids in float32, each about half as wide and high as the one before."""
    matrix: _Pixels | _Places = _Pixels.of(inside, torch.float32)
    levels = []
    while max((stencil := matrix.stencil()).shape[-2:]) > DIRECT:
        diagonal = stencil[1, 1]
        levels.append(_Level(matrix, torch.where(diagonal > 0, DAMPING / diagonal, 0.0)))
        narrow = _halved(stencil).transpose(0, 1).transpose(-1, -2)
        matrix = _Places(_halved(narrow).transpose(0, 1).transpose(-1, -2).contiguous())
    return [*levels, _Level(matrix, _inverse(matrix))]


def _inverse(matrix: _Pixels | _Places) -> torch.Tensor:
    """The whole inverse: (n, 1, places, places), symmetric; places without unknown pixels get 1 on the diagonal."""
    height, width = matrix.stencil().shape[-2:]
    unit = torch.eye(height * width).to(matrix.stencil())
    rows = matrix.times(unit.reshape(1, -1, height, width)).flatten(2).double()
    diagonal = rows.diagonal(dim1=1, dim2=2)
    ridge = torch.where(diagonal > 0, RIDGE * diagonal, 1.0)
    return torch.linalg.inv(rows + torch.diag_embed(ridge)).float()[:, None]


def _v_cycle(levels: Levels, residual: torch.Tensor) -> torch.Tensor:
    """An approximate solution for ``residual``, float32 (n, c, h, w)."""
    level, coarser = levels[0], levels[1:]
    if not coarser:
        return ordered_sum(level.inverse * residual.flatten(2)[:, :, None]).reshape(residual.shape)
    step = level.inverse * residual
    coarse = _v_cycle(coarser, _restricted(residual - level.matrix.times(step)))
    step += _prolonged(coarse)[..., : residual.shape[-2], : residual.shape[-1]]
    step += level.inverse * (residual - level.matrix.times(step))
    return step * (level.inverse > 0)


def _restricted(values: torch.Tensor) -> torch.Tensor:
    """The transpose of :func:`_prolonged`, after a last row or column of 0 where their number is even."""
    height, width = values.shape[-2:]
    values = functional.pad(values, (0, 1 - width % 2, 0, 1 - height % 2))
    low = values[..., 0::2, :].clone()
    low[..., :-1, :].add_(values[..., 1::2, :], alpha=0.5)
    low[..., 1:, :].add_(values[..., 1::2, :], alpha=0.5)
    total = low[..., 0::2].clone()
    total[..., :-1].add_(low[..., 1::2], alpha=0.5)
    total[..., 1:].add_(low[..., 1::2], alpha=0.5)
    return total


def _prolonged(values: torch.Tensor) -> torch.Tensor:
    """Bilinear interpolation: (…, h, w) -> (…, 2 h - 1, 2 w - 1), every second row and column as given."""
    *rest, height, width = values.shape
    wide = values.new_empty(*rest, height, 2 * width - 1)
    wide[..., 0::2] = values
    torch.add(values[..., :-1], values[..., 1:], out=wide[..., 1::2]).mul_(0.5)
    result = values.new_empty(*rest, 2 * height - 1, 2 * width - 1)
    result[..., 0::2, :] = wide
    torch.add(wide[..., :-1, :], wide[..., 1:, :], out=result[..., 1::2, :]).mul_(0.5)
    return result


def _halved(stencil: torch.Tensor) -> torch.Tensor:
    """The matrix on every second column, R A P with P = :func:`_prolonged` across and R its transpose; axis 1 is the
    offset."""
    stencil = functional.pad(stencil, (0, 1 - stencil.shape[-1] % 2))
    left, centre, right = stencil[..., 0::2].unbind(1)
    odd_left, odd_centre, odd_right = stencil[..., 1::2].unbind(1)
    # A place between two coarse ones is half of each: what its row says goes half to the row before, half to the next.
    to_before, to_after = odd_left + odd_centre / 2, odd_centre / 2 + odd_right
    from_next = lambda values: functional.pad(values, (0, 1))
    from_last = lambda values: functional.pad(values, (1, 0))
    sides = (left + right + from_next(to_before) + from_last(to_after)) / 2
    return torch.stack([(left + from_last(to_before)) / 2, centre + sides, (right + from_next(to_after)) / 2], dim=1)


def _windows(values: torch.Tensor) -> torch.Tensor:
    """Every place's 3 x 3 surroundings: (n, c, h, w) -> (3, 3, n, c, h, w) by row and column offset + 1, 0 outside; a
    view."""
    wide = functional.pad(values, (1, 1, 1, 1))
    return wide.unfold(-2, 3, 1).unfold(-2, 3, 1).permute(4, 5, 0, 1, 2, 3)
