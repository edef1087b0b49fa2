"""A study in words: the TOML text, and beside it a form that writes the same text."""

from __future__ import annotations

import streamlit as st

from audit_core.errors import AuditError
from audit_core.study.definition import Study
from audit_core.study.presets import demo
from pages.ui import params, study_fields, wording

TEXT, GOOD = "study.text", "study.good"  # state: the text as it stands; the last text that could be read
PROBLEM = "study.form_problem"


def seed(study: Study | None = None) -> None:
    """Begin a draft: a given study, else the demonstration."""
    _write(study or demo())


def draw() -> Study | None:
    """Form and text; the study that the text comes to, None while it cannot be read."""
    if TEXT not in st.session_state:
        seed()
    study, problem = read()
    left, right = st.columns(2, gap="large")
    with right:
        params.hold(TEXT)
        st.text_area(
            "The study as TOML",
            key=TEXT,
            height=470,
            on_change=_take_text,
            help="This text is the study: saved as study.toml, the command line runs the very same one.",
        )
        if problem:
            st.error(wording.plain(problem), icon=":material/error:")
    with left:
        study_fields.draw(Study.parse(st.session_state[GOOD]), _take_form, disabled=bool(problem))
        if told := st.session_state.get(PROBLEM):
            st.error(wording.plain(f"{told}. The text keeps what it had."), icon=":material/error:")
        st.caption(
            "Mend the text first; then the form works again."
            if problem
            else "The form writes the TOML text, comments are lost. A new checkpoint gets the explainer that its "
            "readout asks for; explainers for one checkpoint alone stand in the text."
        )
    return study


def read() -> tuple[Study | None, str]:
    """The study in the text, or the sentence why there is none."""
    try:
        return Study.parse(st.session_state[TEXT]), ""
    except AuditError as error:
        return None, str(error)


def _take_text() -> None:
    """After the text was edited the form follows, if the text can be read."""
    study, _ = read()
    if study is not None:
        _follow(study)


def _take_form() -> None:
    """After a widget was moved the text is written anew; what makes no study is said."""
    try:
        _write(study_fields.study_of(Study.parse(st.session_state[GOOD])))
    except AuditError as error:
        st.session_state[PROBLEM] = str(error)


def _write(study: Study) -> None:
    st.session_state[TEXT] = study.dumps()
    _follow(study)


def _follow(study: Study) -> None:
    st.session_state[GOOD] = study.dumps()
    st.session_state.pop(PROBLEM, None)
    study_fields.seed(study)
