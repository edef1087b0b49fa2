"""Do two fills, or a summary and a fill, rank the contenders alike? Kendall's tau-b with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics.estimates import Better, Estimate, direction, from_resamples, percentile_bounds
from audit_core.statistics.ranks import PERCENTILE, check

_BATCH = 4_000_000  # signs held at once


@dataclass(frozen=True)
class TauTable:
    """Kendall's tau-b of every pair of fills, float64 (F, F) each in [-1, 1]; 1 = the same order, -1 = reversed.

    low, high: 95 % percentile interval. n: int64 (F, F), contenders that have a number under both fills. NaN where
    fewer than two contenders are shared or one fill ties them all.
    """

    tau: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def fill_agreement(point: np.ndarray, resampled: np.ndarray) -> TauTable:
    """Kendall's tau-b (1938, ties: 1945) between the orders of contenders under every two fills.

    point: float (C, F) means; resampled: float (B, C, F) means of joint resamples; NaN = no number. Which way is
    better does not matter, as all fills share it.
    """
    check(point, resampled)
    held = (~np.isnan(point)).astype(np.int64)
    tau, drawn = tau_b(point[None])[0], tau_b(resampled)
    low, high = percentile_bounds(drawn)
    undefined = np.isnan(tau)
    low[undefined], high[undefined] = np.nan, np.nan
    return TauTable(tau, low, high, held.T @ held)


def agreement_of(
    reference: np.ndarray,
    point: np.ndarray,
    resampled: np.ndarray,
    *,
    better: Better,
    reference_better: Better,
    resampled_reference: np.ndarray | None = None,
) -> list[Estimate]:
    """Kendall's tau-b of a summary's order of contenders with the order under each fill, in [-1, 1]; one per fill.

    reference: float (C,), for example mean SRG; point: float (C, F); resampled: float (B, C, F); the two directions
    say which values win, so +1 means that the summary picks the same winners. resampled_reference: float (B, C) from
    the same resamples; without it the summary is held fixed. ``n`` = contenders with both numbers.
    """
    check(point, resampled)
    if np.shape(reference) != (len(point),):
        raise InvalidParameter(f"reference must have one value per contender ({len(point)}), got {np.shape(reference)}")
    fixed = np.broadcast_to(reference, (len(resampled), len(point)))
    drawn_reference = fixed if resampled_reference is None else resampled_reference
    turn = direction(better) * direction(reference_better)
    tau = tau_b(_beside(turn * np.asarray(reference)[None], point[None]))[0, 0, 1:]
    drawn = tau_b(_beside(turn * drawn_reference, resampled))[:, 0, 1:]
    shared = (~np.isnan(point) & ~np.isnan(reference)[:, None]).sum(axis=0)
    note = "fewer than two contenders are shared, or one order ties them all"
    return [
        from_resamples(value, column, int(n), PERCENTILE, note if np.isnan(value) else "")
        for value, column, n in zip(tau, drawn.T, shared, strict=True)
    ]


def tau_b(values: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between all columns of each table, float (B, C, F) to float64 (B, F, F).

    tau_b = (concordant - discordant) / sqrt(pairs untied in one * pairs untied in the other), over the contenders
    present in both columns; NaN where a factor is 0 (Kendall 1945).
    """
    first, second = np.triu_indices(values.shape[1], 1)
    step = max(1, _BATCH // max(1, len(first) * values.shape[2]))
    parts = [_tau_b(values[start : start + step], first, second) for start in range(0, len(values), step)]
    return np.concatenate(parts)


def _tau_b(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    difference = values[:, first] - values[:, second]  # (b, pairs, F)
    held = (~np.isnan(difference)).astype(np.float32)
    signs = np.sign(np.nan_to_num(difference)).astype(np.float32)
    across = signs.transpose(0, 2, 1)
    agree = (across @ signs).astype(np.float64)
    untied = (np.abs(across) @ held).astype(np.float64)  # untied in the row's column, present in both
    product = untied * untied.transpose(0, 2, 1)
    return np.divide(agree, np.sqrt(product), out=np.full(agree.shape, np.nan), where=product > 0)


def _beside(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(B, C) and (B, C, F) to (B, C, 1 + F)."""
    return np.concatenate([reference[:, :, None], values], axis=2)
