"""The one path to a model: normalisation, batches, running out of memory, precision."""

from __future__ import annotations

from itertools import pairwise

import pytest
import tiny
import torch
from torch import nn

from audit_core.classifier import BatchSize, Classifier, pick_device
from audit_core.errors import AuditError, InvalidParameter
from models.architectures import ARCHITECTURES

TOLERANCE = 1e-5  # of logits between batch sizes on one device; the probabilities differ less


class Narrow(nn.Module):
    """Holds at most ``limit`` images; more raise what a full device raises."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.seen = limit, []
        self.weight = nn.Parameter(torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("full")
        return x.mean((1, 2, 3))[:, None] * self.weight


def narrow(limit: int) -> Classifier:
    return tiny.classifier((tiny.linear()[0], Narrow(limit)))


def test_pixels_are_normalised_as_the_card_says() -> None:
    found = tiny.classifier(tiny.linear(channels=3, size=4))
    pixels = tiny.images(2, 4, 3)
    seen = found.normalise(pixels)
    for channel, (mean, std) in enumerate(zip((0.3, 0.4, 0.5), (0.5, 0.4, 0.3), strict=True)):
        torch.testing.assert_close(seen[:, channel], (pixels[:, channel] - mean) / std)


def test_logits_are_those_of_the_module() -> None:
    card, module = tiny.linear(size=4)
    pixels = tiny.images(5, 4)
    layer = module[1]
    expected = (pixels.flatten(1).double() - 0.3) / 0.5 @ layer.weight.double().T + layer.bias.double()
    found = tiny.classifier((card, module)).predict(pixels)
    torch.testing.assert_close(found.double(), expected.detach(), atol=1e-5, rtol=0)
    assert not found.requires_grad


def test_the_pixels_given_are_not_changed() -> None:
    pixels = tiny.images(3)
    before = pixels.clone()
    tiny.classifier(tiny.cnn()).predict(pixels)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", ["vit", "swin", "cnn", "resnet18_cbam_compact"])
def test_batch_size_moves_logits_less_than_the_documented_tolerance(name: str) -> None:
    if name in tiny.MODELS:
        found = tiny.classifier(tiny.MODELS[name]())
        pixels = tiny.images(33)
    else:
        module = tiny.seeded(lambda: ARCHITECTURES[name].build(3, 1), 0, 1.0)
        found = tiny.classifier((tiny.card(name, 64, 1, (), "global average pool", "auxiliary"), module))
        pixels = tiny.images(6, 64)
    results = []
    for size in (1, 5, 16, 64):
        found.batch = BatchSize((size,))
        results.append(found.predict(pixels))
    assert results[0].std(0).min() > 1e-4, "the images must matter for this to say anything"
    for other in results[1:]:
        assert (other - results[0]).abs().max() <= TOLERANCE


def test_stream_covers_every_image_once_in_order() -> None:
    found = narrow(1000)
    pixels = torch.arange(150.0)[:, None, None, None].expand(150, 1, 8, 8)
    covered, asked = [], []

    def build(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return pixels[start:stop]

    for start, logits in found.stream(150, build, first=3):
        covered += range(start, start + len(logits))
        value = (torch.arange(start, start + len(logits)) - 0.3) / 0.5
        torch.testing.assert_close(logits, value[:, None] * torch.arange(3.0))
    assert covered == list(range(150))
    assert asked[0] == (0, 3)
    assert all(stop == start for (_, stop), (start, _) in pairwise(asked))
    assert found.forwards == 150


def test_out_of_memory_halves_and_goes_on() -> None:
    found = narrow(10)
    logits = found.predict(torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (70, 3)
    assert found.module.seen[:2] == [16, 8]
    assert max(found.module.seen[1:]) <= 10
    assert sum(size for size in found.module.seen if size <= 10) == 70
    assert found.forwards == 70, "only images that were evaluated count"
    found.module.seen.clear()
    found.predict(torch.zeros(40, 1, 8, 8))
    assert max(found.module.seen) <= 10, "a size that did not fit is not tried again"


def test_out_of_memory_while_building_the_batch_halves_too() -> None:
    found = narrow(1000)

    def build(start: int, stop: int) -> torch.Tensor:
        if stop - start > 4:
            raise torch.OutOfMemoryError("full")
        return torch.zeros(stop - start, 1, 8, 8)

    assert [start for start, _ in found.stream(9, build)] == [0, 4, 8]


def test_one_image_that_does_not_fit_is_said() -> None:
    found = narrow(0)
    with pytest.raises(AuditError, match=r"tiny-linear does not fit on cpu even with one image; choose another device"):
        found.predict(torch.zeros(20, 1, 8, 8))
    assert found.forwards == 0
    found.module.limit = 100
    assert len(found.predict(torch.zeros(20, 1, 8, 8))) == 20


def test_other_exceptions_pass_and_leave_it_usable() -> None:
    found = narrow(1000)

    def build(start: int, stop: int) -> torch.Tensor:
        if start:
            raise KeyError("broken")
        return torch.zeros(stop - start, 1, 8, 8)

    with pytest.raises(KeyError, match="broken"):
        list(found.stream(100, build))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert found.forwards == 16
    assert len(found.predict(torch.zeros(5, 1, 8, 8))) == 5


def test_a_stream_can_be_left_early() -> None:
    found = narrow(1000)
    for _, _logits in found.stream(1000, lambda a, b: torch.zeros(b - a, 1, 8, 8)):
        break
    assert found.forwards == 16


def test_no_images_give_no_rows() -> None:
    found = narrow(10)
    assert found.predict(torch.zeros(0, 1, 8, 8)).shape == (0, 3)
    assert found.forwards == 0


def test_batch_size_tries_each_candidate_once_and_keeps_the_fastest() -> None:
    batch, seconds = BatchSize((16, 32, 64)), {16: 1.0, 32: 1.0, 64: 4.0}
    tried = []
    for _ in range(5):
        size = batch.next()
        tried.append(size)
        batch.record(size, seconds[size])
    assert tried == [16, 32, 64, 32, 32]
    batch.record(16, 0.01)  # it was only disturbed before
    assert batch.next() == 16
    batch.record(7, 1e-6)  # a remainder teaches nothing
    assert batch.next() == 16
    batch.halve(16)
    assert (batch.next(), batch.ceiling) == (8, 8)
    batch.halve(1)
    assert batch.next() == 1


@pytest.mark.parametrize("name", sorted(tiny.MODELS))
def test_bf16_runs_and_differs_little(name: str) -> None:
    card, module = tiny.MODELS[name]()
    pixels = tiny.images(16)
    full = Classifier(card, module, tiny.CPU).predict(pixels).softmax(1)
    half = Classifier(card, module, tiny.CPU, "bf16").predict(pixels).softmax(1)
    assert half.dtype == torch.float32
    difference = (full - half).abs().max().item()
    assert 1e-6 < difference < 0.05
    assert next(module.parameters()).dtype == torch.float32


def test_devices_are_named() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "cuda:x", "cuda:", "cuda:-1"):
        with pytest.raises(InvalidParameter, match=rf"device '{name}' was asked for, \d+ CUDA devices found; use cpu"):
            pick_device(name)
    with pytest.raises(InvalidParameter, match="device must be auto, cpu or"):
        pick_device("tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", sorted(tiny.MODELS))
def test_cuda_agrees_with_the_cpu(name: str) -> None:
    card, module = tiny.MODELS[name]()
    pixels = tiny.images(16)
    here = Classifier(card, module, tiny.CPU).predict(pixels)
    there = Classifier(card, module, torch.device("cuda", 0)).predict(pixels)
    torch.testing.assert_close(there, here, atol=2e-2, rtol=1e-2)  # TF32 may be on
