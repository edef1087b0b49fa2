"""The report file in a real browser: nothing fetched, no error, and no sideways scroll on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit_core.study import report
from audit_core.study.shelf import shipped


def test_the_report_opens_offline(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report.html(shipped(), resamples=100), encoding="utf-8")
    asked, errors = [], []
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert asked == [path.as_uri()]
    assert not errors
    assert wide <= 390
