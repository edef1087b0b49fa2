"""The full matrix: every checkpoint x explainer x fill on a few images, each cell a number or the reason for none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audit_core import audit
from audit_core.errors import AuditError
from audit_core.intervals import mean_interval
from audit_core.record import AuditRecord
from audit_core.workbench import Workbench

#: report(cells done, cells in all, words)
Report = Callable[[int, int, str], None]
STATES = ("number", "refused", "error")


def silent(done: int, total: int, message: str) -> None:
    """The report that tells nobody."""


@dataclass(frozen=True)
class Cell:
    """One triple over the images.

    state: "number", "refused" (``reason`` says why) or "error" (a defect: ``reason`` names it); srg: insertion minus
    deletion AUC, mean over the n images with a map that is fit to be ranked, higher is better, with its 95 % t interval
    (None for n < 2); sick: images whose map was not, and which are left out.
    """

    checkpoint: str
    explainer: str
    fill: str
    state: str
    reason: str = ""
    srg: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    sick: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def matrix(
    bench: Workbench,
    checkpoints: Sequence[str],
    explainers: Sequence[str],
    fills: Sequence[str],
    images: Sequence[str],
    report: Report = silent,
    **settings: Any,
) -> Iterator[Cell]:
    """Cells in the order of the names; explanations are made once and shared by all fills. settings: of AuditSpec."""
    triples = list(itertools.product(checkpoints, explainers, fills))
    for done, (checkpoint, explainer, fill) in enumerate(triples):
        report(done, len(triples), f"{checkpoint} · {explainer} · {fill}")
        yield _cell(bench, checkpoint, explainer, fill, images, settings)
    report(len(triples), len(triples), "all cells")


def _cell(
    bench: Workbench, checkpoint: str, explainer: str, fill: str, images: Sequence[str], settings: dict[str, Any]
) -> Cell:
    found: list[AuditRecord] = []
    reasons: list[str] = []
    for image in images:
        try:
            found.append(audit.run(audit.spec(checkpoint, explainer, fill, image, **settings), bench))
        except AuditError as reason:
            reasons.append(str(reason))
        except Exception as defect:  # a defect of one cell must not hide the others; it is counted as one
            return Cell(checkpoint, explainer, fill, "error", f"{type(defect).__name__}: {defect}")
    if not found:
        return Cell(checkpoint, explainer, fill, "refused", reasons[0] if reasons else "no images were given")
    fit = [record for record in found if not record.sick]
    if not fit:
        return Cell(checkpoint, explainer, fill, "refused", f"every map is sick: {found[0].sick[0]}", sick=len(found))
    values = np.array([record.insertion_auc - record.deletion_auc for record in fit])
    mean, low, high = mean_interval(values)
    sick = len(found) - len(fit)
    why = f"{len(reasons)} of {len(images)} images refused: {reasons[0]}" if reasons else ""
    return Cell(checkpoint, explainer, fill, "number", why, mean, low, high, len(values), sick)


def counts(cells: Sequence[Cell]) -> dict[str, int]:
    """State -> how many cells are in it, and "cells" for all of them."""
    return {"cells": len(cells), **{state: sum(cell.state == state for cell in cells) for state in STATES}}


def as_text(cells: Sequence[Cell]) -> str:
    """One table of SRG per checkpoint: explainers in rows, fills in columns; "–" where refused, "!" for a defect."""
    fills = list(dict.fromkeys(cell.fill for cell in cells))
    width = max(len(cell.explainer) for cell in cells) + 2
    lines = []
    for checkpoint, group in itertools.groupby(cells, key=lambda cell: cell.checkpoint):
        lines += ["", checkpoint, " " * width + " ".join(f"{fill[:12]:>12}" for fill in fills)]
        for explainer, row in itertools.groupby(group, key=lambda cell: cell.explainer):
            lines.append(f"{explainer:{width}}" + " ".join(f"{_word(cell):>12}" for cell in row))
    reasons = dict.fromkeys(f"{cell.checkpoint} · {cell.explainer}: {cell.reason}" for cell in cells if cell.reason)
    total = ", ".join(f"{number} {state}" for state, number in counts(cells).items())
    return "\n".join([*lines, "", *reasons, "", total])


def _word(cell: Cell) -> str:
    if cell.srg is None:
        return {"refused": "–", "error": "!"}[cell.state]
    half = f"±{(cell.high - cell.low) / 2:.2f}" if cell.low is not None and cell.high is not None else ""
    return f"{cell.srg:+.2f}{half}"
