"""The questions that the page asks of a study, each answered once: cached by the results' fingerprint and the words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from audit_core.errors import AuditError, InvalidParameter
from audit_core.study import analysis
from audit_core.study.direction import sign
from audit_core.study.filters import Filters
from audit_core.study.folder import StudyFolder
from audit_core.study.results import Results
from audit_core.study.scope import SCOPE
from audit_core.study.shelf import Shelf

SEED = 0  # of all resampling: equal questions get equal digits
FIRST = ("deletion", "insertion", "srg", "deletion-normalised")


@dataclass(frozen=True)
class Opened:
    """A study that can be asked: its name, where it stands, what its tables looked like, and the results themselves."""

    name: str
    root: str
    stamp: str
    manifest: dict[str, Any]  # Any: JSON data
    results: Results


def open_study(name: str) -> Opened:
    """The study of this name as far as it is there; ``AuditError`` says why it cannot be opened."""
    folder = Shelf.default().folder(name)
    stamp = Results.fingerprint(folder.root)
    return Opened(name, str(folder.root), stamp, _manifest(str(folder.root)), _results(str(folder.root), stamp))


def title(name: str) -> str:
    """What a study calls itself; ``UnknownName`` where there is none."""
    return str(_manifest(str(Shelf.default().folder(name).root)).get("title") or name)


def progress(name: str) -> tuple[int, int]:
    """(parts that are there, parts planned) of a study; equal for a finished one."""
    folder = Shelf.default().folder(name)
    tasks = folder.tasks()
    if not (folder.root / "parts").is_dir():
        return len(tasks), len(tasks)
    return sum(folder.done(task) for task in tasks), len(tasks)


def metrics(opened: Opened) -> list[str]:
    """Metrics that rank contenders, the usual ones first."""
    found = [m for m in opened.results.metrics if m != SCOPE and _ranks(m)]
    return sorted(found, key=lambda m: (FIRST.index(m) if m in FIRST else len(FIRST), m))


def reversal(opened: Opened, metric: str, filters: Filters, contenders: Sequence[str]) -> analysis.ReversalView:
    """Ranks of these contenders under every fill; ``InvalidParameter`` where there is nothing to rank."""
    return _asked("reversal", opened, metric=metric, filters=str(filters), contenders=list(contenders))


def pair(opened: Opened, metric: str, filters: Filters, a: str, b: str) -> analysis.PairView:
    """Two contenders under every fill."""
    return _asked("pair", opened, metric=metric, filters=str(filters), a=a, b=b)


def pairs(opened: Opened, metric: str, filters: Filters, contenders: Sequence[str], fill: str) -> analysis.PairsView:
    """All contenders under one fill at once."""
    return _asked("pairs", opened, metric=metric, filters=str(filters), contenders=list(contenders), fill=fill)


def compression(
    opened: Opened, metric: str, filters: Filters, native: Sequence[str], scheme: str
) -> analysis.CompressionView:
    """Spread of the families under RISE over that under their own explainers."""
    return _asked("compression", opened, metric=metric, filters=str(filters), native=list(native), scheme=scheme)


def _asked(question: str, opened: Opened, **words: Any) -> Any:  # Any: words as JSON takes them -> a view
    said = json.dumps({"question": question, **words}, sort_keys=True)
    found = _answer(f"{opened.stamp}{said}", opened.root, opened.stamp, said)
    if isinstance(found, str):
        raise InvalidParameter(found)
    return found


@st.cache_data(max_entries=200, show_spinner=False)
def _answer(key: str, _root: str, _stamp: str, _said: str) -> Any:  # Any: a view, or the sentence why there is none
    words = json.loads(_said)
    question, metric = words.pop("question"), words.pop("metric")
    words["filters"] = Filters.parse(words["filters"])
    before, after = ([words.pop(name) for name in names if name in words] for names in (("a", "b"), ("fill",)))
    try:
        ask, rng = getattr(analysis, question), np.random.default_rng(SEED)
        return ask(_results(_root, _stamp), *before, metric, *after, rng=rng, **words)
    except AuditError as reason:
        return str(reason)


@st.cache_data(max_entries=50, ttl=60, show_spinner=False)
def _manifest(root: str) -> dict[str, Any]:  # Any: JSON data
    return StudyFolder(Path(root)).manifest()


@st.cache_resource(max_entries=4, show_spinner=False)
def _results(root: str, stamp: str) -> Results:
    return Results.open(root)


def _ranks(metric: str) -> bool:
    try:
        sign(metric)
    except AuditError:
        return False
    return True
