"""1: the engine beside the bare model."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from audit_core.curves import score_points
from audit_core.explainers.rise import RISE
from tests.bench.report import Row, race, say, speed
from tests.bench.stage import Bare, Options, Stage, devices, named, precisions, set_stage

STEPS = 20
WARM = 3  # runs in which the engine finds its batch size


def rows(options: Options) -> Iterator[Row]:
    """Curves and RISE of every shipped checkpoint on every device."""
    for device in devices():
        for precision in precisions(device):
            for name in options.checkpoints:
                yield from _of(name, device, precision, options)
        if "bf16" not in precisions(device):
            yield Row("engine in bf16", "all", named(device), "not measured: no bf16 arithmetic here", "≥ 0.90", None)


def _of(name: str, device: str, precision: str, options: Options) -> Iterator[Row]:
    stage = set_stage(name, device, precision)
    ranks = stage.ranks()
    for _ in range(WARM):
        curves(stage, ranks)
    bare = Bare(stage.classifier, stage.perturbed(STEPS), options.clock)
    difference = float((curves(stage, ranks).softmax(1) - bare.run().softmax(1)).abs().max())
    say(f"{name} {precision} on {device}: engine in batches of {stage.classifier.batch.next()}, bare model in {bare}")
    say(f"largest difference of probabilities between the two: {difference:.1e}")
    seconds = race({"engine": lambda: curves(stage, ranks), "bare": bare.run}, options.repetitions, options.clock)
    what = f"curves, {len(bare.images)} forwards, {precision}: engine ÷ bare model ({bare})"
    yield _row(what, name, device, seconds, 0.90)
    explainer = RISE(n_masks=options.masks, settle=1.0)
    image = stage.images[3].to(stage.classifier.device)
    keep = next(explainer.masks(image.shape[1:], 0, image.device))
    hidden = stage.classifier.normalise(image * keep[:, None])
    bare.images = hidden.repeat(-(-options.masks // len(hidden)), 1, 1, 1)[: options.masks]
    contenders = {"engine": lambda: explainer.attribute_all(stage.classifier, image, 0), "bare": bare.run}
    seconds = race(contenders, options.repetitions, options.clock)
    yield _row(f"RISE, N = {options.masks}, {precision}: engine ÷ bare model", name, device, seconds, 0.85)


def curves(stage: Stage, ranks: torch.Tensor) -> torch.Tensor:
    """Logits of deletion and insertion of sixteen ranked images by the engine, on the CPU."""
    stream = score_points(stage.classifier, stage.fill, stage.images, stage.substrates, ranks, stage.points(STEPS))
    return torch.cat([logits for _, logits in stream]).cpu()


def _row(what: str, name: str, device: str, seconds: dict[str, list[float]], wanted: float) -> Row:
    ratio = speed(seconds, "engine", "bare")
    return Row(what, name, named(device), str(ratio), f"≥ {wanted:.2f}", ratio.median >= wanted)
