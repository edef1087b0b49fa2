"""The left rail of the ranking: which study, metric, images and training runs, and what is resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from audit_core.errors import AuditError
from audit_core.study.analysis import SchemeView
from audit_core.study.filters import CORRECT, Filters
from audit_core.study.shelf import SHIPPED, VISITOR, Shelf
from pages.ui import link, reversal_looks, reversal_work, wording
from pages.ui import reversal_link as words_of
from pages.ui.params import hold
from pages.ui.reversal_chart import metric_title
from pages.ui.reversal_work import Opened

PAGE, NONE = "reversal", "none"
RIGHT = {
    "any": "All images",
    "own": "Those its own checkpoint got right",
    "all": "Those every checkpoint got right",
}
SCHEMES = {
    "images": ("Images", "Only images are drawn anew: the intervals speak about other images for these very networks."),
    "runs+images": (
        "Training runs and images",
        "Training runs are drawn anew as well: the intervals speak about retrained networks, and are wider.",
    ),
}


def study(asked: str, names: Sequence[str]) -> str:
    """A study on the shelf, or a visitor's own that was opened by its link; set before anything else is drawn."""
    options = list(names)
    for name in (asked, st.session_state.get(f"{PAGE}.study") or ""):
        if name.startswith(VISITOR) and name not in options and _there(name):
            options.append(name)
    if asked in options:
        st.session_state[f"{PAGE}.study"] = asked
    if st.session_state.get(f"{PAGE}.study") not in options:
        st.session_state[f"{PAGE}.study"] = options[0]
    return st.selectbox("Study", options, key=f"{PAGE}.study", format_func=_study_name)


def seed(asked: Mapping[str, Sequence[str]], opened: Opened) -> list[str]:
    """Set the widgets to a link's words, else to their defaults; returns a sentence for each without meaning."""
    state, results, problems = st.session_state, opened.results, []
    offered = reversal_work.metrics(opened)
    metric = link.first(asked, "metric")
    if metric and metric not in offered:
        problems.append(f"the study does not rank by {metric!r}; it has {', '.join(offered)}.")
    state[f"{PAGE}.metric"] = metric if metric in offered else offered[0]
    filters, wrong = words_of.filters_of(asked)
    classes = [name for name in filters.classes if name in results.classes]
    seeds = [n for n in filters.training_seeds if n in results.training_seeds]
    if gone := [*(set(filters.classes) - set(classes)), *map(str, set(filters.training_seeds) - set(seeds))]:
        wrong.append(f"the study has no {' and no '.join(sorted(gone))}; left out of the filters.")
    state[f"{PAGE}.classes"], state[f"{PAGE}.training_seeds"] = classes, seeds
    state[f"{PAGE}.without_none"] = NONE in filters.leave_out
    state[f"{PAGE}.correct"] = filters.correct
    state[f"{PAGE}.published"] = link.first(asked, "published") == "1"
    state[f"{PAGE}.scheme"] = link.first(asked, "scheme")
    known = {c.name for c in results.contenders}
    chosen = [name for name in asked.get("contender", []) if name in known]
    if unknown := [name for name in asked.get("contender", []) if name not in known]:
        problems.append(f"the study has no contender {', '.join(map(repr, unknown))}; left out.")
    state[f"{PAGE}.contenders"] = chosen or preset("default", opened)
    for side in ("a", "b"):
        if (name := link.first(asked, side)) and name not in known:
            problems.append(f"the study has no contender {name!r} to compare; showing the surest pair.")
        state[f"{PAGE}.{side}"] = name if name in known else ""
    fill = link.first(asked, "fill")
    state[f"{PAGE}.fill"] = fill if fill in results.fills else ""
    return problems + wrong


def preset(kind: str, opened: Opened) -> list[str]:
    """Names of a ready-made choice of contenders: "default" (each family's own and RISE), "own", "control", "all"."""
    every = opened.results.contenders
    if kind == "default":
        first = set(reversal_looks.native(every, opened.manifest).values())
        names = [c.name for c in every if c.name in first or c.explainer.partition(":")[0] == "rise"]
        return names if len(names) > 1 else [c.name for c in every if c.role != "control"]
    return [c.name for c in every if kind == "all" or c.role == kind]


def draw(opened: Opened) -> tuple[str, Filters]:
    """Metric and filters of the rail."""
    results = opened.results
    for name in ("metric", "classes", "without_none", "training_seeds", "correct"):
        hold(f"{PAGE}.{name}")
    metric = st.selectbox(
        "Metric", reversal_work.metrics(opened), key=f"{PAGE}.metric", format_func=metric_title,
        help="What the contenders are ranked by: its mean over the images.",
    )  # fmt: skip
    classes, without, seeds = (), False, ()
    if results.classes:
        classes = st.multiselect("Classes", results.classes, key=f"{PAGE}.classes", placeholder="All classes")
    if NONE in results.classes:
        without = st.toggle("Leave out “none”", key=f"{PAGE}.without_none", help="Maps without any defect pattern.")
    if len(results.training_seeds) > 1:
        seeds = st.multiselect(
            "Training seeds", results.training_seeds, key=f"{PAGE}.training_seeds", placeholder="All training seeds"
        )
    correct = st.radio("Images", CORRECT, key=f"{PAGE}.correct", format_func=RIGHT.__getitem__)
    leave = (NONE,) if without else ()
    return metric, Filters(tuple(classes), leave, tuple(seeds), correct=correct)


def scheme(offered: Sequence[SchemeView]) -> SchemeView:
    """What is resampled, with one line that says what it means."""
    by_name = {str(one.scheme): one for one in offered}
    if st.session_state.get(f"{PAGE}.scheme") not in by_name:
        st.session_state[f"{PAGE}.scheme"] = list(by_name)[-1]
    if len(by_name) < 2:
        st.caption(f"Resampled: images. {SCHEMES['images'][1]} Each family has one training run here.")
        return next(iter(by_name.values()))
    hold(f"{PAGE}.scheme")
    chosen = st.radio("Resampled", list(by_name), key=f"{PAGE}.scheme", format_func=lambda name: SCHEMES[name][0])
    st.caption(SCHEMES[chosen][1])
    return by_name[chosen]


def _there(name: str) -> bool:
    try:
        return bool(Shelf.default().folder(name))
    except AuditError:
        return False


def _study_name(name: str) -> str:
    try:
        title = reversal_work.title(name)
    except AuditError:
        return name
    return f"{title} (ships with the project)" if name == SHIPPED else wording.heading(title)
