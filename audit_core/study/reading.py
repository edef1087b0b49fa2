"""A study's rows, open for questions: who and what is in them, and one way to ask."""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from audit_core.errors import BadData, InvalidParameter, UnknownName
from audit_core.study import opening
from audit_core.study.filters import Filters
from audit_core.study.nouns import Contender
from audit_core.study.tables import CURVES, ROLES

Columns = dict[str, np.ndarray]

_CELL = "metric = $metric::metric_name AND fill = $fill::fill_name AND contender = $contender::contender_name"


class Reading:
    """What a study's tables hold; questions may come from several threads at once.

    Names that the study does not have raise ``UnknownName``; files that are no results raise ``BadData``.
    """

    def __init__(self, measures: Sequence[Path], curves: Sequence[Path] = ()) -> None:
        opening.check(curves, CURVES)
        self._database, self._curves = opening.load(measures), opening.addresses(curves)
        self._lock = threading.Lock()
        self.contenders: tuple[Contender, ...] = self._read_contenders()
        self.fills: tuple[str, ...] = self._names("fill")
        self.metrics: tuple[str, ...] = self._names("metric")
        labels = self.query("SELECT DISTINCT label FROM images WHERE label IS NOT NULL ORDER BY label")
        self.classes: tuple[str, ...] = tuple(labels["label"])
        self.units = int(self.query("SELECT count(*) AS n FROM images")["n"][0])
        self.seeds: tuple[int, ...] = self._whole("SELECT DISTINCT seed AS n FROM numbers ORDER BY seed")
        seeds = "SELECT DISTINCT training_seed AS n FROM runs WHERE training_seed IS NOT NULL ORDER BY training_seed"
        self.training_seeds: tuple[int, ...] = self._whole(seeds)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The results in a study's folder: its parts as far as they are there, else the merged tables."""
        root = Path(folder)
        return cls(opening.files_of(root, "measures"), opening.files_of(root, "curves"))

    @staticmethod
    def fingerprint(folder: str | Path) -> str:
        """Hex digest of names, sizes and times of the folder's tables: it changes when a part is added."""
        files = [file for table in ("measures", "curves") for file in opening.files_of(Path(folder), table)]
        told = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def contender(self, name: str) -> Contender:
        """The contender of this name; ``UnknownName`` with the nearest one."""
        return self.contenders[[c.name for c in self.contenders].index(self._known(name, "contender"))]

    def named(self, names: Collection[str] = (), roles: Collection[str] = ()) -> tuple[Contender, ...]:
        """The contenders with these names, in their order, else those with these roles, else all."""
        if names:
            return tuple(self.contender(name) for name in dict.fromkeys(names))
        if wrong := sorted(set(roles) - set(ROLES)):
            raise InvalidParameter(f"no role {wrong[0]!r}; roles are {', '.join(ROLES)}")
        return tuple(c for c in self.contenders if not roles or c.role in roles)

    def places_of_runs(self, contender: Contender) -> tuple[int, ...]:
        """Index of each of a contender's checkpoints among all of its family: its place on the axis of runs."""
        family = [c for c in self.contenders if c.family == contender.family]
        members = sorted({name for c in family for name in c.checkpoints})
        return tuple(members.index(name) for name in contender.checkpoints)

    def query(self, sql: str, values: dict[str, Any] | None = None) -> Columns:  # Any: values bound to the query
        """Run one fixed statement with bound values on a cursor of its own; column name -> array (rows,)."""
        with self._lock:
            cursor = self._database.cursor()
        try:
            found = cursor.execute(sql, values).fetchnumpy()
        finally:
            cursor.close()
        return {name: _whole_column(column) for name, column in found.items()}

    def _cell(self, contender: str, fill: str, metric: str, filters: Filters) -> tuple[str, dict[str, Any]]:
        """Condition and bound values that choose one cell of ``numbers``."""
        condition, values = filters.condition()
        names = {"contender": contender, "fill": fill, "metric": metric}
        return f"{_CELL} AND {condition}", {**{k: self._known(v, k) for k, v in names.items()}, **values}

    def _read_contenders(self) -> tuple[Contender, ...]:
        found = self.query(
            """SELECT contender, family, explainer, role, list(checkpoint ORDER BY checkpoint) AS checkpoints,
               list(coalesce(training_seed, -1) ORDER BY checkpoint) AS seeds
               FROM runs GROUP BY contender, family, explainer, role ORDER BY family, explainer"""
        )
        rows = zip(*found.values(), strict=True)
        read = [
            Contender(name, family, explainer, role, tuple(map(str, names)), tuple(map(int, seeds)))
            for name, family, explainer, role, names, seeds in rows
        ]
        if twice := sorted({c.name for c in read if [d.name for d in read].count(c.name) > 1}):
            raise BadData(f"contender {twice[0]!r} has two families, explainers or roles; give the files of one study")
        if torn := [c.name for c in read if len(set(c.checkpoints)) < len(c.checkpoints)]:
            raise BadData(f"a checkpoint of {torn[0]!r} has two training seeds; give the files of one study")
        order = {role: place for place, role in enumerate(ROLES)}
        return tuple(sorted(read, key=lambda c: (c.family, order.get(c.role, len(order)))))

    def _names(self, kind: str) -> tuple[str, ...]:
        return tuple(map(str, self.query(f"SELECT name FROM {kind}_names ORDER BY name")["name"]))

    def _whole(self, sql: str) -> tuple[int, ...]:
        return tuple(int(n) for n in self.query(sql)["n"])

    def _fills(self, fills: Collection[str]) -> tuple[str, ...]:
        return tuple(self._known(fill, "fill") for fill in dict.fromkeys(fills)) or self.fills

    def _known(self, name: str, kind: str) -> str:
        options = {"fill": self.fills, "metric": self.metrics}.get(kind) or tuple(c.name for c in self.contenders)
        if name in options:
            return name
        near = difflib.get_close_matches(name, options, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"the study has no {kind} {name!r}.{hint} It has: {', '.join(options)}")


def _whole_column(column: np.ndarray) -> np.ndarray:
    """NULL becomes NaN in numbers; elsewhere the statements leave none."""
    if isinstance(column, np.ma.MaskedArray) and column.dtype.kind == "f":
        return column.filled(np.nan)
    return np.ma.getdata(column)


def scalar(value: Any) -> Any:  # Any: a numpy scalar -> the Python value
    return value.item() if isinstance(value, np.generic) else value
