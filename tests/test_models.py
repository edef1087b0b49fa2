"""The zoo: definitions and their structure, cards, scores, training that resumes exactly, and publishing."""

import dataclasses
import hashlib
import json
import math
import shlex
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers.cbam import CbamModule
from torch import nn

from models import publish as publishing
from models import zoo
from models.__main__ import main, parser
from models.architectures import ARCHITECTURES
from models.cards import Evaluation, FeatureLayer, ModelCard, Score
from models.publish import predict_codes, publish, read_run, read_source, recipe_name, training_command
from models.scores import accuracy, balanced_accuracy, calibration_error, evaluate, macro_f1
from models.structure import ATTENTIONS, READOUTS, describe
from models.training import Trainer, balanced_recipe, new_run, save_weights
from models.wafers import CLASSES, WaferMaps, digest_of, encode, stack, write_npz

COMPACT = sorted(name for name in ARCHITECTURES if name.endswith("_compact"))


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def some_maps(n, seed):
    """Maps whose label is how many of ten columns have failed: enough to learn from, quick to make."""
    rng, maps = np.random.default_rng(seed), []
    labels = np.arange(n) % 9
    for label in labels:
        codes = 1 + (rng.random((27, 25)) < 0.05).astype(np.uint8)
        codes[:, : 2 * int(label)] = 2
        maps.append(codes)
    return WaferMaps(maps, labels, CLASSES, digest_of(maps, labels))


@pytest.mark.parametrize("name", sorted(name for name, entry in ARCHITECTURES.items() if entry.input_size == 64))
def test_the_declared_structure_is_what_the_model_itself_shows(name):
    entry = ARCHITECTURES[name]
    module = seeded(lambda: entry.build(9, 1))
    assert describe(module, (64, 64), 1) == (entry.feature_layers, entry.readout, entry.attention)
    with torch.no_grad():
        assert module(torch.zeros(2, 1, 64, 64)).shape == (2, 9)
    expected = [(16, 16)] * len(entry.feature_layers) if entry.family == "ViT-Tiny" else [(s, s) for s in (16, 8, 4, 2)]
    assert [layer.grid for layer in entry.feature_layers] == expected
    assert bool(entry.narrowed) == name.endswith("_compact")


def test_full_size_parameter_counts_follow_from_the_sizes():
    d, tokens = 192, 16 * 16 + 1
    block = 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d)
    vit = (16 * d + d) + d + tokens * d + 12 * block + 2 * d + (9 * d + 9)
    assert sum(p.numel() for p in ARCHITECTURES["vit_tiny"].build(9, 1).parameters()) == vit
    plain = timm.create_model("resnet18", num_classes=9, in_chans=1)
    gates = sum(2 * c * (c // 16) + 2 * 49 + 2 for c in (64, 128, 256, 512))
    count = sum(p.numel() for p in ARCHITECTURES["resnet18_cbam"].build(9, 1).parameters())
    assert count == sum(p.numel() for p in plain.parameters()) + gates


@pytest.fixture(autouse=True)
def _own_random_state():
    """Building modules draws initial weights; give the global generator back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def literal_cbam(x, module):
    """Woo et al. 2018, equations 2 and 3, one image and one pixel at a time, in float64."""
    get = {k: v.double().numpy() for k, v in module.state_dict().items()}
    first, second = get["channel.fc1.weight"][:, :, 0, 0], get["channel.fc2.weight"][:, :, 0, 0]
    kernel, size = get["spatial.conv.conv.weight"][0], get["spatial.conv.conv.weight"].shape[-1]
    shared = lambda v: second @ np.maximum(first @ v, 0)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    out = []
    for image in x.double().numpy():
        gate = sigmoid(shared(image.mean(axis=(1, 2))) + shared(image.max(axis=(1, 2))))
        image = image * gate[:, None, None]
        pooled = np.pad(np.stack([image.mean(axis=0), image.max(axis=0)]), ((0, 0), *[(size // 2, size // 2)] * 2))
        rows, columns = image.shape[1:]
        seen = np.array([[(pooled[:, r : r + size, c : c + size] * kernel).sum() for c in range(columns)]
                         for r in range(rows)])
        spread = np.sqrt(get["spatial.conv.bn.running_var"] + module.spatial.conv.bn.eps)
        seen = (seen - get["spatial.conv.bn.running_mean"]) / spread
        out.append(image * sigmoid(seen * get["spatial.conv.bn.weight"] + get["spatial.conv.bn.bias"]))
    return np.stack(out)


def test_all_four_cbam_stages_compute_the_papers_equations_with_average_and_max_pooling():
    model = seeded(lambda: ARCHITECTURES["resnet18_cbam_compact"].build(9, 1))
    stages = [part for part in model.modules() if isinstance(part, CbamModule)]
    assert len(stages) == 4
    rng = torch.Generator().manual_seed(3)
    for stage in stages:
        for name, value in stage.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=rng)
                value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
        channels = stage.channel.fc1.in_channels
        assert stage.channel.fc1.out_channels == channels // 16
        x = torch.randn((2, channels, 6, 5), generator=rng)
        with torch.no_grad():
            np.testing.assert_allclose(stage(x).numpy(), literal_cbam(x, stage), rtol=2e-5, atol=2e-5)


TIMM = {
    "resnet18": ({}, 64, 4, "layer4", "NCHW", (2, 2), 0, "global average pool", "none"),
    "convnext_atto": ({}, 64, 4, "stages.3", "NCHW", (2, 2), 0, "global average pool", "none"),
    "vit_tiny_patch16_224": ({"img_size": 64}, 64, 12, "blocks.11.norm1", "tokens", (4, 4), 1, "CLS token", "global"),
    "deit_tiny_distilled_patch16_224": (
        {"img_size": 64}, 64, 12, "blocks.11.norm1", "tokens", (4, 4), 2, "distillation token", "global",
    ),
    "vit_base_patch16_siglip_224": (
        {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3}, 64, 2, "blocks.1", "tokens", (4, 4), 0,
        "attention pool", "global",
    ),
    "mixer_s32_224": ({}, 224, 8, "blocks.7", "tokens", (7, 7), 0, "mean of tokens", "none"),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": (1, 1, 1, 1)}, 64, 4, "layers.3", "NHWC",
        (2, 2), 0, "global average pool", "windowed",
    ),
    "densenet121": (
        {"growth_rate": 8}, 64, 4, "features.denseblock4", "NCHW", (2, 2), 0, "global average pool", "none",
    ),
    "mobilenetv3_small_050": ({}, 64, 4, "blocks.5", "NCHW", (2, 2), 0, "global average pool", "auxiliary"),
    "efficientvit_b0": ({}, 64, 4, "stages.3", "NCHW", (2, 2), 0, "global average pool", "unknown"),
    "xcit_nano_12_p16_224": ({"depth": 2}, 64, 2, "blocks.1", "tokens", (4, 4), 0, "class attention", "unknown"),
}


@pytest.mark.parametrize("name", TIMM)
def test_the_structure_of_timm_models_is_found(name):
    options, side, count, module, layout, grid, prefix, readout, attention = TIMM[name]
    model = seeded(lambda: timm.create_model(name, pretrained=False, num_classes=4, **options))
    layers, found_readout, found_attention = describe(model, (side, side), 3)
    assert layers[-1] == FeatureLayer(layers[-1].name, module, layout, grid, prefix)
    assert (len(layers), found_readout, found_attention) == (count, readout, attention)
    assert [layer.name[-len(str(i + 1)) :] for i, layer in enumerate(layers)] == [str(i + 1) for i in range(count)]


class Odd(nn.Module):
    """No declaration of timm's: two stages and a readout that is given."""

    def __init__(self, readout):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 8, 2, stride=2)
        self.fc, self.readout = nn.Linear(8, 3), readout

    def forward(self, x):
        return self.fc(self.readout(self.two(self.one(x))))


def test_the_readout_of_an_undeclared_model_is_probed_and_a_maximum_is_no_mean():
    layers, readout, attention = describe(seeded(lambda: Odd(lambda x: x.mean(dim=(2, 3)))), (32, 32), 1)
    assert [(x.module, x.grid) for x in layers] == [("one", (8, 8)), ("two", (4, 4))]
    assert (readout, attention) == ("global average pool", "none")
    assert describe(seeded(lambda: Odd(lambda x: x.amax(dim=(2, 3)))), (32, 32), 1)[1] == "unknown"


class Tokens(nn.Module):
    """Sixteen patches and two more tokens, mixed once, then a readout that is given."""

    def __init__(self, readout, prefix=2):
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv2d(1, 6, 8, stride=8), nn.LayerNorm(6), nn.Linear(6, 3)
        self.first = nn.Parameter(torch.randn(1, prefix, 6, generator=torch.Generator().manual_seed(1)))
        self.mix = nn.Linear(16 + prefix, 16 + prefix)
        self.readout, self.num_prefix_tokens = readout, prefix
        self.feature_info = [{"module": "norm", "num_chs": 6}]

    def forward(self, x):
        x = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], dim=1)
        return self.head(self.readout(self.norm(x + self.mix(x.transpose(1, 2)).transpose(1, 2))))


@pytest.mark.parametrize(
    ("readout", "word"),
    [
        (lambda x: x[:, 0], "CLS token"),
        (lambda x: (x[:, 0] + x[:, 1]) / 2, "distillation token"),
        (lambda x: x[:, 1], "unknown"),
        (lambda x: x[:, 2:].mean(1), "mean of tokens"),
        (lambda x: x.mean(1), "unknown"),
        (lambda x: x[:, 2:].amax(1), "unknown"),
        (lambda x: (x[:, 2:].softmax(1) * x[:, 2:]).sum(1), "unknown"),
        (lambda x: (torch.linspace(0, 1, 16)[:, None] * x[:, 2:]).sum(1), "flattened map"),
        (lambda x: x[:, 5], "flattened map"),
    ],
)
def test_the_readout_is_what_the_score_answers_to(readout, word):
    layers, found, _ = describe(seeded(lambda: Tokens(readout)), (32, 32), 1)
    assert found == word
    assert (layers[-1].layout, layers[-1].grid, layers[-1].prefix_tokens) == ("tokens", (4, 4), 2)
    assert found in (*READOUTS, "unknown")


class Softmax(nn.Module):
    """Attention without weights over an image's patches, in as many groups as are given."""

    def __init__(self, groups):
        super().__init__()
        self.groups, self.conv, self.fc = groups, nn.Conv2d(1, 4, 8, stride=8), nn.Linear(4, 3)
        self.stage = nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        x = x.flatten(2).transpose(1, 2).unflatten(1, (self.groups, -1)).flatten(0, 1)[:, None]
        x = torch.nn.functional.scaled_dot_product_attention(x, x, x)[:, 0]
        x = x.unflatten(0, (-1, self.groups)).flatten(1, 2).transpose(1, 2).unflatten(2, (4, 4))
        return self.fc(self.stage(x).mean((2, 3)))


def test_attention_is_told_by_the_matrices_that_one_image_forms():
    found = [describe(seeded(lambda groups=groups: Softmax(groups)), (32, 32), 1)[2] for groups in (1, 4)]
    assert found == ["global", "windowed"]
    assert set(found) < set(ATTENTIONS)


@pytest.mark.parametrize("fails", [False, True])
def test_describing_leaves_hooks_flags_weights_and_random_state_as_found(fails):
    model = timm.create_model("test_vit", pretrained=False, num_classes=3)
    model.train()
    model.blocks[0].eval()
    flags = [part.training for part in model.modules()]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError, match="channels"):
            describe(model, (160, 160), 1)
    else:
        describe(model, (160, 160), 3)
    assert [part.training for part in model.modules()] == flags
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def a_card(name="wafer-test", architecture="resnet18_cbam_compact", **changes):
    entry = ARCHITECTURES[architecture]
    card = ModelCard(
        name, entry.family, entry.name, (64, 64), 1, "three-level", (0.4,), (0.3,), CLASSES, entry.feature_layers,
        entry.readout, entry.attention, 5, seed=3, citations=("[1] é",), options={"depth": [1, 2], "flag": None},
        evaluations=(Evaluation("half", "ab", 7, {"accuracy": Score(0.5, 0.25, 0.75)}, "python"),),
    )
    return dataclasses.replace(card, **changes)


def test_a_card_survives_json_and_refuses_fields_nobody_knows():
    card = a_card()
    assert ModelCard.from_json(card.to_json()) == card
    with pytest.raises(ValueError, match=r"unknown fields \['colour'\]"):
        ModelCard.from_json(json.dumps({**json.loads(card.to_json()), "colour": "red"}))
    assert card.layer().module == "cbam4"
    assert card.layer("stage2").module == "cbam2"
    with pytest.raises(ValueError, match="no feature layer 'stage9'; it has stage1, stage2"):
        card.layer("stage9")


def test_scores_on_a_confusion_that_fits_on_paper():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    assert accuracy(labels, predicted, 4) == pytest.approx(4 / 6)
    assert balanced_accuracy(labels, predicted, 4) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert macro_f1(labels, predicted, 4) == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    never_labelled = np.array([0, 0, 3, 1, 2, 2])
    assert macro_f1(labels, never_labelled, 4) == pytest.approx((4 / 5 + 2 / 3 + 2 / 3 + 0) / 4)


def test_calibration_error_by_hand():
    top = np.array([0.9, 0.6, 0.8, 0.55])
    probabilities = np.stack([top, 1 - top], axis=1)
    # bins of width 1/15: 0.9 alone and right, 0.6 (wrong) with 0.55 (right), 0.8 alone and wrong
    expected = (abs(1 - 0.9) + abs(0 + 1 - 0.6 - 0.55) + abs(0 - 0.8)) / 4
    assert calibration_error(np.array([0, 1, 1, 0]), probabilities) == pytest.approx(expected)
    assert calibration_error(np.zeros(5, int), np.tile([1.0, 0.0], (5, 1))) == 0.0


def test_intervals_hold_the_value_and_close_on_a_perfect_classifier():
    labels = np.arange(90) % 3
    perfect = evaluate(labels, np.eye(3)[labels], "d", "s", "c", resamples=50)
    assert {s.low for s in perfect.scores.values()} == {0.0, 1.0}
    assert perfect.scores["macro_f1"] == Score(1.0, 1.0, 1.0)
    assert perfect.scores["calibration_error"] == Score(0.0, 0.0, 0.0)
    wrong = labels.copy()
    wrong[:18] = (labels[:18] + 1) % 3
    score = evaluate(labels, np.eye(3)[wrong], "d", "s", "c", resamples=400).scores["accuracy"]
    assert (score.value, perfect.n) == (0.8, 90)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 90)  # normal approximation of the same interval
    assert (score.low, score.high) == (pytest.approx(0.8 - half, abs=0.02), pytest.approx(0.8 + half, abs=0.02))


def a_trainer(folder, name, recipe, seed=5, minutes=math.inf):
    train, early = some_maps(45, 1), some_maps(9, 2)
    run = new_run(ARCHITECTURES[name], recipe, seed, "three-level", train)
    return Trainer(ARCHITECTURES[name], run, train, early, folder, torch.device("cpu"), minutes=minutes)


def short(recipe):
    return dataclasses.replace(recipe, batch_size=8, epochs=2, epoch_images=16)


RECIPES = {
    "balanced": ("resnet18_cbam_compact", short(balanced_recipe(ARCHITECTURES["resnet18_cbam_compact"], 2, 16))),
    "paper, plateau": ("resnet18_cbam_compact", short(ARCHITECTURES["resnet18_cbam_compact"].paper)),
    "paper, cosine": ("vit_tiny_compact", short(ARCHITECTURES["vit_tiny_compact"].paper)),
    "balanced, tokens dropped": ("vit_tiny_compact", short(balanced_recipe(ARCHITECTURES["vit_tiny_compact"], 2, 16))),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, case):
    name, recipe = RECIPES[case]
    state = torch.random.get_rng_state()
    score = a_trainer(tmp_path / "whole", name, recipe).fit()
    a_trainer(tmp_path / "parts", name, recipe, minutes=0).fit()
    assert json.loads((tmp_path / "parts/last.json").read_text())["progress"]["epoch"] == 1
    (tmp_path / "parts/last.json").write_text("{}")  # as if killed between the two files
    assert a_trainer(tmp_path / "parts", name, recipe).fit() == score
    assert torch.equal(torch.random.get_rng_state(), state)
    for file in ("last.safetensors", "best.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert whole.keys() == parts.keys()
        assert [k for k in whole if not torch.equal(whole[k], parts[k])] == []


def test_a_folder_of_another_run_is_not_overwritten(tmp_path):
    name, recipe = RECIPES["balanced"]
    a_trainer(tmp_path, name, recipe, minutes=0).fit()
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match="holds a run with another seed; give another --out"):
        a_trainer(tmp_path, name, recipe, seed=6)
    assert (tmp_path / "run.json").read_text() == before


def test_the_cards_are_listed_without_torch_and_in_the_order_of_the_families(tmp_path):
    for name, architecture in (("a", "densenet121"), ("b", "resnet18_cbam"), ("c", "vit_tiny"), ("d", "swin_tiny")):
        a_card(name, architecture).save(tmp_path / f"{name}.json")
    a_card("e", family="else").save(tmp_path / "e.json")
    assert zoo.names(tmp_path) == ("c", "d", "b", "a", "e")
    code = "import sys, models.zoo as z; print([z.card(n).name for n in z.names()], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{list(zoo.names())} False"


def test_the_zoo_loads_what_was_saved_and_refuses_other_bytes(tmp_path):
    model = seeded(lambda: ARCHITECTURES["resnet18_cbam_compact"].build(9, 1))
    path = tmp_path / "wafer-test.safetensors"
    save_weights(path, model.state_dict(), torch.float16)
    a_card(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest()).save(tmp_path / "wafer-test.json")
    loaded = zoo.load("wafer-test", tmp_path)
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    assert all(torch.equal(v, expected[k]) for k, v in loaded.module.state_dict().items())
    assert not any(part.training for part in loaded.module.modules())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"wafer-test\.safetensors is not the file its card describes: sha256"):
        zoo.load("wafer-test", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"weights of wafer-test are missing: there is no wafer-test\.safetensors"):
        zoo.load("wafer-test", tmp_path)
    with pytest.raises(ValueError, match=r"called 'wafer-tset'\. Did you mean 'wafer-test'"):
        zoo.card("wafer-tset", tmp_path)


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_checkpoint_is_what_its_card_says(name):
    loaded = zoo.load(name)
    card, entry = loaded.card, ARCHITECTURES[loaded.card.architecture]
    structure = describe(loaded.module, card.input_size, card.channels)
    assert structure == (card.feature_layers, card.readout, card.attention)
    assert card.parameters == sum(p.numel() for p in loaded.module.parameters())
    assert (card.name, card.family, card.narrowed, card.classes) == (name, entry.family, entry.narrowed, CLASSES)
    assert len(card.evaluations) == 2
    names = {"accuracy", "balanced_accuracy", "macro_f1", "calibration_error"}
    assert all(set(e.scores) == names for e in card.evaluations)
    assert card.training_command.startswith(f"python -m models train --model {card.architecture} ")
    assert "Roger Jang" in card.notice
    assert len(card.citations) == 2
    assert (zoo.WEIGHTS / f"{name}.safetensors").stat().st_size < 30 * 2**20


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two short epochs and the files it was trained on."""
    folder = tmp_path_factory.mktemp("finished")
    train, val = some_maps(45, 1), some_maps(36, 2)
    write_npz(folder / "train.npz", train)
    write_npz(folder / "val.npz", val)
    with torch.random.fork_rng(devices=[]):
        code = main([
            "train", "--model", "resnet18_cbam_compact", "--data", str(folder / "train.npz"), "--val",
            str(folder / "val.npz"), "--out", str(folder / "run"), "--recipe", "balanced", "--epochs", "2",
            "--epoch-images", "64", "--seed", "7", "--device", "cpu",
        ])
    assert code == 0
    return folder


def test_a_published_checkpoint_carries_what_a_slow_evaluation_finds(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publishing, "SYNTHETIC", (9, 1))
    files = ["--data", str(finished / "train.npz"), "--val", str(finished / "val.npz")]
    run = ["--run", str(finished / "run"), "--name", "wafer-tiny"]
    assert main(["publish", *run, *files, "--out", str(tmp_path)]) == 0
    assert "held-out half" in capsys.readouterr().out
    loaded, source = zoo.load("wafer-tiny", tmp_path), read_source([finished / "train.npz"], finished / "val.npz")
    card = loaded.card
    raw = load_file(finished / "run/best.safetensors")
    model = ARCHITECTURES["resnet18_cbam_compact"].build(9, 1)
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in raw.items()})
    model.eval()
    hits = []
    with torch.no_grad():
        for codes, label in zip(stack(source.held_out, 64), source.held_out.labels, strict=True):
            x = (torch.from_numpy(encode(codes))[None, None] - card.mean[0]) / card.std[0]
            hits.append(int(model(x).argmax()) == label)
    measured = card.evaluations[0]
    assert (measured.n, measured.data_sha256) == (len(hits), source.held_out.digest)
    assert measured.scores["accuracy"].value == round(np.mean(hits), 4)
    assert card.evaluations[1].n == 9
    assert (card.seed, card.data_sha256, card.classes) == (7, source.train.digest, CLASSES)
    assert not list(tmp_path.glob("tmp*"))


def test_the_command_on_the_card_repeats_the_run(finished):
    run, source = read_run(finished / "run"), read_source([finished / "train.npz"], finished / "val.npz")
    words = shlex.split(training_command(run, source))
    assert words[:3] == ["python", "-m", "models"]
    options = parser().parse_args(words[3:])
    entry = ARCHITECTURES[options.model]
    recipe = balanced_recipe(entry, options.epochs, options.epoch_images)
    assert options.recipe == "balanced"
    assert new_run(entry, recipe, options.seed, options.encoding, source.train) == run
    assert options.data == ["WM811K/train.npz"]


def test_a_recipe_that_no_command_gives_is_not_published():
    entry = ARCHITECTURES["vit_tiny_compact"]
    assert recipe_name(entry, dataclasses.replace(entry.paper, epochs=3)) == "paper"
    with pytest.raises(ValueError, match="neither the paper's nor the balanced one of vit_tiny_compact"):
        recipe_name(entry, dataclasses.replace(entry.paper, learning_rate=0.5))


def test_publishing_refuses_other_data_and_folders_without_a_run(finished, tmp_path):
    write_npz(tmp_path / "other.npz", some_maps(9, 4))
    other = read_source([tmp_path / "other.npz"], finished / "val.npz")
    with pytest.raises(ValueError, match=r"was trained on data .*…, the files given hold"):
        publish(finished / "run", "x", other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="holds no training run"):
        publish(tmp_path, "x", other, tmp_path / "out")


def test_predicted_probabilities_follow_the_card_and_not_the_batch():
    model = seeded(lambda: ARCHITECTURES["resnet18_cbam_compact"].build(9, 1))
    card, codes = a_card(encoding="binary"), stack(some_maps(5, 3), 64)
    found = predict_codes(model, card, codes, batch=2)
    with torch.no_grad():
        for row, image in zip(found, codes, strict=True):
            logits = model(((torch.from_numpy(image == 2).float() - 0.4) / 0.3)[None, None]).double().numpy()[0]
            np.testing.assert_allclose(row, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)
    with pytest.raises(ValueError, match=r"takes codes of shape \(n, 64, 64\), got \(5, 32, 32\)"):
        predict_codes(model, card, codes[:, ::2, ::2])
