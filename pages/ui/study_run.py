"""A study as a job: begin, watch, cancel, resume."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import streamlit as st

from audit_core import jobs
from audit_core.errors import AuditError
from audit_core.jobs import JobCancelled, JobContext, Snapshot
from audit_core.study import runner
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import Plan
from audit_core.study.runner import Progress
from audit_core.study.shelf import VISITOR, Shelf
from pages.ui import resources, study_cost, study_link, study_words, wording, work

POLL = 2.0  # seconds between looks at a running study
PROBLEM = "study.run_problem"
AWAY = (
    "You may look at other pages meanwhile. When this tab is closed the study stops within about three minutes; what "
    "is done stays done, and this address with its button *Resume* goes on from there."
)

LEFT = "You left this study. It goes on while somebody else watches it, and at most three minutes longer."


def begin(plan: Plan) -> None:
    """Give the study a folder and a name that nobody can guess, start it and turn the page to it."""
    study_cost.forget_probe()
    name = Shelf.default().fresh()
    try:
        (Shelf.default().root / name).mkdir(parents=True)
        StudyFolder(Shelf.default().root / name).create(plan)
    except (AuditError, OSError) as problem:
        st.session_state[PROBLEM] = wording.without_folders(f"the study cannot be written: {problem}")
        return
    study_link.remember_own(name)
    study_link.show(name)
    submit(name)


def submit(name: str) -> None:
    """Run the study or go on with it, unless it runs already."""
    folder = Shelf.default().folder(name)

    def run(context: JobContext) -> int:
        def report(now: Progress) -> None:
            told = f"{now.done:,} of {now.total:,} tasks done · {now.message}"
            with suppress(JobCancelled):  # asked again by ``stop``, between two steps of the work
                context.report(now.fraction, told, now)

        def stop() -> bool:
            try:
                context.checkpoint()
            except JobCancelled:
                return True
            return False

        end = runner.run(folder.study(), folder.root, resources.bench(), report=report, stop=stop)
        context.checkpoint()
        if end.failed:
            raise AuditError(f"{study_words.plural(end.failed, 'task')} of {end.total:,} failed; see the reasons below")
        return end.done

    work.resume(job_id(name))
    st.session_state.pop(PROBLEM, None)
    try:
        resources.jobs().submit(job_id(name), folder.study().title, run, resources.owner(), _device())
    except AuditError as problem:
        st.session_state[PROBLEM] = str(problem)


def _device() -> str:
    return str(resources.bench().device)


def job_id(name: str) -> str:
    """The job of a study."""
    return f"study:{name}"


def running(name: str) -> bool:
    """Whether the study waits or runs here; whoever looks at it keeps it alive, unless they left it."""
    if name.startswith(VISITOR) and not work.left(job_id(name)):
        resources.jobs().attach(job_id(name), resources.owner())
    now = resources.jobs().get(job_id(name), resources.owner())
    return now is not None and not now.final


def watch(name: str, draw_grid: Callable[[], None]) -> None:
    """Progress, cancel and the grid filling in; looks again by itself until the job ends."""
    key, cell = job_id(name), st.session_state.get(study_link.CELL)

    @st.fragment(run_every=POLL)
    def look() -> None:
        now = resources.jobs().get(key, resources.owner())
        if now is None or now.final:
            st.rerun()
        _progress(now)
        if work.left(key):
            st.info(LEFT, icon=":material/visibility_off:")
            st.button("Watch again", key="study.watch", on_click=_join, args=(key,), icon=":material/visibility:")
        elif now.state in (jobs.QUEUED, jobs.RUNNING):
            st.button("Cancel", key="study.cancel", on_click=work.stop, args=(key,), icon=":material/stop_circle:")
            st.caption(AWAY)
        draw_grid()
        if st.session_state.get(study_link.CELL) != cell:
            st.rerun()

    look()


def _join(key: str) -> None:
    work.resume(key)
    resources.jobs().attach(key, resources.owner())


def _progress(now: Snapshot) -> None:
    if now.state == jobs.QUEUED:
        st.progress(0.0, text=f"Waiting for the device: {now.ahead} ahead of you")
    elif now.state == jobs.STOPPING:
        st.progress(now.fraction, text="Stopping: the step in hand ends, what is done is kept …")
    else:
        left = now.partial.seconds_left if isinstance(now.partial, Progress) else None
        told = f"{now.message or 'Starting'} · {now.seconds:.0f} s · {wording.duration(left)}"
        st.progress(now.fraction, text=wording.plain(told))
