"""Runs on pictures: spacing of checkpoints, the manifest, resuming bit for bit, half precision, the shipped run."""

import dataclasses
import json
import math
import shlex

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.__main__ import main, parser, prepare_pictures
from models.architectures import ARCHITECTURES
from models.checkpoint import load_custom
from models.pictures import read_pictures, stratified
from models.publish import read_run
from models.runs import Saved, read_manifest, saving_steps, write_manifest
from models.settings import settings
from models.structure import describe
from models.training import Trainer, new_run, picture_recipe, picture_run
from models.wafers import CLASSES, WaferMaps, digest_of
from tests.conftest import ROOT

SHIPPED = ROOT / "models/runs/digits-resnet"
SMALL = ARCHITECTURES["digits_resnet"]
PICTURES = [name for name, entry in ARCHITECTURES.items() if entry.input_size != 64]


@pytest.fixture(autouse=True)
def _own_random_state():
    """Building modules draws initial weights; give the global generator back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="module")
def digits():
    rng = np.random.default_rng(1)
    return tuple(stratified(read_pictures("digits", split), 8, rng) for split in ("train", "test"))


def a_trainer(folder, digits, minutes=math.inf, **changes):
    recipe = dataclasses.replace(picture_recipe(SMALL, 3), batch_size=16, averaging=0.5)
    run = dataclasses.replace(picture_run(SMALL, recipe, 5, digits[0]), save_every="log:6", **changes)
    return Trainer(SMALL, run, *digits, folder, torch.device("cpu"), minutes=minutes)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_networks_are_what_they_declare(name):
    entry = ARCHITECTURES[name]
    side, module = entry.input_size, entry.build(10, 3).eval()
    assert describe(module, (side, side), 3) == (entry.feature_layers, entry.readout, entry.attention)
    expected = {"digits_resnet": (4, 4), "mnist_resnet": (7, 7), "resnet50_pictures": (2, 2)}
    assert entry.feature_layers[-1].grid == expected[name]
    with torch.no_grad():
        assert module(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_the_largest_is_resnet50_but_for_its_stem():
    counts = {name: sum(p.numel() for p in ARCHITECTURES[name].build(10, 3).parameters()) for name in PICTURES}
    assert counts["resnet50_pictures"] == 25_557_032 - (1000 - 10) * 2049 - 64 * 3 * (49 - 9)
    assert 60_000 < counts["digits_resnet"] < 90_000


@pytest.mark.parametrize("count", [2, 3, 13, 40])
@pytest.mark.parametrize("total", [1, 7, 690])
def test_log_spacing_holds_the_first_and_the_last_step(count, total):
    steps = sorted(saving_steps(f"log:{count}", total))
    assert (steps[0], steps[-1]) == (0, total)
    assert len(steps) <= count
    assert count > 13 or total < 690 or len(steps) == count
    gaps = np.diff(steps)
    assert (np.diff(gaps) >= -1).all()


def test_even_spacing_and_foreign_words():
    assert saving_steps("0", 10) == frozenset()
    assert saving_steps("4", 10) == {4, 8}
    for words in ("", "log", "log:", "-3", "4.5", "lin:3", "log:x", "log:3:1:2", "3:4"):
        with pytest.raises(ValueError, match=r"takes a number of steps, log:K or log:K:FIRST, got"):
            saving_steps(words, 10)
    for words in ("log:1", "log:3:0", "log:3:11"):
        with pytest.raises(ValueError, match=r"needs K of 2 or more and FIRST in \[1, 10\], got"):
            saving_steps(words, 10)


def test_log_spacing_may_begin_where_learning_shows():
    steps = sorted(saving_steps("log:13:16", 690))
    assert (len(steps), steps[:3], steps[-1]) == (13, [0, 16, 23], 690)


@pytest.mark.parametrize("half", [False, True])
def test_an_interrupted_run_ends_like_an_uninterrupted_one_bit_for_bit(tmp_path, digits, half):
    state = torch.random.get_rng_state()
    whole = a_trainer(tmp_path / "whole", digits, half=half)
    score = whole.fit()
    killed = a_trainer(tmp_path / "parts", digits, half=half, minutes=0)
    killed.fit()
    killed.epoch()  # as if killed before the second epoch was written down, its checkpoints already kept
    assert a_trainer(tmp_path / "parts", digits, half=half).fit() == score
    assert torch.equal(torch.random.get_rng_state(), state)
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in files:
        first, second = (tmp_path / run / name for run in ("whole", "parts"))
        if name.endswith(".json"):
            assert first.read_text() == second.read_text()
        else:
            a, b = load_file(first), load_file(second)
            assert [k for k in a if not torch.equal(a[k], b[k])] == []
    listed = read_manifest(tmp_path / "parts").checkpoints
    assert [saved.file for saved in listed] == [name for name in files if name.startswith("step")]
    assert (listed[0].step, listed[-1].step, listed[-1].epoch) == (0, 15, 3.0)


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_scores_what_the_manifest_says(tmp_path, digits, half):
    trainer = a_trainer(tmp_path, digits, half=half)
    trainer.fit()
    manifest = read_manifest(tmp_path)
    for saved in (manifest.checkpoints[0], manifest.checkpoints[-1]):
        path = manifest.path(saved)
        stored = {k: v.dtype for k, v in load_file(path).items() if v.is_floating_point()}
        assert set(stored.values()) == {torch.float16 if half else torch.float32}
        loaded = load_custom(
            path.read_bytes(), path.name, manifest.architecture, len(manifest.classes), manifest.channels,
            manifest.input_size[0], manifest.mean, manifest.std, manifest.classes,
        )  # fmt: skip
        assert loaded.notes == ()
        assert (loaded.card.feature_layers, loaded.card.readout) == (SMALL.feature_layers, SMALL.readout)
        with torch.no_grad():
            logits = torch.cat([loaded.module(images) for images in trainer.feed.scoring()])
        labels = torch.from_numpy(digits[1].labels)
        assert saved.accuracy == float((logits.argmax(1) == labels).double().mean())
        assert saved.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=2e-5)


def test_the_untrained_network_is_that_of_the_seed(tmp_path, digits):
    a_trainer(tmp_path, digits, minutes=0).fit()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        fresh = SMALL.build(10, 1).state_dict()
    stored = load_file(tmp_path / "step000000.safetensors")
    assert all(torch.equal(stored[k], fresh[k]) for k in fresh)


def test_a_folder_of_other_settings_is_not_overwritten(tmp_path, digits):
    a_trainer(tmp_path, digits, minutes=0).fit()
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match="holds a run with another half; give another --out"):
        a_trainer(tmp_path, digits, half=True)
    (tmp_path / "last.safetensors").unlink()
    with pytest.raises(ValueError, match="holds a run with another half; give another --out"):
        a_trainer(tmp_path, digits, half=True)
    assert (tmp_path / "run.json").read_text() == before
    (tmp_path / "run.json").write_text('{"colour": "red"}')
    with pytest.raises(ValueError, match=r"run\.json describes no run of this program; give another --out"):
        a_trainer(tmp_path, digits)


def wafer_run(save_every="0"):
    maps = [np.full((20, 20), 1 + k % 2, np.uint8) for k in range(18)]
    labels = np.arange(18) % 9
    data = WaferMaps(maps, labels, CLASSES, digest_of(maps, labels))
    entry = ARCHITECTURES["resnet18_cbam_compact"]
    recipe = dataclasses.replace(entry.paper, batch_size=9, epochs=1)
    run = dataclasses.replace(new_run(entry, recipe, 3, "three-level", data), save_every=save_every)
    return entry, run, data


def older(folder):
    """run.json as it was written before checkpoints were listed."""
    raw = json.loads((folder / "run.json").read_text())
    kept = ("architecture", "seed", "recipe", "encoding", "data_sha256")
    old = {key: raw[key] for key in kept} | {"mean": raw["mean"][0], "std": raw["std"][0]}
    (folder / "run.json").write_text(json.dumps(old, indent=2))


def test_wafer_runs_of_old_are_read_and_resumed(tmp_path):
    entry, run, data = wafer_run("1")
    Trainer(entry, run, data, data, tmp_path, torch.device("cpu")).fit()
    new = read_manifest(tmp_path)
    assert [(saved.step, saved.epoch) for saved in new.checkpoints] == [(1, 0.5), (2, 1.0)]
    older(tmp_path)
    old = read_manifest(tmp_path)
    assert old.checkpoints == tuple(Saved(k, f"step00000{k}.safetensors") for k in (1, 2))
    for name in ("architecture", "classes", "input_size", "channels", "mean", "std", "encoding", "seed", "recipe"):
        assert getattr(old, name) == getattr(new, name)
    assert read_run(tmp_path) == dataclasses.replace(run, classes=(), save_every="0")
    Trainer(entry, run, data, data, tmp_path, torch.device("cpu")).fit()
    assert read_manifest(tmp_path).checkpoints == old.checkpoints


def test_log_spacing_works_for_wafers_too(tmp_path):
    entry, run, data = wafer_run("log:3")
    Trainer(entry, run, data, data, tmp_path, torch.device("cpu")).fit()
    assert [saved.step for saved in read_manifest(tmp_path).checkpoints] == [0, 1, 2]


def test_a_manifest_comes_back_as_it_was_written(tmp_path, digits):
    run = picture_run(SMALL, picture_recipe(SMALL, 3), 5, digits[0])
    saved = (Saved(0, "step000000.safetensors", 0.0, 2.3, 0.1), Saved(7, "step000007.safetensors", 1.5, 0.5, 0.9))
    write_manifest(tmp_path, settings(run), saved[::-1])
    found = read_manifest(tmp_path)
    assert found.checkpoints == saved
    assert (found.architecture, found.input_size, found.channels) == ("digits_resnet", (32, 32), 1)
    assert (found.mean, found.std, found.encoding, found.seed) == (run.mean, run.std, "", 5)
    assert found.path(saved[1]) == tmp_path / "step000007.safetensors"
    assert read_run(tmp_path) == run
    pixels = digits[0].images / 255
    assert (run.mean[0], run.std[0]) == (round(pixels.mean(), 4), round(pixels.std(), 4))


@pytest.mark.parametrize("text", ["{}", "[]", "words", '{"architecture": "x", "mean": "y"}'])
def test_a_missing_or_foreign_manifest_is_one_sentence(tmp_path, text):
    with pytest.raises(ValueError, match=r"holds no run\.json; give the --out folder of python -m models train"):
        read_manifest(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json describes no training run \(.*\); train it again") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_trains_and_is_written_down(tmp_path, capsys):
    words = ["train", "--model", "digits_resnet", "--data", "digits", "--out", str(tmp_path), "--seed", "0", "--images"]
    words += ["80", "--test-images", "50", "--epochs", "1", "--save-every", "log:3", "--half"]
    assert main([*words, "--device", "cpu"]) == 0
    assert "on the test split" in capsys.readouterr().out
    manifest = read_manifest(tmp_path)
    assert manifest.command == shlex.join(["python", "-m", "models", *words])
    assert manifest.data.source == "digits"
    assert (manifest.data.images, manifest.recipe["augmentation"]) == (80, "shift")
    assert manifest.data.scored_on.startswith("digits:test (50 pictures): it scores every checkpoint")
    assert manifest.checkpoints[-1].epoch == 1.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "digits", "mnist:x"], "pictures come from one source, got 2; name one of digits"),
        (["--data", "digits", "--recipe", "paper"], "are for wafer maps; leave them out for pictures"),
        (["--data", "digits", "--images", "9"], "at least one picture of each of 10 classes is needed"),
        (["--data", "digits", "--save-every", "lin:3"], "--save-every takes a number of steps, log:K"),
        (["--data", "digits", "--device", "nonsense"], "--device takes cpu or cuda[:N], got 'nonsense'"),
        (["--data", "digits", "--device", "cuda:99"], "CUDA devices are here; take cpu"),
        (["--data", "mnist:nowhere"], "mnist: 'nowhere' is no folder"),
        (["--data", "digits", "--epoch-images", "5000"], "--epoch-images must be 0 (all) to 1,438, got 5,000"),
        (["--data", "digits", "--epoch-images", "-5"], "--epoch-images must be 0 (all) to 1,438, got -5"),
        (["--data", "maps.npz"], "wafer maps need a file that chooses the checkpoint; give it as --val FILE.npz"),
        (["--data", "maps.npz", "--val", "v.npz", "--images", "9"], "draw from pictures"),
        (["--data", "maps.npz", "--val", "v.npz", "--test-images", "9"], "draw from pictures"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(tmp_path, capsys, options, sentence):
    assert main(["train", "--model", "digits_resnet", *options, "--out", str(tmp_path / "run")]) == 2
    found = capsys.readouterr().err
    assert sentence in found
    assert found.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_shipped_run_is_small_complete_and_what_its_command_gives():
    manifest = read_manifest(SHIPPED)
    files = sorted(path.name for path in SHIPPED.iterdir())
    assert files == ["run.json", *(saved.file for saved in manifest.checkpoints)]
    assert sum((SHIPPED / name).stat().st_size for name in files) < 4 * 2**20
    assert len(manifest.checkpoints) == 13
    assert manifest.checkpoints[0].step == 0
    assert manifest.checkpoints[-1].accuracy >= 0.97
    options = parser().parse_args(shlex.split(manifest.command)[3:])
    run, train, test = prepare_pictures(options, ARCHITECTURES[options.model])
    run = dataclasses.replace(run, save_every=options.save_every, half=options.half)
    assert read_run(SHIPPED) == run
    for saved in (manifest.checkpoints[6], manifest.checkpoints[-1]):
        path = manifest.path(saved)
        module = load_custom(path.read_bytes(), path.name, manifest.architecture, 10, 1, 32).module
        images = torch.nn.functional.interpolate(
            torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255, (32, 32), mode="bilinear"
        )
        with torch.no_grad():
            found = module((images - manifest.mean[0]) / manifest.std[0]).argmax(1).numpy()
        assert saved.accuracy == pytest.approx((found == test.labels).mean(), abs=1 / len(test))
    assert manifest.data.sha256 == train.digest
