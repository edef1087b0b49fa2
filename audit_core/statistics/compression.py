"""Does a model-agnostic explainer bring the families closer together?"""

from __future__ import annotations

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics.estimates import Estimate, from_resamples
from audit_core.statistics.ranks import PERCENTILE, check


def spread_compression(
    means: np.ndarray, resampled: np.ndarray, native: np.ndarray, agnostic: np.ndarray
) -> list[Estimate]:
    """Spread (largest minus smallest mean over the families) of the agnostic contenders over that of the native ones.

    means: float (C, F); resampled: float (B, C, F) of joint resamples; native, agnostic: int (K,) indices of
    contenders, of the same family at each place. One estimate per fill: below 1 = compressed, as the audited paper
    predicts for RISE; 1 = unchanged. ``n`` = families with both numbers, the others are left out; NaN with a note for
    fewer than two, or where the native means are all equal. Noise widens a spread, so both are biased upwards.
    """
    check(means, resampled)
    native, agnostic = np.asarray(native, dtype=int), np.asarray(agnostic, dtype=int)
    if native.ndim != 1 or native.shape != agnostic.shape:
        raise InvalidParameter(
            "native and agnostic must name one contender each of the same families, "
            f"got shapes {native.shape} and {agnostic.shape}"
        )
    return [_ratio(means[:, f], resampled[:, :, f], native, agnostic) for f in range(means.shape[1])]


def _ratio(means: np.ndarray, resampled: np.ndarray, native: np.ndarray, agnostic: np.ndarray) -> Estimate:
    both = ~np.isnan(means[native] + means[agnostic])
    native, agnostic, n = native[both], agnostic[both], int(both.sum())
    if n < 2:
        return Estimate(float("nan"), None, None, n, PERCENTILE, f"a spread needs two families, found {n}")
    wide, narrow = np.ptp(means[native]), np.ptp(means[agnostic])
    if wide == 0:
        return Estimate(float("nan"), None, None, n, PERCENTILE, "the native means are all equal: nothing to compress")
    wides, narrows = np.ptp(resampled[:, native], axis=1), np.ptp(resampled[:, agnostic], axis=1)
    drawn = np.divide(narrows, wides, out=np.full(len(wides), np.nan), where=wides > 0)
    return from_resamples(float(narrow / wide), drawn, n, PERCENTILE)
