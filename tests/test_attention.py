"""Attention and relevance explainers against transformers written out by hand, in float64, from the same weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import timm
import tiny
import torch
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers import EXPLAINERS, Explainer
from audit_core.explainers.relevance import MOST_RELEVANCE, conservation, relevance_rules
from audit_core.explainers.rollout import patch_map
from audit_core.keys import Choice
from models.cards import FeatureLayer

TARGET = torch.tensor([0, 2])


class Planned(Exception):
    """Raised on purpose."""


def built(name: str, **params: Any) -> Explainer:
    return EXPLAINERS.build(Choice(name, tuple(params.items())))


def transformer(channels: int = 1, prefix: int = 1, seed: int = 0, kind: str = "vit_tiny_patch16_224", **options: Any):
    """A two-block transformer over 4x4 patches, with a card of its own."""
    options = {"embed_dim": 12, "depth": 2, "num_heads": 2, **options}

    def build() -> nn.Module:
        return timm.create_model(kind, img_size=16, patch_size=4, in_chans=channels, num_classes=3, **options)

    layers = (FeatureLayer("block2", "blocks.1.norm1", "tokens", (4, 4), prefix),)
    card = tiny.card("small-vit", 16, channels, layers, "CLS token", "global")
    return tiny.classifier((card, tiny.seeded(build, seed, 1.5)))


def enlarged(row: np.ndarray) -> np.ndarray:
    """16 patches -> (16, 16) by linear interpolation between their centres, flat beyond the outer ones."""
    coarse, places = row.reshape(4, 4), (np.arange(16) + 0.5) / 4 - 0.5
    coarse = np.stack([np.interp(places, np.arange(4), line) for line in coarse])
    return np.stack([np.interp(places, np.arange(4), line) for line in coarse.T]).T


# A transformer by hand


class ByHand:
    """Forward pass of one image by explicit formulas, float64; every intermediate result is kept by name."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: value.detach().double() for name, value in module.named_parameters()}
        self.depth, self.heads = len(module.blocks), module.blocks[0].attn.num_heads
        self.side, self.gelu = 4, torch.nn.functional.gelu

    def affine(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(…, tokens, dim) -> (…, heads, tokens, width)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def patches(self, image: torch.Tensor) -> torch.Tensor:
        """(channels, 16, 16) -> (16 patches, channels * 16)"""
        rows = [image[:, r : r + 4, c : c + 4].flatten() for r in range(0, 16, 4) for c in range(0, 16, 4)]
        return torch.stack(rows)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        weight = self.weights["patch_embed.proj.weight"].flatten(1)
        tokens = self.patches(image.double()) @ weight.T + self.weights["patch_embed.proj.bias"]
        before = [self.weights[n][0] for n in ("cls_token", "dist_token", "reg_token") if n in self.weights]
        return torch.cat([*before, tokens]) + self.weights["pos_embed"][0]

    def __call__(self, image: torch.Tensor, shifts: dict[int, torch.Tensor] | None = None) -> torch.Tensor:
        """Logits; ``shifts``: what to add to the attention of a block, (batch, heads, tokens, tokens)."""
        x, self.attention = self.embed(image), []
        for block in range(self.depth):
            name = f"blocks.{block}"
            query, key, value = (
                self.split(part) for part in self.affine(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, -1)
            )
            matrix = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
            matrix = matrix + (shifts or {}).get(block, 0.0)
            self.attention.append(matrix)
            mixed = (matrix @ value).transpose(-2, -3).flatten(-2)
            x = x + self.affine(mixed, f"{name}.attn.proj")
            hidden = self.gelu(self.affine(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + self.affine(hidden, f"{name}.mlp.fc2")
        x = self.norm(x, "norm")
        logits = self.affine(x[..., 0, :], "head")
        if "dist_token" in self.weights:
            logits = (logits + self.affine(x[..., 1, :], "head_dist")) / 2
        return logits

    def attention_gradients(self, image: torch.Tensor, score: Any) -> list[np.ndarray]:
        """d score / d attention of every block, entry by entry, by central differences."""
        self(image)
        found, step = [], 1e-4
        for block, matrix in enumerate(self.attention):
            probes = step * torch.eye(matrix.numel(), dtype=torch.float64).reshape(-1, *matrix.shape)
            up, down = (score(self(image, {block: sign * probes})) for sign in (1, -1))
            found.append(((up - down) / (2 * step)).reshape(matrix.shape).numpy())
        self(image)
        return found


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "register": {"prefix": 2, "reg_tokens": 1},
    "distilled": {"prefix": 2, "kind": "deit_tiny_distilled_patch16_224"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hand_made_transformer_is_the_model(kind: str) -> None:
    found, pixels = transformer(**KINDS[kind]), tiny.images(2)
    hand = ByHand(found.module)
    expected = torch.stack([hand(image) for image in found.normalise(pixels)])
    torch.testing.assert_close(found.predict(pixels).double(), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


# Attention maps


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("kind", KINDS)
def test_last_attention_is_the_class_tokens_row(kind: str, fusion: str) -> None:
    found, pixels = transformer(**KINDS[kind]), tiny.images(2)
    hand, read = ByHand(found.module), 2 if kind == "distilled" else 1
    ours = built("attention-last", head_fusion=fusion).attribute(found, pixels, TARGET, 0)
    for n, image in enumerate(found.normalise(pixels)):
        hand(image)
        fused = {"mean": np.mean, "max": np.max, "min": np.min}[fusion](hand.attention[-1].numpy(), axis=0)
        row = fused[:read, KINDS[kind].get("prefix", 1) :].mean(0)
        np.testing.assert_allclose(ours.values[n], enlarged(row), atol=1e-6)
        assert np.ptp(row) > 0.3 * row.max()
    assert (ours.forwards, ours.backwards, ours.signed) == (2, 0, False)


@pytest.mark.parametrize("against", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_rollout_equals_explicit_products(kind: str, against: int | None) -> None:
    found, pixels = transformer(**KINDS[kind]), tiny.images(2)
    hand, read = ByHand(found.module), 2 if kind == "distilled" else 1
    ours = built("gradient-rollout").attribute(found.against(against), pixels, TARGET, 0)
    for n, image in enumerate(found.normalise(pixels)):
        wanted = int(TARGET[n])
        gradients = hand.attention_gradients(
            image, lambda y, k=wanted: y[..., k] - (0 if against is None else y[..., against])
        )
        tokens = gradients[0].shape[-1]
        result = np.eye(tokens)
        for attention, gradient in zip(hand.attention, gradients, strict=True):
            mean = np.zeros((tokens, tokens))
            for head in range(hand.heads):
                mean += np.maximum(gradient[head] * attention[head].numpy(), 0) / hand.heads
            result = result + mean @ result
        row = result[:read, KINDS[kind].get("prefix", 1) :].mean(0)
        np.testing.assert_allclose(ours.values[n], enlarged(row), atol=1e-5)
        assert row.max() > 1e-3
    assert (ours.forwards, ours.backwards, ours.signed) == (2, 2, False)


def test_rollout_of_a_distilled_model_reads_both_tokens() -> None:
    found, pixels = transformer(**KINDS["distilled"]), tiny.images(1)
    hand = ByHand(found.module)
    hand(found.normalise(pixels)[0])
    mixed = [(matrix.mean(0).numpy() + np.eye(18)) / 2 for matrix in hand.attention]
    ours = built("rollout").attribute(found, pixels, TARGET[:1], 0).values[0]
    np.testing.assert_allclose(ours, enlarged((mixed[1] @ mixed[0])[:2, 2:].mean(0)), atol=1e-6)


def test_patch_map_leaves_the_prefix_out() -> None:
    matrix = torch.arange(36.0).reshape(1, 6, 6)
    layer = FeatureLayer("last", "x", "tokens", (2, 2), 2)
    np.testing.assert_array_equal(patch_map(matrix, layer, 1, torch.Size((2, 2)))[0], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(patch_map(matrix, layer, 2, torch.Size((2, 2)))[0], [[5, 6], [7, 8]])


@pytest.mark.parametrize("name", ["attention-last", "gradient-rollout"])
def test_class_token_maps_refuse_other_readouts(name: str) -> None:
    for model, readout, attention in (
        ("swin", "global average pool", "windowed"), ("cnn", "global average pool", "none"),
        ("vit", "mean of tokens", "global"),
    ):
        found = tiny.classifier(tiny.MODELS[model](), readout=readout)
        reason = f"follows a class token through global attention; tiny-{model} reads its score from {readout} with "
        assert f"{reason}attention: {attention}" in built(name).refuse(found.card)
        with pytest.raises(Refused, match=reason):
            built(name).attribute(found, tiny.images(1), TARGET[:1], 0)


@pytest.mark.parametrize("name", ["attention-last", "gradient-rollout", "rollout"])
def test_attention_of_another_kind_is_refused(name: str) -> None:
    card = tiny.vit()[0]
    found = Classifier(card, tiny.cnn()[1], tiny.CPU)
    with pytest.raises(Refused, match="no attention was recorded in tiny-vit; its attention layers are of another"):
        built(name).attribute(found, tiny.images(1), TARGET[:1], 0)
    other = transformer(prefix=2)  # the card counts a token too many
    with pytest.raises(Refused, match="attention in small-vit is over 17 tokens instead of 18; it is of another kind"):
        built(name).attribute(other, tiny.images(1), TARGET[:1], 0)


# Relevance, handed back rule by rule


def share(contributions: torch.Tensor, total: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """contributions (…, outputs, inputs) to totals (…, outputs) -> relevance of the inputs (…, inputs)."""
    return (contributions / total[..., None] * relevance[..., None]).sum(-2)


def back_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relevance: torch.Tensor, gamma: float = 0.0
) -> torch.Tensor:
    """Epsilon rule (epsilon -> 0) of y = W x + b; with gamma, contributions of the sign of y count 1 + gamma times."""
    parts = x[..., None, :] * weight
    total = parts.sum(-1) + bias
    parts = parts + gamma * torch.where(parts * total[..., None] > 0, parts, 0.0)
    return share(parts, parts.sum(-1) + bias, relevance)


def back_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """One token at a time: with the deviation as a constant a norm is a matrix, weight / deviation (I - 1 1' / n)."""
    n, rows = x.shape[-1], []
    for row, arrived in zip(x, relevance, strict=True):
        matrix = torch.diag(weight / (row.var(unbiased=False) + 1e-6).sqrt()) @ (torch.eye(n) - 1 / n).double()
        rows.append(back_linear(row, matrix, bias, arrived))
    return torch.stack(rows)


def back_product(
    a: torch.Tensor, b: torch.Tensor, relevance: torch.Tensor, parts: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of c = a b, (i, j) (j, k): each term a_ij b_jk gets its share of c_ik; ``parts`` = 2 gives each factor half."""
    c = a @ b
    terms = a[:, :, None] * b[None] / c[:, None] * relevance[:, None] / parts
    return terms.sum(2), terms.sum(0)


def back_softmax(scores: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Deep Taylor decomposition at the scores: x (R - s sum R), row by row."""
    return scores * (relevance - scores.softmax(-1) * relevance.sum(-1, keepdim=True))


class BackByHand(ByHand):
    """Relevance of the normalised image for one logit, by explicit rules."""

    def __init__(self, module: nn.Module, rule: str, gamma_patch: float, gamma_linear: float) -> None:
        super().__init__(module)
        self.rule, self.gamma_patch, self.gamma_linear = rule, gamma_patch, gamma_linear

    def linear(self, x: torch.Tensor, name: str, relevance: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return back_linear(x, weight, bias, relevance, self.gamma_linear)

    def normed(self, x: torch.Tensor, name: str, relevance: torch.Tensor) -> torch.Tensor:
        return back_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], relevance)

    def relevance(self, image: torch.Tensor, wanted: int) -> torch.Tensor:
        """(16, 16), summed over channels."""
        x, blocks = self.embed(image), []
        for block in range(self.depth):
            blocks.append(x)
            x = self.block(x, f"blocks.{block}")[-1]
        logits = self.affine(self.norm(x, "norm")[0], "head")
        read = torch.zeros_like(x)
        read[0] = self.linear(self.norm(x, "norm")[0], "head", torch.where(torch.arange(3) == wanted, logits, 0.0))
        arrived = self.normed(x, "norm", read)
        for block in reversed(range(self.depth)):
            arrived = self.back_block(blocks[block], f"blocks.{block}", arrived)
        tokens = self.embed(image) - self.weights["pos_embed"][0]
        patches = (arrived * tokens / self.embed(image))[1:]  # the rest stays with position and class token
        weight, bias = self.weights["patch_embed.proj.weight"].flatten(1), self.weights["patch_embed.proj.bias"]
        pixels = back_linear(self.patches(image.double()), weight, bias, patches, self.gamma_patch)
        whole = torch.zeros(image.shape, dtype=torch.float64)
        for n in range(16):
            row, column = divmod(n, 4)
            whole[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = pixels[n].reshape(-1, 4, 4)
        return whole.sum(0)

    def block(self, x: torch.Tensor, name: str) -> tuple[torch.Tensor, ...]:
        """Everything on the way: normed, qkv, mixed, attention branch, sum, normed, hidden, active, branch, output."""
        normed = self.norm(x, f"{name}.norm1")
        qkv = self.affine(normed, f"{name}.attn.qkv")
        query, key, value = (self.split(part) for part in qkv.chunk(3, -1))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = (scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2)
        branch = self.affine(mixed, f"{name}.attn.proj")
        middle = x + branch
        second = self.norm(middle, f"{name}.norm2")
        hidden = self.affine(second, f"{name}.mlp.fc1")
        last = self.affine(self.gelu(hidden), f"{name}.mlp.fc2")
        return normed, qkv, mixed, branch, middle, second, hidden, last, middle + last

    def back_block(self, x: torch.Tensor, name: str, arrived: torch.Tensor) -> torch.Tensor:
        normed, qkv, mixed, branch, middle, second, hidden, last, out = self.block(x, name)
        back = self.linear(self.gelu(hidden), f"{name}.mlp.fc2", arrived * last / out)  # an activation passes it on
        back = self.linear(second, f"{name}.mlp.fc1", back)
        arrived = arrived * middle / out + self.normed(middle, f"{name}.norm2", back)
        back = self.linear(mixed, f"{name}.attn.proj", arrived * branch / middle)
        back = self.linear(normed, f"{name}.attn.qkv", self.back_attention(qkv, back))
        return arrived * x / middle + self.normed(x, f"{name}.norm1", back)

    def back_attention(self, qkv: torch.Tensor, arrived: torch.Tensor) -> torch.Tensor:
        heads = [self.split(part) for part in qkv.chunk(3, -1)]
        arrived, back = self.split(arrived), [torch.zeros_like(part) for part in heads]
        for head in range(self.heads):
            query, key, value = (part[head] for part in heads)
            scores = query @ key.T / math.sqrt(query.shape[-1])
            parts = 1.0 if self.rule == "cp" else 2.0
            to_matrix, back[2][head] = back_product(scores.softmax(-1), value, arrived[head], parts)
            if self.rule == "attn":
                to_scores = back_softmax(scores, to_matrix)
                back[0][head], to_key = back_product(query, key.T, to_scores, 2.0)
                back[1][head] = to_key.T
        return torch.cat([part.transpose(0, 1).flatten(1) for part in back], -1)


@pytest.mark.parametrize("gammas", [(0.0, 0.0), (0.25, 0.0), (0.25, 0.1)], ids=str)
@pytest.mark.parametrize("rule", ["cp", "attn"])
@pytest.mark.parametrize(("channels", "depth"), [(1, 1), (3, 2)])
def test_relevance_equals_the_rules_one_by_one(channels: int, depth: int, rule: str, gammas: Any) -> None:
    found, pixels = transformer(channels, depth=depth), tiny.images(2, channels=channels)
    hand = BackByHand(found.module, rule, *gammas)
    explainer = built("attn-lrp", rule=rule, gamma_patch=gammas[0], gamma_linear=gammas[1])
    ours = explainer.attribute(found, pixels, TARGET, 0)
    logits = found.predict(pixels)
    for n, image in enumerate(found.normalise(pixels)):
        expected = hand.relevance(image, int(TARGET[n])).numpy()
        np.testing.assert_allclose(ours.values[n], expected, atol=1e-5 * max(np.abs(expected).max(), 1), rtol=1e-3)
        assert np.abs(expected).max() > 1e-3
        kept = expected.sum() / logits[n, TARGET[n]].item()
        assert ours.extra["conservation"][n] == pytest.approx(kept, rel=1e-3, abs=1e-4)
    assert (ours.forwards, ours.backwards, ours.signed) == (2, 2, True)


@pytest.mark.parametrize("gammas", [(0.0, 0.0), (0.25, 0.1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_without_biases_nothing_is_lost(kind: str, gammas: tuple[float, float]) -> None:
    found, pixels = transformer(**KINDS[kind]), tiny.images(2)
    with torch.no_grad():
        for name, parameter in found.module.named_parameters():
            if name.endswith(("bias", "_token", "pos_embed")):
                parameter.zero_()
    logits = found.predict(pixels)[[0, 1], TARGET]
    assert logits.abs().min() > 0.01
    ours = built("attn-lrp", gamma_patch=gammas[0], gamma_linear=gammas[1]).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values.sum((1, 2)), logits.numpy(), rtol=1e-4)
    np.testing.assert_allclose(ours.extra["conservation"], 1, atol=1e-4)
    with_biases = built("attn-lrp").attribute(transformer(**KINDS[kind]), pixels, TARGET, 0).extra["conservation"]
    assert np.abs(np.array(with_biases) - 1).max() > 0.1


@pytest.mark.parametrize("options", [{}, {"rule": "attn"}, {"gamma_patch": 0.5, "gamma_linear": 0.25}], ids=str)
@pytest.mark.parametrize("extra", [{}, {"init_values": 0.3}, {"qk_norm": True}, {"scale_attn_norm": True}], ids=str)
def test_rules_change_gradients_and_never_the_answer(extra: dict[str, Any], options: dict[str, Any]) -> None:
    found, pixels = transformer(**extra), tiny.images(2)
    inputs = found.normalise(pixels).requires_grad_()
    plain = found.module(inputs)
    (ordinary,) = torch.autograd.grad(plain[:, 0].sum(), inputs)
    with relevance_rules(found.module, "small-vit", **options):
        ruled = found.module(inputs)
        (other,) = torch.autograd.grad(ruled[:, 0].sum(), inputs)
    torch.testing.assert_close(ruled, plain, atol=1e-5, rtol=1e-5)
    assert (other - ordinary).abs().max() > 1e-3
    (again,) = torch.autograd.grad(found.module(inputs)[:, 0].sum(), inputs)
    assert torch.equal(again, ordinary)


def replaced(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if "forward" in part.__dict__]


def test_rules_leave_other_models_alone() -> None:
    found, other, inputs = transformer(), transformer(), tiny.images(1).requires_grad_()
    (before,) = torch.autograd.grad(other.module(inputs)[0, 0], inputs)
    with relevance_rules(found.module, "small-vit"):
        (during,) = torch.autograd.grad(other.module(inputs)[0, 0], inputs)
        (ruled,) = torch.autograd.grad(found.module(inputs)[0, 0], inputs)
    assert torch.equal(during, before)
    assert not torch.allclose(ruled, before)


def test_rules_go_also_after_an_exception() -> None:
    found = transformer()

    def fail() -> None:
        with relevance_rules(found.module, "small-vit"):
            assert len(replaced(found.module)) == 2 * 4 + 1  # attention, two norms and an activation; the last norm
            raise Planned("on purpose")

    with pytest.raises(Planned, match="on purpose"):
        fail()
    assert not replaced(found.module)


def test_a_forward_that_its_owner_put_on_an_instance_is_refused_and_kept() -> None:
    found = transformer()
    act = found.module.blocks[0].mlp.act
    act.forward = torch.tanh
    with pytest.raises(Refused, match="there is no relevance rule for GELU in small-vit"):
        built("attn-lrp").attribute(found, tiny.images(1), TARGET[:1], 0)
    assert replaced(found.module) == [act]
    assert act.forward is torch.tanh


@pytest.mark.parametrize(
    ("build", "foreign"),
    [
        (lambda: transformer(mlp_layer=timm.layers.GluMlp), "GluMlp"),
        (lambda: transformer(attn_layer="diff"), "DiffAttention, RmsNorm"),
        (lambda: Classifier(tiny.vit()[0], tiny.cnn()[1], tiny.CPU), "BatchNorm2d, Cnn"),
    ],
    ids=["gated", "differential", "foreign"],
)
def test_modules_without_a_rule_are_refused(build: Any, foreign: str) -> None:
    found = build()
    with pytest.raises(Refused, match=f"no relevance rule for {foreign} in {found.card.name}; choose another"):
        built("attn-lrp").attribute(found, tiny.images(1), TARGET[:1], 0)
    assert not replaced(found.module)


def test_windowed_attention_has_no_relevance_rules() -> None:
    found = tiny.classifier(tiny.swin())
    assert built("attn-lrp").refuse(found.card) == (
        "AttnLRP has rules for plain vision transformers; tiny-swin has attention: windowed"
    )
    with pytest.raises(Refused, match="tiny-swin has attention: windowed"):
        built("attn-lrp").attribute(found, tiny.images(1), TARGET[:1], 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e20, -1e20, 2 * MOST_RELEVANCE])
def test_relevance_out_of_all_proportion_is_refused(bad: float) -> None:
    values = torch.zeros(2, 3, 3)
    values[1, 1, 1] = bad
    with pytest.raises(Refused, match=r"relevance in some-vit sums to .* for a logit of 0.5: it was not conserved"):
        conservation(values, torch.tensor([1.0, 0.5]), "some-vit")


def test_conservation_is_a_share_of_the_logit() -> None:
    values = torch.ones(3, 2, 2)
    assert conservation(values, torch.tensor([8.0, -4.0, 0.0]), "some-vit") == [0.5, -1.0, 0.0]
    assert conservation(values * 20, torch.tensor([2.0, 0.001, 9.0]), "some-vit")[0] == 40, "80 for 0.001 is allowed"


def test_a_model_that_explodes_is_refused() -> None:
    found = transformer()
    with torch.no_grad():
        found.module.patch_embed.proj.weight *= math.inf
    with pytest.raises(Refused, match="relevance in small-vit sums to nan"):
        built("attn-lrp").attribute(found, tiny.images(1), TARGET[:1], 0)


# Contrasts


def difference(found: Classifier, against: int) -> Classifier:
    """A model of its own whose head computes the differences to a class."""
    module = copy.deepcopy(found.module)
    with torch.no_grad():
        module.head.weight -= module.head.weight[against].clone()
        module.head.bias -= module.head.bias[against].clone()
    return Classifier(found.card, module, found.device)


@pytest.mark.parametrize(
    ("name", "params"), [("gradient-rollout", {}), ("attn-lrp", {}), ("attn-lrp", {"rule": "attn"})]
)
def test_a_contrast_explains_the_difference_of_logits(name: str, params: dict[str, Any]) -> None:
    found, pixels, explainer = tiny.classifier(tiny.vit()), tiny.images(2), built(name, **params)
    ours = explainer.attribute(found.against(1), pixels, TARGET, 0).values
    expected = explainer.attribute(difference(found, 1), pixels, TARGET, 0).values
    np.testing.assert_allclose(ours, expected, atol=1e-5 * max(np.abs(expected).max(), 1))
    assert np.abs(ours - explainer.attribute(found, pixels, TARGET, 0).values).max() > 1e-3


@pytest.mark.parametrize("params", [{}, {"rule": "attn"}, {"gamma_patch": 0.5, "gamma_linear": 0.25}], ids=str)
def test_relevance_of_a_contrast_is_the_difference_of_relevances(params: dict[str, Any]) -> None:
    found, pixels, explainer = tiny.classifier(tiny.vit()), tiny.images(2), built("attn-lrp", **params)
    maps = [explainer.attribute(found, pixels, torch.full((2,), k), 0).values for k in (0, 2)]
    both = explainer.attribute(found.against(2), pixels, torch.zeros(2, dtype=torch.int64), 0)
    np.testing.assert_allclose(both.values, maps[0] - maps[1], atol=1e-5 * np.abs(maps).max())
    assert both.signed


def test_attention_alone_knows_no_contrast() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(2)
    plain, against = (built("attention-last").attribute(c, pixels, TARGET, 0).values for c in (found, found.against(1)))
    np.testing.assert_array_equal(plain, against)
