"""The widgets of a study's form, and the study that they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.metrics import METRICS
from audit_core.registry import Registry
from audit_core.study.definition import Entry, Study
from audit_core.study.presets import native
from models import zoo
from pages.ui import params, pickers, resources, study_words

FORM = "study.form."
MOST_STEPS = 10_000  # as an audit allows
SLOW = ("sanity", "stability", "localisation", "complexity")  # families of metrics that need maps of their own


def seed(study: Study) -> None:
    """Set the widgets to a study before they are drawn."""
    for name, value in _values(study).items():
        st.session_state[FORM + name] = value


def _values(study: Study) -> dict[str, Any]:  # Any: what the widgets hold
    return {
        "title": study.title,
        "checkpoints": [entry.name for entry in study.checkpoints],
        "explainers": list(study.explainers),
        "fills": list(study.fills),
        "per_class": study.images.per_class,
        "steps": study.curves.steps,
        "seeds": [str(seed) for seed in study.curves.seeds],
        "checks": list(study.checks.metrics),
        "check_images": study.checks.per_class,
    }


def study_of(before: Study) -> Study:
    """``before`` with what the widgets hold now; ``InvalidParameter`` where that makes no study."""
    held = {name: st.session_state[FORM + name] for name in _values(before)}
    known = {entry.name: entry for entry in before.checkpoints}
    if wrong := [word for word in held["seeds"] if not (word.isascii() and word.isdigit() and len(word) < 10)]:
        raise InvalidParameter(f"a seed is a whole number from 0 on, got {wrong[0][:40]!r}")
    return replace(
        before,
        title=held["title"] or "untitled study",
        checkpoints=tuple(known.get(name) or _entry(name) for name in held["checkpoints"]),
        explainers=tuple(held["explainers"]),
        fills=tuple(held["fills"]),
        images=replace(before.images, per_class=held["per_class"]),
        curves=replace(before.curves, steps=held["steps"], seeds=tuple(int(word) for word in held["seeds"])),
        checks=replace(before.checks, metrics=tuple(held["checks"]), per_class=held["check_images"]),
    )


def _entry(name: str) -> Entry:
    return Entry(name, explainers=native(resources.bench().card(name)))


def draw(study: Study, changed: Callable[[], None], disabled: bool) -> None:
    """All widgets; a first visit finds them set to ``study``."""
    for name, value in _values(study).items():
        st.session_state.setdefault(FORM + name, value)
        params.hold(FORM + name)
    shared: dict[str, Any] = {"on_change": changed, "disabled": disabled}
    brought = [name for name in st.session_state.get("checkpoints", []) if name.startswith("custom:")]
    st.text_input("Title", key=FORM + "title", **shared)
    _menu("Checkpoints", "checkpoints", [*zoo.names(), *brought], pickers.checkpoint_name, shared)
    _registry("Explainers for all checkpoints", "explainers", EXPLAINERS, study_words.explainer, shared)
    _registry("Fills", "fills", FILLS, study_words.fill, shared)
    few, many, seeds = st.columns(3)
    few.number_input("Images per class", 0, None, key=FORM + "per_class", help="0 takes all.", **shared)
    many.number_input("Steps of a curve", 1, MOST_STEPS, key=FORM + "steps", **shared)
    with seeds:
        told = "Each seed repeats the whole study with other random draws."
        _menu("Seeds", "seeds", list("01234"), str, {**shared, "accept_new_options": True, "help": told})
    left, right = st.columns([2, 1])
    with left:
        slow = [name for name in METRICS if METRICS[name].family in SLOW]
        told = "Measured on a few images of each class, under the first fill only."
        _menu("Slow checks", "checks", slow, study_words.plain_metric, {**shared, "help": told})
    right.number_input("Their images per class", 0, None, key=FORM + "check_images", help="0 takes all.", **shared)


def _registry(label: str, name: str, registry: Registry, words: Callable[[str], str], shared: dict[str, Any]) -> None:
    known = [entry for entry in registry if entry != "outside"]
    told = "Pick a name, or type name:key=value to set its parameters, as on the command line."
    _menu(label, name, known, words, {**shared, "accept_new_options": True, "help": told})


def _menu(label: str, name: str, known: list[str], words: Callable[[str], str], shared: dict[str, Any]) -> None:
    options = list(dict.fromkeys([*known, *st.session_state[FORM + name]]))
    st.multiselect(label, options, key=FORM + name, format_func=words, **shared)
