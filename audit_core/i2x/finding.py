"""How prototypes are found: the final model's spatial features, reduced by PCA and clustered by K-means.

Li et al. 2026 (arXiv 2603.10234), step 1. PCA and K-means are scikit-learn's; K by hand, or chosen by a criterion.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.i2x.features import batches, spatial_features, stage
from audit_core.i2x.prototypes import Prototypes
from audit_core.i2x.settings import Settings

WHOLE = 50_000  # locations up to which K-means sees all of them at once, ten times; above it learns from mini-batches
JUDGED = 4_000  # locations that a criterion for K is computed on
SEEDS = 3  # K-means runs whose agreement is the stability

Report = Callable[[float, str], None]


def find(
    classifier: Classifier, pixels: torch.Tensor, settings: Settings, report: Report = lambda share, words: None
) -> Prototypes:
    """Prototypes of ``classifier`` on images (n, channels, rows, columns) in [0, 1].

    The features pass twice, so that no more than ``settings.locations`` full vectors and the reduced ones of all
    locations are ever held: about n * rows * columns * components * 4 bytes.
    """
    layer = stage(classifier, settings.layer)
    reducer = _fit_pca(classifier, pixels, settings, report)
    parts = []
    for start, batch in batches(classifier, pixels):
        found = spatial_features(classifier, batch, layer)
        flat = found.reshape(-1, found.shape[-1])
        parts.append((reducer.transform(flat) if reducer else flat).astype(np.float32))
        report(0.2 + 0.5 * (start + len(batch)) / len(pixels), "features of the final model")
    reduced = np.concatenate(parts)
    judged = () if settings.prototypes else judge(reduced, settings)
    count = settings.prototypes or max(judged, key=lambda pair: pair[1])[0]
    report(0.75, f"K-means with {count} prototypes")
    clusters = cluster(reduced, count, settings.seed)
    assignments = clusters.predict(reduced)
    distances = np.concatenate(
        [
            np.linalg.norm(reduced[at : at + WHOLE] - clusters.cluster_centers_[assignments[at : at + WHOLE]], axis=1)
            for at in range(0, len(reduced), WHOLE)
        ]
    )
    shape = (len(pixels), *layer.grid)
    width = reduced.shape[1]
    return Prototypes(
        layer.name,
        assignments.reshape(shape).astype(np.uint16),
        distances.reshape(shape).astype(np.float32),
        clusters.cluster_centers_.astype(np.float32),
        (reducer.mean_ if reducer else np.zeros(width)).astype(np.float32),
        (reducer.components_ if reducer else np.zeros((0, width))).astype(np.float32),
        float(reducer.explained_variance_ratio_.sum()) if reducer else 1.0,
        judged,
    )


def _fit_pca(classifier: Classifier, pixels: torch.Tensor, settings: Settings, report: Report) -> PCA | None:
    layer = stage(classifier, settings.layer)
    per_image = layer.grid[0] * layer.grid[1]
    if not settings.components:
        return None
    rng = np.random.default_rng(settings.seed)
    most = max(1, settings.locations // per_image)
    chosen = np.sort(rng.permutation(len(pixels))[:most])
    parts = []
    for start, batch in batches(classifier, pixels[torch.from_numpy(chosen)]):
        found = spatial_features(classifier, batch, layer)
        parts.append(found.reshape(-1, found.shape[-1]))
        report(0.2 * (start + len(batch)) / len(chosen), "features for the PCA")
    sample = np.concatenate(parts)
    keep = min(settings.components, *sample.shape)
    return PCA(keep, svd_solver="covariance_eigh", random_state=settings.seed).fit(sample)


def cluster(reduced: np.ndarray, count: int, seed: int) -> KMeans:
    """K-means++ (Arthur & Vassilvitskii 2007) of float (locations, components); mini-batches where they are many."""
    count = min(count, len(reduced))
    if len(reduced) <= WHOLE:
        return KMeans(count, n_init=10, random_state=seed).fit(reduced)
    return MiniBatchKMeans(count, n_init=10, batch_size=4096, random_state=seed).fit(reduced)


def judge(reduced: np.ndarray, settings: Settings) -> tuple[tuple[int, float], ...]:
    """(K, score) of every candidate, higher is better: silhouette, or agreement of K-means between seeds."""
    rng = np.random.default_rng(settings.seed)
    sample = reduced[np.sort(rng.permutation(len(reduced))[:JUDGED])]
    scores = []
    for count in settings.candidates:
        if not 2 <= count < len(sample):
            continue
        labels = [
            KMeans(count, n_init=3, random_state=settings.seed + k).fit_predict(sample)
            for k in range(SEEDS if settings.criterion == "stability" else 1)
        ]
        pairs = list(itertools.combinations(labels, 2))
        agreement = float(np.mean([adjusted_rand_score(*pair) for pair in pairs])) if pairs else 0.0
        score = agreement if pairs else float(silhouette_score(sample, labels[0]))
        scores.append((count, score))
    if not scores:
        raise InvalidParameter(
            f"none of the candidates {', '.join(map(str, settings.candidates))} for K is between 2 and the "
            f"{len(sample):,} locations; give more images or smaller candidates"
        )
    return tuple(scores)
