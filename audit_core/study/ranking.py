"""Does the fill decide who wins? Ranks of contenders under every fill, how sure they are, and who changes places."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics import (
    Better,
    Observations,
    Scheme,
    agreement_of,
    fill_agreement,
    mean_ranks,
    rank_intervals,
    resample,
    reversals,
)
from audit_core.statistics.estimates import percentile_bounds
from audit_core.study.compression import CompressionView, compression
from audit_core.study.direction import better_of
from audit_core.study.filters import Filters
from audit_core.study.nouns import Grouped
from audit_core.study.ranking_views import PairReversal, ReversalView, SchemeView
from audit_core.study.results import EVERYTHING, Results
from audit_core.study.scope import SCOPE, by_scope

__all__ = [
    "RANKED",
    "SCOPE",
    "SUMMARY",
    "CompressionView",
    "PairReversal",
    "ReversalView",
    "SchemeView",
    "better_of",
    "by_scope",
    "compression",
    "headline",
    "reversal",
    "schemes_of",
]

SUMMARY = "srg"
RANKED = ("own", "agnostic")


def reversal(
    results: Results,
    metric: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    contenders: Collection[str] = (),
    roles: Collection[str] = RANKED,
    fills: Collection[str] = (),
) -> ReversalView:
    """Ranks under every fill and every pair that changes places; contenders: names, else all of these roles.

    rng: default a generator with seed 0. ``InvalidParameter`` for fewer than two contenders, or a metric of which
    neither way is better.
    """
    rng = rng or np.random.default_rng(0)
    way = better_of(metric)
    names = _two(results, contenders, roles)
    ordered, scope, note = by_scope(results, filters, [f for f in results.fills_of(metric) if not fills or f in fills])
    with ThreadPoolExecutor(1) as beside:  # the database needs no Python while it reads
        asked = beside.submit(_summary, results, filters, names)
        grouped = results.observations(metric, filters, names, ordered)
    summary = asked.result()
    means = grouped.observations(way).means()
    reference = _mean_over_fills(summary.observations("higher").means()) if summary else np.full(len(names), np.nan)
    schemes = tuple(_scheme(scheme, grouped, summary, reference, way, rng, resamples) for scheme in schemes_of(grouped))
    count = grouped.count.sum(axis=(2, 3)).astype(np.int64)
    head = schemes[-1].headline
    return ReversalView(
        metric, way, filters, tuple(names), tuple(ordered), scope, note, means, count, reference, schemes, head
    )


def schemes_of(grouped: Grouped) -> tuple[Scheme, ...]:
    """ "images", and "runs+images" where some contender has two training runs."""
    repeated = ((grouped.count.sum(axis=(1, 3)) > 0).sum(axis=1) > 1).any()
    return ("images", "runs+images") if repeated else ("images",)


def _two(results: Results, contenders: Collection[str], roles: Collection[str]) -> list[str]:
    names = [c.name for c in results.named(contenders, roles)]
    if len(names) < 2:
        raise InvalidParameter(f"a ranking needs two contenders, got {', '.join(names) or 'none'}; choose more")
    return names


def _summary(results: Results, filters: Filters, names: list[str]) -> Grouped | None:
    """SRG of the same contenders under all its fills, None where they have none."""
    if SUMMARY not in results.metrics:
        return None
    try:
        return results.observations(SUMMARY, filters, names, results.fills_of(SUMMARY))
    except InvalidParameter:
        return None


def _scheme(
    scheme: Scheme,
    grouped: Grouped,
    summary: Grouped | None,
    reference: np.ndarray,
    way: Better,
    rng: np.random.Generator,
    resamples: int,
) -> SchemeView:
    drawn, drawn_reference = _together(scheme, grouped, summary, way, rng, resamples)
    point = grouped.observations(way).means()
    low, high = percentile_bounds(drawn)
    pairs = _pairs(grouped, point, drawn, way)
    agreement = (
        agreement_of(
            reference, point, drawn, better=way, reference_better="higher", resampled_reference=drawn_reference
        )
        if drawn_reference is not None
        else []
    )
    return SchemeView(
        scheme,
        low,
        high,
        rank_intervals(point, drawn, way),
        tuple(mean_ranks(point, drawn, way)),
        fill_agreement(point, drawn),
        pairs,
        tuple(agreement),
        headline(pairs, len(grouped.fills), scheme),
    )


def _together(
    scheme: Scheme, grouped: Grouped, summary: Grouped | None, way: Better, rng: np.random.Generator, resamples: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resampled means (B, C, F) and mean SRG over fills (B, C) from the same draws of images and runs."""
    if summary is None:
        return resample(grouped.observations(way), rng, resamples, scheme), None
    groups = np.union1d(grouped.groups, summary.groups)
    total, count = (
        np.concatenate([_spread(getattr(part, name), part.groups, groups) for part in (grouped, summary)], axis=1)
        for name in ("total", "count")
    )
    drawn = resample(Observations(total, count, way, grouped.family), rng, resamples, scheme)
    fills = len(grouped.fills)
    return drawn[:, :, :fills], _mean_over_fills(drawn[:, :, fills:])


def _spread(values: np.ndarray, own: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(…, G) over ``own`` groups to all ``groups``, 0 where there is nothing."""
    if len(own) == len(groups):
        return values
    wide = np.zeros((*values.shape[:-1], len(groups)))
    wide[..., np.searchsorted(groups, own)] = values
    return wide


def _mean_over_fills(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the numbers that are there, NaN without any."""
    held = ~np.isnan(values)
    n = held.sum(axis=-1)
    return np.divide(np.where(held, values, 0.0).sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0)


def _pairs(grouped: Grouped, point: np.ndarray, drawn: np.ndarray, way: Better) -> tuple[PairReversal, ...]:
    turn = 1.0 if way == "higher" else -1.0
    found = []
    for one in reversals(point, drawn, way):
        lead = turn * (point[one.first] - point[one.second])
        leads = turn * (drawn[:, one.first] - drawn[:, one.second])
        wins, loses, directed = _surest(one.between, lead, leads)
        found.append(
            PairReversal(
                grouped.contenders[one.first],
                grouped.contenders[one.second],
                one.reverses,
                one.certain,
                grouped.fills[wins] if one.reverses else "",
                grouped.fills[loses] if one.reverses else "",
                directed,
                float(min(lead[wins], -lead[loses])) if one.reverses else 0.0,
                one.probability,
                one.share_of_fills,
            )
        )
    return tuple(sorted(found, key=lambda p: (-p.reverses, -p.certain, -p.directed, -p.gap, -p.probability)))


def _surest(between: Sequence[tuple[int, int]], lead: np.ndarray, leads: np.ndarray) -> tuple[int, int, float]:
    """Of the two fills that disagree: where the first wins, where it loses, in which share of the resamples."""
    best = (0, 0, 0.0, 0.0)
    for i, k in between:
        wins, loses = (i, k) if lead[i] > 0 else (k, i)
        share = float(((leads[:, wins] > 0) & (leads[:, loses] < 0)).mean())
        best = max(best, (wins, loses, share, float(min(lead[wins], -lead[loses]))), key=lambda found: found[2:])
    return best[:3]


def headline(pairs: Sequence[PairReversal], fills: int, scheme: Scheme) -> str:
    """One sentence: the surest reversal and how sure it is, or that there is none."""
    if fills < 2:
        return "One fill: a reversal needs two."
    if not pairs or not pairs[0].reverses:
        return "No two contenders change places between the fills."
    one = pairs[0]
    drawn = "images" if scheme == "images" else "training runs and images"
    often = f"{_percent(one.directed)} of the resamples of {drawn}"
    what = f"{one.first} beats {one.second} under {one.wins_under} and loses to it under {one.loses_under}"
    if one.certain:
        return f"{what}, in {often}."
    return f"No reversal is certain; the likeliest: {what}, in {often}."


def _percent(share: float) -> str:
    """Whole per cent; 100 only where every resample agrees."""
    if 0.995 <= share < 1:
        return "more than 99 %"
    return f"{share:.0%}".replace("%", " %")
