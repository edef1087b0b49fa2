"""The checks of one map: health, controls, SRG, sanity, stability, localisation; measured as a job, kept by content."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from audit_core import jobs, measuring
from audit_core.errors import AuditError
from audit_core.metrics import METRICS, Measure
from audit_core.record import AuditRecord
from audit_core.verdict import Point, points
from pages.ui import charts, resources, wording, work

STATES = {
    True: (":material/check_circle:", "blue", "passed"),
    False: (":material/cancel:", "red", "failed"),
    None: (":material/help:", "gray", "not known"),
}


def draw(record: AuditRecord, page: str) -> None:
    """Badges of what is known, the button or the progress for the rest, all numbers, the randomisation strip."""
    st.subheader("Does this map pass the checks?", anchor=False)
    known = measuring.find(record, resources.bench())
    with st.container(border=True):
        for point in points(record, known):
            _badge(point)
        _run(record, page, len(known))
    if known:
        _table(known)
        _strip(known.get("parameter-randomisation"))


def _badge(point: Point) -> None:
    icon, colour, word = STATES[point.good]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(f"{point.topic}: {word}", icon=icon, color=colour)
        st.markdown(wording.plain(point.sentence))


def _run(record: AuditRecord, page: str, known: int) -> None:
    key = f"checks:{record.key}"
    now = resources.jobs().get(key, resources.owner())
    running = now is not None and not now.final
    if known < len(METRICS) and not running:
        st.button(
            "Run all checks" if not known else "Run the remaining checks",
            key=f"{page}.checks",
            icon=":material/fact_check:",
            on_click=_submit,
            args=(key, record),
            help=f"{measuring.forwards(record, resources.bench()):,} forwards at most. The numbers are kept.",
        )
    if now is not None and now.state != jobs.DONE:
        work.panel(key, lambda partial: None)


def _submit(key: str, record: AuditRecord) -> None:
    bench = resources.bench()

    def run(context: jobs.JobContext) -> int:
        return len(measuring.measure(record, bench, report=context.report))

    work.resume(key)
    try:
        resources.jobs().submit(key, "Checks", run, resources.owner(), str(bench.device))
    except AuditError as problem:
        st.session_state.setdefault("spot.problems", []).append(str(problem))


def _table(known: Mapping[str, Measure]) -> None:
    for family in dict.fromkeys(METRICS[name].family for name in known):
        rows = [_row(name, measure) for name, measure in known.items() if METRICS[name].family == family]
        with st.expander(f"{family.capitalize()} ({len(rows)})", icon=":material/straighten:"):
            st.table([{name: wording.plain(text) for name, text in row.items()} for row in rows], hide_index=True)


def _row(name: str, measure: Measure) -> dict[str, str]:
    direction = wording.DIRECTIONS.get(METRICS[name].better, "a description, no merit")
    known = measure.low is not None and measure.high is not None
    return {
        "metric": METRICS[name].title,
        "direction": direction,
        "value": "refused" if measure.refused else wording.number(measure.value),
        "95 % interval": f"[{measure.low:.3f}, {measure.high:.3f}]" if known else "–",
        "n": str(measure.n or "–"),
        "what it says": measure.sentence,
    }


def _strip(measure: Measure | None) -> None:
    """The map while the model's weights are randomised from the top: a map that stays does not show the model."""
    stages = measure.extra.get("maps") if measure is not None else None
    if not stages:
        return
    st.markdown("**The same map while the model forgets** (weights randomised from the top down)")
    maps = [np.asarray(stage["values"], dtype=np.float32) for stage in stages]
    titles = [f"{n}/{len(stages) - 1}<br>ρ {stage['correlation']:.2f}" for n, stage in enumerate(stages)]
    st.plotly_chart(
        charts.map_strip(maps, titles),
        key="checks.strip",
        theme="streamlit",
        config={"displayModeBar": False},
        alt="Maps under growing parameter randomisation",
    )
    names = "; ".join(f"{n}: {stage['name']}" for n, stage in enumerate(stages) if n)
    st.caption(
        "n/m: so many of the stages are random. ρ: rank correlation with the trained model's map. "
        "A map that stays the same does not show the model. "
        + wording.plain(f"Stages, from the output down: {names}.")
    )
