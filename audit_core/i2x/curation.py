"""What to fine-tune on: the training set without the images that hold an uncertain prototype, and two controls.

Li et al. 2026 (arXiv 2603.10234) leave open what "holds" means and which classes are concerned: both are parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit_core.errors import InvalidParameter

FULL, CURATED, RANDOM, OTHER_PROTOTYPE = "full", "curated", "random", "other prototype"


@dataclass(frozen=True)
class Curation:
    """What is taken out.

    prototype: the uncertain one; least: share of an image's locations above which it is held, in [0, 1); classes:
    only images of these are removed, all where empty.
    """

    prototype: int
    least: float = 0.0
    classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.least < 1:
            raise InvalidParameter(f"the share of locations must be in [0, 1), got {self.least}")


def removed(shares: np.ndarray, labels: np.ndarray, curation: Curation) -> np.ndarray:
    """Which images are taken out, bool (n,); shares: location shares (n, K); labels: int (n,)."""
    if not 0 <= curation.prototype < shares.shape[1]:
        raise InvalidParameter(f"there are prototypes 0 to {shares.shape[1] - 1}, not {curation.prototype}")
    held = shares[:, curation.prototype] > curation.least
    return held & np.isin(labels, curation.classes) if curation.classes else held


def training_sets(
    shares: np.ndarray, labels: np.ndarray, curation: Curation, rng: np.random.Generator
) -> Mapping[str, np.ndarray]:
    """The images of every training set, bool (n,) each: "full", "curated", and two controls drawn by ``rng``.

    "random" takes out as many images of each class as the curation does, at random; "other prototype" applies the
    curation to a prototype drawn among those that would leave something. ``InvalidParameter`` when the curation takes
    out nothing, or a whole class.
    """
    out = removed(shares, labels, curation)
    if not out.any():
        raise InvalidParameter(
            f"no image holds more than {curation.least:.0%} of prototype {curation.prototype}; lower the share or "
            "choose another prototype"
        )
    if gone := _emptied(out, labels):
        raise InvalidParameter(
            f"the curation takes out all {int((labels == gone[0]).sum())} images of class {gone[0]}; raise the share "
            "of locations or limit it to other classes"
        )
    random = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        random[rng.permutation(members)[: int(out[members].sum())]] = True
    sets = {FULL: np.ones(len(labels), dtype=bool), CURATED: ~out, RANDOM: ~random}
    for k in rng.permutation(shares.shape[1]):
        other = removed(shares, labels, Curation(int(k), curation.least, curation.classes))
        if k != curation.prototype and other.any() and not _emptied(other, labels):
            sets[OTHER_PROTOTYPE] = ~other
            break
    return sets


def _emptied(out: np.ndarray, labels: np.ndarray) -> Sequence[int]:
    return [int(c) for c in np.unique(labels) if out[labels == c].all()]
