"""The registries as pages of a handbook: nothing here is typed twice, every word comes from the class itself."""

from __future__ import annotations

import streamlit as st

from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.metrics import METRICS
from audit_core.registry import Registry
from pages.ui import wording

KINDS: dict[str, Registry] = {"Explainers": EXPLAINERS, "Fills": FILLS, "Metrics": METRICS}
FACTS = (
    ("Formula", "formula"),
    ("Source", "source"),
    ("Computed by", "library"),
    ("Checked against", "witness"),
    ("Pitfalls", "pitfalls"),
)


def draw(kind: str, asked: str) -> None:
    """All entries of a kind that hold the asked words, by family."""
    registry = KINDS[kind]
    found = [name for name in registry if _holds(registry, name, asked)]
    st.caption(f"{len(found)} of {len(registry)} {kind.lower()}")
    if not found:
        st.info("Nothing holds these words. Clear the search to see all.", icon=":material/search_off:")
    for family in dict.fromkeys(registry[name].family for name in found):
        st.subheader(wording.plain(wording.heading(family) or "Other"), anchor=False)
        for name in found:
            if registry[name].family == family:
                _entry(registry, name)


def _holds(registry: Registry, name: str, asked: str) -> bool:
    entry = registry[name]
    text = " ".join((name, entry.title, entry.family, registry.help(name), *(getattr(entry, key) for _, key in FACTS)))
    return all(word in text.lower() for word in asked.lower().split())


def _entry(registry: Registry, name: str) -> None:
    entry = registry[name]
    with st.expander(f"**{wording.plain(entry.title)}** · `{name}`" + _direction(entry)):
        st.markdown(registry.help(name))
        for label, key in FACTS:
            if text := getattr(entry, key):
                st.markdown(f"**{label}:** {wording.plain(text)}" if key != "formula" else f"**{label}:** `{text}`")
        for label, key in (("Reads", "reads"), ("Values", "span")):
            if text := getattr(entry, key, ""):
                st.markdown(f"**{label}:** {wording.plain(text)}")
        _parameters(registry, name)


def _direction(entry) -> str:
    word = wording.DIRECTIONS.get(getattr(entry, "better", ""), "")
    return f" · {word}" if word else ""


def _parameters(registry: Registry, name: str) -> None:
    rows = [
        {"parameter": p.name, "default": str(p.default), "allowed": _allowed(p), "meaning": p.limit.help}
        for p in registry.parameters(name).values()
    ]
    if rows:
        st.dataframe(rows, hide_index=True, width="stretch")


def _allowed(parameter) -> str:
    limit = parameter.limit
    if hasattr(limit, "options"):
        return ", ".join(limit.options)
    if hasattr(limit, "low"):
        return f"{limit.low:g} to {limit.high:g} {limit.unit}".strip()
    return "yes or no" if parameter.type is bool else "a word"
