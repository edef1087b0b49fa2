"""Choosers of I2X: the run, two classes, an image, a transition, prototypes. Each draws, and returns the choice."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from audit_core.i2x.explanation import marked
from pages.ui import i2x_link, i2x_work
from pages.ui.i2x_work import Opened
from pages.ui.params import hold

PAGE = i2x_link.PAGE
MOST = 6  # prototypes drawn at once: as many hues are easily told apart


def run(asked: str, names: Sequence[str], page: str = PAGE) -> str:
    """A run that ships, or one's own."""
    key = f"{page}.run"
    if asked in names:
        st.session_state[key] = asked
    if st.session_state.get(key) not in names:
        st.session_state[key] = names[0]
    hold(key)
    return st.selectbox("Training run", names, key=key, width=190)


def class_pair(opened: Opened) -> tuple[int, int]:
    """Two different classes, as indices; the prototypes on screen follow them."""
    classes = opened.analysis.classes
    for side, label, other in (("a", "Class A", "b"), ("b", "Class B", "a")):
        hold(f"{PAGE}.{side}")
        st.selectbox(
            label, i2x_work.choosable(opened), key=f"{PAGE}.{side}", format_func=classes.__getitem__,
            on_change=_other_pair, args=(opened, other, st.session_state.get(f"{PAGE}.{side}")),
        )  # fmt: skip
    return i2x_link.pair()


def _other_pair(opened: Opened, other: str, before: int) -> None:
    """Both classes the same: the other one takes the place that this one left."""
    a, b = i2x_link.pair()
    if a == b:
        st.session_state[f"{PAGE}.{other}"] = before
    i2x_link.follow_pair(opened)


def image(opened: Opened) -> int:
    """An image of the analysis, by class and number; returns its place."""
    classes = opened.analysis.classes
    hold(f"{PAGE}.class")
    held = opened.analysis.trajectory.populated
    label = st.selectbox("Image of class", held, key=f"{PAGE}.class", format_func=classes.__getitem__, width=180)
    count = len(i2x_work.images_of_class(opened, label))
    st.session_state[f"{PAGE}.image"] = min(count, max(1, st.session_state[f"{PAGE}.image"]))
    hold(f"{PAGE}.image")
    st.number_input(f"Number, 1 to {count:,}", 1, count, key=f"{PAGE}.image", width=180)
    return i2x_link.image(opened)


def transition(opened: Opened) -> int:
    """From one checkpoint to the next; returns the index of the transition."""
    made, order = opened.analysis, marked(opened.analysis.transitions)
    steps = made.trajectory.steps

    def told(t: int) -> str:
        return f"step {steps[t]} → {steps[t + 1]}" + (" ◆" if t in order else "")

    hold(f"{PAGE}.at")
    return st.select_slider(
        "Transition (◆ confidences moved more than on average)", range(len(made.transitions)), key=f"{PAGE}.at",
        format_func=told,
    )  # fmt: skip


def prototypes(opened: Opened) -> list[int]:
    """The prototypes that are drawn in colour."""
    key = f"{PAGE}.prototypes"
    st.session_state[key] = st.session_state[key][:MOST]
    hold(key)
    return st.multiselect(
        "Prototypes in colour", range(opened.analysis.prototypes.count), key=key, format_func=title,
        max_selections=MOST, placeholder="None chosen",
    )  # fmt: skip


def title(k: int) -> str:
    """What a prototype is called."""
    return f"P-{k}"
