"""Every page through app.py, in process: no exceptions, sentences for bad links, literal text of strangers."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from helpers import make_record
from PIL import Image
from streamlit.testing.v1 import AppTest

from audit_core.data import Folder
from audit_core.examples import examples
from audit_core.explainers import EXPLAINERS
from audit_core.export import card_png
from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.metrics import METRICS
from audit_core.types import Triple
from models import zoo
from pages.ui import shell, wording

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
DEFAULT = {"checkpoint": "wafer-vit-tiny", "explainer": "rollout", "fill": "zero", "image": "synthetic:sample:3"}
HOSTILE = "<img src=x onerror=alert(1)>**b**![p](http://example.invalid/p.png)"


@pytest.fixture(scope="module", autouse=True)
def _scratch_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(tmp_path_factory.mktemp("store")))
        st.cache_resource.clear()
        yield
        st.cache_resource.clear()


def visit(page: str, **link: str) -> AppTest:
    """A new session that opens ``page`` with the words of ``link`` in its address."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name] = value
    return at.switch_page(f"pages/{page}.py").run()


def spot(**words: str) -> AppTest:
    """The spot audit with a link that differs from the shipped example in ``words``."""
    return visit("spot_audit", **{**DEFAULT, **words})


def words_of(at: AppTest) -> dict[str, str]:
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def until_finished(at: AppTest) -> AppTest:
    """Rerun until the numbers are there; timers do not fire in these tests."""
    end = time.monotonic() + 120
    while not at.metric and time.monotonic() < end:
        assert not at.exception
        assert not at.error, at.error[0].value
        time.sleep(0.2)
        at.run()
    return at


def unescaped(text: str) -> str:
    """What Markdown shows of a text that :func:`wording.plain` wrote."""
    return re.sub(r"\\([\W_])", r"\1", text)


def numbers(at: AppTest) -> dict[str, str]:
    return {metric.label: unescaped(metric.value) for metric in at.metric}


def everything(at: AppTest) -> list[str]:
    """All texts that the browser would read as Markdown."""
    kinds = ("markdown", "caption", "info", "warning", "error", "success")
    texts = [element.value for kind in kinds for element in getattr(at, kind)]
    texts += [part for metric in at.metric for part in (metric.label, metric.value)]
    return texts + [image.caption for images in at.get("imgs") for image in images.proto.imgs]


def png(side: int = 40, seed: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_every_page_file_is_in_the_navigation() -> None:
    assert sorted(shell.TITLES) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_each_page_opens_twice(page: str) -> None:
    at = visit(page)
    assert not at.exception
    assert at.title, "the page shows no title"
    again = at.switch_page("pages/home.py").run().switch_page(f"pages/{page}.py").run()
    assert not again.exception
    assert [title.value for title in again.title] == [title.value for title in at.title]
    assert not again.error


def test_home_paints_first_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file('app.py', default_timeout=120).run()\n"
        "assert not at.exception and at.title[0].value.startswith('Is your model')\n"
        "assert [s.value for s in at.subheader] == ['A finished audit']\n"
        "print(sorted({'torch', 'timm', 'torchvision', 'matplotlib'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "TRIPLECHECK_STORE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


def test_the_shipped_example_opens_by_its_link_without_computing() -> None:
    record = next(iter(examples().values()))
    triple = record.spec.triple
    shown = numbers(spot(checkpoint=triple.checkpoint, explainer=triple.explainer.name, fill=triple.fill.name))
    assert shown["Deletion AUC ↓"] == f"{record.deletion_auc:.3f}"
    assert shown["Insertion AUC ↑"] == f"{record.insertion_auc:.3f}"
    assert shown["Predicted"] == record.classes[record.predicted]
    assert shown["Cost"] == f"{record.forwards} forwards"


def test_a_refused_cell_stays_visible_with_its_reason() -> None:
    at = spot(checkpoint="wafer-resnet18-cbam")
    card = zoo.card("wafer-resnet18-cbam")
    reason = EXPLAINERS.build(Choice("rollout")).refuse(card)
    assert reason is not None
    assert not at.exception
    assert "Refused" in at.info[0].value
    assert reason in unescaped(at.info[0].value)
    assert words_of(at) == {**DEFAULT, "checkpoint": "wafer-resnet18-cbam"}
    assert at.selectbox(key="spot.explainer").value == "rollout"
    assert any("Grad-CAM" in caption.value and "What would work" in caption.value for caption in at.caption)
    at.selectbox(key="spot.explainer").set_value("grad-cam").run()
    assert not at.exception
    assert not any("Refused" in info.value for info in at.info)


BAD_WORDS = (
    {
        "steps": ("abc", "steps must be a whole number in [1, 200], got 'abc'"),
        "controls": ("-1", "controls must be a whole number"),
        "seed": ("1e9", "seed must be a whole number"),
        "patch": ("0", "patch must be a whole number"),
        "fill": ("nonsense", "no fill named 'nonsense'"),
        "checkpoint": ("../../etc/passwd", "no checkpoint named"),
        "image": ("folder(path=/etc):all:0", "cannot be opened by link"),
        "direction": ("up", "direction must be most or least"),
        "quantity": ("odds", "quantity must be probability or logit"),
        "precision": ("fp8", "precision must be fp32 or bf16"),
        "target": ("Nope", "no class 'Nope'"),
        "explainer": ("<b>x</b>", "expected name or name:key=value"),
    },
    {  # str.isdigit takes a superscript, int does not; and int takes no more than 4300 digits
        "steps": ("²", "steps must be a whole number"),
        "seed": ("9" * 5000, "seed must be a whole number"),
        "patch": ("nan", "patch must be a whole number"),
        "controls": ("", "controls must be a whole number"),
        "fill": ("blur:sigma=nan", "sigma must be a number"),
        "explainer": ("rise:p=NaN", "p must be a number"),
        "checkpoint": ("custom:gone", "custom:gone is not in the store"),
        "image": ("/etc/passwd", "cannot be opened by link"),
        "target": ("²", "no class '²'"),
    },
    {
        "fill": ("blur:sigma=1e999", "sigma must be a number"),
        "explainer": ("rollout:evil=1", "has no parameter 'evil'"),
        "image": ("synthetic:sample:-1", "numbered 0 to 89"),
        "steps": ("201", "steps must be a whole number"),
    },
    {
        "image": ("synthetic:sample:²", "cannot read the image reference"),
        "explainer": ("rise:n_masks=inf", "n_masks must be a whole number"),
    },
)


@pytest.mark.parametrize("bad", BAD_WORDS, ids=("words", "numbers", "parameters", "references"))
def test_each_bad_word_of_a_link_gives_a_sentence_and_the_default(bad: dict[str, tuple[str, str]]) -> None:
    at = spot(**{name: value for name, (value, _) in bad.items()})
    assert not at.exception
    said = [unescaped(warning.value) for warning in at.warning]
    for _, says in bad.values():
        assert sum(says in sentence for sentence in said) == 1, (says, said)
    assert len(said) == len(bad)
    assert words_of(at) == DEFAULT
    assert not at.error
    assert len(at.run().warning) == len(bad), "the sentences stay until something is changed"


def test_the_sentence_about_a_bad_link_goes_when_something_is_chosen() -> None:
    at = spot(steps="abc")
    at.selectbox(key="spot.fill").set_value("blur").run()
    assert not at.warning
    assert words_of(at)["fill"] == "blur"


def test_an_upload_that_is_gone_is_said() -> None:
    at = spot(image="upload:" + "0" * 64)
    assert not at.exception
    assert "no longer in the store" in unescaped(at.error[0].value)


def test_an_audit_runs_and_its_link_shows_the_same_numbers_in_another_session() -> None:
    at = until_finished(spot(explainer="random", steps="4", controls="2"))
    assert not at.exception
    shown = numbers(at)
    assert re.fullmatch(r"0\.\d{3}|\d\.\d\de-\d\d", shown["Deletion AUC ↓"])
    other = visit("spot_audit", **words_of(at))
    assert numbers(other) == shown, "found in the store, before any job"


def test_a_contrast_scores_logit_differences_and_stands_in_the_link() -> None:
    at = spot(explainer="random", steps="2", controls="2")
    at.selectbox(key="spot.against").set_value("Scratch").run()
    at = until_finished(at)
    assert not at.exception
    assert words_of(at)["against"] == "Scratch"
    assert any("Logit differences to Scratch" in caption.value for caption in at.caption)
    refused = spot(explainer="random", target="Scratch", against="Scratch", steps="2", controls="2")
    assert "choose another class" in " ".join(until_told(refused))


def until_told(at: AppTest) -> list[str]:
    """Rerun until an error is shown."""
    end = time.monotonic() + 60
    while not at.error and time.monotonic() < end:
        time.sleep(0.2)
        at.run()
    return [unescaped(error.value) for error in at.error]


def test_a_map_from_a_file_is_audited_and_a_bad_one_gets_a_sentence() -> None:
    at = spot(explainer="outside", steps="2", controls="2")
    assert "once a .npy or .npz file is given" in unescaped(at.info[0].value)
    at.file_uploader(key="spot.map").upload("mine.npy", b"no array").run()
    assert "mine.npy is no .npy or .npz file" in unescaped(at.error[0].value)
    out = io.BytesIO()
    np.save(out, np.random.default_rng(0).random((64, 64)).astype(np.float32))
    at.file_uploader(key="spot.map").upload("mine.npy", out.getvalue()).run()
    at = until_finished(at)
    assert not at.exception
    assert re.search("outside:map=[0-9a-f]{64}", words_of(at)["explainer"])
    other = visit("spot_audit", **words_of(at))
    assert numbers(other) == numbers(at), "the link opens it by its content hash"


def test_methods_are_searched_by_word() -> None:
    at = visit("methods")
    assert len(at.expander) == len(EXPLAINERS)
    at.text_input(key="methods.search").set_value("petsiuk 2018").run()
    assert 0 < len(at.expander) < len(EXPLAINERS)
    assert all("RISE" in one.label or "Petsiuk" in str(one) for one in at.expander)
    at.text_input(key="methods.search").set_value("no such word").run()
    assert not at.expander
    assert "Clear the search" in at.info[0].value
    at.text_input(key="methods.search").set_value("").run()
    for kind, registry in (("Fills", FILLS), ("Metrics", METRICS)):
        at.segmented_control(key="methods.kind").set_value(kind).run()
        assert len(at.expander) == len(registry)


def test_uploads_belong_to_their_session_and_open_by_link() -> None:
    first = spot(image="upload:" + "0" * 64, explainer="random", steps="2", controls="2")
    first.file_uploader(key="spot.file").upload("mine.png", png()).run()
    assert not first.exception
    assert "mine.png" in first.selectbox(key="spot.upload").options
    link = words_of(first)
    assert re.fullmatch("upload:[0-9a-f]{64}", link["image"])
    stranger = spot(image="upload:" + "1" * 64)
    assert "mine.png" not in stranger.selectbox(key="spot.upload").options
    invited = until_finished(visit("spot_audit", **link))
    assert invited.selectbox(key="spot.upload").options == ["Image of the opened link"]
    assert numbers(invited) == numbers(until_finished(first))


def test_text_of_a_strangers_card_is_shown_literally() -> None:
    classes = [f"{HOSTILE}{place}" for place in range(9)]
    record = make_record(classes=classes, health=(HOSTILE,), checkpoint="wafer-vit-tiny")
    triple = Triple(HOSTILE, record.spec.triple.explainer, Choice("unknown", (("x", HOSTILE),)))
    record = dataclasses.replace(
        record,
        badge=HOSTILE,
        badge_sentence=HOSTILE,
        spec=dataclasses.replace(record.spec, triple=triple, image=HOSTILE),
        provenance={"device": HOSTILE, "versions": HOSTILE, "command": HOSTILE},
    )
    at = spot(image="upload:" + "0" * 64)
    at.file_uploader(key="spot.file").upload("card.png", card_png(record)).run()
    assert not at.exception
    assert "Opened from a file" in at.info[0].value
    shown = everything(at)
    assert sum(wording.plain(HOSTILE) in text for text in shown) >= 5
    alive = re.compile(r"(?<!\\)(<img|\*\*b\*\*|!\[p\])")
    assert not [text for text in shown if alive.search(text)]
    at.button(key="spot.verify").click().run()
    end = time.monotonic() + 60
    while not at.error and time.monotonic() < end:
        time.sleep(0.1)
        at.run()
    assert "no fill named 'unknown'" in unescaped(at.error[0].value)
    assert not at.exception
    at.button(key="spot.close").click().run()
    assert not any("Opened from a file" in info.value for info in at.info)


def test_a_card_cannot_make_the_server_open_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    touched: list[str] = []
    for name in ("open", "stamp"):
        monkeypatch.setattr(Folder, name, lambda self, *args, name=name: touched.append(name))
    record = make_record(size=64, image=f"folder(path={tmp_path}):all:0", fill="dataset-mean")
    at = spot(image="upload:" + "0" * 64)
    at.file_uploader(key="spot.file").upload("card.png", card_png(record)).run()
    assert not at.exception
    assert "Opened from a file" in at.info[0].value
    assert at.session_state["opened"].spec.image.startswith("upload:")
    assert touched == []


@pytest.mark.parametrize(
    "link",
    [
        {"triple": "nonsense"},
        {"triple": "bogus|rollout|zero"},
        {"triple": "custom:gone|rollout|zero"},
        {"triple": "wafer-vit-tiny|rise:p=nan|zero"},
        {"triple": "wafer-resnet18-cbam|rollout|zero"},
        {"steps": "abc", "image": "folder(path=/etc):all:0"},
        {"image": "upload:" + "0" * 64},
    ],
    ids=("words", "checkpoint", "custom", "nan", "refused", "settings", "upload"),
)
def test_a_bad_comparison_link_gives_a_sentence(link: dict[str, str]) -> None:
    at = visit("compare", **link)
    assert not at.exception
    said = [element.value for kind in ("warning", "error", "info") for element in getattr(at, kind)]
    assert said
    assert not any("/etc" in value for value in words_of(at).values())


@pytest.mark.parametrize("slot", ["²", "9" * 5000, "-1"], ids=("superscript", "endless", "negative"))
def test_a_bad_place_in_a_comparison_link_is_no_loss(slot: str) -> None:
    at = visit("compare", triple=f"wafer-vit-tiny|rollout|zero|{slot}")
    assert not at.exception
    assert words_of(at)["triple"] == "wafer-vit-tiny|rollout|zero|0"
