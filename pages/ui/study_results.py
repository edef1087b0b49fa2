"""Results of a study, opened anew whenever a part was added; the views that the page draws, kept for all sessions."""

from __future__ import annotations

import atexit
import tomllib
from pathlib import Path

import numpy as np
import streamlit as st

from audit_core.errors import AuditError, InvalidParameter
from audit_core.study.criteria import Criteria, changed_since
from audit_core.study.folder import StudyFolder
from audit_core.study.judgement import Judgement, judge
from audit_core.study.means import CellMean, cells
from audit_core.study.nouns import MeanCurve, StateCount, Values
from audit_core.study.opening import files_of
from audit_core.study.results import Results
from audit_core.study.shelf import Shelf
from pages.ui import study_link

Cells = dict[tuple[str, str], CellMean]


def opened(name: str) -> Results | None:
    """The results as far as they are there; None before the first part."""
    root = Shelf.default().folder(name).root
    try:
        return _opened(str(root), Results.fingerprint(root))
    except AuditError:
        return None


def unreadable(name: str) -> str:
    """Why there are no results although parts are here; "" where there are simply none yet."""
    root = Shelf.default().folder(name).root
    try:
        _opened(str(root), Results.fingerprint(root))
    except AuditError as reason:
        return str(reason) if files_of(root, "measures") else ""
    return ""


def fingerprint(name: str) -> str:
    """Changes when a part of the study is added."""
    return Results.fingerprint(Shelf.default().folder(name).root)


@st.cache_resource(max_entries=6, show_spinner="Reading the results of the study …")
def _opened(root: str, state: str) -> Results:
    return Results.open(root)


atexit.register(_opened.clear)  # databases that are open when the interpreter ends are reported as leaks


@st.cache_resource(max_entries=48, show_spinner="Averaging over the images …")
def table(name: str, state: str, metric: str) -> tuple[Cells, tuple[StateCount, ...]]:
    """(contender, fill) -> mean with interval; and rows by state and reason, also where no number is left."""
    results = opened(name)
    if results is None or metric not in results.metrics:
        return {}, ()
    try:
        found = {(cell.contender, cell.fill): cell for cell in cells(results, metric).cells}
    except InvalidParameter:  # refused cells only, so far
        found = {}
    return found, results.counts(metric)


def verdicts(name: str, state: str) -> dict[str, Judgement] | str:
    """Contender -> what may be said about it by the study's own criteria, or the sentence why nothing can be."""
    try:
        return _judged(name, state, Criteria.parse(Shelf.default().folder(name).study().criteria).to_toml())
    except AuditError as problem:
        return str(problem)


@st.cache_resource(max_entries=24, show_spinner="Holding the criteria against the results …")
def _judged(name: str, state: str, asked: str) -> dict[str, Judgement] | str:
    results = opened(name)
    if results is None:
        return "there are no results yet"
    try:
        criteria = Criteria.parse(tomllib.loads(asked)["criteria"])
        return {found.contender: found for found in judge(results, criteria, np.random.default_rng(0))}
    except AuditError as problem:
        return str(problem)


def changed_criteria(folder: StudyFolder, name: str) -> str:
    """The sentence that the criteria were changed after the study began, "" when they were not."""
    try:
        return changed_since(study_link.read_manifest(name), folder.study())
    except AuditError as problem:
        return str(problem)


@st.cache_resource(max_entries=32, show_spinner=False)
def values(name: str, state: str, contender: str, fill: str, metric: str) -> Values:
    """Every number of one cell."""
    return _results(name).values(contender, fill, metric)


@st.cache_resource(max_entries=32, show_spinner="Averaging the curves …")
def curves(name: str, state: str, contenders: tuple[str, ...], fill: str) -> dict[str, tuple[MeanCurve, ...]]:
    """Kind -> mean curve of each contender that has one."""
    found = {}
    for kind in ("deletion", "insertion"):
        try:
            found[kind] = _results(name).mean_curves(contenders, fill, kind)
        except AuditError:  # the study kept no curves, or not these
            found[kind] = ()
    return found


def _results(name: str) -> Results:
    found = opened(name)
    if found is None:
        raise InvalidParameter(f"the study {Path(name).name!r} has no results yet; start it")
    return found
