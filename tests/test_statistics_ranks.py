"""Ranks and joint resampling: literal loops over the same draws, closed forms, and written answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from audit_core.errors import InvalidParameter
from audit_core.statistics import Observations, mean_ranks, rank, rank_intervals, resample

CELLS = arrays(np.float64, (4, 3), elements=st.integers(-2, 2).map(float) | st.just(np.nan))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def literal_rank(values, better):
    """Mean of the places among the present values."""
    ranks = []
    for x in values:
        wins = sum((y < x if better == "lower" else y > x) for y in values if not np.isnan(y))
        ties = sum(y == x for y in values)
        ranks.append(np.nan if np.isnan(x) else wins + (ties + 1) / 2)
    return ranks


@given(CELLS, st.sampled_from(["lower", "higher"]))
def test_rank_is_the_literal_count(values, better):
    for f in range(3):
        np.testing.assert_array_equal(rank(values[:, f], better), literal_rank(values[:, f], better))
    np.testing.assert_array_equal(rank(values, better), rank(values.T, better, axis=1).T)


def test_rank_by_hand():
    assert rank(np.array([0.5, 0.2, np.nan, 0.5]), "lower").tolist()[:2] == [2.5, 1.0]
    assert rank(np.array([0.5, 0.2, 0.9]), "higher").tolist() == [2.0, 3.0, 1.0]
    with pytest.raises(InvalidParameter, match="better must be 'lower' or 'higher'"):
        rank(np.ones(2), "smaller")


def holed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(size=shape)
    values[rng.random(shape) < 0.15] = np.nan
    return values


def test_means_are_over_all_values_of_all_runs(rng):
    values = holed(rng, (3, 2, 4, 7))
    values[1, 0] = np.nan
    found = Observations.of_units(values, "lower").means()
    assert np.isnan(found[1, 0])
    for c, f in [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)]:
        held = [v for v in values[c, f].ravel() if not np.isnan(v)]
        assert found[c, f] == pytest.approx(sum(held) / len(held), abs=1e-12)


@pytest.mark.parametrize("holes", [False, True])
def test_drawing_images_is_the_literal_joint_draw(holes, rng):
    values = holed(rng, (3, 2, 9)) if holes else rng.normal(size=(3, 2, 9))
    found = resample(Observations.of_units(values, "lower"), np.random.default_rng(4), 40)
    drawn = np.random.default_rng(4).integers(9, size=(40, 9))
    for b, c, f in np.ndindex(40, 3, 2):
        held = [values[c, f, u] for u in drawn[b] if not np.isnan(values[c, f, u])]
        assert found[b, c, f] == pytest.approx(sum(held) / len(held), abs=1e-12)


@pytest.mark.parametrize("holes", [False, True])
def test_drawing_runs_and_images_is_the_literal_crossed_draw(holes, rng):
    values = holed(rng, (4, 2, 3, 9)) if holes else rng.normal(size=(4, 2, 3, 9))
    values[2, :, 2] = np.nan  # the second family has two runs
    values[3, :, 2] = np.nan
    family = np.array([5, 5, 8, 8])
    observed = Observations.of_units(values, "lower", family)
    found = resample(observed, np.random.default_rng(4), 30, "runs+images")
    draws = np.random.default_rng(4)
    units = draws.integers(9, size=(30, 9))
    runs = {5: draws.integers(3, size=(30, 3)), 8: draws.integers(2, size=(30, 2))}
    for b, c, f in np.ndindex(30, 4, 2):
        cell = [values[c, f, r, u] for r in runs[family[c]][b] for u in units[b]]
        held = [v for v in cell if not np.isnan(v)]
        assert found[b, c, f] == pytest.approx(sum(held) / len(held), abs=1e-12)


def test_images_keep_the_runs_as_they_are(rng):
    values = rng.normal(size=(2, 2, 3, 8))
    found = resample(Observations.of_units(values, "lower"), np.random.default_rng(1), 20)
    pooled = Observations.of_units(values.mean(axis=2), "lower")
    np.testing.assert_allclose(found, resample(pooled, np.random.default_rng(1), 20), atol=1e-12)


def test_batches_do_not_change_the_draw(rng, monkeypatch):
    observed = Observations.of_units(holed(rng, (2, 2, 2, 11)), "lower", family=np.array([0, 1]))
    whole = resample(observed, np.random.default_rng(1), 50)
    monkeypatch.setattr("audit_core.statistics.resampling._BATCH", 77)
    np.testing.assert_allclose(resample(observed, np.random.default_rng(1), 50), whole, atol=1e-12, equal_nan=True)
    assert resample(observed, rng, 50, "runs+images").shape == (50, 2, 2)


def test_pairing_is_kept(rng):
    """A difference that is the same on every unit has no spread, however much the units differ."""
    values = rng.normal(size=(1, 1, 50)) * 10 + np.array([[[0.0]], [[0.25]]])
    found = resample(Observations.of_units(values, "lower"), rng, 100)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 0.25, atol=1e-12)
    assert found.std(axis=0).min() > 0.5


def test_spread_has_the_closed_form(rng):
    values = rng.normal(size=(1, 1, 4, 60)) + rng.normal(size=(1, 1, 4, 1)) + rng.normal(size=(1, 1, 1, 60))
    observed = Observations.of_units(values, "lower", family=np.array([0]))
    table, (runs, units) = values[0, 0], (4, 60)
    over_units, over_runs = table.mean(axis=0).var() / units, table.mean(axis=1).var() / runs
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    both = over_units + over_runs + rest.var() / (runs * units)
    tolerance = 5 * np.sqrt(2 / 20_000)
    assert resample(observed, rng, 20_000).var() == pytest.approx(over_units, rel=tolerance)
    assert resample(observed, rng, 20_000, "runs+images").var() == pytest.approx(both, rel=tolerance)


def test_large_sets_are_grouped(rng):
    values = rng.normal(size=(2, 1, 50_000))
    observed = Observations.of_units(values, "lower", rng=rng)
    assert observed.total.shape == (2, 1, 1, 2000)
    np.testing.assert_allclose(observed.means()[:, 0], values.mean(axis=2)[:, 0], atol=1e-12)
    assert set(np.unique(observed.count)) == {25.0}
    assert resample(observed, rng).std(axis=0)[0, 0] == pytest.approx(1 / np.sqrt(50_000), rel=0.1)
    assert Observations.of_units(values[..., :2000], "lower", rng=rng).total.shape[-1] == 2000
    np.testing.assert_array_equal(
        Observations.of_units(values[..., :9], "lower", rng=rng).total[:, :, 0], values[..., :9]
    )


@pytest.mark.filterwarnings("error")
def test_a_cell_without_values_stays_without(rng):
    values = rng.normal(size=(3, 2, 1))
    values[1, 0] = np.nan
    found = resample(Observations.of_units(values, "higher"), rng, 5)
    assert np.isnan(found[:, 1, 0]).all()
    np.testing.assert_allclose(found[:, 0], np.broadcast_to(values[0, :, 0], (5, 2)), atol=1e-12)  # one unit: no spread
    table = rank_intervals(values[:, :, 0], found, "higher")
    assert np.isnan([table.rank[1, 0], table.low[1, 0], table.high[1, 0], table.probability_best[1, 0]]).all()
    assert np.nansum(table.probability_best, axis=0).tolist() == [1.0, 1.0]


def test_observations_refuse_what_does_not_fit(rng):
    with pytest.raises(InvalidParameter, match=r"one shape \(contenders, fills, runs, groups\)"):
        Observations(np.ones((2, 2, 3)), np.ones((2, 2, 4)), "lower")
    with pytest.raises(InvalidParameter, match="family must name 2 contenders"):
        Observations(np.ones((2, 2, 3)), np.ones((2, 2, 3)), "lower", family=np.arange(3))
    with pytest.raises(InvalidParameter, match="a missing value has total 0, count 0"):
        Observations(np.full((2, 2, 3), np.nan), np.ones((2, 2, 3)), "lower")
    observed = Observations.of_units(np.ones((2, 1, 2, 5)), "lower")
    with pytest.raises(InvalidParameter, match="drawing training runs needs family"):
        resample(observed, rng, 10, "runs+images")
    with pytest.raises(InvalidParameter, match="scheme must be 'images' or 'runs"):
        resample(observed, rng, 10, "runs")
    with pytest.raises(InvalidParameter, match="resamples must be at least 1, got 0"):
        resample(observed, rng, 0)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_rank_intervals_are_literal(better, rng):
    point, resampled = rng.normal(size=(5, 3)), np.round(rng.normal(size=(30, 5, 3)), 1)
    table = rank_intervals(point, resampled, better)
    ranks = np.array([[literal_rank(row[:, f], better) for f in range(3)] for row in resampled])  # (B, F, C)
    for c, f in np.ndindex(5, 3):
        drawn = sorted(ranks[:, f, c])
        assert table.rank[c, f] == literal_rank(point[:, f], better)[c]
        assert (table.low[c, f], table.high[c, f]) == (drawn[int(0.025 * 29)], drawn[int(np.ceil(0.975 * 29))])
        best = [row[:, f].min() if better == "lower" else row[:, f].max() for row in resampled]
        won = sum((row[c, f] == top) / (row[:, f] == top).sum() for row, top in zip(resampled, best, strict=True))
        assert table.probability_best[c, f] == pytest.approx(won / 30, abs=1e-12)
    np.testing.assert_allclose(table.probability_best.sum(axis=0), 1, atol=1e-12)


def test_rank_bounds_are_ranks_that_occurred():
    resampled = np.array([[[1.0], [2.0]], [[2.0], [1.0]]])
    table = rank_intervals(resampled[0], resampled, "lower")
    assert (table.low.ravel().tolist(), table.high.ravel().tolist()) == ([1, 1], [2, 2])
    assert table.probability_best.ravel().tolist() == [0.5, 0.5]


def test_mean_ranks_are_literal(rng):
    point, resampled = rng.normal(size=(4, 3)), rng.normal(size=(60, 4, 3))
    point[1, 2], resampled[:, 1, 2] = np.nan, np.nan
    point[3], resampled[:, 3] = np.nan, np.nan
    found = mean_ranks(point, resampled, "lower")

    def literal(table, c):
        return np.nanmean([literal_rank(table[:, f], "lower")[c] for f in range(3)])

    for c in range(3):
        drawn = [literal(row, c) for row in resampled]
        assert found[c].value == pytest.approx(literal(point, c), abs=1e-12)
        assert (found[c].low, found[c].high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-12)
        assert found[c].n == (2 if c == 1 else 3)
    assert np.isnan(found[3].value)
    assert (found[3].low, found[3].n, found[3].note) == (None, 0, "no number")


@settings(deadline=None)
@given(CELLS)
def test_ranks_of_present_contenders_sum_to_a_triangle(values):
    held = (~np.isnan(values)).sum(axis=0)
    np.testing.assert_allclose(np.nansum(rank(values, "lower"), axis=0), held * (held + 1) / 2, atol=1e-12)


def test_shapes_that_do_not_fit_are_refused(rng):
    with pytest.raises(InvalidParameter, match=r"got \(4, 2\) and \(9, 4, 3\)"):
        rank_intervals(np.ones((4, 2)), np.ones((9, 4, 3)), "lower")
