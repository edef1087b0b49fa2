"""The audits behind a comparison: which are finished, which are refused, and one job for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from audit_core import audit, jobs
from audit_core.audit import Prepared
from audit_core.errors import AuditError
from audit_core.keys import key
from audit_core.record import AuditRecord
from audit_core.types import AuditSpec, Triple
from pages.ui import resources, wording, work
from pages.ui.compare_slots import LETTERS

NUMBERS = ("steps", "patch", "controls", "seed")


def prepare(triples: Mapping[int, Triple], shared: Mapping[str, str]) -> dict[int, Prepared | str]:
    """Slot -> the audit, or the sentence why it is refused."""
    rest = {name: shared[name] for name in ("target", "direction", "quantity", "precision", "against")}
    rest["quantity"] = "logit" if rest["against"] else rest["quantity"]
    numbers = {name: int(shared[name]) for name in NUMBERS}
    cells: dict[int, Prepared | str] = {}
    for slot, triple in triples.items():
        try:
            cells[slot] = audit.prepare(AuditSpec(triple, shared["image"], **rest, **numbers), resources.bench())
        except AuditError as reason:
            cells[slot] = str(reason)
    return cells


def records(cells: Mapping[int, Prepared | str]) -> dict[int, AuditRecord]:
    """Slot -> the finished audit, in the order of the columns."""
    found = {slot: work.finished(cell) for slot, cell in cells.items() if isinstance(cell, Prepared)}
    return {slot: record for slot, record in found.items() if record is not None}


def compute(cells: Mapping[int, Prepared | str], done: Mapping[int, AuditRecord]) -> dict[int, str]:
    """Run what is missing as one job and show its progress; returns slot -> why an audit failed."""
    wanted = {cell.key: (LETTERS[slot], cell) for slot, cell in cells.items() if isinstance(cell, Prepared)}
    job = "compare:" + key(cells=sorted(wanted), round=st.session_state.setdefault("compare.round", 0))
    previous = st.session_state.get("compare.job")
    if previous and previous != job:
        resources.jobs().cancel(previous, resources.owner())
    st.session_state["compare.job"] = job
    shown = {record.key for record in done.values()}
    missing = [(letter, cell) for letter, cell in wanted.values() if cell.key not in shown]
    if not missing:
        return {}
    now = resources.jobs().get(job, resources.owner())
    if (now is None or now.state == jobs.CANCELLED) and not work.left(job):
        _submit(job, missing)
        now = resources.jobs().get(job, resources.owner())
    if now is None or now.final:
        st.button(
            f"Compute what is missing ({len(missing)})",
            key="compare.again",
            on_click=_again,
            icon=":material/play_arrow:",
        )
    if now is not None and now.state != jobs.DONE:
        work.panel(job, lambda finished: st.rerun() if finished - shown else None)
    failed = now.result if now is not None and now.state == jobs.DONE else {}
    return {slot: failed[cell.key] for slot, cell in cells.items() if isinstance(cell, Prepared) and cell.key in failed}


def _submit(job: str, missing: list[tuple[str, Prepared]]) -> None:
    bench = resources.bench()

    def run(context: jobs.JobContext) -> dict[str, str]:
        failed: dict[str, str] = {}
        for place, (letter, cell) in enumerate(missing):
            finished = frozenset(one.key for _, one in missing[:place]) - set(failed)
            words = f"{letter}, audit {place + 1} of {len(missing)}"
            try:
                audit.run(cell.spec, bench, _teller(context, place, len(missing), words, finished))
            except AuditError as reason:
                failed[cell.key] = str(reason)
        return failed

    try:
        resources.jobs().submit(job, f"Comparison of {len(missing)}", run, resources.owner(), str(bench.device))
    except AuditError as problem:
        st.error(wording.plain(str(problem)), icon=":material/error:")


def _teller(context: jobs.JobContext, place: int, count: int, words: str, finished: frozenset[str]) -> audit.Report:
    """Progress of one audit as progress of the whole; the partial result is the set of finished audits."""
    return lambda fraction, message, _: context.report((place + fraction) / count, f"{words}: {message}", finished)


def _again() -> None:
    st.session_state["compare.round"] += 1
