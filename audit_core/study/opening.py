"""From the Parquet files of a study to tables in memory that answer in milliseconds; broken files get one sentence."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from audit_core.errors import BadData
from audit_core.study.tables import MEASURES

_ROWS = "read_parquet($files)"
_FINITE = "(state = 'number' AND value IS NOT NULL AND isfinite(value))"
_NAMED = ("contender", "checkpoint", "fill", "metric")  # columns of which no row may be null
_PLACE = ", ".join(f"{name}::{name}_name AS {name}" for name in ("metric", "fill", "contender", "checkpoint"))

_TABLES = (
    *(f"CREATE TABLE {c}_names AS SELECT DISTINCT {c} AS name FROM {_ROWS} ORDER BY name" for c in _NAMED),
    *(f"CREATE TYPE {c}_name AS ENUM (SELECT name FROM {c}_names)" for c in _NAMED),
    f"CREATE TABLE runs AS SELECT DISTINCT contender, checkpoint, family, training_seed, explainer, role FROM {_ROWS}",
    # In the order of the files, one training run after another: a view of one contender reads only its own blocks.
    f"""CREATE TABLE numbers AS SELECT {_PLACE}, training_seed, seed, unit, coalesce(correct, false) AS correct, value
        FROM {_ROWS} WHERE {_FINITE}""",
    f"""CREATE TABLE gaps AS SELECT {_PLACE}, training_seed, seed, unit, coalesce(correct, false) AS correct,
        CASE WHEN state = 'number' THEN 'sick' ELSE state END AS state,
        CASE WHEN state = 'number' THEN 'the value is not a finite number' ELSE coalesce(reason, '') END AS reason
        FROM {_ROWS} WHERE NOT coalesce({_FINITE}, false)""",
    # A refused cell was never asked: only rows with a prediction tell whether the checkpoint is right.
    f"""CREATE TABLE answers AS SELECT checkpoint::checkpoint_name AS checkpoint, unit, min(predicted) AS predicted,
        coalesce(bool_and(correct), false) AS correct FROM {_ROWS} WHERE predicted IS NOT NULL GROUP BY ALL""",
    f"""CREATE TABLE images AS SELECT i.*, coalesce(a.all_correct, false) AS all_correct FROM
        (SELECT unit, coalesce(min(image), '') AS image, min(label) AS label,
            min(image) <> max(image) OR min(label) <> max(label) AS torn FROM {_ROWS} GROUP BY unit) i
        LEFT JOIN (SELECT unit, bool_and(correct) AS all_correct FROM answers GROUP BY unit) a USING (unit)
        ORDER BY unit""",
)

_TWICE = """SELECT count(*) FROM (SELECT 1 FROM
    (SELECT contender, checkpoint, fill, metric, seed FROM numbers UNION ALL
     SELECT contender, checkpoint, fill, metric, seed FROM gaps)
    GROUP BY contender, checkpoint, fill, metric, seed HAVING count(*) > (SELECT count(*) FROM images))"""


def files_of(folder: Path, table: str) -> list[Path]:
    """The Parquet files of ``table`` ("measures" or "curves") in a study folder: its parts, else the merged file."""
    if not folder.is_dir():
        raise BadData(f"a study is a folder with parts/ or {table}.parquet, found none at {folder}; check the path")
    merged = folder / f"{table}.parquet"
    return sorted((folder / "parts").glob(f"{table}-*.parquet")) or ([merged] if merged.is_file() else [])


def check(files: Sequence[Path], schema: pa.Schema) -> None:
    """``BadData`` in one sentence for the first file that is no Parquet or lacks a column of ``schema``."""
    for file in files:
        try:
            found = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise BadData(f"{file.name} is not a complete Parquet file ({_first_line(error)}); remove it") from None
        if missing := [name for name in schema.names if name not in found.names]:
            wanted = f"column{'s' * (len(missing) > 1)} {', '.join(missing)}"
            raise BadData(f"{file.name} is no table of a study: it lacks the {wanted}; give the files of one study")


def load(measures: Sequence[Path]) -> duckdb.DuckDBPyConnection:
    """All rows of ``measures`` as compact tables of a new DuckDB in memory (about 30 bytes per row).

    Tables: ``numbers`` (finite values only), ``gaps`` (all other rows, with their reasons), ``images`` (unit, image,
    label, all_correct), ``answers`` (checkpoint, unit, predicted, correct), ``runs`` (what each contender is made of).
    ``BadData`` for foreign, broken or contradictory files.
    """
    check(measures, MEASURES)
    if not sum(pq.read_metadata(file).num_rows for file in measures):
        raise BadData("the study has no results yet: no part is finished; start it or wait for the first part")
    connection, values = duckdb.connect(":memory:"), {"files": addresses(measures)}
    try:
        nulls = " OR ".join(f"{name} IS NULL" for name in (*_NAMED, "family", "unit", "seed", "state")) + " OR unit < 0"
        _refuse_any(connection.execute(f"SELECT count(*) FROM {_ROWS} WHERE {nulls}", values), "rows without a name")
        for statement in _TABLES:
            connection.execute(statement, values if "$files" in statement else None)
        _refuse_any(connection.execute("SELECT count(*) FROM images WHERE torn"), "units with two images or labels")
        _refuse_any(connection.execute(_TWICE), "cells with more rows than images")
    except duckdb.Error as error:
        raise BadData(f"the results cannot be read ({_first_line(error)}); write these files again") from None
    # One thread per question: sums add in a fixed order, so equal questions get equal digits.
    return connection.execute("SET threads TO 1")


def addresses(files: Sequence[Path]) -> list[str]:
    """Paths as DuckDB takes them: a bracket or star in a folder's name is itself and no pattern."""
    return [glob.escape(str(file)) for file in files]


def _refuse_any(found: duckdb.DuckDBPyConnection, what: str) -> None:
    number = found.fetchall()[0][0]
    if number:
        raise BadData(f"the results have {number:,} {what}; they are not the rows of one study, write them again")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
