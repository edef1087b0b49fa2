"""Health: each thing that can be wrong with a map is found, and a good map is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from audit_core.health import Finding, findings

GOOD = np.random.default_rng(0).random((8, 8)).astype(np.float32)


def codes(
    values: np.ndarray = GOOD, untouched: float = 0.7, quantity: str = "probability", **extra: object
) -> list[str]:
    return [finding.code for finding in findings(values, untouched, quantity, 9, extra)]


def test_a_good_map_has_no_findings() -> None:
    assert findings(GOOD, 0.7, "probability", 9) == ()
    assert codes(-GOOD, layer="stage4", grid=[8, 8], masks=2000) == []


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.where(GOOD > 0.9, np.nan, GOOD), "not-finite"),
        (np.where(GOOD > 0.9, np.inf, GOOD), "not-finite"),
        (np.zeros((8, 8)), "zero"),
        (np.full((8, 8), -3.0), "constant"),
    ],
)
def test_a_map_without_an_order_is_sick(values: np.ndarray, code: str) -> None:
    (found,) = findings(values, 0.7, "probability", 9)
    assert (found.code, found.severity) == (code, "sick")


def test_how_many_values_are_not_finite_is_said() -> None:
    values = GOOD.copy()
    values[0, :3] = np.nan
    assert "3 of 64" in findings(values, 0.7, "probability", 9)[0].sentence


def test_a_flat_map_is_named_as_the_verdict_reads_it() -> None:
    for values in (np.zeros((8, 8)), np.ones((8, 8))):
        assert "order is the tie rule" in findings(values, 0.7, "probability", 9)[0].sentence


def test_a_mostly_tied_map_is_odd_and_does_not_pass_for_a_flat_one() -> None:
    (found,) = findings(np.maximum(GOOD - 0.6, 0), 0.7, "probability", 9)
    assert (found.code, found.severity) == ("tied", "odd")
    assert "order is the tie rule" not in found.sentence
    assert codes(np.maximum(GOOD - 0.4, 0)) == []


@pytest.mark.parametrize(
    ("untouched", "quantity", "expected"),
    [
        (0.11, "probability", ["below-chance"]),
        (0.12, "probability", []),
        (1 - 1e-7, "probability", ["saturated"]),
        (1 - 1e-5, "probability", []),
        (-4.0, "logit", []),
        (30.0, "logit", []),
    ],
)
def test_the_score_is_judged_as_a_probability_only(untouched: float, quantity: str, expected: list[str]) -> None:
    assert codes(GOOD, untouched, quantity) == expected


def test_what_the_explainer_reports_is_judged() -> None:
    assert codes(largest_gradient=0.0) == ["no-gradient"]
    assert codes(largest_gradient=[1e-9]) == []
    assert codes(completeness_relative=[0.3]) == ["completeness"]
    assert codes(completeness_relative=[None]) == []
    assert codes(completeness_relative=float("nan")) == ["completeness"]
    assert codes(conservation=[-0.3]) == ["conservation"]
    assert codes(conservation=2.5) == ["conservation"]
    assert codes(completeness_relative=0.02, conservation=[0.8]) == []


def test_the_gravest_come_first() -> None:
    found = findings(np.zeros((8, 8)), 0.01, "probability", 9, {"completeness_relative": 1.0, "largest_gradient": 0})
    assert [finding.severity for finding in found] == ["sick", "sick", "odd", "odd"]
    assert len({finding.code for finding in found}) == 4


def test_a_severity_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="sick, odd"):
        Finding("code", "grave", "words")
