"""The same map under every fill, side by side: where the verdict turns."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from audit_core import audit, jobs
from audit_core.audit import Prepared
from audit_core.errors import AuditError
from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.record import AuditRecord
from audit_core.types import Triple
from audit_core.verdict import verdict
from pages.ui import charts, params, resources, wording, work

PER_ROW = 5


def draw(prepared: Prepared, record: AuditRecord, page: str) -> None:
    """Tiles of all fills with their areas; those not audited yet run together in one job."""
    st.subheader("The same map under every fill", anchor=False)
    cells = _cells(prepared)
    missing = [cell for cell in cells.values() if isinstance(cell, Prepared) and work.finished(cell) is None]
    key = f"fills:{prepared.key}"
    if missing:
        now = resources.jobs().get(key, resources.owner())
        if now is None or now.final:
            st.button(
                f"Audit this map under {len(missing)} more fills",
                key=f"{page}.fills",
                icon=":material/format_paint:",
                on_click=_submit,
                args=(key, missing),
                help="The map is reused; only the curves are scored again.",
            )
        work.panel(key, lambda partial: None)
    names = list(cells)
    for start in range(0, len(names), PER_ROW):
        for column, name in zip(st.columns(PER_ROW), names[start : start + PER_ROW], strict=False):
            with column.container(border=True, height="stretch", key=f"{page}.tile.{name}"):
                _tile(name, cells[name], prepared, page)


def _cells(prepared: Prepared) -> dict[str, Prepared | str]:
    """Fill -> the audit under it, or the sentence why it is refused."""
    triple, cells = prepared.spec.triple, {}
    for name in FILLS:
        choice = triple.fill if name == triple.fill.name else Choice(name)
        spec = replace(prepared.spec, triple=Triple(triple.checkpoint, triple.explainer, choice))
        try:
            cells[name] = audit.prepare(spec, resources.bench())
        except AuditError as reason:
            cells[name] = str(reason)
    return cells


def _submit(key: str, missing: list[Prepared]) -> None:
    def run(context: jobs.JobContext) -> int:
        for done, cell in enumerate(missing):
            audit.run(
                cell.spec,
                resources.bench(),
                lambda fraction, message, partial, done=done: context.report(
                    (done + fraction) / len(missing), f"Fill {done + 1} of {len(missing)}"
                ),
            )
        return len(missing)

    resources.jobs().submit(key, "All fills", run, resources.owner(), str(resources.bench().device))


def _tile(name: str, cell: Prepared | str, prepared: Prepared, page: str) -> None:
    chosen = name == prepared.spec.triple.fill.name
    st.markdown(f"**{FILLS[name].title}**" + (" ✓" if chosen else ""))
    if isinstance(cell, str):
        st.caption(f":material/block: {wording.plain(cell)}")
        return
    record = work.finished(cell)
    if record is None:
        st.caption("not audited yet")
    else:
        middle = len(record.deletion.fraction) // 4
        charts.show_picture(
            audit.perturbed(record, resources.bench(), "deletion", middle),
            f"Quarter of the pixels replaced: {FILLS[name].title}",
        )
        for kind, arrow in (("deletion", "↓"), ("insertion", "↑")):
            effect = record.advantage.get(kind)
            versus = f" ({effect.value:+.3f} vs random)" if effect else ""
            st.caption(f"{kind.capitalize()} {arrow} {wording.number(getattr(record, kind + '_auc'))}{versus}")
        wording.badge(verdict(record).word, verdict(record).sentence)
    if not chosen:
        st.button("Use this fill", key=f"{page}.use.{name}", on_click=_use, args=(page, name), width="stretch")


def _use(page: str, name: str) -> None:
    params.seed(page, FILLS, Choice(name))
    st.session_state[f"{page}.fill"] = name
