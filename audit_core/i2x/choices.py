"""Where to begin in an analysis: the transition, the checkpoint and the share that show something, and what to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit_core.i2x.curation import Curation, removed
from audit_core.i2x.explanation import marked
from audit_core.i2x.mapping import Transition
from audit_core.i2x.trajectory import Trajectory

STEP = 0.05  # of the shares of locations that are offered
MOST = 0.5  # of a class's images that a first proposal takes out


def opening_transition(transitions: Sequence[Transition]) -> int:
    """The most moved transition that has groups, so that something is explained; the most moved where none has."""
    order = marked(transitions)
    return next((t for t in order if transitions[t].groups), order[0] if order else 0)


def start_step(seen: Trajectory) -> int:
    """The first step whose accuracy is half way from the first to the best one: it still confuses classes."""
    accuracy = seen.accuracy
    half = (accuracy[0] + accuracy.max()) / 2
    return seen.steps[int(np.argmax(accuracy >= half))]


def gentle_share(shares: np.ndarray, labels: np.ndarray, prototype: int, classes: tuple[int, ...] = ()) -> float:
    """The smallest share of locations, a multiple of 5 %, whose curation leaves at least half of every class.

    shares: location shares (n, K); labels: int (n,); classes: as in :class:`Curation`.
    """
    for step in range(round(1 / STEP)):
        share = round(step * STEP, 2)
        out = removed(shares, labels, Curation(prototype, share, classes))
        if all(out[labels == c].mean() <= MOST for c in np.unique(labels)):
            return share
    return 0.0


def removed_per_class(shares: np.ndarray, labels: np.ndarray, curation: Curation, classes: int) -> np.ndarray:
    """Images that a curation takes out of each class, int (classes,)."""
    return np.bincount(labels[removed(shares, labels, curation)], minlength=classes)


@dataclass(frozen=True)
class Edge:
    """A prototype's push on a class: units of confidence, positive where the class was pushed up."""

    prototype: int
    target: int
    push: float


def strongest_edges(pushes: np.ndarray, most: int = 18, least: float = 0.02) -> list[Edge]:
    """The largest pushes by magnitude, rising, so that the strongest is drawn on top; pushes: (K, classes).

    most: how many at most; least: share of the largest below which an edge is left out.
    """
    size = np.abs(pushes)
    limit = max(least * float(size.max(initial=0.0)), np.finfo(float).tiny)
    order = np.argsort(-size, axis=None, kind="stable")[:most]
    places = [divmod(int(place), pushes.shape[1]) for place in order]
    found = [Edge(k, c, float(pushes[k, c])) for k, c in places if size[k, c] >= limit]
    return found[::-1]


@dataclass(frozen=True)
class Sensitivity:
    """What another lambda would do to beta.

    factor: by which lambda is multiplied; change: norm of the change of beta over the norm of beta, 0 is none; flips:
    share of the effects of at least a tenth of the largest that would change their sign, in [0, 1].
    """

    factor: float
    change: float
    flips: float


def sensitivity(transition: Transition, factors: tuple[float, ...] = (0.1, 10.0)) -> list[Sensitivity]:
    """One entry per factor; none without groups, where beta is 0 at every lambda, nor for regressions within groups."""
    beta, size = transition.beta, float(np.linalg.norm(transition.beta))
    swept = transition.swept(factors)
    if not transition.groups or not size or not swept:
        return []
    strong = np.abs(beta) >= 0.1 * np.abs(beta).max()
    return [
        Sensitivity(
            factor,
            float(np.linalg.norm(other - beta)) / size,
            float((np.sign(other[strong]) != np.sign(beta[strong])).mean()),
        )
        for factor, other in zip(factors, swept, strict=True)
    ]
