"""Analyses of one's own: where the pages find them, and what opens their run and images again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from audit_core.cli import main
from audit_core.errors import BadData
from audit_core.i2x import analysis, comparisons, shelf
from audit_core.i2x.runs import open_run, run_of

RUN = Path(__file__).resolve().parents[1] / "models" / "runs" / "digits-resnet"
FEW = ("--per-class", "8", "--set", "prototypes=6", "--set", "components=8", "--device", "cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a short run, analysed into the folder that the pages look at."""
    home = tmp_path_factory.mktemp("home")
    run = shutil.copytree(RUN, home / "runs" / "short", ignore=shutil.ignore_patterns("step00001*", "step0000[2-9]*"))
    out = home / "analyses" / "mine"
    assert main(["i2x", "explain", str(run), "--out", str(out), *FEW]) == 0
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPLECHECK_STORE", str(home / "store"))


def test_what_ships_comes_first_then_ones_own(home: Path) -> None:
    assert list(shelf.analyses().items())[1:] == [("mine", home / "analyses" / "mine")]
    assert next(iter(shelf.analyses())) == "digits-resnet"


def test_names_that_could_be_paths_and_taken_names_are_left_out(home: Path) -> None:
    for name in ("a b", ".hidden", "digits-resnet"):
        (home / "analyses" / name).mkdir()
        (home / "analyses" / name / "analysis.json").write_text("{}")
    try:
        assert list(shelf.analyses()) == ["digits-resnet", "mine"]
        assert shelf.analyses()["digits-resnet"].is_relative_to(shelf.SHIPPED)
    finally:
        for name in ("a b", ".hidden", "digits-resnet"):
            shutil.rmtree(home / "analyses" / name)


def test_the_run_and_the_very_images_open_again(home: Path) -> None:
    root = home / "analyses" / "mine"
    made = analysis.read(root)
    assert made.manifest["run"] == "../../runs/short"
    run = run_of(made, root)
    assert run.steps == made.trajectory.steps
    train, test = comparisons.images_of(made)
    assert train.digest == made.manifest["images_sha256"]
    assert np.bincount(train.labels).tolist() == [8] * 10
    assert len(test) == 359


def test_both_can_move_together(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home, tmp_path / "elsewhere") / "analyses" / "mine"
    assert run_of(analysis.read(moved), moved).folder == tmp_path / "elsewhere" / "runs" / "short"


def test_a_folder_without_a_manifest_is_opened_by_the_facts(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home, tmp_path / "elsewhere") / "analyses" / "mine"
    (tmp_path / "elsewhere" / "runs" / "short" / "run.json").unlink()
    plain, whole = run_of(analysis.read(moved), moved), open_run(home / "runs" / "short")
    assert (plain.facts, plain.steps) == (whole.facts, whole.steps)


def test_a_run_that_is_gone_is_one_sentence(home: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(home / "analyses" / "mine", tmp_path / "mine")
    with pytest.raises(BadData, match="the training run of short is not where it was when it was analysed; put it"):
        run_of(analysis.read(alone), alone)


@pytest.mark.parametrize("words", ["{}", "[]", '{"pieces": 3}', "no json"])
def test_a_foreign_manifest_is_one_sentence(words: str, tmp_path: Path) -> None:
    (tmp_path / "analysis.json").write_text(words)
    with pytest.raises(BadData, match=r"^test_a_foreign\w+ (is no I2X analysis of this version|holds no finished)"):
        analysis.read(tmp_path)


def test_no_path_of_this_machine_ships() -> None:
    raw = json.loads((shelf.SHIPPED / "digits-resnet" / "analysis.json").read_text())
    assert raw["run"] == "../../../../models/runs/digits-resnet"
    assert not any(word.startswith("/") for word in (raw["source"], *raw["references"]))
