"""Occlusion, KernelSHAP, LIME and InvRISE against definitions written out, enumerations and captum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import tiny
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import KernelShap as LibraryKernelShap
from captum.attr import Lime as LibraryLime
from captum.attr import Occlusion as LibraryOcclusion
from scipy.stats import chisquare, spearmanr
from sklearn.linear_model import LinearRegression, Ridge

from audit_core.borrow import untouched_random_state
from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.inverted import VARIANTS, InvRISE
from audit_core.explainers.occlusion import BASELINES, Occlusion, baseline_of
from audit_core.explainers.rise import RISE
from audit_core.explainers.surrogate import LIME, KernelSHAP, Surrogate, grid
from audit_core.keys import Choice

TARGET = torch.tensor([2, 0])


class Stopped(Exception):
    """Raised by a report to stop the work."""


def probability(found: Classifier, pixels: torch.Tensor, target: int) -> np.ndarray:
    return found.predict(pixels).double().softmax(1)[:, target].numpy()


# Occlusion


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (4, 4), (8, 4)])
def test_occlusion_equals_captums_where_windows_are_the_same(window: int, stride: int) -> None:
    found, pixels = tiny.classifier(tiny.cnn(channels=3)), tiny.images(2, 16, 3)
    theirs = LibraryOcclusion(lambda x: found.logits(x).softmax(1)).attribute(
        pixels, (3, window, window), (3, stride, stride), baselines=0.0, target=TARGET
    )
    ours = Occlusion(window, stride).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, theirs[:, 0].numpy(), atol=1e-6)
    assert ours.values.std() > 1e-3


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("window", "stride"), [(5, 3), (7, 7), (16, 1), (3, 2)])
def test_occlusion_equals_a_loop_over_windows(window: int, stride: int, baseline: str) -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    hidden = baseline_of(found, pixels[0], baseline)
    places = [*range(0, 16 - window, stride), 16 - window]
    total, covered = np.zeros((16, 16)), np.zeros((16, 16))
    for top, left in itertools.product(places, places):
        changed = pixels.clone()
        changed[0, :, top : top + window, left : left + window] = hidden[:, top : top + window, left : left + window]
        total[top : top + window, left : left + window] += (
            probability(found, pixels, 2) - probability(found, changed, 2)
        )
        covered[top : top + window, left : left + window] += 1
    assert covered.min() >= 1
    explainer = Occlusion(window, stride, baseline)
    ours = explainer.attribute(found, pixels, TARGET[:1], 0)
    np.testing.assert_allclose(ours.values[0], total / covered, atol=1e-6)
    assert ours.forwards == len(places) ** 2 + 1 == explainer.cost(found.card).forwards


def test_occlusion_under_a_contrast_follows_the_difference_of_logits() -> None:
    """On a linear model a window of one pixel gives back the weights' difference times the pixel's change."""
    found, pixels = tiny.classifier(tiny.linear()), tiny.images(2, 8)
    weights = found.module[1].weight.detach().view(3, 8, 8)
    change = (found.normalise(pixels) - found.normalise(torch.zeros_like(pixels)))[:, 0]
    ours = Occlusion(1, 1).attribute(found.against(1), pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, ((weights[TARGET] - weights[1]) * change).numpy(), atol=1e-4)


def test_windows_that_do_not_fit_are_refused() -> None:
    found = tiny.classifier(tiny.cnn())
    with pytest.raises(InvalidParameter, match="a window of 17 px was asked for, the image has 16x16 px; choose"):
        Occlusion(17, 1).attribute(found, tiny.images(1), TARGET[:1], 0)
    with pytest.raises(InvalidParameter, match="a stride of 5 px was asked for, which leaves gaps between windows"):
        Occlusion(4, 5).attribute(found, tiny.images(1), TARGET[:1], 0)


# Segments


@pytest.mark.parametrize(("rows", "columns", "side"), [(16, 16, 4), (10, 7, 3), (3, 5, 4)])
def test_grid_cells_are_blocks_numbered_row_by_row(rows: int, columns: int, side: int) -> None:
    found, down, across = grid(rows, columns, side), min(side, rows), min(side, columns)
    for row, column in np.ndindex(rows, columns):
        assert found[row, column] == math.floor(row * down / rows) * across + math.floor(column * across / columns)
    np.testing.assert_array_equal(np.unique(found), np.arange(down * across))


def test_superpixels_are_numbered_without_gaps_and_follow_edges() -> None:
    image = torch.zeros(1, 16, 16)
    image[:, :, 5:] = 0.9  # an edge that no square grid has
    places = KernelSHAP(n_segments=16, compactness=0.1).cut(image)
    np.testing.assert_array_equal(np.unique(places), np.arange(places.max() + 1))
    assert not set(places[:, :5].ravel()) & set(places[:, 5:].ravel())
    for pixels in (tiny.images(1)[0], tiny.images(1, 16, 3)[0], torch.zeros(1, 16, 16)):
        places = LIME(n_segments=9).cut(pixels)
        np.testing.assert_array_equal(np.unique(places), np.arange(places.max() + 1))
        np.testing.assert_array_equal(places, LIME(n_segments=9).cut(pixels))


# KernelSHAP


def coalition_scores(found: Classifier, image: torch.Tensor, places: np.ndarray, target: int) -> dict:
    """Probability of the target for every set of shown segments over black."""
    count = places.max() + 1
    sets = [frozenset(s) for size in range(count + 1) for s in itertools.combinations(range(count), size)]
    shown = torch.from_numpy(np.stack([np.isin(places, list(s)) for s in sets]))
    pixels = torch.where(shown[:, None], image, torch.zeros_like(image))
    return dict(zip(sets, probability(found, pixels, target), strict=True))


def shapley(found: Classifier, image: torch.Tensor, places: np.ndarray, target: int) -> np.ndarray:
    """Shapley values by definition: mean marginal contribution over all orders of the segments."""
    value, count = coalition_scores(found, image, places, target), places.max() + 1
    result = np.zeros(count)
    for present, score in value.items():
        size = len(present)
        for joining in set(range(count)) - present:
            chance = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            result[joining] += chance * (value[present | {joining}] - score)
    return result


@pytest.mark.parametrize("segments", ["grid", "slic"])
@pytest.mark.parametrize("n_segments", [2, 4, 8])
def test_kernel_shap_with_all_coalitions_is_exact(n_segments: int, segments: str) -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(2)
    explainer = KernelSHAP(segments, n_segments, n_samples=1024)
    ours = explainer.attribute(found, pixels, TARGET, 0)
    for n in range(2):
        places = explainer.cut(pixels[n])
        expected = shapley(found, pixels[n], places, int(TARGET[n]))[places]
        np.testing.assert_allclose(ours.values[n], expected, atol=1e-6)
        assert np.ptp(expected) > 0.01 or places.max() == 0
    assert ours.error.max() == 0
    assert ours.extra["n_segments"] == [int(explainer.cut(image).max()) + 1 for image in pixels]


def test_coalitions_are_drawn_by_the_shapley_kernel_in_pairs() -> None:
    count, pairs = 12, 2000
    drawn = KernelSHAP(n_samples=2 + 2 * pairs).coalitions(count, np.random.default_rng(0))
    assert drawn[0].all()
    assert not drawn[1].any()
    first, second = drawn[2::2], drawn[3::2]
    np.testing.assert_array_equal(first, ~second)
    sizes = np.arange(1, count)
    kernel = 1 / (sizes * (count - sizes))  # of all coalitions of a size together
    seen = np.bincount(first.sum(1), minlength=count)[1:]
    assert chisquare(seen, pairs * kernel / kernel.sum()).pvalue > 0.001
    assert chisquare(first.sum(0)).pvalue > 0.001


@pytest.mark.parametrize("model", ["vit", "swin", "cnn"])
def test_sampled_kernel_shap_is_within_its_error(model: str) -> None:
    found, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(1)
    explainer = KernelSHAP("grid", 9, n_samples=200)  # of 512 coalitions
    places = explainer.cut(pixels[0])
    value, expected = coalition_scores(found, pixels[0], places, 2), shapley(found, pixels[0], places, 2)
    middle = [tuple(np.argwhere(places == segment)[0]) for segment in range(9)]
    runs = [explainer.attribute(found, pixels, TARGET[:1], seed) for seed in range(40)]
    values = np.array([[run.values[0][place] for place in middle] for run in runs])
    stated = np.array([[run.error[0][place] for place in middle] for run in runs])
    whole = value[frozenset(range(9))] - value[frozenset()]
    np.testing.assert_allclose(values.sum(1), whole, atol=1e-5)
    spread = values.std(0, ddof=1)
    assert 0.8 < (spread / stated.mean(0)).mean() < 1.2
    assert (np.abs(values.mean(0) - expected) < 4 * spread / math.sqrt(40) + 0.02 * np.ptp(expected)).all()
    assert 0 < runs[0].extra["r_squared"][0] < 1
    assert runs[0].forwards == 200


def test_captums_kernel_shap_scatters_around_our_exact_values() -> None:
    """captum always samples, so what is compared is the mean of its runs, within its own standard error."""
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(1)
    explainer = KernelSHAP("grid", 9, n_samples=600)
    ours = explainer.attribute(found, pixels, TARGET[:1], 0).values[0]
    places = torch.from_numpy(explainer.cut(pixels[0]))[None, None]
    library, runs = LibraryKernelShap(lambda x: found.logits(x).softmax(1)), []
    with untouched_random_state():
        for seed in range(40):
            torch.manual_seed(seed)
            settings = {"feature_mask": places, "n_samples": 500, "perturbations_per_eval": 250}
            runs.append(library.attribute(pixels, 0.0, target=2, **settings)[0, 0].numpy())
    error = np.std(runs, axis=0, ddof=1) / math.sqrt(len(runs))
    assert (np.abs(np.mean(runs, axis=0) - ours) < 4.5 * error).all()
    assert error.max() < 0.015 * np.ptp(ours)


def test_one_segment_gets_the_whole_difference() -> None:
    found, flat = tiny.classifier(tiny.cnn()), torch.full((1, 1, 16, 16), 0.7)

    class Whole(KernelSHAP):
        def cut(self, image: torch.Tensor) -> np.ndarray:
            return np.zeros((16, 16), np.int64)

    ours = Whole().attribute(found, flat, TARGET[:1], 0)
    expected = probability(found, flat, 2) - probability(found, 0 * flat, 2)
    np.testing.assert_allclose(ours.values, np.full((1, 16, 16), expected), atol=1e-6)
    assert ours.extra["r_squared"] == [None]


# LIME


def parts(found: Classifier, pixels: torch.Tensor, places: np.ndarray, target: int, contrast: int) -> np.ndarray:
    """What each segment adds to the difference of two logits of the linear model, over black."""
    weights = found.module[1].weight.detach().view(3, 8, 8)
    change = (found.normalise(pixels) - found.normalise(torch.zeros_like(pixels)))[0, 0]
    return np.bincount(places.ravel(), ((weights[target] - weights[contrast]) * change).numpy().ravel())


@pytest.mark.parametrize("explainer", [LIME("grid", 16, ridge=0.0), KernelSHAP("grid", 16), KernelSHAP("grid", 4)])
def test_an_additive_model_is_given_back(explainer: Surrogate) -> None:
    """Under a contrast the score is the difference of logits, which is additive on a linear model."""
    found, pixels = tiny.classifier(tiny.linear()), tiny.images(1, 8)
    places = explainer.cut(pixels[0])
    ours = explainer.attribute(found.against(1), pixels, TARGET[:1], 0)
    expected = parts(found, pixels, places, 2, 1)
    np.testing.assert_allclose(ours.values[0], expected[places], atol=1e-4)
    assert ours.extra["r_squared"][0] == pytest.approx(1, abs=1e-6)
    assert ours.error.max() < 1e-4


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("width", [0.1, 0.25, 10.0])
def test_lime_fits_as_scikit_learn_does(width: float, ridge: float) -> None:
    rng = np.random.default_rng(2)
    shown = np.concatenate([np.ones((1, 6), bool), rng.random((99, 6)) < 0.5])
    scores = np.sin(shown @ rng.standard_normal(6))
    distance = 1 - np.array([z.sum() / (np.linalg.norm(z) * np.sqrt(6)) if z.any() else 0 for z in shown.astype(float)])
    weights = np.exp(-(distance**2) / (2 * width**2))
    theirs = Ridge(ridge) if ridge else LinearRegression()
    theirs.fit(shown.astype(float), scores, weights)
    ours = LIME(width=width, ridge=ridge).fit(shown, scores)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, atol=1e-9)
    assert ours.r_squared == pytest.approx(theirs.score(shown.astype(float), scores, weights))


def test_lime_agrees_with_captums() -> None:
    """With the same weighting over segments, many samples and no penalty both reach the same regression."""
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(1)
    explainer = LIME("grid", 9, n_samples=4000, width=0.25, ridge=0.0)
    places = torch.from_numpy(explainer.cut(pixels[0]))[None, None]
    weigh = lambda _, __, shown, **___: math.exp(-((1 - math.sqrt(float(shown.double().mean()))) ** 2) / (2 * 0.25**2))
    with untouched_random_state():
        torch.manual_seed(0)
        lime = LibraryLime(lambda x: found.logits(x).softmax(1), SkLearnLinearRegression(), weigh)
        theirs = lime.attribute(
            pixels, 0.0, target=2, feature_mask=places, n_samples=2000, perturbations_per_eval=200
        )
    ours = explainer.attribute(found, pixels, TARGET[:1], 0)
    np.testing.assert_allclose(ours.values, theirs[:, 0].numpy(), atol=0.03 * np.ptp(ours.values))


def test_limes_standard_error_is_the_spread_over_seeds() -> None:
    found, pixels = tiny.classifier(tiny.vit()), tiny.images(1)
    runs = [LIME("grid", 9, n_samples=150).attribute(found, pixels, TARGET[:1], seed) for seed in range(40)]
    spread = np.std([run.values for run in runs], axis=0, ddof=1)
    assert 0.8 < (spread / np.mean([run.error for run in runs], axis=0)).mean() < 1.2


@pytest.mark.parametrize("name", ["kernel-shap", "lime"])
def test_too_few_samples_for_the_segments_are_refused(name: str) -> None:
    found, choice = tiny.classifier(tiny.cnn()), Choice.parse(f"{name}:segments=grid,n_segments=25,n_samples=51")
    with pytest.raises(InvalidParameter, match=r"51 samples were asked for, the image has 25 segments; raise .* to 52"):
        EXPLAINERS.build(choice).attribute(found, tiny.images(1), TARGET[:1], 0)


@pytest.mark.parametrize(
    "name",
    ["occlusion:window=2,stride=1", "kernel-shap", "lime", "integrated-gradients", "smooth-grad", "expected-gradients"],
)
def test_work_is_told_per_batch_and_can_be_stopped(name: str) -> None:
    found, told = tiny.classifier(tiny.cnn()), []

    def report(fraction: float, words: str, running: np.ndarray | None) -> None:
        told.append(fraction)
        if len(told) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        EXPLAINERS.build(Choice.parse(name)).attribute(found, tiny.images(2), TARGET, 0, report)
    assert 0 < told[0] <= told[1] < 1
    assert not found.module._forward_hooks


# InvRISE


def enumerated(found: Classifier, image: torch.Tensor, p: float, hides: bool, other: bool) -> np.ndarray:
    """E[score | the pixel is hidden, or shown] over all 16 masks of a 2 x 2 grid of hard cells, for class 2."""
    patterns = np.array(list(itertools.product([0.0, 1.0], repeat=4))).reshape(-1, 2, 2)
    chance = np.array([p ** k.sum() * (1 - p) ** (4 - k.sum()) for k in patterns])
    keep = np.kron(patterns, np.ones((4, 4)))
    scores = probability(found, torch.from_numpy(image.numpy()[None] * keep[:, None]).float(), 2)
    weight = (1 - keep if hides else keep) * chance[:, None, None]
    return ((1 - scores if other else scores)[:, None, None] * weight).sum(0) / weight.sum(0)


class HardRISE(RISE):
    """RISE whose masks have square cells without interpolation, so that "hidden" is all or nothing."""

    def masks(self, size: torch.Size, seed: int, device: torch.device) -> Iterator[torch.Tensor]:
        for start in range(0, self.n_masks, 100):
            rng = np.random.default_rng((seed, start))
            cells = rng.random((min(100, self.n_masks - start), 2, 2)) < self.p
            yield torch.from_numpy(np.kron(cells, np.ones((4, 4)))).float()


class HardInvRISE(InvRISE):
    masks = HardRISE.masks


@pytest.mark.parametrize("coverage", [True, False])
@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_inv_rise_converges_to_the_conditional_mean(variant: str, p: float, coverage: bool) -> None:
    found, image = tiny.classifier(tiny.linear()), tiny.images(1, 8)[0]
    hides, other, _ = VARIANTS[variant]
    explainer = HardInvRISE(6000, 2, p, False, "zero", coverage, 1.0, variant)
    ours = explainer.attribute(found, image[None], TARGET[:1], 3)
    expected = enumerated(found, image, p, hides, other)
    assert (np.abs(ours.values[0] - expected) / ours.error[0]).max() < 4.5
    assert np.ptp(expected) / ours.error.max() > (10 if coverage else 4), "the map must stand out from the noise"


@pytest.mark.parametrize("model", ["vit", "cnn"])
def test_inv_rise_is_an_affine_function_of_rise(model: str) -> None:
    """With a constant normaliser, mask by mask and exactly; so every variant ranks as RISE does or upside down."""
    found, pixels, p = tiny.classifier(tiny.MODELS[model]()), tiny.images(1), 0.4
    settings = (300, 4, p, True, "zero", False, 1.0)
    rise = RISE(*settings)
    plain = rise.attribute(found, pixels, TARGET[:1], 3).values[0].astype(np.float64)
    keep = torch.cat(list(rise.masks(torch.Size((16, 16)), 3, tiny.CPU)))
    scores = probability(found, pixels * keep[:, None], 2)
    kept = keep.double().mean(0).numpy() / p  # about 1; what E[M] / p is for these masks
    expected = {
        "target-hidden": (scores.mean() - p * plain) / (1 - p),
        "other-hidden": ((1 - scores).mean() - p * (kept - plain)) / (1 - p),
        "other-visible": kept - plain,
    }
    for variant, (_, _, beside) in VARIANTS.items():
        ours = InvRISE(*settings, variant).attribute(found, pixels, TARGET[:1], 3)
        np.testing.assert_allclose(ours.values[0], expected[variant], atol=2e-5)
        assert ours.extra["beside_rise"] == beside
        assert ours.forwards == 301


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stated_relation_to_rise_is_the_one_found(variant: str) -> None:
    """As masks grow in number the rank correlation with RISE goes to 1 or -1, and the words say which."""
    found, pixels = tiny.classifier(tiny.linear()), tiny.images(1, 8)
    plain = RISE(20_000, 4, settle=1.0).attribute(found, pixels, TARGET[:1], 1).values
    ours = InvRISE(20_000, 4, settle=1.0, variant=variant).attribute(found, pixels, TARGET[:1], 1).values
    sign = -1 if "upside down" in VARIANTS[variant][2] else 1
    assert spearmanr(plain.ravel(), ours.ravel()).statistic * sign > 0.99
    assert np.corrcoef(plain.ravel(), ours.ravel())[0, 1] * sign > 0.99


def test_inv_rise_under_a_contrast_weighs_the_difference_of_logits() -> None:
    found, pixels = tiny.classifier(tiny.cnn()).against(1), tiny.images(1)
    settings = (200, 4, 0.5, True, "zero", True, 1.0)
    keep = torch.cat(list(RISE(*settings).masks(torch.Size((16, 16)), 3, tiny.CPU)))
    logits = found.predict(pixels * keep[:, None]).double()
    difference, hidden = (logits[:, 2] - logits[:, 1])[:, None, None], 1 - keep.double()
    expected = ((difference * hidden).sum(0) / hidden.sum(0)).numpy()
    for variant, sign in (("target-hidden", 1), ("other-hidden", -1)):
        ours = InvRISE(*settings, variant).attribute(found, pixels, TARGET[:1], 3)
        np.testing.assert_allclose(ours.values[0], sign * expected, atol=1e-5)
        assert ours.signed
