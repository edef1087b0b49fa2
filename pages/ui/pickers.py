"""Pickers for checkpoint, explainer, fill, image and settings; each returns words that can stand in a link."""

from __future__ import annotations

import streamlit as st

from audit_core.data import dataset_of
from audit_core.errors import AuditError, InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS
from audit_core.images import prepare
from audit_core.keys import Choice
from audit_core.types import DIRECTIONS, PRECISIONS, QUANTITIES
from models import zoo
from models.cards import ModelCard
from pages.ui import params, resources, wording
from pages.ui.link import DEFAULTS
from pages.ui.session import opened_uploads, take_upload

SAMPLE, UPLOAD = "Sample wafers", "Your image"
PER_CLASS = 10
NAMES = {
    "predicted": "Predicted class",
    "label": "Labelled class",
    "probability": "Probability (softmax)",
    "logit": "Logit",
    "most": "Most important first",
    "least": "Least important first",
    "fp32": "fp32 (the record)",
    "bf16": "bf16 (faster on some devices)",
}


def seed_widgets(page: str, words: dict[str, str]) -> list[str]:
    """Set the widgets to ``words`` before they are drawn; returns a sentence for each word that has no meaning."""
    state, problems = st.session_state, []
    state[f"{page}.checkpoint"] = words["checkpoint"]
    try:
        card = resources.bench().card(words["checkpoint"])
    except AuditError as error:
        state[f"{page}.checkpoint"] = DEFAULTS["checkpoint"]
        card = resources.bench().card(zoo.names()[0])
        problems.append(f"{error}; using {card.name}.")
    for name, registry in (("explainer", EXPLAINERS), ("fill", FILLS)):
        try:
            choice = Choice.parse(words[name])
            params.seed(page, registry, choice)
        except AuditError as error:
            choice = Choice(DEFAULTS[name])
            params.seed(page, registry, choice)
            problems.append(f"{error}; using {choice.name}.")
        layer = dict(choice.params).get("layer")
        if layer and layer not in [known.name for known in card.feature_layers]:
            problems.append(f"{card.name} has no layer {_short(layer)}; using its last stage.")
        state[f"{page}.{name}"] = choice.name
    for name, options in (("direction", DIRECTIONS), ("quantity", QUANTITIES), ("precision", PRECISIONS)):
        good = words[name] in options
        if not good:
            problems.append(f"{name} must be {' or '.join(options)}, got {_short(words[name])}; using {options[0]}.")
        state[f"{page}.{name}"] = words[name] if good else options[0]
    for name, low, high, default in (
        ("steps", 1, 200, 20),
        ("patch", 1, 64, 1),
        ("controls", 0, 50, 8),
        ("seed", 0, 2**31 - 1, 0),
    ):
        good = _is_number(words[name]) and low <= int(words[name]) <= high
        if not good:
            found = _short(words[name])
            problems.append(f"{name} must be a whole number in [{low}, {high}], got {found}; using {default}.")
        state[f"{page}.{name}"] = int(words[name]) if good else default
    state[f"{page}.target"], state[f"{page}.against"] = words["target"], words["against"]
    _seed_image(page, words["image"], problems)
    return problems


def _is_number(word: str) -> bool:
    """Whether ``int`` reads the word: it takes neither superscripts nor thousands of digits."""
    return word.isdecimal() and len(word) <= 10


def _short(word: str) -> str:
    """A word of a link in quotes, cut where it is endless."""
    return repr(word if len(word) <= 80 else word[:80] + "…")


def _seed_image(page: str, reference: str, problems: list[str]) -> None:
    state, classes = st.session_state, dataset_of("synthetic:sample:0")[0].classes
    state[f"{page}.source"], state[f"{page}.class"], state[f"{page}.number"] = SAMPLE, classes[3], 1
    if reference.startswith("upload:"):
        state[f"{page}.source"] = UPLOAD
        opened_uploads().setdefault(reference, "Image of the opened link")
        state[f"{page}.upload"] = reference
        return
    try:
        if not reference.startswith("synthetic:sample:"):
            # A link may name files on this server through other data sets; the pages open none of them.
            raise InvalidParameter(
                f"image {reference!r} cannot be opened by link; use synthetic:sample:INDEX or upload the image"
            )
        dataset_of(reference)
        index = int(reference.rpartition(":")[2])
    except AuditError as error:
        problems.append(str(error))
        return
    state[f"{page}.class"], state[f"{page}.number"] = classes[index % len(classes)], index // len(classes) + 1


def checkpoint(page: str) -> str:
    """A shipped checkpoint, or one that this session brought or opened by link."""
    brought = st.session_state.setdefault("checkpoints", [])
    asked = st.session_state.get(f"{page}.checkpoint", "")
    if asked.startswith("custom:") and asked not in brought:
        brought.append(asked)
    options = [*zoo.names(), *filter(_is_here, brought)]
    if asked not in options:
        st.session_state[f"{page}.checkpoint"] = options[0]
    return st.selectbox(
        "Checkpoint",
        options,
        key=f"{page}.checkpoint",
        format_func=checkpoint_name,
        help="The trained model under audit. Add your own on the Checkpoints page.",
    )


def _is_here(reference: str) -> bool:
    try:
        resources.bench().card(reference)
    except AuditError:
        return False
    return True


def checkpoint_name(reference: str) -> str:
    """Family of a shipped checkpoint, file name of a brought one."""
    try:
        card = resources.bench().card(reference)
    except AuditError:
        return f"{reference} (no longer here)"
    return card.family if not reference.startswith("custom:") else f"{card.name} ({card.architecture})"


def explainer(page: str, card: ModelCard) -> Choice:
    """Applicable explainers to choose from; the others stand below with the reason."""
    refused = {
        name: why
        for name in EXPLAINERS
        if name != "outside" and (why := EXPLAINERS.build(Choice(name)).refuse(card))
    }
    asked = st.session_state.get(f"{page}.explainer")
    options = [name for name in _by_family(EXPLAINERS) if name not in refused or name == asked]
    show = lambda name: _grouped(EXPLAINERS, name) + (" — not for this model" if name in refused else "")
    name = st.selectbox(
        "Explainer",
        options,
        key=f"{page}.explainer",
        format_func=show,
        help="The method that draws the heatmap. Type to search.",
    )
    if name == "outside":
        _take_map(page)
    choice = _with_parameters(page, EXPLAINERS, name, card)
    if name not in refused:
        cost = EXPLAINERS.build(choice).cost(card)
        st.caption(f"{_first_line(EXPLAINERS, name)} At most {cost.forwards:,} forwards, {cost.backwards:,} backwards.")
    others = {other: why for other, why in refused.items() if other != name}
    if others:
        with st.expander(f"{len(others)} not offered for this model", icon=":material/block:"):
            for other, why in others.items():
                st.caption(f"**{EXPLAINERS[other].title}**: {wording.plain(why)}.")
    return choice


def _take_map(page: str) -> None:
    """A map made elsewhere: kept by content, and named in the explainer's parameter."""
    file = st.file_uploader(
        "Your map: .npy or .npz, rows × columns, higher = more evidence", key=f"{page}.map", max_upload_size=200
    )
    if file is None:
        return
    try:
        digest = resources.bench().add_map(file.getvalue(), file.name)
    except AuditError as problem:
        st.error(wording.plain(str(problem)), icon=":material/error:")
        return
    st.session_state[params.key_of(page, EXPLAINERS.kind, "outside", "map")] = digest


def fill(page: str) -> Choice:
    """All fills; one that has no meaning for the image is refused later, with the reason."""
    name = st.selectbox(
        "Fill",
        _by_family(FILLS),
        key=f"{page}.fill",
        format_func=lambda n: _grouped(FILLS, n),
        help="What stands in a pixel that is taken away. Change it and the ranking may turn over.",
    )
    choice = _with_parameters(page, FILLS, name, None)
    st.caption(_first_line(FILLS, name))
    return choice


def _by_family(registry) -> list[str]:
    """All names, families together, each family and its members in the order of registration."""
    families = list(dict.fromkeys(registry[name].family for name in registry))
    return sorted(registry, key=lambda name: families.index(registry[name].family))


def _grouped(registry, name: str) -> str:
    """Family and title, as a menu without headings can show them."""
    return f"{wording.heading(registry[name].family)} · {registry[name].title}"


def _first_line(registry, name: str) -> str:
    """The docstring's first sentence, which says what the entry does."""
    return wording.plain(registry.help(name).splitlines()[0])


def _with_parameters(page: str, registry, name: str, card: ModelCard | None) -> Choice:
    with st.popover("About and parameters", width="stretch", icon=":material/tune:"):
        st.markdown(registry.help(name))
        if pitfalls := registry[name].pitfalls:
            st.caption(f":material/warning: {wording.plain(pitfalls)}")
        return params.draw(page, registry, name, card)


def image(page: str, card: ModelCard) -> str | None:
    """A sample by class and number, or an upload; None while there is no upload yet."""
    source = st.segmented_control("Image", [SAMPLE, UPLOAD], key=f"{page}.source", required=True)
    return _sample(page, card) if source == SAMPLE else _upload(page)


def _sample(page: str, card: ModelCard) -> str:
    dataset, _ = dataset_of("synthetic:sample:0")
    for key in (f"{page}.class", f"{page}.number"):
        params.hold(key)
    name = st.selectbox(
        "Defect class",
        dataset.classes,
        key=f"{page}.class",
        persist_state="session",
        help="Generated wafer maps in the nine classes of WM-811K.",
    )
    first = dataset.classes.index(name)
    indices = [first + len(dataset.classes) * n for n in range(PER_CLASS)]
    st.image(
        [_thumbnail(index) for index in indices[:5]],
        width=48,
        caption=[str(n + 1) for n in range(5)],
        alt=[f"{name} wafer {n + 1}" for n in range(5)],
    )
    number = st.number_input("Wafer of this class", 1, PER_CLASS, key=f"{page}.number", persist_state="session")
    return f"synthetic:sample:{indices[number - 1]}"


@st.cache_data(max_entries=200, show_spinner=False)
def _thumbnail(index: int):
    dataset, _ = dataset_of("synthetic:sample:0")
    return prepare(dataset.image(index), zoo.card(zoo.names()[0]))[0]


def _upload(page: str) -> str | None:
    take_upload(
        page,
        st.file_uploader(
            "PNG, JPEG, BMP, TIFF, WebP or a 2-D .npy; or an exported audit card",
            key=f"{page}.file",
            max_upload_size=200,
            help="Stays on this server, under its content hash. Only who has the link can open it.",
        ),
    )
    known = opened_uploads()
    if not known:
        st.caption("Nothing uploaded yet. Drop a file above: a wafer map as .npy with codes 0/1/2, or any picture.")
        return None
    if st.session_state.get(f"{page}.upload") not in known:
        st.session_state[f"{page}.upload"] = list(known)[-1]
    return st.selectbox("Uploaded in this session", list(known), key=f"{page}.upload", format_func=known.__getitem__)


def target(page: str, card: ModelCard, labelled: bool) -> str:
    """Whose score is explained and measured."""
    options = ["predicted", *(["label"] if labelled else []), *card.classes]
    asked = st.session_state.get(f"{page}.target")
    if asked not in options:
        by_index = asked and _is_number(asked) and int(asked) < len(card.classes)
        st.session_state[f"{page}.target"] = card.classes[int(asked)] if by_index else "predicted"
        if asked and not by_index:
            problem = f"{card.name} has no class {_short(asked)} for this image; using the predicted class."
            st.session_state.setdefault(f"{page}.problems", []).append(problem)
    return st.selectbox(
        "Target",
        options,
        key=f"{page}.target",
        format_func=lambda name: NAMES.get(name, name),
        help="The class whose score the curves follow.",
    )


def against(page: str, card: ModelCard) -> str:
    """The class that the target is set against; "" for none."""
    options, asked = ["", *card.classes], st.session_state.get(f"{page}.against", "")
    if asked not in options:
        st.session_state[f"{page}.against"] = ""
        problem = f"{card.name} has no class {_short(asked)} to set the target against; asking without a contrast."
        st.session_state.setdefault(f"{page}.problems", []).append(problem)
    return st.selectbox(
        "Rather than",
        options,
        key=f"{page}.against",
        format_func=lambda name: name or "No contrast",
        help="Why the target rather than this class: map and curves follow the difference of their two logits.",
    )


def settings(page: str) -> dict[str, str]:
    """Everything else that can change a number."""
    names = ("steps", "patch", "direction", "quantity", "controls", "seed", "precision")
    for name in names:
        params.hold(f"{page}.{name}")
    with st.expander("Curve settings", icon=":material/settings:"):
        st.number_input(
            "Steps", 1, 200, key=f"{page}.steps", help="Points after the untouched image; the last reaches 100 %."
        )
        st.number_input("Patch (px)", 1, 64, key=f"{page}.patch", help="Side of the square that is changed at once.")
        for name, label, options in (
            ("direction", "Order", DIRECTIONS),
            ("quantity", "Score", QUANTITIES),
            ("precision", "Precision", PRECISIONS),
        ):
            st.selectbox(label, options, key=f"{page}.{name}", format_func=NAMES.__getitem__)
        st.number_input(
            "Random orders",
            0,
            50,
            key=f"{page}.controls",
            help="Orders behind the grey band; two or more give an interval.",
        )
        st.number_input("Seed", 0, 2**31 - 1, key=f"{page}.seed", help="Fixes masks, noise, random orders and ties.")
    return {name: str(st.session_state[f"{page}.{name}"]) for name in names}
