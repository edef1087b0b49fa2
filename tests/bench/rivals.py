"""2: the engine beside what a user would otherwise use, on the same model, images, maps, fill and steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from audit_core.curves import cuts, score_points, table
from models import zoo
from tests.bench.report import Row, race, say, speed
from tests.bench.stage import IMAGES, Options, Stage, devices, named, set_stage

STEPS = 16  # divides 64 x 64, which Quantus asks for; with 20, TorchCAM's cuts are 205 pixels apart but for the last
EQUAL = 1e-5
NOTE = f"""Beside TorchCAM and Quantus: {IMAGES} images, {STEPS} steps, fill 0 after normalisation, fp32, probability of
the predicted class, maps without ties. Equal by definition: every point that both have. Different by definition:
- ties: TorchCAM first in memory first; Quantus whatever argsort does; here pseudo-random, fixed by the seed;
- cuts where the steps do not divide the pixels: TorchCAM equal, the last smaller; Quantus refuses; here even ones;
- points: Quantus leaves out the untouched image and has no insertion; its insertion here is the deletion of the negated
  map read backwards, so two of its passes are timed;
- channels: Quantus ranks the pixels of every channel apart; these images have one channel."""


def rows(options: Options) -> Iterator[Row]:
    """Speed and largest difference for every shipped checkpoint on every device."""
    for device in devices():
        for name in options.checkpoints:
            yield from _of(name, device, options)


def _of(name: str, device: str, options: Options) -> Iterator[Row]:
    stage = set_stage(name, device, "fp32", "zero-normalised")
    images = stage.classifier.normalise(stage.images)
    target = stage.classifier.logits(stage.images).argmax(1)
    fresh = zoo.load(name).module.to(device)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: ours(stage, target.cpu().numpy()),
        "TorchCAM": lambda: by_torchcam(fresh, images.contiguous(), stage.maps, target.tolist()),
        "Quantus": lambda: by_quantus(fresh, images.cpu().numpy(), stage.maps, target.cpu().numpy(), device),
    }
    found = {who: run() for who, run in contenders.items()}
    for _ in range(2):
        contenders["ours"]()  # the engine finds its batch size
    say(f"{name} on {device}: racing TorchCAM and Quantus")
    seconds = race(contenders, options.repetitions, options.clock)
    for who in ("TorchCAM", "Quantus"):
        ratio = speed(seconds, "ours", who)
        what = f"deletion + insertion: ours ÷ {who}"
        yield Row(what, name, named(device), f"{ratio} times as fast", "> 1, goal 2", ratio.median > 1)
        difference = float(np.nanmax(np.abs(found["ours"] - found[who])))
        what = f"deletion + insertion: ours − {who}"
        yield Row(what, name, named(device), f"{difference:.1e} at most", f"≤ {EQUAL:.0e}", difference <= EQUAL)


def ours(stage: Stage, target: np.ndarray) -> np.ndarray:
    """Curves, float (2, images, steps + 1): deletion and insertion."""
    ranks, points = stage.ranks(), stage.points(STEPS)
    stream = score_points(stage.classifier, stage.fill, stage.images, stage.substrates, ranks, points)
    scores = torch.cat([logits.softmax(1) for _, logits in stream]).cpu().numpy()
    at = cuts(stage.maps[0].size, STEPS)
    lookup = table(points, len(ranks), at, stage.image_of_order)
    return np.stack([scores[places, target[:, None]] for places in (lookup.deletion, lookup.insertion)])


class Given:
    """Stands in for a CAM extractor: hands TorchCAM the maps that everybody uses."""

    def __init__(self, model: nn.Module, maps: torch.Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[torch.Tensor]:  # Any: whatever an extractor may be asked
        return [self.maps]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> AbstractContextManager[None]:
        return nullcontext()


def by_torchcam(model: nn.Module, images: torch.Tensor, maps: np.ndarray, target: list[int]) -> np.ndarray:
    """The curves inside ``DeletionInsertionMetric``, which itself tells only their areas."""
    from torchcam.metrics import DeletionInsertionMetric

    kept: list[np.ndarray] = []

    class Keeping(DeletionInsertionMetric):
        def _compute_curves(self, *given: Any, **named: Any) -> Any:
            found = super()._compute_curves(*given, **named)
            kept.append(torch.stack(found[1:]).cpu().numpy())
            return found

    extractor = Given(model, torch.from_numpy(maps).to(images.device))
    metric = Keeping(extractor, partial(torch.softmax, dim=-1), steps=STEPS)
    metric.update(images, target)
    metric.summary()
    return kept[0]


def by_quantus(model: nn.Module, images: np.ndarray, maps: np.ndarray, target: np.ndarray, device: str) -> np.ndarray:
    """``PixelFlipping`` of the map and of the negated map; NaN at the untouched image, which it does not score."""
    import quantus

    metric = quantus.PixelFlipping(
        features_in_step=maps[0].size // STEPS, abs=False, normalise=False, perturb_baseline=0.0, disable_warnings=True
    )

    def flipped(values: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array(metric(model, images, target, values[:, None], channel_first=True, device=device))

    missing = np.full((len(images), 1), np.nan)
    deletion, insertion = flipped(maps), flipped(-maps)
    return np.stack([np.hstack([missing, deletion]), np.hstack([insertion[:, ::-1], missing])])
