"""An audit card that was dropped on the page: shown as its sender measured it, and checked on request."""

from __future__ import annotations

import streamlit as st

from audit_core import audit, jobs
from audit_core.record import AuditRecord
from pages.ui import resources, result, wording, work


def banner(page: str) -> bool:
    """Draw the opened record, if there is one; returns whether it stands in place of the page's own audit."""
    record: AuditRecord | None = st.session_state.get("opened")
    if record is None:
        return False
    st.info(
        f"Opened from a file: **{wording.plain(record.spec.triple)}**. The numbers are those of the file; "
        "recompute them here before you rely on them.",
        icon=":material/mark_email_read:",
    )
    with st.container(horizontal=True):
        check = st.button("Recompute and compare", key=f"{page}.verify", type="primary", icon=":material/verified:")
        st.button(
            "Close the file",
            key=f"{page}.close",
            on_click=lambda: st.session_state.pop("opened", None),
            icon=":material/close:",
        )
    key = f"verify:{record.key}"
    if check:
        _submit(key, record)
    now = resources.jobs().get(key, resources.owner())
    if now is not None and now.state == jobs.DONE:
        _outcome(now.result)
    elif now is not None:
        work.panel(key, lambda partial: None)
    result.draw(record, f"{page}.opened")
    result.provenance(record)
    return True


def _submit(key: str, record: AuditRecord) -> None:
    def run(context: jobs.JobContext) -> audit.Verification:
        return audit.verify(record, resources.bench(), lambda f, message, partial: context.report(f, message))

    resources.jobs().submit(key, "Recomputing an opened audit", run, resources.owner(), str(resources.bench().device))


def _outcome(found: audit.Verification) -> None:
    differences = (
        f"largest difference {found.curve_difference:.2g} on the curves, {found.map_difference:.2g} on the map"
    )
    if found.same:
        st.success(
            f"Verified: recomputed here, {differences} (tolerance {found.tolerance:g}).", icon=":material/verified:"
        )
    else:
        st.error(
            f"Not reproduced: {differences} (tolerance {found.tolerance:g}). {wording.plain(found.note)}",
            icon=":material/gpp_bad:",
        )
