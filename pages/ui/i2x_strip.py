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
        told = wording.without_folders(f"No heatmaps: {problem}")
        st.warning(wording.plain(told), icon=":material/hide_image:")
        return
    st.caption(_how_to_read(opened, place))
    key = _job(opened, place)
    now = None if found else resources.jobs().get(key, resources.owner())
    shown = found or (now.partial if now else None)
    with scale:
        _scale(opened, shown)
    if now is not None and not now.final:
        work.panel(key, partial(_tiles, opened, place), from_the_start=True)
        return
    _tiles(opened, place, shown)
    if found is None:
        for told in filter(None, (st.session_state.pop(f"{PAGE}.look.refused", ""), now.error if now else "")):
            st.error(wording.plain(wording.without_folders(told)), icon=":material/error:")
        st.button("Compute the heatmaps", key=f"{PAGE}.look", on_click=_again, args=(opened, place),
                  icon=":material/play_arrow:")  # fmt: skip


def _scale(opened: Opened, shown: Strip | None) -> None:
    colours = i2x_pictures.bar(shown.span if shown else (0.0, 1.0), 320)
    st.image(colours, width=320, alt="Colour scale of the heatmaps, from low to high")
    low, high = (f"{value:.3g}" for value in shown.span) if shown else ("0", "the largest value")
    st.caption(f"{low} (left) to {high}: {_unit(opened)}; one scale for the whole strip")


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
    store, bench = resources.store(), resources.bench()

    def look(context: JobContext) -> Strip:
        found = strip.follow(made, run, reference, label, device, context.report)
        keep = {"maps": found.maps, "confidence": found.confidence}
        bench.keep(lambda: store.put_arrays(key, keep))
        return found

    resources.jobs().submit(key, f"Strip of {short(reference)}", look, resources.owner(), device)


def _stored(key: str) -> Strip | None:
    arrays = resources.store().get_arrays(key)
    return Strip(tuple(range(len(arrays["maps"]))), arrays["maps"], arrays["confidence"]) if arrays else None


def _again(opened: Opened, place: int) -> None:
    """Begin anew what was cancelled or failed."""
    key = _job(opened, place)
    work.resume(key)
    try:
        _submit(opened, place, key)
    except AuditError as problem:
        st.session_state[f"{PAGE}.look.refused"] = str(problem)


def _tiles(opened: Opened, place: int, found: Strip | None) -> None:
    seen, label = opened.analysis.trajectory, int(opened.analysis.trajectory.labels[place])
    pixels, order = i2x_work.pixels(opened, place), marked(opened.analysis.transitions)
    name, span = opened.analysis.classes[label], found.span if found else (0.0, 1.0)
    accuracy = seen.accuracy
    with st.container(horizontal=True, gap="xsmall", key=f"{PAGE}.tiles"):
        for t, step in enumerate(seen.steps):
            done = found is not None and t < len(found.maps)
            with st.container(width=TILE, gap=None):
                own = f"class {name}: {found.confidence[t, label]:.0%}" if done else ""
                alt = f"Step {step}, accuracy {accuracy[t]:.1%}. {own}"
                st.image(i2x_pictures.tile(pixels, found.maps[t] if done else None, span), width=TILE, alt=alt)
                note = f" ◆{order.index(t - 1) + 1}" if t - 1 in order else ""
                st.markdown(f"**step {step}**{note}  \n{accuracy[t]:.1%} right")
                st.caption(f"“{wording.plain(name)}” {found.confidence[t, label]:.0%}" if done else "…")


def _unit(opened: Opened) -> str:
    return i2x_charts.unit(opened.analysis.settings)


def _how_to_read(opened: Opened, place: int) -> str:
    name = opened.analysis.classes[int(opened.analysis.trajectory.labels[place])]
    explainer = EXPLAINERS[Choice.parse(opened.analysis.settings.explainer).name].title
    raw = "Raw" if opened.analysis.settings.normalisation == "none" else "Rescaled"
    return (
        f"{raw} {wording.plain(explainer)} for the image’s class, “{wording.plain(name)}”, at every checkpoint; below "
        "it the share of all images that it gets right (↑ higher is better) and its confidence in this image’s "
        "class. ◆1 is the checkpoint before which the confidences moved most."
    )
