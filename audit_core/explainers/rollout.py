"""Attention Rollout (Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter, Refused
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.params import Between, OneOf
from audit_core.types import Attribution
from models.cards import FeatureLayer, ModelCard


@EXPLAINERS.register("rollout")
@dataclass(frozen=True)
class AttentionRollout(Explainer):
    """Attention Rollout: attention of all layers multiplied along the path from the patches to the class token.

    Abnar and Zuidema 2020 (https://arxiv.org/abs/2005.00928). Each layer's heads are fused, mixed with the
    identity for the residual path, and the rows sum to 1. It does not depend on the target class. It needs a
    class token that attends to all patches; windowed attention and pooled readouts are refused.
    """

    title: ClassVar[str] = "Attention Rollout"
    family: ClassVar[str] = "attention"
    reads: ClassVar[str] = "attention"
    formula: ClassVar[str] = (
        "row of the class token in A'_L ... A'_1, A'_l = r I + (1 - r) fuse_heads(A_l), rows summing to 1"
    )
    source: ClassVar[str] = "Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928"
    witness: ClassVar[str] = (
        "explicit products entry by entry, of attention computed from the weights in numpy: "
        "tests/test_explainers.py::test_rollout_map_is_the_class_tokens_row, "
        "tests/test_explainers.py::test_rollout_equals_explicit_products"
    )
    pitfalls: ClassVar[str] = (
        "It knows no class: the map is the same for every target. It follows where attention looks, not what the "
        "values carried, and ignores the other half of every block."
    )

    head_fusion: Annotated[str, OneOf(("mean", "max", "min"), "How the heads of a layer are merged.")] = "mean"
    residual: Annotated[float, Between(0.0, 0.95, help="Share of the identity mixed in for the residual path.")] = 0.5
    discard: Annotated[float, Between(0.0, 0.99, help="Share of the weakest attention set to 0 in each layer.")] = 0.0
    first_layer: Annotated[int, Between(1, 200, help="First layer of the product, counted from 1.")] = 1
    last_layer: Annotated[int, Between(0, 200, help="Last layer of the product; 0 for the model's last.")] = 0
    pooled: Annotated[
        int,
        Between(
            0, 64, "cells", "Average the map over so many cells a side, to compare it with coarser maps; 0: as it is."
        ),
    ] = 0

    def refuse(self, card: ModelCard) -> str | None:
        """Only a class token over global attention gives the product a meaning."""
        return without_class_token(self.title, card)

    def cost(self, card: ModelCard) -> Cost:
        """One forward."""
        return Cost(1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """The class token's row over the patches, enlarged bilinearly; values in [0, 1], unsigned."""
        if reason := self.refuse(classifier.card):
            raise Refused(reason)
        layer = classifier.card.layer()
        with classifier.lend() as module, recorded_attention(module) as seen:
            classifier.logits(images)
        chosen = self._chosen(usable(seen, classifier.card))
        product = rollout(chosen, self.head_fusion, self.residual, self.discard)
        if self.pooled > min(layer.grid):
            raise InvalidParameter(f"pooled asks for {self.pooled} cells a side, the map has {layer.grid[0]} rows and "
                                   f"{layer.grid[1]} columns; ask for fewer")  # fmt: skip
        values = patch_map(product, layer, score_tokens(module), images.shape[-2:], self.pooled)
        extra = {"layers": len(chosen), "grid": [self.pooled] * 2 if self.pooled else list(layer.grid)}
        return Attribution(values, target.cpu().numpy(), False, None, len(images), 0, extra)

    def _chosen(self, seen: list[torch.Tensor]) -> list[torch.Tensor]:
        last = self.last_layer or len(seen)
        if not self.first_layer <= last <= len(seen):
            raise InvalidParameter(
                f"layers {self.first_layer} to {last} were asked for, the model has {len(seen)}; "
                f"choose within 1 to {len(seen)}"
            )
        return seen[self.first_layer - 1 : last]


def rollout(
    attentions: list[torch.Tensor], head_fusion: str = "mean", residual: float = 0.5, discard: float = 0.0
) -> torch.Tensor:
    """Product of the layers' attention, float (n, tokens, tokens); every row sums to 1.

    attentions: one (n, heads, tokens, tokens) row-stochastic tensor per layer, in the order of the forward pass.
    Layer: A' = residual * I + (1 - residual) * fuse(A), rows renormalised; result A'_L … A'_1 (equation 1 of
    the paper). ``discard`` zeroes that share of the weakest entries of each fused matrix, never those that look
    at token 0.
    """
    product: torch.Tensor | None = None
    for attention in attentions:
        fused = fuse(attention.float(), head_fusion)
        if discard:
            fused = _discard(fused, discard)
        identity = torch.eye(fused.shape[-1], device=fused.device)
        # Fused rows (max, min, discarded) need not sum to 1: bring both summands to the same scale first. A row of
        # which nothing is left looks at itself.
        total = fused.sum(-1, keepdim=True)
        fused = torch.where(total > 0, fused / total.clamp_min(1e-30), identity)
        layer = residual * identity + (1 - residual) * fused
        layer = layer / layer.sum(-1, keepdim=True)
        product = layer if product is None else layer @ product
    if product is None:
        raise ValueError("rollout needs at least one layer of attention")
    return product


def fuse(attention: torch.Tensor, head_fusion: str) -> torch.Tensor:
    """Heads merged by "mean", "max" or "min": (n, heads, tokens, tokens) -> (n, tokens, tokens)."""
    if head_fusion == "mean":
        return attention.mean(1)
    return attention.amax(1) if head_fusion == "max" else attention.amin(1)


def _discard(fused: torch.Tensor, share: float) -> torch.Tensor:
    n, tokens, _ = fused.shape
    count = int(tokens * tokens * share)
    weakest = fused.reshape(n, -1).topk(count, dim=1, largest=False).indices
    keep = torch.ones(n, tokens * tokens, dtype=torch.bool, device=fused.device).scatter_(1, weakest, False)
    keep = keep.reshape(fused.shape)
    keep[..., 0] = True
    return fused * keep


def without_class_token(title: str, card: ModelCard) -> str | None:
    """Why a method that follows the class token through attention has no meaning for the card, or None."""
    if card.attention == "global" and card.readout in ("CLS token", "distillation token"):
        return None
    return (
        f"{title} follows a class token through global attention; {card.name} reads its score from "
        f"{card.readout} with attention: {card.attention}"
    )


def usable(seen: list[torch.Tensor], card: ModelCard) -> list[torch.Tensor]:
    """The recorded matrices, if there are any over exactly the card's tokens; else ``Refused``."""
    layer = card.layer()
    tokens = layer.prefix_tokens + layer.grid[0] * layer.grid[1]
    if not seen:
        raise Refused(f"no attention was recorded in {card.name}; its attention layers are of another kind")
    if other := next((matrix.shape[-1] for matrix in seen if matrix.shape[-2:] != (tokens, tokens)), None):
        raise Refused(f"attention in {card.name} is over {other} tokens instead of {tokens}; it is of another kind")
    return seen


def score_tokens(module: nn.Module) -> int:
    """How many leading tokens the head reads: 2 in a distilled DeiT, which averages the scores of both; else 1.

    Register tokens also stand before the patches, but no score is read from them.
    """
    return 2 if isinstance(module, VisionTransformerDistilled) else 1


def patch_map(matrix: torch.Tensor, layer: FeatureLayer, read: int, size: torch.Size, pooled: int = 0) -> np.ndarray:
    """Mean of the first ``read`` rows of (n, tokens, tokens), its patches enlarged bilinearly: (n, rows, columns).

    pooled: cells a side that the patches are averaged to before, 0 for none.
    """
    patches = matrix[:, :read, layer.prefix_tokens :].mean(1).unflatten(1, layer.grid)
    if pooled:
        patches = F.adaptive_avg_pool2d(patches[:, None], pooled)[:, 0]
    return F.interpolate(patches[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].cpu().numpy()


@contextmanager
def recorded_attention(module: nn.Module, keep_graph: bool = False) -> Iterator[list[torch.Tensor]]:
    """Collect softmax attention (n, heads, tokens, tokens) of every timm attention layer during forward passes.

    timm's fused kernel never forms the matrix, so it is switched off meanwhile and restored afterwards; the
    matrix is read where it enters the layer's attention dropout. With ``keep_graph`` gradients can be asked of it.
    """
    seen: list[torch.Tensor] = []
    layers: list[Any] = [  # Any: timm's attention classes share these two attributes and no base
        m for m in module.modules() if hasattr(m, "fused_attn") and isinstance(getattr(m, "attn_drop", None), nn.Module)
    ]
    fused = [layer.fused_attn for layer in layers]
    handles = []

    def record(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0] if keep_graph else inputs[0].detach())

    try:
        for layer in layers:
            layer.fused_attn = False
            handles.append(layer.attn_drop.register_forward_pre_hook(record))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for layer, flag in zip(layers, fused, strict=True):
            layer.fused_attn = flag
