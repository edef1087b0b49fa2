"""I2X and Side by side on a run of one's own: chosen by name, refused in one sentence where something is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from visiting import living_in, word
from visiting import visit as open_page

from audit_core.cli import main
from audit_core.i2x import shelf
from audit_core.i2x.making import analyse
from audit_core.i2x.runs import open_run
from audit_core.i2x.sample import open_sample
from audit_core.i2x.settings import Settings
from pages.ui import i2x_strip, resources, wording

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "models" / "runs" / "digits-resnet"
FEW = ("--per-class", "8", "--set", "prototypes=6", "--set", "components=8", "--device", "cpu")
KINDS = ("markdown", "caption", "info", "warning", "error")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    run = shutil.copytree(RUN, home / "runs" / "short", ignore=shutil.ignore_patterns("step00001*", "step0000[2-9]*"))
    assert main(["i2x", "explain", str(run), "--out", str(home / "analyses" / "mine"), *FEW]) == 0
    with living_in(home):
        yield home


def visit(page: str, **link: str) -> AppTest:
    return settled(open_page(page, **link))


def settled(at: AppTest) -> AppTest:
    """The page once its jobs have ended: a model that is still being built borrows the global generator."""
    for job in resources.jobs().of_owner(at.session_state["owner"]):
        resources.jobs().wait(job.job_id, 120)
    assert not at.exception
    return at


def said(at: AppTest) -> str:
    return re.sub(r"\\([\W_])", r"\1", "\n".join(one.value for kind in KINDS for one in getattr(at, kind)))


def test_the_run_is_chosen_by_name_and_goes_into_the_link() -> None:
    at = visit("pages/i2x.py")
    chooser = at.selectbox(key="i2x.run")
    assert (chooser.value, chooser.options) == ("digits-resnet", ["digits-resnet", "mine"])
    at = settled(chooser.select("mine").run())
    assert word(at, "run") == "mine"
    assert at.select_slider(key="i2x.at").options[0].startswith("step 0 → ")
    assert len(at.selectbox(key="i2x.remove").options) == 6
    again = visit("pages/i2x.py", run="mine")
    assert word(again, "image").startswith("digits:train:")
    [told] = again.warning
    assert re.match(r"step000016\.safetensors, .* are left out: the file is missing$", told.value.replace("\\", ""))


def test_fine_tuning_opens_the_few_images_of_the_analysis(home: Path) -> None:
    at = visit("pages/i2x.py", run="mine", repeats="1")
    at = settled(at.button(key="i2x.finetune").click().run())
    jobs = resources.jobs().of_owner(at.session_state["owner"])
    [ended] = [one for one in jobs if one.job_id.startswith("i2x-finetune:")]
    assert (ended.state, ended.error) == ("done", None)
    assert sum(ended.result.images) == 80


def test_a_run_that_is_gone_stops_what_needs_it_and_nothing_else(home: Path) -> None:
    shutil.copytree(home / "analyses" / "mine", home / "analyses" / "orphan")
    raw = (home / "analyses" / "orphan" / "analysis.json").read_text()
    (home / "analyses" / "orphan" / "analysis.json").write_text(raw.replace("../../runs/short", "../../runs/gone"))
    try:
        at = visit("pages/i2x.py", run="orphan")
        at = settled(at.number_input(key="i2x.image").set_value(2).run())
        assert "No heatmaps: the training run of short is not where it was" in said(at)
        assert "What pulls" in "\n".join(one.value for one in at.subheader)
        at = settled(at.button(key="i2x.finetune").click().run())
        assert any("is not where it was" in one.value for one in at.error)
    finally:
        shutil.rmtree(home / "analyses" / "orphan")


def test_side_by_side_says_how_to_rank_and_does_not_open_the_rest() -> None:
    at = visit("pages/side_by_side.py", run="mine")
    [refusal] = at.error
    command = "python -m audit_core i2x rank RUN --out .triplecheck/analyses/mine/ranking"
    assert command in refusal.value.replace("\\", "")
    at = settled(at.selectbox(key="side.run").select("digits-resnet").run())
    assert not at.error
    assert word(at, "run") == "digits-resnet"


def test_a_comparison_of_another_analysis_is_not_shown(home: Path) -> None:
    shipped = json.loads((shelf.SHIPPED / "digits-resnet" / "comparison.json").read_text())
    (home / "i2x").mkdir(exist_ok=True)
    (home / "i2x" / f"{shipped['identity']}.json").write_text(json.dumps(shipped))
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    at.session_state["i2x.compared"] = shipped["identity"]
    at.query_params["run"] = "mine"
    at.query_params["rate"] = "0.0001"  # nobody asked this
    at = settled(at.switch_page("pages/i2x.py").run())
    assert not [one for one in at.info if "earlier comparison" in one.value]
    assert not [one for one in at.selectbox if one.key == "i2x.strategy"]


def test_classes_without_images_are_not_offered(home: Path) -> None:
    run = open_run(home / "runs" / "short")
    sample = open_sample("digits", "test", run.final().card, per_class=6)
    few = sample.part(np.isin(sample.labels, (2, 7)))
    analyse(run, few, Settings(prototypes=5, components=6), home / "analyses" / "two", "digits:test", 6)
    try:
        at = visit("pages/i2x.py", run="two", a="3", b="7")
        assert at.selectbox(key="i2x.a").options == at.selectbox(key="i2x.class").options == ["2", "7"]
        assert any("no pair of classes '3' and '7'" in one.value.replace("\\", "") for one in at.warning)
        assert (word(at, "a"), word(at, "b")) == ("2", "7")
    finally:
        shutil.rmtree(home / "analyses" / "two")


def test_a_failed_strip_can_be_begun_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the disk under /srv/secret/data went away")

    with monkeypatch.context() as patch:
        patch.setattr(i2x_strip.strip, "follow", broken)
        at = visit("pages/i2x.py", run="mine")
        at = settled(at.number_input(key="i2x.image").set_value(5).run())
        at = settled(at.run())
        assert any("went away" in one.value.replace("\\", "") for one in at.error)
        assert not any("secret" in one.value for one in at.error)
    at = settled(at.button(key="i2x.look").click().run())
    at = settled(at.run())
    assert not at.error
    assert not [one for one in at.button if one.key == "i2x.look"]


def test_side_by_side_of_a_run_that_was_ranked(home: Path) -> None:
    ranking = home / "analyses" / "mine" / "ranking"
    shorter = shutil.copytree(home / "runs" / "short", home / "runs" / "shorter")
    (shorter / "step000690.safetensors").unlink()
    words = ["rank", str(shorter), "--per-class", "1", "--steps", "3", "--fill", "zero"]
    words += ["--fill", "blur", "--explainer", "grad-cam", "--explainer", "input-intensity", "--explainer", "random"]
    assert main(["i2x", *words, "--out", str(ranking), "--device", "cpu"]) == 0
    at = visit("pages/side_by_side.py", run="mine")
    assert not at.error
    assert "step 690 was not ranked" in said(at)
    at = settled(at.select_slider(key="side.step").set_value("490").run())
    assert "was not ranked" not in said(at)
    assert "Rank reversal of the checkpoint at step 490" in said(at)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("mnist: '/srv/a/b' is no folder; give one", "mnist: '…/b' is no folder; give one"),
        ("[Errno 13] Permission denied: '/abs/x/.triplecheck/i2x'", "[Errno 13] Permission denied: '…/i2x'"),
        ("there is no idx file in /home/alice/MNIST; put it there", "there is no idx file in …/MNIST; put it there"),
        ("see https://arxiv.org/abs/2603.10234, 3/4 of it, and/or step 5", None),
        ("run python -m audit_core i2x rank RUN --out .triplecheck/analyses/mine/ranking", None),
    ],
)
def test_sentences_for_visitors_name_no_folders_of_the_server(told: str, shown: str | None) -> None:
    assert wording.without_folders(told) == (told if shown is None else shown)
