"""What one audit lets you say: the verdict of the curves, and the points that further measures add."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import make_record

from audit_core.metrics import Measure
from audit_core.types import Effect
from audit_core.verdict import points, verdict


def effect(low, high):
    return Effect((low + high) / 2, low, high, 8, "t interval over random orders")


@pytest.mark.parametrize(("deletion", "insertion", "word", "says"), [
    ((0.1, 0.2), (0.1, 0.2), "supported", "better than chance"),
    ((0.1, 0.2), (-0.1, 0.2), "qualified", "insertion is no better than it"),
    ((-0.2, -0.1), (0.1, 0.2), "qualified", "deletion is worse than it"),
    ((-0.1, 0.1), (-0.1, 0.1), "not supported", "no better than removing pixels at random"),
    ((-0.2, -0.1), (-0.2, -0.1), "not supported", "worse than removing pixels at random"),
])  # fmt: skip
def test_both_intervals_decide(deletion, insertion, word, says):
    advantage = {"deletion": effect(*deletion), "insertion": effect(*insertion)}
    found = verdict(dataclasses.replace(make_record(), advantage=advantage))
    assert found.word == word
    assert says in found.sentence


def test_a_sick_map_and_a_missing_level_are_not_judged():
    record = make_record()
    flat = dataclasses.replace(record, values=np.zeros_like(record.values))
    assert flat.sick
    assert not record.sick
    assert verdict(flat).word == "not computable"
    assert "zero everywhere" in verdict(flat).sentence
    assert verdict(dataclasses.replace(record, advantage={})).word == "not computable"


def good(measures):
    return {point.topic: point.good for point in points(make_record(), measures)}


def test_what_was_not_measured_is_unknown():
    assert good({}) == {"health": True, "SRG": None, "controls": None, "parameters": None, "class": None}
    assert good({"srg": Measure.refusal("no curves")})["SRG"] is None


def test_measures_speak_for_or_against_the_map():
    beaten = {f"beats-{name}": Measure(0.2, "", 0.1, 0.3, 8) for name in ("random", "intensity", "centre", "edges")}
    found = good({
        "srg": Measure(0.3, "better"), **beaten,
        "parameter-randomisation": Measure(0.1, "it changes"), "label-flip": Measure(0.9, "it stays"),
    })  # fmt: skip
    assert found == {"health": True, "SRG": True, "controls": True, "parameters": True, "class": False}
    wide = {"parameter-randomisation": Measure(0.1, "it may change", -0.6, 0.7, 3)}
    assert good(wide)["parameters"] is None
    lost = {**beaten, "beats-random": Measure(0.1, "", -0.1, 0.3, 8), "beats-edges": Measure(-0.2, "")}
    (controls,) = [point for point in points(make_record(), lost) if point.topic == "controls"]
    assert controls.good is False
    assert "random, edges" in controls.sentence
