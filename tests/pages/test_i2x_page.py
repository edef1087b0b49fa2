"""The page of I2X, in process: what it draws is held against the analysis itself; links, refusals, the fine-tuning."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from audit_core.i2x import analysis, choices, comparisons, shelf, strip
from audit_core.i2x.analysis import Analysis
from audit_core.i2x.comparisons import Compared
from audit_core.i2x.curation import Curation, removed
from audit_core.i2x.effects import HELPED, HURT, UNKNOWN, Row, table, verdict
from audit_core.i2x.explanation import pair_roles
from audit_core.i2x.features import look
from audit_core.i2x.runs import run_of
from audit_core.statistics import Estimate
from pages.ui import i2x_charts, i2x_charts_graph, i2x_words, i2x_work, resources

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = next(iter(shelf.analyses().values()))
KINDS = ("markdown", "caption", "info", "warning", "error", "success")


@pytest.fixture(scope="module", autouse=True)
def _scratch_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(tmp_path_factory.mktemp("home") / "store"))
        st.cache_resource.clear()
        st.cache_data.clear()
        yield
        st.cache_resource.clear()
        st.cache_data.clear()


@pytest.fixture(scope="module")
def made() -> Analysis:
    return analysis.read(SHIPPED)


@pytest.fixture(scope="module")
def example(made: Analysis) -> Compared:
    found = comparisons.example(made, SHIPPED)
    assert found is not None, "the shipped comparison belongs to another analysis: make it again, see the README"
    return found


def visit(**link: Any) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name] = value
    at = at.switch_page("pages/i2x.py").run()
    assert not at.exception
    return at


def words_of(at: AppTest) -> dict[str, list[str]]:
    return {name: value if isinstance(value, list) else [value] for name, value in at.query_params.items()}


def said(at: AppTest) -> str:
    return re.sub(r"\\([\W_])", r"\1", "\n".join(one.value for kind in KINDS for one in getattr(at, kind)))


def chart(at: AppTest, key: str) -> dict[str, Any]:
    found = [one.proto for one in at.get("plotly_chart") if one.proto.id.endswith(f"i2x.{key}")]
    assert len(found) == 1, key
    return json.loads(found[0].spec)


def values(raw: Any) -> np.ndarray:
    """Numbers of a chart as they were written, or as Plotly packs them."""
    if isinstance(raw, dict):
        import base64

        found = np.frombuffer(base64.b64decode(raw["bdata"]), dtype=raw["dtype"])
        return found.reshape([int(part) for part in raw["shape"].split(",")]) if "shape" in raw else found
    return np.array(raw, dtype=float)


def test_it_opens_on_the_shipped_run_with_a_finished_comparison(made: Analysis, example: Compared) -> None:
    at = visit()
    assert at.title[0].value == "I2X"
    assert not at.warning
    assert not at.error
    assert (at.selectbox(key="i2x.a").value, at.selectbox(key="i2x.b").value) == example.asked.pair
    assert at.select_slider(key="i2x.at").value == choices.opening_transition(made.transitions)
    rows = table(example.outcomes)
    word, sentence = i2x_words.outcome(rows, "curated", example, [made.classes[c] for c in example.asked.pair])
    assert sentence in said(at)
    assert word == verdict(next(row for row in rows if row.strategy == "curated"))
    shown = next(frame.value for frame in at.dataframe if "Strategy" in frame.value)
    assert list(shown["Strategy"]) == [row.strategy for row in rows]
    before = values(chart(at, "confusions.before")["data"][0]["customdata"])
    np.testing.assert_array_equal(before, example.before.confusion)
    assert len((SHIPPED / comparisons.FILE).read_bytes()) < 200_000


def test_the_charts_draw_the_analysis(made: Analysis) -> None:
    at = visit()
    t, pair = at.select_slider(key="i2x.at").value, (at.selectbox(key="i2x.a").value, at.selectbox(key="i2x.b").value)
    np.testing.assert_allclose(values(chart(at, "beta")["data"][0]["z"]), made.transitions[t].beta)
    lines = {line.get("name"): line for line in chart(at, "trajectory")["data"]}
    members = made.of_classes(pair[0])
    own = made.trajectory.confidence[:, members, pair[0]].mean(1)
    np.testing.assert_allclose(values(lines[f"{made.classes[pair[0]]} right"]["y"]), own, rtol=1e-5)
    for k in at.multiselect(key="i2x.prototypes").value:
        held = members & (made.trajectory.shares[:, k] > 0)
        wanted = made.trajectory.intensity[:, held, k, 0].mean(1)
        np.testing.assert_allclose(values(lines[f"P-{k} in {made.classes[pair[0]]}"]["y"]), wanted, rtol=1e-4)
    assert {metric.label: metric.value for metric in at.metric}["Groups G"] == str(made.transitions[t].groups)
    effects = made.pushes(made.of_classes(*pair))
    roles = pair_roles(effects, made.present, made.trajectory.labels, pair)
    shown = next(frame.value for frame in at.dataframe if "Score" in frame.value)
    assert list(shown["Prototype"]) == [f"P-{role.prototype}" for role in roles]
    np.testing.assert_allclose(shown["Score"], [role.score for role in roles])


def test_the_graph_draws_the_strongest_pushes_with_their_sign(made: Analysis) -> None:
    pair = made.trajectory.most_confused
    pushes = made.pushes(made.of_classes(*pair))
    t = choices.opening_transition(made.transitions)
    figure = i2x_charts_graph.figure(made, pushes, t)
    edges = choices.strongest_edges(pushes[t], i2x_charts_graph.EDGES)
    sizes = [abs(edge.push) for edge in edges]
    assert sizes == sorted(sizes)
    assert np.isclose(sizes[-1], np.abs(pushes[t]).max())
    for line, edge in zip(figure.data, edges, strict=False):
        assert (line.line.dash == "solid") == (edge.push > 0)
        assert line.line.color == i2x_charts.SIGNED["light"][0 if edge.push > 0 else 1]
    assert list(figure.data[i2x_charts_graph.EDGES].text) == ["+" if edge.push > 0 else "−" for edge in edges]
    assert len(figure.frames) == len(made.transitions)
    assert all(len(frame.data) == i2x_charts_graph.EDGES + 1 for frame in figure.frames)
    assert f"pushed {made.classes[edges[-1].target]}" in i2x_charts_graph.alt(made, pushes, t)


def test_a_transition_without_groups_says_that_nothing_is_explained(made: Analysis) -> None:
    empty = next((t for t, one in enumerate(made.transitions) if not one.groups), None)
    if empty is None:
        pytest.skip("every transition of the shipped run has groups")
    at = visit(to=str(made.trajectory.steps[empty + 1]))
    assert i2x_words.NO_GROUPS in said(at)
    assert {metric.label: metric.value for metric in at.metric}["Left-out error"] == "–"
    assert not [one for one in at.get("plotly_chart") if one.proto.id.endswith("i2x.beta")]
    assert choices.sensitivity(made.transitions[empty]) == []
    assert i2x_words.trust(made.transitions[empty]) == [i2x_words.NO_GROUPS]


def test_fewer_groups_than_prototypes_are_called_driven_by_lambda(made: Analysis) -> None:
    for one in made.transitions:
        assert ("λ decides" in " ".join(i2x_words.trust(one)) or "penalty λ" in " ".join(i2x_words.trust(one))) == (
            0 < one.groups < len(one.beta)
        )
    some = next(one for one in made.transitions if one.groups)
    low, high = choices.sensitivity(some)
    np.testing.assert_allclose(low.change, np.linalg.norm(some.swept()[0] - some.beta) / np.linalg.norm(some.beta))
    assert (low.factor, high.factor) == (0.1, 10.0)


def test_a_link_brings_the_same_view_back(made: Analysis) -> None:
    at = visit()
    other = [c for c in range(len(made.classes)) if c not in (at.selectbox(key="i2x.a").value,)][-2:]
    at.selectbox(key="i2x.a").set_value(other[0]).run()
    at.selectbox(key="i2x.b").set_value(other[1]).run()
    at.select_slider(key="i2x.at").set_value(len(made.transitions) - 1).run()
    at.multiselect(key="i2x.prototypes").set_value([0, 2]).run()
    at.selectbox(key="i2x.class").set_value(other[1]).run()
    at.number_input(key="i2x.image").set_value(3).run()
    at.selectbox(key="i2x.repeats").set_value(1).run()
    assert not at.exception
    link = words_of(at)
    assert link["image"] == [made.references[np.flatnonzero(made.trajectory.labels == other[1])[2]]]
    assert link["prototype"] == ["0", "2"]
    second = visit(**link)
    assert words_of(second) == link
    assert not second.warning
    assert (second.selectbox(key="i2x.a").value, second.selectbox(key="i2x.b").value) == tuple(other)
    back = second.switch_page("pages/home.py").run().switch_page("pages/i2x.py").run()
    assert words_of(back) == link


def test_wrong_words_in_a_link_are_named_and_replaced(made: Analysis) -> None:
    bad = {"a": "<b>x</b>", "b": "y", "image": "folder(path=/etc):all:0", "to": "77777", "prototype": ["99", "1"],
           "remove": "-1", "share": "2", "repeats": "50", "rate": "1e9", "start": "nan", "only": "maybe"}  # fmt: skip
    at = visit(**bad)
    told = said(at)
    for word in ("no pair of classes", "no image 'folder(path=/etc):all:0'", "no transition ends", "left out"):
        assert word in told
    for name in ("remove", "share", "repeats", "rate", "start", "only"):
        assert f"{name} '{bad[name]}' is not offered" in told
    assert at.multiselect(key="i2x.prototypes").value == [1]
    assert not at.error
    same = visit(a=made.classes[0], b=made.classes[0])
    assert "no pair of classes" in said(same)
    other = visit(run="../../etc")
    assert "there is no training run '../../etc' here" in said(other)


def test_the_two_classes_never_become_one(made: Analysis) -> None:
    at = visit()
    a, b = at.selectbox(key="i2x.a").value, at.selectbox(key="i2x.b").value
    at.selectbox(key="i2x.a").set_value(b).run()
    assert (at.selectbox(key="i2x.a").value, at.selectbox(key="i2x.b").value) == (b, a)
    assert not at.exception


def test_the_strip_is_that_of_the_checkpoints(made: Analysis) -> None:
    at = visit()
    end = time.monotonic() + 60
    key = at.session_state["i2x.strip"]
    while resources.store().get_arrays(key) is None and time.monotonic() < end:
        time.sleep(0.1)
        at.run()
    arrays = resources.store().get_arrays(key)
    assert arrays is not None
    run, place = run_of(made, SHIPPED), made.references.index(words_of(at)["image"][0])
    label = int(made.trajectory.labels[place])
    step = made.trajectory.steps[-1]
    import torch

    pixels = torch.from_numpy(strip.pixels_of(made.references[place], run.final().card))[None]
    seen = look(run.classifier(step), pixels, np.array([label]), made.settings)
    np.testing.assert_allclose(arrays["maps"][-1], seen.saliency[0, 0], rtol=1e-5)
    np.testing.assert_allclose(arrays["confidence"][-1], seen.confidence[0], rtol=1e-5)
    at.run()
    captions = [one.value for one in at.markdown if one.value.startswith("**step")]
    assert len(captions) == len(made.trajectory.steps)
    assert f"{made.trajectory.accuracy[-1]:.1%} right" in captions[-1]


def test_what_a_curation_removes_is_said_before_and_refused_in_words(made: Analysis) -> None:
    at = visit()
    k, share = at.selectbox(key="i2x.remove").value, at.selectbox(key="i2x.share").value
    gone = removed(made.trajectory.shares, made.trajectory.labels, Curation(k, share))
    assert f"**{gone.sum():,}** of {len(gone):,} images" in said(at)
    whole = next(
        k for k in range(made.prototypes.count)
        if any(made.present[made.trajectory.labels == c, k].all() for c in range(len(made.classes)))
    )  # fmt: skip
    at.selectbox(key="i2x.remove").set_value(whole).run()
    assert at.selectbox(key="i2x.share").value == choices.gentle_share(
        made.trajectory.shares, made.trajectory.labels, whole
    )
    at.selectbox(key="i2x.share").set_value(0.0).run()
    assert "the curation takes out all" in said(at)
    assert at.button(key="i2x.finetune").disabled
    at.selectbox(key="i2x.share").set_value(0.95).run()
    if not (made.trajectory.shares[:, whole] > 0.95).any():
        assert "no image holds more than 95%" in said(at)


def test_a_broken_checkpoint_is_named(made: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(made, broken=(("step000016.safetensors", "not a whole [file](x)"),))
    monkeypatch.setattr(i2x_work, "read", lambda path: broken)
    st.cache_resource.clear()
    at = visit()
    assert "step000016.safetensors is left out: not a whole [file](x)" in said(at)
    assert "[file](x)" not in "".join(one.value for one in at.warning)
    st.cache_resource.clear()


def test_fine_tuning_runs_as_a_job_and_its_link_shows_the_numbers(made: Analysis) -> None:
    at = visit()
    at.selectbox(key="i2x.repeats").set_value(1).run()
    assert "Below: an earlier comparison." in said(at)
    at.button(key="i2x.finetune").click().run()
    end = time.monotonic() + 120
    while "Finished." not in said(at) and time.monotonic() < end:
        assert not at.exception
        assert not at.error
        time.sleep(0.5)
        at.run()
    assert "Finished." in said(at)
    assert "one repeat has no interval" in said(at)
    shown = next(frame.value for frame in at.dataframe if "Strategy" in frame.value)
    assert set(shown["n"]) == {1}
    second = visit(**words_of(at))
    again = next(frame.value for frame in second.dataframe if "Strategy" in frame.value)
    assert again.equals(shown)
    assert not [button for button in second.button if button.key == "i2x.finetune"]


def test_a_comparison_survives_its_file_and_belongs_to_one_analysis(
    made: Analysis, example: Compared, tmp_path: Path
) -> None:
    comparisons.write(example, tmp_path / comparisons.FILE)
    assert comparisons.read(tmp_path / comparisons.FILE) == example
    assert comparisons.example(made, tmp_path) == example
    comparisons.write(dataclasses.replace(example, identity="another"), tmp_path / comparisons.FILE)
    assert comparisons.example(made, tmp_path) is None
    (tmp_path / comparisons.FILE).write_text("{")
    assert comparisons.example(made, tmp_path) is None
    assert np.isnan(example.confusion("no such strategy")).all()


@pytest.mark.parametrize(
    ("low", "high", "word"), [(-2, -1, HELPED), (1, 2, HURT), (-1, 1, UNKNOWN), (None, None, UNKNOWN)]
)
def test_only_an_interval_without_zero_decides(low: float | None, high: float | None, word: str) -> None:
    row = Row("curated", 5, 0.9, 0.0, 3.0, 0.0, "full", None, Estimate(0.5, low, high, 5, "paired t"))
    assert verdict(row) == word


def test_where_to_begin(made: Analysis) -> None:
    seen = made.trajectory
    opening = choices.opening_transition(made.transitions)
    assert made.transitions[opening].groups
    assert made.transitions[opening].movement == max(one.movement for one in made.transitions if one.groups)
    start = seen.steps.index(choices.start_step(seen))
    half = (seen.accuracy[0] + seen.accuracy.max()) / 2
    assert seen.accuracy[start] >= half > seen.accuracy[:start].max()
    shares = np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0], [1.0, 0.0]])
    labels = np.array([0, 0, 1, 1])
    assert choices.gentle_share(shares, labels, 0) == 0.5
    assert choices.removed_per_class(shares, labels, Curation(0, 0.5), 3).tolist() == [1, 1, 0]
