"""Leave a prototype out and fine-tune: what would be removed, the job, and where its result is found."""

from __future__ import annotations

import streamlit as st

from audit_core import jobs
from audit_core.errors import AuditError
from audit_core.i2x import comparisons
from audit_core.i2x.comparisons import Compared
from audit_core.i2x.strategies import STRATEGIES
from audit_core.jobs import JobContext
from audit_core.store import default_directory
from pages.ui import i2x_curate_form, i2x_effect, i2x_link, resources, wording, work
from pages.ui.i2x_pickers import title
from pages.ui.i2x_work import Opened

PAGE = i2x_link.PAGE
AWAY = "You may look at other pages meanwhile; what is done stays done, also after a cancel."


def draw(opened: Opened) -> None:
    """The choices, what they would remove, the button or the running job, and the numbers."""
    i2x_curate_form.draw(opened)
    start, asked = i2x_curate_form.asked(opened)
    problem = i2x_curate_form.removed(opened, asked.curation)
    key = comparisons.identity(opened.analysis, start, asked)
    found = finished(opened, key)
    if found is None:
        _run(opened, asked.repeats, key, problem)
        found = finished(opened, st.session_state.get(f"{PAGE}.compared", "")) or opened.example
        if found is not None:
            st.info(f"Below: an earlier comparison. {_question(opened, found)}", icon=":material/history:")
    else:
        st.session_state[f"{PAGE}.compared"] = key
        told = f"Finished. {_question(opened, found)} Change a choice above to ask another question."
        st.caption(f":material/check: {told}")
    if found is not None:
        i2x_effect.draw(opened, found)


def finished(opened: Opened, key: str) -> Compared | None:
    """The comparison of this identity: the shipped one, or one that was made here."""
    if opened.example is not None and opened.example.identity == key:
        return opened.example
    found = comparisons.read(_folder() / f"{key}.json") if key else None
    return comparisons.of_analysis(found, opened.analysis)


def _folder():
    return default_directory().parent / "i2x"


def _run(opened: Opened, repeats: int, key: str, problem: bool) -> None:
    job = _job(key)
    now = resources.jobs().get(job, resources.owner())
    mine = now is not None and not work.left(job)
    if now is not None and not now.final and mine:
        work.panel(job, lambda partial: None)
        st.caption(AWAY)
        return
    if now is not None and now.state == jobs.FAILED:
        told = wording.without_folders(now.error or "The comparison failed.")
        st.error(wording.plain(told), icon=":material/error:")
    elif work.left(job):
        told = "Cancelled. What was measured until then is kept; start again to go on."
        st.warning(told, icon=":material/stop_circle:")
    elif now is not None and now.state == jobs.CANCELLED:
        st.warning("Ended before it was done. What was measured is kept; start again to go on.")
    st.button(
        "Fine-tune and measure", key=f"{PAGE}.finetune", type="primary", icon=":material/play_arrow:", disabled=problem,
        on_click=_submit, args=(opened,),
        help=f"{len(STRATEGIES)} strategies of one or two epochs, {repeats} times each.",
    )  # fmt: skip
    if told := st.session_state.pop(f"{PAGE}.refused", ""):
        st.error(wording.plain(wording.without_folders(told)), icon=":material/error:")


def _job(key: str) -> str:
    return f"i2x-finetune:{key}"


def _submit(opened: Opened) -> None:
    """Ask what the widgets say now: they may have changed since the button was drawn."""
    start, asked = i2x_curate_form.asked(opened)
    job = _job(comparisons.identity(opened.analysis, start, asked))
    analysis, device, folder = opened.analysis, str(resources.bench().device), _folder()
    try:
        run = opened.run
        folder.mkdir(parents=True, exist_ok=True)
    except (AuditError, OSError) as problem:
        st.session_state[f"{PAGE}.refused"] = str(problem)
        return

    def compare(context: JobContext) -> Compared:
        context.report(0.0, "opening the images")
        train, test = comparisons.images_of(analysis)
        return comparisons.make(run, analysis, train, test, start, asked, folder, device, context.report)

    work.resume(job)
    try:
        resources.jobs().submit(job, f"Fine-tuning of {run.name}", compare, resources.owner(), device)
    except AuditError as problem:
        st.session_state[f"{PAGE}.refused"] = str(problem)


def _where(found: Compared) -> str:
    return f", on {found.tested:,} other test images" if found.test else ""


def _question(opened: Opened, found: Compared) -> str:
    asked, classes = found.asked, opened.analysis.classes
    of = "both classes" if asked.curation.classes else "all classes"
    return wording.plain(
        f"{title(asked.curation.prototype)} on more than {asked.curation.least:.0%} of the locations left out of {of} "
        f"({sum(found.removed):,} of {sum(found.images):,} images), judged on {classes[asked.pair[0]]} and "
        f"{classes[asked.pair[1]]}{_where(found)}; from step {found.start}, learning rate "
        f"{asked.recipe.learning_rate:g}, {asked.repeats} repeat{'s' * (asked.repeats > 1)}."
    )
