"""``docs/findings.md`` says what the shipped study says."""

from __future__ import annotations

import json
from pathlib import Path

from audit_core.study.markdown import findings
from audit_core.study.shelf import shipped

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_shipped_study() -> None:
    folder = shipped()
    assert folder is not None
    shown = TEXT.split("<!-- study -->\n")[1].split("<!-- /study -->")[0]
    assert shown == findings(folder)


def test_the_shipped_study_holds_numbers_and_no_images_or_machine_paths() -> None:
    folder = shipped()
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {
        "study.toml",
        "manifest.json",
        "measures.parquet",
        "curves.parquet",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8 * 2**20
    words = (folder / "manifest.json").read_text() + (folder / "study.toml").read_text()
    for part in ("/tmp", "/home", "/root", "/work"):
        assert part not in words
    assert len(json.loads(words.split("title =")[0])["images"]) > 100
