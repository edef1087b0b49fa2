"""Steps 1 to 3 of the story: a heatmap, its test, and the same map under another fill. From shipped audits."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from audit_core.errors import AuditError
from audit_core.examples import examples
from audit_core.record import AuditRecord
from audit_core.verdict import verdict
from pages.ui import charts, machine, resources, story_words, wording

STEPS = 3
SIDE, TALL, SMALL = 510, 480, 340  # px: the heatmap, one curve, one of two curves
NOUNS = {"deletion": "removed", "insertion": "shown"}


def pair() -> tuple[AuditRecord, AuditRecord] | None:
    """Two shipped audits of one map of one image under two fills, None where they are missing."""
    found = list(examples().values())
    for first in found:
        for second in found:
            if first.key != second.key and _same_map(first, second):
                return first, second
    return None


def _same_map(first: AuditRecord, second: AuditRecord) -> bool:
    one, other = first.spec, second.spec
    return (one.triple.checkpoint, one.triple.explainer, one.image) == (
        other.triple.checkpoint,
        other.triple.explainer,
        other.image,
    )


def draw(step: int) -> None:
    """One of the steps 1 to 3."""
    records = pair()
    if records is None:
        st.title("The examples of this story are not installed.", anchor=False)
        st.info("Run `python -m audit_core.examples` once; steps 4 and 5 need a study only.")
    elif step == 1:
        convincing(records[0])
    elif step == 2:
        tested(records[0])
    else:
        refilled(*records)


def convincing(record: AuditRecord) -> None:
    """Step 1: image and heatmap, large."""
    st.title(wording.plain(story_words.convincing(record)), anchor=False)
    left, middle, right = st.columns([1, 1, 0.55], gap="large")
    with left:
        st.markdown("#### What the network sees")
        charts.show_picture(record.pixels, "The image that the network sees")
    with middle:
        st.markdown("#### Where it looked: bright is important")
        figure = charts.heatmap(record.pixels, record.values, record.signed, 0.65, height=SIDE)
        bar = {"orientation": "h", "y": 0, "yanchor": "bottom", "thickness": 14, "title": {"side": "top"}, "nticks": 5}
        figure.update_traces(colorbar=bar)
        figure.update_yaxes(domain=[0.16, 1])
        figure.update_layout(font={"size": 15})
        st.plotly_chart(
            figure, key="story.heatmap", theme="streamlit", config={"displayModeBar": False},
            alt="Heatmap over the image",
        )  # fmt: skip
    with right:
        st.markdown(f"## {wording.percent(float(record.probabilities[record.predicted]))}")
        st.markdown("sure of its answer")
        if record.label is not None:
            st.markdown(f"### {'Right' if record.label == record.predicted else 'Wrong'}")
            st.markdown(wording.plain(f"the image is labelled {record.classes[record.label]}"))
    st.caption(wording.plain(_origin(record)))


def tested(record: AuditRecord) -> None:
    """Step 2: the deletion curve beside random order."""
    st.title(wording.plain(story_words.tested(record)), anchor=False)
    left, right = st.columns([2.6, 1], gap="large", vertical_alignment="center")
    with left:
        _curve(record, "deletion", TALL, "story.deletion")
    with right:
        st.markdown(f"## :blue[{100 * record.deletion_auc:.0f} %]")
        st.markdown("certainty left on average, pixels in the order of **this map**")
        if len(record.controls.deletion_auc):
            st.markdown(f"## :gray[{100 * float(record.controls.deletion_auc.mean()):.0f} %]")
            st.markdown(f"in **random order** ({len(record.controls.deletion_auc)} draws, the grey band)")
        st.caption("Lower is better: the map found what matters.")
    st.caption(wording.plain(f"Removed pixels become {story_words.stand_in(_fill(record))}. {_origin(record)}"))


def refilled(first: AuditRecord, second: AuditRecord) -> None:
    """Step 3: the curve on which the two fills differ most, side by side, with what the network saw."""
    st.title(wording.plain(story_words.refilled(first, second)), anchor=False)
    name = max(first.advantage, key=lambda curve: _apart(first, second, curve), default="deletion")
    for column, record in zip(st.columns(2, gap="large"), (first, second), strict=True):
        with column:
            _under_fill(record, name)
    other = {"deletion": "removed", "insertion": "shown again"}[name]
    st.caption(
        f"The stand-in is called the **fill**. Here the important pixels are {other} first. In brackets: the 95 % "
        "interval over random orders of this image."
    )


def _under_fill(record: AuditRecord, name: str) -> None:
    judged = verdict(record)
    becomes = wording.plain(story_words.stand_in(_fill(record)))
    st.markdown(f"#### Removed pixels become {becomes} {story_words.badge(judged.word)}")
    picture, chart = st.columns([1, 2.3], vertical_alignment="center")
    with picture:
        _seen(record, name)
    with chart:
        _curve(record, name, SMALL, f"story.fill.{_fill(record)}")
    st.markdown(_finding(record, name))


def _fill(record: AuditRecord) -> str:
    return record.spec.triple.fill.name


def _curve(record: AuditRecord, name: str, height: int, key: str) -> None:
    """A curve beside random order, in letters for a wall."""
    curve, random = getattr(record, name), getattr(record.controls, name)
    spec: dict[str, Any] = charts.curve_spec(curve.fraction, curve.score, random, "", NOUNS[name], record.spec.quantity)
    axis = {"labelFontSize": 16, "titleFontSize": 16, "titleFontWeight": "normal"}
    spec = {**spec, "title": None, "height": height - 70, "config": {"axis": axis}}
    for layer in spec["layer"]:
        layer["encoding"]["y"] |= {"title": "Certainty", "axis": {"format": "%", "tickCount": 5}}
    charts.curve(spec, key, f"{name.capitalize()} curve: {_finding(record, name)}")


def _seen(record: AuditRecord, name: str) -> None:
    """The image a quarter of the way, nothing where it cannot be made here."""
    step = len(record.deletion.fraction) // 4
    try:
        pixels = _perturbed(record.key, name, step)
    except AuditError:
        return
    share = f"{record.deletion.fraction[step]:.0%}".replace("%", " %")
    charts.show_picture(pixels, "What the network saw", f"{share} of the pixels {NOUNS[name]}")


@st.cache_data(max_entries=8, show_spinner="Drawing what the network saw …")
def _perturbed(key: str, name: str, step: int) -> np.ndarray:
    from audit_core import audit

    return audit.perturbed(examples()[key], resources.bench(), name, step)


def _finding(record: AuditRecord, name: str) -> str:
    effect = record.advantage.get(name)
    if effect is None:
        return "No random orders to compare with."
    words = {1: "better than random", 0: "no better than random", -1: "worse than random"}[story_words.side(effect)]
    low, high = (f"{100 * bound:+.0f}".replace("-", "−") for bound in (effect.low, effect.high))
    gain = f"{100 * effect.value:+.0f}".replace("-", "−")
    return f"**{words.capitalize()}**: {gain} [{low}, {high}] points of certainty"


def _apart(first: AuditRecord, second: AuditRecord, name: str) -> float:
    return abs(first.advantage[name].value - second.advantage[name].value) if name in second.advantage else 0.0


def _origin(record: AuditRecord) -> str:
    made = "a generated wafer map" if record.spec.image.startswith("synthetic") else record.spec.image
    return f"{machine.family(record)}, {record.spec.triple.explainer.name}, {made}."
