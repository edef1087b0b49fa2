"""Rows of the table, and contenders that take turns on a noisy machine."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

HEAD = ("what", "checkpoint", "device", "measured", "wanted", "met")


@dataclass(frozen=True)
class Row:
    """One measurement beside what it must reach; ``met`` is None where nothing is asked."""

    what: str
    checkpoint: str
    device: str
    measured: str
    wanted: str
    met: bool | None

    def cells(self) -> tuple[str, ...]:
        return (*(getattr(self, name) for name in HEAD[:-1]), {True: "yes", False: "NO", None: "–"}[self.met])


def table(rows: list[Row]) -> str:
    """The rows as Markdown, columns aligned."""
    cells = [HEAD, *(row.cells() for row in rows)]
    wide = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    lines = ["| " + " | ".join(text.ljust(n) for text, n in zip(line, wide, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (n + 2) for n in wide) + "|", *lines[1:]])


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def race(contenders: dict[str, Callable[[], object]], repetitions: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of every contender in every repetition; they take turns, and each repetition starts with another."""
    names, seconds = list(contenders), {name: [] for name in contenders}
    for turn in range(repetitions):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            contenders[name]()
            seconds[name].append(clock() - began)
    return seconds


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contender is than another: median of the repetitions, least and most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def speed(seconds: dict[str, list[float]], ours: str, other: str) -> Ratio:
    """Throughput of ``ours`` over that of ``other``, which did the same work in the same repetitions."""
    ratios = [b / a for a, b in zip(seconds[ours], seconds[other], strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
