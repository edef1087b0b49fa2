"""A comparison in the words of its URL: one image, shared settings, and up to six ``triple=`` parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

import streamlit as st

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.types import Triple
from pages.ui import link

PLACES = 6
SHARED = {name: value for name, value in link.DEFAULTS.items() if name not in ("checkpoint", "explainer", "fill")}


def encode(triple: Triple, slot: int) -> str:
    """``checkpoint|explainer|fill|slot``; the slot is the triple's colour and letter. Bars inside a part are quoted."""
    parts = (triple.checkpoint, str(triple.explainer), str(triple.fill), str(slot))
    return "|".join(quote(part, safe=":=,. ") for part in parts)


def decode(text: str, place: int) -> tuple[Triple, int]:
    """Inverse of :func:`encode`; without a slot the triple takes ``place``. ``InvalidParameter`` says what is wrong."""
    parts = [unquote(part).strip() for part in text.split("|")]
    if len(parts) not in (3, 4) or not all(parts):
        found = repr(text[:120])
        raise InvalidParameter(f"a triple in the link reads checkpoint|explainer|fill, got {found}; it is left out")
    slot = int(parts[3]) if len(parts) == 4 and parts[3] in "012345" else place
    return Triple(parts[0], Choice.parse(parts[1]), Choice.parse(parts[2])), slot


def words() -> tuple[dict[str, str], list[str], bool]:
    """(shared settings, triples, whether they are news to the widgets): an opened link, else what was here last."""
    asked = {name: value for name, value in st.query_params.to_dict().items() if name in SHARED}
    triples = st.query_params.get_all("triple")
    known = st.session_state.get("compare.words")
    news = (asked, triples) != st.session_state.get("compare.written") and not link.late("compare", (asked, triples))
    if (asked or triples) and news:
        return {**SHARED, **asked}, triples, True
    if known:
        return dict(known[0]), list(known[1]), False
    return dict(SHARED), [], True


def remember(shared: Mapping[str, str], triples: Iterable[str]) -> None:
    """Write the comparison into the URL (settings only where they differ from the defaults) and keep it."""
    shown = {name: value for name, value in shared.items() if name == "image" or value != SHARED[name]}
    listed = list(triples)
    st.session_state["compare.words"] = (dict(shared), listed)
    link.note("compare", (shown, listed))
    wanted = {**shown, **({"triple": listed} if listed else {})}
    if {name: st.query_params.get_all(name) for name in st.query_params} != {
        name: value if isinstance(value, list) else [value] for name, value in wanted.items()
    }:
        st.query_params.from_dict(wanted)
