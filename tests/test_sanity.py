"""Sanity metrics: maps that ignore the weights or the class are told from those that do not."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from evidence import evidence, remade, twin_classifier
from scipy import stats
from skimage.metrics import structural_similarity
from torch import nn

from audit_core.keys import Choice
from audit_core.metrics import METRICS, Evidence, Measure
from audit_core.metrics.sanity import stages_of, twin
from audit_core.metrics.similarity import rank_correlation, small, structure

CAM = "grad-cam:layer=stage1,relu=false"


def measured(name: str, found: Evidence, **params: object) -> Measure:
    metric = METRICS.build(Choice(name, tuple(params.items())))
    assert metric.refuse(found) is None
    return metric.measure(found)


# Similarity


def test_rank_correlation_is_scipys_and_0_without_an_order() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((6, 7)).round(1), rng.random((6, 7))
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first.ravel(), second.ravel()).statistic)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert rank_correlation(first, np.ones((6, 7))) == 0
    assert rank_correlation(first, np.full((6, 7), np.nan)) == 0


def test_structure_forgets_scale_but_not_sign() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((9, 12)), rng.random((9, 12))
    assert structure(first, 3 * first - 1) == pytest.approx(1)
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in (first, second)]
    assert structure(first, second) == pytest.approx(structural_similarity(*scaled, data_range=1))
    assert structure(first, -first) < 0
    assert structure(first, np.zeros((9, 12))) == 0
    assert structure(first, np.full((9, 12), np.inf)) == 0
    assert structure(first[:4, :4], first[:4, :4]) == pytest.approx(1)


def test_small_maps_are_block_means() -> None:
    values = np.random.default_rng(1).random((64, 16))
    expected = values.reshape(32, 2, 16).mean(1)
    np.testing.assert_allclose(small(values), expected, rtol=1e-3)
    assert np.isfinite(small(np.full((4, 4), np.nan))).all()


# Parameter randomisation


def test_stages_hold_every_parameter_once_from_the_output_down() -> None:
    for pair in (tiny.cnn(), tiny.vit(), tiny.swin()):
        module = pair[1]
        names = [name for name, _ in module.named_parameters()]
        for count in (1, 2, 4, 6):
            stages = stages_of(module, count)
            assert len(stages) <= count
            assert sorted(name for _, keys in stages for name in keys) == sorted(names)
        assert {key.rpartition(".")[0] for key in stages_of(module, 3)[0][1]} == {names[-1].rpartition(".")[0]}
    assert stages_of(tiny.cnn()[1], 3)[0][0] == "head"


def test_a_twin_is_changed_alone_and_its_forwards_are_counted() -> None:
    found = tiny.classifier(tiny.cnn())
    before, pixels = found.logits(tiny.images(2)), tiny.images(2)
    with twin(found) as other, torch.no_grad():
        torch.testing.assert_close(other.logits(pixels), before)
        for parameter in other.module.parameters():
            parameter.zero_()
        assert not torch.equal(other.logits(pixels), before)
    assert found.forwards == 2 + 4
    torch.testing.assert_close(found.logits(pixels), before)


def literal(found: Evidence, mode: str, stages: int, draw: int) -> list[float]:
    """Spearman's correlation after each stage: every weight permuted by hand on another copy of the same model."""
    pair, correlations = tiny.cnn(), []
    names, learned = [n for n, _ in pair[1].named_parameters()], {n: p.clone() for n, p in pair[1].named_parameters()}
    for _, keys in stages_of(pair[1], stages):
        state = pair[1].state_dict()
        for name in names:
            if name in keys:
                rng = np.random.default_rng((0, 41, draw, names.index(name)))
                new = rng.permutation(learned[name].detach().numpy().ravel())
                state[name] = torch.from_numpy(new).view_as(state[name])
            elif mode == "independent":
                state[name] = learned[name].detach().clone()
        pair[1].load_state_dict(state)
        target = torch.tensor([found.record.target])
        values = found.explainer.attribute(tiny.classifier(pair), found.pixels, target, 0).values[0]
        correlations.append(stats.spearmanr(values.ravel(), found.values.ravel()).statistic)
    return correlations


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_randomisation_is_that_of_a_literal_loop(mode: str) -> None:
    found = evidence(explainer=CAM)
    measure = measured("parameter-randomisation", found, mode=mode, stages=3, draws=2)
    expected = np.array([literal(found, mode, 3, draw) for draw in range(2)])
    assert measure.extra["spearman"] == pytest.approx(expected.mean(0), abs=1e-4)
    sample = expected[:, -1] if mode == "cascading" else expected.mean(1)
    assert measure.value == pytest.approx(sample.mean(), abs=1e-4)
    assert measure.n == 2
    low, high = stats.t.interval(0.95, 1, loc=sample.mean(), scale=stats.sem(sample))
    assert (measure.low, measure.high) == pytest.approx((low, high), abs=1e-3)


def test_every_stage_of_a_cascade_keeps_what_came_before() -> None:
    """Its last stage therefore does not depend on how many there are."""
    found = evidence(explainer=CAM)
    ends = [measured("parameter-randomisation", found, stages=n, draws=2).extra["spearman"][-1] for n in (1, 2, 4)]
    assert ends == pytest.approx([ends[0]] * 3, abs=1e-6)


def test_normal_weights_have_the_tensors_own_mean_and_spread() -> None:
    metric = METRICS.build(Choice("parameter-randomisation", (("draw", "normal"),)))
    module = tiny.seeded(lambda: nn.Linear(200, 100), 0, 1.0).requires_grad_(False)
    with torch.no_grad():
        module.weight.copy_(torch.rand(100, 200, generator=torch.Generator().manual_seed(0)) + 3)
        module.bias.fill_(7)
    old = module.weight.clone()
    metric._randomise(module, ["weight", "bias"], (0, 41, 0))
    assert float(module.weight.mean()) == pytest.approx(float(old.mean()), abs=0.01)
    assert float(module.weight.std()) == pytest.approx(float(old.std()), rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([old.ravel(), module.weight.ravel()]))[0, 1])) < 0.05
    assert (module.bias == 7).all()
    permuted = METRICS.build(Choice("parameter-randomisation"))
    with torch.no_grad():
        module.weight.copy_(old)
    permuted._randomise(module, ["weight"], (0, 41, 0))
    torch.testing.assert_close(module.weight.ravel().sort().values, old.ravel().sort().values)


@pytest.mark.parametrize("explainer", ["edges", "input-intensity", "centre-prior", "random"])
def test_a_map_made_without_the_model_stays_the_same(explainer: str) -> None:
    found = evidence(explainer=explainer)
    for similarity in ("spearman", "ssim"):
        measure = measured("parameter-randomisation", found, similarity=similarity)
        assert measure.value == pytest.approx(1)
        assert "hardly shows" in measure.sentence
    flip = measured("label-flip", found)
    assert flip.value == 1
    assert "ignores the class" in flip.sentence


def test_the_strip_shows_the_trained_map_and_every_stage() -> None:
    found = evidence(explainer=CAM)
    before = twin_classifier(found.classifier)
    measure = measured("parameter-randomisation", found, stages=4, draws=1)
    strip = measure.extra["maps"]
    assert [stage["name"] for stage in strip] == ["trained", *measure.extra["stages"]]
    np.testing.assert_allclose(strip[0]["values"], found.values, rtol=1e-3, atol=1e-6)
    assert strip[0]["correlation"] == 1
    assert [stage["correlation"] for stage in strip[1:]] == pytest.approx(measure.extra["spearman"])
    assert (measure.low, measure.high, measure.n) == (None, None, 1)
    after = twin_classifier(found.classifier)
    assert all(torch.equal(value, after["weights"][key]) for key, value in before["weights"].items())


def test_draws_give_way_to_the_budget_before_stages_do() -> None:
    found = evidence(explainer="rise:n_masks=20,settle=1")  # 21 forwards a map, and one that a budget sets aside
    for budget, draws, stages in ((22 * 8, 2, 4), (22 * 4, 1, 4), (22 * 2, 1, 2), (22, 1, 1)):
        measure = measured("parameter-randomisation", found, budget=budget)
        assert (measure.n, len(measure.extra["stages"])) == (draws, stages)
        assert f"({draws} draw" in measure.sentence
    metric = METRICS.build(Choice("parameter-randomisation", (("budget", 21),)))
    assert "raise it" in metric.refuse(found)


def test_maps_that_vanish_are_counted() -> None:
    """Grad-CAM with its cut: a random head may leave nothing above 0."""
    found = evidence(explainer="grad-cam:layer=stage2,relu=true", pixels=tiny.images(1, seed=9)[0])
    measure = measured("parameter-randomisation", found, draws=6)
    flat = measure.extra["flat"]
    assert ("flat" in measure.sentence) == (flat > 0)


# Label flip


def test_label_flip_is_the_correlation_with_the_runner_up() -> None:
    found = evidence(explainer=CAM)
    measure, ranked = measured("label-flip", found), np.argsort(-found.record.probabilities)
    assert measure.extra["class"] == found.record.classes[ranked[1]]
    values = found.explainer.attribute(found.classifier, found.pixels, torch.tensor([int(ranked[1])]), 0).values[0]
    assert measure.value == pytest.approx(stats.spearmanr(values.ravel(), found.values.ravel()).statistic, abs=1e-5)


def test_label_flip_leaves_out_the_class_of_a_contrast() -> None:
    found = evidence(explainer=CAM, quantity="logit", against="ring", target="scratch")
    assert measured("label-flip", found).extra["class"] == "none"


def test_rollout_ignores_the_class() -> None:
    found = evidence(tiny.vit(), "rollout")
    measure = measured("label-flip", found)
    assert measure.value == 1
    assert "ignores the class" in measure.sentence


def test_without_another_class_there_is_no_flip() -> None:
    found = evidence(explainer=CAM, quantity="logit", against="ring", target="scratch")
    alone, metric = found.record.probabilities.copy(), METRICS.build(Choice("label-flip"))
    assert metric.refuse(found) is None
    assert "no other class" in metric.refuse(remade(found, probabilities=alone[:0]))
