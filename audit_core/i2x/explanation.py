"""The structured explanation: which prototypes a class relies on, which ones pull two classes apart, and when.

Li et al. 2026 (arXiv 2603.10234), step 5; thresholds and scores are ours, as the paper's are not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit_core.i2x.mapping import Transition, group

SHARED, SPECIALISED, UNCERTAIN, OTHER = "shared", "specialised", "uncertain", "other"


@dataclass(frozen=True)
class Thresholds:
    """Where roles begin; all are shares in [0, 1].

    everywhere: of a class's images that hold a shared prototype; support: of its movement that speaks for the class;
    inside, outside: of a sub-group's images, and of the others, that hold a specialised one; alternation: of an
    uncertain one; weight: of the strongest prototype's movement below which an alternation is not worth a word;
    noise: of it, below which an effect has no sign.
    """

    everywhere: float = 0.9
    support: float = 0.5
    inside: float = 0.8
    outside: float = 0.2
    alternation: float = 0.5
    weight: float = 0.1
    noise: float = 0.01


@dataclass(frozen=True)
class ClassRole:
    """What a prototype is to one class.

    presence: share of the class's images that hold it; net: sum of its effects over the transitions, positive where it
    pushed the class up; support: share of the movement |effect| that did; subgroup: of the class, for a specialised
    one, else -1.
    """

    prototype: int
    kind: str
    presence: float
    net: float
    support: float
    subgroup: int = -1


@dataclass(frozen=True)
class PairRole:
    """What a prototype is to two classes a and b; d = effect on a minus effect on b, per transition.

    net: sum of d; movement: sum of |d|; alternation: 1 - |net| / movement, 0 always one way, 1 back and forth;
    swings: changes of sign; score: alternation times movement over the largest movement, in [0, 1], higher is more
    uncertain.
    """

    prototype: int
    kind: str
    presence: tuple[float, float]
    net: float
    movement: float
    alternation: float
    swings: int
    score: float


def class_roles(
    effects: np.ndarray, present: np.ndarray, shares: np.ndarray, labels: np.ndarray, which: int,
    limits: Thresholds = Thresholds(),
) -> list[ClassRole]:  # fmt: skip
    """Roles of all prototypes for class ``which``, those that push it most first.

    effects: (transitions, K, classes), pushes or beta; present: bool (n, K); shares: location shares (n, K), by which
    the class's images are clustered a second time (HDBSCAN) into sub-groups; labels: int (n,).
    """
    own = labels == which
    held = present[own]
    subgroups = group(shares[own].astype(np.float64), max(5, int(own.sum()) // 20))
    found = []
    for k in range(effects.shape[1]):
        moves = effects[:, k, which]
        total = float(np.abs(moves).sum())
        support = float(moves[moves > 0].sum() / total) if total else 0.0
        presence = float(held[:, k].mean()) if len(held) else 0.0
        kind, subgroup = OTHER, -1
        if presence >= limits.everywhere and support > limits.support:
            kind = SHARED
        elif (subgroup := _only_in(held[:, k], subgroups, limits)) >= 0 and support > limits.support:
            kind = SPECIALISED
        subgroup = subgroup if kind == SPECIALISED else -1
        found.append(ClassRole(k, kind, presence, float(moves.sum()), support, subgroup))
    return sorted(found, key=lambda role: (-role.net, role.prototype))


def _only_in(held: np.ndarray, subgroups: np.ndarray, limits: Thresholds) -> int:
    """The sub-group that nearly alone holds a prototype, -1 for none; held: bool (n,), subgroups: int (n,)."""
    for g in range(subgroups.max(initial=-1) + 1):
        inside, outside = held[subgroups == g], held[subgroups != g]
        if len(outside) and inside.mean() >= limits.inside and outside.mean() <= limits.outside:
            return g
    return -1


def pair_roles(
    effects: np.ndarray, present: np.ndarray, labels: np.ndarray, pair: tuple[int, int],
    limits: Thresholds = Thresholds(),
) -> list[PairRole]:  # fmt: skip
    """Roles of all prototypes between two classes, the most uncertain first.

    "shared": both classes hold it; "specialised": one does and the other hardly; "uncertain" goes before either:
    it swings from one class to the other and moves enough to matter. effects: (transitions, K, classes), pushes or
    beta; present: bool (n, K); labels: int (n,).
    """
    a, b = pair
    contrast = effects[:, :, a] - effects[:, :, b]
    movement = np.abs(contrast).sum(0)
    top = float(movement.max(initial=0.0)) or 1.0
    found = []
    for k in range(effects.shape[1]):
        held = (_share(present, labels == a, k), _share(present, labels == b, k))
        net, moved = float(contrast[:, k].sum()), float(movement[k])
        alternation = 1 - abs(net) / moved if moved else 0.0
        signs = np.sign(contrast[:, k][np.abs(contrast[:, k]) > limits.noise * top])
        swings = int((signs[1:] != signs[:-1]).sum())
        kind = OTHER
        if max(held) >= limits.outside and alternation >= limits.alternation and moved >= limits.weight * top:
            kind = UNCERTAIN
        elif min(held) >= limits.inside:
            kind = SHARED
        elif max(held) >= limits.inside and min(held) <= limits.outside:
            kind = SPECIALISED
        found.append(PairRole(k, kind, held, net, moved, alternation, swings, alternation * moved / top))
    return sorted(found, key=lambda role: (-role.score, role.prototype))


def most_uncertain(roles: Sequence[PairRole]) -> PairRole:
    """The uncertain role with the highest score; the highest score of all where none is uncertain."""
    return next((role for role in roles if role.kind == UNCERTAIN), roles[0])


def _share(present: np.ndarray, members: np.ndarray, k: int) -> float:
    return float(present[members, k].mean()) if members.any() else 0.0


def competition(beta: np.ndarray, prototype: int, least: float = 0.1) -> tuple[list[int], list[int]]:
    """(classes that a rise of the prototype pushes up, classes it pushes down), strongest first; beta: (K, classes).

    Effects below the share ``least`` of the prototype's strongest one are left out.
    """
    row = beta[prototype]
    limit = least * float(np.abs(row).max(initial=0.0))
    up = [int(c) for c in np.argsort(-row, kind="stable") if row[c] > limit]
    down = [int(c) for c in np.argsort(row, kind="stable") if row[c] < -limit]
    return up, down


def marked(transitions: Sequence[Transition]) -> list[int]:
    """Transitions whose confidences moved more than on average, the most moved first: the ones worth looking at."""
    moved = np.array([one.movement for one in transitions])
    return [int(t) for t in np.argsort(-moved, kind="stable") if moved[t] >= moved.mean()]


def confused(confusion: np.ndarray) -> tuple[int, int]:
    """The two classes most often taken for each other, the smaller index first; confusion: int (classes, classes)."""
    both = np.triu(confusion + confusion.T, 1)
    a, b = divmod(int(both.argmax()), len(both))
    return (a, b) if a != b else (0, 1)
