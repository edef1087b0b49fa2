"""How far several maps of one image agree: rank correlation, shared top pixels, and the ranks themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy import stats

from audit_core.curves import rank_pixels
from audit_core.errors import InvalidParameter


def spearman(maps: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of every pair of maps over all pixels, float64 (n, n) in [-1, 1].

    maps: float (n, rows, columns); 1 = the same order of pixels, 0 = unrelated, -1 = reversed; higher is more
    agreement. Ties share their mean rank (Spearman 1904). A constant map has no order: its row and column are NaN,
    the diagonal too. ``InvalidParameter`` for another number of axes or values that are not finite.
    """
    flat = _checked(maps).reshape(len(maps), -1)
    ranks = np.stack([stats.rankdata(row) for row in flat])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (centred @ centred.T) / np.outer(length, length)
    return _unordered_as_nan(np.clip(found, -1.0, 1.0), flat)


def top_overlap(maps: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Share of the k most important pixels that every pair of maps has in common, float64 (n, n) in [0, 1].

    maps: float (n, rows, columns); k: ``share`` of the pixels, rounded, at least 1; higher is more agreement, and
    two unrelated orders share about ``share``. Ties are ordered by the rule of :func:`~audit_core.curves.rank_pixels`
    with seed 0, the same for every map: two maps with fewer than k values above a common floor agree more than
    their values say. A constant map has no top: its row and column are NaN. ``InvalidParameter`` for a share
    outside (0, 1], another number of axes or values that are not finite.
    """
    if not 0 < share <= 1:
        raise InvalidParameter(f"share must be in (0, 1], got {share!r}; use 0.1 for the top tenth of the pixels")
    flat = _checked(maps).reshape(len(maps), -1)
    k = top_size(flat.shape[1], share)
    chosen = np.stack([rank_pixels(one).ravel() < k for one in maps]).astype(np.float64)
    return _unordered_as_nan(chosen @ chosen.T / k, flat)


def top_size(pixels: int, share: float) -> int:
    """How many of ``pixels`` pixels are the top ``share``: rounded, at least 1."""
    return max(1, round(share * pixels))


def rank_share(values: np.ndarray) -> np.ndarray:
    """Share of the other pixels that each pixel outranks, ties counted half, float64 (rows, columns) in [0, 1].

    The one scale on which maps in different units can stand side by side: 1 = the most important pixel,
    0 = the least, 0.5 everywhere for a constant map. It forgets how far apart values are.
    """
    ranks = stats.rankdata(_checked(values[None])[0])
    return (ranks.reshape(values.shape) - 1) / max(1, values.size - 1)


def common_grid(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Maps of one image at different resolutions on the smallest of their grids, float64 (n, rows, columns).

    Each cell is the mean of the finer map over the cell's area, so a whole multiple becomes a block mean and equal
    sizes stay bit for bit. ``InvalidParameter`` for no map or for grids of different aspect ratio, which do not show
    the same frame.
    """
    shapes = {one.shape for one in maps}
    if len({Fraction(rows, columns) for rows, columns in shapes}) != 1:
        shown = ", ".join(f"{rows}x{columns}" for rows, columns in sorted(shapes)) or "no maps"
        raise InvalidParameter(f"maps must have one aspect ratio to be compared, found {shown}; choose other models")
    rows, columns = min(shapes)
    return np.stack(
        [
            _area_weights(one.shape[0], rows) @ one @ _area_weights(one.shape[1], columns).T
            if one.shape != (rows, columns)
            else one.astype(np.float64)
            for one in maps
        ]
    )


def _area_weights(fine: int, coarse: int) -> np.ndarray:
    """Share of each fine cell in each coarse cell of the same length, float64 (coarse, fine); rows sum to 1."""
    low, high = (np.arange(coarse)[:, None] + offset for offset in (0, 1))
    left, right = (np.arange(fine)[None] + offset for offset in (0, 1))
    overlap = np.minimum(high * fine, right * coarse) - np.maximum(low * fine, left * coarse)
    return np.clip(overlap, 0, None) / fine


def _checked(maps: np.ndarray) -> np.ndarray:
    if maps.ndim != 3 or not maps.size:
        raise InvalidParameter(f"maps must be (n, rows, columns) and not empty, got shape {maps.shape}")
    if bad := int((~np.isfinite(maps)).sum()):
        raise InvalidParameter(f"{bad} of {maps.size} map values are not finite; such a map has no order to compare")
    return np.asarray(maps, dtype=np.float64)


def _unordered_as_nan(found: np.ndarray, flat: np.ndarray) -> np.ndarray:
    constant = np.ptp(flat, axis=1) == 0
    found[constant] = np.nan
    found[:, constant] = np.nan
    return found
