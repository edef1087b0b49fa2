"""Journeys through the dashboard in a real browser, from a stranger's first link to a verified card."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from PIL import Image

from audit_core.examples import examples
from audit_core.export import read_record
from audit_core.record import AuditRecord
from pages.ui import shell, wording

VIT, CNN = "wafer-vit-tiny", "wafer-resnet18-cbam"
QUICK = {"checkpoint": CNN, "explainer": "random", "fill": "zero", "image": "synthetic:sample:3",
         "steps": "4", "controls": "2"}  # fmt: skip
WIDTHS = "[document.documentElement.scrollWidth, document.querySelector('[data-testid=stMain]').scrollWidth]"


def png(seed: int, side: int = 90) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side + 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def link_of(page: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def until_link(page: Any, **words: str) -> None:
    """Wait until the address holds these words."""
    page.wait_for_url(lambda url: words.items() <= {n: v[0] for n, v in parse_qs(urlparse(url).query).items()}.items())


def of_record(record: AuditRecord) -> dict[str, str]:
    """The metric card that belongs to a record."""
    return {
        "Deletion AUC ↓": wording.number(record.deletion_auc),
        "Insertion AUC ↑": wording.number(record.insertion_auc),
        "Predicted": record.classes[record.predicted],
        "Cost": f"{record.forwards} forwards",
    }


def test_the_first_request_of_a_fresh_server_may_be_a_deep_link(fresh_server: Any, arrive: Callable[..., Any]) -> None:
    record = next(record for record in examples().values() if record.spec.triple.checkpoint == CNN)
    triple = record.spec.triple
    visitor = arrive(fresh_server)
    visitor.open("spot_audit", checkpoint=CNN, explainer=triple.explainer.name, fill=triple.fill.name,
                 image=record.spec.image)  # fmt: skip
    visitor.see(of_record(record))
    titles = visitor.page.get_by_test_id("stTopNavLink").all_inner_texts()
    assert [title.strip() for title in titles] == list(shell.TITLES.values())
    assert visitor.page.get_by_role("heading", level=1).inner_text() == "Spot audit"
    assert visitor.page.get_by_role("dialog").count() == 0
    assert visitor.page.get_by_text("Page not found").count() == 0
    assert link_of(visitor.page)["checkpoint"] == CNN
    visitor.fine()


def test_home_shows_a_finished_audit_and_leads_on(visitor: Any) -> None:
    visitor.open()
    record = next(iter(examples().values()))
    visitor.says(re.compile(re.escape(f"AUC {wording.number(record.deletion_auc)}")))
    visitor.page.get_by_role("link", name="Audit one image").click()
    visitor.see(of_record(record))


LANDMARKS = {"": "How to read this", "spot_audit": "Take it along", "compare": "The curves in one chart",
             "checkpoints": "Add a custom checkpoint", "methods": "Grad-CAM++", "study": "Run and browse",
             "reversal": "Do the fills agree?", "i2x": "Curate and fine-tune"}  # fmt: skip


@pytest.mark.parametrize("path", ["compare", "checkpoints", "methods"])
def test_the_other_pages_open(visitor: Any, path: str) -> None:
    visitor.open(path)
    visitor.page.get_by_role("heading", name=path.capitalize(), level=1).wait_for()
    visitor.says(LANDMARKS[path])


def test_a_contrast_is_audited_and_its_map_checked(visitor: Any, arrive: Callable[..., Any]) -> None:
    visitor.open("spot_audit", **{**QUICK, "explainer": "grad-cam"})
    plain = visitor.numbers()
    visitor.pick("spot.against", "Scratch")
    until_link(visitor.page, against="Scratch")
    visitor.numbers(unlike=plain)
    visitor.says("Logit differences to Scratch at this step")
    visitor.page.get_by_role("button", name="Run all checks").click()
    visitor.says(re.compile("controls: (passed|failed)"))
    visitor.says(re.compile("parameters: (passed|failed|not known)"))
    visitor.says("The same map while the model forgets")
    other = arrive()
    other.page.goto(visitor.page.url)
    other.says(re.compile("controls: (passed|failed)"))
    other.fine()


def test_each_of_the_three_pickers_changes_the_audit(visitor: Any) -> None:
    visitor.open("spot_audit", **QUICK)
    seen = [visitor.numbers()]
    visitor.pick("spot.checkpoint", "ViT")
    until_link(visitor.page, checkpoint=VIT)
    seen.append(visitor.numbers(unlike=seen[-1]))
    visitor.pick("spot.explainer", "Centre prior")
    until_link(visitor.page, explainer="centre-prior")
    seen.append(visitor.numbers(unlike=seen[-1]))
    visitor.pick("spot.fill", "Mean of the image")
    until_link(visitor.page, fill="image-mean")
    seen.append(visitor.numbers(unlike=seen[-1]))
    assert len({tuple(one.items()) for one in seen}) == 4


def test_an_upload_is_audited_shared_downloaded_and_verified(visitor: Any, arrive: Callable[..., Any]) -> None:
    page = visitor.page
    visitor.open("spot_audit", **{**QUICK, "explainer": "grad-cam", "steps": "20"})
    visitor.numbers()
    page.get_by_text("Your image", exact=True).click()
    visitor.says("Nothing uploaded yet")
    visitor.upload("spot.file", "mine.png", png(1))
    visitor.says("mine.png")
    until_link(page, checkpoint=CNN, explainer="grad-cam")
    page.wait_for_url(re.compile("image=upload"))
    shown = visitor.numbers()
    with_step = re.compile(r"Deletion, step \d+: what the model saw")
    before = visitor.says(with_step).inner_text()
    step = int(re.findall(r"\d+", before)[0])
    slider = visitor.at("spot.step.20").locator('input[type="range"], [role="slider"]').first
    slider.focus()
    page.keyboard.press("ArrowRight")
    visitor.says(f"Deletion, step {step + 1}: what the model saw")

    guest = arrive()
    guest.page.goto(page.url)
    guest.see(shown)
    assert guest.options("spot.upload") == ["Image of the opened link"]
    guest.fine()

    record = read_record(visitor.download("Record (JSON)"))
    assert of_record(record) == shown
    assert record.spec.image == link_of(page)["image"]
    card = visitor.download("Card (PNG)")
    assert read_record(card).dumps() == record.dumps()
    assert Image.open(io.BytesIO(card)).width > 400

    stranger = arrive()
    stranger.open("spot_audit", image=link_of(page)["image"], **{k: v for k, v in QUICK.items() if k != "image"})
    stranger.numbers()
    stranger.upload("spot.file", "card.png", card)
    stranger.says("Opened from a file")
    stranger.see(shown)
    stranger.page.get_by_role("button", name="Recompute and compare").click()
    stranger.says(re.compile("Verified: recomputed here"))
    stranger.fine()


def test_a_running_audit_shows_progress_and_can_be_cancelled(visitor: Any) -> None:
    visitor.open("spot_audit", **{**QUICK, "checkpoint": VIT, "explainer": "rise:n_masks=100000,settle=1.0"})
    visitor.says(re.compile(r"of at most 100000 masks"))
    visitor.page.get_by_role("button", name="Cancel").click()
    visitor.says("Cancelled. What was computed until then stands below")
    visitor.page.get_by_role("button", name="Run audit").wait_for()
    visitor.pick("spot.explainer", "Random order")
    until_link(visitor.page, explainer="random")
    visitor.numbers()


def test_two_sessions_do_not_see_each_others_uploads_but_a_link_opens_one(arrive: Callable[..., Any]) -> None:
    people = {"anna": arrive(), "ben": arrive()}
    for number, (name, person) in enumerate(people.items()):
        person.open("spot_audit", **QUICK)
        person.page.get_by_text("Your image", exact=True).click()
        person.says("Nothing uploaded yet")
        person.upload("spot.file", f"{name}.png", png(10 + number))
        person.page.wait_for_url(re.compile("image=upload"))
    for name, person in people.items():
        assert person.options("spot.upload") == [f"{name}.png"]
    shown = people["anna"].numbers()
    people["ben"].numbers()
    people["ben"].page.goto(people["anna"].page.url)
    people["ben"].see(shown)
    assert people["ben"].options("spot.upload") == ["Image of the opened link"]
    for person in people.values():
        person.fine()


def test_a_file_name_is_shown_literally(visitor: Any) -> None:
    name = "<img src=x onerror=alert(1)>**b**.png"
    visitor.open("spot_audit", **QUICK)
    visitor.page.get_by_text("Your image", exact=True).click()
    visitor.says("Nothing uploaded yet")
    visitor.upload("spot.file", name, png(20))
    visitor.page.wait_for_url(re.compile("image=upload"))
    visitor.numbers()
    assert visitor.options("spot.upload") == [name]
    visitor.upload("spot.file", name, b"no picture")
    visitor.says(re.compile(re.escape(f"{name} is no known image")))
    assert visitor.page.locator('img[src="x"]').count() == 0
    assert visitor.page.locator("strong", has_text=re.compile("^b$")).count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_every_page_without_scrolling_sideways(arrive: Callable[..., Any], scheme: str) -> None:
    someone = arrive(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    record = next(iter(examples().values()))
    for path, landmark in LANDMARKS.items():
        someone.open(path)
        if path == "spot_audit":
            someone.see(of_record(record))
        someone.says(landmark)
        assert max(someone.page.evaluate(WIDTHS)) <= 390, path
        corner = Image.open(io.BytesIO(someone.page.screenshot())).convert("L").getpixel((5, 500))
        assert (corner < 80) == (scheme == "dark"), path
    someone.fine()


def test_a_ranking_is_seen_to_turn_over_and_taken_along(visitor: Any) -> None:
    """Rank reversal opens on the shipped study; another metric gives another sentence; the address keeps it."""
    visitor.open("reversal")
    visitor.says("Two contenders, fill by fill")
    first = visitor.page.locator("main").inner_text()
    visitor.pick("reversal.metric", "SRG")
    visitor.until("another ranking", lambda: "metric=srg" in visitor.page.url)
    visitor.settle()
    visitor.until("another text", lambda: visitor.page.locator("main").inner_text() != first)
    visitor.fine()
    visitor.open("study")
    visitor.says("Run and browse")
    report = visitor.download("Report").decode()
    assert "<script src" not in report
    assert "ViT-Tiny" in report
    visitor.fine()


def test_the_story_is_walked_with_the_arrow_keys(visitor: Any) -> None:
    visitor.open("story")
    visitor.says("1 of 5")
    visitor.page.wait_for_timeout(1500)  # a person looks first; the keys listen by then
    for step in range(2, 6):
        visitor.settle()
        visitor.page.keyboard.press("ArrowRight")
        visitor.says(f"{step} of 5")
    visitor.page.keyboard.press("ArrowLeft")
    visitor.says("4 of 5")
    assert visitor.page.get_by_text("5 of 5").count() == 0
    visitor.fine()
