"""What a comparison shows: heatmaps on a chosen scale, overlaid curves, a card per triple, agreement of the maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from audit_core import agreement
from audit_core.audit import Prepared
from audit_core.errors import AuditError
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.record import AuditRecord
from audit_core.types import Triple
from audit_core.verdict import verdict
from pages.ui import charts, pickers, wording
from pages.ui.compare_slots import COLOURS, LETTERS
from pages.ui.result import CURVES

RANK, RAW, OWN = "One for all: rank", "One for all: raw values", "Each its own"
SCALES = {
    RANK: "The order of the pixels, from 0 (least important) to 1 (most): a unit that all explainers share.",
    RAW: "Raw values on one range. Only maps of the same explainer have the same unit.",
    OWN: "Raw values, each map on its own range: shapes can be compared, brightness cannot.",
}
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
SHARE = 0.1  # of the pixels, for the overlap of the tops


def name(triple: Triple) -> str:
    """The triple in menu words."""
    explainer, fill = EXPLAINERS[triple.explainer.name].title, FILLS[triple.fill.name].title
    return f"{pickers.checkpoint_name(triple.checkpoint)} · {explainer} · {fill}"


def font() -> dict[str, str]:
    """Letters of a Plotly figure in the page's own type and colour."""
    return {"family": "Source Sans, sans-serif", "color": "#E6EBF2" if st.context.theme.type == "dark" else "#1B2430"}


def span(records: list[AuditRecord]) -> tuple[float, float]:
    """Colour range that holds all maps; symmetric around 0 when one of them is signed."""
    stacked = np.concatenate([record.values.ravel() for record in records])
    return charts.scale(stacked, any(record.signed for record in records))


def draw_map(record: AuditRecord, slot: int, scale: str, records: list[AuditRecord], opacity: float) -> None:
    """One map over the input, its colour bar below with the scope of the scale."""
    if scale == RANK:
        values, signed, limits = agreement.rank_share(record.values), False, (0.0, 1.0)
        title = f"share of pixels outranked ({_these(len(records))})"
    elif scale == RAW:
        signed = any(one.signed for one in records)
        values, limits = record.values, span(records)
        title = f"evidence ({_these(len(records))})"
    else:
        values, signed, limits = record.values, record.signed, None
        title = "evidence (this map)"
    figure = charts.heatmap(record.pixels, values, signed, opacity, span=limits, height=290)
    figure.update_traces(
        colorbar={
            "orientation": "h",
            "x": 0.5,
            "xanchor": "center",
            "y": -0.02,
            "yanchor": "top",
            "len": 0.9,
            "thickness": 9,
            "nticks": 4,
            "tickfont": {"size": 11},
            "title": {"text": title, "side": "bottom", "font": {"size": 12}},
        }
    )
    figure.update_layout(margin={"l": 2, "r": 2, "t": 2, "b": 52}, font=font())
    st.plotly_chart(
        figure,
        key=f"compare.map.{slot}",
        theme=None,
        config={"displayModeBar": False},
        alt=f"Heatmap of {LETTERS[slot]} over the input, {title}",
    )


def _unbroken(text: str) -> str:
    """No line break inside "n = 8" or an interval."""
    return text.replace(" = ", "\u00a0=\u00a0").replace(", +", ",\u00a0+").replace(", -", ",\u00a0-")


def _these(count: int) -> str:
    return f"these {('one', 'two', 'three', 'four', 'five', 'six')[count - 1]}" if count > 1 else "this map"


def card(record: AuditRecord, shared: Mapping[str, str]) -> None:
    """The numbers of one triple, each beside its control, and what they allow to say."""
    judged = verdict(record)
    with st.container(horizontal=True, gap="small"):
        wording.badge(judged.word, judged.sentence)
        wording.badge(record.badge, record.badge_sentence)
    for kind, (title, _) in CURVES.items():
        effect, direction = record.advantage.get(kind), wording.DIRECTIONS[record.better(kind)]
        area = wording.number(getattr(record, f"{kind}_auc"))
        st.markdown(f"{title} AUC {direction[0]} **{area}**", help=f"Area under the {kind} curve; {direction[2:]}.")
        st.caption(
            f"advantage over random {_unbroken(wording.interval(effect))}"
            if effect
            else "no random level (needs two orders)"
        )
    top = float(record.probabilities[record.predicted])
    said = f"Predicts {record.classes[record.predicted]}, {wording.percent(top)}"
    if record.target != record.predicted:
        score = wording.percent(float(record.probabilities[record.target]))
        said += f"; the curves follow {record.classes[record.target]}, {score}"
    st.caption(wording.plain(said))
    for sentence in record.health:
        st.caption(f":material/sick: {wording.plain(sentence)}")
    triple = record.spec.triple
    st.page_link(
        "pages/spot_audit.py",
        label="Open in Spot audit",
        icon=":material/arrow_forward:",
        query_params={
            "checkpoint": triple.checkpoint,
            "explainer": str(triple.explainer),
            "fill": str(triple.fill),
            **shared,
        },
    )


def curves(records: dict[int, AuditRecord], kind: str) -> None:
    """All curves of one kind in one chart; the random orders of the first triple in grey behind them."""
    first, (title, change) = next(iter(records.values())), CURVES[kind]
    base, lower = getattr(first, kind), first.better(kind) == "lower"
    head = f"{title} · {wording.DIRECTIONS[first.better(kind)]}"
    random = getattr(first.controls, kind)
    spec = charts.curve_spec(base.fraction, base.score, random, head, change, first.spec.scored)
    rows = [
        {"fraction": float(f), "score": float(s), "letter": LETTERS[slot], "triple": name(record.spec.triple)}
        for slot, record in records.items()
        for f, s in zip(getattr(record, kind).fraction, getattr(record, kind).score, strict=True)
    ]
    spec["layer"][2:] = _lines(rows, list(records), spec["layer"][2]["encoding"])
    spec["height"] = 320
    best = (min if lower else max)(records, key=lambda slot: getattr(records[slot], f"{kind}_auc"))
    area = getattr(records[best], f"{kind}_auc")
    charts.curve(
        spec,
        f"compare.{kind}",
        f"{title} curves of {len(records)} triples; {LETTERS[best]} has the best area, {area:.3f}",
    )


def _lines(rows: list[dict], slots: list[int], own: dict) -> list[dict]:
    """Line and point layers; colour and shape both name the triple."""
    legend = {"orient": "bottom", "direction": "horizontal", "title": None, "symbolSize": 90, "labelFontSize": 13}

    def channel(look: tuple[str, ...]) -> dict:
        scale = {"domain": [LETTERS[slot] for slot in slots], "range": [look[slot] for slot in slots]}
        return {"field": "letter", "type": "nominal", "scale": scale, "legend": legend}

    place = {"x": own["x"], "y": own["y"], "color": channel(COLOURS)}
    tip = [{"field": "letter", "title": "triple"}, {"field": "triple", "title": "is"}, *own["tooltip"]]
    points = {"type": "point", "filled": True, "size": 34, "opacity": 1}
    return [
        {"data": {"values": rows}, "mark": {"type": "line", "strokeWidth": 2.2}, "encoding": place},
        {"data": {"values": rows}, "mark": points, "encoding": {**place, "shape": channel(SHAPES), "tooltip": tip}},
    ]


def agree(records: dict[int, AuditRecord], cells: Mapping[int, Prepared | str]) -> None:
    """Two matrices: Spearman's rank correlation and the shared top tenth of the pixels."""
    st.subheader("Do the maps agree?", anchor=False)
    if len(records) < 2:
        st.caption("Agreement needs two finished maps.")
        return
    try:
        maps = agreement.common_grid([record.values for record in records.values()])
    except AuditError as problem:
        st.info(wording.plain(str(problem)), icon=":material/grid_off:")
        return
    letters = [LETTERS[slot] for slot in records]
    correlation, overlap = agreement.spearman(maps), agreement.top_overlap(maps, SHARE)
    left, right = st.columns(2, gap="large")
    with left:
        _matrix(correlation, letters, "Spearman rank correlation", (-1, 1), charts.DIVERGING, "compare.spearman")
        st.caption("1: the same order of all pixels; 0: unrelated; −1: reversed.")
    with right:
        _matrix(overlap, letters, f"Overlap of the top {SHARE:.0%} of pixels", (0, 1), "Cividis", "compare.overlap")
        size = maps.shape[1] * maps.shape[2]
        top = f"{agreement.top_size(size, SHARE)} most important of {size} pixels"
        st.caption(f"Share of the {top} that both maps have; unrelated maps share about {SHARE:.0%}.")
    if np.isnan(correlation).any():
        st.caption("– : a constant map has no order of its own, so it agrees with nothing.")
    if len({cell.map_key for slot, cell in cells.items() if slot in records and not isinstance(cell, str)}) == 1:
        st.caption(
            "All columns show one and the same map, so agreement is 1 by construction: only the fill differs, "
            "and only the curves can tell."
        )


def _matrix(values: np.ndarray, letters: list[str], title: str, limits: tuple[float, float], colours, key: str) -> None:
    undefined = np.isnan(values)
    figure = go.Figure(
        go.Heatmap(
            z=np.where(undefined, None, values),
            x=letters,
            y=letters,
            zmin=limits[0],
            zmax=limits[1],
            colorscale=colours,
            text=[["" if np.isnan(v) else f"{v:.2f}".replace("-", "−") for v in row] for row in values],
            texttemplate="%{text}",
            xgap=2,
            ygap=2,
            hovertemplate="%{y} and %{x}: %{text}<extra></extra>",
            colorbar={"thickness": 10, "nticks": 5},
        )
    )
    for row, column in zip(*np.nonzero(undefined), strict=True):
        figure.add_annotation(x=letters[column], y=letters[row], text="–", showarrow=False)
    axis = {"tickfont": {"size": 14}, "constrain": "domain", "showgrid": False, "ticks": ""}
    figure.update_yaxes(autorange="reversed", scaleanchor="x", **axis)
    figure.update_xaxes(side="top", **axis)
    figure.update_layout(
        height=330,
        margin={"l": 10, "r": 10, "t": 64, "b": 6},
        paper_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        plot_bgcolor="rgba(0,0,0,0)",
        font=font(),
        title={"text": title, "font": {"size": 15}, "x": 0, "y": 0.98},
    )
    pairs = values[np.triu_indices(len(values), 1)]
    known = pairs[np.isfinite(pairs)]
    finding = f"between {known.min():.2f} and {known.max():.2f} across pairs" if known.size else "not defined"
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False}, alt=f"{title}: {finding}")
