"""Side by side in a browser: choose a pair, scrub, share, go on to curation with the same words, read the effect."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

from audit_core.i2x import analysis, shelf

EFFECT = re.compile(r"were confused [\d.]+ times in \d+ test images")


def link_of(page: Any) -> dict[str, str]:
    return {name: found[0] for name, found in parse_qs(urlparse(page.url).query).items()}


def test_from_the_ranking_to_the_effect_of_a_curation(visitor: Any, arrive: Callable[..., Any]) -> None:
    steps = analysis.read(next(iter(shelf.analyses().values()))).trajectory.steps
    visitor.open("side_by_side")
    visitor.says(f"Rank reversal of the checkpoint at step {steps[-1]}")
    visitor.at("side.bump").locator(".main-svg").first.wait_for()
    visitor.pick("side.a", "3")
    visitor.pick("side.b", "8")
    visitor.says("How classes 3 (solid) and 8 (dashed) were learned")
    visitor.at("side.step").get_by_role("slider").focus()
    for back in range(1, 4):
        visitor.page.keyboard.press("ArrowLeft")
        visitor.says(f"Rank reversal of the checkpoint at step {steps[-1 - back]}")
    visitor.pick("side.explainer", "LayerCAM")
    visitor.says(re.compile(r"LayerCAM (ends at|keeps) rank"))
    visitor.until("the link", lambda: link_of(visitor.page).get("explainer") == "layer-cam")
    shared = link_of(visitor.page)
    assert (shared["a"], shared["b"], shared["step"]) == ("3", "8", str(steps[-4]))

    second = arrive()
    second.open("side_by_side", **shared)
    second.says(f"Rank reversal of the checkpoint at step {steps[-4]}")
    second.says(re.compile(r"LayerCAM (ends at|keeps) rank"))
    second.fine()

    visitor.page.get_by_role("button", name="curate and fine-tune").click()
    visitor.page.get_by_role("heading", name="I2X", level=1).wait_for()
    same = {"a": "3", "b": "8", "to": str(steps[-4])}
    visitor.until("the same words", lambda: same.items() <= link_of(visitor.page).items())
    visitor.pick("i2x.repeats", "1")
    visitor.page.get_by_role("button", name="Fine-tune and measure").click()
    visitor.says("Finished.")
    assert visitor.says(EFFECT)
    visitor.fine()
