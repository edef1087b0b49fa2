"""The ranking page, in process: every number on it is held against pandas on the very files that the page reads."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from study_results import write_results

from audit_core.fills import FILLS
from audit_core.keys import Choice
from audit_core.study import published
from audit_core.study.analysis import pairs, reversal
from audit_core.study.published import published_fills, published_marks
from audit_core.study.results import Results
from audit_core.study.shelf import Shelf
from audit_core.study.tables import MEASURES
from pages.ui import reversal_cd, reversal_looks, reversal_work

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {"ViT-Tiny": "rollout", "Swin-Tiny": "grad-cam", "ResNet18+CBAM": "grad-cam", "DenseNet121": "grad-cam"}
ROLES = {
    f"{family} · {explainer}": role
    for family, own in FAMILIES.items()
    for explainer, role in ((own, "own"), ("rise:n_masks=50", "agnostic"), ("random", "control"), ("edges", "control"))
} | {"ViT-Tiny · rollout:pooled=2": "own"}
FILLS_HERE = ("zero", "blur:sigma=3", "road")
METRICS = ("deletion", "insertion", "srg", "r-oms")
SCOPE = {"zero": 0.4, "blur:sigma=3": 0.6, "road": 0.7}
DEFAULT = sorted(name for name in ROLES if name.split(" · ")[1] in ("rollout", "grad-cam", "rise:n_masks=50"))
REFUSED = ("DenseNet121 · grad-cam", "road", "no such interpolation here")


def mean_of(contender: str, fill: str, metric: str) -> float:
    """ViT leads under zero fill and ResNet elsewhere, by ten times the spread of a mean."""
    if metric == "r-oms":
        return SCOPE[fill]
    family, explainer = contender.split(" · ")
    place = list(FAMILIES).index(family)
    area = 0.3 + 0.05 * (place if fill == "zero" else (place - 2) % 4) + 0.2 * (explainer != FAMILIES[family])
    return {"deletion": area, "insertion": 1 - area, "srg": 1 - 2 * area}[metric]


def write_study(root: Path, merged: bool = True) -> None:
    contenders = [
        {"contender": name, "title": {"grad-cam": "Grad-CAM", "rollout": "Attention Rollout"}.get(e.split(":")[0], ""),
         "badge": "native" if FAMILIES[name.split(" · ")[0]] == e else "adapted"}
        for name in ROLES for e in [name.split(" · ")[1]]
    ]  # fmt: skip
    task = {"kind": "curves", "checkpoint": "c", "explainer": "e", "seed": 0, "start": 0, "stop": 1}
    tasks = [{"id": f"t{n}", **task, "forwards": 0, "backwards": 0} for n in range(2)]
    manifest = {"title": "planted", "contenders": contenders, "tasks": [] if merged else tasks}
    rng = np.random.default_rng(5)
    write_results(root, ROLES, FILLS_HERE, 24, 2, METRICS, rng, means=mean_of, spread=0.02, run_spread=0.003)
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "study.toml").write_text('title = "planted"')
    if not merged:
        (root / "parts").mkdir()
        (root / "measures.parquet").rename(root / "parts" / "measures-t0.parquet")


def refuse_a_cell(root: Path) -> None:
    table = pq.read_table(root / "measures.parquet").to_pandas()
    gone = (table["contender"] == REFUSED[0]) & (table["fill"] == REFUSED[1])
    for name, value in (("value", np.nan), ("state", "refused"), ("reason", REFUSED[2])):
        table[name] = table[name].astype(object)
        table.loc[gone, name] = value
    columns = [pa.array(table[f.name], from_pandas=True).cast(f.type, safe=False) for f in MEASURES]
    pq.write_table(pa.table(columns, schema=MEASURES), root / "measures.parquet")


@pytest.fixture(scope="module", autouse=True)
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of its own with a finished study, one with a refused cell, one that is running, and an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("home")
        patch.setenv("TRIPLECHECK_STORE", str(root / "store"))
        shelf = root / "studies"
        write_study(shelf / "planted")
        write_study(shelf / "gap")
        refuse_a_cell(shelf / "gap")
        write_study(shelf / "running", merged=False)
        (shelf / "empty" / "parts").mkdir(parents=True)
        (shelf / "empty" / "manifest.json").write_text('{"title": "empty", "tasks": []}')
        st.cache_resource.clear()
        st.cache_data.clear()
        yield shelf
        st.cache_resource.clear()
        st.cache_data.clear()


def visit(**link: Any) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name.replace("_", "-")] = value
    at = at.switch_page("pages/reversal.py").run()
    assert not at.exception
    return at


def unescaped(text: str) -> str:
    return re.sub(r"\\([\W_])", r"\1", text)


def headline(at: AppTest) -> str:
    return next(unescaped(one.value[4:]) for one in at.markdown if one.value.startswith("### "))


def chart(at: AppTest, key: str) -> dict[str, Any]:
    found = [one.proto for one in at.get("plotly_chart") if f"reversal.{key}" in one.proto.id]
    assert len(found) == 1, key
    return json.loads(found[0].spec)


def traces(at: AppTest, key: str = "bump", mode: str = "lines+markers") -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in chart(at, key)["data"] if one.get("mode") == mode}


def notes(at: AppTest, key: str) -> list[str]:
    return [one.get("text", "") for one in chart(at, key)["layout"]["annotations"]]


def said(at: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error")
    return unescaped("\n".join(one.value for kind in kinds for one in getattr(at, kind)))


def frame(study: Path) -> pd.DataFrame:
    return pq.read_table(study / "measures.parquet").to_pandas().astype({"contender": str, "fill": str, "metric": str})


def ordered(values: Any) -> list[float]:
    """A list of a chart as it was written, or as Plotly packs it."""
    if isinstance(values, dict):
        import base64

        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    return list(values)


def test_opens_on_the_shipped_study_with_its_headline() -> None:
    at = visit()
    assert at.title[0].value == "Rank reversal"
    results = Results.open(Shelf.default().folder("embedded").root)
    manifest = Shelf.default().folder("embedded").manifest()
    native = set(reversal_looks.native(results.contenders, manifest).values())
    names = [c.name for c in results.contenders if c.name in native or c.explainer.startswith("rise")]
    view = reversal(results, "deletion", rng=np.random.default_rng(reversal_work.SEED), contenders=names)
    looks = reversal_looks.looks(results.contenders, manifest, "light")
    assert headline(at) == reversal_looks.worded(view.headline, looks, view.fills)
    assert set(traces(at)) == {looks[name].name for name in names}
    table = frame(Shelf.default().folder("embedded").root).query("metric == 'deletion'")
    ranks = table[table["contender"].isin(names)].groupby(["contender", "fill"])["value"].mean().unstack().rank()
    for c, name in enumerate(view.contenders):
        assert ordered(traces(at)[looks[name].name]["y"]) == ranks.loc[name, list(view.fills)].tolist()
        band = view.schemes[-1].ranks.low[c, 0], view.schemes[-1].ranks.high[c, 0]
        tip = traces(at)[looks[name].name]["hovertext"][0]
        assert f"rank {ranks.loc[name, view.fills[0]]:g} [{band[0]:g}, {band[1]:g}]" in tip


def test_one_line_per_chosen_contender_and_ranks_of_the_means(studies: Path) -> None:
    at = visit(study="planted")
    lines = traces(at)
    assert len(lines) == len(DEFAULT) == 8
    table = frame(studies / "planted").query("metric == 'deletion'")
    means = table[table["contender"].isin(DEFAULT)].groupby(["contender", "fill"])["value"].mean().unstack()
    ranks = means.rank(axis=0)[sorted(SCOPE, key=SCOPE.get, reverse=True)]  # columns as the page orders fills
    assert ordered(lines["ViT-Tiny · Attention Rollout"]["y"]) == ranks.loc["ViT-Tiny · rollout"].tolist()
    assert ordered(lines["ResNet18+CBAM · Grad-CAM"]["y"]) == ranks.loc["ResNet18+CBAM · grad-cam"].tolist()
    assert ordered(lines["ViT-Tiny · Attention Rollout"]["y"]) != [1, 1, 1]
    at.button(key="reversal.preset.all").click().run()
    assert len(traces(at)) == len(ROLES)
    at.multiselect(key="reversal.contenders").set_value(["ViT-Tiny · random", "ViT-Tiny · rollout"]).run()
    assert set(traces(at)) == {"ViT-Tiny · Random", "ViT-Tiny · Attention Rollout"}
    at.multiselect(key="reversal.contenders").set_value(["ViT-Tiny · random"]).run()
    assert not at.exception
    assert "a ranking needs two contenders" in said(at)


def test_the_headline_names_the_planted_reversal_and_the_fills_are_in_order_of_scope() -> None:
    at = visit(study="planted")
    assert re.search(r"beats .* and loses to it under .*, in 100 % of the resamples of training runs", headline(at))
    axis = chart(at, "bump")["layout"]["xaxis"]
    assert [text.split("<br>")[0] for text in axis["ticktext"]] == ["ROAD", "Blur,", "Zero"]
    assert [text.split("<br>")[-1] for text in axis["ticktext"]] == ["0.70", "0.60", "0.40"]
    assert "R-OMS" in axis["title"]["text"]
    wide = {one["name"] for one in traces(at).values() if one["line"]["width"] > 3}
    assert {"ViT-Tiny · Attention Rollout", "ResNet18+CBAM · Grad-CAM"} <= wide


def test_filters_change_the_numbers_to_those_of_the_rows_that_are_left(studies: Path) -> None:
    at = visit(study="planted")
    table = frame(studies / "planted")
    own = table.query("metric == 'deletion' and contender == 'ViT-Tiny · rollout' and fill == 'zero'")

    def tip(rows: pd.DataFrame) -> None:
        found = traces(at)["ViT-Tiny · Attention Rollout"]["hovertext"][-1]
        assert f"Deletion AUC {rows['value'].mean():.3f} [" in found
        assert f"n = {len(rows):,}" in found

    tip(own)
    at.multiselect(key="reversal.classes").set_value(["Donut"]).run()
    tip(own[own["label"] == "Donut"])
    at.multiselect(key="reversal.classes").set_value([]).run()
    at.toggle(key="reversal.without_none").set_value(True).run()
    tip(own[own["label"] != "none"])
    at.toggle(key="reversal.without_none").set_value(False).run()
    at.multiselect(key="reversal.training_seeds").set_value([42]).run()
    tip(own[own["training_seed"] == 42])
    assert [one.key for one in at.radio] == ["reversal.correct"], "one run cannot be resampled"
    at.multiselect(key="reversal.training_seeds").set_value([]).run()
    at.radio(key="reversal.correct").set_value("all").run()
    right = table.groupby("unit")["correct"].all()
    tip(own[own["unit"].map(right)])
    assert "images that every checkpoint got right" in said(at)
    at.selectbox(key="reversal.metric").set_value("insertion").run()
    assert "higher is better" in said(at)


def test_the_pair_inspector_shows_both_bars_and_says_which_side_is_better(studies: Path) -> None:
    at = visit(study="planted", a="ViT-Tiny · rollout", b="ResNet18+CBAM · grad-cam")
    forest = {one["name"]: one for one in chart(at, "forest")["data"]}
    assert set(forest) == {"images", "training runs and images", "difference"}
    assert all(len(ordered(forest[name]["x"])) == 3 * 3 for name in ("images", "training runs and images"))
    table = frame(studies / "planted").query("metric == 'deletion'").groupby(["contender", "fill", "unit"])["value"]
    mean = table.mean().unstack("unit")
    wanted = [
        (mean.loc["ViT-Tiny · rollout", fill] - mean.loc["ResNet18+CBAM · grad-cam", fill]).mean()
        for fill in ("road", "blur:sigma=3", "zero")
    ]
    np.testing.assert_allclose(ordered(forest["difference"]["x"]), wanted, atol=1e-12)
    assert wanted[0] > 0 > wanted[2], "the planted reversal"
    assert "<b>◀ A better</b>" in notes(at, "forest")
    shown = next(one.value for one in at.dataframe if "d_z" in one.value)
    assert list(shown["Fill"]) == ["ROAD", "Blur, sigma 3", "Zero"]
    wins = (mean.loc["ViT-Tiny · rollout", "zero"] < mean.loc["ResNet18+CBAM · grad-cam", "zero"]).mean()
    assert shown["A beats B on"].iloc[2].startswith(f"{wins:.0%}".replace("%", " %"))
    assert set(shown["p (Holm)"]) == {"< 0.001"}
    at.selectbox(key="reversal.metric").set_value("insertion").run()
    assert "<b>◀ B better</b>" in notes(at, "forest")
    at.selectbox(key="reversal.b").set_value("ViT-Tiny · rollout").run()
    assert not at.exception
    assert "a pair needs two contenders" in said(at)


def test_images_that_are_not_shipped_are_called_look_alikes() -> None:
    at = visit(study="planted")
    assert "own images are not shipped" in said(at)
    captions = [image.caption for images in at.get("image") for image in images.proto.imgs]
    assert captions
    assert all(text.endswith(", look-alike") for text in captions)
    shipped = visit()
    captions = [image.caption for images in shipped.get("image") for image in images.proto.imgs]
    assert captions
    assert all(text.endswith(", look-alike") for text in captions)
    links = [one.proto for one in shipped.get("page_link")]
    assert links
    gone = {side for side in "AB" if f"{side}: weights not shipped" in said(shipped)}
    assert {link.label for link in links} == {"Audit A", "Audit B"} - {f"Audit {side}" for side in gone}
    both = visit(a="ViT-Tiny · rollout", b="Swin-Tiny · grad-cam")
    assert {one.proto.label for one in both.get("page_link")} == {"Audit A", "Audit B"}
    assert "weights not shipped" not in said(both)


def test_published_ranks_are_rings_with_the_word_on_them() -> None:
    at = visit(study="planted")
    assert "published" not in traces(at, mode="markers")
    at.toggle(key="reversal.published").set_value(True).run()
    ring = traces(at, mode="markers")["published"]
    assert ring["marker"]["symbol"] == "circle-open"
    assert len(ordered(ring["x"])) == 8
    assert sorted(text for text in notes(at, "bump") if "published" in text) == sorted(
        f"published {rank}" for rank in (1, 2, 3, 4) for _ in range(2)
    )
    assert all("published" in text for text in ring["hovertext"])
    assert "arXiv 2605.14255" in said(at)
    zero = [y for x, y in zip(ordered(ring["x"]), ordered(ring["y"]), strict=True) if x == 2]
    own = traces(at)
    for y, name in zip(zero, ("ViT-Tiny · Attention Rollout", "Swin-Tiny · Grad-CAM"), strict=False):
        assert ordered(own[name]["y"])[2] == y, "planted in the published order under zero fill"
    at.selectbox(key="reversal.metric").set_value("insertion").run()
    assert "reversal.published" not in [one.key for one in at.toggle]
    assert "published" not in traces(at, mode="markers")


def test_a_refused_cell_is_a_gap_with_its_reason() -> None:
    at = visit(study="gap")
    line = traces(at)["DenseNet121 · Grad-CAM"]
    assert line["y"][0] is None
    assert line["y"][2] is not None
    assert "1 cell without a rank" in [one.label for one in at.expander]
    assert f"ROAD: {REFUSED[2]}" in said(at)
    at = visit(study="gap", a=REFUSED[0], b="ViT-Tiny · rollout", fill="road")
    shown = next(one.value for one in at.dataframe if "d_z" in one.value)
    assert shown.set_index("Fill").loc["ROAD", "n"] == 0
    assert "No image has two different numbers here" in said(at)


def test_a_running_study_shows_what_is_there_and_an_empty_one_says_so() -> None:
    at = visit(study="running")
    assert "1 of 2 parts are here" in said(at)
    assert len(traces(at)) == 8
    assert "no part is finished" in said(visit(study="empty"))


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"study": "nowhere"}, "there is no study 'nowhere' here"),
        ({"study": "../../etc"}, "there is no study '../../etc' here"),
        ({"study": "planted", "metric": "speed"}, "the study does not rank by 'speed'"),
        ({"study": "planted", "contender": "Nobody · guess"}, "the study has no contender 'Nobody · guess'"),
        ({"study": "planted", "a": "<b>me</b>"}, "the study has no contender '<b>me</b>'"),
        ({"study": "planted", "class": "Pizza"}, "the study has no Pizza"),
        ({"study": "planted", "training_seed": "soon"}, "training-seed must be a whole number, got 'soon'"),
        ({"study": "planted", "correct": "maybe"}, "correct must be one of any, own, all; got 'maybe'"),
    ],
)
def test_a_link_without_meaning_gets_a_sentence_and_the_page_opens(link: dict[str, str], sentence: str) -> None:
    at = visit(**link)
    assert any(sentence in unescaped(one.value) for one in at.warning)
    assert "<b>" not in "".join(one.value for one in at.warning)
    assert len(traces(at)) >= 2


def test_the_link_opens_the_same_view_again() -> None:
    at = visit(study="planted")
    at.selectbox(key="reversal.metric").set_value("srg").run()
    at.multiselect(key="reversal.classes").set_value(["Center", "Donut"]).run()
    at.multiselect(key="reversal.contenders").set_value(DEFAULT[:3]).run()
    at.selectbox(key="reversal.a").set_value(DEFAULT[1]).run()
    at.radio(key="reversal.scheme").set_value("images").run()
    words = {name.replace("-", "_"): value for name, value in at.query_params.items()}
    assert words["class"] == ["Center", "Donut"]
    again = visit(**words)
    assert not [one.value for one in again.warning]
    assert headline(again) == headline(at)
    assert traces(again) == traces(at)
    assert chart(again, "forest") == chart(at, "forest")
    back = again.switch_page("pages/home.py").run().switch_page("pages/reversal.py").run()
    assert not back.exception
    assert traces(back) == traces(at)


def test_claims_are_written_the_way_round_that_holds_under_more_fills(studies: Path) -> None:
    at = visit(study="planted", contender=["ViT-Tiny · rollout", "Swin-Tiny · grad-cam"])
    claims = next(one.value for one in at.dataframe if "Claim" in one.value)
    assert claims["Claim"].tolist() == ["ViT-Tiny · Attention Rollout is more faithful than Swin-Tiny · Grad-CAM"]
    assert claims["Holds under"].tolist() == ["3 of 3 fills [100 %, 100 %]"]
    assert claims["Certain"].tolist() == ["no"]
    at = visit(study="planted", contender=["ViT-Tiny · rollout", "ResNet18+CBAM · grad-cam"])
    claims = next(one.value for one in at.dataframe if "Claim" in one.value)
    assert claims["Claim"].tolist() == ["ResNet18+CBAM · Grad-CAM is more faithful than ViT-Tiny · Attention Rollout"]
    assert claims["Holds under"].iloc[0].startswith("2 of 3 fills")
    assert claims["Reverses in"].tolist() == ["100 %"]
    assert claims["Certain"].tolist() == ["yes"]
    tau = chart(at, "tau")["data"][0]
    assert np.asarray(tau["z"], dtype=float).tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]


def test_the_critical_difference_diagram_ranks_by_the_mean_rank_over_images(studies: Path) -> None:
    results = Results.open(studies / "planted")
    found = pairs(results, "deletion", "zero", contenders=DEFAULT)
    drawn = reversal_cd.figure(found, reversal_looks.looks(results.contenders, {}, "light"))
    values = frame(studies / "planted").query("metric == 'deletion' and fill == 'zero'")
    by_unit = values[values["contender"].isin(DEFAULT)].groupby(["unit", "contender"])["value"].mean().unstack()
    dots = next(one for one in drawn.data if one.name == "mean rank")
    np.testing.assert_allclose(list(dots.x), sorted(by_unit.rank(axis=1).mean()), atol=1e-12)
    at = visit(study="planted")
    at.session_state["reversal.cd_open"] = True
    assert chart(at.run(), "cd")["layout"]["xaxis"]["title"]["text"] == "Mean rank over images (1 = best)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_contender_keeps_a_colour_of_its_own_and_controls_are_grey(studies: Path, theme: str) -> None:
    results = Results.open(studies / "planted")
    manifest = Shelf.default().folder("planted").manifest()
    looks = reversal_looks.looks(results.contenders, manifest, theme)
    models = {name: look for name, look in looks.items() if not look.control}
    assert len({look.colour for look in models.values()}) == len(models)
    assert {look.dash for look in models.values()} == {"solid"}
    assert looks["ViT-Tiny · rollout"].colour in reversal_looks.HUES
    assert {looks[name].colour for name in looks if name not in models} == {reversal_looks.GREY[theme]}
    assert (looks["ViT-Tiny · random"].dash, looks["ViT-Tiny · edges"].dash) == ("dash", "solid")
    assert looks["ViT-Tiny · rollout:pooled=2"].name == "ViT-Tiny · Attention Rollout, pooled 2"
    assert reversal_looks.native(results.contenders, manifest) == {f: f"{f} · {e}" for f, e in FAMILIES.items()}


def test_published_marks_share_out_the_places_in_the_published_order() -> None:
    ranks = {"ViT-Tiny · rollout": 2.0, "DenseNet121 · grad-cam": 5.0, "ResNet18+CBAM · grad-cam": 3.0, "other": 1.0}
    found = {mark.mean.family: (mark.place, mark.mean.rank, mark.of) for mark in published_marks("blur", ranks)}
    assert found == {"ResNet18+CBAM": (2.0, 1, 3), "DenseNet121": (3.0, 2, 3), "ViT-Tiny": (5.0, 3, 3)}
    assert published_marks("blur:sigma=5", ranks) == ()
    assert published_marks("zero", {"other": 1.0}) == ()
    assert published_fills(("zero", "road", "blur:sigma=3.0", "b l u r")) == ("zero", "blur:sigma=3.0")
    assert dict(FILLS.complete(Choice("blur")).params)["sigma"] == 3.0


def test_published_numbers_are_those_of_the_authors_tables(shared_data: Path) -> None:
    folder = shared_data / "paper_tables"
    if not folder.is_dir():
        pytest.skip("the published tables are absent")
    short = ("vit_tiny", "swin_tiny", "resnet18_cbam", "densenet121")
    names = dict(zip(short, FAMILIES, strict=True))
    zero = pd.read_csv(folder / "native_zero_fill_per_image.csv")
    primary = zero[zero["run_dir"].str.contains("/run0_|swin_tiny_seed7")]
    assert (primary.groupby("family").size() == 198).all()
    with (folder / "native_blur_fill_summary.csv").open() as file:
        blur = {names[row["family"]]: float(row["blur_del_mean"]) for row in csv.DictReader(file)}
    wanted = {"zero": primary.groupby("family")["deletion_auc"].mean().rename(names).to_dict(), "blur:sigma=3": blur}
    assert len(published.MEANS) == 8
    for mean in published.MEANS:
        assert mean.area == pytest.approx(wanted[mean.fill][mean.family], abs=6e-4)
        assert mean.rank == sorted(wanted[mean.fill].values()).index(wanted[mean.fill][mean.family]) + 1
