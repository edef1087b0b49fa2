"""Every fill keeps one contract; each number has a witness in numpy, scipy, or a literal reading of the definition."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
from scipy import ndimage, sparse, stats
from scipy.sparse.linalg import spsolve

from audit_core.data import DATASETS
from audit_core.data.base import BaseDataset
from audit_core.errors import BadData, InvalidParameter, Refused
from audit_core.fills import (
    FILLS,
    Blur,
    DatasetMean,
    FillContext,
    GaussianNoise,
    Histogram,
    ImageMean,
    InpaintNavierStokes,
    InpaintTelea,
    OtherImage,
    Reference,
    Road,
    Shuffle,
    UniformNoise,
    Zero,
    ZeroNormalised,
)
from audit_core.fills.base import Fill
from audit_core.fills.imputation import impute
from audit_core.images import prepare
from audit_core.keys import Choice
from audit_core.store import Store
from audit_core.types import SourceImage
from audit_core.workbench import Workbench, fill_context

SHAPES = [(4, 1, 16, 16), (3, 3, 13, 18), (2, 1, 1, 7), (1, 3, 1, 1)]


def pictures(shape: tuple[int, ...] = (4, 1, 16, 16), seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


def context_for(images: torch.Tensor, seed: int = 0) -> FillContext:
    channels = images.shape[1]
    return FillContext(
        mean=(0.25, 0.5, 0.75)[:channels],
        std=(0.1, 0.2, 0.3)[:channels],
        dataset_mean=pictures(tuple(images.shape[1:]), 11),
        reference=pictures(tuple(images.shape[1:]), 12),
        seed=seed,
        others=pictures((5, *images.shape[1:]), 13),
    )


def pattern(images: torch.Tensor, share: float = 0.6, seed: int = 5) -> torch.Tensor:
    """About ``share`` of the pixels: a smooth area for even items, scattered pixels for odd ones."""
    rng = np.random.default_rng(seed)
    draws = rng.random((images.shape[0], *images.shape[2:]))
    draws[::2] = [ndimage.gaussian_filter(draw, 2) for draw in draws[::2]]
    flat = draws.reshape(len(draws), -1)
    return torch.from_numpy(draws <= np.quantile(flat, share, axis=1)[:, None, None])


def fill(name: str):
    return FILLS.build(Choice(name))


def run(name: str, images: torch.Tensor, changed: torch.Tensor, seed: int = 0) -> torch.Tensor:
    operator, context = fill(name), context_for(images, seed)
    return operator.apply(images, changed, operator.substrate(images, context))


every_fill = pytest.mark.parametrize("name", list(FILLS))


class TestContract:
    @every_fill
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_result_is_an_image_that_differs_only_where_changed(self, name, shape):
        images = pictures(shape)
        changed = pattern(images)
        filled = run(name, images, changed)
        assert filled.shape == images.shape
        assert filled.dtype == torch.float32
        assert torch.isfinite(filled).all()
        assert filled.min() >= 0
        assert filled.max() <= 1
        kept = ~changed[:, None].expand_as(images)
        assert torch.equal(filled[kept].view(torch.int32), images[kept].view(torch.int32))

    @every_fill
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_substrate_is_a_new_image(self, name, shape):
        images = pictures(shape)
        substrate = fill(name).substrate(images, context_for(images))
        assert (substrate.shape, substrate.dtype, substrate.device) == (images.shape, images.dtype, images.device)
        assert substrate.min() >= 0
        assert substrate.max() <= 1
        context, first = context_for(images), substrate.clone()
        fill(name).substrate(images, context).add_(1)  # writable, and nobody else's memory
        assert torch.equal(fill(name).substrate(images, context), first)
        assert torch.equal(images, pictures(shape))

    @every_fill
    def test_nothing_changed_is_identity(self, name):
        images = pictures()
        assert torch.equal(run(name, images, torch.zeros(4, 16, 16, dtype=torch.bool)), images)

    @every_fill
    def test_everything_changed_is_the_substrate(self, name):
        images = pictures()
        substrate = fill(name).substrate(images, context_for(images))
        assert torch.equal(run(name, images, torch.ones(4, 16, 16, dtype=torch.bool)), substrate)

    @every_fill
    def test_static_means_copied_from_the_substrate(self, name):
        images = pictures()
        changed = pattern(images)
        copied = torch.where(changed[:, None], fill(name).substrate(images, context_for(images)), images)
        assert torch.equal(run(name, images, changed), copied) == fill(name).static

    @every_fill
    def test_same_seed_same_bits_and_another_seed_only_matters_where_declared(self, name):
        images = pictures()
        changed = pattern(images)
        first = run(name, images, changed, seed=1)
        assert torch.equal(run(name, images, changed, seed=1), first)
        assert torch.equal(run(name, images, changed, seed=2), first) != fill(name).seeded

    @every_fill
    def test_inputs_and_global_random_state_are_as_found(self, name):
        images = pictures((2, 3, 9, 12))
        changed, context = pattern(images), context_for(images)
        before = [t.clone() for t in (images, changed, context.dataset_mean, context.reference, context.others)]
        states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        operator = fill(name)
        substrate = operator.substrate(images, context)
        untouched = substrate.clone()
        operator.apply(images, changed, substrate)
        assert torch.equal(torch.random.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
        after = (images, changed, context.dataset_mean, context.reference, context.others)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert torch.equal(substrate, untouched)

    @every_fill
    @pytest.mark.parametrize("shape", [(7, 1, 16, 16), (5, 3, 11, 14)], ids=str)
    def test_an_image_does_not_depend_on_its_batch(self, name, shape):
        images = pictures(shape)
        changed = pattern(images)
        changed[0], changed[1], changed[2] = True, False, images[2, 0] > 0.02
        together = run(name, images, changed)
        alone = torch.cat([run(name, images[i : i + 1], changed[i : i + 1]) for i in range(len(images))])
        assert torch.equal(together, alone)
        backwards = torch.arange(len(images) - 1, -1, -1)
        assert torch.equal(run(name, images[backwards], changed[backwards])[backwards], together)

    @every_fill
    def test_an_image_does_not_depend_on_memory_layout_or_threads(self, name):
        images = pictures((4, 3, 60, 60))
        changed = pattern(images)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            single = run(name, images, changed)
            torch.set_num_threads(2)
            assert torch.equal(run(name, images.contiguous(memory_format=torch.channels_last), changed), single)
        finally:
            torch.set_num_threads(threads)
        one = images[:1].expand(4, -1, -1, -1)
        assert torch.equal(run(name, one, changed), run(name, one.clone(), changed))

    @pytest.mark.gpu
    @every_fill
    def test_cuda_agrees_with_cpu(self, name):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        images = pictures((4, 3, 40, 33))
        changed = pattern(images)
        there = run(name, images.cuda(), changed.cuda())
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), run(name, images, changed), rtol=0, atol=1e-6)

    @every_fill
    def test_title_and_help_are_written_for_the_menu(self, name):
        assert len({entry.title for entry in FILLS.values()}) == len(FILLS)
        assert FILLS.help(name).startswith("A removed pixel becomes")


def test_menu_order():
    assert list(FILLS) == [
        "zero", "zero-normalised", "image-mean", "dataset-mean", "blur", "uniform-noise", "gaussian-noise", "shuffle",
        "histogram", "reference", "other-image", "inpaint-telea", "inpaint-ns", "road",
    ]  # fmt: skip


class TestConstant:
    def test_zero_is_black_and_zero_normalised_is_the_mean_colour(self):
        images = pictures((2, 3, 5, 6))
        context = context_for(images)
        black, mean = Zero().substrate(images, context), ZeroNormalised().substrate(images, context)
        assert np.array_equal(black.numpy(), np.zeros((2, 3, 5, 6), np.float32))
        shift = np.array(context.mean, np.float32)[:, None, None]
        assert np.array_equal((mean - black).numpy(), np.broadcast_to(shift, (2, 3, 5, 6)))
        normalised = (mean.numpy() - shift) / np.array(context.std, np.float32)[:, None, None]
        assert not normalised.any()

    def test_mean_of_the_image_is_numpys(self):
        images = pictures((3, 3, 7, 11))
        expected = images.numpy().astype(np.float64).mean(axis=(2, 3), keepdims=True)
        substrate = ImageMean().substrate(images, context_for(images)).numpy()
        np.testing.assert_allclose(substrate, np.broadcast_to(expected, images.shape), atol=1e-7)

    @pytest.mark.parametrize(("entry", "field"), [(DatasetMean, "dataset_mean"), (Reference, "reference")])
    def test_given_picture_stands_in_every_image(self, entry, field):
        images = pictures((2, 3, 5, 6))
        context = context_for(images)
        expected = np.broadcast_to(getattr(context, field).numpy(), images.shape)
        assert np.array_equal(entry().substrate(images, context).numpy(), expected)

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            (DatasetMean, "needs a data set"),
            (Reference, "needs a nominal image"),
            (OtherImage, "needs a data set with other images"),
        ],
    )
    def test_without_the_picture_the_fill_refuses_with_one_reason(self, entry, reason):
        bare = FillContext(mean=(0.5,), std=(0.2,))
        assert reason in entry().refuse(bare)
        assert entry().refuse(context_for(pictures())) is None
        with pytest.raises(Refused, match=reason):
            entry().substrate(pictures(), bare)

    def test_all_other_fills_need_nothing_but_the_card(self):
        bare = FillContext(mean=(0.5,), std=(0.2,))
        refusing = {name for name in FILLS if fill(name).refuse(bare)}
        assert refusing == {"dataset-mean", "reference", "other-image"}

    def test_a_picture_of_another_size_is_named(self):
        with pytest.raises(BadData, match=r"reference image .* \(1, 16, 16\) .*found \(1, 8, 8\)"):
            Reference().substrate(pictures(), FillContext((0.5,), (0.2,), reference=torch.zeros(1, 8, 8)))

    @pytest.mark.parametrize("name", ["zero-normalised", "gaussian-noise"])
    def test_a_card_for_other_channels_is_named(self, name):
        with pytest.raises(BadData, match=r"one normalisation (mean|deviation) per channel, found 3 for 1 channels"):
            fill(name).substrate(pictures(), FillContext((0.5,) * 3, (0.2,) * 3))


class TestBlur:
    @pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0, 12.5, 50.0])
    @pytest.mark.parametrize("shape", [(2, 3, 20, 33), (1, 1, 1, 9), (1, 1, 3, 2)], ids=str)
    def test_equals_scipy(self, sigma, shape):
        images = pictures(shape)
        wide = images.numpy().astype(np.float64)
        expected = ndimage.gaussian_filter(wide, sigma, axes=(2, 3), mode="reflect", truncate=4.0)
        blurred = Blur(sigma).substrate(images, context_for(images)).numpy()
        np.testing.assert_allclose(blurred, expected, rtol=0, atol=1e-7)

    def test_default_is_three_pixels(self):
        images = pictures((1, 1, 24, 24))
        expected = ndimage.gaussian_filter(images[0, 0].numpy(), sigma=3.0)
        blurred = FILLS.build(Choice("blur")).substrate(images, context_for(images))
        np.testing.assert_allclose(blurred[0, 0].numpy(), expected, atol=1e-6)

    def test_sigma_out_of_range_is_refused(self):
        with pytest.raises(InvalidParameter, match=r"fill 'blur': sigma must be in \[0.1, 50\] px, got '-1'"):
            FILLS.build(Choice.parse("blur:sigma=-1"))


class TestNoise:
    images = pictures((2, 3, 64, 64))

    def test_uniform_noise_is_uniform_and_shared(self):
        noise = UniformNoise().substrate(self.images, context_for(self.images)).numpy()
        assert np.array_equal(noise[0], noise[1])
        assert stats.kstest(noise[0].ravel(), "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(noise[0].reshape(3, -1))[np.triu_indices(3, 1)]).max() < 0.06

    @pytest.mark.parametrize("scale", [0.5, 1.0])
    def test_gaussian_noise_has_the_cards_moments(self, scale):
        context = FillContext(mean=(0.4, 0.5, 0.6), std=(0.02, 0.05, 0.08))
        noise = GaussianNoise(scale).substrate(self.images, context).numpy()
        assert np.array_equal(noise[0], noise[1])
        for channel, mean, std in zip(noise[0], context.mean, context.std, strict=True):
            assert stats.kstest(channel.ravel(), stats.norm(mean, std * scale).cdf).pvalue > 1e-3

    def test_gaussian_noise_grows_with_scale_and_is_clipped(self):
        context = FillContext(mean=(0.5,) * 3, std=(0.02,) * 3)
        one, two = (GaussianNoise(s).substrate(self.images, context).double() - 0.5 for s in (1.0, 2.0))
        torch.testing.assert_close(two, 2 * one, rtol=0, atol=2e-7)
        wild = GaussianNoise(10.0).substrate(self.images, FillContext((0.5,) * 3, (1.0,) * 3))
        beyond = ((wild == 0) | (wild == 1)).double().mean()
        assert beyond == pytest.approx(2 * stats.norm.sf(0.05), abs=0.02)

    def test_zero_scale_is_the_mean_colour(self):
        context = context_for(self.images)
        flat = GaussianNoise(0.0).substrate(self.images, context)
        assert torch.equal(flat, ZeroNormalised().substrate(self.images, context))

    def test_shuffle_keeps_the_pixels_and_their_channels_together(self):
        shuffled = Shuffle().substrate(self.images, context_for(self.images))
        for before, after in zip(self.images, shuffled, strict=True):
            colours = [np.sort(x.numpy().reshape(3, -1).T.copy().view("f4,f4,f4").ravel()) for x in (before, after)]
            assert np.array_equal(*colours)
            assert (before == after).float().mean() < 0.01

    def test_histogram_draws_each_channel_from_its_own_values(self):
        levels = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]])
        shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
        rng = np.random.default_rng(4)
        index = np.stack([rng.choice(3, (64, 64), p=share) for share in shares])
        image = torch.take_along_dim(levels, torch.from_numpy(index).flatten(1), 1).reshape(1, 3, 64, 64)
        drawn = Histogram().substrate(image, context_for(image))[0]
        for before, after, values in zip(index, drawn.flatten(1), levels, strict=True):
            counts = [int((after == value).sum()) for value in values]
            assert sum(counts) == 64 * 64, "a channel takes its own values only"
            assert stats.chisquare(counts, np.bincount(before.ravel(), minlength=3)).pvalue > 1e-3
            assert counts != np.bincount(before.ravel()).tolist(), "drawn with replacement, unlike a permutation"

    def test_histogram_draws_channels_and_pixels_independently(self):
        drawn = Histogram().substrate(self.images, context_for(self.images))[0]
        assert abs(np.corrcoef(drawn.reshape(3, -1))[np.triu_indices(3, 1)]).max() < 0.06
        assert abs(np.corrcoef(drawn[0, :, :-1].ravel(), drawn[0, :, 1:].ravel())[0, 1]) < 0.06
        same = self.images[:1, :1].expand(1, 3, -1, -1)
        drawn = Histogram().substrate(same, context_for(same))[0]
        assert (drawn[0] == drawn[1]).float().mean() < 0.01, "equal channels are drawn apart"

    def test_other_fills_draw_other_numbers(self):
        context = FillContext(mean=(0.5,) * 3, std=(0.1,) * 3)
        plain = (GaussianNoise().substrate(self.images, context) - 0.5)[0] / 0.1
        grey = torch.full_like(self.images, 0.5)
        road = (Road().substrate(grey, context) - 0.5)[0] / 0.01
        assert abs(np.corrcoef(plain.ravel(), road.ravel())[0, 1]) < 0.05


class Few(BaseDataset):
    """Grey images, each of its own brightness; some may be equal."""

    def __init__(self, levels: list[int]) -> None:
        super().__init__("few", (), "all")
        self.levels = levels

    def __len__(self) -> int:
        return len(self.levels)

    def image(self, i: int) -> SourceImage:
        level = self.levels[self.check(i)] / 255
        return SourceImage(np.full((4, 4, 1), level, np.float32), False, f"few {i}")


class TestOtherImage:
    def test_another_image_is_one_of_those_given(self):
        images = pictures((2, 3, 5, 6))
        context = context_for(images)
        for seed in range(12):
            for filled in OtherImage().substrate(images, replace(context, seed=seed)):
                assert torch.equal(filled, context.others[seed % 5])

    @pytest.mark.parametrize("among", [1, 2, 8])
    def test_among_is_how_many_are_in_question(self, among):
        images = pictures((1, 1, 5, 6))
        context = context_for(images)
        drawn = [OtherImage(among).substrate(images, replace(context, seed=seed))[0] for seed in range(9)]
        seen = {j for j, other in enumerate(context.others) if any(torch.equal(other, one) for one in drawn)}
        assert seen == set(range(min(among, 5)))

    @pytest.mark.parametrize("i", [0, 1, 10, 29])
    def test_a_data_set_offers_eight_others_spread_over_it(self, i):
        levels, (card, _) = list(range(100, 130)), tiny.linear(size=4)
        data = Few(levels)
        others = data.others(prepare(data.image(i), card), card)
        assert others.shape == (8, 1, 4, 4)
        spread = [100 + k * 30 // 9 for k in range(9)]
        expected = [level for level in spread if level != levels[i]][:8]
        np.testing.assert_allclose(others[:, 0, 0, 0] * 255, expected, atol=1e-4)

    def test_neither_the_image_nor_its_copies_are_among_its_others(self):
        card, _ = tiny.linear(size=4)
        data = Few([10, 20, 10, 30])
        others = data.others(prepare(data.image(0), card), card)
        np.testing.assert_allclose(others[:, 0, 0, 0] * 255, [20, 30], atol=1e-4)
        for lonely in (Few([10]), Few([10, 10])):
            assert lonely.others(prepare(lonely.image(0), card), card) is None

    def test_the_audited_image_meets_the_others_of_its_data_set(self, tmp_path):
        bench, (card, _) = Workbench(Store(tmp_path), "cpu"), tiny.linear(size=16)
        subject = bench.subject("synthetic:sample:20", card)
        data = DATASETS["synthetic"]().open("sample")
        expected = [prepare(data.image(k), card) for k in (0, 10, 30, 40, 50, 60, 70, 80)]
        assert np.array_equal(fill_context(subject, card, 0).others.numpy(), np.stack(expected))
        upload = bench.keep_image(data.image(20))
        assert bench.subject(upload, card).others is None
        assert "needs a data set" in OtherImage().refuse(fill_context(bench.subject(upload, card), card, 0))


painters = pytest.mark.parametrize("painter", [InpaintTelea, InpaintNavierStokes])


def painted(painter: Fill, images: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    return painter.apply(images, changed, painter.substrate(images, context_for(images)))


class TestInpainting:
    def test_telea_gives_an_isolated_pixel_the_mean_of_its_neighbours(self):
        """Radius 1, nothing else missing: four equal weights; OpenCV then adds at most sqrt(2) levels and rounds."""
        images = pictures((1, 1, 41, 41))
        changed = torch.zeros(1, 41, 41, dtype=torch.bool)
        changed[:, 2:-2:5, 2:-2:5] = True
        cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
        expected = ndimage.convolve(images[0, 0].double().numpy(), cross)
        difference = np.abs(painted(InpaintTelea(1), images, changed)[0, 0].numpy() - expected)[changed[0].numpy()]
        assert difference.max() < (math.sqrt(2) + 1) / 255

    @pytest.mark.parametrize("radius", [1, 3, 10])
    def test_navier_stokes_only_averages_what_is_kept(self, radius):
        images = torch.full((1, 3, 32, 32), 77 / 255)
        changed = pattern(images, 0.9)
        torch.testing.assert_close(painted(InpaintNavierStokes(radius), images, changed), images, rtol=0, atol=1e-7)
        images = pictures((1, 3, 32, 32))
        filled = painted(InpaintNavierStokes(radius), images, changed)
        for before, after in zip(images[0], filled[0], strict=True):
            kept = before[~changed[0]]
            assert after.min() >= kept.min() - 0.5 / 255
            assert after.max() <= kept.max() + 0.5 / 255

    @painters
    def test_an_edge_is_continued_across_a_scratch(self, painter):
        images = torch.zeros(1, 1, 41, 41)
        images[..., :20], images[..., 20:] = 50 / 255, 200 / 255
        changed = torch.zeros(1, 41, 41, dtype=torch.bool)
        changed[:, 20, 5:35] = True
        difference = (painted(painter(), images, changed) - images).abs()[0, 0, 20]
        assert difference[:17].max() < 20 / 255, "the edge is 150 levels high"
        assert difference[23:].max() < 20 / 255

    @painters
    def test_what_was_removed_is_not_looked_at(self, painter):
        """Neither by the fill nor, in spite of what plain OpenCV does at the border, by the painting inside it."""
        images = pictures((2, 3, 24, 24))
        changed = pattern(images, 0.5)
        other = torch.where(changed[:, None], 1 - images, images)
        same = painted(painter(), images, changed) == painted(painter(), other, changed)
        assert same[changed[:, None].expand_as(images)].all()
        for image, removed in zip((images * 255).byte().numpy(), changed.numpy(), strict=True):
            below = (np.where(removed, level, image) for level in np.uint8([0, 255]))
            black, white = (painter()._painted(beneath, removed) for beneath in below)
            assert np.array_equal(black, white)

    @painters
    def test_away_from_the_border_it_is_opencv_on_the_8_bit_colour_image(self, painter):
        images = pictures((1, 3, 48, 48))
        changed = torch.zeros(1, 48, 48, dtype=torch.bool)
        changed[:, 14:34, 14:34] = pattern(images[..., 14:34, 14:34], 0.5)
        bits = (images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        theirs = cv2.inpaint(bits, changed[0].numpy().astype(np.uint8), 5, painter.algorithm)
        filled = (painted(painter(5), images, changed)[0] * 255).permute(1, 2, 0).numpy()
        where = changed[0].numpy()
        np.testing.assert_allclose(filled[where], theirs[where], atol=1e-4)

    @painters
    def test_when_nothing_is_kept_the_mean_colour_remains(self, painter):
        images = pictures((3, 3, 12, 12))
        changed = pattern(images)
        changed[1] = True
        filled = painted(painter(), images, changed)
        mean = images[1].double().mean(dim=(1, 2)).float()[:, None, None].expand_as(images[1])
        torch.testing.assert_close(filled[1], mean, rtol=0, atol=1e-6)
        assert torch.equal(filled[0], painted(painter(), images[:1], changed[:1])[0])


def residual(filled: torch.Tensor, removed: torch.Tensor) -> float:
    """Largest difference between a removed pixel and the weighted mean of its neighbours within the image."""
    weights, worst = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12, 0.0
    for image, inside in zip(filled.double().numpy(), removed.numpy(), strict=True):
        share = ndimage.convolve(np.ones(inside.shape), weights, mode="constant")
        for plane in image:
            mean = ndimage.convolve(plane, weights, mode="constant") / share
            worst = max(worst, float(np.abs(plane - mean)[inside].max(initial=0)))
    return worst


def literal_imputation(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Each removed pixel is the mean of its neighbours inside the image, weights 1/6 and 1/12 scaled to sum to 1."""
    channels, height, width = image.shape
    places = [tuple(place) for place in np.argwhere(removed)]
    number = {place: i for i, place in enumerate(places)}
    matrix, right = sparse.lil_matrix((len(places), len(places))), np.zeros((len(places), channels))
    for i, (y, x) in enumerate(places):
        around = {
            (y + dy, x + dx): 1 / 12 if dy and dx else 1 / 6
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width
        }
        matrix[i, i] = 1
        for place, weight in around.items():
            if place in number:
                matrix[i, number[place]] = -weight / sum(around.values())
            else:
                right[i] += weight / sum(around.values()) * image[:, place[0], place[1]]
    result = image.astype(np.float64)
    result[:, removed] = spsolve(sparse.csc_matrix(matrix), right).reshape(len(places), channels).T
    return result


class TestRoad:
    @pytest.mark.parametrize("share", [0.02, 0.4, 0.8, 0.97])
    @pytest.mark.parametrize("shape", [(4, 1, 24, 24), (2, 3, 17, 22), (2, 3, 2, 9)], ids=str)
    def test_equals_a_literal_sparse_solve(self, shape, share):
        images = pictures(shape)
        changed = pattern(images, share)
        substrate = Road(0.0).substrate(images, context_for(images))
        filled = Road(0.0).apply(images, changed, substrate)
        for image, removed, result in zip(images.numpy(), changed.numpy(), filled.numpy(), strict=True):
            np.testing.assert_allclose(result, literal_imputation(image, removed), rtol=0, atol=1e-6)

    def test_equals_pytorch_grad_cam(self):
        road = pytest.importorskip("pytorch_grad_cam.metrics.road")
        images = pictures((4, 3, 14, 15))
        changed = pattern(images, 0.7)
        filled = Road(0.0).apply(images, changed, Road(0.0).substrate(images, context_for(images)))
        with torch.random.fork_rng(devices=[]):
            for image, removed, result in zip(images, changed, filled, strict=True):
                theirs = road.NoisyLinearImputer(noise=0)(image, (~removed).float())
                torch.testing.assert_close(result, theirs, rtol=0, atol=1e-6)

    def test_a_gap_in_a_line_is_interpolated_linearly(self):
        images = torch.zeros(1, 1, 1, 11)
        images[..., -1] = 1
        changed = torch.ones(1, 1, 11, dtype=torch.bool)
        changed[..., [0, -1]] = False
        filled = Road(0.0).apply(images, changed, Road(0.0).substrate(images, context_for(images)))
        torch.testing.assert_close(filled[0, 0, 0], torch.linspace(0, 1, 11), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("size", [64, 97])
    def test_one_kept_pixel_gives_its_colour_to_all(self, size):
        images = pictures((1, 3, size, size))
        changed = torch.ones(1, size, size, dtype=torch.bool)
        changed[0, 5, size - 3] = False
        filled = Road(0.0).apply(images, changed, Road(0.0).substrate(images, context_for(images)))
        kept = images[:, :, 5, size - 3][..., None, None]
        torch.testing.assert_close(filled, kept.expand_as(filled), atol=1e-6, rtol=0)

    def test_large_holes_satisfy_the_definition(self):
        image = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(3).random((128, 120)), 4))
        image = ((image - image.min()) / (image.max() - image.min())).float()[None, None]
        rows, columns = torch.meshgrid(torch.arange(128), torch.arange(120), indexing="ij")
        changed = ((rows - 60) ** 2 + (columns - 30) ** 2 < 55**2)[None]
        filled = Road(0.0).apply(image, changed, Road(0.0).substrate(image, context_for(image)))
        weights = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
        total = ndimage.convolve(filled[0, 0].double().numpy(), weights, mode="constant")
        mean = total / ndimage.convolve(np.ones((128, 120)), weights, mode="constant")
        inside = changed[0].numpy()
        np.testing.assert_allclose(filled[0, 0].numpy()[inside], mean[inside], rtol=0, atol=2e-7)

    @pytest.mark.parametrize("size", [(9, 9), (33, 64), (224, 224), (7, 301)], ids=str)
    @pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
    def test_residual_is_below_a_millionth_at_any_size(self, size, share):
        images = pictures((2, 1, *size))
        changed = pattern(images, share)
        assert residual(impute(images, changed), changed) < 1e-6

    @pytest.mark.parametrize("rows", ["every other pixel", "a frame", "stripes", "one pixel"])
    def test_awkward_areas_are_solved_like_any_other(self, rows):
        images, changed = pictures((1, 3, 40, 37)), torch.zeros(1, 40, 37, dtype=torch.bool)
        if rows == "every other pixel":
            changed[:, ::2, ::2] = changed[:, 1::2, 1::2] = True
        elif rows == "a frame":
            changed[:, [0, -1], :], changed[:, :, [0, -1]] = True, True
        elif rows == "stripes":
            changed[:, :, 1::3] = True
        else:
            changed[:, 17, 19] = True
        expected = literal_imputation(images[0].numpy(), changed[0].numpy())
        np.testing.assert_allclose(impute(images, changed)[0].numpy(), expected, rtol=0, atol=1e-6)

    def test_noise_is_normal_and_added_to_removed_pixels_only(self):
        images = 0.3 + 0.4 * pictures((2, 3, 48, 48))
        changed, context = pattern(images, 0.9), context_for(images)
        clean, noisy = (r.apply(images, changed, r.substrate(images, context)) for r in (Road(0.0), Road(0.02)))
        added = (noisy - clean).numpy()
        where = changed.numpy()
        assert not added.transpose(0, 2, 3, 1)[~where].any()
        drawn = added.transpose(0, 2, 3, 1)[where].ravel()
        assert stats.kstest(drawn, stats.norm(0, 0.02).cdf).pvalue > 1e-3
        both = (changed[0] & changed[1]).numpy()
        np.testing.assert_allclose(added[0][:, both], added[1][:, both], atol=3e-7)

    def test_when_nothing_is_kept_the_mean_colour_remains(self):
        images = 0.3 + 0.4 * pictures((3, 3, 32, 32))
        changed = torch.ones(3, 32, 32, dtype=torch.bool)
        filled = Road().apply(images, changed, Road().substrate(images, context_for(images))).numpy()
        noise = filled - images.numpy().astype(np.float64).mean(axis=(2, 3), keepdims=True)
        np.testing.assert_allclose(noise[0], noise[2], atol=3e-7)
        assert stats.kstest(noise[0].ravel(), stats.norm(0, 0.01).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("level", [0.0, 1.0])
    def test_noise_at_the_ends_of_the_range_turns_inwards(self, level):
        images = torch.full((1, 1, 40, 40), level)
        changed = pattern(images, 0.9)
        filled = Road(0.05).apply(images, changed, Road(0.05).substrate(images, context_for(images)))
        distance = (filled - level).abs()[0, 0][changed[0]].numpy()
        assert stats.kstest(distance, stats.halfnorm(scale=0.05).cdf).pvalue > 1e-3
