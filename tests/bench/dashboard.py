"""3 and 4: latency on the screen and memory of the server, in the running dashboard with Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.report import Row, say
from tests.bench.stage import Options, named
from tests.e2e.conftest import CHROMIUM, FLAGS, Server, Visitor, running

CLASSES = ("Donut", "Edge-Loc", "Scratch", "Center", "Random")  # none is START's
FILLS = ("zero", "blur", "image-mean", "zero-normalised", "shuffle")
START = "synthetic:sample:3"
WARM = 5  # audits with each checkpoint before memory is said to be level
# From the Enter key until a curve is drawn, and until the finished audit's numbers are there; milliseconds.
WATCH = """(before) => { window.watched = new Promise((resolve, reject) => {
  let began = null, first = null;
  const numbers = () => [...document.querySelectorAll('[data-testid="stMetricValue"]')].filter(
    e => !e.closest('[data-stale="true"]')).map(e => e.textContent.trim());
  document.addEventListener("keydown", e => { if (e.key === "Enter") began ??= performance.now(); }, true);
  const drawn = () => [...document.querySelectorAll('[aria-label*="curve so far"]')].some(
    e => !e.closest('[data-stale="true"]') && e.querySelector("canvas, svg"));
  const look = () => {
    const now = performance.now(), found = numbers();
    if (began !== null) {
      if (first === null && drawn()) first = now - began;
      if (found.length === 4 && found.join() !== before) return resolve([first ?? now - began, now - began]);
      if (now - began > 120000) return reject("no finished audit after two minutes");
    }
    setTimeout(look, 25);  // seldom, and without asking for a layout: the watcher must not slow what it watches
  };
  look();
}); }"""
SHOWN = """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')].map(
  e => e.textContent.trim()).join()"""
PAINTED = """() => 2 <= [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].filter(
  chart => chart.querySelector("canvas, svg")).length"""


def rows(options: Options, sections: set[int]) -> Iterator[Row]:
    """One server and one browser for both sections."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), headless=True, args=FLAGS)
        with running(Path(folder)) as server:
            visitor = Visitor(browser.new_page(viewport={"width": 1400, "height": 1000}), server)
            if 3 in sections:
                yield from _home(visitor, server)
            for name in options.checkpoints:
                yield from _checkpoint(visitor, name, options, 3 in sections)
            if 4 in sections:
                yield from _memory(visitor, server, options)
        browser.close()


def _home(visitor: Visitor, server: Server) -> Iterator[Row]:
    clock = "() => performance.now()"
    visitor.page.goto(server.url, wait_until="commit")
    visitor.page.get_by_role("heading", level=1).first.wait_for()
    words = visitor.page.evaluate(clock) / 1000
    visitor.page.wait_for_function(PAINTED, polling=20)
    curves = visitor.page.evaluate(clock) / 1000
    loaded = "libtorch" in Path(f"/proc/{server.process.pid}/maps").read_text()
    what = f"home on a cold server: words after {words:.2f} s, the example's curves after"
    yield Row(what, "–", "Chromium", f"{curves:.2f} s", "≤ 3 s", curves <= 3)
    yield Row("home: torch in the server's process", "–", "Chromium", "yes" if loaded else "no", "no", not loaded)


def _checkpoint(visitor: Visitor, name: str, options: Options, timed: bool) -> Iterator[Row]:
    say(f"{name}: audits in the browser")
    visitor.open("spot_audit", checkpoint=name, explainer="grad-cam", fill="zero", image=START)
    visitor.numbers()
    if not timed:
        return
    fresh = [_pick(visitor, kind) for kind in CLASSES[: options.repetitions]]
    again = [_pick(visitor, kind)[1] for kind in CLASSES[: options.repetitions]]
    firsts, ends = zip(*fresh, strict=True)
    for what, seconds, wanted in (
        ("choice of a wafer to the first curve point", firsts, 1.0),
        ("choice of a wafer to both finished curves", ends, 4.0),
        ("choice of a finished audit to its repaint", again, 0.5),
    ):
        middle = statistics.median(seconds)
        spread = f"{middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
        yield Row(what, name, f"Chromium, {named('cpu')}", spread, f"≤ {wanted:g} s", middle <= wanted)


def _pick(visitor: Visitor, kind: str) -> tuple[float, float]:
    """Seconds from choosing a class of wafers to (first curve point, finished numbers)."""
    page: Any = visitor.page  # Any: playwright.sync_api.Page
    page.wait_for_timeout(400)
    visitor.settle()
    page.evaluate(WATCH, page.evaluate(SHOWN))
    visitor.pick("spot.class", kind)
    first, end = page.evaluate("() => window.watched")
    return first / 1000, end / 1000


def _memory(visitor: Visitor, server: Server, options: Options) -> Iterator[Row]:
    wanted, device, each = 2.5 * 1024, "server process", -(-options.audits // len(options.checkpoints))
    first = resident(server.process.pid)
    _audits(visitor, options, 2, WARM)  # meanwhile the engine tries its batch sizes
    before = resident(server.process.pid)
    what = f"resident memory after {WARM} audits with each checkpoint ({first:.0f} MB after one)"
    yield Row(what, "all", device, f"{before:.0f} MB", "< 2560 MB", before < wanted)
    _audits(visitor, options, 2 + -(-WARM // len(CLASSES)), each)
    after = resident(server.process.pid)
    change = (after - before) / before
    what = f"change of it by {each * len(options.checkpoints)} further audits"
    yield Row(what, "all", device, f"{change:+.1%} ({after:.0f} MB)", "≤ 5 %", change <= 0.05)


def _audits(visitor: Visitor, options: Options, wafer: int, each: int) -> None:
    """So many audits with every checkpoint, by clicks, of wafers from the n-th of their class on."""
    for turn, name in enumerate(options.checkpoints):
        visitor.open("spot_audit", checkpoint=name, explainer="grad-cam", fill=FILLS[turn % len(FILLS)], image=START)
        shown = visitor.numbers()
        for number in range(each):
            if number % len(CLASSES) == 0:
                shown = _number(visitor, wafer + number // len(CLASSES), shown)
            visitor.pick("spot.class", CLASSES[number % len(CLASSES)])
            shown = visitor.numbers(unlike=shown)


def _number(visitor: Visitor, number: int, shown: dict[str, str]) -> dict[str, str]:
    """Choose the n-th wafer of the class; returns the numbers of its audit."""
    box = visitor.at("spot.number").locator("input")
    box.fill(str(number))
    box.press("Enter")
    return visitor.numbers(unlike=shown)


def resident(pid: int) -> float:
    """VmRSS of a process in MB (2^20 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
