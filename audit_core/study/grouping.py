"""From single numbers to sums over groups of images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def add_up(
    rows: Mapping[str, np.ndarray],
    shape: tuple[int, int, int],
    contenders: np.ndarray,
    fills: np.ndarray,
    runs: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Total and count, float64 (C, F, R, G), and the groups that have a number at all, int64 (G,).

    rows: ``place``, flat index into ``shape`` (all contenders, all fills, all checkpoints); ``part``, the group; and
    ``value``, (n,) each. contenders (C,), fills (F,): which of all these are wanted; runs (C, checkpoints): the run
    that each checkpoint is.
    """
    wide = (len(contenders), len(fills), 1 + int(runs.max(initial=0)), 1 + int(rows["part"].max()))
    cells = np.zeros(shape, dtype=np.int64)
    of_contender, of_fill = np.arange(wide[0])[:, None, None], np.arange(wide[1])[None, :, None]
    cells[contenders[:, None, None], fills[None, :, None], np.arange(shape[2])] = (
        of_contender * wide[1] + of_fill
    ) * wide[2] + runs[:, None, :]
    key = cells.ravel()[rows["place"]] * wide[3] + rows["part"]
    size = int(np.prod(wide))
    total = np.bincount(key, rows["value"], size).reshape(wide)
    count = np.bincount(key, minlength=size).reshape(wide).astype(np.float64)
    groups = np.flatnonzero(count.any(axis=(0, 1, 2)))
    return (total, count, groups) if len(groups) == wide[3] else (total[..., groups], count[..., groups], groups)


def summed(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums over the units of each group, (..., U) to (..., G); group: int (U,), every number below G occurs."""
    order = np.argsort(group, kind="stable")
    found: np.ndarray = np.add.reduceat(
        values[..., order], np.searchsorted(group[order], np.arange(group.max() + 1)), axis=-1
    )
    return found
