"""How well a classifier classifies: accuracy, balanced accuracy, macro-F1, calibration, with intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.cards import Evaluation, Score


def accuracy(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Share of images whose predicted class is the labelled one; higher is better, [0, 1]."""
    return float(np.mean(labels == predicted))


def recalls(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Share found per class, float64 (n_classes,); NaN for a class without images."""
    counts = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[labels == predicted], minlength=n_classes)
    return np.divide(hits, counts, out=np.full(n_classes, np.nan), where=counts > 0)


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean recall over the classes that occur among the labels; higher is better, [0, 1]."""
    return float(np.nanmean(recalls(labels, predicted, n_classes)))


def macro_f1(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Unweighted mean of F1 = 2TP / (2TP + FP + FN) over classes that are labelled or predicted; higher is better."""
    counts, guesses = np.bincount(labels, minlength=n_classes), np.bincount(predicted, minlength=n_classes)
    hits = np.bincount(labels[labels == predicted], minlength=n_classes)
    present = counts + guesses > 0
    return float(np.mean(2 * hits[present] / (counts + guesses)[present]))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| of the top class, weighted by bin.

    probabilities: (n, classes), rows sum to 1. Equal-width bins over (0, 1]; lower is better, [0, 1].
    """
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=(predicted == labels) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    data: str,
    data_sha256: str,
    command: str,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """All four scores with 95 % percentile-bootstrap intervals over images (``resamples`` draws)."""
    n_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda rows: accuracy(labels[rows], predicted[rows], n_classes),
        "balanced_accuracy": lambda rows: balanced_accuracy(labels[rows], predicted[rows], n_classes),
        "macro_f1": lambda rows: macro_f1(labels[rows], predicted[rows], n_classes),
        "calibration_error": lambda rows: calibration_error(labels[rows], probabilities[rows]),
    }
    rng, everything = np.random.default_rng(seed), np.arange(len(labels))
    draws = rng.integers(0, len(labels), (resamples, len(labels)))
    scores = {}
    for name, measure in measures.items():
        low, high = np.quantile([measure(rows) for rows in draws], [0.025, 0.975])
        scores[name] = Score(*(round(float(x), 4) for x in (measure(everything), low, high)))
    return Evaluation(data, data_sha256, len(labels), scores, command)
