"""What a study survives: other weights or encodings, damaged parts, a full disk, odd tables, a foreign folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audit_core.cli import main
from audit_core.errors import BadData, InvalidParameter
from audit_core.store import Store
from audit_core.study import external, markdown, plan, runner
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.folder import StudyFolder
from audit_core.study.shelf import shipped
from audit_core.study.worker import Worker
from audit_core.workbench import Subject, Workbench

SMALL = Study(
    title="small",
    checkpoints=(Entry("wafer-resnet18-cbam", explainers=("input-intensity",)),),
    explainers=("random",),
    fills=("zero",),
    images=ImageSet(per_class=1, leave_out=("Loc", "Near-full", "Random", "Scratch", "none")),
    curves=CurveSettings(steps=3),
)
NAMED = external.Mapping("who", "value", "image")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workbench]:
    place = tmp_path_factory.mktemp("study")
    bench = Workbench(Store(place / "store"), "cpu")
    runner.run(SMALL, place / "studies" / "small", bench)
    return place / "studies" / "small", bench


@pytest.fixture
def copy(finished: tuple[Path, Workbench], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "studies" / "copy"))


@pytest.mark.parametrize("change", [{"encoding": "binary"}, {"input_size": (128, 128)}, {"channels": 3}])
def test_a_task_is_named_by_all_that_its_card_says_of_the_weights(
    finished: tuple[Path, Workbench], change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = finished[1]
    before = {task.id for task in plan.make_plan(SMALL, bench).tasks}
    opened = plan.open_member

    def other(entry: Entry, bench: Workbench) -> plan.Member:
        member = opened(entry, bench)
        return dataclasses.replace(member, card=dataclasses.replace(member.card, **change))

    monkeypatch.setattr(plan, "open_member", other)
    monkeypatch.setattr(plan, "_refusals", lambda *_: iter(()))
    assert before.isdisjoint(task.id for task in plan.make_plan(SMALL, bench).tasks)


def test_a_folder_begun_with_other_weights_is_not_taken_up(copy: Path, finished: tuple[Path, Workbench]) -> None:
    found = plan.make_plan(SMALL, finished[1])
    StudyFolder(copy).create(found)
    other = dataclasses.replace(found, tasks=tuple(dataclasses.replace(task, id=f"x{task.id}") for task in found.tasks))
    with pytest.raises(InvalidParameter, match="weights, images or code are no longer those"):
        StudyFolder(copy).create(other)


def test_a_truncated_part_is_one_sentence_and_is_never_borrowed(copy: Path, finished: tuple[Path, Workbench]) -> None:
    part = next((copy / "parts").glob("measures-*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    for read in (runner.status, runner.merged):
        with pytest.raises(BadData, match=f"{part.name} is not a complete Parquet file .* remove it"):
            read(copy)
    assert runner.status(copy, count=False).complete
    fresh = StudyFolder(copy.parent / "fresh")
    found = plan.make_plan(SMALL, finished[1])
    fresh.create(found)
    assert fresh.borrow_parts(found.tasks) == len(found.tasks) - 1
    assert not (fresh.root / "parts" / part.name).is_file()


def test_a_failure_does_not_outlive_its_cure(copy: Path) -> None:
    folder = StudyFolder(copy)
    task = folder.tasks()[0]
    folder.fail(task, "no reason", "trace")
    assert folder.failures() == []  # its results are there
    folder.measures(task).unlink()
    assert [one["reason"] for one in folder.failures()] == ["no reason"]
    (copy / "failures" / f"{task.id}.json").write_text("")
    assert "could not be written down" in folder.failures()[0]["reason"]


def test_a_full_disk_is_the_reason_of_a_task_and_stops_no_other(
    copy: Path, finished: tuple[Path, Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    worker = Worker(copy, finished[1])
    task = worker.plan.tasks[0]
    worker.folder.measures(task).unlink()
    monkeypatch.setattr(StudyFolder, "keep", full)
    monkeypatch.setattr(StudyFolder, "fail", full)
    assert "No space left on device" in worker.do(task.id).reason


def test_one_image_without_a_label_is_refused_alone(
    finished: tuple[Path, Workbench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, asked = finished[1], dataclasses.replace(SMALL, curves=CurveSettings(steps=3, target="label"))
    subject, first = bench.subject, []

    def without(reference: str, *rest: object) -> Subject:
        found = subject(reference, *rest)  # type: ignore[arg-type]
        first.append(reference)
        return dataclasses.replace(found, label=None) if reference == first[0] else found

    monkeypatch.setattr(bench, "subject", without)
    runner.run(asked, tmp_path / "labelled", bench)
    rows = runner.merged(tmp_path / "labelled").to_pandas()
    states = rows.groupby("unit", observed=True)["state"].agg(set)
    assert [states[unit] != {"number"} for unit in sorted(states.index)] == [True] + [False] * (len(states) - 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('fills = ["zero", "zero"]', "fills has zero twice"),
        ('fills = ["zero"]\n[curves]\nseeds = [0, 0]', r"\[curves\] seeds has 0 twice"),
        ('fills = ["zero"]\n[curves]\nseeds = [-1]', "seeds must be in"),
        ('fills = ["zero"]\ncriteria = 3', r"\[criteria\] must be a table"),
        ('fills = ["zero"]\n[criteria]\nwhatever = 1', "whatever"),
    ],
)
def test_what_would_be_lost_later_is_said_at_once(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        Study.parse(f'explainers = ["random"]\n{text}\n[[checkpoint]]\nname = "wafer-vit-tiny"\n')


def test_names_that_a_chart_would_read_as_html_are_refused() -> None:
    text = 'explainers = ["random"]\nfills = ["zero"]\n[[checkpoint]]\nname = "wafer-vit-tiny"\nfamily = "<b>A</b>"\n'
    with pytest.raises(InvalidParameter, match="hold no < or >"):
        Study.parse(text)


def table(folder: Path, name: str, rows: dict) -> Path:
    path = folder / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"who": ["a", None], "image": [1, 2], "value": [0.1, 0.2]}, "'who' is empty in 1 rows, first in line 3"),
        ({"who": ["a", "b"], "image": [1, None], "value": [0.1, 0.2]}, "'image' is empty in 1 rows"),
        ({"who": [], "image": [], "value": []}, "has no rows below its header"),
        ({"who": ["a", "a"], "image": [1, 1], "value": [0.1, 0.2]}, "1 rows have the same contender"),
    ],
)
def test_odd_tables_are_refused_in_one_sentence(rows: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=says):
        external.read(table(tmp_path, "t.csv", rows), NAMED)


def test_units_are_the_same_however_they_were_written(tmp_path: Path) -> None:
    whole = external.read(table(tmp_path, "a.csv", {"who": "a", "image": [1, 2], "value": [0.1, 0.2]}), NAMED)
    merged = external.read(table(tmp_path, "b.csv", {"who": "a", "image": [1.0, 2.0], "value": [0.1, 0.2]}), NAMED)
    assert whole["unit"].tolist() == merged["unit"].tolist() == ["1", "2"]
    odd = {"who": "a", "image": [1, 2], "value": pd.array([1, None], "Int64")}
    pd.DataFrame(odd).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(BadData, match="'value' is no number in 1 rows"):
        external.read(tmp_path / "c.parquet", NAMED)


def test_files_of_one_name_are_not_counted_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"who": ["a", "a", "b", "b"], "image": [1, 2, 1, 2], "value": [0.1, 0.2, 0.3, 0.5]}
    for run in ("A", "B"):
        (tmp_path / run).mkdir()
        table(tmp_path / run, "x.csv", rows)
    words = ["study", "import", str(tmp_path / "A" / "x.csv"), str(tmp_path / "B" / "x.csv"), "--contender", "who"]
    words += ["--metric", "value", "--unit", "image"]
    assert main(words) == 2
    assert "name the fill of each file" in capsys.readouterr().err
    assert main([*words, "--fill", "zero", "--fill", "blur", "--resamples", "0"]) == 2
    assert "--resamples must be 1 or more" in capsys.readouterr().err


def test_findings_of_a_study_without_rise_say_what_is_missing(finished: tuple[Path, Workbench]) -> None:
    told = markdown.findings(finished[0])
    assert f"### {markdown.SPREAD}\n\nNot computable: " in told
    assert "### Reversals, deletion\n\n" in told
    assert "### Verdicts\n\n" in told


def test_the_shipped_study_can_be_exported(tmp_path: Path) -> None:
    folder = shipped()
    assert folder is not None
    rows = runner.merged(folder)
    assert rows.num_rows == sum(runner.status(folder).rows.values()) > 10_000
    assert np.isfinite(rows["value"].drop_null().to_numpy()).all()
    assert json.loads((folder / "manifest.json").read_text())["title"]
