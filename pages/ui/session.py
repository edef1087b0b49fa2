"""What belongs to one browser session alone: its uploads, its opened record, its job."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import streamlit as st

from audit_core import audit
from audit_core.errors import AuditError
from audit_core.export import is_card, read_card
from audit_core.record import AuditRecord
from pages.ui import resources, wording


def opened_uploads() -> dict[str, str]:
    """Reference -> name of the images that this session uploaded or opened by link, in order."""
    return st.session_state.setdefault("uploads", {})


def take_upload(page: str, file) -> None:
    """Keep a newly dropped file: an image becomes the page's image, an audit card opens its audit."""
    if file is None:
        st.session_state.pop(f"{page}.taken", None)
        return
    data = file.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    if st.session_state.get(f"{page}.taken") == digest:
        if problem := st.session_state.get(f"{page}.problem"):
            st.error(wording.plain(problem))
        return
    st.session_state[f"{page}.taken"] = digest
    st.session_state[f"{page}.problem"] = None
    try:
        if is_card(data):
            st.session_state["opened"] = open_card(data)
            return
        reference = resources.bench().add_image(data, file.name)
        opened_uploads()[reference] = file.name
        st.session_state[f"{page}.upload"] = reference
    except AuditError as error:
        st.session_state[f"{page}.problem"] = str(error)
        st.error(wording.plain(str(error)))


def open_card(data: bytes) -> AuditRecord:
    """The record inside an exported card; what its sender measured, until verified here.

    A card may name files of this server through a data set; only samples and uploads are opened, else its own input.
    """
    record = read_card(data)
    if record.spec.image.startswith(("synthetic:", "upload:")):
        return record
    return replace(record, spec=audit.with_recorded_input(record, resources.bench()))
