"""Side by side: one row of choosers, the ranking of a checkpoint on the left, how it was learned on the right."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from audit_core.errors import AuditError
from audit_core.i2x.beside import place_of
from audit_core.i2x.explanation import most_uncertain
from audit_core.study.filters import Filters
from pages.ui import i2x_charts, i2x_work, reversal_bump, side_charts, side_link, side_words, side_work, wording
from pages.ui import reversal_chart as chart
from pages.ui.i2x_work import Opened as Run
from pages.ui.params import hold
from pages.ui.reversal_looks import fill_title, worded
from pages.ui.reversal_work import Opened as Study
from pages.ui.side_work import METRIC

PAGE = side_link.PAGE
DRAWN = 3  # prototypes


def draw(run: Run, study: Study, top: DeltaGenerator) -> None:
    """The choosers go beside the title, so that all fits on one screen."""
    with top:
        pair = _choosers(run, study)
    state, made = st.session_state, run.analysis
    at = _scrubber(run)
    step = made.trajectory.steps[at]
    filters = Filters(classes=pair) if state[f"{PAGE}.images"] == side_link.PAIR else Filters()
    explainer, fill = state[f"{PAGE}.explainer"], state[f"{PAGE}.fill"]
    try:
        path = side_work.path(study, METRIC, filters)
    except AuditError as problem:
        st.info(wording.plain(str(problem)), icon=":material/filter_alt_off:")
        side_link.remember(run.name)
        return
    place = place_of(path, explainer, fill)
    looks = side_work.looks(study)
    front = looks[next(c.name for c in study.results.contenders if c.explainer == explainer)]
    left, right = st.columns(2, gap="large")
    with left:
        _ranking(study, filters, step, front.family)
    with right:
        indices = (made.classes.index(pair[0]), made.classes.index(pair[1]))
        _learning(run, indices, at)
        figure = side_charts.rank_path(place, path.steps, front, len(path.explainers), path.moment_of(step))
        st.markdown(f"**Rank of {front.family} under {fill_title(fill)} at every checkpoint**")
        said = side_words.stable_or_not(place, path.steps, front.family, fill, path.images)
        chart.show(figure, f"{PAGE}.path", said)
    st.markdown(f"#### {wording.plain(said)}")
    st.markdown(wording.plain(side_words.what_rose(run.analysis, place, path.steps, indices)))
    _onwards(run, pair, indices, at)
    with st.expander("How to read this page", icon=":material/help:"):
        st.markdown(side_words.HOW_TO_READ)
    side_link.remember(run.name)


def _choosers(run: Run, study: Study) -> tuple[str, str]:
    """Class pair, images, explainer, fill and checkpoint; returns the names of the two classes."""
    made, titles = run.analysis, side_work.titles(study)
    for name in side_link.KNOWN[1:]:
        hold(f"{PAGE}.{name}")
    for side, other in (("a", "b"), ("b", "a")):
        st.selectbox(
            f"Class {side.upper()}", made.classes, key=f"{PAGE}.{side}", width=110, on_change=_other,
            args=(other, st.session_state[f"{PAGE}.{side}"]),
        )  # fmt: skip
    words = {side_link.ALL: "All classes", side_link.PAIR: "A and B only"}
    st.selectbox("Ranked on images of", list(words), key=f"{PAGE}.images", format_func=words.__getitem__, width=150)
    st.selectbox("Explainer in front", list(titles), key=f"{PAGE}.explainer", format_func=titles.__getitem__,
                 width=200)  # fmt: skip
    fills = side_work.fills(study, METRIC)
    st.selectbox("Fill of its rank", fills, key=f"{PAGE}.fill", format_func=fill_title, width=160)
    return st.session_state[f"{PAGE}.a"], st.session_state[f"{PAGE}.b"]


def _scrubber(run: Run) -> int:
    """The checkpoint in front, as its place."""
    made = run.analysis
    steps = [str(one) for one in made.trajectory.steps]
    accuracy = dict(zip(steps, made.trajectory.accuracy, strict=True))
    st.select_slider(
        "Checkpoint (training step)", steps, key=f"{PAGE}.step",
        format_func=lambda one: f"step {one} · accuracy {accuracy[one]:.0%}",
    )  # fmt: skip
    return steps.index(st.session_state[f"{PAGE}.step"])


def _other(other: str, before: str) -> None:
    """Both classes the same: the other one takes the place that this one left."""
    state = st.session_state
    if state[f"{PAGE}.a"] == state[f"{PAGE}.b"]:
        state[f"{PAGE}.{other}"] = before


def _ranking(study: Study, filters: Filters, step: int, front: str) -> None:
    """The bump chart of one checkpoint."""
    st.markdown(f"**Rank reversal of the checkpoint at step {step}**")
    try:
        view = side_work.view(study, METRIC, filters, step)
    except AuditError as problem:
        st.info(wording.plain(str(problem)), icon=":material/filter_alt_off:")
        return
    looks, scheme = side_work.looks(study), view.schemes[0]
    sentence = worded(scheme.headline, {}, view.fills)
    for name in sorted(view.contenders, key=len, reverse=True):
        sentence = sentence.replace(name, looks[name].family)
    figure = reversal_bump.figure(view, scheme, looks, {})
    name = next((look.name for look in (looks[c] for c in view.contenders) if look.family == front), front)
    chart.show(side_charts.in_front(figure, name), f"{PAGE}.bump", reversal_bump.alt(view, scheme, looks, sentence))
    n = int(view.n.max())
    st.caption(
        f"{wording.plain(sentence)} Ranked by mean {chart.metric_title(METRIC)} ({chart.direction('higher')}), "
        f"n = {n:,} images; {wording.plain(filters.sentence) or 'all classes'}. Bands: 95 % interval of the rank."
    )


def _learning(run: Run, pair: tuple[int, int], at: int) -> None:
    """Confidences and intensities of the most uncertain prototypes between the two classes."""
    made = run.analysis
    chosen = [role.prototype for role in i2x_work.roles(run, pair)[:DRAWN]]
    means = [i2x_work.means(run, c) for c in pair]
    a, b = (made.classes[c] for c in pair)
    st.markdown(f"**How classes {wording.plain(a)} (solid) and {wording.plain(b)} (dashed) were learned**")
    figure = i2x_charts.trajectory(made, pair, chosen, means, at - 1 if at else None, height=284)
    side_charts.name_at_the_end(figure, {f"P-{k} in {a}": f"P-{k}" for k in chosen})
    chart.show(figure, f"{PAGE}.learning", f"Confidence and intensity over training for classes {a} and {b}.")


def _onwards(run: Run, pair: tuple[str, str], indices: tuple[int, int], at: int) -> None:
    """To the full view of this moment, and to curation."""
    steps = run.analysis.trajectory.steps
    top = most_uncertain(i2x_work.roles(run, indices)).prototype
    if st.button(f"Look at P-{top}, curate and fine-tune", icon=":material/arrow_forward:", key=f"{PAGE}.onwards"):
        asked = {"run": run.name, "a": pair[0], "b": pair[1], "to": str(steps[max(at, 1)]), "remove": str(top)}
        st.switch_page("pages/i2x.py", query_params=asked)
