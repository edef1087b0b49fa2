"""Metrics: what every one promises, and each number beside a witness of its own."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from itertools import combinations, pairwise

import numpy as np
import pytest
import tiny
import torch
from evidence import Given, Pixelwise, evidence, given, remade, scores_of, twin_classifier, weights
from scipy import stats

from audit_core.curves import rank_pixels
from audit_core.keys import Choice
from audit_core.metrics import METRICS, Evidence, Measure, Metric
from audit_core.metrics.base import BETTER, FAMILIES
from audit_core.metrics.controls import COMPARED, differences, said_of, score_map
from audit_core.metrics.infidelity import squares
from audit_core.metrics.localisation import random_iou
from audit_core.metrics.stability import moved, turned

REGION = np.zeros((16, 16), bool)
REGION[3:8, 4:9] = True
DOCUMENTED = ("title", "family", "formula", "source", "library", "witness", "pitfalls", "span", "better")


def built(name: str, **params: object) -> Metric:
    return METRICS.build(Choice(name, tuple(params.items())))


def measured(name: str, found: Evidence, **params: object) -> Measure:
    metric = built(name, **params)
    assert metric.refuse(found) is None
    return metric.measure(found)


@pytest.fixture(scope="module")
def cases() -> dict[str, Evidence]:
    """Audits that differ in model, explainer, fill and question."""
    return {
        "cnn": evidence(region=REGION),
        "vit": evidence(tiny.vit(), "rollout", "blur:sigma=2", region=REGION, quantity="logit", direction="least"),
        "contrast": evidence(tiny.cnn(channels=3), quantity="logit", against="ring", target="scratch", patch=2),
        "expensive": evidence(explainer="rise:n_masks=250,settle=1", controls=0),
        "flat": given(np.ones((8, 8)), region=np.eye(8) > 0),
    }


CASES = ("cnn", "vit", "contrast", "expensive", "flat")


# What every metric promises


@pytest.mark.parametrize("name", METRICS)
def test_metric_is_described(name: str) -> None:
    entry = METRICS[name]
    for field in DOCUMENTED:
        assert getattr(entry, field).strip(), field
    assert entry.better in BETTER
    assert entry.family in FAMILIES
    assert "http" in entry.source or "see srg" in entry.source
    assert len(METRICS.help(name)) > 80
    assert len({METRICS[other].title for other in METRICS}) == len(METRICS)


def test_every_family_has_a_metric() -> None:
    assert {METRICS[name].family for name in METRICS} == set(FAMILIES)


@pytest.mark.parametrize("name", [(n, p) for n in METRICS for p in METRICS.parameters(n)], ids=str)
def test_parameter_is_documented_and_allows_its_default(name: tuple[str, str]) -> None:
    found = METRICS.parameters(name[0])[name[1]]
    assert len(found.limit.help) > 5
    assert found.parse(str(found.default), name[0]) == found.default


OTHER = {  # a value besides the default that a small image can tell
    "share": 0.3, "noise": 0.05, "space": "normalised", "perturbation": "gaussian", "side": 3, "sigma": 0.3,
    "samples": 5, "scale": False, "mode": "independent", "draw": "normal", "similarity": "ssim", "stages": 2,
    "draws": 2, "budget": 40, "degrees": 60.0, "pixels": 2, "radius": 0.2, "tolerance": 9,
}  # fmt: skip


@pytest.mark.parametrize(("name", "parameter"), [(n, p) for n in METRICS for p in METRICS.parameters(n)], ids=str)
def test_every_parameter_does_something(name: str, parameter: str) -> None:
    """On some image a value besides the default gives another measure."""
    first = {"perturbation": "gaussian"} if parameter == "sigma" and name == "infidelity" else {}
    for seed in range(8):
        found = evidence(explainer="rise:n_masks=9,settle=1", pixels=tiny.images(1, seed=seed)[0], region=REGION)
        if built(name).refuse(found) is None:
            other = built(name, **first, **{parameter: OTHER[parameter]})
            if other.measure(found).to_json() != built(name, **first).measure(found).to_json():
                return
    pytest.fail(f"{parameter} changed no measure of {name}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METRICS)
def test_a_number_or_a_reason_within_the_stated_cost_and_without_a_trace(name: str, case: str, cases: dict) -> None:
    """Also deterministic; the guard over global generators watches every test."""
    found, metric = cases[case], built(name)
    if case == "expensive" and "budget" in METRICS.parameters(name):
        metric = built(name, budget=900)
    reason = metric.refuse(found)
    if reason is not None:
        assert len(reason.split()) > 5
        assert not reason.endswith(".")
        return
    before, spent = twin_classifier(found.classifier), found.classifier.forwards
    first = metric.measure(found)
    assert found.classifier.forwards - spent <= metric.cost(found).forwards
    after = twin_classifier(found.classifier)
    assert all(torch.equal(value, after["weights"][key]) for key, value in before.pop("weights").items())
    assert all(after[what] == before[what] for what in before)
    assert math.isfinite(first.value)
    assert first.sentence.endswith(".")
    assert (first.low is None) == (first.high is None)
    assert first.low is None or (first.low <= first.value <= first.high and first.n > 1 and first.method)
    again = json.loads(json.dumps(first.to_json(), allow_nan=False))
    assert Measure(**again).to_json() == again
    assert json.loads(json.dumps(metric.measure(found).to_json())) == again


@pytest.mark.parametrize("name", METRICS)
def test_the_model_is_as_found_after_an_exception(name: str) -> None:
    """In the second forward, and also when whoever is told of the progress stops the work."""
    found, metric = evidence(region=REGION), built(name)
    if metric.refuse(found) is not None or metric.cost(found).forwards == 0:
        assert metric.cost(found).forwards == 0 or metric.refuse(found)
        return
    before, calls = twin_classifier(found.classifier), []

    def failing(module: torch.nn.Module, inputs: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("planned")

    def stopping(fraction: float, words: str) -> None:
        raise KeyboardInterrupt(words)

    hook = found.classifier.module.conv1.register_forward_pre_hook(failing)
    try:
        metric.measure(found)
    except KeyError:
        assert len(calls) == 2
    hook.remove()
    assert calls
    with contextlib.suppress(KeyboardInterrupt):
        metric.measure(found, stopping)
    after = twin_classifier(found.classifier)
    assert all(torch.equal(value, after["weights"][key]) for key, value in before.pop("weights").items())
    assert all(after[what] == before[what] for what in before)


def test_a_measure_is_finite_or_refused() -> None:
    with pytest.raises(ValueError, match="finite or refused"):
        Measure(float("nan"), "no")
    with pytest.raises(ValueError, match="finite or refused"):
        Measure(None, "no")
    assert Measure.refusal("because").refused


def test_an_interval_is_students() -> None:
    sample = np.array([0.1, 0.4, 0.35, 0.2])
    found = Measure.over(sample, "words", "units", more=1)
    low, high = stats.t.interval(0.95, 3, loc=sample.mean(), scale=stats.sem(sample))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.n == 4
    single = Measure.over(sample[:1], "words", "units")
    assert (single.low, single.high, single.method) == (None, None, "")


# Faithfulness: an additive model has closed forms


def additive(values: np.ndarray | None = None, **settings: object) -> Evidence:
    values = np.random.default_rng(0).random((8, 8)) if values is None else values
    return given(values, quantity="logit", **{"steps": 64, **settings})


def literal_areas(found: Evidence) -> tuple[float, float]:
    """Areas of removing pixel by pixel, the most and the least important first, one image at a time."""
    order, areas = np.argsort(-found.values.ravel(), kind="stable"), []
    for path in (order, order[::-1]):
        image = found.record.pixels.copy().reshape(found.record.pixels.shape[0], -1)
        images = [image.copy()]
        for pixel in path:
            image[:, pixel] = 0
            images.append(image.copy())
        scores = scores_of(found, np.stack(images).reshape(-1, *found.record.pixels.shape))
        areas.append(sum((a + b) / 2 / len(order) for a, b in pairwise(scores)))
    return areas[0], areas[1]


@pytest.mark.parametrize("direction", ["most", "least"])
@pytest.mark.parametrize("quantity", ["logit", "probability"])
def test_deletion_insertion_and_srg_are_those_of_a_literal_removal(direction: str, quantity: str) -> None:
    found = given(np.random.default_rng(0).random((8, 8)), quantity=quantity, direction=direction, steps=64)
    most, least = literal_areas(found)
    assert measured("deletion", found).value == pytest.approx(most, abs=1e-5)
    assert measured("insertion", found).value == pytest.approx(least, abs=1e-5)
    assert measured("srg", found).value == pytest.approx(least - most, abs=2e-5)


def test_deletion_tells_the_share_of_the_untouched_score() -> None:
    found = given(np.random.default_rng(0).random((8, 8)))
    measure = measured("deletion", found)
    assert measure.extra["normalised"] == pytest.approx(measure.value / found.record.untouched)
    assert measured("deletion", remade(found, deletion=found.record.insertion)).extra["normalised"] is not None


def test_srg_of_an_additive_model_has_a_closed_form() -> None:
    """Each pixel's loss d_i counts from its rank on: the areas differ by sum d_i (N - 1 - 2 rank_i) / N."""
    found = additive()
    there, black = weights(found)
    rank = rank_pixels(found.values)
    expected = float(((there - black) * (63 - 2 * rank)).sum() / 64)
    assert measured("srg", found).value == pytest.approx(expected, abs=1e-4)


def test_srg_of_the_exact_map_is_the_largest() -> None:
    found = additive()
    there, black = weights(found)
    best = additive(there - black)
    assert measured("srg", best).value > measured("srg", found).value
    assert measured("srg", best).value == pytest.approx(-measured("srg", additive(black - there)).value, abs=1e-4)


def test_r_oms_of_an_additive_model_lies_midway_without_spread() -> None:
    """An order and its reverse share out the same losses, so every order gives the mean of the two ends."""
    found = additive(controls=5)
    there, black = weights(found)
    bias = float(found.classifier.module[1].bias.detach()[found.record.target])
    measure = measured("r-oms", found)
    assert measure.value == pytest.approx((there.sum() + black.sum()) / 2 + bias, abs=1e-4)
    assert measure.high - measure.low < 1e-4
    assert measure.n == 5


def test_r_oms_needs_random_orders() -> None:
    assert "raise controls" in built("r-oms").refuse(additive(controls=1))


def test_road_is_that_of_pytorch_grad_cam() -> None:
    """With the noise of both switched off; all values differ, so percentiles and ranks cut alike."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )

    found = evidence(tiny.cnn(size=8), Given(np.random.default_rng(1).random((8, 8))))
    classifier, target = found.classifier, found.record.target
    imputer, inputs = road.NoisyLinearImputer(noise=0.0), classifier.normalise(found.pixels).contiguous()
    targets, maps = [lambda row: row.softmax(0)[target]], np.array(found.values)[None]

    def averaged(remover: type) -> float:
        with torch.random.fork_rng(devices=[]):
            scores = [
                PerturbationConfidenceMetric(remover(p, imputer))(inputs, maps, targets, classifier.module)
                for p in range(10, 100, 10)
            ]
        return float(np.mean(scores))

    expected = (averaged(RemoveLeastRelevantFirst) - averaged(RemoveMostRelevantFirst)) / 2
    assert measured("road", found, noise=0.0).value == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-4
    assert measured("road", found).value != measured("road", found, noise=0.0).value


def test_road_cuts_a_flat_part_where_the_share_says() -> None:
    values = np.zeros((8, 8))
    values[2, 3:6] = 1, 2, 3
    found = given(values)
    assert len(set(measured("road", found).extra["most_first"])) > 5, "each share removes other pixels"


def test_sufficiency_of_an_additive_model() -> None:
    found = additive()
    there, black = weights(found)
    kept = rank_pixels(found.values) < round(0.3 * 64)
    bias = float(found.classifier.module[1].bias.detach()[found.record.target])
    measure = measured("sufficiency", found, share=0.3)
    assert measure.value == pytest.approx(np.where(kept, there, black).sum() + bias, abs=1e-5)
    assert measure.extra["kept_pixels"] == 19


def test_sufficiency_is_a_point_of_the_insertion_curve() -> None:
    found = evidence(steps=4)
    measure = measured("sufficiency", found, share=0.25)
    assert measure.value == pytest.approx(found.record.insertion.score[1], abs=1e-6)
    assert measure.extra["random"] == pytest.approx(found.record.controls.insertion[:, 1])


@pytest.mark.parametrize("name", ["confidence-drop", "confidence-increase"])
def test_confidence_changes_are_those_of_pytorch_grad_cam(name: str) -> None:
    library = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    rule = {"confidence-drop": library.DropInConfidence, "confidence-increase": library.IncreaseInConfidence}[name]()
    seen = set()
    for seed in range(6):
        found = evidence(pixels=tiny.images(1, seed=seed)[0])
        values = (found.values - found.values.min()) / np.ptp(found.values)
        target = found.record.target
        inputs = found.classifier.normalise(found.pixels).contiguous()
        score = lambda row, k=target: row.softmax(0)[k]
        expected = float(rule(inputs, values[None], [score], found.classifier.module)[0])
        scale = found.record.untouched if name == "confidence-drop" else 1
        assert measured(name, found, space="normalised").value == pytest.approx(expected / scale, abs=1e-5)
        seen.add(round(expected, 4))
    assert len(seen) > 1


def test_confidence_drop_in_pixels_is_a_product() -> None:
    found = evidence()
    values = (found.values - found.values.min()) / np.ptp(found.values)
    after = scores_of(found, found.record.pixels[None] * values)[0]
    expected = max(0.0, found.record.untouched - after) / found.record.untouched
    measure = measured("confidence-drop", found)
    assert measure.value == pytest.approx(expected, abs=1e-5)
    assert measured("confidence-increase", found).value == float(after > found.record.untouched)


def test_a_drop_of_a_negative_score_is_refused() -> None:
    every = (given(np.eye(8), quantity="logit", target=str(k)) for k in range(3))
    found = next(one for one in every if one.record.untouched < 0)
    assert "positive" in built("confidence-drop").refuse(found)


# Infidelity


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_infidelity_is_captums_on_the_same_perturbations(perturbation: str, scale: bool) -> None:
    metrics = pytest.importorskip("captum.metrics")
    found, samples = evidence(tiny.cnn(channels=3), fill="image-mean"), 20
    metric = built("infidelity", perturbation=perturbation, side=5, samples=samples, scale=scale)
    pixels, shape = found.pixels, found.record.pixels.shape
    if perturbation == "square":
        inside = torch.from_numpy(squares(shape[1:], 5, samples, 0))[:, None]
        filled = torch.where(inside, found.fill.substrate(pixels, found.context), pixels)
        # A pixel's evidence stands once in the map, and captum sums over channels.
        moved_by = inside.float().expand(-1, 3, -1, -1) / 3
    else:
        moved_by = torch.from_numpy(np.stack([metric.noise(shape, 0, n) for n in range(samples)]))
        filled = pixels - moved_by
    attributions = torch.from_numpy(np.array(found.values))[None, None].expand(1, 3, -1, -1)

    def forward(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(scores_of(found, images.numpy())).float()

    expected = metrics.infidelity(forward, lambda _: (moved_by, filled), pixels, attributions,
                                  n_perturb_samples=samples, normalize=scale)
    assert metric.measure(found).value == pytest.approx(float(expected), rel=2e-3, abs=1e-9)


def test_the_exact_map_of_an_additive_model_has_no_infidelity() -> None:
    there, black = weights(additive())
    exact = additive(there - black)
    for factor in (1, -3):
        found = measured("infidelity", additive(factor * (there - black)), side=3, samples=40)
        assert found.value < 1e-8
        assert found.extra["unexplained"] < 1e-6
        assert found.extra["factor"] == pytest.approx(1 / factor, rel=1e-3)
    assert measured("infidelity", exact, side=3, samples=40, scale=False).value < 1e-8
    assert measured("infidelity", additive(2 * (there - black)), side=3, samples=40, scale=False).value > 1e-4


def test_squares_lie_inside_and_everywhere() -> None:
    drawn = squares((6, 9), 4, 300, 0)
    assert (drawn.sum((1, 2)) == 16).all()
    assert drawn.any(0).all()
    assert squares((6, 9), 50, 3, 0).all()


# Controls


def test_beats_random_is_a_difference_of_areas() -> None:
    found = evidence(controls=6)
    own, controls = found.record.insertion_auc - found.record.deletion_auc, found.record.controls
    gains = np.array([own - (i - d) for i, d in zip(controls.insertion_auc, controls.deletion_auc, strict=True)])
    measure = measured("beats-random", found)
    low, high = stats.t.interval(0.95, 5, loc=gains.mean(), scale=stats.sem(gains))
    assert (measure.value, measure.low, measure.high) == pytest.approx((gains.mean(), low, high))
    assert ("does not beat" in measure.sentence) == (low <= 0)


@pytest.mark.parametrize("name", COMPARED)
def test_other_metrics_are_compared_with_controls_one_by_one(name: str) -> None:
    """Against the metric of an audit of the control itself; random order has an interval over its maps."""
    found = evidence()
    sign = 1 if METRICS[name].better == "higher" else -1
    own = measured(name, found).value
    beside = differences(built(name), found, own)
    for opponent, control in (("edges", "edges"), ("centre", "centre-prior"), ("intensity", "input-intensity")):
        other = measured(name, evidence(explainer=control)).value
        assert beside[opponent]["value"] == pytest.approx(sign * (own - other), abs=1e-5)
    assert beside["random"]["n"] == 3
    assert beside["random"]["low"] <= beside["random"]["value"] <= beside["random"]["high"]
    assert "edges" not in differences(built(name), evidence(explainer="edges"), own)


def test_a_sentence_names_the_controls_that_are_not_beaten() -> None:
    row = {"value": 0.2, "low": None, "high": None, "n": 1}
    assert said_of({"edges": row, "random": {**row, "low": 0.1}}) == " It beats edges, random."
    assert said_of({"edges": row, "random": {**row, "low": -0.1}}) == " It does not beat random."


def test_a_map_is_scored_as_the_audit_scores_it() -> None:
    for patch, fill in ((1, "zero"), (3, "road")):
        found = evidence(patch=patch, fill=fill)
        expected = found.record.deletion_auc, found.record.insertion_auc
        assert score_map(found, found.values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "control"),
    [("beats-intensity", "input-intensity"), ("beats-centre", "centre-prior"), ("beats-edges", "edges")],
)
def test_beating_a_control_is_the_difference_to_an_audit_of_it(name: str, control: str) -> None:
    found, other = evidence(), evidence(explainer=control)
    expected = measured("srg", found).value - measured("srg", other).value
    measure = measured(name, found)
    assert measure.value == pytest.approx(expected, abs=1e-6)
    parts = {
        "deletion": other.record.deletion_auc - found.record.deletion_auc,
        "insertion": found.record.insertion_auc - other.record.insertion_auc,
    }
    assert {name: measure.extra[name] for name in parts} == pytest.approx(parts, abs=1e-6)
    assert ("does not beat" in measure.sentence) == (expected <= 0)
    assert "itself" in built(name).refuse(other)


def test_the_exact_map_beats_every_control_and_its_opposite_none() -> None:
    there, black = weights(additive())
    for sign, word in ((1, " beats "), (-1, "does not beat")):
        found = additive(sign * (there - black))
        for name in ("beats-random", "beats-intensity", "beats-centre", "beats-edges"):
            assert word in measured(name, found).sentence


def test_a_control_without_an_order_is_refused() -> None:
    found = evidence(pixels=torch.full((1, 16, 16), 0.5), explainer="centre-prior")
    assert "constant" in built("beats-intensity").refuse(found)


# Stability


def test_a_pixelwise_map_moves_exactly_with_the_image() -> None:
    found = evidence(explainer=Pixelwise())
    shifted = measured("shift-stability", found)
    assert shifted.value == pytest.approx(1.0)
    assert (shifted.low, shifted.high) == pytest.approx((1.0, 1.0))
    codes = evidence(pixels=(tiny.images(1)[0] * 3).floor() / 2, explainer=Pixelwise())
    assert measured("rotation-stability", codes, degrees=15).value > 0.6
    blind = evidence(explainer="centre-prior")
    assert measured("noise-stability", blind).value == pytest.approx(1.0)
    assert measured("shift-stability", blind).value < 0.99


def test_quarter_turns_are_numpys() -> None:
    pixels = tiny.images(1, 9, 3)[0].numpy()
    for quarters in (1, 2, 3):
        change = turned(pixels, 90.0 * quarters)
        np.testing.assert_allclose(change.pixels, np.rot90(pixels, quarters, (1, 2)), atol=1e-6)
        values = pixels[0]
        np.testing.assert_allclose(change.back(np.rot90(values, quarters)), values, atol=1e-6)
        assert change.inside.all()


def test_a_small_turn_keeps_the_middle_and_the_codes() -> None:
    pixels = (tiny.images(1, 15)[0].numpy() * 3).astype(int).astype(np.float32) / 2
    change = turned(pixels, 20.0)
    assert set(np.unique(change.pixels)) <= set(np.unique(pixels))
    assert change.inside[7, 7]
    assert not change.inside[0, 0]
    smooth = np.add.outer(np.arange(15.0), 2 * np.arange(15.0))
    there = turned(smooth[None].astype(np.float32) / 42, 20.0)
    inner = np.s_[4:11, 4:11]
    np.testing.assert_allclose(there.back(there.pixels[0])[inner], (smooth / 42)[inner], atol=1e-5)


def test_a_move_is_a_slice() -> None:
    pixels = tiny.images(1, 8, 2)[0].numpy()
    change = moved(pixels, 2, -3)
    np.testing.assert_array_equal(change.pixels[:, 2:, :5], pixels[:, :6, 3:])
    np.testing.assert_array_equal(change.pixels[:, 0, :5], pixels[:, 0, 3:])
    assert change.inside.sum() == 6 * 5
    assert change.inside[:6, 3:].all()
    np.testing.assert_array_equal(change.back(change.pixels[1])[change.inside], pixels[1][change.inside])


def test_noise_stability_is_scipys_correlation_of_maps_made_one_by_one() -> None:
    found = evidence()
    metric = built("noise-stability", draws=3, sigma=0.1)
    expected = []
    for n in range(3):
        image = metric.change(np.array(found.record.pixels), np.random.default_rng((0, 51, n))).pixels
        values = found.explainer.attribute(
            found.classifier, torch.from_numpy(image)[None], torch.tensor([found.record.target]), 0
        ).values[0]
        expected.append(stats.spearmanr(values.ravel(), found.values.ravel()).statistic)
        assert abs(image - found.record.pixels).max() < 0.6
    measure = metric.measure(found)
    assert measure.extra["draws"] == pytest.approx(expected, abs=1e-5)
    assert measure.value == pytest.approx(np.mean(expected), abs=1e-5)


def test_max_sensitivity_is_captums_on_the_same_noise() -> None:
    metrics = pytest.importorskip("captum.metrics")
    found, metric = evidence(tiny.cnn(channels=3)), built("max-sensitivity", radius=0.1, samples=4)
    noisy = torch.from_numpy(np.stack([metric.change(np.array(found.record.pixels), 0, n) for n in range(4)]))

    def explain(images: torch.Tensor | tuple[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor]:
        pixels = images[0] if isinstance(images, tuple) else images
        target = torch.full((len(pixels),), found.record.target)
        maps = torch.from_numpy(np.array(found.explainer.attribute(found.classifier, pixels, target, 0).values))
        return (maps,) if isinstance(images, tuple) else maps

    with torch.random.fork_rng(devices=[]):
        expected = metrics.sensitivity_max(explain, found.pixels, lambda x: noisy, n_perturb_samples=4)
    measure = metric.measure(found)
    assert measure.value == pytest.approx(float(expected), rel=1e-4)
    assert float((noisy - found.pixels).abs().max()) <= 0.1 + 1e-6
    assert measured("max-sensitivity", evidence(explainer="centre-prior")).value == 0


def test_repetitions_are_cut_to_the_budget_or_refused() -> None:
    found = evidence(explainer="rise:n_masks=50,settle=1")  # 51 forwards a map, one more to see the prediction
    short = measured("shift-stability", found, budget=52 * 3)
    assert short.n == 3
    assert "3 times" in short.sentence
    assert "budget" in built("shift-stability", budget=60).refuse(found)
    assert len(measured("max-sensitivity", found, budget=60).extra["changes"]) == 1


# Complexity


@pytest.mark.parametrize(("name", "library"), [("gini", "Sparseness"), ("entropy", "Complexity")])
def test_concentration_is_that_of_quantus(name: str, library: str) -> None:
    quantus = pytest.importorskip("quantus")
    values = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rule = getattr(quantus, library)(disable_warnings=True, display_progressbar=False, normalise=False)
        expected = rule.evaluate_batch(x_batch=values[None], a_batch=np.abs(values[None]))
    assert measured(name, given(values)).value == pytest.approx(float(expected[0]), abs=1e-4)


def test_concentration_of_the_two_extremes() -> None:
    one = np.zeros((8, 8))
    one[3, 4] = -2.0
    even = np.where(np.indices((8, 8)).sum(0) % 2, 1.0, -1.0)
    assert measured("gini", given(one)).value == pytest.approx(1 - 1 / 64)
    assert measured("gini", given(even)).value == pytest.approx(0.0, abs=1e-12)
    assert measured("entropy", given(one)).value == 0
    assert measured("entropy", given(even)).value == pytest.approx(math.log(64))
    assert measured("entropy", given(even)).extra["effective_pixels"] == pytest.approx(64)
    assert "zero" in built("gini").refuse(given(np.zeros((8, 8))))


# Localisation


def square(size: int = 8) -> np.ndarray:
    region = np.zeros((size, size), bool)
    region[2:5, 3:6] = True
    return region


def test_localisation_counted_by_hand() -> None:
    values = np.zeros((8, 8))
    values[2, 3], values[2, 4], values[0, 0], values[7, 7] = 3, 1, 2, -5
    found = given(values, region=square())
    assert measured("pointing-game", found).value == 1
    assert measured("energy-inside", found).value == pytest.approx(4 / 6)
    assert measured("energy-inside", found).extra["base"] == pytest.approx(9 / 64)
    tied = values.copy()
    tied[0, 0] = tied[1, 1] = 3
    assert measured("pointing-game", given(tied, region=square())).value == pytest.approx(1 / 3)
    far = -values
    far[1, 3] = 9
    assert measured("pointing-game", given(far, region=square())).value == 0
    assert measured("pointing-game", given(far, region=square()), tolerance=1).value == 1
    assert measured("pointing-game", given(far, region=square()), tolerance=1).extra["base"] == pytest.approx(21 / 64)


def test_localisation_is_that_of_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    region, hits = square(), []
    for seed in range(6):
        values = np.random.default_rng(seed).random((8, 8)).astype(np.float32) + region * np.float32(0.1)
        found = given(values, region=region)
        a, s = values[None].astype(np.float32), region[None]
        quiet = {"disable_warnings": True, "display_progressbar": False, "normalise": False, "abs": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rules = quantus.RelevanceMassAccuracy, quantus.RelevanceRankAccuracy, quantus.PointingGame
            share, rank, hit = (float(rule(**quiet).evaluate_batch(a_batch=a, s_batch=s)[0]) for rule in rules)
        assert measured("energy-inside", found).value == pytest.approx(share, abs=1e-5)
        overlap = measured("top-k-iou", found)
        assert overlap.extra["rank_accuracy"] == pytest.approx(rank)
        assert overlap.value == pytest.approx(rank / (2 - rank))
        assert measured("pointing-game", found).value == hit
        hits.append(hit)
    assert len(set(hits)) == 2


def test_the_base_rate_of_the_overlap_is_the_mean_over_all_choices() -> None:
    region = {0, 1, 2}
    overlaps = [len(region & set(top)) / len(region | set(top)) for top in combinations(range(8), 3)]
    assert random_iou(8, 3) == pytest.approx(np.mean(overlaps))
    assert random_iou(7, 7) == 1


@pytest.mark.parametrize("name", ["pointing-game", "energy-inside", "top-k-iou"])
def test_localisation_without_a_region_of_the_target_is_refused(name: str) -> None:
    values, metric = np.random.default_rng(0).random((8, 8)), built(name)
    assert "not known" in metric.refuse(given(values))
    assert "no pixel" in metric.refuse(given(values, region=np.zeros((8, 8), bool)))
    assert "every pixel" in metric.refuse(given(values, region=np.ones((8, 8), bool)))
    found = given(values, region=square(), label=1, target="label")
    assert metric.refuse(found) is None
    assert "ring" in metric.refuse(given(values, region=square(), label=1, target="none"))


def test_energy_needs_positive_evidence() -> None:
    assert "positive" in built("energy-inside").refuse(given(-np.random.default_rng(0).random((8, 8)), region=square()))


