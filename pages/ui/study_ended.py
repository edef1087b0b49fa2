"""How a study stands that does not run: complete, partly done, or with tasks that failed, and why."""

from __future__ import annotations

import streamlit as st

from audit_core import jobs
from audit_core.study.runner import Status
from audit_core.study.shelf import VISITOR
from pages.ui import resources, study_run, study_words, wording


def told(name: str, status: Status) -> None:
    """How a study that does not run stands: complete, partly done with *Resume*, failed tasks with their reasons."""
    if problem := st.session_state.get(study_run.PROBLEM):
        st.error(wording.plain(wording.without_folders(problem)), icon=":material/error:")
    now = resources.jobs().get(study_run.job_id(name), resources.owner())
    if now is not None and now.state == jobs.FAILED and not status.failures:
        told = wording.without_folders(now.error or "The study failed.")
        st.error(wording.plain(told), icon=":material/error:")
        if now.trace:
            with st.expander("Details"):
                st.code(wording.without_folders(now.trace))
    if status.complete:
        return
    done = f"{status.done:,} of {study_words.plural(status.total, 'task')} done"
    if not name.startswith(VISITOR):
        st.info(f"{done}. This study is run on the command line, and goes on there:", icon=":material/terminal:")
        st.code(f"python -m audit_core study resume .triplecheck/studies/{name}", language="bash")
        return
    st.info(f"{done}. What is done stays done; the grid shows it.", icon=":material/pause_circle:")
    st.button(
        "Resume" if status.done else "Start",
        key="study.resume", type="primary", icon=":material/play_arrow:", on_click=study_run.submit, args=(name,),
    )  # fmt: skip
    _failures(status)


def _failures(status: Status) -> None:
    if not status.failures:
        return
    count = study_words.plural(len(status.failures), "task")
    st.warning(f"{count} failed in the last run; *Resume* tries them again.", icon=":material/report:")
    reasons: dict[str, list[dict[str, str]]] = {}
    for failure in status.failures:
        reasons.setdefault(failure["reason"], []).append(failure)
    for reason, failed in reasons.items():
        where = ", ".join(dict.fromkeys(f"{one['checkpoint']} · {one['explainer']}" for one in failed))
        with st.expander(wording.plain(f"{len(failed)} × {reason[:160]}"), icon=":material/error:"):
            st.caption(wording.plain(where))
            st.code(wording.without_folders(failed[0].get("trace") or reason), language=None)
