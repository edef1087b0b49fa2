"""Agreement of fills, reversals and compression: scipy and literal double loops, symmetries, written answers."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics import (
    Observations,
    agreement_of,
    fill_agreement,
    resample,
    reversals,
    spread_compression,
)

TABLES = arrays(np.float64, (6, 4, 3), elements=st.integers(-2, 2).map(float) | st.just(np.nan))


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    """Point (6, 4) and resampled (120, 6, 4) with ties, one cell refused."""
    rng = np.random.default_rng(2)
    point = np.round(rng.normal(size=(6, 4)), 1)
    resampled = np.round(point + 0.3 * rng.normal(size=(120, 6, 4)), 1)
    point[2, 1], resampled[:, 2, 1] = np.nan, np.nan
    return point, resampled


def scipy_tau(a, b) -> float:
    held = ~np.isnan(a) & ~np.isnan(b)
    return float(stats.kendalltau(a[held], b[held]).statistic) if held.sum() > 1 else float("nan")


def test_tau_is_scipys(tables):
    point, resampled = tables
    found = fill_agreement(point, resampled)
    for i, k in np.ndindex(4, 4):
        assert found.tau[i, k] == pytest.approx(scipy_tau(point[:, i], point[:, k]), abs=1e-9)
        drawn = [scipy_tau(row[:, i], row[:, k]) for row in resampled]
        assert (found.low[i, k], found.high[i, k]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)
        assert found.n[i, k] == (5 if 1 in (i, k) else 6)


@pytest.mark.filterwarnings("error")
@settings(deadline=None)
@given(TABLES)
def test_tau_is_symmetric_and_bounded(tables):
    found = fill_agreement(tables[0], tables[1:])
    np.testing.assert_array_equal(found.tau, found.tau.T)
    defined = found.tau[~np.isnan(found.tau)]
    assert (np.abs(defined) <= 1 + 1e-12).all()
    assert np.isin(np.diag(found.tau)[~np.isnan(np.diag(found.tau))], 1.0).all()
    np.testing.assert_allclose(fill_agreement(-tables[0], -tables[1:]).tau, found.tau, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_tau_written_answers():
    point = np.array([[1.0, 2.0, 1.0], [1.0, 3.0, np.nan], [1.0, 1.0, np.nan]])
    found = fill_agreement(point, point[None])
    assert np.isnan(found.tau[0]).all()  # the first fill ties all contenders
    assert np.isnan(found.tau[1, 2])  # one contender is shared
    assert (found.tau[1, 1], found.low[1, 1], found.high[1, 1], found.n[1, 2]) == (1.0, 1.0, 1.0, 1)
    drawn = fill_agreement(point, np.random.default_rng(0).normal(size=(9, 3, 3)))
    assert np.isnan(drawn.low[0]).all()  # no tau, no interval, even where resamples have one
    assert np.isnan(drawn.high[0]).all()
    alone = fill_agreement(point[:1], point[None, :1])
    assert np.isnan(alone.tau).all()


def test_agreement_of_a_summary_is_scipys(tables):
    point, resampled = tables
    rng = np.random.default_rng(5)
    reference, drawn_reference = rng.normal(size=6), rng.normal(size=(120, 6))
    moving = agreement_of(
        reference, point, resampled, better="lower", reference_better="higher", resampled_reference=drawn_reference
    )
    fixed = agreement_of(reference, point, resampled, better="higher", reference_better="higher")
    for f in range(4):
        tau = scipy_tau(reference, point[:, f])
        assert (moving[f].value, fixed[f].value) == pytest.approx((-tau, tau), abs=1e-9)
        for found, drawn in [
            (moving[f], [-scipy_tau(r, row[:, f]) for r, row in zip(drawn_reference, resampled, strict=True)]),
            (fixed[f], [scipy_tau(reference, row[:, f]) for row in resampled]),
        ]:
            assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)
        assert moving[f].n == (5 if f == 1 else 6)


def test_agreement_without_an_order_has_a_note(tables):
    found = agreement_of(np.ones(6), *tables, better="lower", reference_better="lower")[0]
    assert np.isnan(found.value)
    assert (found.low, found.note) == (None, "fewer than two contenders are shared, or one order ties them all")
    with pytest.raises(InvalidParameter, match=r"one value per contender \(6\), got \(5,\)"):
        agreement_of(np.ones(5), *tables, better="lower", reference_better="lower")


def literal_reversal(point, resampled, better, i, j):
    """The definitions of a reversal as loops over resamples and fills."""
    fills = [f for f in range(point.shape[1]) if not np.isnan(point[i, f] + point[j, f])]

    def lead(table, f):
        return float(np.sign(table[i, f] - table[j, f])) * (1 if better == "higher" else -1)

    def opposed(table, f, g):
        return f in fills and g in fills and lead(table, f) * lead(table, g) < 0

    pairs = list(itertools.combinations(range(point.shape[1]), 2))
    first, second = (
        any(sum(side * lead(row, f) > 0 for row in resampled) > 0.975 * len(resampled) for f in fills)
        for side in (1, -1)
    )
    shares = [np.mean([(lead(row, f) + 1) / 2 for f in fills]) for row in (point, *resampled)]
    return {
        "between": tuple((f, g) for f, g in pairs if opposed(point, f, g)),
        "probability": np.mean([any(opposed(row, f, g) for f, g in pairs) for row in resampled]),
        "two": {(f, g): np.mean([opposed(row, f, g) for row in resampled]) for f, g in pairs},
        "certain": first and second,
        "share": (shares[0], *np.quantile(shares[1:], [0.025, 0.975])),
        "fills": fills,
    }


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_reversals_are_the_literal_loops(better, tables):
    point, resampled = tables
    found = reversals(point, resampled, better)
    assert [(r.first, r.second) for r in found] == list(itertools.combinations(range(6), 2))
    for r in found:
        expected = literal_reversal(point, resampled, better, r.first, r.second)
        assert (r.between, r.reverses) == (expected["between"], bool(expected["between"]))
        assert r.probability == pytest.approx(expected["probability"], abs=1e-12)
        for (f, g), share in expected["two"].items():
            held = f in expected["fills"] and g in expected["fills"]
            for one in (r.probability_between[f, g], r.probability_between[g, f]):
                assert one == pytest.approx(share, abs=1e-9) if held else np.isnan(one)
        assert r.certain == expected["certain"]
        share = r.share_of_fills
        assert (share.value, share.low, share.high) == pytest.approx(expected["share"], abs=1e-12)
        assert share.n == len(expected["fills"])
    assert 0 < sum(r.reverses for r in found) < 15
    assert {r.certain for r in found} == {True, False}


def test_certain_means_intervals_on_opposite_sides_of_zero():
    rng = np.random.default_rng(0)
    gaps = rng.uniform(-3, 3, size=(40, 3))
    for gap in gaps:
        point = np.stack([np.zeros(3), gap])
        resampled = point + rng.normal(size=(1999, 2, 3)) / np.sqrt(2)
        difference = resampled[:, 1] - resampled[:, 0]
        low, high = np.quantile(difference, [0.025, 0.975], axis=0)
        assert reversals(point, resampled, "lower")[0].certain == bool((low > 0).any() and (high < 0).any())


@pytest.mark.filterwarnings("error")
@settings(deadline=None)
@given(TABLES)
def test_reversal_is_antisymmetric(tables):
    """Swapping the contenders, or the direction, turns the share of fills round and leaves the rest."""
    point, resampled = tables[0], tables[1:]
    found = reversals(point, resampled, "lower")
    swapped = {(3 - r.second, 3 - r.first): r for r in reversals(point[::-1], resampled[:, ::-1], "lower")}
    turned = reversals(point, resampled, "higher")
    for r, t in zip(found, turned, strict=True):
        for other in (swapped[r.first, r.second], t):
            assert (r.reverses, r.between, r.probability, r.certain) == (
                other.reverses, other.between, other.probability, other.certain,
            )  # fmt: skip
            np.testing.assert_array_equal(r.probability_between, other.probability_between)
            a, b = r.share_of_fills, other.share_of_fills
            np.testing.assert_allclose(a.value, 1 - b.value, atol=1e-12)
            assert (a.low is None) == (b.low is None)
            assert a.low is None or (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low), abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_reversal_written_answers():
    one_fill = reversals(np.array([[1.0], [2.0]]), np.array([[[1.0], [2.0]], [[3.0], [2.0]]]), "lower")[0]
    assert (one_fill.reverses, one_fill.probability, one_fill.certain, one_fill.between) == (False, 0.0, False, ())
    tie = reversals(np.ones((2, 3)), np.ones((4, 2, 3)), "lower")[0]
    assert (tie.reverses, tie.probability, tie.certain, tie.share_of_fills.value) == (False, 0.0, False, 0.5)
    assert (tie.probability_between == 0).all()
    apart = np.array([[1.0, np.nan], [np.nan, 1.0]])
    none = reversals(apart, apart[None], "lower")[0]
    assert (none.reverses, none.probability, none.certain) == (False, 0.0, False)
    assert np.isnan(none.probability_between).all()
    assert (none.share_of_fills.low, none.share_of_fills.n, none.share_of_fills.note) == (None, 0, "no fill has both")
    shaken = reversals(apart, np.random.default_rng(0).normal(size=(50, 2, 2)), "lower")[0]
    assert (shaken.probability, shaken.certain) == (0.0, False)  # cells without a point estimate are left out
    assert reversals(np.ones((1, 3)), np.ones((4, 1, 3)), "lower") == []


def test_compression_is_the_literal_ratio():
    rng = np.random.default_rng(3)
    point = np.array([[0.1, 0.2], [0.7, 0.3], [0.4, 0.9], [0.30, 0.1], [0.35, 0.2], [0.45, 0.4]])
    resampled = point + 0.02 * rng.normal(size=(90, 6, 2))
    found = spread_compression(point, resampled, np.array([0, 1, 2]), np.array([3, 4, 5]))

    def ratio(table, f):
        native, agnostic = [table[c, f] for c in (0, 1, 2)], [table[c, f] for c in (3, 4, 5)]
        return (max(agnostic) - min(agnostic)) / (max(native) - min(native))

    assert [e.value for e in found] == pytest.approx([0.25, 0.3 / 0.7], abs=1e-12)
    for f in range(2):
        low, high = np.quantile([ratio(row, f) for row in resampled], [0.025, 0.975])
        assert (found[f].low, found[f].high, found[f].n) == (pytest.approx(low), pytest.approx(high), 3)


@pytest.mark.filterwarnings("error")
def test_compression_written_answers():
    point = np.array(
        [[1.0, 1.0, np.nan], [2.0, 1.0, 2.0], [9.0, 1.0, 3.0], [1.0, 2.0, 1.0], [4.0, 3.0, 1.0], [np.nan] * 3]
    )
    found = spread_compression(point, point[None], [0, 1, 2], [3, 4, 5])
    assert (found[0].value, found[0].n) == (3.0, 2)  # the third family has no agnostic number: left out of both
    assert np.isnan([found[1].value, found[2].value]).all()
    assert (found[1].low, found[1].note) == (None, "the native means are all equal: nothing to compress")
    assert (found[2].low, found[2].note) == (None, "a spread needs two families, found 1")
    with pytest.raises(InvalidParameter, match="one contender each of the same families"):
        spread_compression(point, point[None], [0, 1], [3])


@pytest.mark.slow
def test_a_large_study_takes_seconds():
    rng = np.random.default_rng(0)
    observed = Observations.of_units(rng.normal(size=(40, 8, 2000)), "lower")
    start = time.perf_counter()
    resampled = resample(observed, rng)
    reversals(observed.means(), resampled, "lower")
    fill_agreement(observed.means(), resampled)
    assert time.perf_counter() - start < 15  # about 2 s on one idle core
