"""Seeded splits and samples, by class and by group; the lots of WM-811K in npz and in LSWMD.pkl."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audit_core.data import DATASETS, dataset_of, open_split
from audit_core.data.splits import WORDS, grouped, repeated, sample, stratified
from audit_core.data.wm811k.__main__ import main
from audit_core.data.wm811k.lswmd import read_pickle
from audit_core.errors import BadData, InvalidParameter
from audit_core.keys import Choice
from models.wafers import CLASSES, WaferMaps, join, read_npz, take, write_npz

SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}


def draw(purpose: str, label: object, seed: int, rows: list[int]) -> list[int]:
    """The rows of one class in the order in which its own generator deals them."""
    number = int(hashlib.sha256(f"{purpose} {label}".encode()).hexdigest()[:16], 16)
    return [int(row) for row in np.random.default_rng([seed, number]).permutation(np.array(rows))]


def labels_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(5, n, p=[0.5, 0.3, 0.1, 0.07, 0.03])


# Within classes


@pytest.mark.parametrize("seed", [0, 5])
def test_stratified_is_the_literal_deal(seed: int) -> None:
    labels = labels_of(300)
    expected = [""] * 300
    for label in sorted(set(labels)):
        rows = draw("split", label, seed, [i for i in range(300) if labels[i] == label])
        train, held_out = round(0.7 * len(rows)), round(0.85 * len(rows))
        for place, row in enumerate(rows):
            expected[row] = "train" if place < train else "val" if place < held_out else "test"
    assert stratified(labels, seed).tolist() == expected


def test_every_class_has_its_shares_to_one_entry() -> None:
    for n in (1, 2, 7, 50, 999):
        labels = labels_of(n, n)
        words = stratified(labels, 3)
        assert set(words) <= set(WORDS)
        for label in set(labels):
            for word, share in SHARES.items():
                assert abs((words[labels == label] == word).sum() - share * (labels == label).sum()) <= 1
    assert (stratified(["a"] * 100, 0) == "train").sum() == 70
    assert [len(set(stratified([0] * n, 0))) == 3 for n in range(1, 60)] == [False] * 5 + [True] * 54


def test_a_class_is_dealt_alike_whatever_other_classes_there_are() -> None:
    labels = labels_of(200)
    alone = stratified(labels[labels == 1], 4)
    np.testing.assert_array_equal(stratified(labels, 4)[labels == 1], alone)
    names = np.array(["e", "b", "d", "a", "c"])[labels]
    assert (stratified(names, 4) != stratified(labels, 4)).any(), "classes of other names draw otherwise"
    assert (stratified(labels, 5) != stratified(labels, 4)).any()


def test_shares_may_be_others_and_must_sum_to_one() -> None:
    words = stratified([0] * 10, 0, (0.5, 0.0, 0.5))
    assert [(words == word).sum() for word in WORDS] == [5, 0, 5]
    for shares in ((0.7, 0.2, 0.2), (1.2, -0.1, -0.1)):
        for deal in (stratified, grouped):
            with pytest.raises(InvalidParameter, match="must be at least 0 and sum to 1, got "):
                deal([0] * 10, 0, shares)


# By groups


def groups_of(n: int, seed: int = 1) -> np.ndarray:
    return np.array([f"lot{i}" for i in np.random.default_rng(seed).integers(0, n // 6, n)])


@pytest.mark.parametrize("seed", [0, 9])
def test_grouped_is_the_literal_deal(seed: int) -> None:
    groups = groups_of(400)
    names = sorted(set(groups))
    part, done = {}, 0
    for k in np.random.default_rng(seed).permutation(len(names)):
        size = sum(group == names[k] for group in groups)
        middle = done + size / 2
        part[names[k]] = "train" if middle <= 280 else "val" if middle <= 340 else "test"
        done += size
    assert grouped(groups, seed).tolist() == [part[group] for group in groups]


def test_no_group_is_torn_and_shares_hold_within_one_group_size() -> None:
    for n, seed in ((60, 0), (400, 1), (1000, 2)):
        groups = groups_of(n, seed)
        words = grouped(groups, seed)
        assert all(len(set(words[groups == group])) == 1 for group in set(groups))
        largest = max((groups == group).sum() for group in set(groups))
        for word, share in SHARES.items():
            assert abs((words == word).sum() - share * n) <= largest
    order = np.random.default_rng(3).permutation(n)
    np.testing.assert_array_equal(grouped(groups[order], seed), words[order])
    assert (grouped(groups, seed + 1) != words).any()


def test_entries_without_a_group_stand_alone() -> None:
    words = grouped([""] * 60 + [None] * 40, 2)
    assert [(words == word).sum() for word in WORDS] == [70, 15, 15]
    assert len(set(words[:60])) == 3
    mixed = np.array([*["a"] * 30, *[""] * 70])
    assert len(set(grouped(mixed, 0)[:30])) == 1
    assert len(set(grouped(mixed, 0)[30:])) == 3
    assert len(grouped([], 0)) == len(stratified([], 0)) == 0


def test_repeated_marks_held_out_entries_that_stand_in_an_earlier_part() -> None:
    words = ["train", "train", "val", "val", "test", "test", "test", "test"]
    identities = ["a", "a", "a", "b", "a", "b", "c", "c"]
    assert repeated(words, identities).tolist() == [False, False, True, False, True, True, False, False]


# Samples


def test_sample_is_the_literal_draw_per_class() -> None:
    labels = labels_of(120)
    expected = []
    for label in set(labels):
        rows = draw("sample", label, 8, [i for i in range(120) if labels[i] == label])
        expected += rows[:7]
    drawn = sample(labels, 7, 8)
    assert drawn.tolist() == sorted(expected)
    assert drawn.dtype == np.int64


def test_sample_takes_equally_many_of_each_class_or_all_it_has() -> None:
    labels = np.array(["x"] * 50 + ["y"] * 3 + ["z"] * 20)
    assert np.unique(labels[sample(labels, 10, 0)], return_counts=True)[1].tolist() == [10, 3, 10]
    assert sample(labels, 0, 0).tolist() == list(range(73))
    assert sample([None, None, 1], 1, 0).tolist() in ([0, 2], [1, 2])
    assert len(sample([], 5, 0)) == 0
    assert (sample(labels, 10, 0) != sample(labels, 10, 1)).any()
    with pytest.raises(InvalidParameter, match=r"per_class must be 0 \(all\) or more, got -1"):
        sample(labels, -1, 0)


def test_sample_of_a_class_does_not_depend_on_the_others_and_grows_by_adding() -> None:
    labels = labels_of(300)
    rows = np.flatnonzero(labels == 1)
    drawn = sample(labels, 10, 3)
    assert drawn[labels[drawn] == 1].tolist() == rows[sample(labels[rows], 10, 3)].tolist()
    assert set(drawn) < set(sample(labels, 12, 3))


def test_left_out_classes_are_not_drawn_and_the_others_as_before() -> None:
    labels = labels_of(300)
    before = sample(labels, 10, 6)
    assert {0, 3} < set(labels[before])
    expected = [i for i in before if labels[i] not in (0, 3)]
    assert sample(labels, 10, 6, (0, 3)).tolist() == expected
    assert sample(np.array(list("abcde"))[labels], 0, 6, "a").tolist() == np.flatnonzero(labels != 0).tolist()
    np.testing.assert_array_equal(sample(labels, 10, 6, [77]), before)
    assert len(sample([1, 1], 0, 0, {1})) == 0


def test_a_sample_is_not_the_head_of_the_split_of_equal_seed() -> None:
    words, drawn = stratified([0] * 200, 1), sample([0] * 200, 60, 1)
    assert 20 <= (words[drawn] == "train").sum() < 60


# The lots of WM-811K


def grid(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 3, (6 + i % 3, 7), dtype=np.uint8)


def lot_maps(n: int = 60, repeats: int = 0) -> WaferMaps:
    """n maps in lots of four, the last eight in none; the last ``repeats`` maps are byte copies of the first ones."""
    maps = [grid(i) for i in range(n - repeats)] + [grid(i) for i in range(repeats)]
    lots = np.array([f"lot{i // 4}" if i < n - 8 else "" for i in range(n)])
    return WaferMaps(maps, np.arange(n) % 9, CLASSES, "", lots)


def opened(path: Path, split: str, **params: object):
    return open_split(Choice("wm811k", (("path", str(path)), *params.items())), split)


def names(path: Path, split: str, **params: object) -> list[int]:
    """Positions in the file of the maps of one split."""
    dataset = opened(path, split, **params)
    return [int(dataset.image(i).name.rpartition(":")[2]) for i in range(len(dataset))]


def test_splits_of_an_npz_deal_whole_lots(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", lot_maps())
    rows = {word: names(tmp_path / "a.npz", word) for word in WORDS}
    assert sorted(row for part in rows.values() for row in part) == list(range(60))
    lots = {word: {opened(tmp_path / "a.npz", word).lot(i) for i in range(len(rows[word]))} for word in WORDS}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not lots[one] & lots[other] - {None}
    words = grouped(lot_maps().lots, 0)
    assert all(rows[word] == np.flatnonzero(words == word).tolist() for word in WORDS)
    assert [rows[w] == sorted(rows[w]) for w in WORDS] == [True] * 3
    whole = opened(tmp_path / "a.npz", "all")
    assert [whole.lot(i) for i in (0, 3, 4, 51, 52)] == ["lot0", "lot0", "lot1", "lot12", None]
    with pytest.raises(InvalidParameter, match="there is no image 60"):
        whole.lot(60)


def test_seed_and_shares_are_parameters(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", lot_maps())
    path = tmp_path / "a.npz"
    assert names(path, "test") != names(path, "test", split_seed=1)
    words = grouped(lot_maps().lots, 2, (0.4, 0.4, 0.2))
    found = names(path, "val", split_seed=2, train_share=0.4, val_share=0.4)
    assert found == np.flatnonzero(words == "val").tolist()
    assert abs(len(found) - 24) <= 4
    with pytest.raises(InvalidParameter, match=r"sum to 1, got 0\.9, 0\.15, -0\.05"):
        opened(path, "val", train_share=0.9)
    reference = f"wm811k(path={path},split_seed=1,drop_duplicates=False):test:0"
    assert dataset_of(reference)[0].image(0).name == f"a.npz:{names(path, 'test', split_seed=1)[0]}"


def test_duplicates_leave_the_held_out_splits_unless_wanted(tmp_path: Path) -> None:
    maps = lot_maps(60, repeats=20)
    write_npz(tmp_path / "a.npz", maps)
    kept = {word: names(tmp_path / "a.npz", word) for word in WORDS}
    whole = {word: names(tmp_path / "a.npz", word, drop_duplicates=False) for word in WORDS}
    content = {word: {(maps.maps[i].shape, maps.maps[i].tobytes()) for i in kept[word]} for word in WORDS}
    assert not content["train"] & content["val"]
    assert not content["test"] & (content["train"] | content["val"])
    assert kept["train"] == whole["train"]
    assert sum(map(len, whole.values())) == 60
    for word, earlier in (("val", ("train",)), ("test", ("train", "val"))):
        seen = {maps.maps[i].tobytes() for part in earlier for i in whole[part]}
        assert kept[word] == [i for i in whole[word] if maps.maps[i].tobytes() not in seen]
    assert sum(map(len, kept.values())) < 60


def test_without_lots_there_is_one_split(tmp_path: Path) -> None:
    for lots in (None, np.full(60, " ")):
        write_npz(tmp_path / "a.npz", WaferMaps(lot_maps().maps, lot_maps().labels, CLASSES, "", lots))
        with pytest.raises(InvalidParameter, match=r"a\.npz knows no lots, so it has no split 'test', only all;"):
            opened(tmp_path / "a.npz", "test")
        assert opened(tmp_path / "a.npz", "all").lot(3) is None
        with pytest.raises(InvalidParameter, match=r"no split 'x'; known: all$"):
            opened(tmp_path / "a.npz", "x")


def test_the_words_of_a_file_come_before_its_lots(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", lot_maps())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.savez(tmp_path / "b.npz", split=np.array(["test", "mine"] * 30), **arrays)
    assert names(tmp_path / "b.npz", "test") == list(range(0, 60, 2))
    with pytest.raises(InvalidParameter, match="no split 'train'; known: all, mine, test"):
        opened(tmp_path / "b.npz", "train")
    with pytest.raises(InvalidParameter, match="no split 'x'; known: all, train, val, test"):
        opened(tmp_path / "a.npz", "x")


def test_as_many_lots_as_maps(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", lot_maps())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.savez(tmp_path / "b.npz", **{**arrays, "lot": np.array(["x", "y"])})
    with pytest.raises(BadData, match=r"60 maps but 2 lots; expected one lot for every map"):
        opened(tmp_path / "b.npz", "all")


def test_lots_follow_their_maps_through_take_and_join() -> None:
    data = lot_maps()
    assert take(data, [5, 0, 59]).lots.tolist() == ["lot1", "lot0", ""]
    bare = WaferMaps(data.maps[:2], data.labels[:2])
    assert join([bare, take(data, [40])]).lots.tolist() == ["", "", "lot10"]
    assert join([bare, bare]).lots is None
    assert take(bare, [1]).lots is None
    assert take(data, [5, 0]).digest == take(WaferMaps(data.maps, data.labels), [5, 0]).digest


# LSWMD.pkl, written by pandas


def lswmd(lots: object) -> pd.DataFrame:
    """The columns of LSWMD.pkl; every third of nine maps is unlabelled."""
    words = [["Center"], ["none"], []] * 3
    cells = {"waferMap": [grid(i) for i in range(9)], "failureType": [np.array([w], dtype="U9") for w in words]}
    cells["failureType"] = [cell if cell.size else np.zeros((0, 0)) for cell in cells["failureType"]]
    columns = {}
    for name, values in cells.items():
        columns[name] = np.empty(9, dtype=object)
        columns[name][:] = values
    return pd.DataFrame({"waferMap": columns["waferMap"], "lotName": lots, "failureType": columns["failureType"]})


LABELLED = [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("lots", "expected"),
    [
        ([f"lot{i // 2}" for i in range(9)], ["lot0", "lot0", "lot1", "lot2", "lot3", "lot3"]),
        (np.array([f"lot{i // 2}" for i in range(9)], object), ["lot0", "lot0", "lot1", "lot2", "lot3", "lot3"]),
        (np.array(["a", None, "b", np.nan, " c ", "", b"d", np.str_("e"), "f"], object), ["a", "", "", "c", "d", "e"]),
        (np.arange(9) + 47540, [str(47540 + i) for i in LABELLED]),
        ([4.0, float("nan"), *range(7)], ["4.0", "", "1.0", "2.0", "4.0", "5.0"]),
    ],
)
def test_lots_of_a_pickle_written_by_pandas(tmp_path: Path, protocol: int, lots: object, expected: list[str]) -> None:
    lswmd(lots).to_pickle(tmp_path / "LSWMD.pkl", protocol=protocol)
    maps, unlabelled = read_pickle(tmp_path / "LSWMD.pkl")
    assert maps.lots.tolist() == expected
    assert unlabelled == 3
    for got, i in zip(maps.maps, LABELLED, strict=True):
        np.testing.assert_array_equal(got, grid(i))


@pytest.mark.parametrize("change", [lambda t: t.drop(columns="lotName"), lambda t: t.assign(lotName=None)])
def test_a_table_without_lots_is_read_all_the_same(tmp_path: Path, change) -> None:
    change(lswmd("x")).to_pickle(tmp_path / "a.pkl")
    maps, _ = read_pickle(tmp_path / "a.pkl")
    assert (len(maps), maps.lots) == (6, None)


def test_the_converter_writes_the_lots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lots = ["lot7", "lot7", "lot7", "", "lot8", "lot8", "lot9", "lot9", "lot9"]
    lswmd(lots).to_pickle(tmp_path / "LSWMD.pkl")
    assert main([str(tmp_path / "LSWMD.pkl"), str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out.endswith(", 3 unlabelled ones skipped, 3 lots kept\n")
    expected = [lots[i] for i in LABELLED]
    assert read_npz(tmp_path / "out.npz").lots.tolist() == expected
    for file in ("out.npz", "LSWMD.pkl"):
        whole = opened(tmp_path / file, "all")
        assert [whole.lot(i) or "" for i in range(6)] == expected
        assert names(tmp_path / file, "train") == np.flatnonzero(grouped(expected, 0) == "train").tolist()
    lswmd(None).to_pickle(tmp_path / "LSWMD.pkl")
    assert main([str(tmp_path / "LSWMD.pkl"), str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out.endswith(", 3 unlabelled ones skipped, their lots are not known\n")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert "lot" not in arrays.files


def test_real_lots_are_not_torn(shared_data: Path) -> None:
    path = shared_data / "wm811k" / "wm811k_lots_labelled1800.npz"
    with np.load(path, allow_pickle=False) as arrays:
        lots, pixels, offsets, shapes = (arrays[name] for name in ("lot", "pixels", "offsets", "shapes"))
    content = [(tuple(s), pixels[a:b].tobytes()) for s, a, b in zip(shapes, offsets, offsets[1:], strict=False)]
    for seed in (0, 1):
        rows = {word: names(path, word, split_seed=seed) for word in WORDS}
        largest = np.unique(lots, return_counts=True)[1].max()
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert not set(lots[rows[one]]) & set(lots[rows[other]])
            assert not {content[i] for i in rows[one]} & {content[i] for i in rows[other]}
        for word, share in SHARES.items():
            full = len(names(path, word, split_seed=seed, drop_duplicates=False))
            assert abs(full - share * 1800) <= largest
            assert 0.9 * full < len(rows[word]) <= full
    assert DATASETS["wm811k"].splits == ("all", *WORDS)
