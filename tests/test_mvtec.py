"""MVTec AD in its official layout, written small by the tests."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from audit_core import measuring
from audit_core.data import DATASETS, dataset_of, format_reference, open_split, parse_reference
from audit_core.data.mvtec import CATEGORIES
from audit_core.data.splits import WORDS
from audit_core.errors import BadData, BadImage, InvalidParameter
from audit_core.images import prepare
from audit_core.keys import Choice

COUNTS = {"train/good": 20, "test/good": 6, "test/cut": 8, "test/a_hole": 6}
GREY = ("grid", "screw", "zipper")
ORDER = ("train/good", "test/good", "test/a_hole", "test/cut")


def picture(name: str, grey: bool) -> np.ndarray:
    """uint8 (12, 10[, 3]), other for every name."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (12, 10) if grey else (12, 10, 3), dtype=np.uint8)


def drawing(kind: str, number: int) -> np.ndarray:
    """uint8 (12, 10), 255 on a rectangle that tells kind and number."""
    codes = np.zeros((12, 10), np.uint8)
    codes[number : number + 3, (1 if kind == "cut" else 5) : 8] = 255
    return codes


def save(path: Path, codes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes).save(path)


def write_category(root: Path, category: str, counts: dict[str, int] = COUNTS) -> None:
    for folder, count in counts.items():
        for number in range(count):
            name = f"{category}/{folder}/{number:03d}.png"
            save(root / name, picture(name, category in GREY))
            kind = folder.partition("/")[2]
            if kind != "good":
                save(root / category / "ground_truth" / kind / f"{number:03d}_mask.png", drawing(kind, number))
    (root / category / "readme.txt").write_text("as in the original")
    (root / category / "license.txt").write_text("as in the original")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two categories, colour and grey, with what a desktop leaves behind."""
    for category in ("bottle", "grid"):
        write_category(tmp_path, category)
    (tmp_path / "bottle" / "test" / ".DS_Store").write_text("x")
    (tmp_path / "bottle" / "test" / "good" / "._000.png").write_text("x")
    (tmp_path / "bottle" / "test" / ".hidden").mkdir()
    (tmp_path / "bottle" / "test" / ".hidden" / "000.png").write_text("x")
    return tmp_path


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    """All fifteen categories of a few images each."""
    for n, category in enumerate(CATEGORIES):
        write_category(tmp_path, category, {"train/good": 5 + n, "test/good": 2, "test/cut": 7})
    return tmp_path


def opened(path: Path, split: str = "all", category: str = "bottle", **params: object):
    return open_split(Choice("mvtec", (("path", str(path)), ("category", category), *params.items())), split)


def names(dataset) -> list[str]:
    return [dataset.image(i).name for i in range(len(dataset))]


def place(dataset, name: str) -> int:
    return names(dataset).index(name)


def files(category: str, folders: tuple[str, ...] = ORDER) -> list[str]:
    return [f"{category}/{folder}/{n:03d}.png" for folder in folders for n in range(COUNTS[folder])]


def test_a_category_is_listed_in_the_official_order(root: Path) -> None:
    dataset = opened(root)
    assert names(dataset) == files("bottle")
    assert names(opened(root, "official-train")) == files("bottle", ORDER[:1])
    assert names(opened(root, "official-test")) == files("bottle", ORDER[1:])
    assert dataset.classes == ("good", "defective")
    assert [dataset.label(i) for i in range(40)] == [0] * 26 + [1] * 14
    assert (dataset.name, dataset.split) == ("mvtec", "all")


@pytest.mark.parametrize(("category", "channels"), [("bottle", 3), ("grid", 1)])
def test_images_are_the_pixels_of_the_files(root: Path, category: str, channels: int) -> None:
    dataset = opened(root, category=category)
    for i in (0, 27, 39):
        found = dataset.image(i)
        assert (found.values.shape, found.wafer) == ((12, 10, channels), False)
        expected = picture(found.name, category == "grid").reshape(12, 10, channels)
        np.testing.assert_array_equal(found.values, expected.astype(np.float32) / np.float32(255))
        assert dataset.reference(i) is None


def test_regions_are_the_drawings_and_good_images_have_none(root: Path) -> None:
    dataset = opened(root)
    for i, name in enumerate(names(dataset)):
        _, _, kind, file = name.split("/")
        region = dataset.region(i)
        if kind == "good":
            assert region is None
            continue
        assert region.dtype == bool
        np.testing.assert_array_equal(region, drawing(kind, int(file[:3])) == 255)
    save(root / "bottle/ground_truth/cut/000_mask.png", drawing("cut", 5) // 255)  # 0 and 1, as some tools rewrite them
    np.testing.assert_array_equal(dataset.region(place(dataset, "bottle/test/cut/000.png")), drawing("cut", 5) == 255)


def test_classes_may_be_the_defect_types_of_one_category(root: Path) -> None:
    dataset = opened(root, task="defect type")
    assert dataset.classes == ("good", "a_hole", "cut")
    assert [dataset.classes[dataset.label(i)] for i in range(40)] == [name.split("/")[2] for name in names(dataset)]
    assert opened(root, "official-train", task="defect type").classes == dataset.classes
    with pytest.raises(InvalidParameter, match="the task 'defect type' needs one category, got 'all'; choose one"):
        opened(root, category="all", task="defect type")


def test_pooled_categories_follow_one_another(pooled: Path) -> None:
    dataset = opened(pooled, category="all")
    expected = [name for category in CATEGORIES for name in names(opened(pooled, category=category))]
    assert names(dataset) == expected
    assert len(dataset) == sum(14 + n for n in range(15))
    assert sum(dataset.label(i) for i in range(len(dataset))) == 15 * 7
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 15
    assert list(CATEGORIES) == sorted(CATEGORIES)


@pytest.mark.parametrize("task", ["good/defective", "defect type"])
def test_seeded_splits_part_the_images_within_every_class(root: Path, task: str) -> None:
    parts = {word: opened(root, word, task=task) for word in WORDS}
    assert sorted(name for part in parts.values() for name in names(part)) == sorted(files("bottle"))
    whole = opened(root, task=task)
    sizes = np.bincount([whole.label(i) for i in range(40)])
    for word, share in zip(WORDS, (0.7, 0.15, 0.15), strict=True):
        found = np.bincount([parts[word].label(i) for i in range(len(parts[word]))], minlength=len(sizes))
        assert (abs(found - share * sizes) <= 1).all()
        assert names(parts[word]) == [name for name in files("bottle") if name in names(parts[word])]
    folders = {name.split("/")[1] for name in names(parts["train"])}
    assert folders == {"train", "test"}, "the training split needs defects, which only the official test folder has"
    assert names(opened(root, "test", task=task, split_seed=1)) != names(parts["test"])


def test_an_image_stands_in_the_same_split_alone_and_pooled(pooled: Path) -> None:
    for word in WORDS:
        expected = [name for category in CATEGORIES for name in names(opened(pooled, word, category))]
        assert names(opened(pooled, word, "all")) == expected
        assert expected
    dataset = opened(pooled, "train", "all")
    labels = [(n.split("/")[0], dataset.label(i)) for i, n in enumerate(names(dataset))]
    for n, category in enumerate(CATEGORIES):
        assert labels.count((category, 0)) == round(0.7 * (7 + n))
        assert labels.count((category, 1)) == 5


def test_a_reference_names_one_image(root: Path) -> None:
    reference = f"mvtec(path={root},category=grid,task=defect type):official-test:6"
    dataset, i = dataset_of(reference)
    assert dataset.image(i).name == "grid/test/a_hole/000.png"
    assert format_reference(*parse_reference(reference)) == reference
    with pytest.raises(InvalidParameter, match=r"category must be one of all, bottle, cable, .*; got 'bottles'"):
        dataset_of(f"mvtec(path={root},category=bottles):all:0")
    with pytest.raises(InvalidParameter, match="no split 'sample'; known: all, official-train, official-test, tr"):
        opened(root, "sample")
    for call in (dataset.image, dataset.label, dataset.region):
        with pytest.raises(InvalidParameter, match="has 20 images, numbered 0 to 19; there is no image 20"):
            call(20)


def test_an_added_or_removed_file_is_noticed(root: Path) -> None:
    assert len(opened(root)) == 40
    name = "bottle/test/cut/100.png"
    save(root / name, picture(name, False))
    assert names(opened(root))[-1] == name
    (root / name).unlink()
    assert len(opened(root)) == 40
    save(root / "bottle/test/new/000.png", picture("n", False))
    assert opened(root, task="defect type").classes == ("good", "a_hole", "cut", "new")
    (root / "bottle/test/new").rename(root / "bottle/test/old")  # keeps the folder's time of change
    assert opened(root, task="defect type").classes == ("good", "a_hole", "cut", "old")
    assert opened(root, category="grid") is opened(root, category="grid")


@pytest.mark.parametrize(
    ("spoil", "category", "sentence"),
    [
        (lambda r: None, "all", "has no folder cable, capsule, carpet, .*, zipper; unpack what is missing or choose a"),
        (lambda r: None, "wood", "has no folder wood; unpack what is missing or choose"),
        (lambda r: shutil.rmtree(r / "bottle"), "bottle", "has no folder bottle; unpack"),
        (lambda r: shutil.rmtree(r / "bottle/train"), "bottle", "the folder bottle/train/good is missing; unpack"),
        (lambda r: shutil.rmtree(r / "bottle/test"), "bottle", "the folder bottle/test is missing; unpack"),
        (lambda r: shutil.rmtree(r), "bottle", r"is no folder; give that of the category folders as mvtec\(path=…\)"),
    ],
)
def test_a_missing_folder_is_one_sentence(root: Path, spoil, category: str, sentence: str) -> None:
    spoil(root)
    with pytest.raises(BadData, match=sentence) as caught:
        opened(root, category=category)
    assert "\n" not in str(caught.value)


def test_a_category_without_images_is_refused(tmp_path: Path) -> None:
    for folder in ("train/good", "test/good"):
        (tmp_path / "bottle" / folder).mkdir(parents=True)
    for split in ("all", "val"):
        with pytest.raises(BadData, match=f"mvtec:{split} holds no image"):
            opened(tmp_path, split)
    with pytest.raises(BadData, match="mvtec: '' is no folder"):
        DATASETS.build(Choice("mvtec")).open("all")


def test_a_missing_or_foreign_drawing_spoils_only_its_image(root: Path) -> None:
    dataset = opened(root)
    i, other = place(dataset, "bottle/test/cut/002.png"), place(dataset, "bottle/test/cut/003.png")
    truth = root / "bottle/ground_truth/cut/002_mask.png"
    truth.unlink()
    with pytest.raises(
        BadData, match=r"cut/002\.png is defective, but bottle/ground_truth/cut/002_mask\.png is missing;"
    ):
        dataset.region(i)
    save(truth, np.zeros((5, 4), np.uint8))
    with pytest.raises(BadData, match=r"002_mask\.png has \(5, 4\) pixels, its image \(12, 10\); unpack both again"):
        dataset.region(i)
    truth.write_bytes(b"\x89PNG broken")
    with pytest.raises(BadImage, match=r"002_mask\.png has a broken or cut-off image header"):
        dataset.region(i)
    assert dataset.image(i).values.shape == (12, 10, 3)
    assert dataset.region(other).any()


def test_an_unreadable_image_spoils_only_itself(root: Path) -> None:
    dataset = opened(root)
    file = root / "bottle/train/good/004.png"
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(whole, "PNG")
    file.write_bytes(whole.getvalue()[:2000])
    with pytest.raises(BadImage, match=r"bottle/train/good/004\.png is truncated or damaged"):
        dataset.image(4)
    file.unlink()
    with pytest.raises(BadImage, match=r"bottle/train/good/004\.png cannot be opened .*; unpack MVTec AD again"):
        dataset.image(4)
    assert dataset.image(5).name.endswith("005.png")


@pytest.mark.parametrize(("shape", "size"), [((90, 70), (32, 24)), ((40, 40), (64, 64)), ((101, 57), (20, 50))])
def test_the_region_lies_in_the_model_input_where_the_defect_lies(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """A defect painted white on black: the resized picture is bright exactly where the resized region is True."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - 0.3 * shape[0]) ** 2 + (columns - 0.6 * shape[1]) ** 2 < (0.2 * min(shape)) ** 2
    for folder in ("train/good", "test/good"):
        save(tmp_path / "bottle" / folder / "000.png", np.zeros(shape, np.uint8))
    save(tmp_path / "bottle/test/cut/000.png", np.where(inside, 255, 0).astype(np.uint8))
    save(tmp_path / "bottle/ground_truth/cut/000_mask.png", np.where(inside, 255, 0).astype(np.uint8))
    reference = f"mvtec(path={tmp_path},category=bottle):official-test:1"
    dataset, i = dataset_of(reference)
    card = replace(tiny.card("toy", 16, 3, (), "unknown", "unknown"), input_size=size)
    region, seen = measuring.region_of(reference, card), prepare(dataset.image(i), card)[0]
    assert region.shape == seen.shape == size
    assert not region[seen == 0].any()
    assert region[seen == 1].all()
    assert 0.9 * (seen > 0.5).sum() < (region & (seen > 0.5)).sum()
    assert abs(region.mean() - inside.mean()) < 0.02
    assert measuring.region_of(f"mvtec(path={tmp_path},category=bottle):official-test:0", card) is None
