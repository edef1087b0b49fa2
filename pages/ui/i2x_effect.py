"""What fine-tuning did: the verdict in words, the strategies in a table, confusions before and after."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from audit_core.i2x.comparisons import Compared
from audit_core.i2x.curation import CURATED
from audit_core.i2x.effects import HELPED, HURT, table
from pages.ui import i2x_charts_effect, i2x_words, wording
from pages.ui import reversal_chart as chart
from pages.ui.i2x_work import Opened

PAGE = "i2x"
BADGES = {HELPED: (":material/check_circle:", "blue"), HURT: (":material/cancel:", "red")}
TABLE = (
    "Mean ± standard deviation over the repeats; differences are taken repeat by repeat against the baseline of as "
    "many epochs, with 95 % intervals (t; [–] for one repeat, or where the repeats do not differ). “random” removes as "
    "many images of each class at random, “other prototype” those of another prototype: what they change as well is "
    "not the prototype’s doing."
)
MATRICES = (
    "Wrongly classified test images, true class by row (mean over the repeats); right ones in grey letters without "
    "colour, the pair framed. One colour scale for both."
)


def draw(opened: Opened, found: Compared) -> None:
    """All of it, for the strategy that is chosen."""
    rows = table(found.outcomes)
    names = [opened.analysis.classes[c] for c in found.asked.pair]
    known = [row.strategy for row in rows]
    key = f"{PAGE}.strategy"
    if st.session_state.get(key) not in known:
        st.session_state[key] = CURATED if CURATED in known else known[0]
    strategy = st.selectbox("Strategy (training set of each epoch)", known, key=key, width=330)
    word, sentence = i2x_words.outcome(rows, strategy, found, names)
    with st.container(key=f"{PAGE}.verdict"):
        if word:
            icon, colour = BADGES.get(word, (":material/help:", "orange"))
            st.badge(word, icon=icon, color=colour)
        st.markdown(f"#### {wording.plain(sentence)}")
    pair, told = " ↔ ".join(names), partial(i2x_words.difference, short=True)
    st.dataframe(
        [
            {
                "Strategy": row.strategy,
                "n": row.n,
                "Accuracy ↑": f"{row.accuracy:.1%} ± {row.accuracy_sd:.1%}",
                f"Confusions {pair} ↓": f"{row.confusions:.1f} ± {row.confusions_sd:.1f}",
                "Against": row.baseline if row.strategy != row.baseline else "–",
                "Confusions, difference [95 %]": told(row.confusions_difference, 1),
                "Accuracy, difference in points [95 %]": i2x_words.difference(
                    row.accuracy_difference, 1, 100, short=True
                ),
            }
            for row in rows
        ],
        hide_index=True,
        key=f"{PAGE}.strategies",
    )
    st.caption(TABLE)
    top, asked, classes = i2x_charts_effect.largest_wrong(found, strategy), found.asked.pair, opened.analysis.classes
    shown = {
        f"before, step {found.start}": np.array(found.before.confusion),
        f"after “{strategy}”": found.confusion(strategy),
    }
    for column, (when, counts), key in zip(st.columns(2, gap="large"), shown.items(), ("before", "after"), strict=True):
        with column:
            st.markdown(f"**Confusions {wording.plain(when)}**")
            figure = i2x_charts_effect.confusion(counts, asked, classes, top)
            chart.show(figure, f"{PAGE}.confusions.{key}", i2x_charts_effect.alt(counts, asked, classes, when))
    st.caption(MATRICES)
