"""What Side by side asks: the study of the run's checkpoints, and the path of the ranks, each answered once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from audit_core.errors import BadData
from audit_core.i2x import ranking
from audit_core.i2x.ranking import RankPath
from audit_core.study.filters import Filters
from audit_core.study.folder import MANIFEST, StudyFolder
from audit_core.study.nouns import Contender
from audit_core.study.results import Results
from pages.ui import i2x_work, reversal_work
from pages.ui import reversal_chart as chart
from pages.ui.i2x_work import Opened as Run
from pages.ui.reversal_looks import DASHES, GREY, HUES, MARKERS, Look
from pages.ui.reversal_work import Opened as Study

RESAMPLES = 300
ANALYSES = ".triplecheck/analyses"
ROLES = {"own": "reads the inside", "agnostic": "reads scores only", "control": "control"}


def study(run: Run) -> Study:
    """The study of every checkpoint of a run; ``BadData`` where nobody made it."""
    root = run.folder / "ranking"
    if not (root / MANIFEST).is_file():
        raise BadData(
            f"the explainers of {run.name} were not ranked along its training; do it with "
            f"python -m audit_core i2x rank RUN --out {ANALYSES}/{run.name}/ranking"
        )
    stamp = Results.fingerprint(root)
    return Study(run.name, str(root), stamp, StudyFolder(root).manifest(), _results(str(root), stamp))


@st.cache_resource(max_entries=4, show_spinner=False)
def _results(root: str, stamp: str) -> Results:
    return Results.open(root)


def view(opened: Study, metric: str, filters: Filters, step: int):
    """Ranks of one checkpoint's explainers under every fill; random order is their yardstick and is not ranked."""
    return reversal_work.reversal(opened, metric, filters, list(contenders(opened, step)))


def contenders(opened: Study, step: int) -> list[str]:
    """Names of one checkpoint's contenders, without random order."""
    known = {one.name: one.explainer for one in opened.results.contenders}
    return [name for name in ranking.contenders_at(opened.results, step) if known[name] != ranking.RANDOM]


def path(opened: Study, metric: str, filters: Filters) -> RankPath:
    """Ranks at every checkpoint."""
    return _path(opened.stamp, metric, str(filters), opened)


@st.cache_data(max_entries=60, show_spinner=False)
def _path(stamp: str, metric: str, filters: str, _opened: Study) -> RankPath:
    rng = np.random.default_rng(reversal_work.SEED)
    return ranking.along(_opened.results, metric, Filters.parse(filters), rng, RESAMPLES)


def looks(opened: Study) -> dict[str, Look]:
    """Look of every contender: one hue per explainer, the same at every checkpoint."""
    titles = {entry["contender"]: str(entry.get("title", "")) for entry in opened.manifest.get("contenders", [])}
    order = list(dict.fromkeys(one.explainer for one in opened.results.contenders))
    inside = [name for name in order if role_of(opened, name) != "control"]
    return {one.name: _look(one, titles, inside) for one in opened.results.contenders}


def _look(one: Contender, titles: Mapping[str, str], inside: list[str]) -> Look:
    control, theme = one.role == "control", chart.theme()
    place = 0 if control else inside.index(one.explainer)
    colour = GREY[theme] if control else HUES[place % len(HUES)]
    dash = DASHES.get(one.explainer.partition(":")[0], "dash") if control else "solid"
    marker = "line-ew-open" if control else MARKERS[place % len(MARKERS)]
    title = (titles.get(one.name) or one.explainer).replace(" (control)", "")
    return Look(colour, dash, marker, title, ROLES[one.role], control)


def fills(opened: Study) -> list[str]:
    """In the order in which the study names them."""
    named = [str(fill) for fill in opened.manifest.get("fills", [])]
    return [fill for fill in named if fill in opened.results.fills] or list(opened.results.fills)


def role_of(opened: Study, explainer: str) -> str:
    """ "own", "agnostic" or "control"."""
    return next(one.role for one in opened.results.contenders if one.explainer == explainer)


def titles(opened: Study) -> dict[str, str]:
    """Explainer -> its title in menu words, random order left out."""
    named = looks(opened)
    return {c.explainer: named[c.name].family for c in opened.results.contenders if c.explainer != ranking.RANDOM}


def open_run(name: str) -> Run:
    """The analysis on the right."""
    return i2x_work.open_analysis(name)
