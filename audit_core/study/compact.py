"""A finished study as two small tables and its manifest: what is worth keeping, sending or shipping."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from audit_core.errors import BadData
from audit_core.study import runner, tables
from audit_core.study.folder import MANIFEST, STUDY, StudyFolder

DIGITS = 3  # of the curves' scores; the areas keep all of theirs


def write(source: Path, target: Path) -> None:
    """Write study.toml, manifest.json, measures.parquet and curves.parquet into ``target``.

    Areas and all other measures keep their digits, scores along curves three. ``BadData`` for an unfinished study.
    """
    found = runner.status(source)
    if not found.complete:
        raise BadData(f"{source} has {found.done} of {found.total} tasks; resume the study first")
    target.mkdir(parents=True, exist_ok=True)
    tables.write(runner.merged(source), target / "measures.parquet")
    curves = runner.merged_curves(source)
    if curves.num_rows:
        tables.write(_rounded(curves), target / "curves.parquet")
    shutil.copyfile(source / STUDY, target / STUDY)
    words = StudyFolder(source).manifest()
    words["tasks"] = []  # they are all done
    (target / MANIFEST).write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(curves: pa.Table) -> pa.Table:
    for name in ("fraction", "score"):
        column = curves[name].combine_chunks()
        values = np.round(column.values.to_numpy(), DIGITS).astype(np.float32)
        rounded = pa.ListArray.from_arrays(column.offsets, pa.array(values))
        curves = curves.set_column(curves.schema.get_field_index(name), name, rounded)
    return curves
