"""What a study will take, and what is refused and why, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from audit_core import jobs
from audit_core.errors import AuditError
from audit_core.study.cost import Estimate, estimate, probe
from audit_core.study.definition import Study
from audit_core.study.executors.processes import cores
from audit_core.study.folder import PARTS
from audit_core.study.plan import Plan, RefusedCell, make_plan
from audit_core.study.shelf import Shelf
from pages.ui import resources, study_guard, study_words, wording, work

PROBE = "study.probe"  # the job that measures the draft on screen
PATIENCE = 4.0  # seconds for which the measurement of speed may hold the page back


def plan_of(study: Study) -> Plan | str:
    """The study resolved, or the sentence why it cannot be run here; kept for the session."""
    kept = st.session_state.get("study.plan")
    if kept is None or kept[0] != study.dumps():
        try:
            study_guard.check(study)
            with st.spinner("Opening the cards and choosing the images …"):
                found: Plan | str = make_plan(study, resources.bench())
        except AuditError as error:
            return str(error)  # not kept: a checkpoint that is missing may be added meanwhile
        kept = st.session_state["study.plan"] = (study.dumps(), found)
    return kept[1]


def draw(plan: Plan) -> None:
    """Numbers of the plan, minutes, and the refused cells."""
    curves = [task for task in plan.tasks if task.kind == "curves"]
    maps = sum(task.stop - task.start for task in curves)
    with st.container(horizontal=True, gap="medium"):
        st.metric("Cells", f"{plan.cells:,}", help="Checkpoint × explainer × fill × seed, without those refused.")
        st.metric("Images", f"{len(plan.pictures):,}", help="The same ones for every checkpoint, so all is paired.")
        st.metric("Forwards, at most", f"{plan.forwards:,}", help="Model evaluations, counted in images.")
        st.metric("Backwards, at most", f"{plan.backwards:,}", help="Gradient passes, counted in images.")
        st.metric("Disk, about", _bytes(plan.disk))
    fills = study_words.plural(len(plan.study.fills), "fill")
    st.caption(
        f"Shared work: each of {maps:,} maps is made once and scored under {fills}; "
        f"{study_words.plural(len(plan.tasks), 'task')} in all, and what is done is never computed again."
    )
    if plan.tasks:
        _minutes(plan)
    refused(plan.refused)


def spent(manifest: Mapping[str, Any]) -> None:  # Any: JSON data
    """What a study that was begun came to, and its refused cells."""
    tasks = manifest["tasks"]
    if tasks:
        forwards, backwards = (sum(task[kind] for task in tasks) for kind in ("forwards", "backwards"))
        count = study_words.plural(len(tasks), "task")
        st.caption(f"{count}, {forwards:,} forwards and {backwards:,} backwards at most.")
    else:
        st.caption("All tasks are done.")
    refused([RefusedCell(**cell) for cell in manifest["refused"]])


def refused(cells: Sequence[RefusedCell]) -> None:
    """The cells that have no meaning, each with its reason; they stay in the grid as a result."""
    if not cells:
        st.caption("No cell is refused.")
        return
    label = f"{study_words.plural(len(cells), 'combination')} refused: the reasons"
    with st.expander(label, icon=":material/block:", expanded=len(cells) <= 4):
        for cell in cells:
            where = study_words.fill(cell.fill) if cell.fill else "all fills"
            named = f"{cell.checkpoint} · {study_words.explainer(cell.explainer)} · {where}"
            st.markdown(f"**{wording.plain(named)}** — {wording.plain(cell.reason)}.")


def _minutes(plan: Plan) -> None:
    """How long it will take here, from a look of a second at how fast the checkpoints answer."""
    made = {path.name for path in Shelf.default().root.glob(f"*/{PARTS}/measures-*.parquet")}
    missing = [task for task in plan.tasks if f"measures-{task.id}.parquet" not in made]
    if spared := len(plan.tasks) - len(missing):
        st.caption(f"Taken over from an earlier study here: {study_words.plural(spared, 'task')}.")
    if not missing:
        st.markdown("**Nothing is left to compute:** the study is put together in seconds.")
        return
    key = f"probe:{plan.study.key}:{len(missing)}"
    forget_probe(key)
    if work.left(key):
        return
    st.session_state[PROBE] = key

    def measure(context: jobs.JobContext) -> Estimate:
        context.report(0.1, "Trying how fast the checkpoints answer, about a second")
        return estimate(plan, probe(plan, resources.bench()), cores(), missing)

    try:
        resources.jobs().submit(key, "Speed", measure, resources.owner(), str(resources.bench().device))
    except AuditError as problem:
        st.caption(f"How long it takes is not known: {wording.plain(str(problem))}.")
        return
    now = resources.jobs().get(key, resources.owner())
    if now is None or not now.ahead:
        with st.spinner("Trying how fast the checkpoints answer, about a second …"):
            now = resources.jobs().wait(key, PATIENCE)
    if now is None or now.state != jobs.DONE:
        work.panel(key, lambda partial: None)
        return
    found: Estimate = now.result
    st.markdown(f"**{_duration(found.in_process)} on this page**, while nobody else computes here.")
    if found.executor == "processes":
        st.caption(f"{_duration(found.processes)} on the command line. {wording.plain(found.sentence)}")


def forget_probe(but: str = "") -> None:
    """End the measurement that this session still waits for: the draft has changed, or its study begins."""
    before = st.session_state.get(PROBE)
    if before and before != but:
        resources.jobs().cancel(before, resources.owner())
        del st.session_state[PROBE]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"About {max(1, round(seconds))} s"
    return f"About {seconds / 60:.0f} min" if seconds < 5400 else f"About {seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
