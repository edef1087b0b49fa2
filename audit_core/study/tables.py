"""The two tables of a study's results, as Parquet: one row per image x cell x metric, and the curves behind them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORD = pa.dictionary(pa.int32(), pa.string())

#: states: "number" (``value`` holds it), "sick" (the map is not fit to be ranked), "refused" (the cell has no meaning);
#: training_seed and label are null where nobody knows them, reason is null for a number.
MEASURES = pa.schema(
    [
        ("contender", WORD),
        ("checkpoint", WORD),
        ("family", WORD),
        ("training_seed", pa.int32()),
        ("explainer", WORD),
        ("role", WORD),
        ("fill", WORD),
        ("seed", pa.int32()),
        ("unit", pa.int32()),
        ("image", pa.string()),
        ("label", WORD),
        ("predicted", WORD),
        ("correct", pa.bool_()),
        ("metric", WORD),
        ("value", pa.float64()),
        ("state", WORD),
        ("reason", WORD),
    ]
)

#: kind: "deletion" or "insertion"; fraction: shares of pixels changed, rising from 0 to 1; score: the target's score.
CURVES = pa.schema(
    [
        ("checkpoint", WORD),
        ("contender", WORD),
        ("explainer", WORD),
        ("fill", WORD),
        ("seed", pa.int32()),
        ("unit", pa.int32()),
        ("kind", WORD),
        ("fraction", pa.list_(pa.float32())),
        ("score", pa.list_(pa.float32())),
    ]
)

ROLES = ("own", "agnostic", "control")
STATES = ("number", "sick", "refused")

#: Order of the rows of an exported table, so that equal studies give equal files.
ORDER = ("checkpoint", "explainer", "seed", "fill", "unit", "metric")
CURVE_ORDER = ("checkpoint", "explainer", "seed", "fill", "unit", "kind")


def contender(family: str, explainer: str) -> str:
    """Name of what is ranked: a family's checkpoints read by one explainer."""
    return f"{family} · {explainer}"


def as_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as plain dictionaries -> a table of ``schema``; a missing column is null."""
    columns = [pa.array([row.get(field.name) for row in rows], type=_plain(field.type)) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def write(table: pa.Table, path: Path) -> None:
    """Write through a temporary name of this process: a reader, or a second writer, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")  # machines may share the folder
    try:
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def whole(path: Path) -> bool:
    """Whether a file is a Parquet file to its end."""
    try:
        return pq.read_metadata(path) is not None
    except (OSError, pa.ArrowException):
        return False


def merge(paths: Iterable[Path], schema: pa.Schema, order: Sequence[str]) -> pa.Table:
    """All parts as one table in a fixed order of rows, equal for equal results however they were computed."""
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])
    parts = [pq.read_table(path).cast(plain) for path in sorted(paths)]
    whole = pa.concat_tables(parts) if parts else plain.empty_table()
    return whole.sort_by([(name, "ascending") for name in order]).cast(schema)
