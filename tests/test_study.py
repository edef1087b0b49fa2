"""Studies: words to plan to results; what is shared, refused, resumed and verified."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from audit_core import audit, measuring
from audit_core.data.base import dataset_of
from audit_core.errors import AuditError, BadData, InvalidParameter, UnknownName
from audit_core.images import prepare
from audit_core.store import Store
from audit_core.study import engine, runner, tables, worker
from audit_core.study.compact import write as write_compact
from audit_core.study.definition import Checks, CurveSettings, Entry, ImageSet, Study
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import Member, Task, make_plan, role_of, spec_of
from audit_core.study.presets import demo, matched_in_resolution, native
from audit_core.study.shelf import Shelf
from audit_core.workbench import Subject, Workbench
from models import zoo
from models.synthetic import CLASSES

SMALL = Study(
    title="small",
    checkpoints=(Entry("wafer-resnet18-cbam", explainers=("grad-cam", "rollout")),),
    explainers=("input-intensity", "random"),
    fills=("zero", "blur:sigma=3"),
    images=ImageSet(per_class=1),
    curves=CurveSettings(steps=4),
)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(Store(tmp_path / "store"), "cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workbench]:
    """The small study, run once."""
    place = tmp_path_factory.mktemp("study")
    bench = Workbench(Store(place / "store"), "cpu")
    runner.run(SMALL, place / "small", bench)
    return place / "small", bench


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "study", [SMALL, demo(), dataclasses.replace(SMALL, criteria={"metric": "srg"}, note="é \n 2")]
)
def test_a_study_is_the_text_it_writes(study: Study) -> None:
    assert Study.parse(study.dumps()) == study
    assert Study.parse(study.dumps()).key == study.key


def test_title_note_and_criteria_do_not_change_what_is_computed() -> None:
    assert dataclasses.replace(SMALL, title="other", note="n", criteria={"metric": "srg"}).key == SMALL.key
    assert dataclasses.replace(SMALL, fills=("zero",)).key != SMALL.key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fills = [", "not valid TOML"),
        ('fils = ["zero"]', "Did you mean 'fills'?"),
        ('fills = ["zero"]\nexplainers = ["random"]', "names no checkpoint"),
        ('explainers = ["random"]\n[[checkpoint]]\nname = "a"', "names no fill"),
        ('fills = ["zero"]\n[[checkpoint]]\nname = "a"', "has no explainer"),
        ('fills = ["zero"]\nexplainers = ["random"]\n[[checkpoint]]\npath = "a"', "has no name"),
        (
            'fills = ["zero"]\nexplainers = ["random"]\n[images]\nper_class = -1\n[[checkpoint]]\nname = "a"',
            "per_class",
        ),
        ('fills = ["zero"]\nexplainers = ["random"]\n[images]\nper_class = true\n[[checkpoint]]\nname = "a"', "number"),
        (
            'fills = ["zero"]\nexplainers = ["random"]\n[curves]\nseeds = []\n[[checkpoint]]\nname = "a"',
            "seeds is empty",
        ),
        ('fills = ["zero", 3]\nexplainers = ["random"]\n[[checkpoint]]\nname = "a"', "a word"),
        (
            'fills = ["zero"]\nexplainers = ["random"]\n[[checkpoint]]\nname = "a"\n[[checkpoint]]\nname = "a"',
            "stands twice",
        ),
    ],
)
def test_what_is_wrong_in_the_text_is_said_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says) as caught:
        Study.parse(text)
    assert "\n" not in str(caught.value)


# --- plan ------------------------------------------------------------------------------------------------------------


def test_the_plan_counts_what_will_be_computed(bench: Workbench) -> None:
    plan = make_plan(SMALL, bench)
    assert sorted(str(picture.label) for picture in plan.pictures) == sorted(CLASSES)
    assert plan.cells == 3 * 2
    # grad-cam: a forward and a backward an image; every map: one prediction and 2 x steps points under each fill.
    assert plan.forwards == 9 * (1 + 3 * (1 + 2 * 2 * 4))
    assert plan.backwards == 9
    assert [(cell.explainer, cell.fill) for cell in plan.refused] == [("rollout", "")]
    assert "class token" in plan.refused[0].reason


def test_a_task_is_known_by_all_that_changes_its_numbers(bench: Workbench) -> None:
    plan = make_plan(SMALL, bench)
    same = make_plan(dataclasses.replace(SMALL, title="again", explainers=("random",)), bench)
    assert {task.id for task in same.tasks} < {task.id for task in plan.tasks}
    for change in (
        {"fills": ("zero", "blur:sigma=4")},
        {"curves": CurveSettings(steps=5)},
        {"curves": CurveSettings(steps=4, seeds=(1,))},
        {"images": ImageSet(per_class=1, seed=0, leave_out=("Center",))},
        {"checkpoints": (Entry("wafer-densenet121", explainers=("grad-cam",)),)},
    ):
        other = make_plan(dataclasses.replace(SMALL, **change), bench)
        assert not {task.id for task in other.tasks} & {task.id for task in plan.tasks}, change


def test_long_explainers_get_short_tasks(bench: Workbench) -> None:
    study = dataclasses.replace(SMALL, explainers=("rise:n_masks=5000", "random"), images=ImageSet(per_class=3))
    sizes = {task.explainer: task.stop - task.start for task in make_plan(study, bench).tasks}
    assert sizes["rise:n_masks=5000"] < 5 < sizes["random"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"checkpoints": (Entry("wafer-nothing"),)}, UnknownName, "wafer-nothing"),
        ({"checkpoints": (Entry("mine", path="nowhere.safetensors"),)}, AuditError, "no file nowhere"),
        ({"explainers": ("rice",)}, UnknownName, "Did you mean 'rise'"),
        ({"fills": ("blurr",)}, UnknownName, "Did you mean 'blur'"),
        ({"images": ImageSet(dataset="nothing")}, UnknownName, "nothing"),
        ({"images": ImageSet(split="nowhere")}, InvalidParameter, "nowhere"),
        ({"images": ImageSet(leave_out=("Centre",))}, InvalidParameter, "no class here"),
        ({"images": ImageSet(leave_out=CLASSES)}, InvalidParameter, "leaves no image"),
        ({"checks": Checks(("stabillity",))}, UnknownName, "stabillity"),
    ],
)
def test_what_cannot_be_opened_is_said_before_anything_runs(
    change: dict, error: type[AuditError], says: str, bench: Workbench
) -> None:
    with pytest.raises(error, match=says):
        make_plan(dataclasses.replace(SMALL, **change), bench)


def test_weights_beside_their_card_are_opened_without_more_words(bench: Workbench, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"wafer-resnet18-cbam{suffix}").write_bytes(
            (zoo.WEIGHTS / f"wafer-resnet18-cbam{suffix}").read_bytes()
        )
    entry = Entry(
        "second run", path=str(tmp_path / "wafer-resnet18-cbam.safetensors"), training_seed=7, explainers=("grad-cam",)
    )
    plan = make_plan(dataclasses.replace(SMALL, checkpoints=(entry,), explainers=()), bench)
    assert plan.members[0].family == "ResNet18+CBAM"
    assert plan.members[0].training_seed == 7
    part = engine.perform(plan.tasks[0], plan, bench)
    assert set(part.measures["checkpoint"].to_pylist()) == {"second run"}


# --- engine ----------------------------------------------------------------------------------------------------------


def test_the_batched_areas_are_those_of_single_audits(finished: tuple[Path, Workbench]) -> None:
    """Independent witness: the spot audit scores one image at a time, through another path."""
    root, bench = finished
    plan = make_plan(SMALL, bench)
    rows = runner.merged(root).to_pylist()
    tried = 0
    for row in rows:
        if row["metric"] != "srg" or row["unit"] not in (0, 3, 8) or row["state"] != "number":
            continue
        spec = spec_of(SMALL, plan.members[0], row["explainer"], row["fill"], row["image"], 0)
        record = audit.run(spec, bench)
        # A coarse map's near-ties are ordered by its last bits, which a batch of another size changes.
        near = 1e-3 if row["explainer"] == "grad-cam" else 1e-5
        own = {r["metric"]: r["value"] for r in rows if all(r[k] == row[k] for k in ("explainer", "fill", "unit"))}
        assert own["deletion"] == pytest.approx(record.deletion_auc, abs=near)
        assert own["insertion"] == pytest.approx(record.insertion_auc, abs=near)
        assert own["srg"] == pytest.approx(record.insertion_auc - record.deletion_auc, abs=near)
        assert own["deletion-normalised"] == pytest.approx(record.deletion_auc / record.deletion.score[0], abs=2 * near)
        assert row["predicted"] == record.classes[record.predicted]
        tried += 1
    assert tried == 3 * 3 * 2


def test_the_stored_curves_have_the_stored_areas(finished: tuple[Path, Workbench]) -> None:
    root, _ = finished
    areas = {
        (r["explainer"], r["fill"], r["unit"], r["metric"]): r["value"]
        for r in runner.merged(root).to_pylist()
        if r["state"] == "number"
    }
    curves = runner.merged_curves(root).to_pylist()
    assert len(curves) == 3 * 2 * 9 * 2
    for curve in curves:
        area = sum(
            (b - a) * (x + y) / 2
            for a, b, x, y in zip(
                curve["fraction"], curve["fraction"][1:], curve["score"], curve["score"][1:], strict=False
            )
        )
        assert area == pytest.approx(areas[curve["explainer"], curve["fill"], curve["unit"], curve["kind"]], abs=1e-6)


def test_area_over_failed_dies_of_a_map_that_finds_them_last_is_that_of_one_step() -> None:
    """Closed form: no failed die goes before the last step, so the whole score stands over the whole axis."""
    dataset, index = dataset_of("synthetic:sample:3")
    source, card = dataset.image(index), zoo.card("wafer-resnet18-cbam")
    pixels = prepare(source, card)
    failed = pixels[0] > 0.75
    order = np.argsort(failed.ravel(), kind="stable")
    rank = np.empty(failed.size, dtype=np.int32)
    rank[order] = np.arange(failed.size)
    whole = Subject(source, None, pixels, None, None)
    member = Member(Entry("wafer-resnet18-cbam"), "wafer-resnet18-cbam", card)
    at = np.array([0, failed.size - failed.sum(), failed.size])
    area = engine._over_failed_dies(np.array([0.9, 0.8, 0.1]), rank.reshape(failed.shape), at, whole, member)
    assert area == pytest.approx((0.8 + 0.1) / 2)


def test_every_cell_and_image_is_there_once_with_a_number_or_a_reason(finished: tuple[Path, Workbench]) -> None:
    root, _ = finished
    table = runner.merged(root).to_pandas()
    assert not table.duplicated(["checkpoint", "explainer", "fill", "seed", "unit", "metric"]).any()
    counts = table[table.metric == "srg"].groupby(["explainer", "fill"], observed=True).size()
    assert (counts == 9).all()
    assert len(counts) == 4 * 2
    refused = table[table.explainer == "rollout"]
    assert set(refused.state) == {"refused"}
    assert refused.reason.str.contains("class token").all()
    assert table[table.state == "number"].value.notna().all()
    assert set(table[table.metric == "r-oms"].explainer) == {"random"}


def test_scope_of_the_fill_is_the_mean_of_both_random_areas(finished: tuple[Path, Workbench]) -> None:
    table = runner.merged(finished[0]).to_pandas()
    random = table[table.explainer == "random"].pivot_table("value", ["fill", "unit"], "metric", observed=True)
    assert np.allclose(random["r-oms"], (random["deletion"] + random["insertion"]) / 2)


def test_roles_follow_what_an_explainer_reads() -> None:
    assert [role_of(name) for name in ("rollout", "grad-cam", "rise:n_masks=10", "random", "input-intensity")] == [
        "own",
        "own",
        "agnostic",
        "control",
        "control",
    ]


def test_the_model_is_as_found_after_a_task(bench: Workbench) -> None:
    plan = make_plan(SMALL, bench)
    module = bench.classifier("wafer-resnet18-cbam").module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    hooks, state = [len(m._forward_hooks) for m in module.modules()], torch.random.get_rng_state()
    engine.perform(plan.tasks[0], plan, bench)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [len(m._forward_hooks) for m in module.modules()] == hooks
    assert torch.equal(torch.random.get_rng_state(), state)


def test_checks_are_those_of_a_single_audit(bench: Workbench, tmp_path: Path) -> None:
    study = dataclasses.replace(SMALL, explainers=("grad-cam",), checks=Checks(("label-flip",), per_class=1),
                                checkpoints=(Entry("wafer-resnet18-cbam"),), images=ImageSet(per_class=1,
                                leave_out=CLASSES[2:]))  # fmt: skip
    runner.run(study, tmp_path / "checked", bench)
    rows = [row for row in runner.merged(tmp_path / "checked").to_pylist() if row["metric"] == "label-flip"]
    assert len(rows) == 2
    plan = make_plan(study, bench)
    record = audit.run(spec_of(study, plan.members[0], "grad-cam", "zero", rows[0]["image"], 0), bench)
    assert rows[0]["value"] == pytest.approx(measuring.measure(record, bench, ["label-flip"])["label-flip"].value)


# --- runner ----------------------------------------------------------------------------------------------------------


def test_a_stopped_study_goes_on_where_it_was_and_ends_with_the_same_tables(
    finished: tuple[Path, Workbench], tmp_path: Path
) -> None:
    root, bench = finished
    ended: list[runner.Progress] = []
    runner.run(SMALL, tmp_path / "halt" / "a", bench, report=ended.append, stop=lambda: len(ended) > 1)
    halfway = runner.status(tmp_path / "halt" / "a")
    assert 0 < halfway.done < halfway.total
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "halt" / "a" / "parts").glob("measures-*")}
    runner.run(SMALL, tmp_path / "halt" / "a", bench)
    for name, when in kept.items():
        assert (tmp_path / "halt" / "a" / "parts" / name).stat().st_mtime_ns == when, "computed twice"
    assert runner.merged(tmp_path / "halt" / "a").equals(runner.merged(root))
    assert runner.merged_curves(tmp_path / "halt" / "a").equals(runner.merged_curves(root))


def test_equal_tasks_of_a_study_beside_it_are_taken_over(
    finished: tuple[Path, Workbench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, bench = finished
    shorter = dataclasses.replace(SMALL, explainers=("random",))
    monkeypatch.setattr("audit_core.study.worker.perform", lambda *args: pytest.fail("computed again"))
    end = runner.run(shorter, root.parent / "shorter", bench)
    assert end.done == end.total == 2


def test_a_failing_task_is_isolated_named_and_tried_again(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = worker.perform

    def planted(task: Task, *rest: Any) -> engine.Part:  # Any: the plan, the bench and the report
        if task.explainer == "random":
            raise RuntimeError("planted")
        return true(task, *rest)

    monkeypatch.setattr("audit_core.study.worker.perform", planted)
    end = runner.run(SMALL, tmp_path / "s", bench)
    found = runner.status(tmp_path / "s")
    assert (end.failed, found.done, found.total) == (1, 2, 3)
    assert found.failures[0]["reason"] == "RuntimeError: planted"
    assert "trace" not in json.dumps(found.to_json())
    monkeypatch.undo()
    runner.run(SMALL, tmp_path / "s", bench)
    assert runner.status(tmp_path / "s").complete
    assert not runner.status(tmp_path / "s").failures


def test_verify_recomputes_and_sees_what_was_changed(finished: tuple[Path, Workbench], tmp_path: Path) -> None:
    root, bench = finished
    good = runner.verify(root, bench, recompute=3)
    assert (good.recomputed, good.identical, good.problems) == (3, 3, ())
    bad = tmp_path / "bad"
    shutil.copytree(root, bad)
    path = next(p for p in sorted((bad / "parts").glob("measures-*")) if "refused" not in p.name)
    table = pq.read_table(path)
    values = table["value"].to_numpy(zero_copy_only=False) + 0.01
    tables.write(table.set_column(table.schema.get_field_index("value"), "value", [values]).cast(table.schema), path)
    assert "off by 0.01" in runner.verify(bad, bench, recompute=3).problems[0]
    path.unlink()
    assert "have no results" in runner.verify(bad, bench, recompute=0).problems[0]


def test_another_study_or_other_criteria_do_not_go_into_the_same_folder(
    finished: tuple[Path, Workbench],
) -> None:
    root, bench = finished
    with pytest.raises(InvalidParameter, match="another study"):
        runner.run(dataclasses.replace(SMALL, fills=("zero",)), root, bench)
    with pytest.raises(InvalidParameter, match="fixed when the study began"):
        runner.run(dataclasses.replace(SMALL, criteria={"metric": "deletion"}), root, bench)


def test_the_manifest_tells_everything_needed_to_repeat_it(finished: tuple[Path, Workbench]) -> None:
    root, _ = finished
    words = StudyFolder(root).manifest()
    assert words["key"] == SMALL.key
    assert words["checkpoints"][0]["weights_sha256"] == zoo.card("wafer-resnet18-cbam").weights_sha256
    assert torch.__version__.startswith(words["versions"]["torch"])
    assert [c["badge"] for c in words["contenders"] if c["explainer"] == "random"] == ["control"]
    assert len(words["images"]) == 9
    assert str(root.parent) not in json.dumps(words)


def test_a_compact_copy_holds_the_same_numbers(finished: tuple[Path, Workbench], tmp_path: Path) -> None:
    write_compact(finished[0], tmp_path / "compact")
    copy = pq.read_table(tmp_path / "compact" / "measures.parquet")
    assert copy.to_pylist() == runner.merged(finished[0]).to_pylist()
    exact = runner.merged_curves(finished[0])["score"].combine_chunks().values.to_numpy()
    rounded = pq.read_table(tmp_path / "compact" / "curves.parquet")["score"].combine_chunks().values.to_numpy()
    assert np.abs(exact - rounded).max() <= 0.0005 + 1e-7


def test_a_folder_without_a_study_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"holds no study|cannot be read"):
        runner.status(tmp_path)
    with pytest.raises(BadData, match="no results yet"):
        runner.merged(tmp_path)


def test_the_shelf_opens_names_and_no_paths(finished: tuple[Path, Workbench]) -> None:
    shelf = Shelf(finished[0].parent)
    assert "small" in shelf.names()
    assert shelf.folder("small").study() == SMALL
    for name in ("../small", "/etc", "nothing", ""):
        with pytest.raises(UnknownName):
            shelf.folder(name)
    visitor = shelf.fresh()
    assert visitor.startswith("visitor-")
    assert visitor != shelf.fresh()


def test_native_explainers_follow_the_readout() -> None:
    assert native(zoo.card("wafer-vit-tiny")) == ("rollout",)
    assert native(zoo.card("wafer-swin-tiny")) == ("grad-cam",)
    assert "rollout:pooled=2" in matched_in_resolution(zoo.card("wafer-vit-tiny"))
    assert "grad-cam:layer=stage1" in matched_in_resolution(zoo.card("wafer-densenet121"))
