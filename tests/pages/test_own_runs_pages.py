"""I2X and Side by side on a run of one's own: chosen by name, refused in one sentence where something is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from audit_core.cli import main
from pages.ui import resources

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "models" / "runs" / "digits-resnet"
FEW = ("--per-class", "8", "--set", "prototypes=6", "--set", "components=8", "--device", "cpu")
KINDS = ("markdown", "caption", "info", "warning", "error")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    run = shutil.copytree(RUN, home / "runs" / "short", ignore=shutil.ignore_patterns("step00001*", "step0000[2-9]*"))
    assert main(["i2x", "explain", str(run), "--out", str(home / "analyses" / "mine"), *FEW]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(home / "store"))
        st.cache_resource.clear()
        st.cache_data.clear()
        yield home
        st.cache_resource.clear()
        st.cache_data.clear()


def visit(page: str, **link: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name] = value
    return settled(at.switch_page(page).run())


def settled(at: AppTest) -> AppTest:
    """The page once its jobs have ended: a model that is still being built borrows the global generator."""
    for job in resources.jobs().of_owner(at.session_state["owner"]):
        resources.jobs().wait(job.job_id, 120)
    assert not at.exception
    return at


def word(at: AppTest, name: str) -> str:
    value = at.query_params[name]
    return value[0] if isinstance(value, list) else value


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


def test_side_by_side_of_a_run_that_was_ranked(home: Path) -> None:
    ranking = home / "analyses" / "mine" / "ranking"
    words = ["rank", str(home / "runs" / "short"), "--per-class", "1", "--steps", "3", "--fill", "zero"]
    words += ["--fill", "blur", "--explainer", "grad-cam", "--explainer", "input-intensity", "--explainer", "random"]
    assert main(["i2x", *words, "--out", str(ranking), "--device", "cpu"]) == 0
    at = visit("pages/side_by_side.py", run="mine")
    assert not at.error
    assert "Rank reversal of the checkpoint at step 690" in said(at)
