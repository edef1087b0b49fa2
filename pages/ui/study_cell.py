"""One cell of the grid: its numbers beside the random order, its curves, and its images with links to their audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from audit_core.keys import Choice
from audit_core.study.judgement import Judgement
from audit_core.study.means import CellMean
from audit_core.study.nouns import StateCount
from audit_core.study.shelf import Shelf
from pages.ui import charts, study_charts, study_grid, study_images, study_link, study_results, study_words, wording


def draw(name: str, metric: str, whole: bool) -> str:
    """Everything about the chosen cell; returns it as the link's word. whole: all tasks are done."""
    manifest, state = study_link.read_manifest(name), study_results.fingerprint(name)
    cells, counts = study_results.table(name, state, metric)
    place = study_grid.chosen(manifest, cells)
    if place is None:
        return ""
    contender, fill = place
    entry = next(one for one in manifest["contenders"] if one["contender"] == contender)
    titles = f"{entry['family']} · {study_words.explainer(entry['explainer'])}, under {study_words.fill(fill)}"
    st.subheader(wording.plain(titles), anchor=False)
    _gaps(counts, contender, fill)
    cell = cells.get(place)
    if cell is None or not cell.n:
        st.caption("No number, so there are no images to look at.")
        return "|".join(place)
    random = _random(manifest, entry["family"], contender)
    control = cells.get((random, fill)) if random else None
    _numbers(cell, control, metric, manifest)
    judged = study_results.verdicts(name, state) if whole else {}
    if isinstance(judged, dict) and contender in judged:
        _verdict(judged[contender], fill)
    columns = st.columns(3, gap="medium")
    with columns[0]:
        _dots(name, state, place, cell, control, metric)
    _curves(name, state, place, random, columns[1:])
    study_images.draw(name, place, metric, cell)
    return "|".join(place)


def _gaps(counts: tuple[StateCount, ...], contender: str, fill: str) -> None:
    """How many maps have no number, and why."""
    for gap in counts:
        if (gap.contender, gap.fill) == (contender, fill) and gap.state != "number":
            icon = {"refused": ":material/block:", "sick": ":material/sick:"}.get(gap.state, ":material/error:")
            st.markdown(f"{icon} {gap.count:,} {gap.state}: {wording.plain(gap.reason)}.")


def _random(manifest: Mapping[str, Any], family: str, contender: str) -> str | None:
    """The random order of the same family; None for itself."""
    for entry in manifest["contenders"]:
        if entry["family"] == family and Choice.parse(entry["explainer"]).name == "random":
            return entry["contender"] if entry["contender"] != contender else None
    return None


def _numbers(cell: CellMean, control: CellMean | None, metric: str, manifest: Mapping[str, Any]) -> None:
    """The mean with its interval, beside its control, and what the interval speaks about."""
    title = f"{study_words.plain_metric(metric)} {study_words.arrow(metric)[:1]}"
    with st.container(horizontal=True, gap="medium"):
        st.metric(title, study_words.value(cell.mean.value, metric), help=study_words.unit(metric) or None)
        if control is not None and control.n:
            st.metric("Random order, same family", study_words.value(control.mean.value, metric))
        st.metric("Images", f"{cell.mean.n:,}", help=f"{cell.n:,} numbers: images × training runs × seeds.")
    told = f"95 % interval over images {_interval(cell.mean, metric)} ({cell.mean.method}), for these very networks. "
    again = cell.retrained
    told += (
        f"Over training runs and images {_interval(again, metric)}, for retrained networks."
        if again.low is not None
        else f"For retrained networks there is none: {again.note}."
    )
    st.caption(wording.plain(told))


def _interval(estimate, metric: str) -> str:
    if estimate.low is None:
        return f"none ({estimate.note})"
    return f"[{study_words.value(estimate.low, metric)}, {study_words.value(estimate.high, metric)}]"


def _verdict(judged: Judgement, fill: str) -> None:
    """What may be said about the contender by the study's criteria; those about this fill unfolded."""
    wording.badge(judged.word, judged.sentence)
    st.markdown(wording.plain(judged.sentence))
    here = [criterion for criterion in judged.criteria if criterion.fill in (fill, "")]
    with st.expander(f"The criteria, under {study_words.fill(fill)} and overall", icon=":material/rule:"):
        for criterion in here:
            icon = {True: ":material/check:", False: ":material/close:", None: ":material/help:"}[criterion.met]
            st.markdown(f"{icon} {wording.plain(criterion.sentence)}")


def _dots(name: str, state: str, place: tuple[str, str], cell: CellMean, control: CellMean | None, metric: str) -> None:
    values = study_results.values(name, state, *place, metric)
    level = control.mean.value if control is not None and control.n else None
    spec = study_charts.dots(values, cell.mean.value, level, metric)
    mean = study_words.value(cell.mean.value, metric)
    beside = "" if level is None else f", the random order's is {study_words.value(level, metric)}"
    charts.curve(spec, "study.dots", f"{len(values.value)} numbers by class; the mean is {mean}{beside}")


def _curves(name: str, state: str, place: tuple[str, str], random: str | None, columns: Sequence) -> None:
    found = study_results.curves(name, state, (place[0], *([random] if random else [])), place[1])
    probability = Shelf.default().folder(name).study().curves.quantity == "probability"
    for column, (kind, curves) in zip(columns, found.items(), strict=True):
        with column:
            if not curves:
                st.caption(f"There are no {kind} curves: the study kept none, or none of this cell.")
                continue
            spec = study_charts.mean_curves(curves, place[0], kind, probability)
            told = f"Mean {kind} curve with its interval; the random order of the family is dashed"
            charts.curve(spec, f"study.curve.{kind}", told)
            st.caption("Blue: this contender. Dashed grey: random order, same family. Bands: 95 % over images.")
