"""The command line end to end: shipped checkpoints, brought ones, real wafer maps and photographs, bad words."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from safetensors.torch import save_file

from audit_core.cli import main
from audit_core.export import read_card
from audit_core.record import loads
from models import zoo
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "docs" / "audit-record.schema.json").read_text())
CNN = "wafer-resnet18-cbam"
QUICK = ["--steps", "4", "--controls", "2", "--device", "cpu"]
IMAGE = ("--image", "synthetic:sample:0")


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "store"))


def audit(capsys, *words: str) -> dict:
    assert main(["audit", *words, *QUICK]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    try:
        code = main(list(words))
    except SystemExit as stop:
        code = stop.code
    sentence = capsys.readouterr().err
    assert code == 2
    assert sentence.strip()
    assert "Traceback" not in sentence
    return sentence


@pytest.fixture(scope="module")
def small_resnet(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_checkpoint_is_audited_with_its_own_explainer(capsys, name):
    explainer = "rollout" if zoo.card(name).readout == "CLS token" else "grad-cam"
    found = audit(
        capsys, "--checkpoint", name, "--explainer", explainer, "--fill", "blur", "--image", "synthetic:sample:1"
    )
    Draft202012Validator(SCHEMA).validate(found)
    assert found["checkpoint"] == name
    assert found["deletion"][0] == found["insertion"][-1]
    assert found["deletion"][-1] == found["insertion"][0]
    assert found["fractions"][0] == 0
    assert found["fractions"][-1] == 1
    for curve in ("deletion", "insertion"):
        area = sum(
            (a + b) / 2 * (y - x)
            for a, b, x, y in zip(
                found[curve], found[curve][1:], found["fractions"], found["fractions"][1:], strict=False
            )
        )
        assert found[f"{curve}_auc"] == pytest.approx(area, abs=1e-12)
    # Ends 2, own curve 2 * 3, two random orders 2 * 2 * 3, one prediction, one for the explainer.
    assert found["forwards"] == 2 + 6 + 12 + 1 + 1
    assert found["provenance"]["weights_sha256"] == zoo.card(name).weights_sha256


def test_a_second_run_returns_the_stored_record_and_verify_reproduces_it(capsys):
    words = (
        "--checkpoint",
        "wafer-resnet18-cbam",
        "--explainer",
        "rise:n_masks=200,settle=1",
        "--fill",
        "road",
        "--image",
        "synthetic:sample:3",
        "--seed",
        "5",
    )
    first, second = audit(capsys, *words), audit(capsys, *words)
    assert first == second
    assert main(["verify", first["key"], "--device", "cpu", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["same"]
    assert outcome["curve_difference"] < 1e-5


def test_an_altered_record_is_not_verified(capsys, tmp_path):
    found = audit(
        capsys,
        "--checkpoint",
        "wafer-resnet18-cbam",
        "--explainer",
        "random",
        "--fill",
        "zero",
        "--image",
        "synthetic:sample:3",
    )
    found["insertion"][2] += 0.01
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(found))
    assert "damaged or was changed" in refused(capsys, "verify", str(path), "--device", "cpu")


def test_out_writes_a_card_that_verifies(capsys, tmp_path):
    words = [
        "audit",
        "--checkpoint",
        "wafer-resnet18-cbam",
        "--explainer",
        "grad-cam:layer=stage3",
        "--fill",
        "image-mean",
        "--image",
        "synthetic:sample:4",
        "--target",
        "Loc",
        "--out",
        str(tmp_path / "out"),
        *QUICK,
    ]
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    record = read_card((tmp_path / "out" / "card.png").read_bytes())
    assert record.classes[record.target] == "Loc"
    assert main(["verify", str(tmp_path / "out" / "card.png"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("verified")


def test_bf16_states_its_difference_from_fp32(capsys):
    words = (
        "--checkpoint",
        "wafer-resnet18-cbam",
        "--explainer",
        "random",
        "--fill",
        "zero",
        "--image",
        "synthetic:sample:3",
    )
    full, half = audit(capsys, *words), audit(capsys, *words, "--precision", "bf16")
    gap = half["provenance"]["largest_difference_from_fp32"]
    found = np.abs(np.array(full["deletion"]) - half["deletion"]).max()
    assert 0 < found <= gap + 1e-6
    assert gap < 0.1
    assert "largest_difference_from_fp32" not in full["provenance"]


def test_a_brought_checkpoint_and_an_image_file(capsys, small_resnet, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    found = audit(
        capsys,
        "--checkpoint",
        str(small_resnet),
        "--arch",
        "resnet10t",
        "--img-size",
        "64",
        "--classes",
        str(tmp_path / "names.txt"),
        "--explainer",
        "grad-cam",
        "--fill",
        "zero-normalised",
        "--image",
        str(tmp_path / "p.png"),
    )
    assert found["classes"] == list("abcde")
    assert found["image"].startswith("upload:")
    assert found["map"]["values"]["shape"] == [64, 64]
    record = loads(json.dumps(found))
    assert record.pixels.shape == (3, 64, 64)


def test_what_was_read_off_a_brought_checkpoint_or_assumed_is_said(capsys, small_resnet):
    brought = ("--checkpoint", str(small_resnet), "--arch", "resnet10t", "--img-size", "64", "--mean", "0.5,0.5,0.5")
    assert main(["audit", *brought, "--explainer", "input-intensity", "--fill", "zero", *IMAGE, *QUICK]) == 0
    said = capsys.readouterr().err
    for words in ("num_classes=5 read off the head", "in_chans=3 read off the first", "std=", "class names"):
        assert words in said
    assert "mean=" not in said


@pytest.mark.parametrize(("words", "sentence"), [
    (("--checkpoint", "wafer-vit"), "no checkpoint named 'wafer-vit'"),
    (("--explainer", "gradcam"), "Did you mean 'grad-cam'"),
    (("--fill", "blur:sigma=-1"), "sigma must be in"),
    (("--fill", "blur:radius=1"), "no parameter 'radius'"),
    (("--image", "nowhere.png"), "neither a file nor DATASET:SPLIT:INDEX"),
    (("--image", "synthetic:sample:9999"), "90"),
    (("--target", "Ring"), "target must be predicted, label"),
    (("--steps", "5000"), "only 4096 units"),
    (("--steps", "many"), "invalid int value"),
    (("--device", "cuda:7"), "CUDA devices found"),
    (("--explainer", "rollout", "--checkpoint", "wafer-resnet18-cbam"), "reads its score from global average pool"),
])  # fmt: skip
def test_bad_words_are_one_sentence(capsys, words, sentence):
    given = {"--checkpoint": "wafer-resnet18-cbam", "--explainer": "grad-cam", "--fill": "zero",
             "--image": "synthetic:sample:0", "--device": "cpu"}  # fmt: skip
    given |= dict(zip(words[::2], words[1::2], strict=True))
    found = refused(capsys, "audit", *(word for pair in given.items() for word in pair))
    assert sentence in found
    assert len(found.strip().splitlines()) == 1


def test_a_checkpoint_path_without_architecture_asks_for_it(capsys, small_resnet):
    found = refused(
        capsys,
        "audit",
        "--checkpoint",
        str(small_resnet),
        "--explainer",
        "grad-cam",
        "--fill",
        "zero",
        "--image",
        "synthetic:sample:0",
    )
    assert "--arch" in found


def test_lists_name_everything_that_is_registered(capsys):
    from audit_core.data import DATASETS
    from audit_core.explainers import EXPLAINERS
    from audit_core.fills import FILLS

    for what, names in (
        ("checkpoints", zoo.names()),
        ("explainers", EXPLAINERS),
        ("fills", FILLS),
        ("datasets", DATASETS),
    ):
        assert main(["list", what, "--json"]) == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(names)
        assert main(["list", what]) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in names)


def test_as_a_module_in_its_own_process():
    done = subprocess.run(
        [sys.executable, "-m", "audit_core", "list", "checkpoints", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [row["name"] for row in json.loads(done.stdout)] == list(zoo.names())


def test_real_wafer_maps(capsys, shared_data):
    path = shared_data / "wm811k" / "wm811k_val.npz"
    for index in (3, 11):
        found = audit(
            capsys,
            "--checkpoint",
            "wafer-vit-tiny",
            "--explainer",
            "rollout",
            "--fill",
            "reference",
            "--image",
            f"wm811k(path={path}):all:{index}",
            "--target",
            "label",
        )
        assert found["target_index"] == found["label_index"]
        assert main(["verify", found["key"], "--device", "cpu"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("photo", ["cat.png", "parrot.jpg", "hot_dog.jpg"])
def test_real_photographs_into_a_brought_model(capsys, shared_data, small_resnet, photo):
    found = audit(
        capsys,
        "--checkpoint",
        str(small_resnet),
        "--arch",
        "resnet10t",
        "--img-size",
        "96",
        "--explainer",
        "grad-cam",
        "--fill",
        "road",
        "--image",
        str(shared_data / "photos" / photo),
    )
    assert found["map"]["values"]["shape"] == [96, 96]
    assert main(["verify", found["key"], "--device", "cpu"]) == 0


def test_a_map_made_elsewhere_is_audited_as_any_other(capsys, tmp_path):
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    np.save(tmp_path / "heat.npy", values)
    given = ("--checkpoint", CNN, "--fill", "zero", *IMAGE, "--map", str(tmp_path / "heat.npy"))
    found = audit(capsys, *given)
    np.testing.assert_array_equal(loads(json.dumps(found)).values, values)
    assert found["explainer"].startswith("outside:map=")
    assert main(["verify", found["key"]]) == 0
    assert "verified" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "sentence"), [
    ((), "an audit needs --explainer NAME, or --map FILE"),
    (("--map", "nowhere.npy"), "is no file"),
    (("--explainer", "rise", "--map", "nowhere.npy"), "leave one out"),
    (("--explainer", "outside"), "once a .npy or .npz file is given"),
    (("--explainer", "outside:map=abc"), "is in the store (any more); give its file again"),
    (("--explainer", "random", "--target", "Donut", "--against", "Donut"), "choose another class"),
    (("--explainer", "random", "--against", "Ring"), "against must be a class or its index"),
])  # fmt: skip
def test_bad_words_about_maps_and_contrasts_are_one_sentence(capsys, words, sentence):
    assert sentence in refused(capsys, "audit", "--checkpoint", CNN, "--fill", "zero", *IMAGE, *words)


def test_a_contrast_on_the_command_line_scores_logit_differences(capsys):
    cell = ("--checkpoint", CNN, "--explainer", "grad-cam", "--fill", "zero", *IMAGE)
    found = audit(capsys, *cell, "--against", "Donut")
    assert found["settings"]["quantity"] == "logit"
    assert found["settings"]["against"] == "Donut"
    assert found["along"]["deletion"]["shape"][1] == 9
    assert "--against Donut" in found["provenance"]["command"]


def test_the_matrix_is_numbers_and_reasons(capsys):
    words = ["matrix", "--checkpoint", CNN, "--explainer", "rollout", "--explainer", "grad-cam", "--fill", "zero",
             "--fill", "blur", "--images", "2", "--steps", "2", "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"cells": 4, "number": 2, "refused": 2, "error": 0}
    for cell in found["cells"]:
        if cell["explainer"] == "rollout":
            assert cell["srg"] is None
            assert "class token" in cell["reason"]
        else:
            assert cell["n"] == 2
            assert cell["low"] < cell["srg"] < cell["high"]
    assert main(words[:-1]) == 0
    assert "2 number, 2 refused, 0 error" in capsys.readouterr().out
    sentence = refused(capsys, "matrix", "--images", "0")
    assert "images must be in [1, 90]" in sentence


def test_measures_of_a_stored_audit_are_numbers_or_reasons(capsys):
    key = audit(capsys, "--checkpoint", CNN, "--explainer", "edges", "--fill", "zero", *IMAGE)["key"]
    names = ("srg", "beats-edges", "gini", "pointing-game")
    asked = [word for name in names for word in ("--metric", name)]
    assert main(["measure", key, *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == key
    rows = {row["name"]: row for row in found["measures"]}
    assert list(rows) == list(names)
    assert rows["beats-edges"]["refused"]
    assert rows["beats-edges"]["sentence"].strip()
    assert rows["gini"]["better"] == "neither"
    assert main(["measure", key, *asked]) == 0
    assert "srg" in capsys.readouterr().out
    assert "no metric named 'srgg'" in refused(capsys, "measure", key, "--metric", "srgg")
