"""Maps read from attention matrices besides the rollout: the last layer as it is, and all layers with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.explainers.rollout import fuse, patch_map, recorded_attention, score_tokens, usable, without_class_token
from audit_core.params import OneOf
from audit_core.types import Attribution
from models.cards import ModelCard


class ClassTokenMap(Explainer):
    """Base of the maps that a class token has over the patches; needs global attention that ends in that token."""

    family: ClassVar[str] = "attention"

    def refuse(self, card: ModelCard) -> str | None:
        """Only a class token over global attention has a row of its own over the patches."""
        return without_class_token(self.title, card)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """The class token's row over the patches, enlarged bilinearly; raw values >= 0, unsigned.

        A distilled DeiT averages the scores of its class and distillation token: so are their rows.
        """
        if reason := self.refuse(classifier.card):
            raise Refused(reason)
        layer, before = classifier.card.layer(), classifier.forwards
        matrix = self.matrix(classifier, images, target)
        values = patch_map(matrix, layer, score_tokens(classifier.module), images.shape[-2:])
        spent, backwards = classifier.forwards - before, self.cost(classifier.card).backwards * len(images)
        extra = {"grid": list(layer.grid)}
        return Attribution(values, target.cpu().numpy(), False, None, spent, backwards, extra)

    def matrix(self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """How much each token (row) takes from each token (column), float32 (n, tokens, tokens), >= 0."""
        raise NotImplementedError


@EXPLAINERS.register("attention-last")
@dataclass(frozen=True)
class LastAttention(ClassTokenMap):
    """Attention of the last layer: how much of each patch the class token takes there, heads merged.

    As drawn by Caron et al. 2021 (https://arxiv.org/abs/2104.14294). With the mean over heads the map and the share
    of the leading tokens sum to 1. It does not depend on the target class.
    """

    title: ClassVar[str] = "Last-layer attention"
    reads: ClassVar[str] = "attention"
    formula: ClassVar[str] = "fuse_heads(A_L)[CLS, patches]"
    source: ClassVar[str] = "Caron et al. 2021, https://arxiv.org/abs/2104.14294"
    witness: ClassVar[str] = (
        "softmax of queries and keys of the last layer, written out from the weights: "
        "tests/test_attention.py::test_last_attention_is_the_class_tokens_row"
    )
    pitfalls: ClassVar[str] = (
        "It knows no class, and by the last layer a patch's token holds much of the rest of the image. A few patches "
        "that serve as scratch space may draw most of the attention."
    )

    head_fusion: Annotated[str, OneOf(("mean", "max", "min"), "How the heads of the layer are merged.")] = "mean"

    def cost(self, card: ModelCard) -> Cost:
        """One forward."""
        return Cost(1)

    def matrix(self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The last layer's attention, heads merged."""
        with classifier.lend() as module, recorded_attention(module) as seen:
            classifier.logits(images)
        return fuse(usable(seen, classifier.card)[-1].float(), self.head_fusion)


@EXPLAINERS.register("gradient-rollout")
@dataclass(frozen=True)
class GradientRollout(ClassTokenMap):
    """Gradient rollout: attention weighted by the gradient of the target's logit, followed through all layers.

    Chefer et al. 2021 (https://arxiv.org/abs/2103.15679), their rule for self-attention without relevance
    propagation. Of each entry only a positive product of attention and gradient counts, averaged over heads.
    """

    title: ClassVar[str] = "Gradient rollout"
    reads: ClassVar[str] = "attention gradients"
    formula: ClassVar[str] = (
        "R[CLS, patches]; R = I, then for every layer R <- R + B R, B = mean over heads of relu(dy/dA * A)"
    )
    source: ClassVar[str] = "Chefer et al. 2021, https://arxiv.org/abs/2103.15679"
    witness: ClassVar[str] = (
        "explicit products over attention from the weights, its gradients by finite differences: "
        "tests/test_attention.py::test_gradient_rollout_equals_explicit_products"
    )
    pitfalls: ClassVar[str] = (
        "Evidence against the target is dropped. Gradients are those of one point, so a saturated softmax inside the "
        "model leaves little to read; what passes by the attention is not seen."
    )

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward."""
        return Cost(1, 1)

    def matrix(self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The final R, identity included."""
        with classifier.lend() as module, recorded_attention(module, keep_graph=True) as seen, torch.enable_grad():
            logits = module(classifier.normalise(images).requires_grad_())
            classifier.forwards += len(images)
            wanted = logits.gather(1, target.to(logits.device)[:, None]).sum()
            attentions = usable(seen, classifier.card)
            gradients = torch.autograd.grad(wanted, attentions)
        return gradient_rollout([matrix.detach() for matrix in attentions], list(gradients))


def gradient_rollout(attentions: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
    """R after all layers, float (n, tokens, tokens); equations 5 and 6 of Chefer et al. 2021.

    attentions, gradients: one (n, heads, tokens, tokens) tensor per layer, in the order of the forward pass.
    """
    relevance = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for attention, gradient in zip(attentions, gradients, strict=True):
        relevance = relevance + (attention * gradient).clamp_min(0).mean(1) @ relevance
    return relevance
