"""A model card in readable form: how the score is read, in words and as a picture; what was measured; its origin."""

from __future__ import annotations

from html import escape

import streamlit as st

from models.cards import UNKNOWN, Evaluation, ModelCard, Score
from pages.ui import wording

SCORES = {
    "accuracy": "Accuracy ↑",
    "balanced_accuracy": "Balanced accuracy ↑",
    "macro_f1": "Macro-F1 ↑",
    "calibration_error": "Calibration error ↓",
}
PUBLISHED = {  # macro-F1, mean ± standard deviation over 3 seeds: arXiv 2605.14255, table 3
    "ViT-Tiny": "0.747 ± 0.008",
    "Swin-Tiny": "0.792 ± 0.004",
    "ResNet18+CBAM": "0.849 ± 0.005",
    "DenseNet121": "0.853 ± 0.011",
}
READOUTS = {
    "CLS token": "A class token gathers the score from the patches through attention; only it reaches the classes.",
    "global average pool": "The last feature map is averaged over its cells; the average is turned into the classes.",
    "mean of tokens": "The patch tokens are averaged; the average is turned into the classes.",
    "attention pool": "A learned query gathers the score from the patches by attention.",
    "class attention": "A class token joins after the last block and gathers the score from the patches by attention.",
    "distillation token": "A class token and a distillation token gather the score; their two answers are averaged.",
    "flattened map": "Each cell of the last feature map has weights of its own; nothing is averaged.",
}
ATTENTION = {
    "global": "global: every token may look at every other",
    "windowed": "windowed: tokens look inside small windows",
    "auxiliary": "auxiliary: gates between convolutions",
    "none": "none",
}
COLUMNS = (
    "Checkpoint",
    "Parameters",
    "Last stage",
    "Score read from",
    "Macro-F1 ↑ on real wafers",
    "n",
    "Macro-F1 ↑ on generated maps",
    "n ",
    "Calibration error ↓ on real wafers",
    "Macro-F1 of the paper (published)",
)
CELL, PITCH = 112, 156  # px, side of a drawn grid and from one grid to the next
SHOWN = 5  # stages in the picture


def score(one: Score) -> str:
    """Value and 95 % interval."""
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def kind(evaluation: Evaluation) -> str:
    """Which of the two kinds of data an evaluation is on, for a column's head."""
    return "generated maps" if evaluation.data.startswith("synthetic") else "held-out half of WM-811K"


def overview(cards: list[ModelCard]) -> None:
    """All checkpoints in one table: structure and measured quality, ours beside the published."""
    rows: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for card in cards:
        real, made = (_evaluation(card, word) for word in ("held-out half of WM-811K", "generated maps"))
        last = card.feature_layers[-1].grid if card.feature_layers else None
        cells = (
            card.family,
            f"{card.parameters:,}",
            f"{last[0]}×{last[1]}" if last else UNKNOWN,
            card.readout,
            _measured(real, "macro_f1"),
            _count(real),
            _measured(made, "macro_f1"),
            _count(made),
            _measured(real, "calibration_error"),
            PUBLISHED.get(card.family, "–"),
        )
        for column, cell in zip(rows.values(), cells, strict=True):
            column.append(cell)
    st.dataframe(rows, hide_index=True, alt="Structure and measured quality of all checkpoints")
    st.caption(
        "In brackets: 95 % bootstrap interval over n images. *Published* (arXiv 2605.14255, table 3; mean ± standard "
        "deviation over 3 seeds): full-size models, four times the data, another split; not measured here."
    )


def _evaluation(card: ModelCard, word: str) -> Evaluation | None:
    return next((one for one in card.evaluations if kind(one) == word), None)


def _measured(evaluation: Evaluation | None, name: str) -> str:
    return score(evaluation.scores[name]) if evaluation else UNKNOWN


def _count(evaluation: Evaluation | None) -> str:
    return f"{evaluation.n:,}" if evaluation else "–"


def draw(card: ModelCard, key: str) -> None:
    """One checkpoint, whole."""
    st.markdown(f"#### {wording.plain(card.family)} · {wording.plain(card.name)}")
    st.markdown("**How the score is read**")
    st.image(diagram(card), width="stretch", alt=f"Feature stages of {card.name}: {_stages(card)}, then {card.readout}")
    st.markdown(READOUTS.get(card.readout, "How the score is read is unknown."))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Facts**")
        _table(facts(card))
    with right:
        st.markdown("**Measured quality**")
        _scores(card)
    st.markdown("**Training**")
    _training(card)
    with st.expander("Licence, notice, citations", icon=":material/gavel:"):
        st.markdown(f"Licence: {wording.plain(card.licence)}")
        for text in (card.notice, *card.citations):
            if text:
                st.markdown(wording.plain(text))
    st.download_button(
        "Card (JSON)",
        card.to_json,
        f"{card.name}.card.json",
        "application/json",
        key=f"{key}.json",
        on_click="ignore",
        icon=":material/download:",
        help="Everything on this card, machine-readable.",
    )


def facts(card: ModelCard) -> dict[str, str]:
    """What the checkpoint is and takes in."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (card.mean, card.std))
    classes = ", ".join(card.classes[:40]) + (" …" if len(card.classes) > 40 else "")
    return {
        "Architecture": card.architecture,
        "Parameters": f"{card.parameters:,}",
        "Narrowed": card.narrowed or "no: full size",
        "Input": f"{card.input_size[0]}×{card.input_size[1]} px, channels: {card.channels}",
        "Encoding": card.encoding,
        "Normalisation": f"(pixel − {mean}) / {std}",
        "Score read from": card.readout,
        "Attention": ATTENTION.get(card.attention, card.attention),
        "Feature stages": _stages(card),
        f"Classes ({len(card.classes)})": classes,
        "Weights (sha256)": _hash(card.weights_sha256),
    }


def _table(rows: dict[str, str]) -> None:
    lines = [f"| {wording.plain(name)} | {' '.join(wording.plain(text).split())} |" for name, text in rows.items()]
    st.markdown("\n".join(["| Fact | Value |", "| --- | --- |", *lines]))


def _hash(text: str) -> str:
    """A sha256 in groups, so that it wraps instead of being cut."""
    return text if text == UNKNOWN else " ".join(text[start : start + 16] for start in range(0, len(text), 16))


def _scores(card: ModelCard) -> None:
    if not card.evaluations:
        st.markdown("unknown: nobody measured this checkpoint here.")
        return
    rows: dict[str, list[str]] = {"Score": list(SCORES.values())}
    for one in card.evaluations:
        rows[f"{kind(one)} (n = {one.n:,})"] = [score(one.scores[name]) for name in SCORES]
    st.table(rows, hide_index=True, alt="Measured scores with intervals")
    st.caption("95 % bootstrap intervals over images. ↑ higher is better, ↓ lower is better.")
    for one in card.evaluations:
        st.caption(wording.plain(f"{one.data}; sha256 {one.data_sha256[:16]}…"))
    if card.family in PUBLISHED:
        st.caption(
            f"*Published* macro-F1 of the paper's full-size model: {PUBLISHED[card.family]} (3 seeds, other split)."
        )
    with st.expander("Measure it again", icon=":material/terminal:"):
        st.code(card.evaluations[0].command, language="bash", wrap_lines=True)


def _training(card: ModelCard) -> None:
    seed = UNKNOWN if card.seed is None else str(card.seed)
    _table({"Recipe": card.recipe, "Data": card.data, "Data (sha256)": _hash(card.data_sha256), "Seed": seed})
    if card.training_command != UNKNOWN:
        st.code(card.training_command, language="bash", wrap_lines=True)


def _stages(card: ModelCard) -> str:
    grids: dict[tuple[int, int], list[str]] = {}
    for layer in card.feature_layers:
        grids.setdefault(layer.grid, []).append(layer.name)
    parts = [
        f"{rows}×{columns} ({names[0]}{' … ' + names[-1] if len(names) > 1 else ''})"
        for (rows, columns), names in grids.items()
    ]
    return " → ".join(parts) or UNKNOWN


def diagram(card: ModelCard) -> str:
    """Input, feature grids, readout and classes from left to right, as SVG; grids are drawn cell by cell."""
    layers = list(card.feature_layers)
    if len(layers) > SHOWN:
        layers = [*layers[: SHOWN - 2], *layers[-2:]]
    pictures = [_grid(0, "input", f"{card.input_size[0]}×{card.input_size[1]} px", (1, 1), 0)]
    for place, layer in enumerate(layers):
        pictures.append(
            _grid((place + 1) * PITCH, layer.name, f"{layer.grid[0]}×{layer.grid[1]}", layer.grid, layer.prefix_tokens)
        )
    right = len(pictures) * PITCH
    pictures.append(_box(right, card.readout, f"{len(card.classes)} classes"))
    left_out = SHOWN - 2 if len(layers) < len(card.feature_layers) else None
    arrows = [_arrow((place + 1) * PITCH - 38, gap=place == left_out) for place in range(len(pictures) - 1)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -26 {right + CELL + 48} {CELL + 62}" '
        f'font-family="sans-serif" font-size="14" fill="{_ink()}" stroke-width="1">'
        f"{''.join(pictures)}{''.join(arrows)}</svg>"
    )


def _ink() -> str:
    return "#E6EBF2" if st.context.theme.type == "dark" else "#1B2430"


def _grid(left: int, name: str, words: str, grid: tuple[int, int], tokens: int) -> str:
    rows, columns = (min(side, 32) for side in grid)
    lines = "".join(f'<path d="M{left} {CELL * r / rows:.1f}h{CELL}"/>' for r in range(1, rows))
    lines += "".join(f'<path d="M{left + CELL * c / columns:.1f} 0v{CELL}"/>' for c in range(1, columns))
    place = f'x="{left + CELL + 4}" y="0" width="9" height="9"'
    token = f'<rect {place} fill="#E69F00" stroke="none"/>' if tokens else ""
    label = f"{words} + {'CLS' if tokens == 1 else f'{tokens} tokens'}" if tokens else words
    return (
        f'<rect x="{left}" y="0" width="{CELL}" height="{CELL}" fill="#0072B2" fill-opacity="0.16" stroke="#0072B2"/>'
        f'<g stroke="#0072B2" stroke-opacity="0.7" fill="none">{lines}</g>{token}{_words(left, name, label)}'
    )


def _box(left: int, readout: str, words: str) -> str:
    place = f'x="{left}" y="{CELL / 2 - 26}" width="{CELL + 36}" height="52" rx="8"'
    return (
        f'<rect {place} fill="#E69F00" fill-opacity="0.2" stroke="#E69F00"/>'
        f'<text x="{left + CELL / 2 + 18}" y="{CELL / 2 + 5}" text-anchor="middle">{escape(readout)}</text>'
        f'<text x="{left + CELL / 2 + 18}" y="{CELL + 22}" text-anchor="middle">{escape(words)}</text>'
    )


def _words(left: int, name: str, words: str) -> str:
    short = name if len(name) <= 15 else name[:14] + "…"
    return (
        f'<text x="{left + CELL / 2}" y="-9" text-anchor="middle" font-weight="bold">{escape(short)}</text>'
        f'<text x="{left + CELL / 2}" y="{CELL + 22}" text-anchor="middle">{escape(words)}</text>'
    )


def _arrow(left: float, gap: bool) -> str:
    if gap:
        return f'<text x="{left + 15}" y="{CELL / 2 + 5}" text-anchor="middle" font-size="22">…</text>'
    return (
        f'<path d="M{left} {CELL / 2}h24" stroke="#8A8F98" stroke-width="2" fill="none"/>'
        f'<path d="M{left + 24} {CELL / 2 - 5}l8 5l-8 5z" fill="#8A8F98" stroke="none"/>'
    )
