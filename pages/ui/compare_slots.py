"""The columns of a comparison: which triple stands where, under which colour and letter, and how it is edited."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from audit_core.errors import AuditError
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.readouts import relation
from audit_core.types import Triple
from models import zoo
from models.cards import ModelCard
from pages.ui import compare_link, params, pickers, resources
from pages.ui.compare_link import PLACES

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito 2008
LETTERS = "ABCDEF"
SPREAD = ("zero", "image-mean", "blur", "gaussian-noise", "reference", "road")  # fills that differ most in kind
QUICK = {
    "checkpoints": ("Same explainer, all checkpoints", ":material/account_tree:"),
    "explainers": ("Same checkpoint, all explainers", ":material/visibility:"),
    "fills": ("Same map, all fills", ":material/format_paint:"),
}


def native(card: ModelCard) -> str:
    """The explainer that reads what the checkpoint's score is read from: rollout for a class token, else Grad-CAM."""
    return "rollout" if relation(EXPLAINERS["rollout"].reads, card).badge == "native" else "grad-cam"


def defaults() -> list[Triple]:
    """Every shipped checkpoint with its native explainer, under zero fill."""
    return [Triple(name, Choice(native(zoo.card(name))), Choice("zero")) for name in zoo.names()[:PLACES]]


def order() -> list[int]:
    """Slots from left to right."""
    return st.session_state.setdefault("compare.slots", [])


def present() -> bool:
    """Whether the widgets still know their triples; a switch of pages makes Streamlit forget them."""
    slots = order()
    return bool(slots) and all(f"compare.{slot}.checkpoint" in st.session_state for slot in slots)


def seed(texts: Sequence[str]) -> list[str]:
    """Set the columns to the triples of a link; returns a sentence for each that has no meaning."""
    order().clear()
    problems = []
    if len(texts) > PLACES:
        problems.append(f"{len(texts)} triples were asked for, {PLACES} fit; the rest was left out.")
    for place, text in enumerate(texts[:PLACES]):
        try:
            triple, slot = compare_link.decode(text, place)
            _place(triple, slot)
        except AuditError as error:
            problems.append(str(error))
    if not order():
        for triple in defaults():
            _place(triple, None)
    return problems


def _place(triple: Triple, slot: int | None) -> None:
    """Append a triple; ``UnknownName`` or ``InvalidParameter`` when a name or parameter does not exist."""
    for registry, choice in ((EXPLAINERS, triple.explainer), (FILLS, triple.fill)):
        registry.build(choice)
    brought = st.session_state.setdefault("checkpoints", [])
    if triple.checkpoint.startswith("custom:") and triple.checkpoint not in brought:
        brought.append(triple.checkpoint)
    elif triple.checkpoint not in brought:
        resources.bench().card(triple.checkpoint)
    free = [n for n in range(PLACES) if n not in order()]
    slot = slot if slot in free else free[0]
    prefix = f"compare.{slot}"
    st.session_state[f"{prefix}.checkpoint"] = triple.checkpoint
    for registry, choice in ((EXPLAINERS, triple.explainer), (FILLS, triple.fill)):
        st.session_state[f"{prefix}.{registry.kind}"] = choice.name
        params.seed(prefix, registry, choice)
    order().append(slot)


def editor(slot: int) -> Triple:
    """Head and pickers of one column; returns its triple."""
    prefix, letter = f"compare.{slot}", LETTERS[slot]
    st.html(f'<div style="height:6px;border-radius:3px;background:{COLOURS[slot]}"></div>')
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown(f"#### {letter}", width="stretch")
        parameters = st.popover(":material/tune:", type="tertiary", help=f"Parameters of {letter}")
        _buttons(slot)
    checkpoint = st.selectbox(
        f"Checkpoint of {letter}",
        _checkpoints(),
        key=f"{prefix}.checkpoint",
        format_func=pickers.checkpoint_name,
        label_visibility="collapsed",
    )
    card, refused = _card(checkpoint), _refused(checkpoint)
    explainer = st.selectbox(
        f"Explainer of {letter}",
        list(EXPLAINERS),
        key=f"{prefix}.explainer",
        label_visibility="collapsed",
        format_func=lambda name: EXPLAINERS[name].title + (" — not for this model" if name in refused else ""),
    )
    fill = st.selectbox(
        f"Fill of {letter}",
        list(FILLS),
        key=f"{prefix}.fill",
        label_visibility="collapsed",
        format_func=lambda name: f"Fill: {FILLS[name].title}",
    )
    with parameters:
        if not (EXPLAINERS.parameters(explainer) or FILLS.parameters(fill)):
            st.caption(f"{EXPLAINERS[explainer].title} and this fill have no parameters.")
        chosen = params.draw(prefix, EXPLAINERS, explainer, card), params.draw(prefix, FILLS, fill)
    return Triple(checkpoint, *chosen)


def _buttons(slot: int) -> None:
    prefix, letter, slots = f"compare.{slot}", LETTERS[slot], order()
    place = slots.index(slot)
    st.button(
        ":material/arrow_back:",
        key=f"{prefix}.left",
        type="tertiary",
        help=f"Move {letter} to the left",
        on_click=_move,
        args=(slot, -1),
        disabled=place == 0,
    )
    st.button(
        ":material/arrow_forward:",
        key=f"{prefix}.right",
        type="tertiary",
        help=f"Move {letter} to the right",
        on_click=_move,
        args=(slot, 1),
        disabled=place == len(slots) - 1,
    )
    st.button(
        ":material/close:",
        key=f"{prefix}.remove",
        type="tertiary",
        help=f"Remove {letter}",
        on_click=slots.remove,
        args=(slot,),
        disabled=len(slots) == 1,
    )


def quick(kind: str) -> None:
    """Fill the columns from the first triple: over all checkpoints, explainers or fills (at most six)."""
    first, _ = compare_link.decode(st.session_state["compare.words"][1][0], 0)
    own = {"checkpoints": first.checkpoint, "explainers": first.explainer.name, "fills": first.fill.name}[kind]
    refused = _refused(first.checkpoint)
    offered = {
        "checkpoints": _checkpoints(),
        "explainers": sorted(EXPLAINERS, key=lambda name: name in refused),
        "fills": [*SPREAD, *(name for name in FILLS if name not in SPREAD)],
    }[kind]
    names = [own, *(name for name in offered if name != own)]
    order().clear()
    for name in names[:PLACES]:
        _place(_varied(first, kind, name), None)
    if rest := names[PLACES:]:
        title = {
            "checkpoints": pickers.checkpoint_name,
            "explainers": lambda name: EXPLAINERS[name].title,
            "fills": lambda name: FILLS[name].title,
        }[kind]
        st.session_state["compare.rest"] = f"{PLACES} fit side by side; left out: {', '.join(map(title, rest))}."


def _varied(first: Triple, kind: str, name: str) -> Triple:
    """``first`` with another checkpoint, explainer or fill; what keeps its name keeps its parameters."""
    if kind == "checkpoints":
        return Triple(name, first.explainer, first.fill)
    if kind == "explainers":
        return Triple(first.checkpoint, first.explainer if name == first.explainer.name else Choice(name), first.fill)
    return Triple(first.checkpoint, first.explainer, first.fill if name == first.fill.name else Choice(name))


def add() -> None:
    """One column more: the next shipped checkpoint that is not there yet, else the first triple under another fill."""
    here = [compare_link.decode(text, 0)[0] for text in st.session_state["compare.words"][1]]
    again = [Triple(here[0].checkpoint, here[0].explainer, Choice(name)) for name in (*SPREAD, *FILLS)]
    used = {(one.checkpoint, one.explainer.name, one.fill.name) for one in here}
    fresh = [one for one in (*defaults(), *again) if (one.checkpoint, one.explainer.name, one.fill.name) not in used]
    _place((fresh or here)[0], None)


def _move(slot: int, by: int) -> None:
    slots = order()
    place = slots.index(slot)
    slots[place], slots[place + by] = slots[place + by], slots[place]


def _checkpoints() -> list[str]:
    return [*zoo.names(), *st.session_state.setdefault("checkpoints", [])]


def _card(checkpoint: str) -> ModelCard | None:
    try:
        return resources.bench().card(checkpoint)
    except AuditError:
        return None


def _refused(checkpoint: str) -> set[str]:
    card = _card(checkpoint)
    return {name for name in EXPLAINERS if EXPLAINERS.build(Choice(name)).refuse(card)} if card else set()
