"""The choices of a curation and its fine-tuning, and what they would remove."""

from __future__ import annotations

import numpy as np
import streamlit as st

from audit_core.errors import AuditError
from audit_core.i2x import choices
from audit_core.i2x.curation import OTHER_PROTOTYPE, Curation, training_sets
from audit_core.i2x.strategies import Comparison
from models.finetuning import FineTuning
from pages.ui import i2x_link, wording
from pages.ui.i2x_link import RATES, REPEATS, SHARES
from pages.ui.i2x_pickers import title
from pages.ui.i2x_work import Opened
from pages.ui.params import hold

PAGE = i2x_link.PAGE


def asked(opened: Opened) -> tuple[int, Comparison]:
    """(start step, the comparison) as the widgets stand."""
    state, pair = st.session_state, i2x_link.pair()
    only = pair if state[f"{PAGE}.only"] else ()
    curation = Curation(state[f"{PAGE}.remove"], state[f"{PAGE}.share"], only)
    recipe, repeats = FineTuning(state[f"{PAGE}.rate"]), state[f"{PAGE}.repeats"]
    return state[f"{PAGE}.start"], Comparison(curation, pair, recipe, repeats, opened.analysis.settings.seed)


def draw(opened: Opened) -> None:
    """The widgets."""
    made = opened.analysis
    for name in ("remove", "share", "only", "start", "rate", "repeats"):
        hold(f"{PAGE}.{name}")
    follow = {"on_change": i2x_link.follow_prototype, "args": (opened,)}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Leave out images that hold", range(made.prototypes.count), key=f"{PAGE}.remove", format_func=title,
            width=190, **follow,
        )  # fmt: skip
        st.selectbox(
            "on more than", SHARES, key=f"{PAGE}.share", format_func=lambda share: f"{share:.0%} of their locations",
            width=210,
        )  # fmt: skip
        st.selectbox(
            "Start from the checkpoint of", made.trajectory.steps, key=f"{PAGE}.start", width=230,
            format_func=lambda step: f"step {step}",
            help="An early one still confuses classes, so that an effect can show.",
        )  # fmt: skip
        st.selectbox("Learning rate (AdamW)", RATES, key=f"{PAGE}.rate", format_func="{:g}".format, width=170)
        st.selectbox(
            "Repeats", range(1, REPEATS + 1), key=f"{PAGE}.repeats", width=110, help="One repeat has no interval."
        )
        st.toggle("Only images of these two classes", key=f"{PAGE}.only", **follow)


def removed(opened: Opened, curation: Curation) -> bool:
    """Say how many images of which class would go; whether that cannot be done."""
    seen, classes = opened.analysis.trajectory, opened.analysis.classes
    gone = choices.removed_per_class(seen.shares, seen.labels, curation, len(classes))
    told = ", ".join(f"{count:,} of {wording.plain(classes[c])}" for c, count in enumerate(gone) if count)
    st.markdown(f"Removed before training: **{int(gone.sum()):,}** of {len(seen.labels):,} images ({told or 'none'}).")
    try:
        sets = training_sets(seen.shares, seen.labels, curation, np.random.default_rng(opened.analysis.settings.seed))
    except AuditError as problem:
        st.warning(wording.plain(str(problem)), icon=":material/block:")
        return True
    if OTHER_PROTOTYPE not in sets:
        st.caption("No other prototype could be left out in the same way: that control is missing.")
    return False
