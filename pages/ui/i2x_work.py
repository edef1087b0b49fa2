"""What the page asks of an analysis, each answered once: cached by what the analysis is made of, never by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from audit_core.i2x import comparisons, shelf
from audit_core.i2x.analysis import Analysis, read
from audit_core.i2x.comparisons import Compared
from audit_core.i2x.explanation import ClassRole, PairRole, class_roles, pair_roles
from audit_core.i2x.pieces import MANIFEST
from audit_core.i2x.strip import pixels_of

if TYPE_CHECKING:
    from audit_core.i2x.runs import TrainingRun


@dataclass(frozen=True)
class Opened:
    """A finished analysis in its folder, with its run; stamp: of the manifest's bytes."""

    name: str
    stamp: str
    analysis: Analysis
    folder: Path

    @property
    def run(self) -> TrainingRun:
        """The checkpoints; ``BadData`` where they are gone."""
        return _run(self.stamp, self)

    @property
    def example(self) -> Compared | None:
        """The finished comparison that stands beside it, if one does."""
        return _example(_stamp(self.folder / comparisons.FILE), self.stamp, self)


def names() -> list[str]:
    """Analyses that ship with the project, and those made on this machine."""
    return list(shelf.analyses())


def open_analysis(name: str) -> Opened:
    """The analysis of this name; ``BadData`` where a piece of it is missing."""
    folder = shelf.analyses()[name]
    stamp = _stamp(folder / MANIFEST)
    return Opened(name, stamp, _analysis(stamp, str(folder)), folder)


def _stamp(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def roles(opened: Opened, pair: tuple[int, int]) -> list[PairRole]:
    """Roles of all prototypes between two classes, the most uncertain first."""
    return _roles(opened.stamp, pair, opened)


def roles_per_class(opened: Opened) -> list[list[ClassRole]]:
    """Roles of the prototypes for each class, in the order of the classes."""
    return _class_roles(opened.stamp, opened)


def pushes(opened: Opened, pair: tuple[int, int]) -> np.ndarray:
    """How far each prototype moved each class, on the images of the pair: (transitions, K, classes)."""
    return _pushes(opened.stamp, pair, opened)


def means(opened: Opened, c: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean intensity (T, K), mean confidence (T, classes)) of the images of class ``c``."""
    return _means(opened.stamp, c, opened)


def choosable(opened: Opened) -> list[int]:
    """Classes that a pair is made of: those with images, all where only one has any."""
    held = opened.analysis.trajectory.populated
    return held if len(held) > 1 else list(range(len(opened.analysis.classes)))


def images_of_class(opened: Opened, c: int) -> list[int]:
    """Places of the images of a class, in the order of the analysis."""
    return np.flatnonzero(opened.analysis.trajectory.labels == c).tolist()


def pixels(opened: Opened, place: int) -> np.ndarray:
    """An image of the analysis as the model sees it, float32 (channels, rows, columns) in [0, 1]."""
    return _pixels(opened.stamp, opened.analysis.references[place], opened)


def strongest(opened: Opened, prototype: int, most: int) -> Sequence[tuple[int, int, int]]:
    """(image, row, column) of the most typical locations of a prototype."""
    return _strongest(opened.stamp, prototype, most, opened)


@st.cache_resource(max_entries=4, show_spinner=False)
def _analysis(stamp: str, folder: str) -> Analysis:
    return read(Path(folder))


@st.cache_resource(max_entries=4, show_spinner=False)
def _run(stamp: str, _opened: Opened) -> TrainingRun:
    from audit_core.i2x.runs import run_of  # torch, which looking at an analysis does not need

    return run_of(_opened.analysis, _opened.folder)


@st.cache_resource(max_entries=4, show_spinner=False)
def _example(comparison: str, stamp: str, _opened: Opened) -> Compared | None:
    return comparisons.example(_opened.analysis, _opened.folder)


@st.cache_data(max_entries=100, show_spinner=False)
def _roles(stamp: str, pair: tuple[int, int], _opened: Opened) -> list[PairRole]:
    made = _opened.analysis
    return pair_roles(pushes(_opened, pair), made.present, made.trajectory.labels, pair)


@st.cache_data(max_entries=8, show_spinner=False)
def _class_roles(stamp: str, _opened: Opened) -> list[list[ClassRole]]:
    made, seen = _opened.analysis, _opened.analysis.trajectory
    return [
        class_roles(made.pushes(made.of_classes(c)), made.present, seen.shares, seen.labels, c)
        for c in range(len(made.classes))
    ]


@st.cache_data(max_entries=100, show_spinner=False)
def _pushes(stamp: str, pair: tuple[int, int], _opened: Opened) -> np.ndarray:
    return _opened.analysis.pushes(_opened.analysis.of_classes(*pair))


@st.cache_data(max_entries=100, show_spinner=False)
def _means(stamp: str, c: int, _opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    members, seen = _opened.analysis.of_classes(c), _opened.analysis.trajectory
    return seen.mean_intensity(members), seen.mean_confidence(members)


@st.cache_data(max_entries=2000, show_spinner=False)
def _pixels(stamp: str, reference: str, _opened: Opened) -> np.ndarray:
    return pixels_of(reference, _opened.analysis.card)


@st.cache_data(max_entries=500, show_spinner=False)
def _strongest(stamp: str, prototype: int, most: int, _opened: Opened) -> list[tuple[int, int, int]]:
    return _opened.analysis.prototypes.strongest(prototype, most)
