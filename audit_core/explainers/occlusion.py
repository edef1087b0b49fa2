"""Occlusion: how much the score drops when a window is hidden; and what stands in a hidden place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch

from audit_core.classifier import Classifier
from audit_core.errors import InvalidParameter
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.fills import Blur, Fill, FillContext, ImageMean, Zero, ZeroNormalised
from audit_core.params import Between, OneOf
from audit_core.types import Attribution
from models.cards import ModelCard

BASELINES = ("zero", "white", "zero-normalised", "image-mean", "blur")
BLUR_SHARE = 8  # the blurred baseline's sigma is the image's shorter side divided by this
Baseline = Annotated[
    str,
    OneOf(
        BASELINES,
        "What stands in place of hidden pixels: black, white, 0 after normalisation (the mean colour), the image's own "
        "mean per channel, or the image blurred with a Gaussian of an eighth of its shorter side.",
    ),
]


def baseline_of(classifier: Classifier, image: torch.Tensor, name: str) -> torch.Tensor:
    """The wholly hidden ``image``, float32 (channels, rows, columns) pixels on its device; name: of ``BASELINES``."""
    if name == "white":
        return torch.ones_like(image)
    sigma = min(image.shape[-2:]) / BLUR_SHARE
    fills: dict[str, Fill] = {
        "zero": Zero(), "zero-normalised": ZeroNormalised(), "image-mean": ImageMean(), "blur": Blur(sigma)
    }  # fmt: skip
    context = FillContext(classifier.card.mean, classifier.card.std)
    return fills[name].substrate(image[None], context)[0]


@dataclass(frozen=True)
class Turn:
    """Whose turn it is, image ``index`` of ``count``, and whom to tell how far it is."""

    index: int
    count: int
    report: Report

    def scores(
        self, classifier: Classifier, total: int, build: Callable[[int, int], torch.Tensor], wanted: int
    ) -> np.ndarray:
        """The target's score for each of ``total`` images that ``build`` makes, float64 (total,); told per batch."""
        rows = []
        for start, logits in classifier.stream(total, build):
            rows.append(classifier.scores(logits)[:, wanted])
            done = start + len(logits)
            self.report((self.index + done / total) / self.count, f"{done} of {total} images", None)
        return torch.cat(rows).double().cpu().numpy()


@EXPLAINERS.register("occlusion")
@dataclass(frozen=True)
class Occlusion(Explainer):
    """Occlusion: a window slides over the image and hides what is under it; the map is how far the score drops.

    A pixel gets the mean drop over all windows that cover it. Windows stand at multiples of the stride, and one more
    is flush with the far border, so every window is whole and every pixel is covered. The score is the target's
    probability. Negative values mark places whose absence raises the score.
    """

    title: ClassVar[str] = "Occlusion"
    family: ClassVar[str] = "perturbation"
    reads: ClassVar[str] = "scores"
    formula: ClassVar[str] = "map(l) = mean over windows W that contain l of f_t(x) - f_t(x with W hidden)"
    source: ClassVar[str] = "Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901"
    witness: ClassVar[str] = (
        "captum's Occlusion where its windows are the same ones; else a literal loop over windows: "
        "tests/test_perturbation.py::test_occlusion_equals_captums_where_windows_are_the_same, "
        "tests/test_perturbation.py::test_occlusion_equals_a_loop_over_windows"
    )
    pitfalls: ClassVar[str] = (
        "Evidence that stands twice in the image is missed: hiding one copy changes nothing. The window's size decides "
        "what can be seen at all, and its baseline is a fill like any other."
    )

    window: Annotated[int, Between(1, 512, "px", "Side of the square that is hidden at once.")] = 8
    stride: Annotated[int, Between(1, 512, "px", "Distance between two windows; at most the window.")] = 4
    baseline: Baseline = "zero"

    def cost(self, card: ModelCard) -> Cost:
        """One forward per window, and one for the image itself."""
        return Cost(1 + int(np.prod([len(self.starts(n)) for n in card.input_size])))

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """Signed maps; ``InvalidParameter`` where the window does not fit or leaves gaps."""
        self._check(images.shape[-2:])
        maps: list[np.ndarray] = []
        before = classifier.forwards
        with classifier.lend():
            for image, wanted in zip(images, target.tolist(), strict=True):
                turn = Turn(len(maps), len(images), report)
                maps.append(self._one(classifier, image.to(classifier.device), wanted, turn))
        rows, columns = (len(self.starts(n)) for n in images.shape[-2:])
        extra = {"windows": [rows, columns]}
        forwards = classifier.forwards - before
        return Attribution(np.stack(maps), target.cpu().numpy(), True, None, forwards, 0, extra)

    def starts(self, length: int) -> list[int]:
        """First pixel of every window along a side of ``length`` pixels."""
        last = max(length - self.window, 0)
        return sorted({*range(0, last + 1, self.stride), last})

    def _check(self, size: torch.Size) -> None:
        if self.window > min(size):
            raise InvalidParameter(
                f"occlusion: a window of {self.window} px was asked for, the image has {size[0]}x{size[1]} px; "
                "choose a smaller window"
            )
        if self.stride > self.window:
            raise InvalidParameter(
                f"occlusion: a stride of {self.stride} px was asked for, which leaves gaps between windows of "
                f"{self.window} px; choose a stride of at most the window"
            )

    def _one(self, classifier: Classifier, image: torch.Tensor, wanted: int, turn: Turn) -> np.ndarray:
        """Mean drop per pixel of one image (channels, rows, columns), float64 (rows, columns)."""
        rows, columns = (self.starts(n) for n in image.shape[-2:])
        under = [
            (slice(top, top + self.window), slice(left, left + self.window)) for top in rows for left in columns
        ]
        hidden = baseline_of(classifier, image, self.baseline)

        def build(start: int, stop: int) -> torch.Tensor:
            batch = image.repeat(stop - start, 1, 1, 1)
            for row, place in zip(batch, [None, *under][start:stop], strict=True):  # the image itself comes first
                if place is not None:
                    row[:, *place] = hidden[:, *place]
            return batch

        untouched, *rest = turn.scores(classifier, len(under) + 1, build, wanted)
        total, covered = np.zeros(image.shape[-2:]), np.zeros(image.shape[-2:])
        for place, score in zip(under, rest, strict=True):
            total[place] += untouched - score
            covered[place] += 1
        return total / covered
