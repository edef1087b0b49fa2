"""What Side by side asks: the study of the run's checkpoints, and the path of the ranks, each answered once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import streamlit as st

from audit_core.errors import BadData, InvalidParameter
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

METRIC = "srg"
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
    """Ranks of one checkpoint's explainers under every fill; random order is their yardstick and is not ranked.

    ``InvalidParameter`` for a step that was not ranked.
    """
    if not (named := contenders(opened, step)):
        raise InvalidParameter(f"step {step} was not ranked; run python -m audit_core i2x rank again")
    return reversal_work.reversal(opened, metric, filters, named)


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
    found = {one.name: _look(one, titles, inside) for one in opened.results.contenders}
    shared = {(look.family, one.explainer) for one in opened.results.contenders if (look := found[one.name])}
    twice = {title for title, count in Counter(title for title, _ in shared).items() if count > 1}
    for one in opened.results.contenders:  # two settings of one explainer are told apart by them
        if found[one.name].family in twice and (told := one.explainer.partition(":")[2]):
            found[one.name] = replace(found[one.name], family=f"{found[one.name].family}, {told}")
    return found


def _look(one: Contender, titles: Mapping[str, str], inside: list[str]) -> Look:
    control, theme = one.role == "control", chart.theme()
    place = 0 if control else inside.index(one.explainer)
    colour = GREY[theme] if control else HUES[place % len(HUES)]
    dash = DASHES.get(one.explainer.partition(":")[0], "dash") if control else "solid"
    marker = "line-ew-open" if control else MARKERS[place % len(MARKERS)]
    title = (titles.get(one.name) or one.explainer).replace(" (control)", "")
    return Look(colour, dash, marker, title, ROLES[one.role], control)


def fills(opened: Study, metric: str) -> list[str]:
    """Those with numbers of the metric, in the order in which the study names them."""
    named, held = [str(fill) for fill in opened.manifest.get("fills", [])], opened.results.fills_of(metric)
    return [fill for fill in named if fill in held] or list(held)


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
