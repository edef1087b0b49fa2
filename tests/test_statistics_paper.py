"""The published per-image results of arXiv 2605.14255 give back the paper's tables."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from audit_core.statistics import (
    Observations,
    clustered_bootstrap,
    cohen_d,
    fill_agreement,
    friedman,
    mean_ranks,
    paired,
    rank_intervals,
    resample,
    reversals,
    spread_compression,
)

FAMILIES = ("vit_tiny", "swin_tiny", "resnet18_cbam", "densenet121")
VIT, SWIN, RESNET, DENSENET = range(4)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "paper_tables" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_image(found: list[dict[str, str]]) -> np.ndarray:
    """Deletion AUC, float (4 families, runs, 198 images): the primary run first, every run with the same images."""
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in found:
        values[row["family"], row.get("run_dir", "")][row["sample_idx"]] = float(row["deletion_auc"])
    images = list(next(iter(values.values())))
    runs = sorted(values, key=lambda key: ("run0" not in key[1] and "seed7" not in key[1], key[1]))
    return np.array([[[values[run][i] for i in images] for run in runs if run[0] == family] for family in FAMILIES])


@pytest.fixture(scope="module")
def native(shared_data) -> np.ndarray:
    if not (shared_data / "paper_tables").is_dir():
        pytest.skip("the published tables are absent")
    return by_image(rows(shared_data, "native_zero_fill_per_image.csv"))


@pytest.fixture(scope="module")
def rise(shared_data, native) -> np.ndarray:
    return by_image(rows(shared_data, "rise_zero_fill_per_image.csv"))[:, 0]


@pytest.fixture(scope="module")
def zero_and_blur(shared_data, native) -> np.ndarray:
    """Means (4, 2) of the primary runs; per-image values under blur were never published."""
    blur = {row["family"]: float(row["blur_del_mean"]) for row in rows(shared_data, "native_blur_fill_summary.csv")}
    return np.column_stack([native[:, 0].mean(axis=1), [blur[f] for f in FAMILIES]])


def test_published_means(native, rise, shared_data):
    assert native.shape == (4, 3, 198)
    primary, pooled = (Observations.of_units(v, "lower").means()[:, 0] for v in (native[:, None, 0], native[:, None]))
    np.testing.assert_array_equal(primary.round(4), [0.2212, 0.4396, 0.4864, 0.5439])
    np.testing.assert_array_equal(pooled.round(3), [0.211, 0.432, 0.495, 0.525])
    np.testing.assert_array_equal(rise.mean(axis=1).round(4), [0.0931, 0.0956, 0.0910, 0.1301])
    summary = {r["family"]: r for r in rows(shared_data, "native_zero_fill_summary.csv")}
    for f, family in enumerate(FAMILIES):
        assert pooled[f] == pytest.approx(float(summary[family]["deletion_auc_mean"]), abs=1e-6)
    random = by_image(rows(shared_data, "random_order_per_image.csv"))[:, 0]
    np.testing.assert_array_equal(random.mean(axis=1).round(3), [0.480, 0.475, 0.498, 0.508])


def test_published_effect_sizes(native):
    pooled = native.reshape(4, -1)
    found = [round(cohen_d(pooled[VIT], pooled[other]), 3) for other in (SWIN, RESNET, DENSENET)]
    assert found == [-0.951, -1.125, -1.207]


def test_paired_statistics_of_the_published_values(native):
    found = paired(native[VIT, 0], native[RESNET, 0], np.random.default_rng(0), better="lower")
    assert found.mean_difference.value == pytest.approx(0.2212 - 0.4864, abs=1e-4)
    assert found.mean_difference.low < found.mean_difference.value < found.mean_difference.high < -0.2
    assert found.p == pytest.approx(stats.wilcoxon(native[VIT, 0], native[RESNET, 0]).pvalue, rel=1e-9)
    assert found.n == 198
    assert found.d.high < -0.8


def test_published_interval_is_narrower_than_the_clustered_one(native):
    """The paper's pooled bootstrap of ViT's mean is [.192, .231]; drawing runs first can only widen it."""
    values, run = native[VIT].ravel(), np.repeat(np.arange(3), 198)
    found = clustered_bootstrap(values, run, np.random.default_rng(0), 4000)
    pooled = clustered_bootstrap(values, np.arange(594), np.random.default_rng(0), 4000)
    assert (pooled.low, pooled.high) == pytest.approx((0.192, 0.231), abs=0.002)
    assert found.high - found.low > 1.1 * (pooled.high - pooled.low)


def test_zero_against_blur_reverses_every_transformer_cnn_pair(zero_and_blur):
    np.testing.assert_array_equal(zero_and_blur[:, 1].round(3), [0.693, 0.700, 0.559, 0.681])
    found = reversals(zero_and_blur, zero_and_blur[None], "lower")
    reversed_pairs = {(r.first, r.second) for r in found if r.reverses}
    assert reversed_pairs == {(VIT, RESNET), (VIT, DENSENET), (SWIN, RESNET), (SWIN, DENSENET)}
    assert all(r.between == ((0, 1),) for r in found if r.reverses)
    table = fill_agreement(zero_and_blur, zero_and_blur[None])
    assert round(table.tau[0, 1], 2) == -0.33
    assert table.tau[0, 1] == pytest.approx(stats.kendalltau(*zero_and_blur.T).statistic, abs=1e-12)
    assert [e.value for e in mean_ranks(zero_and_blur, zero_and_blur[None], "lower")] == [2.0, 3.0, 2.0, 3.0]


def test_rise_compresses_the_spread(native, rise):
    rng = np.random.default_rng(0)
    observed = Observations.of_units(np.concatenate([native[:, 0], rise])[:, None], "lower")
    point, resampled = observed.means(), resample(observed, rng)
    found = spread_compression(point, resampled, np.arange(4), np.arange(4, 8))[0]
    assert found.value == pytest.approx((0.1301 - 0.0910) / (0.5439 - 0.2212), abs=5e-4)
    assert found.low < found.value < found.high < 0.5
    table = rank_intervals(point[:4], resampled[:, :4], "lower")
    assert table.rank[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert (table.low[VIT, 0], table.high[VIT, 0], table.probability_best[VIT, 0]) == (1.0, 1.0, 1.0)


def test_friedman_of_the_published_values(native):
    found = friedman(native[:, 0].T, "lower")
    witness = stats.friedmanchisquare(*native[:, 0])
    assert (found.statistic, found.p) == pytest.approx((witness.statistic, witness.pvalue), rel=1e-9)
    assert int(np.argmin(found.mean_ranks)) == VIT
    assert found.n == 198
    assert all(VIT not in clique for clique in found.cliques)
