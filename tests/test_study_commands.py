"""``python -m audit_core study …``: every verb, its JSON and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from audit_core.cli import main
from audit_core.study.definition import Study

TINY = """
title = "tiny"
explainers = ["random"]
fills = ["zero", "reference"]
[images]
per_class = 1
leave_out = ["Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full"]
[curves]
steps = 2
[[checkpoint]]
name = "wafer-resnet18-cbam"
explainers = ["grad-cam", "rollout"]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "store"))
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """The JSON that a verb prints; the verb must succeed."""
    capsys.readouterr()
    assert main(["study", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a verb that must fail with exit code 2."""
    capsys.readouterr()
    assert main(["study", *map(str, words)]) == 2
    told = capsys.readouterr().err.strip()
    assert told.count("\n") == 0
    return told


def test_from_words_to_tables(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = said(capsys, "plan", place / "tiny.toml", "--no-probe")
    assert (plan["images"], plan["cells"], plan["forwards"]) == (3, 4, 3 * (1 + 2 * (1 + 2 * 2 * 2)))
    assert [cell["explainer"] for cell in plan["refused"]] == ["rollout"]
    done = said(capsys, "run", place / "tiny.toml", "--out", place / "a", "--executor", "in-process:threads=1")
    assert done["complete"]
    assert done["rows"]["refused"] == 3 * 2 * 5
    assert said(capsys, "status", place / "a") == done
    assert said(capsys, "resume", place / "a", "--executor", "in-process") == done
    check = said(capsys, "verify", place / "a", "--recompute", "2")
    assert (check["identical"], check["problems"]) == (2, [])
    assert main(["study", "export", str(place / "a"), "--out", str(place / "rows.csv")]) == 0
    assert main(["study", "export", str(place / "a"), "--out", str(place / "rows.parquet")]) == 0
    assert main(["study", "export", str(place / "a"), "--out", str(place / "shipped")]) == 0
    rows = pd.read_csv(place / "rows.csv")
    assert len(rows) == len(pd.read_parquet(place / "rows.parquet")) == sum(done["rows"].values())
    assert {path.name for path in (place / "shipped").iterdir()} == {
        "study.toml", "manifest.json", "measures.parquet", "curves.parquet"
    }  # fmt: skip


def test_the_probe_says_how_long_and_which_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "plan", place / "tiny.toml")["estimate"]
    assert told["in_process"] > 0
    assert told["executor"] in ("in-process", "processes")


def test_presets_are_studies(place: Path, capsys: pytest.CaptureFixture[str], shared_data: Path) -> None:
    lots = shared_data / "wm811k" / "wm811k_lots_labelled1800.npz"
    capsys.readouterr()
    assert main(["study", "preset", "wm811k", "--data", str(lots), "--out", str(place / "wm.toml")]) == 0
    study = Study.parse((place / "wm.toml").read_text())
    assert [entry.explainers[0] for entry in study.checkpoints] == ["rollout", "grad-cam", "grad-cam", "grad-cam"]
    plan = said(capsys, "plan", place / "wm.toml", "--no-probe")
    assert plan["images"] <= 22 * 9
    assert plan["forwards"] > 4 * plan["images"] * 4000


def test_the_demo_preset_is_written_to_the_screen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["study", "preset", "demo"]) == 0
    assert len(Study.parse(capsys.readouterr().out).checkpoints) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plan", "nowhere.toml"), "cannot be read"),
        (("run", "tiny.toml", "--out", "x", "--executor", "cluster"), "no executor named 'cluster'"),
        (("resume", "nowhere"), "holds no study"),
        (("status", "nowhere"), "cannot be read"),
        (("export", "nowhere", "--out", "x.docx"), ".parquet, .csv, .md, .html or .pdf"),
        (("export", "nowhere", "--out", "x.csv"), "a study is a folder with parts"),
        (("preset", "wm811k"), "needs --data"),
        (("preset", "mvtec", "--data", "x"), "no checkpoint for MVTec AD"),
        (("preset", "folder", "--data", "x"), "needs your checkpoint"),
        (("import", "nowhere.csv", "--contender", "a", "--metric", "b"), "no file nowhere.csv"),
        (("import", "tiny.toml", "--contender", "a", "--metric", "b", "--fill", "x", "--fill", "y"), "got 2 --fill"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    words: tuple[str, ...], says: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert says in refused(capsys, *words)


def test_a_changed_part_fails_the_verification(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "run", place / "tiny.toml", "--out", place / "a", "--executor", "in-process")
    next(p for p in (place / "a" / "parts").glob("measures-*") if "refused" not in p.name).unlink()
    assert "have no results" in refused(capsys, "verify", place / "a", "--recompute", "0")
