"""Steps one and two: what a study asks, and what it will cost."""

from __future__ import annotations

import streamlit as st

from audit_core.study.definition import Study
from audit_core.study.shelf import Shelf
from pages.ui import study_cost, study_form, study_guard, study_link, study_run, study_words, wording

NOTICE = "study.notice"


def draft() -> None:
    """A study that is being written: form and text, its cost, and the button that runs it."""
    st.subheader("1 · Define", anchor=False)
    if notice := st.session_state.get(NOTICE):
        st.info(wording.plain(notice), icon=":material/content_copy:")
    study = study_form.draw()
    st.subheader("2 · Cost", anchor=False)
    if study is None:
        st.caption("The cost is known as soon as the text is a study.")
        return
    plan = study_cost.plan_of(study)
    if isinstance(plan, str):
        st.error(wording.plain(plan), icon=":material/error:")
        return
    study_cost.draw(plan)
    st.subheader("3 · Run and browse", anchor=False)
    if not plan.tasks:
        st.info("Every cell is refused, so there is nothing to run; change explainers or checkpoints above.")
        return
    if problem := st.session_state.get(study_run.PROBLEM):
        st.error(wording.plain(problem), icon=":material/error:")
    st.button(
        "Run this study", key="study.run", type="primary", icon=":material/play_arrow:",
        on_click=study_run.begin, args=(plan,),
    )  # fmt: skip
    st.caption("It gets an address of its own; the grid fills in while it runs, and stopping loses nothing.")


def told(name: str) -> None:
    """A study that was begun: what it asks in one line, its text folded, and a new study made from it."""
    manifest, folder = study_link.read_manifest(name), Shelf.default().folder(name)
    study = folder.study()
    families = len({entry["family"] for entry in manifest["contenders"]})
    parts = [
        study_words.plural(len(manifest["contenders"]), "contender"),
        study_words.plural(families, "family").replace("familys", "families"),
        study_words.plural(len(manifest["checkpoints"]), "checkpoint"),
        study_words.plural(len(study.fills), "fill"),
        study_words.plural(len(manifest["images"]), "image"),
    ]
    refused = manifest["refused"]
    with st.expander(f"**1 · Define** — {' · '.join(parts)}", icon=":material/edit_note:"):
        if study.note:
            st.caption(wording.plain(study.note))
        st.code(study.dumps(), language="toml", height=320)
        st.button(
            "Make a new study from this one", key="study.copy", icon=":material/content_copy:",
            on_click=_copy, args=(study,),
        )  # fmt: skip
    label = f"{study_words.plural(len(refused), 'combination')} refused" if refused else "no cell refused"
    with st.expander(f"**2 · Cost** — {label}", icon=":material/payments:"):
        study_cost.spent(manifest)


def _copy(study: Study) -> None:
    made, changes = study_guard.adapted(study)
    study_form.seed(made)
    st.session_state[NOTICE] = f"Begun from “{study.title}”: {'; '.join(changes)}." if changes else ""
    study_link.show(study_link.NEW)
