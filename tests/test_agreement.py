"""Agreement of maps: scipy, literal loops and closed forms as witnesses."""

import numpy as np
import pytest
from scipy import stats

from audit_core.agreement import common_grid, rank_share, spearman, top_overlap, top_size
from audit_core.curves import rank_pixels
from audit_core.errors import InvalidParameter


@pytest.fixture
def maps() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 6, 8))
    values[1] = np.maximum(values[1], 0)  # half of it tied at 0, as a rectified map
    values[2] = values[0] + 0.3 * values[2]
    return values


def test_spearman_is_scipys(maps):
    witness = stats.spearmanr(maps.reshape(4, -1), axis=1).statistic
    np.testing.assert_allclose(spearman(maps), witness, atol=1e-12)


def test_spearman_without_ties_is_the_textbook_formula(maps):
    a, b = (np.argsort(np.argsort(maps[i].ravel())) for i in (0, 3))
    n = a.size
    expected = 1 - 6 * int(((a - b) ** 2).sum()) / (n * (n**2 - 1))
    assert spearman(maps)[0, 3] == pytest.approx(expected, abs=1e-12)


def test_spearman_sees_only_the_order(maps):
    stretched = np.stack([maps[0], np.exp(3 * maps[0]), -maps[0], maps[0] ** 3])
    expected = np.array([[1, 1, -1, 1], [1, 1, -1, 1], [-1, -1, 1, -1], [1, 1, -1, 1]])
    np.testing.assert_allclose(spearman(stretched), expected, atol=1e-12)


def test_top_overlap_is_a_literal_count(maps):
    k = round(0.25 * 48)
    for i in range(4):
        for j in range(4):
            mine, other = ({p for p, r in enumerate(rank_pixels(maps[m]).ravel()) if r < k} for m in (i, j))
            assert top_overlap(maps, 0.25)[i, j] == pytest.approx(len(mine & other) / k, abs=1e-12)


def test_top_overlap_closed_forms():
    ramp = np.arange(100.0).reshape(10, 10)
    shifted = np.roll(ramp.ravel(), -5).reshape(10, 10)  # its ten largest stand five places earlier
    found = top_overlap(np.stack([ramp, ramp * 2 + 1, -ramp, shifted]))
    np.testing.assert_allclose(found[0], [1, 1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(top_overlap(np.stack([ramp, -ramp]), 1.0), 1.0)


def test_unrelated_orders_share_about_the_share():
    values = np.random.default_rng(0).random((30, 20, 20))
    pairs = top_overlap(values, 0.1)[np.triu_indices(30, 1)]
    # k = 40 of 400 drawn without replacement: mean 0.1, variance of one pair 0.1 * 0.9 * 360 / 399 / 40
    assert pairs.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 * 360 / 399 / 40 / len(pairs)))


def test_tied_tops_follow_the_stable_rule_not_memory():
    one, other = np.zeros((8, 8)), np.zeros((8, 8))
    one[7, 7], other[0, 0] = 1, 1
    tie = np.random.default_rng((0, 8, 8)).permutation(64)
    firsts = {flat: [int(p) for p in np.argsort(tie) if p != flat][:5] for flat in (63, 0)}
    tops = [{63, *firsts[63]}, {0, *firsts[0]}]
    assert top_overlap(np.stack([one, other]), 0.1)[0, 1] == pytest.approx(len(tops[0] & tops[1]) / 6)


@pytest.mark.parametrize("measure", [spearman, top_overlap])
def test_a_constant_map_has_no_agreement_with_anything(measure, maps):
    found = measure(np.concatenate([maps, np.full((1, 6, 8), 0.3)]))
    assert np.isnan(found[4]).all()
    assert np.isnan(found[:, 4]).all()
    np.testing.assert_array_equal(found[:4, :4], measure(maps))


@pytest.mark.parametrize("measure", [spearman, top_overlap])
def test_agreement_is_symmetric_with_ones_on_the_diagonal(measure, maps):
    found = measure(maps)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-12)


@pytest.mark.parametrize("measure", [spearman, top_overlap])
def test_what_cannot_be_compared_is_refused(measure, maps):
    with pytest.raises(InvalidParameter, match=r"must be \(n, rows, columns\)"):
        measure(maps[0])
    broken = maps.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(InvalidParameter, match="1 of 192 map values are not finite"):
        measure(broken)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_share_is_bounded(share, maps):
    with pytest.raises(InvalidParameter, match=r"share must be in \(0, 1\]"):
        top_overlap(maps, share)


def test_top_size_rounds_and_keeps_one():
    assert [top_size(4096, 0.1), top_size(16, 0.1), top_size(4, 0.1)] == [410, 2, 1]


def test_rank_share_is_the_share_of_other_pixels_outranked(maps):
    flat = maps[1].ravel()
    expected = [(sum(v > o for o in flat) + 0.5 * (sum(v == o for o in flat) - 1)) / (flat.size - 1) for v in flat]
    np.testing.assert_allclose(rank_share(maps[1]).ravel(), expected, atol=1e-12)
    np.testing.assert_array_equal(rank_share(np.full((3, 3), 2.0)), 0.5)


def test_common_grid_averages_areas():
    fine, coarse = np.arange(36.0).reshape(6, 6), np.arange(9.0).reshape(3, 3)
    found = common_grid([fine, coarse])
    np.testing.assert_allclose(found[0], fine.reshape(3, 2, 3, 2).mean(axis=(1, 3)), atol=1e-12)
    np.testing.assert_array_equal(found[1], coarse)


def test_common_grid_at_a_broken_ratio_is_repeat_and_average():
    fine, coarse = np.random.default_rng(5).normal(size=(6, 6)), np.zeros((4, 4))
    repeated = fine.repeat(2, axis=0).repeat(2, axis=1)  # 12 = 3 * 4
    expected = repeated.reshape(4, 3, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(common_grid([fine, coarse])[0], expected, atol=1e-12)


def test_common_grid_refuses_other_frames():
    with pytest.raises(InvalidParameter, match="one aspect ratio to be compared, found 3x3, 4x6"):
        common_grid([np.zeros((4, 6)), np.zeros((3, 3))])
    with pytest.raises(InvalidParameter, match="found no maps"):
        common_grid([])
