"""A study's findings as Markdown tables, for documents that must say what the results say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from audit_core.errors import AuditError
from audit_core.statistics import Estimate
from audit_core.study.analysis import Results, cells, compression, reversal
from audit_core.study.criteria import Criteria, changed_since
from audit_core.study.folder import StudyFolder
from audit_core.study.guidance import guidance
from audit_core.study.judgement import judge
from audit_core.study.predictions import predictions

METRICS = ("deletion", "insertion", "srg", "deletion-failed-dies")
ARROWS = {"lower": "lower is better", "higher": "higher is better", "neither": "neither way is better"}
SPREAD = "Spread of the model-agnostic explainer over that of the native ones, deletion"


def findings(folder: Path, seed: int = 0) -> str:
    """All tables of a study: what was asked, means, ranks, reversals, predictions, guidance, verdicts.

    Deterministic for a seed (of the resampling), so that a document can be compared with it.
    """
    results, opened = Results.open(folder), StudyFolder(folder)
    manifest, fresh = opened.manifest(), lambda: np.random.default_rng(seed)
    made, changed = Criteria.parse(manifest.get("criteria", {})), changed_since(manifest, opened.study())
    parts = [
        _asked(manifest),
        *(
            _means(results, metric, fresh())
            for metric in METRICS
            if metric in results.metrics and results.fills_of(metric)  # pictures have no dies
        ),
        _or_why("Reversals, deletion", lambda: _reversals(results, "deletion", fresh())),
        _or_why("Reversals, srg", lambda: _reversals(results, "srg", fresh())),
        _or_why(SPREAD, lambda: _compression(results, fresh())),
        _or_why("The five predictions of arXiv 2605.14255", lambda: _predictions(results, manifest, fresh())),
        _or_why("Guidance beside the data", lambda: _guidance(results, manifest, fresh())),
        _or_why("Verdicts", lambda: _verdicts(results, made, changed, fresh())),
    ]
    return "\n\n".join(parts) + "\n"


def _or_why(title: str, make: Callable[[], str]) -> str:
    """A section, or its title with the reason why it cannot be computed."""
    try:
        told = make()
    except AuditError as reason:
        told = f"Not computable: {reason}."
    return f"### {title}\n\n{told}"


def _predictions(results: Results, manifest: dict, rng: np.random.Generator) -> str:
    found = predictions(results, manifest, rng)
    return _table(
        ("", "prediction", "here", "numbers"),
        ((str(p.number), p.title, f"**{p.verdict}**", p.sentence) for p in found),
    )


def _guidance(results: Results, manifest: dict, rng: np.random.Generator) -> str:
    return "\n".join(f"- {one.sentence}" for one in guidance(results, manifest, rng))


def _verdicts(results: Results, made: Criteria, changed: str, rng: np.random.Generator) -> str:
    rows = ((j.contender, j.word, j.sentence) for j in judge(results, made, rng))
    return f"{changed}\n\n" * bool(changed) + _table(("contender", "verdict", "why"), rows)


def _asked(manifest: dict) -> str:
    rows = [
        (
            entry["name"],
            entry["family"],
            str(entry["training_seed"]),
            entry["encoding"],
            _score(entry["scores"]),
        )
        for entry in manifest["checkpoints"]
    ]
    return (
        f"### What was asked\n\n{len(manifest['images'])} images, fills {', '.join(manifest['fills'])}, "
        f"{len(manifest['contenders'])} contenders, {len(manifest['refused'])} cells refused.\n\n"
        + _table(("checkpoint", "family", "training seed", "encoding", "macro-F1, held out"), rows)
    )


def _score(evaluations: Sequence[dict]) -> str:
    for one in evaluations:
        found = one["scores"].get("macro_f1")
        if found:
            return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}], n = {one['n']:,}"
    return "not measured"


def _means(results: Results, metric: str, rng: np.random.Generator) -> str:
    view = cells(results, metric, rng=rng)
    fills = [fill for fill in results.fills if any(cell.fill == fill for cell in view.cells)]
    known = {(cell.contender, cell.fill): cell for cell in view.cells}
    rows = []
    for contender in results.contenders:
        shown = [known.get((contender.name, fill)) for fill in fills]
        rows.append((contender.name, *("–" if cell is None or not cell.n else _estimate(cell.mean) for cell in shown)))
    n = max((cell.mean.n for cell in view.cells), default=0)
    head = f"### {metric}: mean over images, {ARROWS[view.better]}\n\nBCa 95 % intervals over images; n up to {n}.\n\n"
    return head + _table(("contender", *fills), rows)


def _estimate(estimate: Estimate) -> str:
    bounds = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{bounds}"


def _reversals(results: Results, metric: str, rng: np.random.Generator) -> str:
    view = reversal(results, metric, rng=rng, roles=("own", "agnostic"))
    scheme = view.schemes[-1]
    pairs = [pair for pair in scheme.pairs if pair.reverses]
    certain = [pair for pair in pairs if pair.certain]
    rows = [
        (pair.first, pair.second, pair.wins_under, pair.loses_under, f"{pair.directed:.0%}") for pair in certain[:20]
    ]
    fills = view.fills
    tau = [
        (fill, *(f"{scheme.tau.tau[i, k]:+.2f} [{scheme.tau.low[i, k]:+.2f}, {scheme.tau.high[i, k]:+.2f}]"
                 for k in range(len(fills))))
        for i, fill in enumerate(fills)
    ]  # fmt: skip
    return (
        f"{view.headline}\n\nOf {len(scheme.pairs)} pairs {len(pairs)} reverse between two "
        f"fills by their means, {len(certain)} with certainty (resampling of {scheme.scheme}); the surest:\n\n"
        + _table(("contender", "and", "first wins under", "loses under", "probability"), rows)
        + "\n\nKendall's tau between the orders under two fills:\n\n"
        + _table(("", *fills), tau)
    )


def _compression(results: Results, rng: np.random.Generator) -> str:
    view = compression(results, "deletion", rng=rng)
    rows = [(fill, _estimate(ratio)) for fill, ratio in zip(view.fills, view.ratios, strict=True)]
    return "Below 1: compressed.\n\n" + _table(("fill", "ratio"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    if len(lines) == 1:
        return "None."
    text = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])
