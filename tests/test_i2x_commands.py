"""The I2X commands as a user types them, on the embedded run, and their sentences for what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_core.cli import main
from audit_core.i2x import analysis

RUN = Path(__file__).resolve().parents[1] / "models" / "runs" / "digits-resnet"
FEW = ("--per-class", "8", "--set", "prototypes=6", "--set", "components=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("i2x")


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["i2x", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_prototypes_trajectory_and_explanation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "prototypes", RUN, "--out", folder, *FEW)
    assert found["count"] == len(found["prototypes"]) == 6
    assert sum(entry["locations"] for entry in found["prototypes"]) == pytest.approx(1, abs=1e-4)
    assert found["prototypes"][0]["strongest"][0][0].startswith("digits:train:")
    path = said(capsys, "trajectory", RUN, "--out", folder, *FEW)
    made = analysis.read(folder)
    assert path["steps"] == list(made.trajectory.steps)
    assert path["images"] == 80
    own = made.trajectory.labels == 3
    mean = made.trajectory.confidence[-1, own, 3].mean()
    assert path["classes"]["3"]["confidence"][-1] == pytest.approx(mean, rel=1e-4)
    told = said(capsys, "explain", RUN, "--out", folder, "--pair", "8,3", *FEW)
    assert told["pair"] == ["3", "8"]
    assert len(told["transitions"]) == len(path["steps"]) - 1
    assert np.allclose(told["transitions"][5]["beta"], made.transitions[5].beta, rtol=1e-4, atol=1e-9)
    assert all(entry["driven_by_lambda"] == (entry["groups"] < 6) for entry in told["transitions"])
    assert main(["i2x", "explain", str(RUN), "--out", str(folder), *FEW]) == 0
    assert "confidence moved" in capsys.readouterr().out


def test_fine_tuning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("finetune", RUN, "--out", folder, "--pair", "3,8", "--share", "0.3", "--repeats", "2", "--from-step", "89")
    found = said(capsys, *asked, *FEW)
    names = [row["strategy"] for row in found["strategies"]]
    assert names[:2] == ["full", "curated"]
    assert "curated → full" in names
    assert found["trained"]["curated"] == found["trained"]["random"] < found["trained"]["full"] == 80
    assert found["test_images"] == 359
    row = found["strategies"][names.index("curated → full")]
    assert row["baseline"] == "full → full"
    assert row["n"] == row["confusions_difference"]["n"] == 2
    assert said(capsys, *asked, *FEW) == found
    few = said(capsys, *asked, *FEW, "--test-per-class", "3")
    assert few["test_images"] == 30
    assert few["trained"] == found["trained"]


def test_ranks_along_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "rank", RUN, "--out", tmp_path / "study", "--per-class", "1", "--steps", "3", "--fill", "zero",
                 "--explainer", "grad-cam", "--explainer", "input-intensity", "--explainer", "saliency")  # fmt: skip
    assert sorted(found["explainers"]) == ["grad-cam", "input-intensity", "saliency"]
    assert found["images"] == 10
    assert found["rank_path"][0]["tau"][-1]["value"] == 1


def test_a_folder_without_a_manifest_takes_its_classes_from_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(RUN, tmp_path / "run", ignore=shutil.ignore_patterns("*.json", "step00001*", "step00004*"))
    facts = ("--arch", "digits_resnet", "--data", "digits", "--mean", "0.3055", "--std", "0.3759")
    found = said(capsys, "trajectory", copy, "--out", tmp_path / "a", *facts, *FEW)
    whole = said(capsys, "trajectory", RUN, "--out", tmp_path / "b", *FEW)
    known = dict(zip(whole["steps"], whole["accuracy"], strict=True))
    assert dict(zip(found["steps"], found["accuracy"], strict=True)).items() <= known.items()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("explain", RUN, "--pair", "3,3"), "two different classes"),
        (("explain", RUN, "--set", "prototypes=many"), "prototypes takes a value like 16"),
        (("explain", RUN, "--set", "colour"), "takes NAME=VALUE"),
        (("trajectory", "nowhere"), "is no folder"),
        (("trajectory", RUN, "--arch", "digits_resnet"), "--arch needs --data"),
        (("finetune", RUN, "--repeats", "0", *FEW), "--repeats must be in"),
        (("finetune", RUN, "--prototype", "6", *FEW), "prototypes 0 to 5"),
        (("finetune", RUN, "--test-per-class", "-1", *FEW), "per_class must be 0"),
        (("trajectory", RUN, "--data", "synthetic", "--split", "sample"), "which digits-resnet step 690 does not"),
    ],
)
def test_wrong_words_get_one_sentence(
    words: tuple[Any, ...], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["i2x", *map(str, words), "--out", str(folder)]) == 2
    assert told in (sentence := capsys.readouterr().err)
    assert len(sentence.strip().splitlines()) == 1
