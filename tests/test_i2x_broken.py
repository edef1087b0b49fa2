"""What goes wrong in an I2X analysis: diverged and replaced checkpoints, damaged pieces, classes without images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audit_core.cli import main
from audit_core.errors import BadData, InvalidParameter
from audit_core.i2x import choices, comparisons, finding, mapping, strip
from audit_core.i2x.commands import pair_of
from audit_core.i2x.curation import Curation
from audit_core.i2x.making import analyse
from audit_core.i2x.pieces import Pieces
from audit_core.i2x.ranking import study_of
from audit_core.i2x.runs import Facts, TrainingRun, open_run
from audit_core.i2x.sample import Sample, open_sample
from audit_core.i2x.settings import Settings
from audit_core.i2x.strategies import Comparison
from audit_core.store import Store
from audit_core.study.definition import ImageSet, Study
from audit_core.study.plan import open_member
from audit_core.study.shelf import shipped
from audit_core.workbench import Workbench
from models.finetuning import FineTuning, fine_tune

RUN = Path(__file__).resolve().parents[1] / "models" / "runs" / "digits-resnet"
SMALL = Settings(prototypes=5, components=6)
STEPS = (89, 176, 690)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    keep = {f"step{step:06d}.safetensors" for step in STEPS}
    drop = shutil.ignore_patterns(*(path.name for path in RUN.glob("step*") if path.name not in keep))
    folder = shutil.copytree(RUN, tmp_path / "run", ignore=drop)
    raw = json.loads((folder / "run.json").read_text())
    raw["checkpoints"] = [entry for entry in raw["checkpoints"] if entry["file"] in keep]
    (folder / "run.json").write_text(json.dumps(raw))
    return folder


def sample_of(folder: Path) -> Sample:
    return open_sample("digits", "test", open_run(folder).final().card, per_class=4)


def spoil(folder: Path, step: int, factor: float) -> None:
    path = folder / f"step{step:06d}.safetensors"
    tensors = {name: value.float() * (factor if value.ndim == 4 else 1) for name, value in load_file(path).items()}
    save_file(tensors, path)


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_checkpoint_that_diverged_is_named_and_left_out(run: Path, step: int, tmp_path: Path) -> None:
    sample = sample_of(run)
    spoil(run, step, 1e25)
    made = analyse(open_run(run), sample, SMALL, tmp_path / "out")
    assert made.trajectory.steps == tuple(one for one in STEPS if one != step)
    [(name, reason)] = made.broken
    assert str(step) in name
    assert "not finite" in reason
    assert np.isfinite(made.pushes()).all()


def test_a_last_checkpoint_that_does_not_load_stops_no_command(run: Path, tmp_path: Path, capsys) -> None:
    spoil(run, 690, float("nan"))
    opened = open_run(run)
    assert opened.steps[-1] == 690
    assert opened.final().card.name.endswith("step 176")
    few = ("--per-class", "4", "--set", "prototypes=5", "--set", "components=6", "--device", "cpu", "--json")
    for verb in ("prototypes", "trajectory", "explain"):
        assert main(["i2x", verb, str(run), "--out", str(tmp_path / "out"), *few]) == 0
        assert "690" in json.loads(capsys.readouterr().out)["broken"][0][0]
    words = ("--per-class", "1", "--steps", "2", "--fill", "zero", "--explainer", "grad-cam", "--explainer", "random")
    assert main(["i2x", "rank", str(run), "--out", str(tmp_path / "rank"), *words, "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == [89, 176]
    assert "690" in told["broken"][0][0]


def test_a_damaged_piece_counts_as_missing(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    pieces.write("one", {"values": np.random.default_rng(0).normal(size=400)})
    path = tmp_path / "pieces" / "one.npz"
    whole = path.read_bytes()
    for at in range(0, len(whole) - 4, 41):
        path.write_bytes(whole[:at] + b"\xff\x00\xff\x00" + whole[at + 4 :])
        found = pieces.read("one")  # never raises; where the damage is harmless, the numbers are whole
        assert found is None or found["values"].shape == (400,)
    path.write_bytes(whole[: len(whole) // 2])
    assert pieces.read("one") is None


def test_weights_that_were_replaced_are_not_taken_for_those_analysed(run: Path, tmp_path: Path) -> None:
    sample = sample_of(run)
    made = analyse(open_run(run), sample, SMALL, tmp_path / "out", "digits:test", 4)
    assert strip.follow(made, open_run(run), made.references[0], 0).maps.shape[0] == 3
    spoil(run, 176, 1.5)
    with pytest.raises(BadData, match="step 176 of run is no longer the checkpoint that was analysed"):
        strip.follow(made, open_run(run), made.references[0], 0)
    asked = Comparison(Curation(0, 0.5), (0, 1), FineTuning(), 1)
    with pytest.raises(BadData, match="step 176 of run is no longer"):
        comparisons.make(open_run(run), made, sample, sample, 176, asked, tmp_path)


def test_a_comparison_on_other_test_images_is_another_one(run: Path, tmp_path: Path) -> None:
    made = analyse(open_run(run), sample_of(run), SMALL, tmp_path / "out")
    asked = Comparison(Curation(0, 0.5), (0, 1), FineTuning(), 1)
    own, other = (comparisons.identity(made, 176, asked, test) for test in ("", "digits:test: 30 images, ab"))
    assert own != other
    whole = analyse(open_run(run), sample_of(run), dataclasses.replace(SMALL, seed=1), tmp_path / "other")
    found = comparisons.Compared(own, 176, asked, (), (), 0, None, ())  # type: ignore[arg-type]
    assert comparisons.of_analysis(found, made) is found
    assert comparisons.of_analysis(found, whole) is None
    assert comparisons.of_analysis(dataclasses.replace(found, test="else"), made) is None


def test_only_classes_with_images_are_a_pair(tmp_path: Path) -> None:
    opened = open_run(RUN)
    sample = open_sample("digits", "test", opened.final().card, per_class=6)
    few = sample.part(np.isin(sample.labels, (2, 7)))
    made = analyse(opened, few, SMALL, tmp_path / "out")
    assert made.trajectory.populated == [2, 7]
    assert made.trajectory.most_confused == (2, 7)
    with pytest.raises(InvalidParameter, match="holds no image of class '3'"):
        pair_of(argparse.Namespace(pair="2,3"), made)


def test_regressions_within_groups_borrow_no_quality_from_the_other_reading() -> None:
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 400)
    confidence = np.stack([side * 0.8, 0.3 - side * 0.3], 1) + rng.normal(0, 0.01, (400, 2))
    intensity = rng.normal(size=(400, 3, 1)) + side[:, None, None]
    means = mapping.transition(intensity, confidence, Settings(), np.random.default_rng(0))
    within = mapping.transition(intensity, confidence, Settings(reading="within"), np.random.default_rng(0))
    assert means.groups == within.groups == 2
    assert means.driven_by_penalty  # two rows, three prototypes
    assert not within.driven_by_penalty  # hundreds of rows in each regression
    assert np.isnan(within.error)
    assert choices.sensitivity(means)
    assert choices.sensitivity(within) == []
    own = [intensity[side == s].astype(float)[:, :, 0] for s in (0, 1)]
    worst = max(np.linalg.cond(x.T @ x + mapping.penalty_of(x, 0.01) * np.eye(3)) for x in own)
    assert within.condition == pytest.approx(worst, rel=0.2)  # HDBSCAN leaves some images out
    assert within.condition < 10


def test_subsets_are_seen_in_one_order() -> None:
    seen: dict[str, list[int]] = {}
    labels = torch.arange(40) % 3
    keeps = {"all": None, "some": torch.arange(40) % 4 != 0, "others": torch.arange(40) % 5 != 1}
    for name, keep in keeps.items():
        order: list[int] = []

        def images(places: torch.Tensor, order: list[int] = order) -> torch.Tensor:
            order += places.tolist()
            return torch.ones(len(places), 3)

        with torch.random.fork_rng():
            module = torch.nn.Linear(3, 3)
        rng = torch.Generator().manual_seed(1)
        fine_tune(module, images, labels, FineTuning(batch_size=8), rng, keep=keep)
        seen[name] = order
    for name, keep in list(keeps.items())[1:]:
        assert seen[name] == [place for place in seen["all"] if keep[place]]  # type: ignore[index]


def test_candidates_for_k_that_are_all_too_many() -> None:
    settings = Settings(prototypes=0, candidates=(64, 128))
    with pytest.raises(InvalidParameter, match=r"none of the candidates 64, 128 for K is between 2 and the 30 loc"):
        finding.judge(np.random.default_rng(0).normal(size=(30, 4)), settings)


def test_a_size_that_was_inferred_holds_for_all_checkpoints(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", num_classes=3, in_chans=1, img_size=32)
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    for step in (1, 2):
        save_file(tensors, tmp_path / f"s{step}.safetensors")
    opened = open_run(tmp_path, Facts("vit_tiny_patch16_224", ("a", "b", "c"), mean=(0.5,), std=(0.5,)))
    assert [opened.classifier(step).card.input_size for step in (2, 1, 2)] == [(32, 32)] * 3


def test_a_run_on_binary_maps_is_ranked_on_binary_maps(run: Path, tmp_path: Path) -> None:
    opened = open_run(run)
    binary: TrainingRun = dataclasses.replace(opened, facts=dataclasses.replace(opened.facts, encoding="binary"))
    bench = Workbench(Store(tmp_path / "store"), "cpu")
    for one, encoding in ((binary, "binary"), (opened, "unknown")):
        study = Study.parse(study_of(one, ImageSet("digits", "test", 1), ["random"], ["zero"]).dumps())
        assert bench.classifier(open_member(study.checkpoints[0], bench).reference).card.encoding == encoding


def test_studies_from_before_encodings_could_be_named_keep_their_key() -> None:
    folder = shipped()
    assert folder is not None
    asked = Study.parse((folder / "study.toml").read_text())
    assert asked.key == json.loads((folder / "manifest.json").read_text())["key"]
