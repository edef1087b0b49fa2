"""How an explainer's signal relates to the way a model reads its score, and the paper's two proxies of the distance.

The taxonomy follows arXiv 2605.14255 (table 2): *native* reads operators that take part in the forward decision
path at the place where the score is read; *adapted* rebuilds importance elsewhere; *mismatched* reads operators
that the score does not pass; *model-agnostic* sees scores only. Its "structural distance" has no formula: it names
readout directness, which is an order (:func:`directness`), and spatial granularity, a number (:func:`granularity`).
"""

from __future__ import annotations

from dataclasses import dataclass

from models.cards import FeatureLayer, ModelCard

BADGES = ("native", "adapted", "mismatched", "model-agnostic", "control")

_POOLED = ("global average pool", "mean of tokens")
_TOKEN = ("CLS token", "distillation token")
_CONTROLS = ("image", "nothing")
_ATTENTION = ("attention", "attention gradients")
_FEATURES = {
    "features": "the very feature map that this method reads",
    "feature gradients": "the very feature map whose gradients this method weights",
    "feature scores": "the very feature map whose channels this method weighs by scores",
}


@dataclass(frozen=True)
class Relation:
    """A badge and the sentence that explains it."""

    badge: str
    sentence: str


def relation(reads: str, card: ModelCard, layer: str = "") -> Relation:
    """Badge for a signal (``Explainer.reads``) on a checkpoint; ``layer`` names the feature stage, "" the last."""
    if reads in _CONTROLS:
        return Relation("control", "Does not ask the model: the level that an explanation has to beat.")
    if reads == "scores":
        return Relation(
            "model-agnostic", "Sees only the model's scores, so it fits any readout; use it as a reference."
        )
    if reads == "outside":
        return Relation(
            "model-agnostic", "Made outside of this program: what it read is unknown, so only its curves can judge it."
        )
    if reads in _ATTENTION:
        return _of_attention(reads, card)
    if reads == "relevance":
        return _of_relevance(card)
    if reads == "input gradients":
        return Relation(
            "adapted", "Follows the score back to the pixels, past the place where it is read: a rebuilt proxy."
        )
    return _of_features(reads, card, layer)


def _of_attention(reads: str, card: ModelCard) -> Relation:
    if card.attention == "none":
        return Relation("mismatched", f"The model computes no attention; its score is read from {card.readout}.")
    if card.readout in _TOKEN and card.attention == "global":
        token = "class token gathers" if card.readout == "CLS token" else "class and distillation tokens gather"
        weighted = ", here weighted by its gradients" if reads == "attention gradients" else ""
        return Relation("native", f"The {token} the score through the attention that this method reads{weighted}.")
    if card.readout == "class attention":
        return Relation(
            "mismatched", "The class token joins after the patches' attention, which by itself does not lead to it."
        )
    return Relation("mismatched", f"The score is read from {card.readout}; attention does not lead to it.")


def _of_relevance(card: ModelCard) -> Relation:
    if card.attention == "global":
        return Relation(
            "native", "Hands the score back through each operator of the forward pass, attention and readout included."
        )
    return Relation(
        "adapted", f"Its rules are made for global attention; here attention is {card.attention}: a rebuilt proxy."
    )


def _of_features(reads: str, card: ModelCard, layer: str) -> Relation:
    last = not layer or (bool(card.feature_layers) and layer == card.feature_layers[-1].name)
    if card.readout in _POOLED and last:
        what = _FEATURES.get(reads, "the very feature map that this method reads")
        return Relation("native", f"The score is the average of {what}.")
    if card.readout in _POOLED:
        return Relation("adapted", f"Reads {layer}, an earlier stage than the one that is pooled into the score.")
    return Relation("adapted", f"The score is read from {card.readout}, not from this feature map: a rebuilt proxy.")


@dataclass(frozen=True)
class Directness:
    """How directly a method reads what the score passes through.

    rank: 2 reads operators of the forward pass as they are, 1 goes through gradients or what replaces them, None
    where no order is known; higher is more direct. An order, not a measure: the difference of two ranks means
    nothing. published: whether arXiv 2605.14255 places the signal itself, or only the rule here does: a method is
    as direct as its least direct step. sentence: the reason.
    """

    rank: int | None
    word: str
    published: bool
    sentence: str


def directness(reads: str, card: ModelCard, layer: str = "") -> Directness:
    """Readout directness of a signal on a checkpoint (arXiv 2605.14255, section on structural distance)."""
    if relation(reads, card, layer).badge == "mismatched":
        return Directness(None, "not known", False, "It reads operators that the score does not pass.")
    if reads in ("attention", "features"):
        what = "attention" if reads == "attention" else "feature map"
        return Directness(2, "direct", reads == "attention", f"Reads the {what} as the forward pass computed it.")
    if reads in ("feature gradients", "attention gradients", "input gradients"):
        return Directness(
            1, "through gradients", reads == "feature gradients", "Approximates the operators by their gradients."
        )
    if reads == "relevance":
        return Directness(1, "through gradients", False, "Propagates by rules that stand in the gradients' place.")
    if reads in ("scores", "feature scores"):
        return Directness(None, "not known", False, "Weighs by scores, which the paper leaves outside of this order.")
    return Directness(None, "not known", False, "What it read of the model, if anything, is unknown.")


@dataclass(frozen=True)
class Granularity:
    """The grid that a signal is read on: ``rows`` x ``columns`` cells of ``cell`` (rows, columns) pixels each."""

    rows: int
    columns: int
    cell: tuple[float, float]

    @property
    def share(self) -> float:
        """Share of the image in one cell, in (0, 1]."""
        return 1 / (self.rows * self.columns)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} cells of {self.cell[0]:g}x{self.cell[1]:g} px"


def granularity(reads: str, card: ModelCard, layer: str = "") -> Granularity | None:
    """Spatial granularity of a signal, measured at the card's input size; ``layer`` names the stage, "" the last.

    Gradients and relevance at the input have cells of one pixel. None where the model sets no grid: methods that
    see scores choose their own, controls have none, and a card may know no feature layer. A cell is the spacing of
    what is read; the pixels that one cell can see, its receptive field, are usually many more. An unknown
    ``layer`` is a ``ValueError`` that names the known ones.
    """
    if reads in ("input gradients", "relevance"):
        return _on_grid(card.input_size, card)
    if reads in (*_ATTENTION, *_FEATURES) and card.feature_layers:
        found: FeatureLayer = card.layer("" if reads in _ATTENTION else layer)
        return _on_grid(found.grid, card)
    return None


def _on_grid(grid: tuple[int, int], card: ModelCard) -> Granularity:
    cell = (card.input_size[0] / grid[0], card.input_size[1] / grid[1])
    return Granularity(grid[0], grid[1], cell)
