"""Effect sizes, the paired comparison, and corrected tests: scipy, statsmodels, scikit-posthocs and literal loops."""

import math

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from audit_core.errors import InvalidParameter
from audit_core.statistics import cohen_d, cohen_d_z, critical_difference, friedman, hedges_g, holm, paired
from audit_core.statistics.significance import cliques

SAMPLES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=3, max_size=12)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    data = np.random.default_rng(12)
    a = data.normal(size=31)
    return a, 0.6 * a + 0.5 * data.normal(size=31) + 0.3


def literal_d(a, b) -> float:
    mean = [sum(x) / len(x) for x in (a, b)]
    variance = [sum((v - m) ** 2 for v in x) / (len(x) - 1) for x, m in zip((a, b), mean, strict=True)]
    pooled = ((len(a) - 1) * variance[0] + (len(b) - 1) * variance[1]) / (len(a) + len(b) - 2)
    return (mean[0] - mean[1]) / math.sqrt(pooled)


def test_cohen_d_is_the_textbook_formula_and_a_rescaled_t(pair):
    a, b = pair[0], pair[1][:20]
    assert cohen_d(a, b) == pytest.approx(literal_d(a, b), abs=1e-12)
    assert cohen_d(a, b) == pytest.approx(stats.ttest_ind(a, b).statistic * math.sqrt(1 / 31 + 1 / 20), abs=1e-12)
    assert cohen_d(np.append(a, np.nan), np.append(np.nan, b)) == cohen_d(a, b)


def test_cohen_d_z_is_a_rescaled_t(pair):
    difference = pair[0] - pair[1]
    assert cohen_d_z(difference) == pytest.approx(stats.ttest_rel(*pair).statistic / math.sqrt(31), abs=1e-12)
    assert cohen_d_z(np.append(difference, np.nan)) == cohen_d_z(difference)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (10, 7), (400, 500)])
def test_hedges_correction_is_the_ratio_of_gammas(n, m, rng):
    a, b, v = rng.normal(size=n), rng.normal(size=m), n + m - 2
    # independent of the gamma function: E of chi(v) by recursion J(v) J(v+1) = (v-1)/sqrt(v (v+1)), started at J(2)
    correction = math.sqrt(2 / 2) * math.gamma(1) / math.gamma(0.5)
    for k in range(2, v):
        correction = (k - 1) / math.sqrt(k * (k + 1)) / correction
    assert hedges_g(a, b) == pytest.approx(cohen_d(a, b) * correction, rel=1e-9)
    assert correction == pytest.approx(1 - 3 / (4 * v - 1), abs=0.02)


@pytest.mark.filterwarnings("error")
def test_effects_without_a_scale():
    assert cohen_d(np.ones(4), np.ones(5)) == 0.0
    assert cohen_d_z(np.zeros(4)) == 0.0
    no_scale = (
        cohen_d(np.ones(4), np.full(4, 0.7)),
        cohen_d_z(np.full(4, 0.1) + np.array([0, 1e-17, 0, 0])),
        cohen_d(np.array([1.0]), np.array([2.0])),
        cohen_d(np.array([]), np.array([1.0, 2.0])),
        cohen_d_z(np.array([1.0])),
        hedges_g(np.array([1.0, 3.0]), np.array([2.5])),
    )
    assert np.isnan(no_scale).all()


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_effects_change_sign_under_swap(a, b):
    for effect in (cohen_d, hedges_g):
        np.testing.assert_allclose(effect(a, b), -effect(b, a), atol=1e-12)
    np.testing.assert_allclose(cohen_d_z(a), -cohen_d_z(-np.array(a)), atol=1e-12)


def test_paired_is_scipys_bootstrap_of_the_literal_statistics(pair):
    a, b = pair
    found = paired(a, b, np.random.default_rng(3), 999, better="lower")

    def d(x, y, axis):
        pooled = (x.var(axis=axis, ddof=1) + y.var(axis=axis, ddof=1)) / 2
        return (x.mean(axis=axis) - y.mean(axis=axis)) / np.sqrt(pooled)

    def d_z(x, y, axis):
        return (x - y).mean(axis=axis) / (x - y).std(axis=axis, ddof=1)

    def mean(x, y, axis):
        return (x - y).mean(axis=axis)

    def wins(x, y, axis):
        return (x < y).mean(axis=axis)

    for estimate, statistic in [
        (found.mean_difference, mean),
        (found.d, d),
        (found.d_z, d_z),
        (found.probability, wins),
    ]:
        rng = np.random.default_rng(3)
        witness = stats.bootstrap((a, b), statistic, paired=True, vectorized=True, n_resamples=999, rng=rng)
        low, high = witness.confidence_interval
        assert estimate.value == pytest.approx(float(statistic(a, b, 0)), abs=1e-12)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)
        assert (estimate.n, estimate.method, estimate.note) == (31, "BCa bootstrap", "")
    ratio = hedges_g(a, b) / cohen_d(a, b)
    assert (found.g.value, found.g.low, found.g.high) == pytest.approx(
        (hedges_g(a, b), found.d.low * ratio, found.d.high * ratio), abs=1e-12
    )
    assert found.p == stats.wilcoxon(a, b).pvalue
    assert (found.n, found.note) == (31, "")


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_probability_counts_wins_and_half_the_ties(better, rng):
    a, b = np.array([1, 2, 3, 4, np.nan, 6.0]), np.array([2, 2, 1, 5, 1, np.nan])
    found = paired(a, b, rng, 200, better=better)
    won = [(x < y if better == "lower" else x > y) + 0.5 * (x == y) for x, y in [(1, 2), (2, 2), (3, 1), (4, 5)]]
    assert found.probability.value == pytest.approx(sum(won) / 4, abs=1e-12)
    assert found.n == 4
    assert found.mean_difference.value == pytest.approx(0.0, abs=1e-12)


def test_signed_rank_drops_zero_differences(rng):
    difference = np.concatenate([rng.normal(0.4, 1, size=60), np.zeros(40)])
    found = paired(difference, np.zeros(100), rng, 200, better="higher")
    assert found.p == pytest.approx(stats.wilcoxon(difference[:60]).pvalue, abs=1e-9)


def test_exact_signed_rank_by_all_signs(rng):
    a, b = np.array([0.3, 1.1, -0.2, 2.4, 0.9, 1.7, 0.1]), np.zeros(7)
    ranks = stats.rankdata(np.abs(a))
    observed = abs(sum(r * np.sign(v) for r, v in zip(ranks, a, strict=True)))
    flips = [sum(r * (1 if bits >> i & 1 else -1) for i, r in enumerate(ranks)) for bits in range(2**7)]
    expected = sum(abs(f) >= observed for f in flips) / 2**7
    assert paired(a, b, rng, 50, better="lower").p == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_paired_written_answers(rng):
    same = np.array([0.2, 0.5, 0.9])
    found = paired(same, same, rng, better="lower")
    assert (found.p, found.note) == (1.0, "no unit differs: p is 1 by definition")
    assert (found.mean_difference.low, found.mean_difference.high, found.probability.value) == (0.0, 0.0, 0.5)
    assert (found.d.value, found.d_z.value, found.g.value) == (0.0, 0.0, 0.0)

    shifted = paired(same * 10, same * 10 + 0.25, rng, better="lower")
    assert (shifted.probability.value, shifted.mean_difference.low, shifted.mean_difference.high) == (1, -0.25, -0.25)
    assert np.isnan(shifted.d_z.value)
    assert (shifted.d_z.low, shifted.d_z.note) == (None, "the values do not vary: the difference has no scale")

    one = paired(np.array([1.0, np.nan]), np.array([3.0, 2.0]), rng, better="lower")
    assert (one.n, one.mean_difference.value, one.probability.value, one.p) == (1, -2.0, 1.0, 1.0)
    assert (one.mean_difference.low, one.d.note, one.note) == (None, "one pair has no spread", "one pair has no spread")

    none = paired(np.array([np.nan]), np.array([3.0]), rng, better="lower")
    assert np.isnan([none.p, none.mean_difference.value, none.d.value, none.g.value, none.probability.value]).all()
    assert (none.n, none.note) == (0, "no unit has both values")


@pytest.mark.filterwarnings("error")
@settings(deadline=None, max_examples=25)
@given(SAMPLES, st.integers(0, 2**31), st.sampled_from(["lower", "higher"]))
def test_paired_never_warns_and_intervals_are_in_order(values, seed, better):
    a, b = np.array(values), np.roll(values, 1)
    found = paired(a, b, np.random.default_rng(seed), 60, better=better)
    for estimate in (found.mean_difference, found.d, found.d_z, found.g, found.probability):
        assert (estimate.low is None) == (estimate.high is None)
        assert estimate.low is None or estimate.low <= estimate.high
        assert estimate.note or np.isfinite([estimate.value, estimate.low, estimate.high]).all()
    assert 0 <= found.p <= 1


def test_paired_refuses_what_is_not_paired(rng):
    with pytest.raises(InvalidParameter, match="over the same units"):
        paired(np.ones(3), np.ones(4), rng, better="lower")
    with pytest.raises(InvalidParameter, match="1 of 3 pairs are infinite"):
        paired(np.array([1, np.inf, 2]), np.ones(3), rng, better="lower")
    with pytest.raises(InvalidParameter, match="better must be 'lower' or 'higher', got 'up'"):
        paired(np.ones(3), np.ones(3), rng, better="up")


@pytest.mark.slow
def test_paired_difference_covers_at_its_rate():
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(800):
        unit = rng.normal(size=50)
        a, b = unit + rng.gamma(2, 0.5, size=50), unit + rng.normal(0.7, 0.5, size=50)
        found = paired(a, b, rng, 1000, better="lower")
        inside.append(
            [
                found.mean_difference.low <= 0.3 <= found.mean_difference.high,
                found.d.low <= 0.3 / math.sqrt((1.5 + 1.25) / 2) <= found.d.high,
                found.d_z.low <= 0.3 / math.sqrt(0.75) <= found.d_z.high,
            ]
        )
    rate = np.mean(inside, axis=0)
    assert ((rate >= 0.92) & (rate <= 0.98)).all()


def test_holm_is_statsmodels_and_the_literal_rule(rng):
    p = rng.random(9) ** 3
    holed = np.insert(p, 4, np.nan).reshape(2, 5)
    found = holm(holed)
    assert np.isnan(found.ravel()[4])
    adjusted = found.ravel()[np.arange(10) != 4]
    np.testing.assert_allclose(adjusted, multipletests(p, method="holm")[1], atol=1e-12)
    running = 0.0
    for k, i in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (9 - k) * p[i]))
        assert adjusted[i] == pytest.approx(running, abs=1e-12)


def test_holm_written_answers():
    assert np.isnan(holm(np.array([np.nan, np.nan]))).all()
    assert holm(np.array([])).shape == (0,)
    assert holm(np.array([0.2]))[0] == 0.2
    with pytest.raises(InvalidParameter, match=r"p-values must be in \[0, 1\], got 0.5 to 1.5"):
        holm(np.array([0.5, 1.5]))


def test_friedman_is_scipys_and_nemenyi_is_scikit_posthocs():
    data, decided = np.random.default_rng(20), 0
    for trial in range(12):
        values = data.normal(size=(25, 6)) + 0.12 * trial * np.arange(6) * (-1) ** trial
        found = friedman(values, "lower")
        witness = stats.friedmanchisquare(*values.T)
        assert (found.statistic, found.p) == pytest.approx((witness.statistic, witness.pvalue), abs=1e-9)
        np.testing.assert_allclose(
            found.mean_ranks, np.mean([stats.rankdata(row) for row in values], axis=0), atol=1e-12
        )
        if found.p >= 0.05:
            assert [sorted(c) for c in found.cliques] == [[0, 1, 2, 3, 4, 5]]
            assert found.note == "the contenders do not differ significantly as a whole: none are told apart"
            continue
        p = scikit_posthocs.posthoc_nemenyi_friedman(values).to_numpy()
        for i in range(6):
            for k in range(i):
                differ = abs(found.mean_ranks[i] - found.mean_ranks[k]) >= found.critical_difference
                assert differ == (p[i, k] < 0.05)
                assert differ != any({i, k} <= set(clique) for clique in found.cliques)
                decided += differ
    assert decided > 20


def test_nothing_is_told_apart_unless_friedman_rejects():
    values = np.random.default_rng(0).normal(size=(12, 8))  # one distance above the CD, though p = 0.095
    found = friedman(values, "lower")
    assert np.ptp(found.mean_ranks) > found.critical_difference
    assert stats.friedmanchisquare(*values.T).pvalue > 0.05
    assert [len(clique) for clique in found.cliques] == [8]


def test_friedman_directions_and_ties(rng):
    values = rng.integers(0, 4, size=(30, 4)).astype(float)
    up, down = friedman(values, "higher"), friedman(-values, "lower")
    np.testing.assert_array_equal(up.mean_ranks, down.mean_ranks)
    np.testing.assert_allclose(up.mean_ranks, 5 - friedman(values, "lower").mean_ranks, atol=1e-12)
    ranks = np.array([stats.rankdata(row) for row in values])  # ties: Conover's form of the statistic
    spread = (ranks**2).sum() - 30 * 4 * 25 / 4
    expected = 3 * ((ranks.sum(axis=0) - 75) ** 2).sum() / spread
    assert up.statistic == pytest.approx(expected, abs=1e-9)
    holed = np.vstack([values, [np.nan, 1, 2, 3]])
    assert friedman(holed, "higher").statistic == up.statistic
    assert friedman(holed, "higher").n == 30


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(k, q):
    """Demsar 2006, table 5 (a)."""
    assert critical_difference(k, 14) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), abs=0.001)


@pytest.mark.filterwarnings("error")
def test_friedman_written_answers():
    two = friedman(np.array([[1.0, 2.0]] * 8 + [[2.0, 1.5]]), "lower")
    assert (two.statistic, two.p) == (None, stats.wilcoxon([-1.0] * 8 + [0.5]).pvalue)
    assert (two.cliques, two.n) == ([], 9)
    assert two.note == "Friedman's test needs three contenders: p is that of Wilcoxon's signed-rank test"
    sizes = np.array([-1.0, -2, -3, -4, 5, 6, 7, 8, 9, 10, 11])  # mean ranks differ by 3/11, less than the CD of 0.59
    assert friedman(np.column_stack([sizes, np.zeros(11)]), "higher").cliques == []
    one = friedman(np.ones((5, 1)), "lower")
    assert (one.statistic, one.p, one.critical_difference, one.cliques) == (None, 1.0, None, [])
    assert one.note == "one contender has nothing to differ from"
    single = friedman(np.array([[3.0, 1.0, 2.0], [np.nan, 1, 2]]), "higher")
    assert (single.statistic, single.p, single.n, single.critical_difference) == (None, 1.0, 1, None)
    assert (single.mean_ranks.tolist(), single.cliques) == ([1.0, 3.0, 2.0], [[0, 2, 1]])
    assert single.note == "the test needs two units with every value, found 1"
    ties = friedman(np.ones((6, 3)) * np.arange(6)[:, None], "lower")
    assert (ties.statistic, ties.p, ties.mean_ranks.tolist(), ties.cliques) == (0.0, 1.0, [2.0] * 3, [[0, 1, 2]])
    assert ties.note == "every unit is a tie of all contenders"
    none = friedman(np.full((2, 3), np.nan), "lower")
    assert (none.n, none.p, none.cliques) == (0, 1.0, [])
    assert np.isnan(none.mean_ranks).all()
    with pytest.raises(InvalidParameter, match=r"must be \(units, contenders\), got shape \(3,\)"):
        friedman(np.ones(3), "lower")


def test_cliques_are_maximal_runs():
    ranks = np.array([3.0, 1.0, 1.8, np.nan, 2.6, 6.0])
    assert cliques(ranks, 1.5) == [[1, 2], [2, 4, 0]]
    assert cliques(ranks, 1.7) == [[1, 2, 4], [2, 4, 0]]
    assert cliques(ranks, 0.1) == []
    assert cliques(np.array([1.0, 2.0]), 1.0) == []  # a difference of exactly the critical one is significant
    assert cliques(ranks, np.inf) == [[1, 2, 4, 0, 5]]
