"""Layer-wise relevance propagation for vision transformers (Achtibat et al. 2024, https://arxiv.org/abs/2402.05602).

Every rule is written as a forward pass with the same value and another gradient, so that input times gradient is the
relevance: one ordinary backward pass propagates through all layers. The rules stand on the instances of one model,
inside :func:`relevance_rules`; no class is changed, so no other model can notice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import timm.layers as tl
import torch
import torch.nn.functional as F
from timm.models import vision_transformer as vit
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.params import Between, OneOf
from audit_core.types import Attribution
from models.cards import ModelCard

Forward = Callable[..., torch.Tensor]

#: The sum of relevance may be this many times the logit (or 1, if that is larger) before the map is refused.
MOST_RELEVANCE = 100.0

ACTIVATIONS = (nn.GELU, tl.GELU, tl.GELUTanh, tl.QuickGELU, nn.ReLU, nn.SiLU, tl.Swish)  # all are 0 at 0
NORMS = (nn.LayerNorm, tl.LayerNorm, tl.LayerNormFp32)
#: Modules through which the ordinary gradient is the epsilon rule already: sums, constant factors, changes of shape.
LINEAR = (
    nn.Identity, nn.Dropout, nn.Sequential, nn.ModuleList, tl.DropPath, tl.PatchDropout, tl.LayerScale, tl.PatchEmbed,
    tl.Mlp, vit.Block, vit.ResPostBlock, vit.VisionTransformer, VisionTransformerDistilled,
)  # fmt: skip


@EXPLAINERS.register("attn-lrp")
@dataclass(frozen=True)
class AttentionLRP(Explainer):
    """LRP for transformers: the target's logit is handed back layer by layer, to each input by its share.

    Achtibat et al. 2024 (https://arxiv.org/abs/2402.05602), by our own rules. Linear layers share by contribution,
    so do norms, whose deviation is held fixed; activations pass it on. In attention, ``cp`` holds the softmax fixed
    and follows the values alone (the authors' choice for vision transformers); ``attn`` halves relevance between both
    factors of each product and goes through the softmax. The map is relevance at the normalised input, summed over
    channels; below 0 speaks against. Biases keep a part: ``conservation`` is the sum of the map over the logit. The
    map is refused where that sum is not finite or above 100 times the logit (or above 100, for a logit below 1).
    """

    title: ClassVar[str] = "AttnLRP"
    family: ClassVar[str] = "relevance"
    reads: ClassVar[str] = "relevance"
    formula: ClassVar[str] = (
        "x * dy/dx summed over channels, in a network with the same values but gradients by rule: f(x)/x for an "
        "activation, fixed deviation for a norm, fixed softmax (cp) or half to each factor of a product (attn)"
    )
    source: ClassVar[str] = "Achtibat et al. 2024, https://arxiv.org/abs/2402.05602"
    witness: ClassVar[str] = (
        "relevance handed back rule by rule in explicit steps; a sum equal to the logit where no bias is: "
        "tests/test_attention.py::test_relevance_equals_the_rules_one_by_one, "
        "tests/test_attention.py::test_without_biases_nothing_is_lost"
    )
    pitfalls: ClassVar[str] = (
        "A pixel of the mean colour gets 0 whatever it means, as the map multiplies by the normalised input. LRP is "
        "patented; its authors' software is free for personal and scientific use only: ask them before other use."
    )

    rule: Annotated[
        str, OneOf(("cp", "attn"), "Attention: softmax held fixed (cp), or relevance through both factors (attn).")
    ] = "cp"
    gamma_patch: Annotated[
        float, Between(0.0, 1000.0, help="Extra weight of helpful contributions in the patch convolution; 0 for none.")
    ] = 0.0
    gamma_linear: Annotated[
        float, Between(0.0, 1000.0, help="Extra weight of helpful contributions in linear layers; 0 for none.")
    ] = 0.0

    def refuse(self, card: ModelCard) -> str | None:
        """The rules are those of plain vision transformers."""
        if card.attention != "global":
            return f"{self.title} has rules for plain vision transformers; {card.name} has attention: {card.attention}"
        return None

    def cost(self, card: ModelCard) -> Cost:
        """One forward and one backward."""
        return Cost(1, 1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Signed relevance per pixel in units of the logit; ``extra``: conservation of each image."""
        if reason := self.refuse(classifier.card):
            raise Refused(reason)
        with classifier.lend() as module, torch.enable_grad(), self._rules(module, classifier.card.name):
            inputs = classifier.normalise(images).detach().requires_grad_()
            logits = module(inputs).gather(1, target.to(classifier.device)[:, None])[:, 0]
            classifier.forwards += len(images)
            (gradient,) = torch.autograd.grad(logits.sum(), inputs)
        values = (inputs.detach() * gradient).sum(1)
        kept = conservation(values, logits.detach(), classifier.card.name)
        spent, extra = len(images), {"conservation": kept}
        return Attribution(values.cpu().numpy(), target.cpu().numpy(), True, None, spent, spent, extra)

    def _rules(self, module: nn.Module, name: str) -> AbstractContextManager[nn.Module]:
        return relevance_rules(module, name, self.rule, self.gamma_patch, self.gamma_linear)


def conservation(values: torch.Tensor, logits: torch.Tensor, name: str) -> list[float]:
    """Sum of each map over its logit; 0 for a logit of exactly 0. ``Refused`` beyond ``MOST_RELEVANCE``.

    values: (n, rows, columns); logits: (n,). The bound is on the sum, not on the ratio: near a logit of 0 the ratio
    is large though the map is sound.
    """
    kept = []
    for total, logit in zip(values.double().sum((1, 2)).tolist(), logits.double().tolist(), strict=True):
        if not math.isfinite(total) or abs(total) > MOST_RELEVANCE * max(abs(logit), 1.0):
            raise Refused(
                f"relevance in {name} sums to {total:.3g} for a logit of {logit:.3g}: it was not conserved, so the map "
                "means nothing; choose another rule or explainer"
            )
        kept.append(total / logit if logit else 0.0)
    return kept


@contextmanager
def relevance_rules(
    module: nn.Module, name: str, rule: str = "cp", gamma_patch: float = 0.0, gamma_linear: float = 0.0
) -> Iterator[nn.Module]:
    """``module`` with gradients by rule instead of its own; forward values stay equal up to rounding.

    ``Refused``, naming the classes, when it holds a module without a rule. The rules go on the way out, also after
    an exception.
    """
    if foreign := sorted({type(part).__name__ for part in module.modules() if not _known(part)}):
        raise Refused(f"there is no relevance rule for {', '.join(foreign)} in {name}; choose another explainer")
    forwards = {part: _forward(part, rule, gamma_patch, gamma_linear) for part in module.modules()}
    replaced = {part: forward for part, forward in forwards.items() if forward is not None}
    try:
        for part, forward in replaced.items():
            part.__dict__["forward"] = forward
        yield module
    finally:
        for part in replaced:
            part.__dict__.pop("forward", None)


def _known(part: nn.Module) -> bool:
    """Exact classes with their own forward only: a subclass or a forward put on an instance may do something else."""
    if "forward" in part.__dict__ and type(part) not in LINEAR:
        return False
    if type(part) is tl.Attention:
        return part.gate is None  # a gate is a product, which has no rule here
    return type(part) in (nn.Linear, nn.Conv2d, *ACTIVATIONS, *NORMS, *LINEAR)


def _forward(part: nn.Module, rule: str, gamma_patch: float, gamma_linear: float) -> Forward | None:
    """The forward that replaces the part's own; None where its own gradient is the rule."""
    if isinstance(part, ACTIVATIONS):
        return _passed_on(part)
    if isinstance(part, nn.LayerNorm):
        return _fixed_deviation(part)
    if isinstance(part, tl.Attention):
        return _attention(part, rule)
    if isinstance(part, nn.Conv2d) and gamma_patch:
        return _gamma(part, partial(F.conv2d, stride=part.stride, padding=part.padding), gamma_patch)
    if isinstance(part, nn.Linear) and gamma_linear:
        return _gamma(part, F.linear, gamma_linear)
    return None


def steered(value: torch.Tensor, path: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """The value of ``value`` with the gradient of ``path`` times ``ratio``, element by element."""
    return value.detach() + ratio.detach() * (path - path.detach())


def quotient(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """above / below, 0 where ``below`` is 0; without gradient."""
    return torch.where(below == 0, 0.0, above / below).detach()


def halved(x: torch.Tensor) -> torch.Tensor:
    """``x`` with half its gradient: one factor of a product, which gets half of the relevance."""
    return 0.5 * x + 0.5 * x.detach()


def _passed_on(part: nn.Module) -> Forward:
    """Identity rule of an activation f: the gradient f(x) / x hands on what arrives."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        value = type(part).forward(part, x.detach().clone())  # a clone, as the activation may work in place
        return steered(value, x, quotient(value, x.detach()))

    return forward


def _fixed_deviation(part: nn.LayerNorm) -> Forward:
    """Identity rule of a norm: centring and scale are linear once the deviation is a constant."""
    axes = tuple(range(-len(part.normalized_shape), 0))

    def forward(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(axes, keepdim=True)
        value = centred / (centred.detach().square().mean(axes, keepdim=True) + part.eps).sqrt()
        value = value if part.weight is None else value * part.weight
        return value if part.bias is None else value + part.bias

    return forward


def _attention(part: tl.Attention, rule: str) -> Forward:
    """Unfused attention: under "cp" a constant matrix times the values, under "attn" products shared by halves."""

    def forward(x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        if attn_mask is not None or is_causal:
            raise Refused("there is no relevance rule for masked attention; choose another explainer")
        n, tokens, _ = x.shape
        query, key, value = part.qkv(x).reshape(n, tokens, 3, part.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = part.q_norm(query), part.k_norm(key)
        if rule == "cp":
            query, key = query.detach(), key.detach()
        else:
            query, key, value = halved(query), halved(key), halved(value)
        matrix = (part.scale * query @ key.transpose(-2, -1)).softmax(-1)
        mixed = (matrix if rule == "cp" else halved(matrix)) @ value
        return part.proj(part.norm(mixed.transpose(1, 2).flatten(2)))

    return forward


def _gamma(part: nn.Linear | nn.Conv2d, product: Callable[..., torch.Tensor], gamma: float) -> Forward:
    """Gamma rule: contributions of the output's own sign count 1 + gamma times; product(x, weight) has no bias."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        bias = 0.0 if part.bias is None else part.bias.reshape(-1, *[1] * (2 if isinstance(part, nn.Conv2d) else 0))
        value = product(x, part.weight) + bias
        high, low = x.clamp_min(0), x.clamp_max(0)
        plus, minus = part.weight.clamp_min(0), part.weight.clamp_max(0)
        helpful, harmful = (
            product(high, one) + product(low, other) for one, other in ((plus, minus), (minus, plus))
        )
        raised = value + gamma * torch.where(value.detach() >= 0, helpful, harmful)
        return steered(value, raised, quotient(value, raised))

    return forward
