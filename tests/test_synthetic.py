"""The generator of synthetic wafer maps: purity, round footprint, signature geometry, agreement with WM-811K."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from models import synthetic
from models.wafers import CLASSES, read_npz, write_npz

LABEL = {name: i for i, name in enumerate(CLASSES)}

#: Median share of failed dies per class, measured on a labelled WM-811K sample of 12,449 maps.
REAL_FAILED_SHARE = {
    "Center": 0.247, "Donut": 0.265, "Edge-Loc": 0.161, "Edge-Ring": 0.136, "Loc": 0.141, "Near-full": 0.885,
    "Random": 0.461, "Scratch": 0.092, "none": 0.151,
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> list[synthetic.SyntheticWafer]:
    return synthetic.wafers(540, seed=77)


def of_class(drawn: list[synthetic.SyntheticWafer], name: str) -> list[synthetic.SyntheticWafer]:
    return [item for item in drawn if item.label == LABEL[name]]


def polar(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Radius (1 = rim of the inscribed ellipse) and angle of every die centre."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    y, x = (2 * rows + 1) / shape[0] - 1, (2 * columns + 1) / shape[1] - 1
    return np.sqrt(y**2 + x**2), np.arctan2(y, x)


def failed_share(item: synthetic.SyntheticWafer, among: np.ndarray) -> float:
    return float(np.count_nonzero(item.codes[among] == 2) / np.count_nonzero(among))


def mean_radii(items: list[synthetic.SyntheticWafer]) -> np.ndarray:
    return np.array([polar(item.codes.shape)[0][item.region].mean() for item in items])


@pytest.mark.parametrize("name", CLASSES)
def test_a_map_is_a_pure_function_of_its_generator(name: str) -> None:
    before_numpy, before_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    first = synthetic.wafer(LABEL[name], np.random.default_rng(5))
    again = synthetic.wafer(LABEL[name], np.random.default_rng(5))
    other = synthetic.wafer(LABEL[name], np.random.default_rng(6))
    assert np.array_equal(first.codes, again.codes)
    assert np.array_equal(first.region, again.region)
    assert not np.array_equal(first.codes, other.codes)
    after_numpy = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before_numpy[1], after_numpy[1])
    assert before_numpy[2:] == after_numpy[2:]
    assert before_python == random.getstate()


def test_map_i_depends_on_seed_and_i_alone() -> None:
    short, long = synthetic.wafers(10, seed=3), synthetic.wafers(20, seed=3)
    assert all(np.array_equal(a.codes, b.codes) for a, b in zip(short, long[:10], strict=True))
    alone = synthetic.wafer(7, np.random.default_rng((3, 7)))
    assert np.array_equal(alone.codes, long[7].codes)
    asked = synthetic.wafers(8, seed=3, labels=[0] * 7 + [7])
    assert np.array_equal(asked[7].codes, long[7].codes)
    assert not np.array_equal(synthetic.wafers(1, seed=4)[0].codes, short[0].codes)


def test_classes_are_balanced_and_written_maps_keep_their_digest(tmp_path: Path) -> None:
    data = synthetic.wafer_maps(36, seed=9)
    assert np.bincount(data.labels, minlength=9).tolist() == [4] * 9
    write_npz(tmp_path / "maps.npz", data)
    assert read_npz(tmp_path / "maps.npz").digest == data.digest
    assert synthetic.wafer_maps(36, seed=10).digest != data.digest


def test_wrong_requests_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="class 9 was asked for; choose a label from 0 to 8"):
        synthetic.wafer(9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="3 wafers were asked for with 2 labels"):
        synthetic.wafers(3, seed=0, labels=[1, 2])
    with pytest.raises(ValueError, match="the seed is -1"):
        synthetic.wafers(1, seed=-1)


def test_footprint_is_a_disc_that_touches_all_four_sides(drawn: list[synthetic.SyntheticWafer]) -> None:
    for item in drawn:
        codes, die = item.codes, item.codes > 0
        radius, _ = polar(codes.shape)
        assert codes.dtype == np.uint8
        assert set(np.unique(codes)) <= {0, 1, 2}
        assert not die[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert all(side.any() for side in (die[0], die[-1], die[:, 0], die[:, -1]))
        assert not die[radius > 1.02].any()
        assert die[radius < 0.9].mean() > 0.95  # a few dies may be untested
        assert die.mean() == pytest.approx(np.pi / 4, abs=0.06)


def test_die_grids_vary_as_in_wm811k(drawn: list[synthetic.SyntheticWafer]) -> None:
    shapes = [item.codes.shape for item in drawn]
    sides = np.array(shapes)
    assert sides.min() >= 22
    assert sides.max() <= 212
    assert sides.max() > 100
    assert max(set(shapes), key=shapes.count) == (25, 27)
    assert len(set(shapes)) > 100
    assert 0.05 < np.mean(np.abs(np.log(sides[:, 0] / sides[:, 1]))) < 0.25


def test_region_lies_on_dies_and_only_none_has_no_region(drawn: list[synthetic.SyntheticWafer]) -> None:
    for item in drawn:
        assert item.region.dtype == np.bool_
        assert not (item.region & (item.codes == 0)).any()
        assert item.region.any() == (item.label != LABEL["none"])
    for item in of_class(drawn, "Random"):
        assert np.array_equal(item.region, item.codes > 0)


@pytest.mark.parametrize("name", ["Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Scratch"])
def test_dies_inside_the_signature_fail_far_more_often(drawn: list[synthetic.SyntheticWafer], name: str) -> None:
    gaps = [
        failed_share(item, item.region) - failed_share(item, (item.codes > 0) & ~item.region)
        for item in of_class(drawn, name)
    ]
    assert min(gaps) > 0.05
    assert np.median(gaps) > 0.4


@pytest.mark.parametrize("name", CLASSES)
def test_failed_share_agrees_with_real_maps(drawn: list[synthetic.SyntheticWafer], name: str) -> None:
    median = np.median([failed_share(item, item.codes > 0) for item in of_class(drawn, name)])
    assert 1 / 1.35 < median / REAL_FAILED_SHARE[name] < 1.35


def test_center_and_edge_ring_lie_where_their_names_say(drawn: list[synthetic.SyntheticWafer]) -> None:
    assert mean_radii(of_class(drawn, "Center")).max() < 0.45
    rings = of_class(drawn, "Edge-Ring")
    assert mean_radii(rings).min() > 0.85
    for item in rings:
        octant = (np.floor((polar(item.codes.shape)[1] + np.pi) / (np.pi / 4))).astype(int) % 8
        assert set(octant[item.region]) == set(range(8))


def test_donut_has_a_hole_in_its_middle(drawn: list[synthetic.SyntheticWafer]) -> None:
    gaps, enclosed = [], []
    for item in of_class(drawn, "Donut"):
        radius, _ = polar(item.codes.shape)
        hole = (radius < 0.15) & ~item.region & (item.codes > 0)
        assert hole.any()
        gaps.append(failed_share(item, item.region) - failed_share(item, hole))
        enclosed.append((ndimage.binary_fill_holes(item.region) & hole).any())
    assert np.median(gaps) > 0.3
    assert np.mean(enclosed) > 0.8


def test_edge_loc_is_one_side_of_the_rim_and_loc_is_off_centre(drawn: list[synthetic.SyntheticWafer]) -> None:
    concentration = []
    for item in of_class(drawn, "Edge-Loc"):
        radius, angle = polar(item.codes.shape)
        assert radius[item.region].max() > 0.9
        concentration.append(abs(np.exp(1j * angle[item.region]).mean()))  # 1 = one direction, 0 = all round
    assert np.median(concentration) > 0.8
    for item in of_class(drawn, "Loc"):
        assert mean_radii([item])[0] < 0.85
        assert item.region.sum() < 0.5 * (item.codes > 0).sum()
    assert np.median(mean_radii(of_class(drawn, "Loc"))) == pytest.approx(0.52, abs=0.08)


def test_scratches_are_thin_connected_lines(drawn: list[synthetic.SyntheticWafer]) -> None:
    block = np.ones((3, 3), bool)
    regions = [item.region for item in of_class(drawn, "Scratch")]
    thick = [ndimage.binary_erosion(region, block).sum() / region.sum() for region in regions]
    pieces = [ndimage.label(region, block)[1] for region in regions]
    assert np.median(thick) == 0
    assert max(thick) < 0.2
    assert np.median(pieces) == 1


def test_nominal_keeps_the_footprint_and_passes_every_die(drawn: list[synthetic.SyntheticWafer]) -> None:
    assert synthetic.nominal(np.array([[0, 1, 2], [2, 0, 1]])).tolist() == [[0, 1, 1], [1, 0, 1]]
    before = drawn[0].codes.copy()
    clean = synthetic.nominal(drawn[0].codes)
    assert clean.dtype == np.uint8
    assert np.array_equal(clean > 0, before > 0)
    assert not (clean == 2).any()
    assert np.array_equal(drawn[0].codes, before)
