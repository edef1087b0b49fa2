"""How an explainer's signal relates to the way a model reads its score: native, adapted, mismatched or neither.

The taxonomy follows arXiv 2605.14255 (table 2): *native* reads operators that take part in the forward decision
path at the place where the score is read; *adapted* rebuilds importance elsewhere; *model-agnostic* sees scores only.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.cards import ModelCard

BADGES = ("native", "adapted", "mismatched", "model-agnostic", "control")


@dataclass(frozen=True)
class Relation:
    """A badge and the sentence that explains it."""

    badge: str
    sentence: str


def relation(reads: str, card: ModelCard, layer: str = "") -> Relation:
    """Badge for a signal (``Explainer.reads``) on a checkpoint; ``layer`` names the feature stage, "" the last."""
    if reads == "scores":
        return Relation(
            "model-agnostic", "Sees only the model's scores, so it fits any readout; use it as a reference."
        )
    if reads in ("image", "nothing"):
        return Relation("control", "Does not ask the model: the level that an explanation has to beat.")
    if reads == "attention":
        if card.readout == "CLS token" and card.attention == "global":
            return Relation("native", "The class token gathers the score through the attention that this method reads.")
        return Relation("mismatched", f"The score is read from {card.readout}; attention does not lead to it.")
    last = not layer or (card.feature_layers and layer == card.feature_layers[-1].name)
    if card.readout == "global average pool" and last:
        return Relation(
            "native", "The score is the average of the very feature map whose gradients this method weights."
        )
    if card.readout == "global average pool":
        return Relation("adapted", f"Reads {layer}, an earlier stage than the one that is pooled into the score.")
    return Relation("adapted", f"The score is read from {card.readout}, not from this feature map: a rebuilt proxy.")
