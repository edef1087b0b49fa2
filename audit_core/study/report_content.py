"""Everything that a report shows, gathered once from a study's folder: views, verdicts, predictions, provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit_core.errors import AuditError, BadData
from audit_core.study import analysis, report_words
from audit_core.study.criteria import Criteria, changed_since
from audit_core.study.definition import Study
from audit_core.study.folder import PARTS, STUDY, StudyFolder
from audit_core.study.guidance import Advice, guidance, paired_by_rule
from audit_core.study.judgement import WORDS, Judgement, judge
from audit_core.study.means import CellsView
from audit_core.study.nouns import Contender
from audit_core.study.pairs import PairView
from audit_core.study.predictions import Prediction, predictions
from audit_core.study.published import METRIC as PUBLISHED
from audit_core.study.ranking import PairReversal, ReversalView
from audit_core.study.results import Results

SEED = 0  # of all resampling: equal results, equal digits
PANELS = 4  # pairs whose differences are drawn
LISTED = 400  # images whose references are printed


@dataclass(frozen=True)
class Ranking:
    """One metric's ranking; view: None where ``why`` says why there is none; pairs: surest reversals, under each fill.

    certain: every pair whose difference has its 95 % interval on opposite sides of zero under two fills.
    """

    metric: str
    view: ReversalView | None
    why: str
    certain: tuple[PairReversal, ...]
    pairs: tuple[PairView, ...]
    cells: CellsView | None


@dataclass(frozen=True)
class Gap:
    """Numbers that do not exist: how many of a contender, under which fills, and why."""

    contender: str
    state: str
    fills: tuple[str, ...]
    count: int
    reason: str


@dataclass(frozen=True)
class Content:
    """What the template is given. native: contenders that stand for their families in the charts; problem: a sentence
    where the criteria were changed after the study began, else ""; images: by data set, split and class."""

    study: Study
    study_text: str
    manifest: Mapping[str, Any]  # Any: JSON data
    results: Results
    criteria: Criteria
    problem: str
    native: tuple[str, ...]
    rankings: tuple[Ranking, ...]
    judgements: tuple[Judgement, ...]
    predictions: tuple[Prediction, ...]
    advice: tuple[Advice, ...]
    gaps: tuple[Gap, ...]
    asked: tuple[str, ...]
    limits: tuple[str, ...]
    notices: tuple[str, ...]
    images: tuple[tuple[str, str], ...]
    images_sha256: str

    @property
    def counted(self) -> dict[str, int]:
        """How many contenders got each word."""
        return {word: sum(one.word == word for one in self.judgements) for word in WORDS}

    @property
    def headline(self) -> str:
        """The first ranking's finding."""
        return next((ranking.view.headline for ranking in self.rankings if ranking.view), self.rankings[0].why)


def gather(folder: str | Path, resamples: int = 2000) -> Content:
    """Read and analyse a study's folder; ``BadData`` or ``InvalidParameter`` says what is missing."""
    opened = StudyFolder(Path(folder))
    study, manifest = opened.study(), dict(opened.manifest())
    if (opened.root / PARTS).is_dir():
        manifest["done"] = sum(opened.done(task) for task in opened.tasks())
    results = Results.open(opened.root)
    if not results.contenders:
        raise BadData(f"{opened.root} holds no results yet; run the study first")
    criteria = Criteria.parse(manifest.get("criteria", {}))
    native = _native(results, manifest)
    counted = metric_of(results, criteria)
    images = json.dumps(manifest.get("images", []), sort_keys=True, ensure_ascii=False)
    return Content(
        study,
        (opened.root / STUDY).read_text(encoding="utf-8"),
        manifest,
        results,
        criteria,
        changed_since(manifest, study),
        native,
        tuple(ranking(results, metric, native, resamples) for metric in dict.fromkeys((counted, PUBLISHED))
              if metric in results.metrics),
        judge(results, criteria, _rng()),
        predictions(results, manifest, _rng()),
        guidance(results, manifest, _rng()),
        _gaps(results, counted),
        report_words.asked(study, results),
        report_words.limits(results, manifest, results.counts(counted), counted),
        report_words.notices(study, manifest),
        _images(manifest.get("images", [])[:LISTED]),
        hashlib.sha256(images.encode()).hexdigest(),
    )  # fmt: skip


def metric_of(results: Results, criteria: Criteria) -> str:
    """The metric of the verdicts where the study has it, else the first of the usual ones; ``BadData`` without any."""
    for metric in (criteria.metric, "srg", "deletion", "insertion"):
        if metric in results.metrics:
            return metric
    raise BadData(f"the study has none of the metrics that rank contenders, only {', '.join(results.metrics)}")


def ranking(results: Results, metric: str, native: Sequence[str], resamples: int = 2000) -> Ranking:
    """Ranks, reversals and means by one metric; pairs of two native contenders are drawn before any others."""
    cells, _ = _try(lambda: analysis.cells(results, metric, rng=_rng(), resamples=resamples))
    view, why = _try(lambda: analysis.reversal(results, metric, rng=_rng(), resamples=resamples))
    turned = [pair for pair in view.schemes[-1].pairs if pair.reverses] if view else []
    drawn = sorted(turned, key=lambda p: (-p.certain, -((p.first in native) + (p.second in native))))[:PANELS]
    pairs = (analysis.pair(results, p.first, p.second, metric, rng=_rng(), resamples=resamples, k=0) for p in drawn)
    return Ranking(metric, view, why, tuple(pair for pair in turned if pair.certain), tuple(pairs), cells)


def _try(ask: Any) -> tuple[Any, str]:  # Any: a question, and its view or None
    """(answer, "") or (None, the sentence why there is none)."""
    try:
        return ask(), ""
    except AuditError as reason:
        return None, str(reason)


def _native(results: Results, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """One contender per family: the one that the rule pairs with its readout, else its first own one."""
    found: dict[str, Contender] = {}
    for contender in results.named(roles=("own",)):
        found.setdefault(contender.family, paired_by_rule(results, manifest, contender.family) or contender)
    return tuple(contender.name for contender in found.values())


def _gaps(results: Results, metric: str) -> tuple[Gap, ...]:
    """Refused, failed and sick rows of the metric, one line per contender, state and reason."""
    found: dict[tuple[str, str, str], Gap] = {}
    for c in results.counts(metric):
        if c.state == "number":
            continue
        key = (c.contender, c.state, c.reason)
        before = found.get(key, Gap(c.contender, c.state, (), 0, c.reason))
        found[key] = Gap(c.contender, c.state, (*before.fills, c.fill), before.count + c.count, c.reason)
    return tuple(found.values())


def _images(pictures: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:  # Any: JSON data
    """References in few words: what they share is said once."""
    found: dict[str, list[str]] = {}
    for picture in pictures:
        shared, _, number = str(picture.get("reference", "")).rpartition(":")
        label = picture.get("label")
        found.setdefault(f"{shared}, {label}" if label is not None else shared, []).append(number)
    return tuple((shared, ", ".join(numbers)) for shared, numbers in found.items())


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)
