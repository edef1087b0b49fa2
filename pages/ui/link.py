"""The link is the state: one audit in the words of its URL, kept in step with the page's widgets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

LATE = 5.0  # seconds for which an address that we replaced may still come back from the browser
DEFAULTS = {
    "checkpoint": "wafer-vit-tiny",
    "explainer": "rollout",
    "fill": "zero",
    "image": "synthetic:sample:3",
    "target": "predicted",
    "against": "",
    "steps": "20",
    "patch": "1",
    "direction": "most",
    "quantity": "probability",
    "controls": "8",
    "seed": "0",
    "precision": "fp32",
}


def words(page: str) -> tuple[dict[str, str], bool]:
    """(the audit in words, whether it is news to the widgets): a link that was opened, else what was here last."""
    last = f"{page}.written"
    asked = {name: value for name, value in st.query_params.to_dict().items() if name in DEFAULTS}
    known = st.session_state.get(f"{page}.words")
    if asked and asked != st.session_state.get(last) and not late(page, asked):
        return {**DEFAULTS, **asked}, True
    return dict(known or DEFAULTS), known is None


def lists(page: str, names: Sequence[str], widget: str) -> tuple[dict[str, list[str]], bool]:
    """(all values of these words, whether they are news to the widgets): an opened link, else what was here last.

    widget: the key of one that is there once the page was drawn.
    """
    asked = {name: st.query_params.get_all(name) for name in names if name in st.query_params}
    known = st.session_state.get(f"{page}.words")
    if asked and asked != st.session_state.get(f"{page}.written") and not late(page, asked):
        return asked, True
    return dict(known or {}), widget not in st.session_state


def first(asked: Mapping[str, Sequence[str]], name: str) -> str:
    """The one word that counts, "" for none."""
    return next(iter(asked.get(name, [])), "")


def address() -> str:
    """The whole link of what is on screen."""
    base = (st.context.url or "").partition("?")[0]
    return f"{base}?{urlencode(st.query_params.to_dict())}"


def late(page: str, asked: Any) -> bool:  # Any: whatever the page writes, compared only
    """Whether this is our own last but one address: the browser sends it until it has heard of the newer one."""
    past = st.session_state.get(f"{page}.past", [])
    return any(words == asked and time.monotonic() - replaced < LATE for replaced, words in past)


def note(page: str, shown: Any) -> None:
    """Keep what is about to be written into the address, and for a while what it replaces; see :func:`late`."""
    before, now = st.session_state.get(f"{page}.written"), time.monotonic()
    if before not in (None, shown):
        past = [one for one in st.session_state.get(f"{page}.past", []) if now - one[0] < LATE]
        st.session_state[f"{page}.past"] = [*past, (now, before)]
    st.session_state[f"{page}.written"] = shown


def settle(page: str, shown: Mapping[str, list[str]]) -> None:
    """Write these words into the address, unless they are there already; they are no news afterwards."""
    note(page, dict(shown))
    if {name: st.query_params.get_all(name) for name in st.query_params} != shown:
        st.query_params.from_dict(shown)


def remember(page: str, current: Mapping[str, str]) -> None:
    """Write what differs from the defaults into the URL (the four names always), and keep it for page switches."""
    named = ("checkpoint", "explainer", "fill", "image")
    shown = {name: value for name, value in current.items() if name in named or value != DEFAULTS[name]}
    st.session_state[f"{page}.words"] = dict(current)
    note(page, shown)
    if st.query_params.to_dict() != shown:
        st.query_params.from_dict(shown)
