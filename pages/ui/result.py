"""One audit on screen: what the model sees, the map, the perturbed image, both curves, the numbers, the verdict."""

from __future__ import annotations

import numpy as np
import streamlit as st

from audit_core import audit, export
from audit_core.audit import Partial
from audit_core.errors import AuditError
from audit_core.explainers import EXPLAINERS
from audit_core.readouts import directness, granularity
from audit_core.record import AuditRecord
from audit_core.verdict import verdict
from pages.ui import charts, resources, wording

CURVES = {"deletion": ("Deletion", "removed"), "insertion": ("Insertion", "revealed")}


def draw_partial(partial: Partial) -> None:
    """What is known of a running audit: both curves so far, the same layout as the finished ones."""
    if partial.deletion is None or partial.fractions is None:
        if partial.values is not None:
            st.caption("The map is being estimated; the curves start when it is ready.")
            _running_map(partial.values)
        return
    left, right = st.columns(2)
    for column, name in ((left, "deletion"), (right, "insertion")):
        title, change = CURVES[name]
        random = getattr(partial, f"random_{name}")
        spec = charts.curve_spec(partial.fractions, getattr(partial, name), random, title, change, partial.scored)
        with column:
            charts.curve(spec, f"partial.{name}", f"{title} curve so far")


def _running_map(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    shade = (values - low) / (high - low or 1.0)
    st.image(
        shade,
        width=charts.SIDE,
        clamp=True,
        caption=f"running estimate, {low:.3g} (dark) to {high:.3g} (bright)",
        alt="Running estimate of the map",
    )


@st.fragment
def draw(record: AuditRecord, page: str) -> None:
    """The finished audit; moving the slider or the opacity redraws this part alone."""
    head = st.columns([1, 1.25, 1], gap="medium")
    steps = len(record.deletion.fraction) - 1
    with st.container(border=False):
        left, right = st.columns([1, 2.4], vertical_alignment="bottom", gap="medium")
        shown = left.segmented_control(
            "Perturbed image on",
            list(CURVES),
            key=f"{page}.shown",
            default="deletion",
            required=True,
            format_func=lambda name: CURVES[name][0],
        )
        step = right.slider(
            "Step along the curve",
            0,
            steps,
            min(steps, steps // 4),
            key=f"{page}.step.{steps}",
            help="Moves the orange cursor on both curves and repaints the perturbed image.",
        )
    _pictures(head, record, page, shown, step)
    body = st.columns([1.2, 1.2, 0.9], gap="medium")
    for column, name in zip(body, CURVES, strict=False):
        with column:
            _curve(record, name, record.deletion.fraction[step])
    with body[2]:
        _probabilities(record, shown, step)
    _numbers(record)


def _pictures(columns, record: AuditRecord, page: str, shown: str, step: int) -> None:
    with columns[0]:
        st.markdown("**What the model sees**")
        rows, cols = record.values.shape
        charts.show_picture(
            record.pixels,
            "The model's input",
            f"{cols}×{rows} px, {len(record.pixels)} channel(s), before normalisation",
        )
    with columns[1]:
        st.markdown("**Heatmap over it**")
        opacity = st.session_state.get(f"{page}.opacity", 0.6)
        figure = charts.heatmap(record.pixels, record.values, record.signed, opacity)
        st.plotly_chart(
            figure,
            key=f"{page}.heatmap",
            theme="streamlit",
            config={"displayModeBar": False},
            alt="Heatmap over the input",
        )
        st.slider("Opacity of the heatmap", 0.0, 1.0, 0.6, 0.05, key=f"{page}.opacity")
    with columns[2]:
        title, change = CURVES[shown]
        st.markdown(f"**{title}, step {step}: what the model saw**")
        try:
            seen = audit.perturbed(record, resources.bench(), shown, step)
        except AuditError as error:
            st.info(wording.plain(str(error)), icon=":material/image_not_supported:")
            return
        share = record.deletion.fraction[step]
        charts.show_picture(
            seen, f"Input with {share:.0%} of the pixels {change}", f"{share:.1%} of the pixels {change}"
        )


def _curve(record: AuditRecord, name: str, cursor: float) -> None:
    title, change = CURVES[name]
    direction = wording.DIRECTIONS[record.better(name)]
    curve, random = getattr(record, name), getattr(record.controls, name)
    spec = charts.curve_spec(
        curve.fraction, curve.score, random, f"{title} · {direction}", change, record.spec.scored, float(cursor)
    )
    effect = record.advantage.get(name)
    finding = f"better than random order by {effect.value:.3f}" if effect else "no random orders to compare with"
    charts.curve(spec, f"done.{name}", f"{title} curve, area {curve.auc():.3f}, {finding}")


def _probabilities(record: AuditRecord, shown: str, step: int) -> None:
    values = getattr(record.along, shown)[step]
    if record.spec.quantity == "logit":
        scored = record.spec.scored
        against = f" to {record.spec.against}" if record.spec.against else ""
        st.caption(wording.plain(f"{scored.capitalize()}s{against} at this step"))
        st.dataframe({"class": [record.classes[k] for k in record.along.classes], scored: values}, hide_index=True)
        return
    names = [record.classes[k] for k in record.along.classes]
    spec = charts.probabilities(names, values, record.classes[record.target])
    spec["title"] = {"text": f"The model's answer at step {step}", "anchor": "start", "fontSize": 15}
    charts.curve(spec, "done.bars", f"Class probabilities at step {step}")


def _numbers(record: AuditRecord) -> None:
    judged = verdict(record)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            wording.badge(judged.word, judged.sentence)
            if record.sick:
                wording.badge("sick", " ".join(record.sick))
            wording.badge(record.badge, record.badge_sentence)
            st.markdown(wording.plain(judged.sentence))
        columns = st.columns(4)
        for column, name in zip(columns, CURVES, strict=False):
            _metric(column, record, name)
        top = record.classes[record.predicted]
        columns[2].metric(
            "Predicted", wording.plain(top), help="The class with the highest probability on the untouched image."
        )
        sure = wording.percent(float(record.probabilities[record.predicted]))
        columns[2].caption(f"{sure} · {wording.plain(_label(record))}")
        columns[3].metric(
            "Cost", f"{record.forwards} forwards", help="Images evaluated by the model, controls included."
        )
        columns[3].caption(
            f"{record.backwards} backwards · {record.seconds:.2f} s · "
            + wording.plain(record.provenance.get("device", ""))
        )
        for sentence in record.health:
            st.warning(wording.plain(sentence), icon=":material/sick:")
        st.caption(
            wording.plain(record.badge_sentence) + " The verdict holds for this image, this fill and these steps only."
        )
        if words := _proxies(record):
            st.caption(wording.plain(words))


def _proxies(record: AuditRecord) -> str:
    """Readout directness and spatial granularity in words; "" for a record of what is not known here."""
    triple = record.spec.triple
    try:
        card, reads = resources.bench().card(triple.checkpoint), EXPLAINERS[triple.explainer.name].reads
        layer = str(dict(triple.explainer.params).get("layer", ""))
        grid, read = granularity(reads, card, layer), directness(reads, card, layer)
    except (AuditError, ValueError):
        return ""
    return f"Readout directness: {read.word}. " + (f"Read on a grid of {grid}." if grid else "Not read on a grid.")


def _metric(column, record: AuditRecord, name: str) -> None:
    title, direction = CURVES[name][0], wording.DIRECTIONS[record.better(name)]
    area, effect = getattr(record, f"{name}_auc"), record.advantage.get(name)
    column.metric(
        f"{title} AUC {direction[0]}", wording.number(area), help=f"Area under the {name} curve; {direction[2:]}."
    )
    column.caption(f"normalised by the untouched score: {wording.number(record.normalised(area))}")
    column.caption(
        f"advantage over random {wording.interval(effect)}" if effect else "no random level (needs two orders)"
    )


def _label(record: AuditRecord) -> str:
    return f"labelled {record.classes[record.label]}" if record.label is not None else "no label"


def downloads(record: AuditRecord, page: str) -> None:
    """The card, the curves, the maps and the record, each made when it is asked for."""
    name = f"audit-{record.key[:12]}"
    files = (
        (
            "Card (PNG)",
            f"{name}.png",
            "image/png",
            lambda: export.card_png(record),
            "Picture with all numbers; carries the whole record. Drop it on this page to reopen the audit.",
        ),
        ("Curves (CSV)", f"{name}.csv", "text/csv", lambda: export.curves_csv(record), "One row per step."),
        (
            "Maps (npz)",
            f"{name}.npz",
            "application/octet-stream",
            lambda: export.maps_npz(record),
            "Raw map, input and curves as arrays.",
        ),
        (
            "Record (JSON)",
            f"{name}.json",
            "application/json",
            lambda: export.record_json(record),
            "Everything, in the published schema.",
        ),
    )
    with st.container(horizontal=True):
        for label, file, mime, make, text in files:
            st.download_button(
                label,
                make,
                file,
                mime,
                key=f"{page}.get.{label}",
                help=text,
                on_click="ignore",
                icon=":material/download:",
            )


def provenance(record: AuditRecord) -> None:
    """The footer: key, weights, versions and the command that repeats the audit."""
    facts = record.provenance
    with st.expander("Provenance and repeat command", icon=":material/fingerprint:"):
        st.code(str(facts.get("command", "")), language="bash", wrap_lines=True)
        st.code("python -m audit_core verify " + record.key, language="bash", wrap_lines=True)
        rows = {name: str(value) for name, value in facts.items() if name not in ("command", "versions")}
        versions = facts.get("versions")
        named = versions.items() if isinstance(versions, dict) else ()  # of a file from elsewhere it may be anything
        rows |= {"key": record.key, **{f"version of {n}": str(v) for n, v in named}}
        st.dataframe({"fact": list(rows), "value": list(rows.values())}, hide_index=True)
