"""What the contenders share: checkpoints, sixteen wafers, tie-free maps, devices."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.curves import Points, changed_pixels, cuts, plan, rank_pixels
from audit_core.data import dataset_of
from audit_core.fills import FILLS, FillContext
from audit_core.fills.base import Fill
from audit_core.images import prepare
from audit_core.keys import Choice
from models import zoo
from tests.bench.report import Clock

IMAGES = 16


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure."""

    repetitions: int
    masks: int
    audits: int
    clock: Clock
    checkpoints: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One checkpoint on one device with all that its curves need; tensors are on the CPU."""

    classifier: Classifier
    images: torch.Tensor
    maps: np.ndarray
    fill: Fill
    substrates: torch.Tensor
    image_of_order: np.ndarray

    def ranks(self) -> torch.Tensor:
        """Ranks of the maps, int32 (16, rows, columns)."""
        return torch.from_numpy(np.stack([rank_pixels(values) for values in self.maps]))

    def points(self, steps: int) -> Points:
        """Deletion and insertion of every image."""
        return plan(self.image_of_order, cuts(self.maps[0].size, steps))

    def perturbed(self, steps: int) -> torch.Tensor:
        """All images of the curves, normalised, on the device: what the bare model is given."""
        points, ranks = self.points(steps), self.ranks()
        image, order, low, high = (torch.from_numpy(p) for p in (points.image, points.order, points.low, points.high))
        changed = changed_pixels(ranks[order], low, high)
        return self.classifier.normalise(self.fill.apply(self.images[image], changed, self.substrates[image]))


def set_stage(name: str, device: str, precision: str, fill: str = "zero") -> Stage:
    """Load a shipped checkpoint; the images are generated wafers, the maps random numbers without ties."""
    loaded, (data, _) = zoo.load(name), dataset_of("synthetic:sample:0")
    card = loaded.card
    images = torch.from_numpy(np.stack([prepare(data.image(i), card) for i in range(IMAGES)]))
    maps = np.random.default_rng(0).permuted(np.tile(np.arange(images[0, 0].numel()), (IMAGES, 1)), axis=1)
    maps = (maps / maps.shape[1]).reshape(IMAGES, *images.shape[2:]).astype(np.float32)
    operator = FILLS.build(Choice(fill))
    substrates = operator.substrate(images, FillContext(card.mean, card.std))
    classifier = Classifier(card, loaded.module, torch.device(device), precision)
    return Stage(classifier, images, maps, operator, substrates, np.arange(IMAGES))


def devices() -> list[str]:
    """The CPU, and CUDA where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def named(device: str) -> str:
    """The device in words, with the number of threads."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def precisions(device: str) -> list[str]:
    """fp32, and bf16 where the device computes with it; emulated in software it is only slower."""
    if device == "cuda":
        return ["fp32", "bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp32"]
    facts = Path("/proc/cpuinfo")
    words = set(facts.read_text().split()) if facts.is_file() else set()
    return ["fp32", "bf16"] if words & {"avx512_bf16", "amx_bf16"} else ["fp32"]


class Bare:
    """``model(x)`` on images that are ready, at the batch size and in the memory layout that are fastest for it."""

    def __init__(self, classifier: Classifier, images: torch.Tensor, clock: Clock) -> None:
        self.precision, self.device, self.images = classifier.precision, classifier.device, images
        other = copy.deepcopy(classifier.module).to(memory_format=torch.contiguous_format)
        layouts = {
            torch.contiguous_format: other,
            torch.channels_last: copy.deepcopy(other).to(memory_format=torch.channels_last),
        }
        sizes = (8, 16, 32, 64, 128) if self.device.type == "cpu" else (64, 128, 256, 512, 1024)
        seconds = {}
        for layout, module in layouts.items():
            for size in sizes:
                self.layout, self.module, self.size = layout, module, size
                few = images[: min(max(size, 128), len(images))]
                self.run(few[:size])
                began = clock()
                self.run(few)
                seconds[layout, size] = (clock() - began) / len(few)
        self.layout, self.size = min(seconds, key=seconds.__getitem__)
        self.module = layouts[self.layout]

    def run(self, images: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of all images, on the CPU."""
        images = self.images if images is None else images
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            batches = (images[start : start + self.size] for start in range(0, len(images), self.size))
            rows = [self.module(b.contiguous(memory_format=self.layout)).float() for b in batches]
        return torch.cat(rows).cpu()

    def __str__(self) -> str:
        return f"batches of {self.size}" + (", channels last" if self.layout == torch.channels_last else "")
