"""Where other tools return a wrong number without a word: cases small enough to work out by hand, and ours beside."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from audit_core.borrow import untouched_random_state
from audit_core.curves import cuts, plan, rank_pixels, score_points, table
from audit_core.fills import FILLS, FillContext
from audit_core.keys import Choice
from tests.bench import rivals
from tests.bench.stage import set_stage

quantus = pytest.importorskip("quantus")
OPTIONS = {"disable_warnings": True, "display_progressbar": False}


class Counting(nn.Module):
    """Class 0 scores the mean of all values; counts the images that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown += len(x)
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([mean, -mean], 1)


def quiet(metric, *given, **named):
    """A call without warnings that leaves the global generators alone."""
    with warnings.catch_warnings(), untouched_random_state():
        warnings.simplefilter("ignore")
        return metric(*given, **named)


def test_quantus_flips_one_colour_channel_at_a_time():
    """A map of 16 pixels in steps of 4 has 4 points. Quantus spreads it over 3 channels and scores 12."""
    model, pixels = Counting().eval(), np.ones((1, 3, 4, 4), np.float32)
    values = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    rule = quantus.PixelFlipping(features_in_step=4, perturb_baseline=0.0, abs=False, normalise=False, **OPTIONS)
    theirs = quiet(rule, model, pixels, np.array([0]), values, channel_first=True, softmax=False, device="cpu")
    assert np.asarray(theirs[0]).shape == (12,)
    assert model.shown >= 12
    np.testing.assert_allclose(theirs[0], 1 - np.arange(1, 13) / 12, atol=1e-6)

    found = tiny.classifier((tiny.card("mean", 4, 3, (), "unknown", "none"), Counting()))
    fill, image = FILLS.build(Choice("zero-normalised")), torch.from_numpy(pixels)
    substrate = fill.substrate(image, FillContext(found.card.mean, found.card.std))
    ranks, at = torch.from_numpy(rank_pixels(values[0, 0]))[None], cuts(16, 4)
    points = plan(np.zeros(1, np.int64), at)
    scores = torch.cat([logits for _, logits in score_points(found, fill, image, substrate, ranks, points)])[:, 0]
    curve = scores.numpy()[table(points, 1, at, np.zeros(1, np.int64)).deletion[0]]
    assert curve.shape == (5,)
    assert found.forwards == 2 + 2 * 3
    np.testing.assert_allclose(curve, curve[0] * (1 - np.arange(5) / 4), atol=1e-6)


def test_quantus_counts_an_empty_region_as_a_hit():
    """No pixel of an empty region can be hit. Ours refuses it, see test_metrics.py."""
    rule = quantus.PointingGame(abs=False, normalise=False, **OPTIONS)
    values = np.random.default_rng(0).random((1, 1, 4, 4)).astype(np.float32)
    given = (Counting().eval(), np.ones((1, 1, 4, 4), np.float32), np.array([0]), values, np.zeros((1, 1, 4, 4), bool))
    assert bool(np.asarray(quiet(rule, *given, channel_first=True, device="cpu"))[0]) is True


def test_quantus_road_reads_the_first_batch_alone():
    """A model that always says class 0 is right for half of the labels 0 0 1 1, whatever is removed."""
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)

    rng = np.random.default_rng(0)
    pixels, labels = rng.random((4, 1, 8, 8)).astype(np.float32), np.array([0, 0, 1, 1])
    values = rng.random((4, 1, 8, 8)).astype(np.float32)
    shares = {}
    for size, order in ((4, slice(None)), (2, slice(None)), (2, slice(None, None, -1))):
        rule = quantus.ROAD(percentages=[10], noise=0.0, **OPTIONS)
        given = (Constant().eval(), pixels[order].copy(), labels[order].copy(), values[order].copy())
        found = quiet(rule, *given, channel_first=True, device="cpu", batch_size=size)
        shares[size, order == slice(None)] = float(next(iter(found.values())))
    assert shares[4, True] == pytest.approx(0.5)
    assert shares[2, True] == pytest.approx(1.0), "right for the first two"
    assert shares[2, False] == pytest.approx(0.0), "wrong for the first two"


def test_grad_cams_road_imputes_the_whole_image_for_a_sparse_map():
    """A map of 6 lit pixels in 100: asked for the top fifth, it removes every pixel."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    values = np.zeros((10, 10))
    values[0, :6] = 1.0
    threshold = np.percentile(values, 80)
    assert threshold == 0, "the 80th percentile of a sparse map is its floor"
    removed = values >= threshold
    assert removed.all()
    image = torch.from_numpy(np.random.default_rng(0).random((1, 10, 10)).astype(np.float32))
    theirs = quiet(NoisyLinearImputer(noise=0.0), image, torch.from_numpy(1.0 - removed.astype(np.float32)))
    assert not np.isclose(theirs.numpy(), image.numpy()).any(), "nothing of the image is left"
    ranks = rank_pixels(values)
    assert (ranks < 20).sum() == 20, "ours removes a fifth, ties by a stated rule"
    assert (values[ranks < 6] == 1).all()


@pytest.mark.parametrize("name", ["wafer-resnet18-cbam", "wafer-vit-tiny"])
def test_curves_are_those_of_torchcam_and_quantus_where_the_definition_is_the_same(name):
    """Four wafers, 16 steps, fill 0 after normalisation, one channel, maps without ties: every point that both have."""
    pytest.importorskip("torchcam")
    stage = dataclasses.replace(set_stage(name, "cpu", "fp32", "zero-normalised"), image_of_order=np.arange(4))
    stage = dataclasses.replace(stage, images=stage.images[:4], maps=stage.maps[:4], substrates=stage.substrates[:4])
    pixels = stage.classifier.normalise(stage.images).contiguous()
    target, module = stage.classifier.logits(stage.images).argmax(1), stage.classifier.module
    found = rivals.ours(stage, target.numpy())
    np.testing.assert_allclose(found, quiet(rivals.by_torchcam, module, pixels, stage.maps, target.tolist()), atol=1e-5)
    theirs = quiet(rivals.by_quantus, module, pixels.numpy(), stage.maps, target.numpy(), "cpu")
    known = np.isfinite(theirs)
    assert known.sum() == 2 * 4 * 16
    np.testing.assert_allclose(found[known], theirs[known], atol=1e-5)
