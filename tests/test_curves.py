"""Deletion and insertion against closed forms and a literal, slow re-implementation of RISE's causal metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from audit_core.audit import Prepared, orders, score_curves
from audit_core.classifier import BatchSize, Classifier
from audit_core.curves import (
    changed_pixels,
    coarse_to_fine,
    cuts,
    fractions,
    plan,
    rank_pixels,
    score_points,
    table,
    unit_means,
)
from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.fills import FILLS, FillContext
from audit_core.keys import Choice
from audit_core.types import AuditSpec, SourceImage, Triple
from audit_core.workbench import Subject


def unequal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random values without ties."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) / np.prod(shape)


def curves_of(
    found: Classifier, images: torch.Tensor, ranks: np.ndarray, image_of_order: np.ndarray, steps: int,
    fill: str = "zero-normalised",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fractions of the first order, deletion logits, insertion logits), logits (orders, steps + 1, classes)."""
    at = cuts(int(ranks[0].max()) + 1, steps)
    points = plan(image_of_order, at)
    lookup = table(points, len(ranks), at, image_of_order)
    operator = FILLS.build(Choice(fill))
    substrates = operator.substrate(images, FillContext(found.card.mean, found.card.std))
    before = found.forwards
    stream = score_points(found, operator, images, substrates, torch.from_numpy(ranks), points)
    logits = torch.cat([rows for _, rows in stream]).numpy()
    assert found.forwards - before == len(points)
    return fractions(ranks[0], at), logits[lookup.deletion], logits[lookup.insertion]


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def causal_metric(
    predict: Callable[[torch.Tensor], np.ndarray], image: torch.Tensor, saliency: np.ndarray, step: int, deletes: bool
) -> tuple[np.ndarray, float]:
    """RISE's metric, one pixel group at a time, on a normalised image (1, c, h, w); scores and their area."""
    category = int(predict(image)[0].argmax())
    pixels = image.shape[2] * image.shape[3]
    order = np.flip(np.argsort(saliency.reshape(pixels)))
    start, finish = (image.clone(), torch.zeros_like(image)) if deletes else (torch.zeros_like(image), image.clone())
    steps, scores = -(-pixels // step), []
    for done in range(steps + 1):
        scores.append(predict(start)[0, category])
        for place in order[done * step : (done + 1) * step]:
            row, column = divmod(int(place), image.shape[3])
            start[0, :, row, column] = finish[0, :, row, column]
    scores = np.array(scores)
    return scores, float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))


@pytest.mark.parametrize("steps", [1, 8, 32])
@pytest.mark.parametrize("name", sorted(tiny.MODELS))
def test_both_curves_equal_the_causal_metric(name: str, steps: int) -> None:
    found = tiny.classifier(tiny.MODELS[name]())
    image, saliency = tiny.images(1), unequal((16, 16))

    def predict(normalised: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return found.module(normalised).double().softmax(1).numpy()

    share, deletion, insertion = curves_of(found, image, rank_pixels(saliency)[None], np.zeros(1, int), steps)
    category = int(deletion[0, 0].argmax())
    for logits, deletes in ((deletion, True), (insertion, False)):
        scores, area = causal_metric(predict, found.normalise(image), saliency, 256 // steps, deletes)
        ours = softmax(logits)[0, :, category]
        np.testing.assert_allclose(ours, scores, atol=1e-6)
        assert np.trapezoid(ours, share) == pytest.approx(area, abs=1e-6)
        assert np.ptp(scores) > 0.01, "a flat curve would agree with anything"


def additive(channels: int = 1, size: int = 8) -> tuple[Classifier, torch.Tensor, np.ndarray, np.ndarray]:
    """Linear model, one image, each pixel's share of the logit of class 1, and that logit with all at 0."""
    found = tiny.classifier(tiny.linear(channels=channels, size=size))
    image = tiny.images(1, size, channels)
    weights = found.module[1].weight[1].detach().double().reshape(channels, size, size)
    std, mean = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (found.card.std, found.card.mean))
    black = found.module[1].bias[1].item() - (weights * mean / std).sum().item()
    return found, image, (weights / std * image[0].double()).sum(0).numpy(), np.array(black)


@pytest.mark.parametrize("channels", [1, 3])
def test_additive_model_in_closed_form(channels: int) -> None:
    found, image, parts, black = additive(channels)
    saliency = unequal((8, 8))
    _, deletion, insertion = curves_of(found, image, rank_pixels(saliency)[None], np.zeros(1, int), 16, "zero")
    visited = parts.ravel()[np.argsort(-saliency.ravel())]
    revealed = np.concatenate([[0], np.cumsum(visited)])[::4]
    np.testing.assert_allclose(insertion[0, :, 1], black + revealed, atol=2e-5)
    np.testing.assert_allclose(deletion[0, :, 1], black + parts.sum() - revealed, atol=2e-5)


def test_true_contributions_give_the_best_curves_of_an_additive_model() -> None:
    found, image, parts, _ = additive()
    maps = [parts, -parts, *(unequal((8, 8), seed) for seed in range(5))]
    ranks = np.stack([rank_pixels(values) for values in maps])
    share, deletion, insertion = curves_of(found, image, ranks, np.zeros(7, int), 16, "zero")
    areas = {kind: np.trapezoid(c[..., 1], share, axis=1) for kind, c in (("del", deletion), ("ins", insertion))}
    assert areas["del"].argmin() == areas["ins"].argmax() == 0
    assert areas["del"].argmax() == areas["ins"].argmin() == 1
    # Deleting in one order and inserting in the same order add up to a constant for an additive model.
    both = areas["del"] + areas["ins"]
    np.testing.assert_allclose(both, deletion[0, 0, 1] + insertion[0, 0, 1], atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2])
def test_insertion_of_most_at_f_is_deletion_of_least_at_the_rest(patch: int) -> None:
    found = tiny.classifier(tiny.cnn())
    values = np.round(unequal((16, 16)), 1)  # with many ties
    ranks = np.stack([rank_pixels(values, patch, direction, 3) for direction in ("most", "least")])
    share, deletion, insertion = curves_of(found, tiny.images(1), ranks, np.zeros(2, int), 16)
    np.testing.assert_allclose(insertion[0], deletion[1][::-1], atol=1e-6)
    np.testing.assert_allclose(insertion[1], deletion[0][::-1], atol=1e-6)
    np.testing.assert_allclose(share, np.arange(17) / 16, atol=0)


def test_many_images_and_orders_equal_one_by_one() -> None:
    found, images = tiny.classifier(tiny.vit()), tiny.images(3)
    image_of_order = np.array([1, 0, 1, 2])
    ranks = np.stack([rank_pixels(unequal((16, 16), seed)) for seed in range(4)])
    _, deletion, insertion = curves_of(found, images, ranks, image_of_order, 8)
    for order, image in enumerate(image_of_order):
        found.batch = BatchSize((5,))
        alone = curves_of(found, images[image : image + 1], ranks[order : order + 1], np.zeros(1, int), 8)
        np.testing.assert_allclose(deletion[order], alone[1][0], atol=1e-5)
        np.testing.assert_allclose(insertion[order], alone[2][0], atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 40))
def test_number_of_points_is_the_least_possible(images: int, per_image: int, steps: int) -> None:
    image_of_order = np.repeat(np.arange(images), per_image)
    at = cuts(64, min(steps, 64))
    points = plan(image_of_order, at)
    inner = len(at) - 2
    assert len(points) == images * (2 + 2 * inner * per_image)
    states = {
        (i, o if (low, high) not in ((0, 0), (0, 64)) else -1, low, high)
        for i, o, low, high in zip(points.image, points.order, points.low, points.high, strict=True)
    }
    assert len(states) == len(points), "a point is scored twice"
    lookup = table(points, len(image_of_order), at, image_of_order)
    assert set(lookup.deletion.ravel()) | set(lookup.insertion.ravel()) == set(range(len(points)))


def test_table_points_at_the_right_states() -> None:
    at, image_of_order = cuts(10, 4), np.array([0, 1, 0])
    points = plan(image_of_order, at)
    lookup = table(points, 3, at, image_of_order)
    for order, image in enumerate(image_of_order):
        for step, cut in enumerate(at):
            gone, left = lookup.deletion[order, step], lookup.insertion[order, step]
            assert points.image[gone] == points.image[left] == image
            assert (points.low[gone], points.high[gone]) == (0, cut)
            # nothing at all is changed where the interval is empty, whatever its bounds
            expected = set(range(cut, 10))
            assert set(range(points.low[left], points.high[left])) == expected
            if 0 < cut < 10:
                assert points.order[gone] == points.order[left] == order


def test_ends_come_first_then_ever_finer_steps() -> None:
    points = plan(np.array([0, 0]), cuts(64, 8))
    assert [(low, high) for low, high in zip(points.low[:2], points.high[:2], strict=True)] == [(0, 0), (0, 64)]
    own = points.high[2:16:2]
    assert own.tolist() == [32, 16, 48, 8, 24, 40, 56]
    assert (points.order[2:16] == 0).all()
    assert (points.order[16:] == 1).all()


@given(st.integers(1, 300))
def test_coarse_to_fine_takes_each_step_once(steps: int) -> None:
    found = coarse_to_fine(steps)
    assert sorted(found) == list(range(1, steps))
    gaps = [max(np.diff(sorted([0, *found[:n], steps]))) for n in (0, 1, 3, 7) if n < steps]
    assert all(finer <= -(-coarser // 2) for coarser, finer in pairwise(gaps))


@given(st.integers(1, 5000), st.integers(1, 300))
def test_cuts_end_at_everything_and_are_even(units: int, steps: int) -> None:
    if steps > units:
        with pytest.raises(InvalidParameter, match=f"{steps} steps were asked for, but there are only {units} units"):
            cuts(units, steps)
        return
    at = cuts(units, steps)
    assert (at[0], at[-1], len(at)) == (0, units, steps + 1)
    assert np.diff(at).min() >= 1
    assert np.abs(at - np.arange(steps + 1) * units / steps).max() <= 0.5


@pytest.mark.parametrize(("size", "patch"), [((16, 16), 1), ((16, 16), 4), ((10, 7), 3), ((5, 5), 8), ((9, 16), 2)])
def test_units_rank_by_their_mean_and_fractions_count_pixels(size: tuple[int, int], patch: int) -> None:
    values = np.random.default_rng(0).random(size)
    rank = rank_pixels(values, patch)
    squares = [
        (slice(top, top + patch), slice(left, left + patch))
        for top in range(0, size[0], patch) for left in range(0, size[1], patch)
    ]
    for square in squares:
        assert np.unique(rank[square]).size == 1, "a unit is changed as a whole"
    means = np.array([values[square].mean() for square in squares])
    np.testing.assert_allclose(unit_means(values, patch).ravel(), means, atol=1e-12)
    visited = [squares[unit] for unit in np.argsort(-means)]
    assert [rank[square].flat[0] for square in visited] == list(range(len(squares)))
    at = cuts(len(squares), min(5, len(squares)))
    expected = [sum(rank[square].size for square in visited[:cut]) / rank.size for cut in at]
    np.testing.assert_allclose(fractions(rank, at), expected, atol=1e-15)
    assert fractions(rank, at)[-1] == 1.0


def test_changed_pixels_at_a_cut_are_the_first_of_the_order() -> None:
    values = unequal((6, 6))
    rank = torch.from_numpy(rank_pixels(values))[None]
    changed = changed_pixels(rank, torch.tensor([0]), torch.tensor([9]))[0].numpy()
    assert set(values[changed]) == set(np.sort(values.ravel())[-9:])


def test_flat_maps_are_visited_in_an_order_of_the_seed_alone() -> None:
    flat = np.zeros((12, 12))
    base = rank_pixels(flat, seed=4)
    np.testing.assert_array_equal(base, rank_pixels(np.full((12, 12), 7.5, np.float32), seed=4))
    np.testing.assert_array_equal(base, rank_pixels(np.asfortranarray(flat), seed=4))
    np.testing.assert_array_equal(base, rank_pixels(np.zeros((24, 24))[::2, ::-2], seed=4))
    assert (base != rank_pixels(flat, seed=5)).mean() > 0.9
    assert sorted(base.ravel()) == list(range(144))
    correlation = np.corrcoef(base.ravel(), np.arange(144))[0, 1]
    assert abs(correlation) < 0.3, "flat areas must not be wiped from the top left"


def test_ties_do_not_disturb_the_other_pixels() -> None:
    values = np.maximum(unequal((12, 12)) - 0.6, 0)  # like a rectified map: mostly zero
    rank, positive = rank_pixels(values, seed=1), values > 0
    assert rank[positive].max() == positive.sum() - 1
    np.testing.assert_array_equal(np.argsort(rank[positive]), np.argsort(-values[positive]))
    np.testing.assert_array_equal(rank_pixels(np.where(positive, values, -0.0), seed=1), rank)


GRID = arrays(np.int16, (5, 6), elements=st.integers(-20, 20))


@settings(max_examples=60)
@given(GRID, st.integers(0, 5))
def test_least_is_the_reverse_of_most_also_with_ties(values: np.ndarray, seed: int) -> None:
    most, least = (rank_pixels(values, direction=direction, seed=seed) for direction in ("most", "least"))
    np.testing.assert_array_equal(most + least, 29)


@settings(max_examples=60)
@given(GRID, st.sampled_from([lambda v: 3 * v + 7, lambda v: v**3, np.exp, np.arctan, lambda v: v / 1024]))
def test_strictly_rising_maps_do_not_change_the_order(values: np.ndarray, rising: Callable) -> None:
    plain = values.astype(np.float64)
    np.testing.assert_array_equal(rank_pixels(plain), rank_pixels(rising(plain)))


def test_values_that_are_not_numbers_are_refused() -> None:
    values = unequal((4, 4))
    values[0, :2] = np.nan, np.inf
    with pytest.raises(InvalidParameter, match="2 of 16 map values are not finite"):
        rank_pixels(values)


def prepared(pair: tuple, image: torch.Tensor, **changes: object) -> Prepared:
    """An audit of one tiny model without store or workbench."""
    card = pair[0]
    explainer, fill = (Choice.parse(str(changes.pop(*pair))) for pair in (("explainer", "random"), ("fill", "blur")))
    triple = Triple(card.name, EXPLAINERS.complete(explainer), FILLS.complete(fill))
    spec = AuditSpec(triple, "synthetic:sample:0", **changes)
    clean = np.zeros_like(image[0].numpy())
    subject = Subject(SourceImage(np.zeros((4, 4), np.uint8), True, "x"), None, image[0].numpy(), None, clean)
    context = FillContext(card.mean, card.std)
    return Prepared(spec, card, subject, EXPLAINERS.build(triple.explainer), FILLS.build(triple.fill), context)


@pytest.mark.parametrize("quantity", ["probability", "logit"])
def test_audit_scores_map_and_controls_as_one_by_one(quantity: str) -> None:
    pair, image, values = tiny.cnn(), tiny.images(1), unequal((16, 16))
    found = tiny.classifier(pair)
    audit = prepared(pair, image, fill="zero-normalised", quantity=quantity, steps=16, controls=3, seed=9)
    reports = []
    scored = score_curves(audit, found, image, values, 2, lambda *told: reports.append(told))
    assert found.forwards == 2 + 2 * 15 * 4
    ranks = orders(audit.spec, values)
    share, deletion, insertion = curves_of(found, image, ranks, np.zeros(4, int), 16)
    pick = (lambda rows: rows[..., 2]) if quantity == "logit" else (lambda rows: softmax(rows)[..., 2])
    for curve, rows, control in (
        (scored.deletion, deletion, scored.controls.deletion), (scored.insertion, insertion, scored.controls.insertion)
    ):
        np.testing.assert_allclose(curve.score, pick(rows)[0], atol=1e-5)
        np.testing.assert_allclose(control, pick(rows)[1:], atol=1e-5)
        np.testing.assert_array_equal(curve.fraction, share)
    areas = [np.trapezoid(row, share) for row in pick(deletion)[1:]]
    np.testing.assert_allclose(scored.controls.deletion_auc, areas, atol=1e-5)
    assert reports[-1][0] == 1.0
    assert np.isfinite(reports[-1][2].deletion).all()
    first = reports[0][2]
    assert np.isfinite(first.deletion[[0, 8, 16]]).all(), "ends and middle stand on the first report"
    along = scored.along.deletion[:, scored.along.classes.index(2)]
    np.testing.assert_allclose(along, scored.deletion.score, atol=1e-6)


def test_random_orders_differ_and_follow_the_seed() -> None:
    audit = prepared(tiny.cnn(), tiny.images(1), controls=3, seed=9)
    ranks = orders(audit.spec, np.zeros((16, 16)))
    assert len({rank.tobytes() for rank in ranks}) == 4
    np.testing.assert_array_equal(ranks, orders(audit.spec, np.zeros((16, 16))))
    other = prepared(tiny.cnn(), tiny.images(1), controls=3, seed=10)
    assert not (orders(other.spec, np.zeros((16, 16))) == ranks).all((1, 2)).any()


def test_maps_are_shared_between_fills_and_curve_settings_but_not_between_images_and_seeds() -> None:
    pair, image = tiny.cnn(), tiny.images(1)
    base = prepared(pair, image)
    fills = [{"fill": "zero"}, {"fill": "reference"}]
    for change in (*fills, {"steps": 10}, {"patch": 2}, {"quantity": "logit"}, {"controls": 1}):
        other = prepared(pair, image, **change)
        assert other.map_key == base.map_key, change
        assert other.key != base.key, change
    for change in ({"seed": 1}, {"precision": "bf16"}, {"target": "ring"}, {"explainer": "edges"}):
        assert prepared(pair, image, **change).map_key != base.map_key, change
    assert prepared(pair, tiny.images(1, seed=6)).map_key != base.map_key
    assert prepared((replace(pair[0], weights_sha256="0"), pair[1]), image).map_key != base.map_key
    rise = [prepared(pair, image, explainer="rise", target=target).map_key for target in ("ring", "none", "predicted")]
    assert len(set(rise)) == 1, "one pass of RISE serves every target"


def test_the_background_counts_only_where_the_fill_looks_at_it() -> None:
    pair, image = tiny.cnn(), tiny.images(1)
    for fill, counts in (("blur", False), ("reference", True)):
        one = prepared(pair, image, fill=fill)
        other = replace(one, subject=replace(one.subject, nominal=one.subject.nominal + 0.5))
        assert (one.key != other.key) is counts


def test_rounding_does_not_order_what_is_flat() -> None:
    """An enlarged 2x2 map is flat at its corners: there the tie rule decides, whatever the last bits say."""
    coarse = torch.tensor([[0.31, 0.77], [0.53, 0.12]])[None, None]
    values = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy()
    noise = 1 + np.random.default_rng(0).uniform(-2e-7, 2e-7, values.shape).astype(np.float32)
    assert not np.array_equal(values, values * noise)
    assert np.array_equal(rank_pixels(values), rank_pixels(values * noise))
    corner = rank_pixels(values)[:16, 48:]
    assert abs(np.corrcoef(corner.ravel(), np.arange(256))[0, 1]) < 0.2


def test_values_that_single_precision_tells_apart_keep_their_order() -> None:
    rising = np.linspace(1.0, 1.01, 4096).reshape(64, 64)
    assert np.array_equal(rank_pixels(rising).ravel(), np.arange(4096)[::-1])
