"""Side by side in the words of its URL: run, class pair, checkpoint, explainer, fill, and which images rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.ui import link, side_work
from pages.ui.i2x_work import Opened as Run
from pages.ui.reversal_work import Opened as Study

PAGE = "side"
KNOWN = ("run", "a", "b", "step", "explainer", "fill", "images")
ALL, PAIR = "all", "pair"

Words = dict[str, str]


def words() -> tuple[Words, bool]:
    """(what was asked for, whether it is news to the widgets): an opened link, else what was here last."""
    asked, news = link.lists(PAGE, KNOWN, f"{PAGE}.step")
    return {name: link.first(asked, name) for name in asked}, news


def seed(asked: Mapping[str, str], run: Run, study: Study) -> list[str]:
    """Set the widgets to a link's words, else to a good beginning; returns a sentence for each without meaning."""
    state, made = st.session_state, run.analysis
    a, b = made.trajectory.most_confused
    offered: dict[str, Sequence[str]] = {
        "a": made.classes,
        "b": made.classes,
        "step": [str(step) for step in made.trajectory.steps],
        "explainer": list(side_work.titles(study)),
        "fill": side_work.fills(study, side_work.METRIC),
        "images": (ALL, PAIR),
    }
    first = {
        "a": made.classes[a],
        "b": made.classes[b],
        "step": offered["step"][-1],
        "explainer": offered["explainer"][0],
        "fill": offered["fill"][0],
        "images": ALL,
    }
    problems = []
    for name, value in asked.items():
        if name in offered and value not in offered[name]:
            problems.append(f"{name} {value!r} is not here; showing {first[name]}.")
        elif name in offered:
            first[name] = value
    if first["a"] == first["b"]:
        problems.append(f"the two classes are both {first['a']!r}; showing another pair.")
        first["a"], first["b"] = made.classes[a], made.classes[b]
    for name, value in first.items():
        state[f"{PAGE}.{name}"] = value
    return problems


def remember(run: str) -> None:
    """Write what is on screen into the URL and keep it for page switches."""
    shown = {"run": [run], **{name: [str(st.session_state[f"{PAGE}.{name}"])] for name in KNOWN[1:]}}
    st.session_state[f"{PAGE}.words"] = shown
    link.settle(PAGE, shown)
