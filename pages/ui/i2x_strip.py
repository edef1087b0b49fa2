"""The checkpoint strip: one image under the heatmap of every checkpoint, on one scale, with the accuracy below."""

from __future__ import annotations

from functools import partial

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from audit_core import jobs
from audit_core.errors import AuditError
from audit_core.explainers import EXPLAINERS
from audit_core.i2x import strip
from audit_core.i2x.explanation import marked
from audit_core.i2x.strip import Strip
from audit_core.jobs import JobContext
from audit_core.keys import Choice
from pages.ui import i2x_charts, i2x_pictures, i2x_work, resources, wording, work
from pages.ui.i2x_link import short
from pages.ui.i2x_work import Opened

PAGE, TILE = "i2x", 84  # px
PATIENCE = 0.6  # seconds for which a new job may hold the page back, so that the strip is drawn at once


def draw(opened: Opened, place: int, scale: DeltaGenerator) -> None:
    """The strip of the image at ``place`` of the analysis, computed once as a job; its colour bar goes to ``scale``."""
    try:
        i2x_work.pixels(opened, place)
        found = computed(opened, place)
    except AuditError as problem:
        st.warning(wording.plain(f"No heatmaps: {problem}"), icon=":material/hide_image:")
        return
    st.caption(_how_to_read(opened, place))
    with scale:
        colours = i2x_pictures.bar(found.span if found else (0.0, 1.0), 320)
        st.image(colours, width=320, alt="Colour scale of the heatmaps, from low to high")
        low, high = (f"{value:.3g}" for value in found.span) if found else ("0", "the largest value")
        st.caption(f"{low} (left) to {high}: {_unit(opened)}; one scale for the whole strip")
    if found is not None:
        _tiles(opened, place, found)
        return
    key = _job(opened, place)
    now = resources.jobs().get(key, resources.owner())
    if now is not None and not now.final:
        work.panel(key, partial(_tiles, opened, place))
    if now is None or now.partial is None:
        _tiles(opened, place, None)
    if now is None or now.final:
        if now is not None and now.error:
            st.error(wording.plain(now.error), icon=":material/error:")
        st.button(
            "Compute the heatmaps", key=f"{PAGE}.look", on_click=_again, args=(key,), icon=":material/play_arrow:"
        )


def computed(opened: Opened, place: int) -> Strip | None:
    """The finished strip; where it is not there its job is begun, unless this session cancelled it."""
    key = _job(opened, place)
    previous = st.session_state.get(f"{PAGE}.strip")
    if previous and previous != key:
        resources.jobs().cancel(previous, resources.owner())
    st.session_state[f"{PAGE}.strip"] = key
    if (stored := _stored(key)) is not None:
        return stored
    now = resources.jobs().get(key, resources.owner())
    if not work.left(key) and (now is None or now.state in (jobs.CANCELLED, jobs.DONE)):
        _submit(opened, place, key)
        now = resources.jobs().wait(key, PATIENCE)
    return now.result if now is not None and now.state == jobs.DONE else None


def _job(opened: Opened, place: int) -> str:
    return "i2x-strip:" + strip.identity(opened.analysis, opened.analysis.references[place])


def _submit(opened: Opened, place: int, key: str) -> None:
    made, run, device = opened.analysis, opened.run, str(resources.bench().device)
    reference, label = made.references[place], int(made.trajectory.labels[place])
    store = resources.store()

    def look(context: JobContext) -> Strip:
        found = strip.follow(run, made.trajectory.steps, reference, label, made.settings, device, context.report)
        store.put_arrays(key, {"maps": found.maps, "confidence": found.confidence})
        return found

    resources.jobs().submit(key, f"Strip of {short(reference)}", look, resources.owner(), device)


def _stored(key: str) -> Strip | None:
    arrays = resources.store().get_arrays(key)
    return Strip(tuple(range(len(arrays["maps"]))), arrays["maps"], arrays["confidence"]) if arrays else None


def _again(key: str) -> None:
    work.resume(key)
    st.session_state.pop(f"{PAGE}.strip", None)


def _tiles(opened: Opened, place: int, found: Strip | None) -> None:
    seen, label = opened.analysis.trajectory, int(opened.analysis.trajectory.labels[place])
    pixels, order = i2x_work.pixels(opened, place), marked(opened.analysis.transitions)
    name, span = opened.analysis.classes[label], found.span if found else (0.0, 1.0)
    with st.container(horizontal=True, gap="xsmall", key=f"{PAGE}.tiles"):
        for t, step in enumerate(seen.steps):
            done = found is not None and t < len(found.maps)
            with st.container(width=TILE, gap=None):
                own = f"class {name}: {found.confidence[t, label]:.0%}" if done else ""
                alt = f"Step {step}, accuracy {seen.accuracy[t]:.1%}. {own}"
                st.image(i2x_pictures.tile(pixels, found.maps[t] if done else None, span), width=TILE, alt=alt)
                note = f" ◆{order.index(t - 1) + 1}" if t - 1 in order else ""
                st.markdown(f"**step {step}**{note}  \n{seen.accuracy[t]:.1%} right")
                st.caption(f"“{wording.plain(name)}” {found.confidence[t, label]:.0%}" if done else "…")


def _unit(opened: Opened) -> str:
    return i2x_charts.UNIT if opened.analysis.settings.explainer == "grad-cam" else "in the explainer’s unit"


def _how_to_read(opened: Opened, place: int) -> str:
    name = opened.analysis.classes[int(opened.analysis.trajectory.labels[place])]
    explainer = EXPLAINERS[Choice.parse(opened.analysis.settings.explainer).name].title
    return (
        f"Raw {wording.plain(explainer)} for the image’s class, “{wording.plain(name)}”, at every checkpoint; below it "
        "the share of all images that it gets right (↑ higher is better) and its confidence in this image’s "
        "class. ◆1 is the checkpoint before which the confidences moved most."
    )
