"""Study and Rank reversal where a folder is broken, and where a visitor's own study must not be lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from visiting import living_in, visit, word

from audit_core.study.shelf import shipped
from pages.ui import resources, study_cost, study_words

VISITOR = "visitor-0123456789abcdef"


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root, whole = tmp_path_factory.mktemp("home"), shipped()
    assert whole is not None
    shelf = root / "studies"
    shutil.copytree(whole, shelf / VISITOR)
    for name in ("cut", "no-manifest"):
        shutil.copytree(whole, shelf / name)
    cut = shelf / "cut" / "measures.parquet"
    cut.write_bytes(cut.read_bytes()[:1000])
    (shelf / "no-manifest" / "manifest.json").write_text("{")
    with living_in(root):
        yield shelf


def test_a_visitors_study_stays_on_rank_reversal_when_a_widget_is_touched() -> None:
    at = visit("pages/reversal.py", study=VISITOR)
    assert word(at, "study") == VISITOR
    at = at.selectbox(key="reversal.metric").select("deletion").run()
    assert not at.exception
    assert (word(at, "study"), word(at, "metric")) == (VISITOR, "deletion")
    assert VISITOR not in visit("pages/reversal.py").selectbox(key="reversal.study").options


def test_fewer_than_two_contenders_rank_nothing() -> None:
    at = visit("pages/reversal.py")
    at = at.multiselect(key="reversal.contenders").set_value([]).run()
    assert not at.exception
    assert any("two or more contenders" in one.value for one in at.info)
    assert not at.get("plotly_chart")


@pytest.mark.parametrize(("page", "name"), [("pages/reversal.py", "no-manifest"), ("pages/study.py", "no-manifest"),
                                            ("pages/reversal.py", "cut"), ("pages/study.py", "cut")])  # fmt: skip
def test_a_broken_folder_is_one_sentence_without_the_servers_folders(page: str, name: str, shelf: Path) -> None:
    at = visit(page, study=name)
    told = [one.value.replace("\\", "") for one in (*at.error, *at.info, *at.warning)]
    assert any("manifest.json" in one or "is not a complete Parquet file" in one for one in told), told
    assert not any(str(shelf) in one for one in told)


def test_a_name_that_is_no_metric_is_shown_as_it_is() -> None:
    assert study_words.plain_metric("a b") == "a b"


def test_the_measurement_of_a_draft_that_has_changed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(st, "session_state", {study_cost.PROBE: "probe:old:1", "owner": "me"})
    monkeypatch.setattr(resources, "owner", lambda: "me")
    monkeypatch.setattr(resources.jobs(), "cancel", lambda job, owner: ended.append(job))
    study_cost.forget_probe("probe:old:1")
    assert ended == []
    study_cost.forget_probe("probe:new:1")
    study_cost.forget_probe()
    assert ended == ["probe:old:1"]
