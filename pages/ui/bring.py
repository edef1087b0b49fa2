"""Bring your own checkpoint: the form, its checks, and what was added in this session."""

from __future__ import annotations

import math

import streamlit as st

from audit_core.errors import AuditError, InvalidParameter
from pages.ui import cards, resources, wording

LIMITS = (
    ("Number of classes", "num_classes", 2, 100_000),
    ("Channels", "in_chans", 1, 64),
    ("Image side (px)", "img_size", 8, 2048),
)
DECLARED = (
    "Pixels are in [0, 1]; the network sees (pixel − mean) / deviation. Empty: as timm declares for the architecture."
)
OPTIONS = {"--num-classes": "Number of classes:", "--in-chans": "Channels:", "--img-size": "Image side (px):"}


@st.cache_data(show_spinner="Reading the list of architectures …", max_entries=1)
def architectures() -> list[str]:
    """Our definitions, then all of timm's."""
    from models.checkpoint import architecture_names

    return architecture_names()


def brought() -> list[str]:
    """References of this session's own checkpoints that are still in the store."""
    if not st.session_state.get("checkpoints"):
        return []
    bench, found = resources.bench(), []
    for reference in st.session_state["checkpoints"]:
        try:
            bench.card(reference)
        except AuditError:
            continue
        found.append(reference)
    return found


def form() -> None:
    """The uploader and what cannot be read off the weights; adds the checkpoint or says what is wrong."""
    with st.form("bring", border=True):
        file = st.file_uploader(
            "Weights: .safetensors, .pt or .pth (at most 200 MB)",
            key="bring.file",
            max_upload_size=200,
            help="Read as plain tensors only: nothing in the file is executed. A pickle with anything else is refused.",
        )
        arch = st.selectbox(
            "Architecture",
            architectures(),
            index=None,
            key="bring.arch",
            accept_new_options=True,
            placeholder="Type a name, such as resnet18 or vit_tiny_patch16_224",
            help="One of ours or any of timm's: the one that the weights were trained with.",
        )
        numbers = {
            key: column.number_input(label, low, high, None, 1, key=f"bring.{key}", placeholder="read off the weights")
            for column, (label, key, low, high) in zip(st.columns(3), LIMITS, strict=True)
        }
        left, right = st.columns(2)
        mean = left.text_input("Mean per channel", key="bring.mean", placeholder="0.485, 0.456, 0.406", help=DECLARED)
        std = right.text_input(
            "Standard deviation per channel", key="bring.std", placeholder="0.229, 0.224, 0.225", help=DECLARED
        )
        names = st.text_area(
            "Class names, one per line, in the order of the head (or drop a text file below)",
            key="bring.names",
            height=100,
            placeholder="class 0\nclass 1\n…",
        )
        listed = st.file_uploader("Class names as a text file", key="bring.listed", max_upload_size=1)
        sent = st.form_submit_button("Add checkpoint", type="primary", icon=":material/add:", key="bring.add")
    if sent:
        _take(file, arch, numbers, mean, std, names, listed)


def _take(file, arch: str | None, numbers: dict[str, int | None], mean: str, std: str, names: str, listed) -> None:
    try:
        if file is None:
            raise InvalidParameter("no weights were given; drop a .safetensors, .pt or .pth file into the form")
        if not (arch or "").strip():
            raise InvalidParameter("no architecture was named; type the one that the weights were trained with")
        with st.spinner("Reading and fitting the weights …"):
            center, spread = _floats("mean", mean), _floats("standard deviation", std)
            reference = resources.bench().add_checkpoint(
                file.getvalue(),
                file.name,
                arch.strip(),
                **numbers,
                mean=center,
                std=spread,
                classes=_names(names, listed),
            )
    except AuditError as problem:
        text = str(problem)
        for option, label in OPTIONS.items():
            text = text.replace(option, label)
        st.error(wording.plain(text), icon=":material/error:")
        return
    known = st.session_state.setdefault("checkpoints", [])
    if reference not in known:
        known.append(reference)
    st.session_state["bring.added"] = reference
    st.rerun()


def _floats(what: str, text: str) -> list[float] | None:
    """Numbers of a comma-separated field; None for an empty one."""
    parts = text.replace(";", ",").replace(" ", ",").split(",")
    try:
        values = [float(part) for part in parts if part]
    except ValueError:
        raise InvalidParameter(f"{what} must be numbers with commas between them, got {text[:80]!r}") from None
    if not all(map(math.isfinite, values)):
        raise InvalidParameter(f"{what} must be finite numbers, got {text[:80]!r}")
    return values or None


def _names(text: str, listed) -> list[str] | None:
    """Class names of the field, else of the file; None for neither."""
    if not text.strip() and listed is not None:
        try:
            text = listed.getvalue().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidParameter(
                "the class names are not UTF-8 text; save them as plain text, one per line"
            ) from None
    return [line.strip() for line in text.splitlines() if line.strip()] or None


def added(reference: str) -> None:
    """A brought checkpoint: the way to its first audit, and its card."""
    if st.session_state.get("bring.added") == reference:
        st.success("Added. It is listed in this session only, under its content hash.", icon=":material/check_circle:")
    if notes := resources.bench().notes(reference):
        said = wording.plain(f"Read off the file or assumed: {'; '.join(notes)}. Check it on the card below.")
        st.info(said, icon=":material/help:")
    if st.button("Audit with it", key=f"bring.audit.{reference}", type="primary", icon=":material/arrow_forward:"):
        st.switch_page("pages/spot_audit.py", query_params={"checkpoint": reference, "explainer": "grad-cam"})
    cards.draw(resources.bench().card(reference), f"card.{reference}")
