"""The pair inspector: two contenders under every fill, in a forest plot, a table, and the images that disagree most."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from audit_core.errors import AuditError
from audit_core.statistics import Estimate
from audit_core.study.analysis import PairUnderFill, PairView, ReversalView, SchemeView
from audit_core.study.filters import Filters
from pages.ui import reversal_chart as chart
from pages.ui import reversal_forest, reversal_images, reversal_work, wording
from pages.ui.params import hold
from pages.ui.reversal_looks import Look, fill_title
from pages.ui.reversal_work import Opened

PAGE = "reversal"


def draw(
    opened: Opened, view: ReversalView, scheme: SchemeView, filters: Filters, looks: Mapping[str, Look]
) -> dict[str, str]:
    """The inspector; returns what of it stands in the link (a, b, fill)."""
    st.subheader("Two contenders, fill by fill", anchor=False)
    a, b = _pickers(opened, view, scheme, looks)
    try:
        found = reversal_work.pair(opened, view.metric, filters, a, b)
    except AuditError as problem:
        st.info(wording.plain(str(problem)), icon=":material/compare_arrows:")
        return {"a": a, "b": b, "fill": ""}
    shown = sorted(found.fills, key=lambda one: view.fills.index(one.fill))
    figure = reversal_forest.figure(found, shown, looks[a], looks[b])
    chart.show(figure, f"{PAGE}.forest", reversal_forest.alt(found, shown, looks[a], looks[b]))
    st.caption(_bars(shown))
    _table(found, shown)
    return {"a": a, "b": b, "fill": reversal_images.draw(opened, found, shown, looks)}


def _pickers(opened: Opened, view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look]) -> tuple[str, str]:
    """The two contenders: those of the link, else the surest reversal on screen."""
    names = [c.name for c in opened.results.contenders]
    surest = (scheme.pairs[0].first, scheme.pairs[0].second) if scheme.pairs else view.contenders[:2]
    chosen = []
    for side, name in zip(("a", "b"), surest, strict=True):
        key = f"{PAGE}.{side}"
        if st.session_state.get(key) not in names:
            st.session_state[key] = name
        hold(key)
    for column, side in zip(st.columns(2, gap="large"), ("a", "b"), strict=True):
        with column:
            label = side.upper()
            key = f"{PAGE}.{side}"
            chosen.append(st.selectbox(label, names, key=key, format_func=lambda name: looks[name].name))
            colour = looks[chosen[-1]].colour
            st.html(f'<div style="height:5px;border-radius:3px;background:{colour}"></div>')
    return chosen[0], chosen[1]


def _bars(shown: list[PairUnderFill]) -> str:
    again = [one.retrained for one in shown if one.retrained.low is not None]
    thick = "Thick bar: 95 % interval over images (BCa)."
    if again:
        few = f" ({again[0].note})" if again[0].note else ""
        return f"{thick} Thin bar: over training runs and images{few}."
    notes = {one.retrained.note for one in shown if one.retrained.note}
    return f"{thick} No second bar: {'; '.join(sorted(notes))}." if notes else thick


def _table(found: PairView, shown: list[PairUnderFill]) -> None:
    arrow = chart.direction(found.better)[:1]
    rows = [
        {
            "Fill": fill_title(one.fill),
            "A beats B on": _share(one.paired.probability),
            "d_z": _with_interval(one.paired.d_z),
            "p (Holm)": _p(one.p_holm),
            f"A {arrow}": wording.number(_known(one.mean_a)),
            f"B {arrow}": wording.number(_known(one.mean_b)),
            "n": one.paired.n,
        }
        for one in shown
    ]
    st.dataframe(rows, hide_index=True, width="stretch", key=f"{PAGE}.pair_table")
    st.caption(
        "“A beats B on”: share of the images, ties half, 50 % = neither. d_z: difference in units of its own spread. "
        f"p: Wilcoxon’s signed-rank test, two-sided, corrected for {len(shown)} fills (Holm). {arrow} "
        f"{chart.direction(found.better)[2:]}."
    )


def _share(estimate: Estimate) -> str:
    if _known(estimate.value) is None:
        return "–"
    bounds = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.0%}, {estimate.high:.0%}]"
    return f"{estimate.value:.0%}{bounds}".replace("%", " %")


def _with_interval(estimate: Estimate) -> str:
    if _known(estimate.value) is None:
        return "–"
    return f"{estimate.value:+.2f}{chart.span(estimate.low, estimate.high, 2, '+')}".replace("-", "−")


def _p(value: float) -> str:
    if _known(value) is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _known(value: float) -> float | None:
    return None if value != value else value
