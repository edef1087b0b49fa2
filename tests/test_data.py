"""Data sets: generated, WM-811K as npz and as pickle, folders; references that name one image."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from audit_core.data import DATASETS, dataset_of, format_reference, open_image, open_split, parse_reference
from audit_core.data.wm811k.__main__ import main
from audit_core.data.wm811k.lswmd import read_pickle
from audit_core.errors import AuditError, BadData, BadImage, InvalidParameter, UnknownName
from audit_core.images import prepare
from audit_core.keys import Choice
from models import synthetic
from models.cards import UNKNOWN, ModelCard
from models.wafers import CLASSES, WaferMaps, read_npz, resize, write_npz

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("Center", "none", "", "Edge-Ring", "", "Scratch", "Near-full")


def card(size=(16, 16), channels=1):
    return ModelCard(
        name="toy", family="toy", architecture="toy", input_size=size, channels=channels, encoding="three-level",
        mean=(0.5,), std=(0.5,), classes=CLASSES, feature_layers=(), readout=UNKNOWN, attention=UNKNOWN, parameters=0,
    )  # fmt: skip


def grids(n=7):
    rng = np.random.default_rng(8)
    return [rng.integers(0, 3, (22 + i, 24), dtype=np.uint8) for i in range(n)]


def objects(items):
    column = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        column[i] = item
    return column


def boxed(word):
    """As in the original file: [['Center']] or an empty array."""
    return np.array([[word]]) if word else np.zeros((0, 0))


def table(labels=None):
    """The columns of LSWMD.pkl, its misspelling included."""
    n = len(WORDS)
    return pd.DataFrame(
        {
            "waferMap": objects(grids()),
            "dieSize": np.array([g.size for g in grids()], dtype=float),
            "lotName": [f"lot{i}" for i in range(n)],
            "waferIndex": np.arange(1.0, n + 1),
            "trianTestLabel": objects([boxed("Training" if w else "") for w in WORDS]),
            "failureType": objects([boxed(w) for w in WORDS] if labels is None else labels),
        }
    )


def assert_labelled(maps):
    kept = [i for i, word in enumerate(WORDS) if word]
    assert [maps.classes[label] for label in maps.labels] == [WORDS[i] for i in kept]
    assert maps.lots.tolist() == [f"lot{i}" for i in kept]
    for got, i in zip(maps.maps, kept, strict=True):
        np.testing.assert_array_equal(got, grids()[i])
        assert got.dtype == np.uint8


# pandas writes these files; what reads them shares no code with it.


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_written_by_pandas_gives_the_labelled_maps(tmp_path, protocol):
    table().to_pickle(tmp_path / "LSWMD.pkl", protocol=protocol)
    maps, unlabelled = read_pickle(tmp_path / "LSWMD.pkl")
    assert_labelled(maps)
    assert unlabelled == 2


@pytest.mark.parametrize(
    "spell",
    [
        lambda w: w or None, lambda w: np.str_(w) if w else np.nan, lambda w: [[w]] if w else [],
        lambda w: np.array([w], dtype=object) if w else np.array([], dtype=object), lambda w: w.upper(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_labels_may_be_spelt_in_several_ways(tmp_path, spell, protocol):
    table(labels=[spell(w) for w in WORDS]).to_pickle(tmp_path / "LSWMD.pkl", protocol=protocol)
    maps, unlabelled = read_pickle(tmp_path / "LSWMD.pkl")
    assert_labelled(maps)
    assert unlabelled == 2


def test_rows_kept_by_a_filter_and_columns_made_of_one_block(tmp_path):
    frame = table().drop(columns=["dieSize", "waferIndex"]).astype(object)
    frame[frame.lotName != "lot0"].to_pickle(tmp_path / "a.pkl")
    maps, unlabelled = read_pickle(tmp_path / "a.pkl")
    assert ([CLASSES[i] for i in maps.labels], unlabelled) == (["none", "Edge-Ring", "Scratch", "Near-full"], 2)
    np.testing.assert_array_equal(maps.maps[1], grids()[3])


def test_column_major_map_keeps_its_orientation(tmp_path):
    frame = table()
    frame.at[0, "waferMap"] = np.asfortranarray(grids()[0])
    frame.to_pickle(tmp_path / "a.pkl", protocol=2)
    np.testing.assert_array_equal(read_pickle(tmp_path / "a.pkl")[0].maps[0], grids()[0])


def as_module(module, name, **methods):
    """A stand-in that pickles under the name of another module's class."""
    return type(name, (), {"__module__": module, "__qualname__": name, **methods})


class Old:
    """Objects laid out as pandas 0.15 to 0.20 under Python 2 pickled them (seen in their published test files)."""

    def __init__(self, indexes, bare):
        self.frame = as_module("pandas.core.frame", "DataFrame")
        self.manager = as_module("pandas.core.internals", "BlockManager", __getstate__=lambda self: self.parts)
        self.index = as_module(indexes, "Index")
        new_index = as_module(indexes, "_new_Index")
        self.index.__reduce__ = lambda one: (new_index, (self.index, {"data": one.names, "name": None}))
        self.known = [self.frame, self.manager, self.index, new_index]
        self.bare = bare

    def pickle(self, monkeypatch, frame):
        words = ["failureType", "lotName", "trianTestLabel", "waferMap"]
        cells = objects([value for column in words for value in frame[column]])
        numbers = np.stack([frame[column].to_numpy() for column in ("dieSize", "waferIndex")])
        for kind in self.known:
            module = sys.modules.get(kind.__module__) or type(sys)(kind.__module__)
            monkeypatch.setitem(sys.modules, kind.__module__, module)
            monkeypatch.setattr(module, kind.__name__, kind, raising=False)
        names, rows = self.index(), self.index()
        names.names, rows.names = objects(list(frame.columns)), np.arange(len(frame))
        manager = self.manager()
        blocks = [
            {"values": numbers, "mgr_locs": slice(1, 4, 2)},
            {"values": cells.reshape(4, -1), "mgr_locs": np.array([5, 2, 4, 0])},
        ]
        manager.parts = ([names, rows], [], [], {"0.14.1": {"axes": [names, rows], "blocks": blocks}})
        old = self.frame()
        old.__dict__.update({"_data": manager, "_typ": "dataframe", "_metadata": []})
        if self.bare:
            self.frame.__getstate__ = lambda self: self._data
        return pickle.dumps(old, protocol=2)


@pytest.mark.parametrize("indexes", ["pandas.core.index", "pandas.indexes.base", "pandas.core.indexes.base"])
@pytest.mark.parametrize("bare", [False, True])
def test_layout_of_the_first_pandas_versions(tmp_path, monkeypatch, indexes, bare):
    frame = table()
    with monkeypatch.context() as patch:
        data = Old(indexes, bare).pickle(patch, frame)
    (tmp_path / "LSWMD.pkl").write_bytes(data)
    maps, unlabelled = read_pickle(tmp_path / "LSWMD.pkl")
    assert_labelled(maps)
    assert unlabelled == 2


class Call:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def hostile(trace):
    """Ways to run code or to reach behind the allow-list, each leaving ``trace`` behind if it worked."""
    import os

    touch = f"open({str(trace)!r}, 'w').close()"
    return {
        "os.system": pickle.dumps(Call(os.system, f"touch {trace}")),
        "builtins.eval": pickle.dumps(Call(eval, touch), protocol=4),
        "__builtin__.eval": pickle.dumps(Call(eval, touch), protocol=2),
        "builtins.getattr": pickle.dumps(Call(getattr, 1, "real"), protocol=4),
        "pandas.io.pickle.read_pickle": b"cpandas.io.pickle\nread_pickle\n(V/x\ntR.",
        "numpy.load": b"cnumpy\nload\n(V/x\ntR.",
        "numpy._core.multiarray.fromfile": b"cnumpy._core.multiarray\nfromfile\n.",
        "pandas.core.frame.os.system": b"\x80\x04\x8c\x11pandas.core.frame\x8c\x09os.system\x93.",
        "copyreg.__newobj__": b"ccopyreg\n__newobj__\n.",
        "builtins.object.__subclasses__": b"\x80\x04\x8c\x08builtins\x8c\x15object.__subclasses__\x93)R.",
        "builtins.exec": pickle.dumps(objects([Call(exec, touch), 1]), protocol=4),
        "posix.system": f"(Vtouch {trace}\niposix\nsystem\n.".encode(),
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_hostile_pickle_is_refused_by_name_and_never_run(tmp_path, name):
    trace = tmp_path / "trace"
    (tmp_path / "LSWMD.pkl").write_bytes(hostile(trace)[name])
    shown = {"os.system": "(posix|nt)\\.system"}.get(name, name.replace(".", "\\."))
    with pytest.raises(BadData, match=rf"LSWMD\.pkl is refused: it asks to run {shown}, which"):
        read_pickle(tmp_path / "LSWMD.pkl")
    assert not trace.exists()


def test_the_hostile_pickles_would_have_worked(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(hostile(trace)["builtins.eval"])
    assert trace.exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no readable pickle of a table .*EOFError"),
        (b"just text", "no readable pickle"),
        (pickle.dumps({"waferMap": 1}), "it holds dict, not a table"),
        (pickle.dumps(np.zeros(3)), "it holds _reconstruct, not a table"),
        (b"\x80\x04cnumpy\nndarray\n}\x8c\x01aK\x01sb.", "no readable pickle"),
        (b"cnumpy\nndarray\n(I1000000000\ntR.", "it holds ndarray, not a table"),
        (b"ccopyreg\n_reconstructor\n(I1\nI2\nNtR.", "builds an object of no known class"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "refers to something outside itself"),
        (b"\x80\x02(" + b"(" * 5000 + b"t" * 5000 + b".", "no readable pickle|it holds tuple"),
    ],
)
def test_foreign_pickle_is_one_sentence(tmp_path, data, sentence):
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(BadData, match=sentence) as caught:
        read_pickle(tmp_path / "a.pkl")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="failureType"), "no column failureType; it has waferMap, dieSize"),
        (lambda t: t.assign(failureType="Spiral"), "row 0 has the unknown class 'Spiral'"),
        (lambda t: t.assign(waferMap=objects([g + 1 for g in grids()])), "row 0 has die codes other than"),
        (lambda t: t.assign(waferMap=objects([g.ravel() for g in grids()])), "row 0 is no grid"),
        (lambda t: t.assign(waferMap=1.5), "an array should be"),
        (lambda t: t.assign(failureType=objects([["Center", "Loc"]] * 7)), "2 classes at once"),
        (lambda t: t.assign(waferMap=objects([g.astype("M8[s]") for g in grids()])), "array of type M8"),
    ],
)
def test_table_with_other_content_is_refused(tmp_path, change, sentence):
    change(table()).to_pickle(tmp_path / "a.pkl", protocol=4)
    with pytest.raises(BadData, match=sentence):
        read_pickle(tmp_path / "a.pkl")


def test_object_array_from_raw_bytes_is_refused(tmp_path):
    """Bytes that are declared to be objects would be taken for addresses by numpy's own reader."""
    frame = table()
    data = pickle.dumps(frame, protocol=2)
    swapped = data.replace(b"X\x02\x00\x00\x00u1", b"X\x02\x00\x00\x00O8")
    assert swapped != data
    (tmp_path / "a.pkl").write_bytes(swapped)
    with pytest.raises(BadData, match="array of type O8"):
        read_pickle(tmp_path / "a.pkl")


def test_converter_writes_the_npz_that_the_data_set_reads(tmp_path, capsys):
    table().to_pickle(tmp_path / "LSWMD.pkl")
    assert main([str(tmp_path / "LSWMD.pkl"), str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out.startswith("5 labelled maps written to ")
    assert_labelled(read_npz(tmp_path / "out.npz"))
    for file in ("out.npz", "LSWMD.pkl"):
        dataset, i = dataset_of(f"wm811k(path={tmp_path / file}):all:2")
        np.testing.assert_array_equal(dataset.image(i).values, grids()[3])
        assert (dataset.classes[dataset.label(i)], len(dataset), dataset.region(i)) == ("Edge-Ring", 5, None)


def test_converter_as_a_command_refuses_with_code_2(tmp_path):
    (tmp_path / "LSWMD.pkl").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    command = [sys.executable, "-m", "audit_core.data.wm811k", tmp_path / "LSWMD.pkl", tmp_path / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "asks to run os.system" in done.stderr
    assert not (tmp_path / "out.npz").exists()


def write_maps(path, labels=(0, 3, 8), **more):
    maps = WaferMaps(grids(3), np.array(labels))
    write_npz(path, maps)
    if more:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **arrays, **more)
    return path


def test_npz_splits_follow_its_own_words(tmp_path):
    path = write_maps(tmp_path / "a.npz", split=np.array(["train", "test", "train"]), labels=(0, -1, 8))
    choice = Choice("wm811k", (("path", str(path)),))
    train = open_split(choice, "train")
    assert [train.label(i) for i in range(len(train))] == [0, 8]
    np.testing.assert_array_equal(train.image(1).values, grids()[2])
    assert open_split(choice, "all").label(1) is None
    with pytest.raises(InvalidParameter, match="no split 'val'; known: all, test, train"):
        open_split(choice, "val")


def test_changed_file_is_read_again(tmp_path):
    path = write_maps(tmp_path / "a.npz")
    assert dataset_of(f"wm811k(path={path}):all:1")[0].label(1) == 3
    write_maps(path, labels=(1, 2, 3, 4)[:3])
    assert dataset_of(f"wm811k(path={path}):all:1")[0].label(1) == 2


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda p: None, "is no file; give an npz of wafer maps"),
        (lambda p: np.savez(p, a=np.zeros(3)), "is no npz of wafer maps .*lacks the arrays"),
        (lambda p: p.write_bytes(b"PK\x03\x04 broken"), "is no npz of wafer maps"),
        (lambda p: p.write_bytes(write_maps(p).read_bytes()[:-90]), "is no npz of wafer maps"),
        (lambda p: write_maps(p, labels=(0, 1, 9)), "labels outside its 9 classes"),
        (lambda p: write_maps(p, split=np.array(["train"])), "3 maps but 1 split words"),
        (lambda p: write_npz(p, WaferMaps([], np.zeros(0, dtype=np.int64))), "holds no image"),
        (lambda p: np.savez(p, pixels=objects([1]), offsets=0, shapes=0, labels=0), "is no npz of wafer maps"),
    ],
)
def test_foreign_npz_is_refused(tmp_path, write, sentence):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(BadData, match=sentence) as caught:
        dataset_of(f"wm811k(path={path}):all:0")
    assert "\n" not in str(caught.value)


def test_synthetic_is_the_generator_and_carries_regions():
    dataset = open_split(Choice("synthetic", (("seed", 11), ("n", 20))), "sample")
    drawn = synthetic.wafers(20, 11)
    assert (len(dataset), dataset.classes, dataset.name, dataset.split) == (20, CLASSES, "synthetic", "sample")
    for i in (19, 0, 7):
        np.testing.assert_array_equal(dataset.image(i).values, drawn[i].codes)
        np.testing.assert_array_equal(dataset.region(i), drawn[i].region)
        assert dataset.label(i) == drawn[i].label == i % 9


def test_reference_image_is_the_same_wafer_with_every_die_passed():
    image = open_image("synthetic:sample:1")
    dataset, i = dataset_of("synthetic:sample:1")
    expected = np.zeros_like(image.values)
    expected[image.values > 0] = 1
    np.testing.assert_array_equal(dataset.reference(i).values, expected)
    assert (image.values == 2).any()


@pytest.mark.parametrize(("n", "indices"), [(5, range(5)), (600, [k * 600 // 256 for k in range(256)])])
def test_mean_is_over_evenly_spaced_images_as_the_model_sees_them(n, indices):
    dataset = open_split(Choice("synthetic", (("n", n),)), "sample")
    seen = [prepare(dataset.image(i), card(channels=3)).astype(np.float64) for i in indices]
    mean = dataset.mean_pixels(card(channels=3))
    np.testing.assert_allclose(mean, np.mean(seen, axis=0), atol=1e-7)
    assert (mean.dtype, mean.flags.writeable) == (np.float32, False)
    assert dataset.mean_pixels(card(channels=3)) is mean
    assert dataset.mean_pixels(card((8, 8))).shape == (1, 8, 8)


def write_folder(root):
    for name in ("dog/b.png", "cat/a.png", "cat/c.npy", "dog/.hidden.png", "cat/notes.txt", "loose.bmp"):
        (root / name).parent.mkdir(exist_ok=True)
        file = io.BytesIO()
        if name.endswith("npy"):
            np.save(file, grids(1)[0])
        else:
            Image.new("L", (4, 3), 51).save(file, name[-3:].upper() if name[-3:] != "txt" else "PNG")
        (root / name).write_bytes(file.getvalue())
    return root


def test_folder_with_classes(tmp_path):
    dataset, _ = dataset_of(f"folder(path={write_folder(tmp_path)}):all:0")
    assert dataset.classes == ("cat", "dog")
    names = [dataset.image(i).name for i in range(len(dataset))]
    assert names == ["cat/a.png", "cat/c.npy", "dog/b.png", "loose.bmp"]
    assert [dataset.label(i) for i in range(4)] == [0, 0, 1, None]
    np.testing.assert_allclose(dataset.image(3).values, np.full((3, 4, 1), 0.2), rtol=1e-6)
    assert (dataset.reference(0), dataset.region(0)) == (None, None)
    np.testing.assert_array_equal(dataset.reference(1).values, np.minimum(grids(1)[0], 1))


def test_one_broken_file_spoils_only_itself(tmp_path):
    (write_folder(tmp_path) / "cat" / "a.png").write_bytes(b"\x89PNG broken")
    dataset, _ = dataset_of(f"folder(path={tmp_path}):all:0")
    with pytest.raises(BadImage, match=r"cat/a\.png has a broken or cut-off image header"):
        dataset.image(0)
    assert dataset.image(2).values.shape == (3, 4, 1)
    (tmp_path / "dog" / "b.png").unlink()
    with pytest.raises(BadImage, match=r"dog/b\.png cannot be opened"):
        dataset.image(2)
    assert len(dataset_of(f"folder(path={tmp_path}):all:0")[0]) == 3


def test_flat_folder_has_no_classes(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    dataset, _ = dataset_of(f"folder(path={tmp_path}):all:0")
    assert (dataset.classes, dataset.label(0)) == ((), None)


@pytest.mark.parametrize(("make", "sentence"), [(False, "is no folder"), (True, r"holds no image; read are \.png")])
def test_folder_without_images_is_refused(tmp_path, make, sentence):
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(BadData, match=sentence):
        dataset_of(f"folder(path={tmp_path / 'x'}):all:0")


@pytest.mark.parametrize(
    ("text", "choice", "split", "index"),
    [
        ("synthetic:sample:3", Choice("synthetic", (("seed", 7), ("n", 90))), "sample", 3),
        (" synthetic(n=12):sample:0", Choice("synthetic", (("seed", 7), ("n", 12))), "sample", 0),
        ("synthetic():sample:0", Choice("synthetic", (("seed", 7), ("n", 90))), "sample", 0),
        ("folder(path=/a (b):c=d/e%2Cf%25):all:8", Choice("folder", (("path", "/a (b):c=d/e,f%"),)), "all", 8),
        (
            r"wm811k(path=C:\x.npz,split_seed=3):all:0",
            Choice(
                "wm811k",
                (
                    ("path", r"C:\x.npz"), ("split_seed", 3), ("train_share", 0.7), ("val_share", 0.15),
                    ("drop_duplicates", True),
                ),
            ),
            "all", 0,
        ),
    ],
)  # fmt: skip
def test_references_parse_and_print(text, choice, split, index):
    assert parse_reference(text) == (choice, split, index)
    assert parse_reference(format_reference(choice, split, index)) == (choice, split, index)


def test_default_parameters_are_not_printed():
    assert format_reference(Choice("synthetic", (("n", 90), ("seed", 3))), "sample", 4) == "synthetic(seed=3):sample:4"


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("synthetic", InvalidParameter, "cannot read the image reference 'synthetic'; expected NAME:SPLIT:INDEX"),
        ("synthetic:sample:x", InvalidParameter, "expected NAME:SPLIT:INDEX"),
        ("synthetic:n=3:sample:1", InvalidParameter, "expected NAME:SPLIT:INDEX"),
        ("synthetic(n):sample:1", InvalidParameter, "expected key=value"),
        ("synthetic(n=3,n=4):sample:1", InvalidParameter, "given twice"),
        ("synthetic(m=3):sample:1", InvalidParameter, "has no parameter 'm'; it has seed, n"),
        ("synthetic(n=0):sample:1", InvalidParameter, r"n must be in \[1, 100000\] maps, got '0'"),
        ("synthetic:train:1", InvalidParameter, "'synthetic' has no split 'train'; known: sample"),
        ("synthetic:sample:90", InvalidParameter, "has 90 images, numbered 0 to 89"),
        ("synthetic:sample:-1", InvalidParameter, "has 90 images, numbered 0 to 89"),
        ("sinthetic:sample:1", UnknownName, "Did you mean 'synthetic'"),
    ],
)
def test_wrong_reference_is_one_sentence(text, error, sentence):
    with pytest.raises(error, match=sentence):
        dataset_of(text)


@pytest.mark.parametrize("call", ["image", "label", "region", "reference"])
@pytest.mark.parametrize("i", [-1, 90])
def test_indices_are_checked_everywhere(call, i):
    dataset, _ = dataset_of("synthetic:sample:0")
    with pytest.raises(InvalidParameter, match=f"has 90 images, numbered 0 to 89; there is no image {i}"):
        getattr(dataset, call)(i)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_explains_itself_and_refuses_an_unknown_split(name):
    entry = DATASETS.build(Choice(name))
    assert len(DATASETS.help(name)) > 40
    assert entry.splits
    assert isinstance(entry.stamp(), str)
    with pytest.raises(AuditError, match=r"no split 'nowhere'|is no file"):
        entry.open("nowhere")


def test_opened_data_sets_are_shared():
    assert dataset_of("synthetic:sample:3")[0] is dataset_of("synthetic(seed=7):sample:4")[0]


def test_real_maps_open_as_they_lie_in_the_file(shared_data):
    path = shared_data / "wm811k" / "wm811k_val.npz"
    dataset, i = dataset_of(f"wm811k(path={path}):all:12449")
    with np.load(path, allow_pickle=False) as arrays:
        pixels, offsets, shapes, labels = (arrays[k] for k in ("pixels", "offsets", "shapes", "labels"))
    assert len(dataset) == len(labels) == 12450
    for j in (i, 0, 6000):
        np.testing.assert_array_equal(dataset.image(j).values.ravel(), pixels[offsets[j] : offsets[j + 1]])
        assert (dataset.image(j).values.shape, dataset.label(j)) == (tuple(shapes[j]), labels[j])
    mean = dataset.mean_pixels(card((64, 64)))
    drawn = [k * 12450 // 256 for k in range(256)]
    maps = [pixels[offsets[j] : offsets[j + 1]].reshape(shapes[j]) for j in drawn]
    np.testing.assert_allclose(mean[0], np.mean([resize(codes, 64) / 2 for codes in maps], axis=0), atol=1e-6)
