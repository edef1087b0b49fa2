"""Seeded splits and samples: pure functions on arrays, of labels, groups and seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.params import Between

WORDS = ("train", "val", "test")
SHARES = (0.70, 0.15, 0.15)

SplitSeed = Annotated[int, Between(0, 2**31 - 1, help="Number that fixes which images stand in train, val and test.")]


def stratified(labels: Iterable[object], seed: int, shares: tuple[float, float, float] = SHARES) -> np.ndarray:
    """One of "train", "val", "test" per entry, as words (n,), with the same shares within every class.

    labels: n words or numbers, equal for entries of one class. shares: of train, val and test, summing to 1. A class of
    m entries is shuffled by a generator of its own and cut at round(m · train) and round(m · (train + val)), so each
    part is within one entry of its share, a class falls alike whatever other classes there are, and at 70/15/15 a class
    of fewer than six entries has none in val or none in test.
    """
    cuts = _cuts(shares)
    words = np.full(len(labels := list(labels)), WORDS[0], dtype="<U5")
    for label, rows in _classes(labels):
        shuffled = _generator(seed, "split", label).permutation(rows)
        first, second = (round(len(rows) * cut) for cut in cuts)
        words[shuffled[first:second]] = WORDS[1]
        words[shuffled[second:]] = WORDS[2]
    return words


def grouped(groups: Iterable[object], seed: int, shares: tuple[float, float, float] = SHARES) -> np.ndarray:
    """One of "train", "val", "test" per entry, as words (n,), no group standing in two of them.

    groups: n words or numbers, equal for entries that belong together; the empty word and None stand alone. shares: of
    the entries, not of the groups, in train, val and test, summing to 1. The groups are shuffled and laid end to end,
    and a group goes where its middle falls, so each part is within one group size of its share.
    """
    words = np.array(["" if group is None else str(group) for group in groups], dtype=str)
    _, ids = np.unique(words, return_inverse=True)
    alone = np.flatnonzero(words == "")
    ids[alone] = len(words) + alone
    _, ids, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    part = np.empty(len(sizes), dtype=np.int64)
    part[order] = np.searchsorted(np.array(_cuts(shares)) * len(words), middles)
    return np.array(WORDS)[part[ids]]


def repeated(words: Iterable[str], identities: Iterable[object]) -> np.ndarray:
    """bool (n,), True where an entry of val also stands in train, or one of test in train or val.

    words: "train", "val" or "test" per entry; identities: equal for entries of equal content. Repeats within one part
    are not meant.
    """
    words, identities = list(words), list(identities)
    found = np.zeros(len(words), dtype=bool)
    seen: set[object] = set()
    for part in WORDS:
        rows = [row for row, word in enumerate(words) if word == part]
        found[rows] = [identities[row] in seen for row in rows]
        seen |= {identities[row] for row in rows}
    return found


def sample(labels: Iterable[object], per_class: int, seed: int, leave_out: Iterable[object] = ()) -> np.ndarray:
    """Indices of ``per_class`` entries of every class, drawn without replacement: int64, rising.

    labels: words or numbers, equal for entries of one class; None is a class like any other. A class with fewer entries
    gives all it has, and ``per_class`` 0 takes all of every class. leave_out: labels of classes that are left out.
    Each class draws from a generator of its own, so what is drawn of it does not depend on the other classes or on what
    is left out, and a larger sample holds the smaller one.
    """
    if per_class < 0:
        raise InvalidParameter(f"per_class must be 0 (all) or more, got {per_class}")
    left = {str(label) for label in leave_out}
    drawn = [np.zeros(0, dtype=np.int64)]
    for label, rows in _classes(labels):
        shuffled = _generator(seed, "sample", label).permutation(rows)
        if label not in left:
            drawn.append(shuffled[: per_class or None])
    return np.sort(np.concatenate(drawn))


def _classes(labels: Iterable[object]) -> Iterator[tuple[str, np.ndarray]]:
    """(class as a word, its rising indices) for every class."""
    words = np.array([str(label) for label in labels], dtype=str)
    for word in np.unique(words):
        yield str(word), np.flatnonzero(words == word)


def _generator(seed: int, purpose: str, label: str) -> np.random.Generator:
    """Purposes differ, so that a sample under the seed of a split is not simply the head of its train part."""
    digest = hashlib.sha256(f"{purpose} {label}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def _cuts(shares: tuple[float, float, float]) -> tuple[float, float]:
    """Where train ends and where val ends, as shares of all."""
    if min(shares) < -1e-9 or abs(sum(shares) - 1) > 1e-9:
        shown = ", ".join(f"{share:g}" for share in shares)
        raise InvalidParameter(f"the shares of train, val and test must be at least 0 and sum to 1, got {shown}")
    return shares[0], shares[0] + shares[1]
