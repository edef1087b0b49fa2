"""The ranking on screen in the words of its URL: study, metric, contenders, filters, and the pair that is inspected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from audit_core.errors import InvalidParameter
from audit_core.study.filters import Filters
from pages.ui import link

PAGE = "reversal"
FILTERS = ("class", "leave-out", "training-seed", "correct")
KNOWN = ("study", "metric", "contender", "a", "b", "fill", "scheme", "published", *FILTERS)

Words = dict[str, list[str]]


def words() -> tuple[Words, bool]:
    """(what was asked for, whether it is news to the widgets): an opened link, else what was here last."""
    return link.lists(PAGE, KNOWN, f"{PAGE}.metric")


def remember(shown: Mapping[str, Sequence[str]], filters: Filters) -> None:
    """Write the view into the URL and keep it for page switches; empty words are left out."""
    said: Words = {name: list(values) for name, values in shown.items() if any(values)}
    for name, value in parse_qsl(str(filters)):
        said.setdefault(name, []).append(value)
    st.session_state[f"{PAGE}.words"] = said
    link.settle(PAGE, said)


def filters_of(asked: Mapping[str, Sequence[str]]) -> tuple[Filters, list[str]]:
    """The filters in a link, and a sentence for each that has no meaning."""
    good, problems = [], []
    for name in FILTERS:
        said = [(name, value) for value in asked.get(name, [])]
        try:
            Filters.parse(urlencode(said))
            good += said
        except InvalidParameter as problem:
            problems.append(f"{problem}; it is left out.")
    return Filters.parse(urlencode(good)), problems
