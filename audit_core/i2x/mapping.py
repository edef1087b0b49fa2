"""From prototypes to confidence: what a rise of a prototype's intensity did to each class, transition by transition.

Li et al. 2026 (arXiv 2603.10234), steps 3 and 4: HDBSCAN (Campello et al. 2013) groups the images by their change of
confidence; a ridge regression of the groups' mean changes on their mean changes of intensity gives beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_core.i2x.settings import Settings

MEANS = "means"  # the reading in which groups are the rows of one regression


@dataclass(frozen=True)
class Transition:
    """One step from a checkpoint to the next.

    beta: (K, classes), confidence per unit of intensity, positive where a rise of the prototype goes with a rise of the
    class; groups: G; sizes: images per group (G,); noise: share of the images in no group, in [0, 1]; images: how many
    were grouped; intensities: (G, K, targets) and confidences: (G, classes), mean changes; penalty: lambda, (targets,);
    condition: of pi' pi + lambda I, 1 is best, that of the worst group where each has its own regression; error:
    relative error of leaving one group out, 0 is best and 1 is that of predicting no change, NaN for fewer than two
    groups and for regressions within groups; movement: mean over images of half the sum of |confidence changes|, in
    [0, 1]; reading: as in the settings.
    """

    beta: np.ndarray
    sizes: np.ndarray
    noise: float
    images: int
    intensities: np.ndarray
    confidences: np.ndarray
    penalty: np.ndarray
    condition: float
    error: float
    movement: float
    reading: str = MEANS

    @property
    def groups(self) -> int:
        """G."""
        return len(self.sizes)

    @property
    def driven_by_penalty(self) -> bool:
        """Fewer rows in a regression than prototypes: the data leave beta open, and lambda decides."""
        rows = self.groups if self.reading == MEANS or not self.groups else int(self.sizes.min())
        return rows < len(self.beta)

    def swept(self, factors: tuple[float, ...] = (0.1, 10.0)) -> list[np.ndarray]:
        """beta at other penalties, each a multiple of this one: how much of it is lambda's doing.

        Empty for regressions within groups, whose images are not kept.
        """
        if self.reading != MEANS:
            return []
        return [_means(self.intensities, self.confidences, self.penalty * factor) for factor in factors]


def transition(
    intensity: np.ndarray, confidence: np.ndarray, settings: Settings, rng: np.random.Generator
) -> Transition:
    """Explain one transition; intensity: changes (n, K, targets); confidence: changes (n, classes).

    No group at all (every image moves alike, or each on its own) gives beta of zeros.
    """
    movement = float(np.abs(confidence).sum(1).mean() / 2)
    chosen = np.sort(rng.permutation(len(confidence))[: settings.group_images])
    intensity, confidence = intensity[chosen].astype(np.float64), confidence[chosen].astype(np.float64)
    labels = group(confidence, settings.smallest_group(len(chosen)), settings.min_samples)
    sizes = np.bincount(labels[labels >= 0], minlength=labels.max(initial=-1) + 1)
    pi = np.stack([intensity[labels == g].mean(0) for g in range(len(sizes))]) if len(sizes) else intensity[:0]
    change = np.stack([confidence[labels == g].mean(0) for g in range(len(sizes))]) if len(sizes) else confidence[:0]
    penalty = np.array([penalty_of(pi[:, :, t], settings.ridge) for t in range(pi.shape[2])])
    if settings.reading == MEANS:
        beta, error = _means(pi, change, penalty), _left_out(pi, change, settings.ridge)
        condition = max(_condition(pi[:, :, t], penalty[t]) for t in range(len(penalty)))
    else:
        beta, condition = _within(intensity, confidence, labels, sizes, settings.ridge)
        error = float("nan")
    return Transition(
        beta,
        sizes,
        float((labels < 0).mean()),
        len(labels),
        pi,
        change,
        penalty,
        condition,
        error,
        movement,
        settings.reading,
    )


def group(changes: np.ndarray, smallest: int, min_samples: int = 5) -> np.ndarray:
    """Group of every image by its change of confidence, int (n,), -1 for noise; changes: float (n, classes)."""
    if len(changes) < 2 * smallest or len(changes) <= min_samples:
        return np.full(len(changes), -1)
    from sklearn.cluster import HDBSCAN  # a second of import that reading an analysis does not need

    return HDBSCAN(min_cluster_size=smallest, min_samples=min_samples, copy=True).fit_predict(changes)


def penalty_of(pi: np.ndarray, strength: float) -> float:
    """lambda = strength * trace(pi' pi) / K; pi: (rows, K). Where nothing moved, a number that keeps beta at 0."""
    return strength * float((pi**2).sum()) / pi.shape[1] or 1.0


def ridge(pi: np.ndarray, change: np.ndarray, penalty: float) -> np.ndarray:
    """(pi' pi + lambda I)^-1 pi' change, without intercept (Hoerl & Kennard 1970); pi: (rows, K) -> (K, classes)."""
    return np.linalg.solve(pi.T @ pi + penalty * np.eye(pi.shape[1]), pi.T @ change)


def _means(pi: np.ndarray, change: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """beta from group means; with one intensity per class, class c is explained by its own."""
    fits = [ridge(pi[:, :, t], change, penalty[t]) for t in range(pi.shape[2])]
    return fits[0] if len(fits) == 1 else np.stack([fit[:, c] for c, fit in enumerate(fits)], axis=1)


def _within(
    intensity: np.ndarray, confidence: np.ndarray, labels: np.ndarray, sizes: np.ndarray, strength: float
) -> tuple[np.ndarray, float]:
    """(mean of the groups' own beta, weighted by their sizes; the worst condition of all regressions)."""
    beta, worst = np.zeros((intensity.shape[1], confidence.shape[1])), 1.0
    for g, size in enumerate(sizes):
        own, change = intensity[labels == g], confidence[labels == g]
        penalty = np.array([penalty_of(own[:, :, t], strength) for t in range(own.shape[2])])
        beta += _means(own, change, penalty) * size / sizes.sum()
        worst = max(worst, *(_condition(own[:, :, t], penalty[t]) for t in range(len(penalty))))
    return beta, worst


def _condition(pi: np.ndarray, penalty: float) -> float:
    return float(np.linalg.cond(pi.T @ pi + penalty * np.eye(pi.shape[1])))


def _left_out(pi: np.ndarray, change: np.ndarray, strength: float) -> float:
    """sqrt(sum of squared errors / sum of squares) of each group predicted by the others."""
    if len(pi) < 2 or not (change**2).sum():
        return float("nan")
    wrong = 0.0
    for g in range(len(pi)):
        others, rest = np.delete(pi, g, 0), np.delete(change, g, 0)
        penalty = np.array([penalty_of(others[:, :, t], strength) for t in range(pi.shape[2])])
        beta = _means(others, rest, penalty)
        own = pi[g] if pi.shape[2] > 1 else np.repeat(pi[g], change.shape[1], axis=1)
        wrong += float((((own * beta).sum(0) - change[g]) ** 2).sum())
    return float(np.sqrt(wrong / (change**2).sum()))
