"""Bootstrap intervals over units that come in clusters, for example images within training runs."""

from __future__ import annotations

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics.bootstrap import BATCH, GROUPS, grouped, random_groups, without_spread
from audit_core.statistics.estimates import Estimate, from_resamples, present

#: Fewer clusters than this carry a caution beside their interval.
FEW = 10


def clustered_bootstrap(
    values: np.ndarray, cluster: np.ndarray, rng: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """Mean of all values with a two-stage 95 % percentile interval: clusters are drawn, then units within each.

    values: float (n,), NaN = missing and left out; cluster: any labels (n,), for example the training run of each
    value. Every resample draws as many clusters as there are, with replacement, and from each drawn cluster as many
    units as it has (Davison & Hinkley 1997, section 3.8); its value is the mean of all drawn units. Large clusters
    are first put together at random into at most 2,000 groups of sums and counts that are drawn whole (fewer, down to
    20, where there are more than 20 clusters), which keeps time and memory bounded; of more than 2,000 clusters only
    the clusters are drawn, in 2,000 random groups.
    Written answers: one cluster gives no interval; equal values give width 0; fewer than 10 clusters carry a caution,
    as the interval then tends to be too narrow (Cameron, Gelbach & Miller 2008).
    """
    if np.shape(values) != np.shape(cluster):
        raise InvalidParameter(f"every value needs a cluster: {np.shape(values)} values, {np.shape(cluster)} clusters")
    filled, (names, labels) = present(values), np.unique(np.asarray(cluster)[~np.isnan(values)], return_inverse=True)
    method = f"clustered bootstrap, {len(names)} clusters"
    if len(filled) < 2 or np.ptp(filled) == 0:
        return without_spread(filled, method)
    if len(names) < 2:
        note = "all values come from one cluster: how much clusters differ is unknown"
        return Estimate(float(filled.mean()), None, None, len(filled), method, note)
    mean = filled.mean()
    drawn = mean + _two_stages(filled - mean, labels, len(names), rng, resamples)
    few = f"only {len(names)} clusters: the interval tends to be too narrow" if len(names) < FEW else ""
    return from_resamples(float(mean), drawn, len(filled), method, few)


def paired_clustered(
    difference: np.ndarray, cluster: np.ndarray, rng: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """Mean of paired differences float (n,) whose units come in clusters (n,): :func:`clustered_bootstrap` of them.

    The sign is that of the difference; NaN (a unit without a pair) is left out.
    """
    return clustered_bootstrap(difference, cluster, rng, resamples)


def _two_stages(
    values: np.ndarray, labels: np.ndarray, clusters: int, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """Resampled means, float64 (resamples,)."""
    if clusters > GROUPS:
        group = random_groups(clusters, rng)[labels]
        total, count = np.bincount(group, values, GROUPS), np.bincount(group, minlength=GROUPS).astype(float)
        sums, counts = _draw_whole(total, count, resamples, rng)
        return sums / counts
    picks = rng.integers(clusters, size=(resamples, clusters)) + np.arange(resamples)[:, None] * clusters
    times = np.bincount(picks.ravel(), minlength=resamples * clusters).reshape(resamples, clusters)
    sums, counts = np.zeros(resamples), np.zeros(resamples)
    groups = int(np.clip(20 * GROUPS // clusters, 20, GROUPS))
    order = np.argsort(labels, kind="stable")
    for one, own in enumerate(np.split(values[order], np.cumsum(np.bincount(labels))[:-1])):
        total, count = grouped([own, np.ones(len(own))], rng, groups)
        row = np.repeat(np.arange(resamples), times[:, one])
        drawn = _draw_whole(total, count, len(row), rng)
        sums += np.bincount(row, drawn[0], resamples)
        counts += np.bincount(row, drawn[1], resamples)
    return sums / counts


def _draw_whole(
    total: np.ndarray, count: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of totals and of counts over as many groups as there are, drawn with replacement; float64 (draws,) each."""
    size, step = len(total), max(1, BATCH // len(total))
    sums, counts = np.empty(draws), np.full(draws, size * count[0])
    for start in range(0, draws, step):
        index = rng.integers(size, size=(min(step, draws - start), size))
        sums[start : start + step] = total[index].sum(axis=1)
        if np.ptp(count):
            counts[start : start + step] = count[index].sum(axis=1)
    return sums, counts
