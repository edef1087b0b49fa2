"""The report of a study: one file, nothing fetched, user text literal, numbers equal to those of the tables."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from study_results import checkpoint_of, write_results

from audit_core.errors import BadData, InvalidParameter
from audit_core.study import report, report_svg, report_words
from audit_core.study.criteria import Criteria
from audit_core.study.judgement import judge
from audit_core.study.results import Results
from audit_core.study.shelf import shipped

FILLS = ("zero", "blur:sigma=3")
CONTENDERS = {
    "ViT · rollout": "own",
    "ViT · rise:n_masks=9": "agnostic",
    "ViT · random": "control",
    "CNN · grad-cam": "own",
    "CNN · rise:n_masks=9": "agnostic",
    "CNN · random": "control",
}
HOSTILE = "<script>alert(1)</script> & $x_1$ {{ 7 * 7 }}"
REFUSAL = "needs a <class> token"
CRITERIA = {"metric": "srg", "beats": ["random"], "sanity_below": 1.0, "stability_above": -1.0}
VOID = {"meta", "wbr", "br", "link", "img", "input", "base"}


def planted(contender: str, fill: str, metric: str) -> float:
    """ViT rollout wins under zero and loses under blur, in SRG and deletion alike."""
    lead = 0.1 if contender.endswith("random") else 0.4 if (fill == "zero") == contender.startswith("ViT") else 0.2
    return {"srg": lead, "deletion": 0.6 - lead, "insertion": 0.6, "r-oms": 0.5 if fill == "zero" else 0.8}[metric]


def make_study(folder: Path, **words: Any) -> Path:
    """A finished study's folder with planted means; words: fields of its manifest that differ."""
    metrics = ("srg", "deletion", "insertion", "r-oms")
    rng = np.random.default_rng(3)
    write_results(folder, CONTENDERS, FILLS, 40, 2, metrics, rng, means=planted, spread=0.05, run_spread=0.01)
    checkpoints = [
        {"name": checkpoint_of(family, run), "family": family, "training_seed": 42 + run, "weights_sha256": "ab" * 32,
         "readout": "CLS token" if family == "ViT" else "global average pool", "attention": "global", "scores": []}
        for family in ("CNN", "ViT") for run in range(2)
    ]  # fmt: skip
    manifest = {
        "title": HOSTILE, "note": "", "key": "k" * 64, "criteria": CRITERIA,
        "criteria_sha256": hashlib.sha256(json.dumps(CRITERIA, sort_keys=True).encode()).hexdigest(),
        "triplecheck": "9.8.7", "versions": {"torch": "1.2.3"}, "machine": "a machine",
        "created": "2031-02-03T04:05:06", "command": "python -m audit_core study run study.toml --out x",
        "fills": list(FILLS), "checkpoints": checkpoints,
        "contenders": [
            {"contender": name, "family": name.split(" · ")[0], "explainer": name.split(" · ")[1], "role": role,
             "title": "T", "badge": "native", "badge_sentence": "", "checkpoints": []}
            for name, role in CONTENDERS.items()
        ],
        "images": [{"reference": f"synthetic:sample:{n}", "label": "Center"} for n in range(40)],
        "check_units": [], "tasks": [],
        "refused": [{"checkpoint": "cnn-0", "explainer": "rollout", "fill": "", "reason": REFUSAL}],
    } | words  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "study.toml").write_text(study_text(), encoding="utf-8")
    return folder


def study_text(share: float | None = None, dataset: str = "synthetic") -> str:
    more = "" if share is None else f"share_of_fills = {share}\n"
    checkpoints = "".join(
        f'[[checkpoint]]\nname = "{checkpoint_of(family, run)}"\npath = "{family}{run}.safetensors"\n'
        f'explainers = ["{"rollout" if family == "ViT" else "grad-cam"}"]\n'
        for family in ("CNN", "ViT") for run in range(2)
    )  # fmt: skip
    return (
        f"title = '{HOSTILE}'\nexplainers = ['rise:n_masks=9', 'random']\nfills = {json.dumps(FILLS)}\n"
        f"[images]\ndataset = '{dataset}'\n[criteria]\nmetric = 'srg'\nbeats = ['random']\nsanity_below = 1.0\n"
        f"stability_above = -1.0\n{more}{checkpoints}"
    )


class Page(HTMLParser):
    """Tags with their attributes, words, and the numbers of each marked cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.means: dict[str, list[float]] = {}
        self.shown: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.cell = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        self.cell = found.get("data-mean") or self.cell
        if tag == "data" and self.cell:
            self.means.setdefault(self.cell, []).append(float(found["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # well formed
        if tag == "td":
            self.cell = ""

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] == "data" and self.cell:
            self.shown.setdefault(self.cell, []).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def made(folder: Path) -> str:
    return report.html(folder, resamples=300)


@pytest.fixture(scope="module")
def page(made: str) -> Page:
    return Page(made)


def test_one_file_that_fetches_nothing(made: str, page: Page) -> None:
    assert len(made.encode()) < 3_000_000
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                assert (value or "").startswith("#"), (tag, name, value)
            if not name.startswith("xmlns"):
                assert "http" not in (value or ""), (tag, name, value)
    assert not re.findall(r"url\((?!#)", made)
    assert "@import" not in made


def test_user_text_is_literal(page: Page) -> None:
    assert HOSTILE in page.text  # neither run, nor taken for a formula, nor for a template
    assert REFUSAL in page.text


def test_ids_are_unique_and_references_point_at_something(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10
    asked = {v[1:] for _, attributes in page.tags if (v := attributes.get("xlink:href") or "").startswith("#")}
    asked |= {v for _, a in page.tags for value in a.values() for v in re.findall(r"url\(#([^)]+)\)", value or "")}
    asked |= {v for _, attributes in page.tags for v in (attributes.get("aria-labelledby") or "").split()}
    assert asked <= set(ids)


def test_charts_say_what_is_to_be_seen(made: str, page: Page) -> None:
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 6  # ranks, pairs and means, by SRG and by deletion
    assert all(attributes["role"] == "img" for attributes in charts)
    drawn = re.findall(r"<title id=\"([\w-]+)-title\">([^<]+)</title><desc id=\"\1-desc\">([^<]+)</desc>", made)
    assert len(drawn) == 6
    assert "ahead of" in dict((name, finding) for name, _, finding in drawn)["forest-srg"]


def test_means_are_those_of_the_tables(folder: Path, page: Page) -> None:
    rows = pd.read_parquet(folder / "measures.parquet")
    expected = {
        metric: rows[rows.metric == metric].groupby(["contender", "fill"], observed=True).value.mean()
        for metric in ("srg", "deletion")
    }
    assert len(page.means) == len(CONTENDERS) * len(FILLS)
    for cell, numbers in page.means.items():
        contender, fill = cell.split("|")
        by_srg, by_deletion = numbers[:3], numbers[3:]  # mean, low, high
        for metric, (mean, low, high) in (("srg", by_srg), ("deletion", by_deletion)):
            assert mean == pytest.approx(expected[metric][contender, fill], rel=1e-9)
            assert low < mean < high
        shown = float(page.shown[cell][0].replace("−", "-"))
        assert shown == pytest.approx(by_srg[0], rel=5e-3)


def test_every_contender_stands_there_with_its_verdict(folder: Path, made: str, page: Page) -> None:
    judged = judge(Results.open(folder), Criteria.parse(CRITERIA), np.random.default_rng(0))
    assert len(judged) == 4
    for one in judged:
        assert one.sentence in page.text
        for criterion in one.criteria:
            if criterion.value is not None and criterion.fill:
                assert f'<data value="{criterion.value}">' in made
    for word in ("supported", "qualified", "not supported", "not computable"):
        n = sum(one.word == word for one in judged)
        assert re.search(rf"{word}</span><b>{n}</b>", made)
    for name in CONTENDERS:
        assert name.split(" · ")[1] in page.text


def test_the_planted_reversal_is_the_headline(page: Page) -> None:
    start = page.text.split(HOSTILE)[2]
    headline = start.strip().split(". ")[0]
    assert "beats" in headline
    assert "under zero" in headline
    assert "blur:sigma=3" in headline
    assert "No reversal is certain" not in page.text


def test_shipped_study_shows_every_refusal() -> None:
    root = shipped()
    assert root is not None
    shown = Page(report.html(root, resamples=100)).text
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    for cell in manifest["refused"]:
        assert cell["reason"] in shown
    for entry in manifest["contenders"]:
        assert entry["explainer"] in shown
    for entry in manifest["checkpoints"]:
        assert entry["weights_sha256"] in shown
    assert manifest["created"] in shown


def test_provenance_and_repeat_command(page: Page) -> None:
    for words in ("9.8.7", "torch 1.2.3", "a machine", "2031-02-03T04:05:06", "ab" * 32, "42", "43"):
        assert words in page.text
    assert "python -m audit_core study run study.toml --out x" in page.text
    assert "were not changed since" in page.text
    assert "synthetic:sample, Center: 0, 1, 2" in page.text


def test_equal_results_equal_text(folder: Path, made: str) -> None:
    assert report.html(folder, resamples=300) == made


def test_changed_criteria_are_told(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "study.toml").write_text(study_text(share=0.1), encoding="utf-8")
    shown = Page(report.html(copy, resamples=50)).text
    assert "The criteria were changed after the study began: share_of_fills was 0.8 and is 0.1." in shown
    assert "were not changed since" not in shown


def test_data_notice_for_wm811k_only(folder: Path, tmp_path: Path, page: Page) -> None:
    assert "MIR-WM811K" not in page.text
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "study.toml").write_text(study_text(dataset="wm811k:path=x.npz"), encoding="utf-8")
    shown = Page(report.html(copy, resamples=50)).text
    assert report_words.DATA_NOTICE in shown
    assert "10.1109/TSM.2014.2364237" in shown


def test_write_html_makes_missing_folders(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "study.html"
    report.write(folder, out)
    assert out.read_bytes() == report.document(folder, ".html")


def test_write_pdf(folder: Path, tmp_path: Path) -> None:
    weasyprint = pytest.importorskip("weasyprint", reason="the PDF needs WeasyPrint")
    out = tmp_path / "study.pdf"
    report.write(folder, out)
    made = out.read_bytes()
    assert made.startswith(b"%PDF")
    objects = made + b"".join(map(inflated, re.findall(rb"stream\r?\n(.*?)\r?\nendstream", made, re.DOTALL)))
    pages = weasyprint.HTML(string=report.html(folder)).render().pages
    assert len(pages) == len(re.findall(rb"/Type\s*/Page\b", objects)) >= 2


def inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_what_cannot_be_written_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameter, match=r"ends in \.html or \.pdf; got '\.txt'"):
        report.write(folder, tmp_path / "study.txt")
    with pytest.raises(BadData, match=r"holds no study"):
        report.html(tmp_path)
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(InvalidParameter, match="pip install weasyprint and its Pango library"):
        report.pdf("<p>")


def test_pdf_fetches_nothing() -> None:
    with pytest.raises(ValueError, match="fetches nothing"):
        report._nothing("http://example.invalid/x.png")


def test_matplotlib_is_left_as_it_was(folder: Path) -> None:
    before = dict(matplotlib.rcParams)
    report.html(folder, resamples=20)
    assert dict(matplotlib.rcParams) == before


def test_labels_of_charts_are_literal() -> None:
    figure, (axes,) = report_svg.sheet(3, 2)
    report_svg.words(axes, 0.5, 0.5, "$\\frac{1}{2}$ <b>&")
    report_svg.labels(axes, "x", [0.0, 1.0], ["$a$\n<i>", "ok\x00"])
    drawn = report_svg.finish(figure, "one", "A & B", "<found>").svg
    assert "$\\frac{1}{2}$ &lt;b&gt;&amp;" in drawn
    assert "$a$" in drawn
    assert "&lt;i&gt;" in drawn
    assert "ok□" in drawn
    assert "<style" not in drawn  # it would reach the whole page


def test_limits_speak_of_what_is_missing(folder: Path) -> None:
    results = Results.open(folder)
    said = " ".join(report_words.limits(results, {"tasks": [1, 2, 3], "done": 1}, results.counts("srg"), "srg"))
    assert "2 of 3 tasks are missing" in said
    assert "CNN, ViT: only 2 training runs" in said
    assert "not finished" not in " ".join(report_words.limits(results, {"tasks": []}, (), "srg"))


@pytest.mark.parametrize(
    ("value", "expected"), [(1.0, "100 %"), (0.999, "> 99 %"), (0.97, "97 %"), (0.001, "< 1 %"), (0.0, "0 %")]
)
def test_shares_never_say_more_than_they_are(value: float, expected: str) -> None:
    assert report_words.share(value) == expected
