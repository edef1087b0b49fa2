"""I2X in a browser: choose a pair, scrub, curate, fine-tune, read the numbers, and hand the link on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

from audit_core.i2x import analysis, shelf
from audit_core.i2x.choices import opening_transition

SENTENCE = re.compile(r"Not known whether it helped: (\S+) and (\S+) were confused [\d.]+ times in \d+ test images")
PLAY = "document.querySelector('.st-key-i2x-graph .gtitle')?.textContent"


def link_of(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.url).query)


def test_a_pair_is_chosen_scrubbed_and_fine_tuned_and_the_link_shows_the_same(
    visitor: Any, arrive: Callable[..., Any]
) -> None:
    made = analysis.read(next(iter(shelf.analyses().values())))
    steps, t = made.trajectory.steps, opening_transition(made.transitions)
    visitor.open("i2x")
    visitor.page.get_by_role("heading", name="I2X", level=1).wait_for()
    visitor.says("Finished.")  # the example that ships
    visitor.page.locator(".st-key-i2x-tiles img").nth(len(steps) - 1).wait_for()

    visitor.pick("i2x.a", made.classes[1])
    visitor.pick("i2x.b", made.classes[8])
    visitor.says(f"What pulls {made.classes[1]} and {made.classes[8]} apart")
    visitor.until("the pair in the link", lambda: link_of(visitor.page).get("b") == [made.classes[8]])

    visitor.at("i2x.at").get_by_role("slider").focus()
    visitor.page.keyboard.press("ArrowRight")
    visitor.until("the next transition", lambda: link_of(visitor.page).get("to") == [str(steps[t + 2])])
    shown = f"step {steps[t + 1]} → {steps[t + 2]}"
    visitor.until("the graph", lambda: shown in (visitor.page.evaluate(PLAY) or ""))
    visitor.at("i2x.graph").get_by_text("Play all transitions").click()
    visitor.until("another frame", lambda: shown not in (visitor.page.evaluate(PLAY) or ""))

    visitor.pick("i2x.repeats", "1")
    visitor.page.get_by_role("button", name="Fine-tune and measure").click()
    told = visitor.says(SENTENCE).inner_text()
    assert "one repeat has no interval" in told
    assert SENTENCE.search(told).groups() == (made.classes[1], made.classes[8])
    visitor.says("Finished.")
    assert visitor.page.get_by_role("button", name="Fine-tune and measure").count() == 0

    second = arrive()
    second.open("i2x", **{name: found[0] for name, found in link_of(visitor.page).items() if name != "prototype"})
    second.says("Finished.")
    assert second.says(SENTENCE).inner_text() == told
    second.until("the graph", lambda: shown in (second.page.evaluate(PLAY) or ""))
    second.fine()
