"""How the prototypes moved the classes: trajectories, the graph and beta at one transition, scrubbed together."""

from __future__ import annotations

import streamlit as st

from pages.ui import (
    i2x_charts,
    i2x_charts_graph,
    i2x_gallery,
    i2x_link,
    i2x_pickers,
    i2x_words,
    i2x_work,
    wording,
)
from pages.ui import reversal_chart as chart
from pages.ui.i2x_work import Opened

PAGE = "i2x"
TRAJECTORY = (
    "Upper panel: confidence of the images of class A (solid) and B (dashed) in their own class, and in the other one "
    "(thin, dotted). Lower panel: mean saliency on the locations of a prototype, over the images that hold it. The "
    "shaded band is the transition of the slider."
)
GRAPH = (
    "How far each prototype moved each class, on the images of the two classes: β times the mean change of intensity, "
    "in units of confidence. Orange, solid, +: up; blue, dashed, −: down; width: size, one scale for all transitions."
)
BETA = "β: what one unit of intensity went with, in confidence; a rate, large also where hardly anything changed."


@st.fragment
def draw(opened: Opened) -> None:
    """Runs again by itself when the slider or the prototypes change."""
    made, pair = opened.analysis, i2x_link.pair()
    left, right = st.columns([1.3, 1], gap="large", vertical_alignment="bottom")
    with left:
        at = i2x_pickers.transition(opened)
    with right:
        chosen = i2x_pickers.prototypes(opened)
    pushes = i2x_work.pushes(opened, pair)
    i2x_gallery.cards(opened, chosen, chosen, pair)
    left, right = st.columns([1.3, 1], gap="large")
    with left:
        means = [i2x_work.means(opened, c) for c in pair]
        st.markdown("**Intensity and confidence over training**")
        st.plotly_chart(
            i2x_charts.trajectory(made, pair, chosen, means, at), key=f"{PAGE}.trajectory", theme=None,
            alt=_alt(opened), config={"modeBarButtons": [["zoom2d", "pan2d", "resetScale2d"]], "displaylogo": False},
        )  # fmt: skip
        st.caption(TRAJECTORY)
    with right:
        st.markdown("**From prototypes to classes**")
        patches = i2x_gallery.patches(opened)
        graph = i2x_charts_graph.figure(made, pushes, at, chosen, pair, patches)
        chart.show(graph, f"{PAGE}.graph", i2x_charts_graph.alt(made, pushes, at))
        st.caption(GRAPH)
    quality(opened, at)
    i2x_link.remember(opened)


def quality(opened: Opened, at: int) -> None:
    """beta of the transition, and what it can be trusted for."""
    one = opened.analysis.transitions[at]
    left, right = st.columns([1.3, 1], gap="large")
    with left:
        st.markdown("**β at this transition**")
        if one.groups:
            chart.show(i2x_charts.beta(opened.analysis, at), f"{PAGE}.beta", f"Heatmap of beta. {BETA}")
            st.caption(BETA)
        else:
            st.info(i2x_words.NO_GROUPS, icon=":material/block:")
    with right:
        st.markdown("**How far to trust it**")
        with st.container(horizontal=True):
            st.metric("Groups G", one.groups, help="Groups of images whose confidences changed alike (HDBSCAN).")
            st.metric("Images in no group", f"{one.noise:.0%}", help=f"of {one.images:,}, ↓ lower is better")
            st.metric("Condition", f"{one.condition:,.0f}", help="of the regression, 1 is best, ↓ lower is better")
            error = "–" if one.error != one.error else f"{one.error:.2f}"
            told = "Each group predicted by the others: 0 is best, 1 is that of predicting no change. ↓ lower is better"
            st.metric("Left-out error", error, help=told)
        st.caption(f"Confidences moved by {one.movement:.3f} on average (0 to 1).")
        for sentence in i2x_words.trust(one) if one.groups else ():
            st.markdown(f"- {wording.plain(sentence)}")
        for k in st.session_state[f"{PAGE}.prototypes"][:2] if one.groups else ():
            st.markdown(f"- {wording.plain(i2x_words.leading(opened.analysis, at, k))}")


def _alt(opened: Opened) -> str:
    seen = opened.analysis.trajectory
    told = []
    for c in i2x_link.pair():
        confidence = i2x_work.means(opened, c)[1][:, c]
        told.append(f"class {opened.analysis.classes[c]} from {confidence[0]:.2f} to {confidence[-1]:.2f}")
    return f"Mean confidence over {len(seen.steps)} checkpoints: {', '.join(told)}; below, prototype intensities."
