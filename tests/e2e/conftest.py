"""The running dashboard in Debian's Chromium: one server on a scratch store, and a visitor with eyes and hands."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
PATIENCE = float(os.environ.get("TRIPLECHECK_PATIENCE", 240))  # seconds to wait for what must come; machines are noisy
METRICS = """() => {
  const all = [...document.querySelectorAll('[data-testid="stMetric"]')];
  const fresh = all.filter(m => !m.closest('[data-stale="true"]'));
  const text = (m, part) => m.querySelector(`[data-testid="stMetric${part}"]`)?.innerText.trim() ?? "";
  return Object.fromEntries(fresh.map(m => [text(m, "Label"), text(m, "Value")]));
}"""
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, and skip it where there is nothing to drive or to be driven."""
    missing = ""
    if importlib.util.find_spec("playwright") is None:
        missing = "playwright is not installed"
    elif not shutil.which(CHROMIUM):
        missing = f"no Chromium at {CHROMIUM} (set CHROMIUM)"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


class Server:
    """A dashboard process: its address, and whether it is well."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url, self.process, self.log = url, process, log

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=10) as answer:
                return answer.read() == b"ok"
        except OSError:
            return False

    def tracebacks(self) -> str:
        text = self.log.read_text(errors="replace")
        return text[text.index("Traceback") - 300 :][:4000] if "Traceback" in text else ""


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Start the dashboard on a free port with its store in ``folder``; fail if it logged a traceback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    environment = {**os.environ, "TRIPLECHECK_STORE": str(folder / "store"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}", "--server.headless=true"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        end = time.monotonic() + PATIENCE
        while not server.healthy():
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail("the server did not start:\n" + log.read_text(errors="replace")[-4000:])
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    assert not server.tracebacks(), server.tracebacks()


class Visitor:
    """A person at one page in a browser session of their own."""

    def __init__(self, page: Any, server: Server) -> None:  # Any: playwright.sync_api.Page, absent on some machines
        self.page, self.server = page, server
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("dialog", self._dismiss)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, path: str = "", **words: str) -> None:
        """Go to a page with these words in the address; returns when its script has run."""
        self.page.goto(f"{self.server.url}/{path}" + (f"?{urlencode(words)}" if words else ""))
        self.page.get_by_role("heading", level=1).first.wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until no script runs; it says nothing about what is on the screen."""
        self.page.wait_for_selector(IDLE)

    def at(self, key: str) -> Any:
        """The element with this widget key."""
        return self.page.locator(".st-key-" + re.sub(r"[^a-zA-Z0-9_-]", "-", key))

    def pick(self, key: str, text: str) -> None:
        """Choose from a select box as a person does: click, type, Enter."""
        box = self.at(key)
        box.locator("input").click()
        self.page.keyboard.type(text)
        self.page.get_by_role("option").first.wait_for()
        self.page.keyboard.press("Enter")
        self.page.get_by_role("option").first.wait_for(state="detached")

    def until(self, what: str, test: Callable[[], Any]) -> Any:
        """Look again until ``test`` gives something; browser events are handled meanwhile."""
        end = time.monotonic() + PATIENCE
        while not (found := test()):
            assert time.monotonic() < end, f"waited in vain for {what}; the page says:\n" + self.text()
            self.page.wait_for_timeout(150)
        return found

    def text(self) -> str:
        return self.page.locator("main").first.inner_text()[:3000]

    def numbers(self, unlike: dict[str, str] | None = None) -> dict[str, str]:
        """Labels and values of the metric card, once it is there, up to date and other than ``unlike``."""
        return self.until("numbers", lambda: (found := self._numbers()) != unlike and found)

    def see(self, expected: dict[str, str]) -> None:
        """Wait until the metric card reads so."""
        self.until(f"{expected}", lambda: self._numbers() == expected)

    def _numbers(self) -> dict[str, str]:
        found: dict[str, str] = self.page.evaluate(METRICS)
        return found if len(found) == 4 else {}

    def options(self, key: str) -> list[str]:
        """What a select box offers."""
        self.at(key).locator("input").click()
        self.page.get_by_role("option").first.wait_for()
        found = [text.strip() for text in self.page.get_by_role("option").all_inner_texts()]
        self.page.keyboard.press("Escape")
        return found

    def upload(self, key: str, name: str, data: bytes) -> None:
        """Hand a file to an uploader."""
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        self.at(key).locator('input[type="file"]').set_input_files(file)

    def says(self, text: str | re.Pattern[str]) -> Any:
        """Wait until the page shows a text; returns where."""
        found = self.page.get_by_text(text).filter(visible=True).first
        found.wait_for()
        return found

    def download(self, label: str) -> bytes:
        """Press a download button; the bytes of the file."""
        with self.page.expect_download() as caught:
            self.page.get_by_role("button", name=label).click()
        return Path(caught.value.path()).read_bytes()

    def fine(self) -> None:
        """Nothing on the page or in the browser went wrong."""
        assert self.page.get_by_test_id("stException").count() == 0
        assert not self.errors, self.errors
        assert not self.dialogs, self.dialogs


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def fresh_server(tmp_path: Path, chromium: Any) -> Iterator[Server]:
    """A server that nobody has asked for anything yet."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def arrive(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visitor]]:
    """Call it for a visitor with a browser session of their own: ``arrive(server, viewport=…)``."""
    contexts = []

    def come(server: Server | None = None, **settings: Any) -> Visitor:
        settings.setdefault("viewport", {"width": 1400, "height": 1000})
        contexts.append(chromium.new_context(accept_downloads=True, **settings))
        return Visitor(contexts[-1].new_page(), server or request.getfixturevalue("server"))

    yield come
    for context in contexts:
        context.close()


@pytest.fixture
def visitor(arrive: Callable[..., Visitor]) -> Iterator[Visitor]:
    someone = arrive()
    yield someone
    someone.fine()
