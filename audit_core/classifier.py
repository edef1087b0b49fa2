"""The one batched path to a model: pixels in [0, 1] in, logits out, at the batch size that this device likes."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from audit_core.borrow import borrowed
from audit_core.errors import AuditError, InvalidParameter
from models.cards import ModelCard


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA when there is one, else the CPU. ``InvalidParameter`` when the named device is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0) if name.partition(":")[2].isdigit() or ":" not in name else -1
        if 0 <= index < torch.cuda.device_count():
            return torch.device("cuda", index)
        raise InvalidParameter(
            f"device {name!r} was asked for, {torch.cuda.device_count()} CUDA devices found; use cpu"
        )
    raise InvalidParameter(f"device must be auto, cpu or cuda[:N], got {name!r}")


class BatchSize:
    """Finds the fastest batch size from the work itself: each candidate runs real images once, then the best stays.

    A first run on a busy machine may mislead, so now and then a size that lost is tried again, ``TRIES`` times in
    all. Out of memory halves the ceiling for good. Thread-safe enough for its use: one job at a time owns a device.
    """

    TRIES, PAUSE = 4, 6  # runs of a size that lost; batches between two of them
    CLOSE = 0.95  # of two sizes whose speeds are this close the larger one stays: it suffers less from noise

    def __init__(self, candidates: tuple[int, ...]) -> None:
        self.ceiling = max(candidates)
        self._waiting = list(candidates)
        self._speed: dict[int, float] = {}
        self._tries: dict[int, int] = {}
        self._since = 0

    def next(self, left: int | None = None) -> int:
        """The size of the next batch; with ``left`` images to go, evened out, as a small remainder is slow."""
        self._waiting = [size for size in self._waiting if size <= self.ceiling]
        if self._waiting:
            return self._waiting[0]
        speeds = {size: speed for size, speed in self._speed.items() if size <= self.ceiling}
        if not speeds:
            return self.ceiling
        self._since += 1
        again = [size for size in speeds if self._tries[size] < self.TRIES and (left is None or size <= left)]
        if again and self._since > self.PAUSE:
            self._since = 0
            return min(again, key=self._tries.__getitem__)
        best = max(size for size, speed in speeds.items() if speed >= self.CLOSE * max(speeds.values()))
        return -(-left // -(-left // best)) if left else best

    def record(self, size: int, seconds: float) -> None:
        """Learn how long a batch of ``size`` images took; the best of several runs counts."""
        if size in self._waiting:
            self._waiting.remove(size)
            self._speed[size] = 0.0
        if size in self._speed:
            self._speed[size] = max(self._speed[size], size / max(seconds, 1e-9))
            self._tries[size] = self._tries.get(size, 0) + 1

    def halve(self, size: int) -> None:
        """The device could not hold ``size`` images: never try so many again."""
        self.ceiling = max(1, size // 2)


class FixedBatchSize(BatchSize):
    """One size, whatever the clock says, so that the same work is cut into the same batches everywhere."""

    def __init__(self, size: int) -> None:
        super().__init__((size,))

    def next(self, left: int | None = None) -> int:
        """The ceiling, or an even share of what is left."""
        return -(-left // -(-left // self.ceiling)) if left else self.ceiling

    def record(self, size: int, seconds: float) -> None:
        """Nothing to learn."""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, the CPU included, had no room; the CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def best_layout(module: nn.Module) -> torch.memory_format:
    """Channels last for networks made of convolutions; a transformer has one, at its stem, and gains nothing."""
    convolutions = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    return torch.channels_last if convolutions > 1 else torch.contiguous_format


class Classifier:
    """A loaded checkpoint on a device.

    Takes pixels, float32 (n, channels, rows, columns) in [0, 1], normalises them as the card says and returns
    logits. ``forwards`` counts the images evaluated; ``lock`` serialises users of the shared module; ``contrast``
    is the class whose logit is taken off every logit (:meth:`against`), None for none.
    """

    def __init__(self, card: ModelCard, module: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        self.card, self.device, self.precision = card, device, precision
        self.layout = best_layout(module)
        self.module = module.to(device).to(memory_format=self.layout)
        self.mean = torch.tensor(card.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(card.std, device=device).view(1, -1, 1, 1)
        self.batch = BatchSize((16, 32, 64, 128) if device.type == "cpu" else (64, 128, 256, 512))
        self.forwards = 0
        self.lock = threading.RLock()
        self.contrast: int | None = None

    def against(self, contrast: int | None) -> Classifier:
        """The same model, asked why a class *rather than* ``contrast``: each logit less that class's logit.

        Gradients, scores and curves of a target are then those of the logit difference. Shares module and lock.
        """
        view = copy.copy(self)
        view.contrast = contrast
        return view

    def steady(self) -> Classifier:
        """The same model with batches that depend on the work alone, not on the clock: equal runs give equal bits."""
        view = copy.copy(self)
        rows, columns = self.card.input_size
        # On a CPU 16 images of a transformer stay within the cache; 128 take 1.6 times as long each.
        convolutional = self.layout is torch.channels_last
        most = 512 if self.device.type != "cpu" else 128 if convolutional else 16
        view.batch = FixedBatchSize(max(4, min(most, most * 64 * 64 // (rows * columns))))
        return view

    @contextmanager
    def lend(self) -> Iterator[nn.Module]:
        """The module for gradients and hooks, eval mode and frozen, answering as :meth:`evaluate`; see ``borrowed``."""
        with borrowed(self.module) as module:
            if self.contrast is not None:
                module.register_forward_hook(lambda _, __, logits: self._contrasted(logits))  # the loan takes it off
            yield module

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """What a method that sees only scores averages: probabilities, or the logit differences of a contrast."""
        return logits.softmax(1) if self.contrast is None else logits

    def _contrasted(self, logits: torch.Tensor) -> torch.Tensor:
        """Idempotent: the contrast's own difference is 0."""
        return logits if self.contrast is None else logits - logits[:, self.contrast, None]

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(pixels - mean) / std on the device, in the model's memory layout."""
        pixels = pixels.to(self.device, torch.float32, non_blocking=True)
        return (pixels - self.mean).div_(self.std).contiguous(memory_format=self.layout)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """One batch, as it is: float32 (n, classes) on the device; without gradients."""
        return self.evaluate(self.normalise(pixels))

    def evaluate(self, normalised: torch.Tensor) -> torch.Tensor:
        """Logits of images that :meth:`normalise` has been applied to, or that were mixed from such images."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self._contrasted(self.module(normalised.contiguous(memory_format=self.layout)).float())
        self.forwards += len(normalised)
        return logits

    def stream(
        self,
        total: int,
        build: Callable[[int, int], torch.Tensor],
        first: int | None = None,
        normalised: bool = False,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Evaluate ``total`` images in batches; yields (start, logits of images start, start + 1, …).

        build(start, stop) makes a batch on the device, pixels unless it is ``normalised`` already; ``first`` caps
        the first batch, so that a curve shows early. Out of memory halves the batch and goes on; with one image
        it is an ``AuditError``.
        """
        score, start = self.evaluate if normalised else self.logits, 0
        while start < total:
            size = min(self.batch.next(total - start), total - start, first if first and not start else total)
            began = time.perf_counter()
            try:
                logits = score(build(start, start + size))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise AuditError(
                        f"{self.card.name} does not fit on {self.device} even with one image; choose another device"
                    ) from None
                self.batch.halve(size)
                torch.cuda.empty_cache()
                continue
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.batch.record(size, time.perf_counter() - began)
            yield start, logits
            start += size

    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of any number of images, float32 (n, classes) on the CPU."""
        rows = [logits.cpu() for _, logits in self.stream(len(pixels), lambda a, b: pixels[a:b])]
        return torch.cat(rows) if rows else torch.zeros(0, len(self.card.classes))
