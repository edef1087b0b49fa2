"""The unit of a study's work. Imports no torch, so that a finished study opens at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """The unit of work, of restart and of sharing: one checkpoint and explainer on the images [start, stop), all fills.

    kind: "curves", or "checks" for the slow metrics; forwards, backwards: model evaluations at most, in images.
    """

    id: str
    kind: str
    checkpoint: str
    explainer: str
    seed: int
    start: int
    stop: int
    forwards: int
    backwards: int
