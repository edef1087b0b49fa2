"""Does the map follow the image when the image moves a little?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from scipy import ndimage

from audit_core.explainers.base import Cost
from audit_core.metrics.base import FLAT, METRICS, Budget, Evidence, Measure, Metric, Report, over_budget, silent
from audit_core.metrics.similarity import rank_correlation
from audit_core.params import Between

Draws = Annotated[int, Between(2, 200, "draws", "Changed images, each explained once; fewer where the budget ends.")]
SOURCE = "after Alvarez-Melis and Jaakkola 2018, https://arxiv.org/abs/1806.08049"
CODES = 3  # an image of at most so many values holds codes, which must not be mixed


@dataclass(frozen=True)
class Change:
    """A changed image, and how a map of it is laid back over the original.

    pixels: float32 (channels, rows, columns) in [0, 1]; back: map (rows, columns) -> map in the original's frame;
    inside: bool (rows, columns), where that frame was still visible.
    """

    pixels: np.ndarray
    back: Callable[[np.ndarray], np.ndarray]
    inside: np.ndarray


class _Stability(Metric):
    """Rank correlation of the map with maps of changed images, laid back."""

    draws: int
    budget: int
    family: ClassVar[str] = "stability"
    better: ClassVar[str] = "higher"
    span: ClassVar[str] = "-1 to 1; 1 = the map moves exactly with the image"
    source: ClassVar[str] = SOURCE

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map agrees with nothing; two maps must fit the budget, or there is no interval."""
        return FLAT if evidence.flat else over_budget(evidence, 2, self.budget)

    def cost(self, evidence: Evidence) -> Cost:
        """One map and one prediction per draw."""
        draws = self._affordable(evidence)
        return evidence.cost_of(draws, draws)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """Mean rank correlation inside what stays visible, with its t interval over the draws."""
        draws, pixels = self._affordable(evidence), np.array(evidence.record.pixels)
        found, changes = [], [self.change(pixels, self._rng(evidence, n)) for n in range(draws)]
        for n, change in enumerate(changes):
            report(n / draws, f"Explaining changed image {n + 1} of {draws}")
            map_of_change = evidence.explain(self._on_device(change, evidence))[0]
            inside = change.inside
            found.append(rank_correlation(evidence.values[inside], change.back(map_of_change)[inside]))
        images = torch.cat([self._on_device(change, evidence) for change in changes])
        kept = int((evidence.classifier.predict(images).argmax(1) == evidence.record.predicted).sum())
        words = f"{self.words(draws)} the map keeps a rank correlation of {np.mean(found):.2f} on average"
        sentence = f"{words}; the prediction stayed in {kept} of {draws}."
        method = "t interval over draws"
        return Measure.over(np.array(found), sentence, method, draws=found, same_prediction=kept)

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> Change:
        """One changed image of pixels (channels, rows, columns)."""
        raise NotImplementedError

    def words(self, draws: int) -> str:
        """The beginning of the sentence: what was done, how often."""
        raise NotImplementedError

    def _affordable(self, evidence: Evidence) -> int:
        return min(self.draws, max(2, evidence.explanations(self.budget)))

    def _rng(self, evidence: Evidence, n: int) -> np.random.Generator:
        return np.random.default_rng((evidence.record.spec.seed, 51, n))

    def _on_device(self, change: Change, evidence: Evidence) -> torch.Tensor:
        return torch.from_numpy(change.pixels)[None].to(evidence.classifier.device)


@METRICS.register("rotation-stability")
@dataclass(frozen=True)
class RotationStability(_Stability):
    """Rotation stability: the image is turned a little, explained, and the map is turned back.

    Angles are uniform within plus and minus ``degrees``, about the middle; beyond the border the edge pixels go on.
    Images that hold codes (at most three values, as a wafer map) are turned by nearest neighbour, others linearly. The
    correlation is taken where the original stays visible.
    """

    degrees: Annotated[float, Between(0.5, 180.0, "degrees", "Largest angle.")] = 15.0
    draws: Draws = 8
    budget: Budget = 10_000

    title: ClassVar[str] = "Rotation stability"
    formula: ClassVar[str] = "mean over angles a of rho(m(x), turn_-a m(turn_a x)) where x stays visible"
    witness: ClassVar[str] = (
        "scipy.ndimage.rotate, draw by draw; quarter turns by numpy: "
        "tests/test_witness.py::test_rotation_stability_is_that_of_scipys_rotation_draw_by_draw, "
        "tests/test_metrics.py::test_quarter_turns_are_numpys"
    )
    pitfalls: ClassVar[str] = (
        "A model may rightly answer otherwise when up and down matter, and coarse maps cannot turn: see whether the "
        "prediction stayed."
    )

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> Change:
        """Turned by a random angle."""
        return turned(pixels, float(rng.uniform(-self.degrees, self.degrees)))

    def words(self, draws: int) -> str:
        """Turned so many times by so much."""
        return f"Turned {draws} times by up to {self.degrees:g} degrees,"


def turned(pixels: np.ndarray, degrees: float) -> Change:
    """The image turned about its middle; positive angles turn counter-clockwise as it is drawn."""
    size = pixels.shape[1:]
    order = 0 if len(np.unique(pixels)) <= CODES else 1
    there, back = _turn(size, degrees), _turn(size, -degrees)
    image = np.stack([ndimage.map_coordinates(one, there, order=order, mode="nearest") for one in pixels])
    limits = [(axis > -0.5 - 1e-9) & (axis < n - 0.5 + 1e-9) for axis, n in zip(back, size, strict=True)]
    return Change(
        np.clip(image, 0, 1).astype(np.float32),
        lambda values: ndimage.map_coordinates(values, back, order=1, mode="nearest"),
        limits[0] & limits[1],
    )


def _turn(size: tuple[int, ...], degrees: float) -> np.ndarray:
    """Where each pixel of the turned image comes from: rows and columns, float64 (2, rows, columns)."""
    middle = np.array([(n - 1) / 2 for n in size])[:, None, None]
    rows, columns = np.mgrid[: size[0], : size[1]] - middle
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([cosine * rows + sine * columns, cosine * columns - sine * rows]) + middle


@METRICS.register("shift-stability")
@dataclass(frozen=True)
class ShiftStability(_Stability):
    """Shift stability: the image is moved by whole pixels, explained, and the map is moved back.

    Both steps are uniform within plus and minus ``pixels``, never both 0; the edge pixels go on into what comes in. The
    correlation is taken where the original stays visible.
    """

    pixels: Annotated[int, Between(1, 256, "px", "Largest step along each axis; at most half the image.")] = 4
    draws: Draws = 8
    budget: Budget = 10_000

    title: ClassVar[str] = "Shift stability"
    formula: ClassVar[str] = "mean over steps s of rho(m(x), shift_-s m(shift_s x)) where x stays visible"
    witness: ClassVar[str] = (
        "slices written out; a map that is a function of single pixels comes back as it was: "
        "tests/test_metrics.py::test_a_move_is_a_slice, "
        "tests/test_metrics.py::test_a_pixelwise_map_moves_exactly_with_the_image"
    )
    pitfalls: ClassVar[str] = (
        "A map on a coarse grid or on patches moves in whole cells only, so small steps cost it without any fault of "
        "the explanation."
    )

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> Change:
        """Moved by a random step."""
        limits = [min(self.pixels, n // 2) for n in pixels.shape[1:]]
        step = np.zeros(2, dtype=int)
        while not step.any():
            step = np.array([rng.integers(-limit, limit + 1) for limit in limits])
        return moved(pixels, int(step[0]), int(step[1]))

    def words(self, draws: int) -> str:
        """Moved so many times by so much."""
        return f"Moved {draws} times by up to {self.pixels} pixels,"


def moved(pixels: np.ndarray, down: int, right: int) -> Change:
    """The image moved by whole pixels; a pixel at (r, c) stands at (r + down, c + right) afterwards."""
    rows, columns = (np.arange(n) for n in pixels.shape[1:])
    source = [np.clip(line - step, 0, len(line) - 1) for line, step in ((rows, down), (columns, right))]
    target = [line + step for line, step in ((rows, down), (columns, right))]
    seen = [(line >= 0) & (line < len(line)) for line in target]
    clipped = [np.clip(line, 0, len(line) - 1) for line in target]
    return Change(
        np.ascontiguousarray(pixels[:, source[0][:, None], source[1][None]]),
        lambda values: values[clipped[0][:, None], clipped[1][None]],
        seen[0][:, None] & seen[1][None],
    )


@METRICS.register("noise-stability")
@dataclass(frozen=True)
class NoiseStability(_Stability):
    """Noise stability: a little normal noise is added to every pixel, and the image is explained again.

    The noise is clipped to 0 to 1 with the image. The explainer's own random draws stay the same, so what changes is
    the map and not its sampling.
    """

    sigma: Annotated[float, Between(0.001, 0.5, help="Standard deviation of the noise, in pixel units.")] = 0.02
    draws: Draws = 8
    budget: Budget = 10_000

    title: ClassVar[str] = "Noise stability"
    formula: ClassVar[str] = "mean over noise e of rho(m(x), m(clip(x + e)))"
    witness: ClassVar[str] = (
        "scipy's Spearman correlation of maps explained one by one; 1 for maps blind to the image: "
        "tests/test_metrics.py::test_noise_stability_is_scipys_correlation_of_maps_made_one_by_one, "
        "tests/test_metrics.py::test_a_pixelwise_map_moves_exactly_with_the_image"
    )
    pitfalls: ClassVar[str] = (
        "A map that ignores the image is perfectly stable. Noise on images that hold codes is unlike anything learned."
    )

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> Change:
        """With noise added."""
        noisy = pixels + self.sigma * rng.standard_normal(pixels.shape)
        inside = np.ones(pixels.shape[1:], dtype=bool)
        return Change(np.clip(noisy, 0, 1).astype(np.float32), lambda values: values, inside)

    def words(self, draws: int) -> str:
        """Noise of so much, so many times."""
        return f"Under noise of {self.sigma:g} added {draws} times,"


@METRICS.register("max-sensitivity")
@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """Max-sensitivity: the largest relative change of the map within a small box around the image.

    Noise is uniform within plus and minus ``radius`` in every pixel and channel, and the result is clipped to 0 to 1.
    The change is the Euclidean length of the difference of the maps, divided by that of the map.
    """

    radius: Annotated[float, Between(0.0005, 0.5, help="Half the side of the box, in pixel units.")] = 0.02
    samples: Annotated[int, Between(1, 1000, "images", "Changed images at most, each explained once.")] = 10
    budget: Budget = 10_000

    title: ClassVar[str] = "Max-sensitivity"
    family: ClassVar[str] = "stability"
    better: ClassVar[str] = "lower"
    span: ClassVar[str] = "0 and up; 0 = the map never moves"
    formula: ClassVar[str] = "max over |e|_inf <= r of ||m(x + e) - m(x)|| / ||m(x)||"
    source: ClassVar[str] = "Yeh et al. 2019, https://arxiv.org/abs/1901.09392"
    witness: ClassVar[str] = (
        "captum's sensitivity_max on the same noise; 0 for maps blind to the image: "
        "tests/test_metrics.py::test_max_sensitivity_is_captums_on_the_same_noise"
    )
    pitfalls: ClassVar[str] = (
        "The largest of few draws is a lower bound and grows with their number; a map that ignores the image scores 0."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A map of zeros has no length to compare with; one map must fit the budget."""
        if not evidence.values.any():
            return "the map is zero everywhere, so a relative change has no meaning"
        return over_budget(evidence, 1, self.budget)

    def cost(self, evidence: Evidence) -> Cost:
        """One map per changed image."""
        return evidence.cost_of(self._affordable(evidence))

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The largest change; extra holds all of them."""
        found, samples, length = [], self._affordable(evidence), float(np.linalg.norm(evidence.values))
        for n in range(samples):
            report(n / samples, f"Explaining changed image {n + 1} of {samples}")
            image = self.change(np.array(evidence.record.pixels), evidence.record.spec.seed, n)
            values = evidence.explain(torch.from_numpy(image)[None].to(evidence.classifier.device))[0]
            found.append(float(np.linalg.norm(values - evidence.values)) / length)
        value = max(found)
        words = f"Within {self.radius:g} of each pixel the map changes by up to {value:.0%} of its length"
        return Measure(value, f"{words} ({samples} images).", extra={"changes": found})

    def change(self, pixels: np.ndarray, seed: int, n: int) -> np.ndarray:
        """The n-th changed image of pixels (channels, rows, columns), float32."""
        rng = np.random.default_rng((seed, 52, n))
        return np.clip(pixels + rng.uniform(-self.radius, self.radius, pixels.shape), 0, 1).astype(np.float32)

    def _affordable(self, evidence: Evidence) -> int:
        return min(self.samples, max(1, evidence.explanations(self.budget)))
