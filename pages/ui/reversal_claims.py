"""What can be claimed about every pair of contenders, and under how many fills the claim holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from audit_core.study.analysis import PairReversal, ReversalView, SchemeView
from pages.ui import reversal_chart as chart
from pages.ui.reversal_looks import Look

PAGE = "reversal"


def claims(view: ReversalView, scheme: SchemeView, looks: Mapping[str, Look]) -> None:
    """Every pair as a claim, and under how many fills it holds."""
    rows = [_claim(pair, looks) for pair in scheme.pairs]
    st.dataframe(rows, hide_index=True, width="stretch", key=f"{PAGE}.claims", height=min(400, 38 + 35 * len(rows)))
    st.caption(
        f"More faithful: by mean {chart.metric_title(view.metric)} ({chart.direction(view.better)}). "
        "The claim is written the way round that holds under more fills; its share counts fills, with the 95 % "
        "interval over resamples. “Reverses in”: resamples in which at least two fills disagree about the pair. "
        "“Certain”: under two fills the 95 % intervals lie on opposite sides of zero, each by itself."
    )


def _claim(pair: PairReversal, looks: Mapping[str, Look]) -> dict[str, object]:
    share, names = pair.share_of_fills, (pair.first, pair.second)
    low, high, value = share.low, share.high, share.value
    if value < 0.5:
        names, value = names[::-1], 1 - value
        low, high = (None if bound is None else 1 - bound for bound in (high, low))
    known = np.isfinite(value)
    bounds = "" if low is None or high is None else f" [{low:.0%}, {high:.0%}]".replace("%", " %")
    return {
        "Claim": f"{looks[names[0]].name} is more faithful than {looks[names[1]].name}",
        "Holds under": f"{value * share.n:g} of {share.n} fills{bounds}" if known else "no fill has both",
        "Reverses in": f"{pair.probability:.0%}".replace("%", " %") if known and share.n > 1 else "–",
        "Certain": "yes" if pair.certain and pair.reverses else "no",
    }
