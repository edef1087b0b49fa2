"""Audits as jobs: submit, watch, cancel; and where a finished one is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from audit_core import audit, jobs
from audit_core.audit import Prepared
from audit_core.errors import AuditError
from audit_core.examples import examples
from audit_core.record import AuditRecord
from pages.ui import resources, wording

POLL = 0.35  # seconds between looks at a running job
PATIENCE = 0.3  # seconds for which a new job may hold the page back, so that it is drawn with a curve at once


def finished(prepared: Prepared) -> AuditRecord | None:
    """The record of this audit if anybody computed it here, or if it ships with the project."""
    known = examples().get(prepared.key) or audit.find(prepared, resources.bench())
    job = None if known else resources.jobs().get(prepared.key)
    return job.result if job is not None and job.state == jobs.DONE else known  # a full store keeps nothing


def start(prepared: Prepared, page: str) -> None:
    """Begin or join the audit; one that this session cancelled, or that failed, waits for a click instead."""
    now = resources.jobs().get(prepared.key, resources.owner())
    if left(prepared.key) or (now is not None and now.state == jobs.FAILED):
        st.button(
            "Run audit",
            type="primary",
            key=f"{page}.run",
            on_click=_again,
            args=(prepared,),
            icon=":material/play_arrow:",
        )
        return
    try:
        submit(prepared)
    except AuditError as problem:
        st.error(wording.plain(str(problem)), icon=":material/error:")


def soon(prepared: Prepared) -> AuditRecord | None:
    """Give a new job a moment for its first points; the record where that was enough for all of them."""
    now = resources.jobs().wait(prepared.key, PATIENCE, partial=True)
    return now.result if now is not None and now.state == jobs.DONE else None


def _again(prepared: Prepared) -> None:
    resume(prepared.key)
    try:
        submit(prepared)
    except AuditError:  # too many jobs: the page says so when it draws
        return


def submit(prepared: Prepared) -> None:
    """Queue the audit unless it is cached, running or waiting already."""
    spec = prepared.spec

    def run(context: jobs.JobContext) -> AuditRecord:
        return audit.run(
            spec, resources.bench(), lambda fraction, message, partial: context.report(fraction, message, partial)
        )

    resources.jobs().submit(prepared.key, str(spec.triple), run, resources.owner(), str(resources.bench().device))


def stop(key: str) -> None:
    """Leave a job; it ends when nobody else waits for it."""
    st.session_state.setdefault("left", set()).add(key)
    resources.jobs().cancel(key, resources.owner())


def resume(key: str) -> None:
    """Forget that this session left the job."""
    st.session_state.setdefault("left", set()).discard(key)


def left(key: str) -> bool:
    """Whether this session cancelled the job."""
    return key in st.session_state.get("left", set())


def panel(key: str, draw_partial: Callable[[Any], None], from_the_start: bool = False) -> None:
    """Progress, time left, cancel and the partial result of a job; looks again by itself until the job ends.

    draw_partial: Any: what the job reports; from_the_start: it is also given the None of a job that reported nothing.
    """
    first = resources.jobs().get(key, resources.owner())
    if first is None:
        return

    @st.fragment(run_every=None if first.final else POLL)
    def look() -> None:
        resources.jobs().of_owner(resources.owner())  # whoever watches one job keeps all of theirs alive
        now = resources.jobs().get(key, resources.owner())
        if now is None or now.final != first.final:
            st.rerun()
        _state(now)
        if now.state in (jobs.QUEUED, jobs.RUNNING):
            st.button("Cancel", key=f"cancel.{key}", on_click=stop, args=(key,), icon=":material/stop_circle:")
        if now.partial is not None or from_the_start:
            draw_partial(now.partial)

    look()


def _state(now: jobs.Snapshot) -> None:
    if now.state == jobs.QUEUED:
        st.progress(0.0, text=f"Waiting for the device: {now.ahead} ahead of you")
    elif now.state == jobs.RUNNING:
        st.progress(now.fraction, text=f"{now.message} · {now.seconds:.0f} s · {wording.duration(now.seconds_left)}")
    elif now.state == jobs.STOPPING:
        st.progress(now.fraction, text="Stopping …")
    elif now.state == jobs.CANCELLED:
        st.warning(
            "Cancelled. What was computed until then stands below; nothing else was lost.",
            icon=":material/stop_circle:",
        )
    elif now.state == jobs.FAILED:
        st.error(wording.plain(now.error or "The audit failed."), icon=":material/error:")
        if now.trace:
            with st.expander("Details"):
                st.code(now.trace)
