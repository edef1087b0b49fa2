"""Witnesses that stand nowhere else: entries whose number is made once more by another library or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evidence import Given, evidence
from scipy import ndimage, stats

from audit_core.keys import Choice
from audit_core.metrics import METRICS, Evidence, Measure

SIDE = 16


def turn_stability(found: Evidence) -> tuple[Measure, list[float]]:
    """The measure of three draws up to 40 degrees, and the angles that it draws."""
    metric = METRICS.build(Choice("rotation-stability", (("degrees", 40.0), ("draws", 3))))
    assert metric.refuse(found) is None
    angles = [float(np.random.default_rng((0, 51, n)).uniform(-40, 40)) for n in range(3)]
    return metric.measure(found), angles


def turned_places(degrees: float) -> np.ndarray:
    """Where each pixel goes, as right + up i from the middle, when the image turns counter-clockwise."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return (columns - 1j * rows) * np.exp(1j * np.radians(degrees))


def visible(degrees: float) -> np.ndarray:
    places = turned_places(degrees)
    return np.maximum(abs(places.real), abs(places.imag)) < SIDE / 2


def test_rotation_stability_is_that_of_scipys_rotation_draw_by_draw() -> None:
    found = evidence()
    measure, angles = turn_stability(found)
    expected = []
    for degrees in angles:
        settings = {"reshape": False, "order": 1, "mode": "nearest"}
        image = ndimage.rotate(found.record.pixels, degrees, axes=(1, 2), **settings)
        target = torch.tensor([found.record.target])
        values = found.explainer.attribute(found.classifier, torch.from_numpy(image)[None], target, 0).values[0]
        back, inside = ndimage.rotate(values, -degrees, **settings), visible(degrees)
        expected.append(stats.spearmanr(back[inside], found.values[inside]).statistic)
    assert measure.extra["draws"] == pytest.approx(expected, abs=1e-3)
    assert measure.value == pytest.approx(np.mean(expected), abs=1e-3)
    assert min(expected) < 0.95, "the turn must show"


def test_rotation_stability_of_a_fixed_ramp_is_that_of_the_leaning_ramp() -> None:
    """A map that never changes is turned back all the same: a ramp leans, in closed form, by the angle."""
    ramp = np.tile(np.arange(float(SIDE)), (SIDE, 1))
    found = evidence(explainer=Given(ramp))
    measure, angles = turn_stability(found)
    for degrees, ours in zip(angles, measure.extra["draws"], strict=True):
        leaning = np.clip(turned_places(degrees).real + (SIDE - 1) / 2, 0, SIDE - 1)  # the edge goes on
        inside = visible(degrees)
        assert ours == pytest.approx(stats.spearmanr(leaning[inside], ramp[inside]).statistic, abs=2e-3)
        assert ours < 0.999
