"""Bootstrap intervals: scipy and literal loops as witnesses, written answers, and the rate at which they cover."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.statistics import Estimate, Interval, bca, clustered_bootstrap, paired_clustered, random_groups
from audit_core.statistics.bootstrap import _resampled_medians
from audit_core.statistics.clusters import _two_stages
from audit_core.statistics.estimates import from_resamples, percentile_bounds


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


SKEWED, BINARY = np.random.default_rng(1).gamma(1.5, size=47), (np.arange(30) % 3 == 0) * 1.0


@pytest.mark.parametrize(
    ("statistic", "witness", "sample"),
    [("mean", np.mean, SKEWED), ("mean", np.mean, BINARY), ("median", np.median, SKEWED)],
)
def test_bca_is_scipys(statistic, witness, sample):
    found = bca(sample, statistic, np.random.default_rng(5), 999)
    expected = stats.bootstrap((sample,), witness, n_resamples=999, rng=np.random.default_rng(5)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.value, found.n) == (pytest.approx(witness(sample), abs=1e-12), len(sample))
    assert (found.method, found.note) == ("BCa bootstrap", "")


def test_missing_values_are_left_out_and_n_says_so(rng):
    sample = rng.normal(size=20)
    holed = np.insert(sample, [3, 9], np.nan)
    assert bca(holed, "mean", np.random.default_rng(2)) == bca(sample, "mean", np.random.default_rng(2))
    assert bca(holed, "mean", rng).n == 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_written_answers(statistic, rng):
    empty, one, equal = ([np.nan], [0.4, np.nan], [0.3] * 5)
    found = bca(np.array(empty), statistic, rng)
    assert np.isnan(found.value)
    assert (found.low, found.high, found.n, found.note) == (None, None, 0, "no value is present")
    found = bca(np.array(one), statistic, rng)
    assert (found.value, found.low, found.high, found.n, found.note) == (
        0.4,
        None,
        None,
        1,
        "one value has no interval",
    )
    found = bca(np.array(equal), statistic, rng)
    assert (found.value, found.low, found.high, found.n) == (0.3, 0.3, 0.3, 5)
    assert found.note == "all values are equal: the interval has width 0"


@pytest.mark.filterwarnings("error")
def test_where_bca_is_undefined_the_percentile_interval_stands_with_a_note():
    sample = np.array([0.0] * 6 + [1.0] * 3)  # leaving any one out does not move the median: no acceleration
    found = bca(sample, "median", np.random.default_rng(4), 2000)
    drawn = np.median(sample[np.random.default_rng(4).integers(9, size=(2000, 9))], axis=1)
    assert (found.low, found.high) == tuple(np.quantile(drawn, [0.025, 0.975]))
    assert found.method == "percentile bootstrap"
    assert found.note == "BCa is not defined here: percentile interval of the resamples that have a value"
    constant = bca(np.array([0.0] * 40 + [1.0]), "median", np.random.default_rng(4))
    assert (constant.low, constant.high) == (0.0, 0.0)
    assert constant.note == "every resample gives the same value: the interval has width 0"


def test_large_samples_have_the_interval_of_the_normal_law(rng):
    sample = rng.normal(2, 3, size=60_001)
    found = bca(sample, "mean", rng, 4000)
    half = 1.96 * sample.std() / np.sqrt(len(sample))
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.1)
    assert found.note == "60001 units in 2000 random groups"
    found = bca(sample, "median", rng, 4000)
    half *= np.sqrt(np.pi / 2)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.15)


def test_rounding_does_not_break_ties():
    """Sums of 0.1 in another order differ in the last digit; they must still count as equal, or the bias is off."""
    whole, tenth = (bca(BINARY * scale, "mean", np.random.default_rng(5)) for scale in (1.0, 0.1))
    assert (tenth.low, tenth.high) == pytest.approx((whole.low / 10, whole.high / 10), abs=1e-12)


@pytest.mark.parametrize("n", [8, 9])
def test_the_order_statistics_of_few_are_drawn_from_their_law(n):
    sample = 2.0 ** np.arange(n)
    found, witness = [], []
    for seed in range(40):  # the bounds of one call are quantiles: read the whole law through its quantile function
        rng = np.random.default_rng(seed)
        found.append(_resampled_medians(np.sort(sample), rng, 1000))
        witness.append(np.median(sample[rng.integers(n, size=(1000, n))], axis=1))
    values, other = np.log2(np.concatenate(found)), np.log2(np.concatenate(witness))
    assert stats.ks_2samp(values, other).statistic < 1.63 * np.sqrt(2 / 40_000)  # the 1 % point
    assert values.mean() == pytest.approx(other.mean(), abs=4 * np.sqrt(2 * other.var() / 40_000))


@pytest.mark.parametrize("n", [2001, 2002])
def test_the_law_of_a_resampled_median_is_that_of_resamples(n):
    sample = np.random.default_rng(3).gamma(1.0, size=n)
    found = bca(sample, "median", np.random.default_rng(0), 8_000)
    drawn = np.median(sample[np.random.default_rng(1).integers(n, size=(8_000, n), dtype=np.int32)], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_random_groups_are_even_and_complete(rng):
    group = random_groups(10_007, rng, 100)
    assert set(np.bincount(group)) == {100, 101}
    assert sorted(random_groups(5, rng)) == [0, 1, 2, 3, 4]


def test_clustered_bootstrap_is_the_literal_two_stage_draw():
    data = np.random.default_rng(6)
    cluster = np.array(list("bbbbaaacccccc"))
    values = data.normal(size=13) + (cluster == "a")
    found = clustered_bootstrap(values, cluster, np.random.default_rng(9), 300)

    rng, names = np.random.default_rng(9), ["a", "b", "c"]
    own = {name: [v for v, c in zip(values, cluster, strict=True) if c == name] for name in names}
    picks = [[names[k] for k in row] for row in rng.integers(3, size=(300, 3))]
    drawn: list[list[float]] = [[] for _ in picks]
    for name in names:
        size = len(own[name])
        for b, row in enumerate(picks):
            for _ in range(row.count(name)):
                drawn[b] += [own[name][i] for i in rng.integers(size, size=size)]
    means = [sum(d) / len(d) for d in drawn]
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-9)
    assert (found.n, found.method) == (13, "clustered bootstrap, 3 clusters")
    assert found.note == "only 3 clusters: the interval tends to be too narrow"


@pytest.mark.parametrize(("clusters", "size"), [(12, 7), (4, 5000), (100, 900)])
def test_two_stages_have_the_closed_form_variance(clusters, size):
    rng = np.random.default_rng(7)
    values = rng.normal(size=(clusters, size)) + 0.3 * rng.normal(size=(clusters, 1))
    drawn = _two_stages(values.ravel(), np.repeat(np.arange(clusters), size), clusters, rng, 4000)
    expected = values.mean(axis=1).var() / clusters + values.var(axis=1).mean() / (clusters * size)
    assert drawn.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / 4000))


def test_very_many_clusters_are_drawn_whole(rng):
    size, clusters = 3, 6000
    values = np.repeat(rng.normal(size=clusters), size)  # no spread within: units alone would give 1/sqrt(3) of it
    found = clustered_bootstrap(values, np.repeat(np.arange(clusters), size), rng)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(clusters), rel=0.1)
    assert found.note == ""
    balanced = clustered_bootstrap(np.tile([-1.0, 1.0], clusters), np.arange(2 * clusters) // 2, rng)
    assert (balanced.low, balanced.high) == (0.0, 0.0)  # all clusters have mean 0, and only clusters are drawn


@pytest.mark.filterwarnings("error")
def test_clusters_written_answers(rng):
    found = clustered_bootstrap(np.array([1.0, 2.0, 4.0, np.nan]), np.array([7, 7, 7, 8]), rng)
    assert (found.value, found.low, found.high, found.n) == (pytest.approx(7 / 3), None, None, 3)
    assert found.note == "all values come from one cluster: how much clusters differ is unknown"
    found = clustered_bootstrap(np.full(4, 2.5), np.array([0, 0, 1, 1]), rng)
    assert (found.low, found.high) == (2.5, 2.5)
    assert found.note == "all values are equal: the interval has width 0"
    assert clustered_bootstrap(np.array([]), np.array([]), rng).note == "no value is present"
    assert clustered_bootstrap(np.array([3.0]), np.array([0]), rng).note == "one value has no interval"


def test_paired_clustered_is_the_clustered_bootstrap_of_differences():
    a, b = np.random.default_rng(1).normal(size=(2, 40))
    run = np.arange(40) % 12
    b[3] = np.nan
    found = paired_clustered(a - b, run, np.random.default_rng(2))
    keep = np.arange(40) != 3
    assert found == clustered_bootstrap((a - b)[keep], run[keep], np.random.default_rng(2))
    assert (found.n, found.note) == (39, "")


def test_bad_input_gets_its_sentence(rng):
    with pytest.raises(InvalidParameter, match="statistic must be 'mean' or 'median', got 'mode'"):
        bca(np.ones(3), "mode", rng)
    with pytest.raises(InvalidParameter, match=r"one-dimensional \(n,\), got shape \(2, 2\)"):
        bca(np.ones((2, 2)), "mean", rng)
    with pytest.raises(InvalidParameter, match="1 of 2 values are infinite"):
        bca(np.array([1, np.inf]), "mean", rng)
    with pytest.raises(InvalidParameter, match="every value needs a cluster"):
        clustered_bootstrap(np.ones(3), np.ones(2), rng)


def test_percentiles_leave_missing_resamples_out():
    drawn = np.random.default_rng(0).normal(size=(200, 2, 3))
    drawn[:7, 0, 1] = np.nan
    drawn[:, 1, 2] = np.nan
    low, high = percentile_bounds(drawn)
    for i, k in np.ndindex(2, 3):
        held = [x for x in drawn[:, i, k] if not np.isnan(x)]
        expected = np.percentile(held, [2.5, 97.5]) if held else [np.nan, np.nan]
        np.testing.assert_allclose([low[i, k], high[i, k]], expected, atol=1e-12)


def test_too_many_missing_resamples_give_no_interval():
    drawn = np.arange(1000.0)
    drawn[:25] = np.nan
    found = from_resamples(1.0, drawn, 4, "m").interval
    assert found == Interval(found.low, found.high, 0.95, "m")
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn[25:], [0.025, 0.975])), abs=1e-9)
    drawn[25] = np.nan
    found = from_resamples(1.0, drawn, 4, "m")
    note = "26 of 1000 resamples have no value; more units are needed for an interval"
    assert found == Estimate(1.0, None, None, 4, "m", note)
    assert found.interval is None


def test_importing_is_light():
    code = (
        "import sys, audit_core.statistics; print([m for m in ('torch', 'pandas', 'statsmodels') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def covered(estimates, truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statistic", "truth"), [("mean", 4.0), ("median", float(stats.gamma(4).median()))], ids=["mean", "median"]
)
def test_bca_covers_at_its_rate(statistic, truth):
    rng = np.random.default_rng(10)
    found = [bca(rng.gamma(4.0, size=150), statistic, rng, 1000) for _ in range(2000)]
    assert 0.92 <= covered(found, truth) <= 0.98


@pytest.mark.slow
def test_clustered_bootstrap_covers_at_its_rate_where_plain_resampling_does_not():
    rng = np.random.default_rng(11)
    cluster = np.repeat(np.arange(20), 15)
    samples = [rng.normal(size=300) + 0.5 * rng.normal(size=20)[cluster] for _ in range(800)]
    assert 0.92 <= covered([clustered_bootstrap(s, cluster, rng, 1000) for s in samples], 0.0) <= 0.98
    assert covered([bca(s, "mean", rng, 500) for s in samples], 0.0) < 0.85
