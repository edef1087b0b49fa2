"""Explainers against independent witnesses: exhaustive sums, explicit matrix products, captum, closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tiny
import torch
from captum.attr import LayerAttribution, LayerGradCam
from scipy.stats import spearmanr
from torch import nn

from audit_core.classifier import BatchSize, Classifier
from audit_core.errors import InvalidParameter, Refused
from audit_core.explainers.cam import GradCAM
from audit_core.explainers.controls import CentrePrior, Edges, InputIntensity, RandomOrder
from audit_core.explainers.rise import BLOCK, RISE, tracked
from audit_core.explainers.rollout import AttentionRollout, recorded_attention, rollout
from audit_core.readouts import BADGES, relation

TARGET = torch.tensor([0, 2, 1])


class Planned(Exception):
    """Raised on purpose."""


# Attention Rollout


def stochastic(layers: int, heads: int = 3, tokens: int = 7, n: int = 2, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.dirichlet(np.full(tokens, 0.5), (n, heads, tokens))) for _ in range(layers)]


def slow_rollout(layers: list[np.ndarray], fuse: str, residual: float, discard: float) -> np.ndarray:
    """One image, entry by entry; layers: (heads, tokens, tokens) each."""
    tokens = layers[0].shape[-1]
    result = np.eye(tokens)
    for layer in layers:
        fused = {"mean": np.mean, "max": np.max, "min": np.min}[fuse](layer, axis=0)
        order = np.argsort(fused, axis=None)
        for place in order[: int(tokens * tokens * discard)]:
            row, column = divmod(int(place), tokens)
            if column:
                fused[row, column] = 0
        mixed = np.zeros_like(fused)
        for row in range(tokens):
            for column in range(tokens):
                own = residual if row == column else 0.0
                mixed[row, column] = own + (1 - residual) * fused[row, column] / fused[row].sum()
        result = mixed @ result
    return result


@pytest.mark.parametrize("discard", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("residual", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
def test_rollout_equals_explicit_products(fuse: str, residual: float, discard: float) -> None:
    layers = stochastic(4)
    product = rollout(layers, fuse, residual, discard)
    torch.testing.assert_close(product.sum(-1), torch.ones(2, 7), atol=1e-5, rtol=0)
    for n in range(2):
        expected = slow_rollout([layer[n].numpy().copy() for layer in layers], fuse, residual, discard)
        np.testing.assert_allclose(product[n].numpy(), expected, atol=1e-5)


def test_rollout_of_identity_attention_is_the_identity() -> None:
    layers = [torch.eye(5).expand(1, 2, 5, 5)] * 6
    for residual in (0.0, 0.5):
        torch.testing.assert_close(rollout(layers, residual=residual)[0], torch.eye(5))


def test_one_layer_is_half_identity_half_attention() -> None:
    (layer,) = stochastic(1, heads=1)
    expected = (layer[:, 0] + torch.eye(7)) / (layer[:, 0] + torch.eye(7)).sum(-1, keepdim=True)
    torch.testing.assert_close(rollout([layer]).double(), expected, atol=1e-6, rtol=0)


def test_the_first_layer_is_applied_first() -> None:
    one, two = stochastic(2, heads=1)
    torch.testing.assert_close(
        rollout([one, two], residual=0.0).double(), two[:, 0] @ one[:, 0], atol=1e-6, rtol=0
    )
    assert (rollout([one, two]) - rollout([two, one])).abs().max() > 0.01


def test_rows_sum_to_one_also_when_the_heads_share_nothing() -> None:
    eye = torch.eye(4)
    apart = torch.stack([eye, eye.roll(1, 0)])[None]  # the smaller of the two heads is 0 everywhere
    for residual in (0.0, 0.5):
        product = rollout([apart, apart], "min", residual)
        torch.testing.assert_close(product.sum(-1), torch.ones(1, 4))


def test_no_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])


def hand_attention(module: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Softmax attention of every block from its own weights, head by head in numpy."""
    found, inputs = [], []
    handles = [b.attn.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for b in module.blocks]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    for block, given in zip(module.blocks, inputs, strict=True):
        weight, bias = (p.detach().double().numpy() for p in (block.attn.qkv.weight, block.attn.qkv.bias))
        tokens, dim, heads = given.double().numpy(), weight.shape[1], block.attn.num_heads
        width = dim // heads
        matrices = np.empty((len(tokens), heads, tokens.shape[1], tokens.shape[1]))
        for n, head in itertools.product(range(len(tokens)), range(heads)):
            query, key = (
                tokens[n] @ weight[o : o + width].T + bias[o : o + width] for o in (head * width, dim + head * width)
            )
            scores = np.exp(query @ key.T / math.sqrt(width))
            matrices[n, head] = scores / scores.sum(-1, keepdims=True)
        found.append(matrices)
    return found


@pytest.mark.parametrize("heads", [2, 3])
def test_recorded_attention_is_the_softmax_of_queries_and_keys(heads: int) -> None:
    found = tiny.classifier(tiny.vit(heads=heads))
    pixels = tiny.images(2)
    with recorded_attention(found.module) as seen:
        found.logits(pixels)
    expected = hand_attention(found.module, found.normalise(pixels))
    assert len(seen) == len(expected) == 2
    for ours, theirs in zip(seen, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
        assert theirs.max() > 0.2, "uniform attention would prove little"


@pytest.mark.parametrize(
    "options",
    [{}, {"head_fusion": "max"}, {"residual": 0.2}, {"discard": 0.5}, {"first_layer": 2}, {"last_layer": 2},
     {"first_layer": 2, "last_layer": 3}, {"pooled": 2}],
    ids=str,
)
def test_rollout_map_is_the_class_tokens_row(options: dict) -> None:
    found = tiny.classifier(tiny.vit(depth=3))
    pixels = tiny.images(2)
    first, last = options.get("first_layer", 1), options.get("last_layer", 0) or 3
    layers = hand_attention(found.module, found.normalise(pixels))[first - 1 : last]
    ours = AttentionRollout(**options).attribute(found, pixels, torch.tensor([0, 1]), 0)
    settings = options.get("head_fusion", "mean"), options.get("residual", 0.5), options.get("discard", 0.0)
    for n in range(2):
        row = slow_rollout([layer[n].copy() for layer in layers], *settings)[0, 1:].reshape(4, 4)
        if options.get("pooled"):
            row = row.reshape(2, 2, 2, 2).mean((1, 3))
        np.testing.assert_allclose(ours.values[n], bilinear(row, (16, 16)), atol=1e-5)
    assert not ours.signed


def bilinear(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between cell centres along each axis, flat beyond the outer centres."""
    for axis, wanted in enumerate(size):
        places = (np.arange(wanted) + 0.5) * coarse.shape[axis] / wanted - 0.5
        coarse = np.apply_along_axis(lambda line, p=places: np.interp(p, np.arange(len(line)), line), axis, coarse)
    return coarse


def test_a_rollout_is_not_pooled_to_more_cells_than_it_has() -> None:
    found = tiny.classifier(tiny.vit())
    with pytest.raises(InvalidParameter, match="8 cells a side, the map has 4 rows"):
        AttentionRollout(pooled=8).attribute(found, tiny.images(1), torch.tensor([0]), 0)


def test_layers_outside_the_model_are_refused() -> None:
    found = tiny.classifier(tiny.vit())
    for options in ({"first_layer": 3}, {"last_layer": 5}, {"first_layer": 2, "last_layer": 1}):
        with pytest.raises(InvalidParameter, match=r"layers \d to \d were asked for, the model has 2; choose"):
            AttentionRollout(**options).attribute(found, tiny.images(1), torch.tensor([0]), 0)


@pytest.mark.parametrize(("name", "reason"), [("swin", "windowed"), ("cnn", "none")])
def test_rollout_refuses_models_without_a_class_token(name: str, reason: str) -> None:
    found = tiny.classifier(tiny.MODELS[name]())
    with pytest.raises(Refused, match=f"tiny-{name} reads its score from global average pool with attention: {reason}"):
        AttentionRollout().attribute(found, tiny.images(1), torch.tensor([0]), 0)


@pytest.mark.parametrize("fails", [False, True])
def test_fused_attention_and_hooks_are_restored(fails: bool) -> None:
    module = tiny.vit()[1]
    module.blocks[0].attn.fused_attn = True
    module.blocks[1].attn.fused_attn = False
    try:
        with recorded_attention(module):
            assert not any(block.attn.fused_attn for block in module.blocks)
            if fails:
                raise Planned
    except Planned:
        assert fails
    assert [block.attn.fused_attn for block in module.blocks] == [True, False]
    assert not any(part._forward_pre_hooks for part in module.modules())


# RISE


def exhaustive(found: Classifier, image: torch.Tensor, rise: RISE) -> tuple[np.ndarray, np.ndarray]:
    """Expected map of every class and the standard deviation of one mask's term, over all 2^(grid^2) masks."""
    side = rise.grid
    patterns = np.array(list(itertools.product([0.0, 1.0], repeat=side * side))).reshape(-1, side, side)
    chance = np.array([rise.p ** k.sum() * (1 - rise.p) ** (k.size - k.sum()) for k in patterns])
    keep = np.stack([bilinear(pattern, image.shape[1:]) for pattern in patterns])
    pixels = image.numpy()[None] * keep[:, None]
    if rise.baseline == "image-mean":
        pixels += image.numpy().mean((1, 2))[None, :, None, None] * (1 - keep[:, None])
    scores = found.predict(torch.from_numpy(pixels).float()).double().softmax(1).numpy()
    value = np.einsum("m,mk,mij->kij", chance, scores, keep) / rise.p
    terms = np.einsum("mk,mij->mkij", scores, keep)
    centred = terms - (value[None] * keep[:, None] if rise.coverage else np.einsum("m,mkij->kij", chance, terms)[None])
    return value, np.sqrt(np.einsum("m,mkij->kij", chance, centred**2)) / rise.p


@pytest.fixture(scope="module")
def four_by_four() -> tuple[Classifier, torch.Tensor]:
    return tiny.classifier(tiny.linear(size=4)), tiny.images(1, 4)[0]


@pytest.mark.parametrize("baseline", ["zero", "image-mean"])
@pytest.mark.parametrize("coverage", [True, False])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_rise_converges_to_the_sum_over_all_masks(
    four_by_four: tuple[Classifier, torch.Tensor], p: float, coverage: bool, baseline: str
) -> None:
    found, image = four_by_four
    rise = RISE(n_masks=12_000, grid=2, p=p, shift=False, baseline=baseline, coverage=coverage, settle=1.0)
    expected, spread = exhaustive(found, image, rise)
    ours = rise.attribute_all(found, image, seed=1)
    assert ours.extra["masks"] == 12_000
    error = spread[ours.classes] / math.sqrt(ours.extra["masks"])
    np.testing.assert_allclose(ours.error, error, rtol=0.05)
    assert np.abs((ours.values - expected[ours.classes]) / error).max() < 4.5
    range_of_class = np.ptp(expected[ours.classes], axis=(1, 2))
    assert (range_of_class / error.max((1, 2))).max() > 20, "the map must stand out from the noise"


@pytest.mark.parametrize("coverage", [True, False])
def test_standard_error_is_the_spread_over_seeds(
    four_by_four: tuple[Classifier, torch.Tensor], coverage: bool
) -> None:
    found, image = four_by_four
    rise = RISE(n_masks=300, grid=2, coverage=coverage, settle=1.0)  # with the random shift
    runs = [rise.attribute(found, image[None], torch.tensor([1]), seed) for seed in range(60)]
    spread = np.std([run.values for run in runs], axis=0, ddof=1)
    stated = np.mean([run.error for run in runs], axis=0)
    assert 0.85 < (spread / stated).mean() < 1.15
    assert np.abs(spread / stated - 1).max() < 0.4


def test_masks_are_a_function_of_the_seed() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return torch.cat(list(RISE(n_masks=250).masks(torch.Size((16, 16)), seed, tiny.CPU)))

    assert torch.equal(drawn(3), drawn(3))
    assert (drawn(3) - drawn(4)).abs().max() > 0.5
    assert len(drawn(3)) == 250
    assert (drawn(3)[:100] - drawn(3)[100:200]).abs().max() > 0.5, "blocks must differ"


@pytest.mark.parametrize(("size", "grid"), [((16, 16), 4), ((10, 14), 3), ((7, 7), 8)])
def test_masks_are_enlarged_and_shifted_cells(size: tuple[int, int], grid: int) -> None:
    rise = RISE(n_masks=5, grid=grid, p=0.4)
    (ours,) = rise.masks(torch.Size(size), 11, tiny.CPU)
    rng, cell = np.random.default_rng((11, 1, 0)), [math.ceil(n / grid) for n in size]
    cells = rng.random((5, grid, grid)) < 0.4
    offsets = rng.integers(0, cell, (5, 2))
    for keep, pattern, (top, left) in zip(ours.numpy(), cells, offsets, strict=True):
        wide = bilinear(pattern.astype(float), ((grid + 1) * cell[0], (grid + 1) * cell[1]))
        np.testing.assert_allclose(keep, wide[top : top + size[0], left : left + size[1]], atol=1e-5)


def test_pixels_are_kept_with_probability_p() -> None:
    keep = torch.cat(list(RISE(n_masks=4000, grid=4, p=0.3).masks(torch.Size((16, 16)), 0, tiny.CPU)))
    error = keep.std(0) / math.sqrt(4000)
    assert ((keep.mean(0) - 0.3) / error).abs().max() < 4.5
    assert keep.min() >= 0
    assert keep.max() <= 1


def test_rise_does_not_depend_on_the_batch_size() -> None:
    found, image = tiny.classifier(tiny.vit()), tiny.images(1)[0]
    rise, results = RISE(n_masks=250, grid=4), []
    for size in (1, 7, 64, 1000):
        found.batch = BatchSize((size,))
        results.append(rise.attribute_all(found, image, 2))
    for other in results[1:]:
        np.testing.assert_allclose(other.values, results[0].values, atol=1e-6)
        np.testing.assert_allclose(other.error, results[0].error, atol=1e-6)


def test_one_pass_gives_the_maps_of_all_classes() -> None:
    found, image = tiny.classifier(tiny.cnn()), tiny.images(1)[0]
    rise = RISE(n_masks=200, grid=4, settle=1.0)
    every = rise.attribute_all(found, image, 5)
    assert sorted(every.classes) == [0, 1, 2]
    assert every.classes[0] == int(found.predict(image[None]).argmax())
    for target in range(3):
        alone = rise.attribute(found, image[None], torch.tensor([target]), 5)
        np.testing.assert_allclose(alone.values[0], every.values[every.classes.index(target)], atol=1e-6)
        np.testing.assert_allclose(alone.error[0], every.error[every.classes.index(target)], atol=1e-6)
    np.testing.assert_allclose(every.values.sum(0), 1, atol=1e-5)  # as the probabilities do under every mask


def test_tracked_classes() -> None:
    few = torch.tensor([0.1, 3.0, 2.0])
    assert tracked(few, 0) == [1, 2, 0]
    many = torch.arange(100.0)
    assert tracked(many, 99) == list(range(99, 83, -1))
    assert tracked(many, 4) == [*range(99, 83, -1), 4]


def halves_agree(found: Classifier, image: torch.Tensor, rise: RISE, masks: int, seed: int) -> float:
    """Spearman between the maps of even and odd masks, stepped up by Spearman-Brown, of the predicted class."""
    keep = torch.cat(list(rise.masks(image.shape[1:], seed, tiny.CPU)))[:masks]
    scores = found.predict(image[None] * keep[:, None]).double().softmax(1)[:, int(found.predict(image[None]).argmax())]
    maps = [
        (scores[half::2, None, None] * keep[half::2]).sum(0) / keep[half::2].double().sum(0) for half in (0, 1)
    ]
    r = spearmanr(maps[0].ravel(), maps[1].ravel()).statistic
    return 2 * r / (1 + r)


def test_rise_stops_once_two_halves_rank_alike() -> None:
    found, image = tiny.classifier(tiny.linear(size=16)), tiny.images(1)[0]
    agreement = halves_agree(found, image, RISE(n_masks=800, grid=4), 5 * BLOCK, 7)
    assert 0 < agreement < 1
    for settle, stops in ((agreement - 1e-4, True), (agreement + 1e-4, False)):
        used = RISE(n_masks=800, grid=4, settle=settle).attribute_all(found, image, 7).extra["masks"]
        assert (used == 5 * BLOCK) is stops
        assert used % BLOCK == 0


def test_stopping_is_reproducible_and_can_be_switched_off() -> None:
    found, image = tiny.classifier(tiny.linear(size=16)), tiny.images(1)[0]
    rise, used = RISE(n_masks=3000, grid=3, settle=0.97), []
    for size in (9, 64):
        found.batch = BatchSize((size,))
        used.append(rise.attribute_all(found, image, 0).extra["masks"])
    assert used[0] == used[1] < 3000
    assert RISE(n_masks=1100, grid=3, settle=1.0).attribute_all(found, image, 0).extra["masks"] == 1100


def test_a_flat_score_never_settles_and_gives_a_flat_map() -> None:
    card, module = tiny.linear(size=8)
    module[1].weight.data.zero_()
    found = tiny.classifier((card, module))
    flat = RISE(n_masks=700, grid=4).attribute(found, tiny.images(1, 8), torch.tensor([1]), 0)
    expected = found.predict(torch.zeros(1, 1, 8, 8)).softmax(1)[0, 1].item()
    np.testing.assert_allclose(flat.values, expected, atol=1e-6)
    np.testing.assert_allclose(flat.error, 0, atol=1e-6)
    assert flat.extra["masks"] == [700]


def test_rise_reports_running_maps_and_can_be_cancelled() -> None:
    found, told = tiny.classifier(tiny.cnn()), []

    def report(fraction: float, words: str, running: np.ndarray | None) -> None:
        told.append((fraction, words, running))
        if len(told) == 3:
            raise Planned("third")

    with pytest.raises(Planned, match="third"):
        RISE(n_masks=1000, grid=4).attribute(found, tiny.images(1), torch.tensor([1]), 0, report)
    assert [(fraction, words) for fraction, words, _ in told] == [
        (n / 10, f"{100 * n} of at most 1000 masks") for n in (1, 2, 3)
    ]
    exact = RISE(n_masks=300, grid=4).attribute(found, tiny.images(1), torch.tensor([1]), 0)
    np.testing.assert_allclose(told[-1][2], exact.values[0], atol=1e-6)
    assert 2 * 301 <= found.forwards <= 2 * 301 + found.batch.ceiling  # one batch may be under way when it is cancelled


# Grad-CAM


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", ["stage1", "stage2"])
@pytest.mark.parametrize("kind", ["plain", "colour", "in place"])
def test_grad_cam_equals_captum(kind: str, layer: str, relu: bool) -> None:
    channels = 3 if kind == "colour" else 1
    found = tiny.classifier(tiny.cnn(channels=channels, inplace=kind == "in place"))
    pixels = tiny.images(3, channels=channels)
    ours = GradCAM(layer=layer, relu=relu).attribute(found, pixels, TARGET, 0)
    witness = tiny.cnn(channels=channels)[1]  # the same weights, its own module
    place = getattr(witness, found.card.layer(layer).module)
    coarse = LayerGradCam(witness, place).attribute(found.normalise(pixels), TARGET, relu_attributions=relu)
    wide = LayerAttribution.interpolate(coarse, (16, 16), "bilinear").detach().numpy()[:, 0]
    np.testing.assert_allclose(ours.values, wide, atol=1e-6)
    assert ours.signed is not relu
    assert np.abs(wide).max() > 1e-3
    assert (ours.extra["layer"], ours.extra["grid"]) == (layer, list(coarse.shape[2:]))
    assert min(ours.extra["largest_gradient"]) > 0


def manual_cam(found: Classifier, pixels: torch.Tensor, target: torch.Tensor, layer: str) -> np.ndarray:
    """Sum over channels of feature times mean gradient, on the grid, straight from autograd."""
    where, kept = found.card.layer(layer), []
    handle = found.module.get_submodule(where.module).register_forward_hook(lambda _, __, output: kept.append(output))
    logits = found.module(found.normalise(pixels).requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[torch.arange(len(pixels)), target].sum(), kept[0])
    features = kept[0].detach()
    if where.layout == "tokens":
        features, gradient = (
            t[:, where.prefix_tokens :].reshape(len(pixels), *where.grid, -1) for t in (features, gradient)
        )
    weights = gradient.mean((1, 2), keepdim=True)
    return (features * weights).sum(-1).numpy()


@pytest.mark.parametrize(
    ("name", "layer"),
    [("swin", "stage1"), ("swin", "stage2"), ("swin", ""), ("vit", "block1"), ("vit", "block2"), ("vit", "")],
)
def test_grad_cam_on_transformers_equals_autograd(name: str, layer: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[name]()), tiny.images(3)
    expected = manual_cam(found, pixels, TARGET, layer)
    assert np.abs(expected).max() > 1e-3
    ours = GradCAM(layer=layer, relu=False)
    np.testing.assert_allclose(ours.coarse(found, pixels, TARGET, found.card.layer(layer)), expected, atol=1e-5)
    wide = np.stack([bilinear(row, (16, 16)) for row in expected])
    np.testing.assert_allclose(ours.attribute(found, pixels, TARGET, 0).values, wide, atol=1e-5)


def test_grad_cam_keeps_raw_values() -> None:
    card, module = tiny.cnn()
    pixels = tiny.images(3)
    before = GradCAM().attribute(tiny.classifier((card, module)), pixels, TARGET, 0).values
    with torch.no_grad():
        module.head.weight *= 3
    after = GradCAM().attribute(tiny.classifier((card, module)), pixels, TARGET, 0).values
    np.testing.assert_allclose(after, 3 * before, rtol=1e-4, atol=1e-7)
    assert before.max() > 0


def test_grad_cam_of_the_pooled_stage_sums_to_the_logit() -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(3)
    coarse = GradCAM().coarse(found, pixels, TARGET, found.card.layer())
    logits = found.predict(pixels)[torch.arange(3), TARGET] - found.module.head.bias[TARGET].detach()
    np.testing.assert_allclose(coarse.sum((1, 2)), logits.numpy(), atol=1e-5)


def test_grad_cam_wants_a_layer_that_exists() -> None:
    found = tiny.classifier(tiny.cnn())
    with pytest.raises(InvalidParameter, match="tiny-cnn has no feature layer 'stage9'; it has stage1, stage2"):
        GradCAM(layer="stage9").attribute(found, tiny.images(1), torch.tensor([0]), 0)
    assert GradCAM().refuse(tiny.linear()[0]) == "Grad-CAM needs a spatial feature layer; none was found in tiny-linear"


def test_an_error_inside_grad_cam_is_not_swallowed() -> None:
    found = tiny.classifier(tiny.cnn())
    with pytest.raises(IndexError, match="out of bounds"):
        GradCAM().attribute(found, tiny.images(1), torch.tensor([3]), 0)


# Controls


def test_intensity_is_the_mean_over_channels() -> None:
    found, pixels = tiny.classifier(tiny.cnn(channels=3)), tiny.images(2, channels=3)
    ours = InputIntensity().attribute(found, pixels, torch.tensor([0, 0]), 0).values
    expected = [[[sum(p[:, r, c].tolist()) / 3 for c in range(16)] for r in range(16)] for p in pixels]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_centre_prior_in_closed_form() -> None:
    ours = CentrePrior().draw(np.zeros((1, 4, 8)), 0)
    for row, column in itertools.product(range(4), range(8)):
        down, right = (row - 1.5) / 1.0, (column - 3.5) / 2.0
        assert ours[row, column] == pytest.approx(math.exp(-(down**2 + right**2) / 2), abs=1e-12)
    odd = CentrePrior().draw(np.zeros((1, 5, 5)), 0)
    assert odd[2, 2] == odd.max() == 1


def test_edges_of_a_ramp_and_a_step() -> None:
    ramp = np.tile(np.arange(6.0), (5, 1))
    np.testing.assert_allclose(Edges().draw(ramp[None], 0)[:, 1:-1], 8)  # Sobel weighs 1 2 1 over a rise of 2
    np.testing.assert_allclose(Edges().draw(ramp.T[None], 0)[1:-1], 8)
    step = np.zeros((3, 6, 6))
    step[0, :, 3:] = 1
    found = Edges().draw(step, 0)
    np.testing.assert_allclose(found[:, [2, 3]], 4 / 3)  # one of three channels
    assert not found[:, [0, 1, 4, 5]].any()
    assert not Edges().draw(np.full((1, 5, 5), 0.7), 0).any()


def test_random_order_is_uniform_and_seeded() -> None:
    one, other = (RandomOrder().draw(np.zeros((1, 100, 100)), seed) for seed in (0, 1))
    np.testing.assert_array_equal(one, RandomOrder().draw(np.ones((1, 100, 100)), 0))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05
    np.testing.assert_allclose(np.quantile(one, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02)


# Badges


CELLS = [
    ("attention", "vit", "", "native"), ("attention", "swin", "", "mismatched"), ("attention", "cnn", "", "mismatched"),
    ("feature gradients", "cnn", "", "native"), ("feature gradients", "cnn", "stage2", "native"),
    ("feature gradients", "cnn", "stage1", "adapted"), ("feature gradients", "vit", "", "adapted"),
    ("feature gradients", "swin", "", "native"), ("scores", "vit", "", "model-agnostic"),
    ("image", "vit", "", "control"), ("nothing", "cnn", "", "control"),
]


@pytest.mark.parametrize(("reads", "name", "layer", "badge"), CELLS)
def test_badge_of_a_signal_on_a_readout(reads: str, name: str, layer: str, badge: str) -> None:
    found = relation(reads, tiny.MODELS[name]()[0], layer)
    assert found.badge == badge in BADGES
    assert found.sentence.endswith(".")
