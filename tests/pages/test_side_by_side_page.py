"""Side by side, in process: its numbers are those of the shipped rows, and its link brings the same view back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

from audit_core.i2x import analysis
from audit_core.i2x.beside import place_of, riser
from audit_core.i2x.ranking import along
from audit_core.i2x.shelf import analyses
from audit_core.study.filters import Filters
from audit_core.study.results import Results

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = next(iter(analyses().values()))
WIDGETS = ("a", "b", "step", "explainer", "fill", "images")


def visit(**link: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name] = value
    at = at.switch_page("pages/side_by_side.py").run()
    assert not at.exception
    return at


def words(at: AppTest) -> dict[str, str]:
    found = dict(at.query_params)
    return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


def text(at: AppTest) -> str:
    return "\n".join(one.value.replace("\\", "") for one in (*at.markdown, *at.caption))


@pytest.fixture(scope="module")
def opened() -> AppTest:
    return visit()


def test_it_opens_on_a_finished_example(opened: AppTest) -> None:
    made = analysis.read(SHIPPED)
    told = words(opened)
    assert (told["a"], told["b"]) == tuple(made.classes[c] for c in made.trajectory.most_confused)
    assert told["step"] == str(made.trajectory.steps[-1])
    assert "Rank reversal of the checkpoint at step" in text(opened)
    assert not opened.warning


def rows(classes: tuple[str, ...] = ()) -> pd.Series:
    found = pd.read_parquet(SHIPPED / "ranking" / "measures.parquet")
    found = found[(found.metric == "srg") & (found.state == "number")]
    found = found[found.label.isin(classes)] if classes else found
    return found.groupby(["family", "explainer", "fill"], observed=True).value.mean()


@pytest.mark.parametrize("images", ["all", "pair"])
def test_the_sentence_is_what_the_rows_say(images: str) -> None:
    at = visit(a="3", b="8", images=images, explainer="layer-cam", fill="road")
    means = rows(("3", "8") if images == "pair" else ())
    made = analysis.read(SHIPPED)
    steps = list(made.trajectory.steps)
    explainers = [e for e in means.index.get_level_values("explainer").unique() if e != "random"]
    ranks = []
    for step in steps:
        values = [-means[f"step {step}", explainer, "road"] for explainer in explainers]
        ranks.append(stats.rankdata(values)[explainers.index("layer-cam")])
    said = text(at)
    assert f"LayerCAM ends at rank {ranks[-1]:g} under ROAD" in said
    changed = [str(step) for step, (was, now) in zip(steps[1:], pairwise(ranks), strict=True) if was != now]
    assert f"changed at step {', '.join(changed)} (" in said
    found = pd.read_parquet(SHIPPED / "ranking" / "measures.parquet", columns=["unit", "label"])
    found = found[found.label.isin(["3", "8"])] if images == "pair" else found
    assert f"n = {found.unit.nunique()} images" in said


def test_a_link_brings_the_view_back(opened: AppTest) -> None:
    made = analysis.read(SHIPPED)
    asked = {"run": SHIPPED.name, "a": "2", "b": "7", "step": str(made.trajectory.steps[4]), "explainer": "grad-cam",
             "fill": "zero", "images": "pair"}  # fmt: skip
    assert words(visit(**asked)) == asked


def test_both_classes_the_same_swap(opened: AppTest) -> None:
    at = visit(a="2", b="7")
    at.selectbox(key="side.a").select("7").run()
    assert not at.exception
    assert (words(at)["a"], words(at)["b"]) == ("7", "2")


def test_the_first_checkpoint_has_no_transition_before_it(opened: AppTest) -> None:
    at = visit(step="0")
    assert "at step 0" in text(at)


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ({"a": "banana"}, "a 'banana' is not here"),
        ({"step": "17"}, "step '17' is not here"),
        ({"a": "3", "b": "3"}, "both '3'"),
        ({"run": "nowhere"}, "no training run 'nowhere'"),
        ({"fill": "<b>x</b>"}, "is not here"),
    ],
)
def test_a_wrong_word_gives_a_sentence_and_the_default(link: dict[str, Any], told: str) -> None:
    at = visit(**link)
    assert any(told in warning.value.replace("\\", "") for warning in at.warning)


def test_the_riser_is_the_largest_rise_of_a_literal_mean() -> None:
    made = analysis.read(SHIPPED)
    members = made.of_classes(5, 9)
    found = riser(made, 5, members)
    assert found is not None
    seen, best = made.trajectory, (-1, -np.inf)
    for k in range(made.prototypes.count):
        holding = members & (seen.shares[:, k] > 0)
        means = [float(np.mean([seen.intensity[t, i, k, 0] for i in np.flatnonzero(holding)])) for t in (5, 6)]
        best = max(best, (k, means[1] - means[0]), key=lambda pair: pair[1])
    assert found.prototype == best[0]
    assert found.rise == pytest.approx(best[1], rel=1e-5)
    pushes = made.beta[5, found.prototype] * (seen.intensity[6] - seen.intensity[5])[members, found.prototype, 0].mean()
    assert found.push == pytest.approx(pushes.max(), rel=1e-4)


def test_a_path_without_change_is_settled_from_the_start() -> None:
    path = along(Results.open(SHIPPED / "ranking"), filters=Filters(classes=("1",)), resamples=50)
    for explainer in path.explainers:
        for fill in path.fills:
            place = place_of(path, explainer, fill)
            same = [t for t in range(1, len(path.steps)) if place.ranks[t] != place.ranks[t - 1]]
            assert list(place.changes) == same
            assert place.settled == (same[-1] if same else 0)
