"""The study page through app.py, in process: define, cost, run, browse; what it opens, and what it refuses to open."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from audit_core.data import dataset_of
from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.keys import Choice
from audit_core.study import plan as planning
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.presets import demo, native
from audit_core.study.shelf import SHIPPED, VISITOR, Shelf
from models import zoo
from pages.ui import study_colours, study_files, study_guard, study_link

ROOT = Path(__file__).resolve().parents[2]
CARD = "wafer-resnet18-cbam"
TINY = Study(
    "tiny", (Entry(CARD, explainers=("grad-cam", "rollout")),), ("random",), ("zero",),
    ImageSet(per_class=1), CurveSettings(steps=4),
)  # fmt: skip
LONG = replace(TINY, title="long", explainers=("rise:n_masks=20000,settle=1",), images=ImageSet(per_class=10))


@pytest.fixture(scope="module", autouse=True)
def _scratch_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(tmp_path_factory.mktemp("study") / "store"))
        st.cache_resource.clear()
        yield
        st.cache_resource.clear()


def visit(page: str = "study", **link: str) -> AppTest:
    """A new session that opens ``page`` with the words of ``link`` in its address."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300).run()
    for name, value in link.items():
        at.query_params[name] = value
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception, at.exception[0].message
    return at


def draft(study: Study | str) -> AppTest:
    """A new session with this study in the text area."""
    at = visit(study=study_link.NEW)
    at.text_area(key="study.text").set_value(study if isinstance(study, str) else study.dumps()).run()
    assert not at.exception, at.exception[0].message
    return at


def grid(at: AppTest) -> dict[str, Any]:
    """The data of the table component."""
    return json.loads(at.get_by_key("study.grid").proto.json)


def cells(at: AppTest) -> dict[str, dict[str, Any]]:
    return {cell["id"]: cell for row in grid(at)["rows"] for cell in row.get("cells", [])}


def unescaped(text: str) -> str:
    """What Markdown shows of a text that :func:`wording.plain` wrote."""
    return text.replace("\\", "")


def said(at: AppTest, *kinds: str) -> str:
    kinds = kinds or ("markdown", "caption", "info", "warning", "error")
    return "\n".join(element.value for kind in kinds for element in getattr(at, kind))


def has(at: AppTest, key: str) -> bool:
    return any(button.key == key for button in at.button)


def until(at: AppTest, button: str, seconds: float = 240) -> AppTest:
    """Rerun until a button is there; timers do not fire in these tests."""
    end = time.monotonic() + seconds
    while not has(at, button):
        assert time.monotonic() < end, said(at)
        time.sleep(0.2)
        at.run()
        assert not at.exception, at.exception[0].message
    return at


def links(at: AppTest) -> list[dict[str, str]]:
    """The words of every link to the spot audit, in the order of the page."""
    found = [parse_qs(link.proto.query_string, keep_blank_values=True) for link in at.get("page_link")]
    return [{name: values[0] for name, values in one.items()} for one in found if one]


@pytest.fixture(scope="module")
def tiny() -> str:
    """Name of the tiny study, run to its end through the page."""
    at = draft(TINY)
    at.button(key="study.run").click().run()
    assert not at.exception, at.exception[0].message
    name = at.session_state[study_link.CHOSEN]
    end = time.monotonic() + 300
    while has(at, "study.cancel"):
        assert time.monotonic() < end, said(at)
        time.sleep(0.3)
        at.run()
        assert not at.exception, at.exception[0].message
    assert not has(at, "study.resume"), said(at)
    return name


def measures(name: str) -> pd.DataFrame:
    folder = Shelf.default().folder(name).root
    files = sorted((folder / "parts").glob("measures-*.parquet")) or [folder / "measures.parquet"]
    return pd.concat(pq.read_table(file).to_pandas() for file in files)


def mean_of(table: pd.DataFrame, contender: str, fill: str, metric: str) -> float:
    at = (table["contender"] == contender) & (table["fill"] == fill) & (table["metric"] == metric)
    return float(table.loc[at & (table["state"] == "number"), "value"].mean())


def shown(value: float) -> str:
    return f"{'+' if value > 0 else ''}{value:.3f}".replace("-", "−")


def test_a_first_visit_shows_the_finished_example() -> None:
    at = visit()
    assert at.query_params == {}
    assert at.selectbox(key="study.menu").value == SHIPPED
    assert not at.error
    assert not has(at, "study.resume")
    table, found = measures(SHIPPED), cells(at)
    manifest = Shelf.default().folder(SHIPPED).manifest()
    numbers = {id: cell for id, cell in found.items() if cell["state"] == "number"}
    assert numbers
    for place, cell in numbers.items():
        contender, _, fill = place.rpartition("|")
        assert cell["text"] == shown(mean_of(table, contender, fill, "srg")), place
    expected = [c for c in manifest["contenders"] if c["role"] != "control" or c["explainer"] == "random"]
    assert set(found) == {f"{c['contender']}|{fill}" for c in expected for fill in manifest["fills"]}
    assert 0 < len(links(at)) <= 9


def test_all_controls_are_one_click_away_and_stay_grey() -> None:
    at = visit()
    manifest = Shelf.default().folder(SHIPPED).manifest()
    at.toggle(key="study.controls").set_value(True).run()
    assert {id.rpartition("|")[0] for id in cells(at)} == {c["contender"] for c in manifest["contenders"]}
    rows = [row for row in grid(at)["rows"] if row.get("control")]
    assert rows
    assert not any("background" in cell for row in rows for cell in row["cells"])


def test_each_family_shows_its_own_explainers_first_and_controls_last() -> None:
    roles = {c["contender"]: c["role"] for c in Shelf.default().folder(SHIPPED).manifest()["contenders"]}
    rows = [row for row in grid(visit())["rows"] if "cells" in row]
    for family in {row["family"] for row in rows}:
        found = [roles[row["cells"][0]["id"].rpartition("|")[0]] for row in rows if row["family"] == family]
        assert found == sorted(found, key=("own", "agnostic", "control").index)
        assert found[-1] == "control"


def test_the_metric_of_the_link_is_shown_with_its_direction() -> None:
    at = visit(metric="deletion")
    table = measures(SHIPPED)
    place, cell = next((place, cell) for place, cell in cells(at).items() if cell["state"] == "number")
    contender, _, fill = place.rpartition("|")
    assert cell["text"] == f"{mean_of(table, contender, fill, 'deletion'):.3f}"
    assert "↓ lower is better" in cell["tip"]
    assert grid(at)["legend"]["low"].endswith("better")
    assert at.query_params["metric"] in ("deletion", ["deletion"])


def test_a_refused_cell_keeps_its_place_and_its_reason(tiny: str) -> None:
    place = f"{zoo.card(CARD).family} · rollout|zero"
    at = visit(study=tiny, cell=place)
    cell, reason = cells(at)[place], EXPLAINERS.build(Choice("rollout")).refuse(zoo.card(CARD))
    assert reason
    assert (cell["state"], cell["text"]) == ("refused", "–")
    assert reason in cell["tip"]
    assert reason in unescaped(said(at, "markdown"))
    assert not links(at)


def test_a_cell_of_the_link_lists_its_images_by_surprise() -> None:
    manifest = Shelf.default().folder(SHIPPED).manifest()
    shipped = {zoo.card(name).family for name in zoo.names()}
    own = next(c for c in manifest["contenders"] if c["role"] == "agnostic" and c["family"] in shipped)
    fill = manifest["fills"][1]
    at = visit(cell=f"{own['contender']}|{fill}")
    assert any(own["family"] in unescaped(heading.value) for heading in at.subheader)
    table = measures(SHIPPED)
    table = table[(table["contender"] == own["contender"]) & (table["fill"] == fill) & (table["metric"] == "srg")]
    table = table[table["state"] == "number"]
    surprise = (table["value"] - table["value"].mean()).abs()
    wanted = table.assign(surprise=surprise).sort_values("surprise", ascending=False)
    numbers = [text.value for text in at.markdown if "the mean" in text.value]
    assert [unescaped(text).split("**")[1] for text in numbers] == [shown(v) for v in wanted["value"][: len(numbers)]]
    first, top = links(at)[0], wanted.iloc[0]
    assert (first["explainer"], first["fill"]) == (own["explainer"], fill)
    assert zoo.card(first["checkpoint"]).family == own["family"]
    assert first["target"] == "predicted"
    assert first["image"] == (
        top["image"] if study_guard.openable(top["image"]) else study_guard.lookalike(top["label"])
    )


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"study": "nowhere"}, "there is no study 'nowhere'"),
        ({"study": "../../etc"}, "there is no study"),
        ({"study": VISITOR + "0" * 16}, "there is no study"),
        ({"metric": "nonsense"}, ""),
        ({"cell": "nobody|zero"}, ""),
        ({"cell": "|"}, ""),
    ],
    ids=str,
)
def test_a_bad_link_shows_the_example_and_says_so(link: dict[str, str], sentence: str) -> None:
    at = visit(**link)
    assert at.selectbox(key="study.menu").value == SHIPPED
    assert cells(at)
    assert sentence in unescaped(said(at, "warning"))


def test_the_form_writes_the_text_and_the_text_the_form() -> None:
    at = draft(demo())
    assert Study.parse(at.text_area(key="study.text").value) == demo()
    at.number_input(key="study.form.steps").set_value(7).run()
    at.number_input(key="study.form.per_class").set_value(2).run()
    at.multiselect(key="study.form.fills").set_value(["zero", "road"]).run()
    at.multiselect(key="study.form.seeds").set_value(["0", "3"]).run()
    at.multiselect(key="study.form.checks").set_value(["rotation-stability"]).run()
    assert not at.exception
    expected = replace(
        demo(),
        fills=("zero", "road"),
        images=replace(demo().images, per_class=2),
        curves=replace(demo().curves, steps=7, seeds=(0, 3)),
        checks=replace(demo().checks, metrics=("rotation-stability",)),
    )
    assert Study.parse(at.text_area(key="study.text").value) == expected
    at.text_area(key="study.text").set_value(TINY.dumps()).run()
    assert at.number_input(key="study.form.steps").value == 4
    assert at.multiselect(key="study.form.fills").value == ["zero"]
    assert at.multiselect(key="study.form.checkpoints").value == [CARD]
    assert at.text_area(key="study.text").value == TINY.dumps()


def test_a_checkpoint_added_in_the_form_gets_the_explainer_of_its_readout() -> None:
    at = draft(TINY)
    at.multiselect(key="study.form.checkpoints").set_value([CARD, "wafer-vit-tiny"]).run()
    entries = Study.parse(at.text_area(key="study.text").value).checkpoints
    assert entries == (*TINY.checkpoints, Entry("wafer-vit-tiny", explainers=native(zoo.card("wafer-vit-tiny"))))
    assert entries[1].explainers == ("rollout",)


def test_a_form_that_makes_no_study_leaves_the_text_alone() -> None:
    at = draft(TINY)
    at.multiselect(key="study.form.fills").set_value([]).run()
    assert "the study names no fill" in unescaped(said(at, "error"))
    assert at.text_area(key="study.text").value == TINY.dumps()
    at.multiselect(key="study.form.fills").set_value(["road"]).run()
    assert not at.error
    assert Study.parse(at.text_area(key="study.text").value).fills == ("road",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = ", "the study is not valid TOML"),
        (TINY.dumps().replace("fills", "fils"), "Did you mean 'fills'?"),
        (TINY.dumps().replace("steps = 4", 'steps = "4"'), "[curves] steps must be a whole number"),
        (TINY.dumps().replace('"zero"', '"zeroo"'), "Did you mean 'zero'?"),
        (TINY.dumps().replace(CARD, "wafer-nothing"), "no checkpoint named 'wafer-nothing'"),
    ],
    ids=("syntax", "name", "type", "fill", "checkpoint"),
)
def test_a_bad_text_gets_its_sentence_and_nothing_runs(text: str, sentence: str) -> None:
    at = draft(text)
    assert sentence in unescaped(said(at, "error"))
    assert not has(at, "study.run")


@pytest.mark.parametrize(
    "study",
    [
        replace(TINY, checkpoints=(Entry("mine", path="/etc/passwd"),)),
        replace(TINY, checkpoints=(Entry(CARD, path="secret.safetensors", explainers=("grad-cam",)),)),
        replace(TINY, images=ImageSet("folder:path=/etc", "all")),
        replace(TINY, images=ImageSet("wm811k:path=/data/LSWMD.pkl", "test")),
    ],
    ids=("checkpoint", "shipped name", "folder", "wm811k"),
)
def test_files_of_the_server_are_opened_for_nobody(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    at = draft(TINY)
    monkeypatch.setattr(planning, "open_member", lambda *args: opened.append("checkpoint"))
    monkeypatch.setattr(planning, "open_split", lambda *args: opened.append("data"))
    at.text_area(key="study.text").set_value(study.dumps()).run()
    assert not at.exception
    assert "on the command line" in unescaped(said(at, "error"))
    assert not has(at, "study.run")
    assert opened == []


def test_the_cost_is_told_before_anything_runs() -> None:
    at = draft(replace(TINY, curves=CurveSettings(steps=5)))
    numbers = {metric.label: metric.value for metric in at.metric}
    assert numbers["Images"] == "9"
    assert numbers["Cells"] == "2"
    assert numbers["Backwards, at most"] == "9"  # one for each map of Grad-CAM, none for the random order
    reason = EXPLAINERS.build(Choice("rollout")).refuse(zoo.card(CARD))
    assert reason
    assert reason in unescaped(said(at, "markdown"))
    assert has(at, "study.run")
    end = time.monotonic() + 120
    while "on this page" not in said(at, "markdown"):  # the look at the speed waits where the machine is busy
        assert time.monotonic() < end
        time.sleep(0.3)
        at.run()


def test_a_study_of_refused_cells_alone_cannot_be_run() -> None:
    at = draft(replace(TINY, explainers=(), checkpoints=(Entry(CARD, explainers=("rollout",)),)))
    assert "Every cell is refused" in said(at, "info")
    assert not has(at, "study.run")


def test_a_small_study_runs_to_its_end(tiny: str) -> None:
    at = visit(study=tiny)
    table = measures(tiny)
    found = cells(at)
    for explainer in ("grad-cam", "random"):
        contender = f"{zoo.card(CARD).family} · {explainer}"
        assert found[f"{contender}|zero"]["text"] == shown(mean_of(table, contender, "zero", "srg"))
        assert "mean of 9 images" in found[f"{contender}|zero"]["tip"]
    assert found[f"{zoo.card(CARD).family} · rollout|zero"]["state"] == "refused"
    first = links(at)[0]
    assert first["image"] in set(table["image"])
    assert (first["steps"], first["checkpoint"], first["explainer"]) == ("4", CARD, "grad-cam")
    assert "do not ship" not in said(at, "caption")


def test_a_spot_audit_of_the_link_gives_the_number_of_the_study(tiny: str) -> None:
    word = links(visit(study=tiny))[0]
    at = visit("spot_audit", **word, controls="0")
    end = time.monotonic() + 120
    while not at.metric and time.monotonic() < end:
        time.sleep(0.2)
        at.run()
    table = measures(tiny)
    row = table[
        (table["image"] == word["image"]) & (table["explainer"] == "grad-cam") & (table["metric"] == "deletion")
    ]
    shown_there = {metric.label: unescaped(metric.value) for metric in at.metric}
    assert float(shown_there["Deletion AUC ↓"]) == pytest.approx(float(row["value"].iloc[0]), abs=6e-4)


def test_a_visitors_study_is_found_by_its_link_alone(tiny: str) -> None:
    stranger = visit()
    assert not any("tiny" in option for option in stranger.selectbox(key="study.menu").options)
    invited = visit(study=tiny)
    assert any("tiny (yours)" in option for option in invited.selectbox(key="study.menu").options)


def test_what_was_computed_before_is_taken_over(tiny: str) -> None:
    at = draft(replace(TINY, title="again"))
    assert "Taken over from an earlier study here: 2 tasks" in said(at, "caption")
    assert "Nothing is left to compute" in said(at, "markdown")


def test_changed_criteria_are_told(tiny: str) -> None:
    path = Shelf.default().folder(tiny).root / "study.toml"
    before = path.read_text()
    assert "criteria were changed" not in said(visit(study=tiny), "warning")
    try:
        path.write_text(replace(Study.parse(before), criteria={"min_images": 2}).dumps())
        assert "criteria were changed after the study began" in said(visit(study=tiny), "warning")
    finally:
        path.write_text(before)


def test_the_downloads_hold_every_row(tiny: str) -> None:
    folder, table = Shelf.default().folder(tiny), measures(tiny)
    as_csv = pd.read_csv(io.BytesIO(study_files.csv(folder)), keep_default_na=False, na_values=[""])
    as_parquet = pd.read_parquet(io.BytesIO(study_files.parquet(folder)))
    for found in (as_csv, as_parquet):
        assert len(found) == len(table)
        assert found["value"].sum() == pytest.approx(table["value"].sum())
    at = visit(study=tiny)
    assert [button.proto.label for button in at.get("download_button")] == [
        "study.toml", "manifest.json", "Measures as CSV", "Measures as Parquet", "Report",
    ]  # fmt: skip
    assert any("study run study.toml" in code.value for code in at.code)
    page = study_files.report(folder).decode()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert folder.study().title in page


def test_a_cancelled_study_keeps_what_it_has_and_can_be_resumed() -> None:
    at = draft(LONG)
    at.button(key="study.run").click().run()
    name = at.session_state[study_link.CHOSEN]
    until(at, "study.cancel")
    assert {cell["state"] for cell in cells(at).values()} >= {"waiting"}
    assert "stops within about three minutes" in said(at, "caption")
    at.button(key="study.cancel").click().run()
    until(at, "study.resume")
    status = Shelf.default().folder(name)
    done = sum(status.done(task) for task in status.tasks())
    assert done < len(status.tasks())
    assert f"{done} of {len(status.tasks())} tasks done" in said(at, "info")
    assert "Verdict" not in said(at, "caption")
    at.button(key="study.resume").click().run()
    until(at, "study.cancel")
    at.button(key="study.cancel").click().run()
    until(at, "study.resume")


def test_a_new_study_can_begin_from_a_finished_one() -> None:
    at = visit()
    at.button(key="study.copy").click().run()
    assert not at.exception
    assert at.query_params["study"] in (study_link.NEW, [study_link.NEW])
    text = Study.parse(at.text_area(key="study.text").value)
    assert text.fills == Shelf.default().folder(SHIPPED).study().fills
    study_guard.check(text)


def test_a_study_of_local_data_is_made_fit_for_the_page() -> None:
    local = replace(
        demo(),
        checkpoints=(*demo().checkpoints, Entry("mine", path="/x/y.safetensors", explainers=("grad-cam",))),
        images=ImageSet("wm811k:path=/x/LSWMD.pkl", "test", per_class=22),
    )
    with pytest.raises(InvalidParameter, match="on the command line"):
        study_guard.check(local)
    made, told = study_guard.adapted(local)
    study_guard.check(made)
    assert made.checkpoints == demo().checkpoints
    assert made.images == ImageSet("synthetic", "sample", per_class=3)
    assert len(told) == 2
    assert study_guard.adapted(demo()) == (demo(), [])


def test_a_page_draws_from_a_bounded_set_of_maps() -> None:
    study_guard.check(replace(TINY, images=ImageSet("synthetic:n=1000")))
    with pytest.raises(InvalidParameter, match="at most 1,000"):
        study_guard.check(replace(TINY, images=ImageSet("synthetic:n=1001")))


def test_a_stand_in_has_the_class_it_stands_for() -> None:
    for label in zoo.card(CARD).classes:
        reference = study_guard.lookalike(label)
        assert reference is not None
        assert study_guard.openable(reference)
        dataset, index = dataset_of(reference)
        assert dataset.classes[dataset.label(index)] == label
        assert not [i for i in range(index) if dataset.classes[dataset.label(i)] == label]
    assert study_guard.lookalike("crack") is None


@pytest.mark.parametrize(
    ("reference", "opens"),
    [
        ("synthetic:sample:0", True),
        ("synthetic:sample:89", True),
        ("synthetic:sample:90", False),
        ("synthetic(seed=8):sample:0", False),
        ("wm811k(path=/x):test:3", False),
        ("upload:" + "0" * 64, True),
    ],
)
def test_only_generated_samples_and_uploads_open_by_link(reference: str, opens: bool) -> None:
    assert study_guard.openable(reference) is opens


def test_a_row_links_to_a_checkpoint_that_a_page_can_open() -> None:
    family = zoo.card(CARD).family
    assert study_guard.checkpoint(CARD, family) == CARD
    assert study_guard.checkpoint("custom:abc", family) == "custom:abc"
    stand_in = study_guard.checkpoint("resnet18-run-3", family)
    assert stand_in is not None
    assert zoo.card(stand_in).family == family
    assert study_guard.checkpoint("other", "Nobody's family") is None


def test_colours_tell_sign_and_size_and_leave_the_number_readable() -> None:
    scale = study_colours.Scale.of([-0.1, 0.4], "srg")
    assert (scale.low, scale.high) == (-0.4, 0.4)
    assert scale.colours(0.0)["background"] == "rgb(247, 247, 247)"
    assert study_colours.Scale.of([0.2, 0.5], "deletion") == study_colours.Scale(0.2, 0.5, False)
    for one in (scale, study_colours.Scale.of([0.0, 1.0], "insertion")):
        for value in np.linspace(one.low, one.high, 41):
            found = one.colours(float(value))
            assert contrast(found["background"], found["color"]) >= 4.5, (value, found)


def contrast(background: str, text: str) -> float:
    """Contrast of two colours, WCAG 2.2; 4.5 is enough for text."""
    rgb = [float(part) for part in background.removeprefix("rgb(").rstrip(")").split(",")]
    other = [int(text[i : i + 2], 16) for i in (1, 3, 5)]

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    low, high = sorted((luminance(rgb), luminance(other)))
    return (high + 0.05) / (low + 0.05)
