"""Small pictures: idx, binary CIFAR-10, folders and archives, each written here in its true layout."""

import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from audit_core.data import dataset_of, open_split
from audit_core.errors import BadData, InvalidParameter
from audit_core.images import prepare
from audit_core.keys import Choice
from audit_core.types import SourceImage
from models import cifar, idx
from models.cards import UNKNOWN, ModelCard
from models.feeds import PictureFeed, resize_pictures, shift
from models.pictures import Pictures, read_pictures, stratified


def write_mnist(folder, part="t10k", n=30, zipped=True):
    """The official layout: big-endian magic number, dimensions, bytes."""
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
    for name, head, data in (
        (f"{part}-images-idx3-ubyte", struct.pack(">IIII", 2051, n, 28, 28), images),
        (f"{part}-labels-idx1-ubyte", struct.pack(">II", 2049, n), labels),
    ):
        content = head + data.tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content)) if zipped else (folder / name).write_bytes(content)
    return images, labels


def write_binary(folder, n=20):
    """The official binary version: a label, 1024 red, 1024 green, 1024 blue bytes a record."""
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 256, (6, n, 32, 32, 3), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
    for place, name in enumerate([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]):
        records = [
            bytes([k]) + image.transpose(2, 0, 1).tobytes() for k, image in zip(labels, images[place], strict=True)
        ]
        (folder / name).write_bytes(b"".join(records))
    return images, labels


def write_folders(folder, per_class=2):
    """train/CLASS/NNNN.jpg and test/CLASS/NNNN.png, pictures of one colour, so that JPEG hardly changes them."""
    for split, ending in (("train", "jpg"), ("test", "png")):
        for k, name in enumerate(cifar.CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(per_class):
                picture = Image.new("RGB", (32, 32), (20 * k, 100 * i, 200))
                picture.save(folder / split / name / f"{i:04d}.{ending}")


def pack(folder, archive, split):
    """cifar10_jpeg_SPLIT.tar.xz, its members in an order of its own."""
    with tarfile.open(archive / f"cifar10_jpeg_{split}.tar.xz", "w:xz") as members:
        for path in sorted((folder / split).rglob("*"), reverse=True):
            members.add(path, path.relative_to(folder).as_posix(), recursive=False)


def test_digits_are_scikit_learns_split_once_and_for_all():
    train, test = read_pictures("digits", "train"), read_pictures("digits", "test")
    found = load_digits()
    assert (len(train), len(test)) == (1438, 359)
    assert train.images.dtype == np.uint8
    assert train.images.shape[1:] == (8, 8, 1)
    assert (train.images.max(), train.labels.dtype) == (255, np.int64)
    both = {image.tobytes() for image in np.concatenate([train.images, test.images])}
    assert both == {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in found.images}
    counts = np.bincount(found.target)
    np.testing.assert_array_equal(np.bincount(test.labels), [round(0.2 * count) for count in counts])
    assert test.digest == read_pictures("digits", "test").digest != train.digest
    assert (test.name, test.classes) == ("digits:test", tuple("0123456789"))


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_is_read_byte_by_byte(tmp_path, zipped):
    images, labels = write_mnist(tmp_path, zipped=zipped)
    found = read_pictures(f"mnist:{tmp_path}", "test")
    np.testing.assert_array_equal(found.images[..., 0], images)
    np.testing.assert_array_equal(found.labels, labels)


def test_real_mnist_has_its_known_digests(shared_data):
    found = read_pictures(f"mnist:{shared_data / 'mnist'}", "test")
    head = struct.pack(">IIII", 2051, 10000, 28, 28)
    digest = hashlib.sha256(head + found.images.tobytes()).hexdigest()
    assert digest == "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    assert np.bincount(found.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_binary_cifar_is_read_as_its_page_describes(tmp_path):
    images, labels = write_binary(tmp_path)
    train, test = read_pictures(f"cifar10:{tmp_path}", "train"), read_pictures(f"cifar10:{tmp_path}", "test")
    np.testing.assert_array_equal(train.images, images[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(test.images, images[5])
    np.testing.assert_array_equal(train.labels, np.tile(labels, 5))
    assert test.classes == cifar.CLASSES


def test_folders_and_archives_of_pictures_are_the_same_data(tmp_path):
    (packed := tmp_path / "packed").mkdir()
    write_folders(tmp_path / "plain")
    for split in ("train", "test"):
        pack(tmp_path / "plain", packed, split)
        plain, archived = (read_pictures(f"cifar10:{folder}", split) for folder in (tmp_path / "plain", packed))
        assert plain.digest == archived.digest
        np.testing.assert_array_equal(plain.labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(plain.images[13, 5, 6], [20 * 6, 100, 200])
    assert {path.suffix for path in packed.iterdir()} == {".xz"}, "nothing is unpacked to disk"


def test_real_cifar_archive(shared_data):
    found = read_pictures(f"cifar10:{shared_data / 'cifar10'}", "test")
    assert (found.images.shape, np.bincount(found.labels).tolist()) == ((10000, 32, 32, 3), [1000] * 10)
    with tarfile.open(shared_data / "cifar10" / "cifar10_jpeg_test.tar.xz") as members:
        data = members.extractfile("test/automobile/0002.jpg").read()
    np.testing.assert_array_equal(found.images[1002], np.asarray(Image.open(io.BytesIO(data))))


def spoilt(tmp_path, change):
    write_mnist(tmp_path)
    change(tmp_path)
    return f"mnist:{tmp_path}"


def cut(path, count=-1):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:count]))


IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda f: (f / IMAGES).unlink(),
            r"no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz in .*; put the four",
        ),
        (
            lambda f: (f / LABELS).write_bytes((f / IMAGES).read_bytes()),
            "begins with number 2051, not 2049; it is no such",
        ),
        (lambda f: cut(f / IMAGES), r"announces 23,520 bytes and holds only 23,519; download it again"),
        (lambda f: cut(f / IMAGES, 3), "ends after 3 bytes, within its own header; download"),
        (lambda f: (f / IMAGES).write_bytes((f / IMAGES).read_bytes()[:99]), "cannot be read .*; download it again"),
        (lambda f: (f / IMAGES).write_bytes(b"plain words"), "cannot be read .*; download it again"),
        (lambda f: write_mnist_labels(f, 29, 0), "30 images but 29 labels for test; download both"),
        (lambda f: write_mnist_labels(f, 30, 11), "labels must be 0 to 9, found 11; download"),
        (lambda f: write_head(f, 2**31), r"claims .* bytes, more than .*; download the official file"),
    ],
)
def test_a_foreign_or_damaged_idx_file_is_one_sentence(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_pictures(spoilt(tmp_path, change), "test")
    assert "\n" not in str(caught.value)


def write_mnist_labels(folder, n, label):
    (folder / LABELS).write_bytes(gzip.compress(struct.pack(">II", 2049, n) + bytes([label]) * n))


def write_head(folder, n):
    (folder / IMAGES).write_bytes(gzip.compress(struct.pack(">IIII", 2051, n, 28, 28)))


def picture_bytes(size=(32, 32)):
    Image.new("L", size).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, r"holds no test images; expected test/CLASS/\*\.jpg or \*\.png, cifar10_jpeg_test"),
        ({"data_batch_1": b"\x80\x02"}, "the Python version, which is pickled and never loaded; download the binary"),
        ({"test_batch.bin": b"123"}, "test_batch.bin has 3 bytes, no multiple of 3073; unpack it again"),
        ({"test_batch.bin": bytes([77]) * 3073}, "labels must be 0 to 9, found 77"),
        ({"test/bird/a.png": picture_bytes()}, "there is no picture of airplane, automobile, cat, .*; unpack all ten"),
        ({"test/boat/a.png": picture_bytes()}, "'boat' is none of its classes; expected airplane"),
        ({"test/bird/a.png": picture_bytes((9, 8))}, r"bird/a\.png has 8x9 pixels, not 32x32"),
        ({"test/bird/a.jpg": b"words"}, r"bird/a\.jpg is no readable picture \(UnidentifiedImageError\); unpack"),
        ({"test/bird/a.jpg": bytes(2**20 + 1)}, r"a\.jpg has more than 1,048,576 bytes"),
        ({"cifar10_jpeg_test.tar.xz": b"words"}, r"cifar10_jpeg_test\.tar\.xz cannot be read .*; download it again"),
        ({"cifar10_jpeg_test.tar.xz": lzma.compress(b"words")}, r"cannot be read .*; download it again"),
    ],
)
def test_a_missing_or_foreign_cifar_file_is_one_sentence(tmp_path, files, sentence):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_pictures(f"cifar10:{tmp_path}", "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["", "faces", "digits:here", "digits:", "mnist", "mnist:", "cifar10"])
def test_an_unknown_source_is_one_sentence(source):
    with pytest.raises(ValueError, match="pictures come from digits, mnist:FOLDER or cifar10:FOLDER, got"):
        read_pictures(source, "train")


def test_an_unknown_split_or_folder_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="digits has the splits train and test, got 'val'"):
        read_pictures("digits", "val")
    with pytest.raises(ValueError, match=r"mnist: '.*nowhere' is no folder; give the one that holds its files"):
        read_pictures(f"mnist:{tmp_path}/nowhere", "train")


def test_a_stratified_choice_is_seeded_ordered_and_even():
    train = read_pictures("digits", "train")
    few, again = (stratified(train, 7, np.random.default_rng(5)) for _ in range(2))
    assert few.digest == again.digest != stratified(train, 7, np.random.default_rng(6)).digest
    assert np.bincount(few.labels).tolist() == [7] * 10
    rows = [int(np.flatnonzero((train.images == image).all(axis=(1, 2, 3)))[0]) for image in few.images]
    assert rows == sorted(rows)
    assert len(stratified(train, 10_000, np.random.default_rng(5))) == len(train)
    with pytest.raises(ValueError, match="digits:train: at least one picture of each of 10 classes is needed"):
        stratified(train, 0, np.random.default_rng(5))


def test_the_trainer_sees_what_an_audit_shows():
    test = read_pictures("digits", "test")
    card = ModelCard("toy", "toy", "toy", (32, 32), 1, UNKNOWN, (0.5,), (0.5,), test.classes, (), UNKNOWN, UNKNOWN, 0)
    seen = resize_pictures(torch.from_numpy(test.images[:9]).permute(0, 3, 1, 2), 32).numpy()
    for row, codes in zip(seen, test.images, strict=False):
        image = prepare(SourceImage(codes.astype(np.float32) / 255, False, "digit"), card)
        np.testing.assert_allclose(row, image, atol=1e-6)


def test_shifts_are_whole_pixels_with_zeros_moving_in():
    images = torch.zeros((200, 2, 6, 6))
    images[:, :, 3, 2] = torch.tensor([1.0, 2.0])
    moved = shift(images, 2, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(moved.sum(dim=(2, 3)).numpy(), np.tile([1.0, 2.0], (200, 1)))
    places = {tuple(map(int, np.argwhere(image[0].numpy())[0])) for image in moved}
    assert places == {(3 + down, 2 + right) for down in range(-2, 3) for right in range(-2, 3)}
    corner = torch.zeros((50, 1, 4, 4))
    corner[:, :, 0, 0] = 1
    assert {float(image.sum()) for image in shift(corner, 1, torch.Generator().manual_seed(0))} == {0.0, 1.0}


def test_flips_mirror_half_of_the_pictures():
    images = np.zeros((64, 8, 8, 1), np.uint8)
    images[:, :, 0] = 255
    pictures = Pictures("toy:train", images, np.zeros(64, np.int64), ("only",))
    feed = PictureFeed(pictures, pictures, 8, (0.0,), (1.0,), torch.device("cpu"))
    order = torch.arange(64)
    right = feed.batch(order, "shift+flip", torch.Generator().manual_seed(1))[..., 4:].sum(dim=(1, 2, 3)) > 0
    assert 20 < int(right.sum()) < 44
    assert not feed.batch(order, "shift", torch.Generator().manual_seed(1))[..., 4:].any()


def test_data_sets_wrap_the_same_pictures(tmp_path):
    images, labels = write_mnist(tmp_path)
    dataset, i = dataset_of(f"mnist(path={tmp_path}):test:4")
    np.testing.assert_array_equal(dataset.image(i).values[..., 0], images[4].astype(np.float32) / 255)
    assert (dataset.label(i), len(dataset), dataset.image(i).name) == (labels[4], 30, "mnist:test:4")
    assert (dataset.region(i), dataset.reference(i)) == (None, None)
    digits, i = dataset_of("digits:train:3")
    np.testing.assert_array_equal(digits.image(i).values, read_pictures("digits", "train").images[3] / np.float32(255))
    write_folders(tmp_path)
    cifar10, i = dataset_of(f"cifar10(path={tmp_path}):test:7")
    assert (cifar10.classes[cifar10.label(i)], cifar10.image(i).values.shape) == ("cat", (32, 32, 3))


def test_a_changed_file_is_read_again_and_bad_ones_are_bad_data(tmp_path):
    write_mnist(tmp_path)
    choice = Choice("mnist", (("path", str(tmp_path)),))
    first = open_split(choice, "test")
    assert open_split(choice, "test") is first
    write_mnist(tmp_path, n=40)
    assert len(open_split(choice, "test")) == 40
    (tmp_path / IMAGES).write_bytes(b"words")
    with pytest.raises(BadData, match=r"mnist: t10k-images-idx3-ubyte\.gz cannot be read"):
        open_split(choice, "test")
    with pytest.raises(BadData, match=r"mnist: '' is no folder; give the one of its files as mnist\(path=…\)"):
        dataset_of("mnist:test:0")
    with pytest.raises(InvalidParameter, match="'digits' has no split 'all'; known: train, test"):
        dataset_of("digits:all:0")


def test_one_idx_reader_refuses_other_dimensions(tmp_path):
    write_mnist(tmp_path, zipped=False)
    with pytest.raises(ValueError, match="begins with number 2051, not 2049"):
        idx.read_idx(tmp_path, "t10k-images-idx3-ubyte", 1)


def test_a_picture_that_claims_to_be_huge_is_one_sentence(tmp_path):
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = (head, b"IDAT" + zlib.compress(b""), b"IEND")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    path = tmp_path / "train" / "cat" / "1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"cifar10: cat/1\.png is no readable picture \(DecompressionBomb"):
        read_pictures(f"cifar10:{tmp_path}", "train")


def test_an_idx_file_of_nothing_is_one_sentence(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 3, 0, 28))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 3) + bytes(3))
    with pytest.raises(ValueError, match=r"announces nothing \(shape \(3, 0, 28\)\)"):
        read_pictures(f"mnist:{tmp_path}", "train")
