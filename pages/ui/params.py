"""Registry entries as widgets: one field, one widget, with the bounds and the help that the entry declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from audit_core.keys import Choice
from audit_core.params import Between, OneOf, Parameter
from audit_core.registry import Registry
from models.cards import ModelCard


def key_of(page: str, kind: str, name: str, parameter: str) -> str:
    """Widget key of one parameter."""
    return f"{page}.{kind}.{name}.{parameter}"


def hold(key: str) -> None:
    """Call before a widget is drawn that may have been out of sight: the browser forgets such a widget's value and
    would send the default in its place; a value that is set here is sent to the browser first."""
    if key in st.session_state:
        st.session_state[key] = st.session_state[key]


def seed(page: str, registry: Registry, choice: Choice) -> None:
    """Set the widgets of ``choice`` to its parameters before they are drawn."""
    full = dict(registry.complete(choice).params)
    for name, value in full.items():
        st.session_state[key_of(page, registry.kind, choice.name, name)] = value


def draw(page: str, registry: Registry, name: str, card: ModelCard | None = None) -> Choice:
    """Widgets for all parameters of an entry; returns the choice with what differs from the defaults."""
    params = []
    for parameter in registry.parameters(name).values():
        value = _widget(key_of(page, registry.kind, name, parameter.name), parameter, card)
        if value != parameter.default:
            params.append((parameter.name, value))
    return Choice(name, tuple(params))


def _widget(key: str, parameter: Parameter, card: ModelCard | None) -> Any:  # Any: bool, int, float or str
    label = parameter.name.replace("_", " ").capitalize()
    unit = getattr(parameter.limit, "unit", "")
    label = f"{label} ({unit})" if unit else label
    shared: Mapping[str, Any] = {"key": key, "help": parameter.limit.help or None}
    st.session_state.setdefault(key, parameter.default)
    hold(key)
    if parameter.type is bool:
        return st.toggle(label, **shared)
    if parameter.name == "layer" and card is not None:
        return st.selectbox(
            label, ["", *(layer.name for layer in card.feature_layers)], format_func=_layer_name(card), **shared
        )
    if isinstance(parameter.limit, OneOf):
        return st.selectbox(label, parameter.limit.options, **shared)
    if not isinstance(parameter.limit, Between):
        return st.text_input(label, **shared)
    if parameter.type is int:
        return st.number_input(label, int(parameter.limit.low), int(parameter.limit.high), **shared)
    return st.number_input(label, float(parameter.limit.low), float(parameter.limit.high), step=0.01, **shared)


def _layer_name(card: ModelCard):
    grids = {layer.name: f"{layer.name} · {layer.grid[0]}×{layer.grid[1]}" for layer in card.feature_layers}
    return lambda name: grids.get(name, name or "last stage")
