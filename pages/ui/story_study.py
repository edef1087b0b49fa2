"""Steps 4 and 5 of the story: the ranking that turns over, and what to do. From a study."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from audit_core.errors import AuditError
from audit_core.study.criteria import Criteria
from audit_core.study.filters import Filters
from audit_core.study.judgement import WORDS, Judgement, judge
from audit_core.study.ranking import PairReversal, ReversalView
from audit_core.study.shelf import Shelf
from pages.ui import reversal_bump, reversal_chart, reversal_looks, reversal_work, story_words, wording
from pages.ui.reversal_looks import Look
from pages.ui.reversal_work import Opened

METRICS = ("deletion", "srg", "insertion")  # the first that the study has; deletion is what steps 2 and 3 showed
HEIGHT = 450
ADVICE = (
    (":material/format_color_fill:", "**Say the fill.** A score without its fill is half a sentence."),
    (":material/casino:", "**Ask for the controls.** A map must beat random, brightness, centre and edges."),
    (":material/rule:", "**Test yours.** Audit your own checkpoint before you trust its heatmaps."),
)


def open_asked() -> Opened | None:
    """The study in the link, else the first on the shelf; None, with a sentence, where there is none."""
    names = Shelf.default().names()
    asked = st.query_params.get("study", names[0] if names else "")
    if not asked:
        st.info("No study is here yet: run one on the Study page.", icon=":material/hourglass_empty:")
        return None
    try:
        return reversal_work.open_study(asked)
    except AuditError as problem:
        st.warning(wording.plain(str(problem)), icon=":material/link_off:")
        return None


def draw(step: int) -> None:
    """Step 4 or 5."""
    opened = open_asked()
    if opened is not None:
        (turned if step == 4 else concluded)(opened)


def turned(opened: Opened) -> None:
    """Step 4: native explainers of the families; if none of them turns surely, all that read a network."""
    looks = reversal_looks.looks(opened.results.contenders, opened.manifest, reversal_chart.theme())
    try:
        view = _view(opened)
    except AuditError as problem:
        st.title("This study cannot be ranked.", anchor=False)
        st.info(wording.plain(str(problem)))
        return
    pair = surest(view)
    both = [looks[name] for name in (pair.first, pair.second)] if pair else []
    names = [f"{look.family}’s {look.title}" for look in both] or ["", ""]
    sentence = story_words.turned(pair, *names)
    st.title(wording.plain(sentence), anchor=False)
    _bump(view, looks, sentence)
    st.caption(_basis(opened, view, pair))


def _view(opened: Opened) -> ReversalView:
    metric = next((m for m in METRICS if m in opened.results.metrics), METRICS[0])
    native = list(reversal_looks.native(opened.results.contenders, opened.manifest).values())
    found = reversal_work.reversal(opened, metric, Filters(), native) if len(native) > 1 else None
    if found is not None and (pair := surest(found)) and pair.certain:
        return found
    every = [c.name for c in opened.results.named(roles=("own", "agnostic"))]
    wider = reversal_work.reversal(opened, metric, Filters(), every)
    pair = surest(wider)
    if found is not None and not (pair and pair.certain):
        return found
    front = dict.fromkeys([*native, *([pair.first, pair.second] if pair else [])])
    return reversal_work.reversal(opened, metric, Filters(), list(front)) if len(front) > 1 else wider


def surest(view: ReversalView) -> PairReversal | None:
    """The pair that changes places most surely, None where none does."""
    pairs = view.schemes[-1].pairs
    return pairs[0] if pairs and pairs[0].reverses else None


def _bump(view: ReversalView, looks: Mapping[str, Look], sentence: str) -> None:
    figure = reversal_bump.figure(view, view.schemes[-1], looks, {})
    labels = [reversal_chart.wrapped(story_words.stand_in(fill).capitalize(), 16) for fill in view.fills]
    figure.update_xaxes(
        ticktext=labels, tickfont={"size": 17}, title={"text": "Stand-in (the fill)"}, tickangle=None, automargin=True
    )
    figure.update_annotations(font={"size": 16})
    figure.update_layout(height=HEIGHT, font={"size": 16}, margin={"t": 34, "b": 96})
    reversal_chart.show(figure, "story.bump", reversal_bump.alt(view, view.schemes[-1], looks, sentence))


def _basis(opened: Opened, view: ReversalView, pair: PairReversal | None) -> str:
    scheme = view.schemes[-1].scheme
    drawn = "images" if scheme == "images" else "training runs and images"
    sure = f"Seen in {wording.plain(reversal_share(pair.directed))} of 2,000 redraws of the {drawn}. " if pair else ""
    return (
        f"{sure}Ranked by mean {reversal_chart.metric_title(view.metric)} ({reversal_chart.direction(view.better)}) "
        f"over {opened.results.units:,} images; bands: 95 % interval of the rank. "
        f"Study: {_title(opened)}."
    )


def reversal_share(value: float) -> str:
    """A share of resamples; 100 % only where all of them agree."""
    return "more than 99 %" if 0.995 <= value < 1 else f"{100 * value:.0f} %"


def concluded(opened: Opened) -> None:
    """Step 5: how many hold, which, and what to do."""
    try:
        criteria = Criteria.parse(opened.manifest.get("criteria", {}))
        judged = _judged(opened.root, opened.stamp, opened)
    except AuditError as problem:
        st.title("This study cannot be judged.", anchor=False)
        st.info(wording.plain(str(problem)))
        return
    sentence = story_words.concluded(judged, criteria.share_of_fills)
    st.title(wording.plain(sentence), anchor=False)
    _counts(judged)
    left, right = st.columns([1, 1.15], gap="large")
    with left:
        _native(opened, judged)
    with right:
        st.markdown("#### What to do")
        for icon, text in ADVICE:
            st.markdown(f"{icon} {text}")
        with st.container(horizontal=True):
            st.page_link("pages/spot_audit.py", label="Audit one image", icon=":material/arrow_forward:")
            st.page_link("pages/reversal.py", label="Look at the ranking", icon=":material/arrow_forward:")
    st.caption(
        f"{opened.results.units:,} images, {len(opened.results.fills)} fills. A verdict holds for these networks, "
        f"images and fills, not for an explainer as such. Study: {_title(opened)}."
    )


def _title(opened: Opened) -> str:
    return wording.plain(str(opened.manifest.get("title") or opened.name))


@st.cache_data(max_entries=8, show_spinner="Judging every explanation …")
def _judged(root: str, stamp: str, _opened: Opened) -> tuple[Judgement, ...]:
    criteria = Criteria.parse(_opened.manifest.get("criteria", {}))
    return judge(_opened.results, criteria, np.random.default_rng(reversal_work.SEED))


def _counts(judged: tuple[Judgement, ...]) -> None:
    """How many contenders got each word."""
    for column, word in zip(st.columns(len(WORDS)), WORDS, strict=True):
        with column.container(border=True):
            st.markdown(f"## {sum(one.word == word for one in judged)} {story_words.badge(word)}")


def _native(opened: Opened, judged: tuple[Judgement, ...]) -> None:
    """The verdict on each family's own explainer."""
    looks = reversal_looks.looks(opened.results.contenders, opened.manifest, reversal_chart.theme())
    native = reversal_looks.native(opened.results.contenders, opened.manifest).values()
    st.markdown("#### Each family’s own explainer")
    for one in judged:
        if one.contender in native:
            st.markdown(f"{story_words.badge(one.word)} {wording.plain(looks[one.contender].name)}")
