"""5: noisy linear imputation beside pytorch-grad-cam's, on one image with nine pixels of ten removed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage

from audit_core.fills.imputation import impute
from tests.bench.report import Row, race, speed
from tests.bench.stage import Options, named

SIZE = 224
SHARE = 0.9
SECONDS = 0.1
RESIDUAL = 1e-6
WEIGHTS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12


def rows(options: Options) -> Iterator[Row]:
    """Seconds, residual and ratio for scattered and connected pixels, one and three channels, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for shape in ("scattered", "connected"):
            for channels in (1, 3):
                yield from _of(shape, channels, options)
    finally:
        torch.set_num_threads(threads)


def _of(shape: str, channels: int, options: Options) -> Iterator[Row]:
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    rng = np.random.default_rng(0)
    images, removed = torch.from_numpy(rng.random((1, channels, SIZE, SIZE), dtype=np.float32)), area(shape, rng)
    theirs, keep = NoisyLinearImputer(noise=0.0), (~removed[0]).float()
    contenders = {"ours": lambda: impute(images, removed), "pytorch-grad-cam": lambda: theirs(images[0], keep)}
    filled = contenders["ours"]()
    seconds = race(contenders, options.repetitions, options.clock)
    what, device = f"imputation of {SIZE} x {SIZE} x {channels}, {SHARE:.0%} removed, {shape}", named("cpu")
    own = statistics.median(seconds["ours"])
    yield Row(f"{what}: time", "none", device, f"{own:.3f} s", f"< {SECONDS} s", own < SECONDS)
    left = residual(filled, removed)
    yield Row(f"{what}: residual", "none", device, f"{left:.1e}", f"< {RESIDUAL:.0e}", left < RESIDUAL)
    ratio = speed(seconds, "ours", "pytorch-grad-cam")
    what = f"{what}: ours ÷ pytorch-grad-cam"
    yield Row(what, "none", device, f"{ratio} times as fast", "> 1", ratio.median > 1)


def area(shape: str, rng: np.random.Generator) -> torch.Tensor:
    """The removed pixels, bool (1, rows, columns): each by itself, or the low parts of a smooth landscape."""
    height = rng.random((SIZE, SIZE))
    if shape == "connected":
        height = ndimage.gaussian_filter(height, SIZE / 16)
    return torch.from_numpy(height <= np.quantile(height, SHARE))[None]


def residual(filled: torch.Tensor, removed: torch.Tensor) -> float:
    """Largest difference between a removed pixel and the weighted mean of its neighbours within the image."""
    share = ndimage.convolve(np.ones((SIZE, SIZE)), WEIGHTS, mode="constant")
    planes = filled[0].double().numpy()
    means = (ndimage.convolve(plane, WEIGHTS, mode="constant") / share for plane in planes)
    return max(float(np.abs(plane - mean)[removed[0].numpy()].max()) for plane, mean in zip(planes, means, strict=True))
