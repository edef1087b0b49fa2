"""The story through app.py: five steps, each with the numbers of its record or study, honest where nothing is sure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from study_results import checkpoint_of, write_results

from audit_core.examples import examples
from audit_core.statistics import Estimate
from audit_core.study.judgement import Criterion, Judgement
from audit_core.study.ranking import PairReversal
from audit_core.types import Effect
from audit_core.verdict import verdict
from pages.ui import story_map, story_words

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = {
    "ViT · rollout": "own",
    "ViT · random": "control",
    "CNN · grad-cam": "own",
    "CNN · random": "control",
}
FILLS = ("zero", "blur:sigma=3")
CRITERIA = {"metric": "srg", "beats": ["random"], "sanity_below": 1.0, "stability_above": -1.0}


def turning(contender: str, fill: str, metric: str) -> float:
    """ViT is better under zero, CNN under blur; both beat random."""
    lead = 0.1 if contender.endswith("random") else 0.4 if (fill == "zero") == contender.startswith("ViT") else 0.25
    return {"srg": lead, "deletion": 0.6 - lead}[metric]


def standing(contender: str, fill: str, metric: str) -> float:
    """ViT is better throughout; CNN is no better than random."""
    lead = 0.4 if contender == "ViT · rollout" else 0.1
    return {"srg": lead, "deletion": 0.6 - lead}[metric]


@pytest.fixture(scope="module", autouse=True)
def _shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store beside a shelf with two planted studies."""
    root = tmp_path_factory.mktemp("workplace")
    for name, planted in (("turning", turning), ("standing", standing)):
        folder = root / "studies" / name
        write_results(
            folder, CONTENDERS, FILLS, 40, 1, ("srg", "deletion"), np.random.default_rng(0), means=planted, spread=0.02
        )
        manifest = {
            "title": f"{name} *study*",
            "criteria": CRITERIA,
            "tasks": [],
            "checkpoints": [{"name": checkpoint_of(family, 0), "family": family} for family in ("ViT", "CNN")],
            "contenders": [
                {"contender": c, "family": c.split(" · ")[0], "badge": "native", "title": c.split(" · ")[1].upper()}
                for c in CONTENDERS
            ],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(root / "store"))
        st.cache_resource.clear()
        st.cache_data.clear()
        yield
        st.cache_resource.clear()
        st.cache_data.clear()


def visit(**link: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=180).run()
    for name, value in link.items():
        at.query_params[name] = value
    at.switch_page("pages/story.py").run()
    assert not at.exception
    return at


def sentence(at: AppTest) -> str:
    assert len(at.title) == 1
    return at.title[0].value.replace("\\", "")


def said(at: AppTest) -> str:
    return " ".join(one.value for one in (*at.markdown, *at.caption)).replace("\\", "")


def step_of(at: AppTest) -> str:
    found = at.query_params["step"]
    return found[0] if isinstance(found, list) else found


def test_the_records_differ_in_their_fill_alone() -> None:
    pair = story_map.pair()
    assert pair is not None
    first, second = pair
    assert first.spec.triple.fill != second.spec.triple.fill
    assert np.array_equal(first.values, second.values)
    assert np.array_equal(first.pixels, second.pixels)


def test_first_step_shows_the_answer_and_the_map() -> None:
    record = next(iter(examples().values()))
    at = visit()
    assert f"“{record.classes[record.predicted]}”" in sentence(at)
    assert f"{100 * float(record.probabilities[record.predicted]):.1f} %" in said(at)
    assert len(at.get("plotly_chart")) == 1


def test_second_step_compares_areas_with_random_order() -> None:
    record = next(iter(examples().values()))
    own = np.trapezoid(record.deletion.score, record.deletion.fraction)
    random = np.mean([np.trapezoid(one, record.deletion.fraction) for one in record.controls.deletion])
    at = visit(step="2")
    assert "sooner than with random pixels" in sentence(at)
    assert f":blue[{100 * own:.0f} %]" in said(at)
    assert f":gray[{100 * random:.0f} %]" in said(at)


def test_third_step_changes_the_fill_and_nothing_else() -> None:
    pair = story_map.pair()
    assert pair is not None
    at = visit(step="3")
    words = [verdict(record).word for record in pair]
    assert words == ["qualified", "supported"]  # else the test below says nothing
    assert "from “qualified” to “supported”" in sentence(at)
    assert "No better than random**: +0 [−3, +4]" in said(at)
    assert "Better than random**: +40 [+38, +42]" in said(at)
    assert "become black" in said(at)
    assert "become a blurred copy" in said(at)


def test_fourth_step_names_the_planted_reversal() -> None:
    at = visit(step="4", study="turning")
    found = sentence(at)
    assert "Whose map is better?" in found
    assert "With black it is ViT’s ROLLOUT, with a blurred copy it is CNN’s GRAD-CAM." in found or (
        "With a blurred copy it is CNN’s GRAD-CAM, with black it is ViT’s ROLLOUT." in found
    )
    assert "100 % of 2,000 redraws" in said(at)
    assert "turning *study*" in said(at)  # literal, not slanted


def test_fourth_step_is_honest_without_a_reversal() -> None:
    at = visit(step="4", study="standing")
    assert sentence(at) == "In this study no two explanations change places when the stand-in changes."


def test_fifth_step_counts_verdicts() -> None:
    assert sentence(visit(step="5", study="turning")).startswith("2 of 2 explanations beat")
    at = visit(step="5", study="standing")
    assert sentence(at).startswith("1 of 2 explanations beats")
    assert ":blue-badge[:material/check_circle: supported] ViT · ROLLOUT" in said(at)
    assert ":red-badge[:material/cancel: not supported] CNN · GRAD-CAM" in said(at)


def test_buttons_walk_and_stop_at_the_ends() -> None:
    at = visit()
    assert at.button("story.back").disabled
    at.button("story.next").click().run()
    assert step_of(at) == "2"
    at.button("story.back").click().run()
    assert step_of(at) == "1"
    assert visit(step="5", study="turning").button("story.next").disabled


def test_both_arrow_keys_are_bound() -> None:
    at = visit(step="2")
    assert [at.button(key).proto.shortcut.lower() for key in ("story.back", "story.next")] == ["left", "right"]


@pytest.mark.parametrize("step", ["0", "6", "two", "-1", "²"])
def test_a_step_that_is_none_is_the_first(step: str) -> None:
    assert "Convincing?" in sentence(visit(step=step))


def test_unknown_study_is_told() -> None:
    at = visit(step="4", study="../etc")
    assert "there is no study" in at.warning[0].value


def reversal(certain: bool) -> PairReversal:
    share = Estimate(0.5, 0.5, 0.5, 2, "")
    return PairReversal("a", "b", True, certain, "road", "fancy:k=2", 0.9, 0.1, 0.9, share)


def test_sentences_claim_no_more_than_there_is() -> None:
    assert "no reversal is certain" in story_words.turned(reversal(False), "A", "B")
    sure = story_words.turned(reversal(True), "A", "B")
    assert sure == "Whose map is better? With a blend of its neighbours it is A, with fancy, k 2 it is B."


def judgement(word: str, enough: bool, *checks: bool | None) -> Judgement:
    share = Criterion("share of fills", enough, 0.5, None, None, 0.8, "")
    asked = [Criterion("sanity", met, None, None, None, 0.5, "") for met in checks]
    return Judgement("a", "f", "e", "own", word, "", (share, *asked))


def test_the_last_sentence_tells_what_was_not_measured() -> None:
    assert story_words.concluded([], 0.8) == "Nothing could be judged in this study."
    none = story_words.concluded([judgement("qualified", False)] * 3, 1.0)
    assert none == "None of 3 explanations beats maps made without a network under every stand-in."
    held = story_words.concluded([judgement("supported", True, True)] * 2, 0.5)
    assert "2 of 2 explanations beat" in held
    assert "at least 50\u00a0%" in held
    assert "every check is passed" in held
    unmeasured = story_words.concluded([judgement("qualified", True, None), judgement("qualified", False, None)], 0.8)
    assert unmeasured.startswith("1 of 2 explanations beats")
    assert unmeasured.endswith("but the other checks were not all measured.")
    assert story_words.concluded([judgement("qualified", True, False)], 0.8).endswith("none passes every other check.")


@pytest.mark.parametrize(("low", "high", "expected"), [(0.1, 0.2, 1), (-0.1, 0.2, 0), (-0.2, -0.1, -1), (0.0, 0.2, 0)])
def test_a_side_needs_the_whole_interval(low: float, high: float, expected: int) -> None:
    assert story_words.side(Effect((low + high) / 2, low, high, 8, "t")) == expected
    assert story_words.side(None) == 0
