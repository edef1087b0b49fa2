"""The images on which two contenders disagree most, side by side, with the way to audit them one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st

from audit_core.data import dataset_of
from audit_core.images import prepare
from audit_core.study.analysis import Disagreement, PairUnderFill, PairView
from models import zoo
from pages.ui import charts, link, wording
from pages.ui import reversal_chart as chart
from pages.ui.params import hold
from pages.ui.reversal_looks import Look, fill_title
from pages.ui.reversal_work import Opened

PAGE, SHOWN, OWN = "reversal", 3, "synthetic:sample:"
PER_CLASS = 10
WIDTH = 112  # px of a tile: two beside each other on a phone


def draw(opened: Opened, found: PairView, shown: Sequence[PairUnderFill], looks: Mapping[str, Look]) -> str:
    """Images of one fill that speak most for either contender; returns that fill."""
    st.markdown("#### Where they disagree most")
    fills, key = [one.fill for one in shown], f"{PAGE}.fill"
    if st.session_state.get(key) not in fills:
        st.session_state[key] = fills[0]
    hold(key)
    fill = st.segmented_control("Under the fill", fills, key=key, format_func=fill_title, required=True)
    one = next(one for one in shown if one.fill == fill)
    if not (one.for_a or one.for_b):
        st.caption("No image has two different numbers here.")
        return fill
    images = [*one.for_a[:SHOWN], *one.for_b[:SHOWN]]
    if any(not _shipped(image.image) for image in images):
        st.caption(
            ":material/image_not_supported: The study’s own images are not shipped. Shown instead: a generated wafer "
            "map of the same class, marked “look-alike”; the numbers are those of the study’s image."
        )
    for column, side, rows in zip(st.columns(2, gap="large"), ("A", "B"), (one.for_a, one.for_b), strict=True):
        with column:
            name = looks[found.a if side == "A" else found.b].name
            st.markdown(f"**{side} is ahead** · {wording.plain(name)}")
            if not rows:
                st.caption("on no image")
            with st.container(horizontal=True, gap="small"):
                for image in rows[:SHOWN]:
                    with st.container(width=WIDTH, gap="xsmall"):
                        _tile(opened, found, image, fill)
    return fill


def _tile(opened: Opened, found: PairView, image: Disagreement, fill: str) -> None:
    reference = image.image if _shipped(image.image) else _look_alike(image)
    arrow = chart.direction(found.better)[:1]
    if reference:
        kind = "" if reference == image.image else ", look-alike"
        charts.show_picture(_pixels(reference), f"Wafer map of class {image.label}{kind}", f"{image.label}{kind}")
    else:
        st.caption(f":material/hide_image: {wording.plain(image.label or image.image)}, not shipped")
    st.markdown(f"A **{image.a:.3f}** {arrow}  \nB **{image.b:.3f}** {arrow}")
    said = {word for side in (image.predicted_a, image.predicted_b) for word in side.split(" | ") if word}
    if image.label and (wrong := sorted(said - {image.label})):
        st.caption(f"taken for {wording.plain(chart.listed(wrong))}")
    for side, name in (("A", found.a), ("B", found.b)):
        _audit(opened, side, name, fill, reference)


def _audit(opened: Opened, side: str, name: str, fill: str, reference: str) -> None:
    """A link to the spot audit of one contender under this fill, where its checkpoint is at hand."""
    contender = opened.results.contender(name)
    here = [checkpoint for checkpoint in contender.checkpoints if checkpoint in zoo.names()]
    if here and reference:
        words = {"checkpoint": here[0], "explainer": contender.explainer, "fill": fill, "image": reference}
        st.page_link(
            "pages/spot_audit.py",
            label=f"Audit {side}",
            icon=":material/arrow_forward:",
            query_params={**link.DEFAULTS, **words},
            help=f"Spot audit of {contender.name} under {fill_title(fill)} on the picture shown.",
        )
    elif not here:
        st.caption(f":material/hide_source: {side}: weights not shipped")


def _shipped(reference: str) -> bool:
    return reference.startswith(OWN)


def _look_alike(image: Disagreement) -> str:
    """Reference of a generated wafer map of the same class, "" where there is no such class."""
    classes = dataset_of(f"{OWN}0")[0].classes
    if image.label not in classes:
        return ""
    return f"{OWN}{classes.index(image.label) + len(classes) * (image.unit % PER_CLASS)}"


@st.cache_data(max_entries=200, show_spinner=False)
def _pixels(reference: str) -> np.ndarray:
    dataset, index = dataset_of(reference)
    return prepare(dataset.image(index), zoo.card(zoo.names()[0]))
