"""Reading a user's checkpoint: nothing is executed, faults are one sentence, what fits gives the same logits."""

import hashlib
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from models.architectures import ARCHITECTURES
from models.cards import UNKNOWN
from models.checkpoint import (
    CheckpointError,
    build_timm,
    known_architecture,
    load_custom,
    load_into,
    read_checkpoint,
    read_state,
)

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -1.0])}


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def small(arch, **options):
    return seeded(lambda: timm.create_model(arch, pretrained=False, **options))


def image(channels, side, seed=1):
    return torch.rand((2, channels, side, side), generator=torch.Generator().manual_seed(seed))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


# a bare pickle of protocol 4 makes torch warn that it may not understand it, which is the point here
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "pickle 2", "pickle 4"])
def test_a_pickle_that_would_run_a_command_is_named_and_not_run(tmp_path, form):
    bomb = {"a.weight": Bomb(tmp_path / "ran")}
    data = {
        "torch zip": lambda: saved(bomb),
        "torch legacy": lambda: saved(bomb, _use_new_zipfile_serialization=False),
        "pickle 2": lambda: pickle.dumps(bomb, protocol=2),
        "pickle 4": lambda: pickle.dumps(bomb, protocol=4),
    }[form]()
    with pytest.raises(CheckpointError, match=r"bomb\.pt was refused .*posix\.system.*nothing was executed"):
        read_state(data, "bomb.pt")
    assert not (tmp_path / "ran").exists()
    pickle.loads(data) if form == "pickle 4" else None  # the file really is a bomb
    assert (tmp_path / "ran").exists() == (form == "pickle 4")


def test_safetensors_gives_the_exact_tensors_under_any_file_name():
    assert same(read_state(safetensors.torch.save(WEIGHTS), "model.pth"), WEIGHTS)


def test_safetensors_whose_header_begins_like_a_pickle_is_still_safetensors():
    for length in range(0, 300, 4):
        data = safetensors.torch.save(WEIGHTS, {"note": "x" * length})
        if data[0] == 0x80:
            assert same(read_state(data, "model.safetensors"), WEIGHTS)
            return
    pytest.fail("no header length begins with the byte of a pickle")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda w: w, None),
        (lambda w: {"state_dict": w, "epoch": 3}, "read from 'state_dict'"),
        (lambda w: {"epoch": 3, "model": {"state_dict": w}}, "read from 'model / state_dict'"),
        (lambda w: {"model_state_dict": w, "optimizer": {"lr": 0.1}}, "read from 'model_state_dict'"),
        (lambda w: {"module." + k: v for k, v in w.items()}, "prefix 'module.' taken off all 2 names"),
        (lambda w: {"module._orig_mod." + k: v for k, v in w.items()}, "prefix 'module._orig_mod.'"),
        (lambda w: {k: nn.Parameter(v) for k, v in w.items()}, None),
    ],
)
def test_torch_files_are_unwrapped_and_say_so(wrap, note, zipped):
    state = read_checkpoint(saved(wrap(WEIGHTS), _use_new_zipfile_serialization=zipped), "model.pt")
    assert same(state.tensors, WEIGHTS)
    assert not any(value.requires_grad for value in state.tensors.values())
    assert [note in text for text in state.notes] == [True] if note else state.notes == ()


def zip_of(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"hello")
    return buffer.getvalue()


def array_file(write, *values):
    buffer = io.BytesIO()
    write(buffer, *values)
    return buffer.getvalue()


GOOD_ZIP, GOOD_SAFE = saved(WEIGHTS), safetensors.torch.save(WEIGHTS)
BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"hello world, I am no checkpoint", r"neither safetensors nor a torch .*b'hello wo'"),
    "noise": (b"\xff" * 100, "neither safetensors"),
    "full module": (saved(nn.Linear(2, 2)), r"refused .*torch\.nn\.modules\.linear\.Linear.*nothing was executed"),
    "numpy inside": (saved({"a": np.ones(3)}), r"refused .*numpy\..*nothing was executed"),
    "half a zip": (GOOD_ZIP[: len(GOOD_ZIP) // 2], "damaged or cut short"),
    "half a legacy file": (saved(WEIGHTS, _use_new_zipfile_serialization=False)[:-4], "damaged or cut short"),
    "half a safetensors": (GOOD_SAFE[:-3], "damaged or cut short"),
    "safetensors with a broken header": ((10).to_bytes(8, "little") + b'{"a":[1,2]', "damaged or cut short"),
    "safetensors with a header beyond the end": ((90).to_bytes(8, "little") + b'{"a":1}', "damaged or cut short"),
    "npy": (array_file(np.save, np.ones(3)), "is a NumPy array"),
    "npz": (array_file(np.savez, np.ones(3)), "is a NumPy archive"),
    "some zip": (zip_of("folder/readme.txt"), "a zip archive and holds no torch checkpoint"),
    "torchscript": (zip_of("model/constants.pkl"), "TorchScript archive.*nothing was executed"),
    "list": (saved([1, 2]), "holds a list, not a dict of named tensors"),
    "tensor": (saved(torch.ones(2)), "holds a Tensor, not a dict"),
    "empty dict": (saved({}), "holds an empty dict"),
    "numbers": (saved({"a.weight": torch.ones(2), "epoch": 3}), r"1 of 2 entries .*epoch \(int\)"),
    "nan": (saved({"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(1)}), r"NaN or infinite .* 1 of 2 .*: a;"),
    "infinite half": (saved({"a": torch.tensor([float("inf")]).half()}), "NaN or infinite"),
    "sparse": (saved({"a": torch.eye(3).to_sparse()}), "sparse, quantized or complex"),
    "complex": (saved({"a": torch.ones(2, dtype=torch.complex64)}), "sparse, quantized or complex"),
    "more than it weighs": (saved({"a": torch.zeros(1).expand(2**20, 2**12)}), "unpacks to 16,384 MiB, the limit"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_checkpoint_is_one_sentence(case):
    data, words = BROKEN[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        read_state(data, "file.pt")
    assert str(caught.value).startswith("file.pt ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_real_torchscript_archive_is_refused():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(seeded(lambda: nn.Linear(2, 2))), buffer)
    with pytest.raises(CheckpointError, match=r"script\.pt is a TorchScript archive"):
        read_state(buffer.getvalue(), "script.pt")


def test_the_limit_counts_the_file_and_what_a_zip_would_unpack_to():
    with pytest.raises(CheckpointError, match="more than the limit of 0 MiB"):
        read_state(GOOD_SAFE, "big.safetensors", limit=len(GOOD_SAFE) - 1)
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\0" * 3 * 2**20)
    with pytest.raises(CheckpointError, match="unpacks to 3 MiB, the limit is 1 MiB"):
        read_state(squeezed.getvalue(), "bomb.pt", limit=2**20)


def test_every_cut_of_a_file_is_a_sentence_and_never_another_error():
    for data in (GOOD_ZIP, GOOD_SAFE, saved(WEIGHTS, _use_new_zipfile_serialization=False)):
        for end in range(0, len(data) - 1, 37):
            with pytest.raises(CheckpointError, match=r"^cut "):
                read_state(data[:end], "cut")


@pytest.mark.parametrize(
    ("arch", "options", "side"),
    [
        ("test_resnet", {"num_classes": 5, "in_chans": 1}, 160),
        ("test_vit", {"num_classes": 4, "in_chans": 3, "img_size": 64}, 64),
        ("test_convnext", {"num_classes": 3, "in_chans": 2}, 160),
    ],
)
def test_a_custom_checkpoint_gives_the_logits_of_the_model_it_was_saved_from(arch, options, side):
    model = small(arch, **options)
    data = saved({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}})
    loaded = load_custom(data, "mine.pt", arch)
    card, x = loaded.card, image(options["in_chans"], side)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), model(x))
    assert (len(card.classes), card.channels) == (options["num_classes"], options["in_chans"])
    assert card.input_size == (side, side)
    assert card.weights_sha256 == hashlib.sha256(data).hexdigest()
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert (card.encoding, card.training_command, card.data, card.evaluations) == (UNKNOWN, UNKNOWN, UNKNOWN, ())
    assert card.classes[0] == "class 0"
    assert not any(part.training for part in loaded.module.modules())
    assert any("num_classes" in note and "read off the head" in note for note in loaded.notes)


def test_half_precision_weights_become_float32():
    model = small("test_resnet", num_classes=3)
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    loaded = load_custom(safetensors.torch.save(half), "half.safetensors", "test_resnet")
    found = loaded.module.state_dict()
    assert all(found[k].dtype == (torch.float32 if v.is_floating_point() else v.dtype) for k, v in half.items())
    assert all(torch.equal(found[k], half[k].to(found[k].dtype)) for k in half)


def test_one_of_our_own_definitions_can_be_brought_as_well():
    entry = ARCHITECTURES["resnet18_cbam_compact"]
    model, data = (made := seeded(lambda: entry.build(7, 1))), saved(made.state_dict())
    loaded = load_custom(data, "own.pt", entry.name, mean=[0.4], std=[0.3], classes=list("abcdefg"))
    with torch.no_grad():
        assert torch.equal(loaded.module(image(1, 64)), model(image(1, 64)))
    card = loaded.card
    assert (card.family, card.mean, card.std, card.classes) == ("ResNet18+CBAM", (0.4,), (0.3,), tuple("abcdefg"))
    assert (card.feature_layers, card.readout) == (entry.feature_layers, entry.readout)


def test_normalisation_is_the_declared_one_or_none_and_says_so():
    three = load_custom(saved(small("test_resnet", num_classes=3).state_dict()), "m.pt", "test_resnet")
    assert three.card.mean == timm.get_pretrained_cfg("test_resnet").mean
    one = load_custom(saved(small("test_resnet", num_classes=3, in_chans=1).state_dict()), "m.pt", "test_resnet")
    assert (one.card.mean, one.card.std) == ((0.0,), (1.0,))
    assert {"mean=0 assumed: none was given", "std=1 assumed: none was given"} <= set(one.notes)
    shared = load_custom(saved(small("test_resnet", num_classes=3).state_dict()), "m.pt", "test_resnet", mean=[0.5])
    assert shared.card.mean == (0.5, 0.5, 0.5)


RESNET, VIT = small("test_resnet", num_classes=10), small("test_vit", num_classes=4, img_size=64)
MISFITS = {
    "wrong head": (
        RESNET, "test_resnet", {"num_classes": 9},
        r"2 of another shape \(fc\.weight is \(10, \d+\), the architecture wants \(9, \d+\).*; give --num-classes 10$",
    ),
    "wrong channels": (RESNET, "test_resnet", {"in_chans": 1}, "1 of another shape .*; give --in-chans 3$"),
    "both": (RESNET, "test_resnet", {"in_chans": 1, "num_classes": 2}, "give --in-chans 3 and --num-classes 10$"),
    "wrong size": (VIT, "test_vit", {"img_size": 160}, r"1 of another shape \(pos_embed .*; give --img-size 64$"),
    "another architecture": (VIT, "test_resnet", {}, r"\d+ missing \(.*, …\), \d+ unexpected \(.*of another arch"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_checkpoint_that_does_not_fit_says_what_would(case):
    model, arch, options, words = MISFITS[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        load_custom(saved(model.state_dict()), "mine.pt", arch, **options)
    assert str(caught.value).startswith(f"mine.pt as {arch} with num_classes=")


def test_missing_and_unexpected_names_are_counted_and_nothing_is_copied():
    module = seeded(lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {k: torch.ones_like(v) for k, v in before.items() if k != "1.bias"} | {"extra": torch.ones(1)}
    words = re.escape("this file does not fit: 1 missing (1.bias), 1 unexpected (extra)")
    with pytest.raises(CheckpointError, match=words):
        load_into(module, state, "this file")
    assert same(dict(module.state_dict()), before)


def test_derived_buffers_that_older_files_carry_are_passed_over():
    module = seeded(lambda: nn.Linear(2, 2))
    module.register_buffer("index", torch.arange(3), persistent=False)
    load_into(module, {"weight": torch.ones(2, 2), "bias": torch.zeros(2), "index": torch.zeros(3)}, "old file")
    assert torch.equal(module.weight.detach(), torch.ones(2, 2))
    assert torch.equal(module.index, torch.arange(3))


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("resnet81", "no architecture is called 'resnet81'; did you mean .*resnet18"),
        ("vit_tinny", "did you mean vit_tiny"),
        ("hf-hub:someone/model", "no architecture is called"),
        ("local-dir:/tmp/model", "no architecture is called"),
        ("qqqqqqqqq", r"timm\.list_models\(\) lists"),
    ],
)
def test_an_unknown_architecture_gets_its_near_misses_and_nothing_is_fetched(arch, words):
    with pytest.raises(CheckpointError, match=words):
        known_architecture(arch)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1}, r"num_classes must be in \[2, 100000\], got 1"),
        ({"in_chans": 0}, r"in_chans must be in \[1, 64\], got 0"),
        ({"img_size": 100_000}, r"img_size must be in \[8, 2048\], got 100000"),
        ({"classes": ["a", "b"]}, "has 10 classes, 2 names were given"),
        ({"classes": ["a"] * 10}, r"10 names were given \(1 different\)"),
        ({"mean": [0.5, 0.5]}, "mean needs 1 or 3 finite numbers"),
        ({"std": [0.0]}, "std needs 1 or 3 positive numbers"),
        ({"std": [float("nan")]}, "std needs 1 or 3 positive numbers"),
    ],
)
def test_options_out_of_range_are_one_sentence(options, words):
    with pytest.raises(CheckpointError, match=words):
        load_custom(saved(RESNET.state_dict()), "mine.pt", "test_resnet", **options)


def test_an_image_size_that_the_model_cannot_take_is_one_sentence():
    model = small("test_convnext", num_classes=3)
    with pytest.raises(CheckpointError, match=r"test_convnext cannot take 8x8 images .*give another img_size"):
        load_custom(saved(model.state_dict()), "mine.pt", "test_convnext", img_size=8)
    with pytest.raises(CheckpointError, match="vit_tiny_compact takes 64 px images, img_size=32 was asked"):
        build_timm("vit_tiny_compact", 9, 1, 32)


def test_loading_leaves_the_global_random_state_alone():
    data, before = saved(VIT.state_dict()), torch.random.get_rng_state()
    load_custom(data, "mine.pt", "test_vit")
    assert torch.equal(torch.random.get_rng_state(), before)
