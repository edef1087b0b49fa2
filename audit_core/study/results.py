"""The results of a finished or running study, read-only: every view of a page is one query over compact tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import duckdb
import numpy as np
from scipy import stats

from audit_core.errors import BadData, InvalidParameter
from audit_core.statistics.bootstrap import GROUPS
from audit_core.study.direction import sign
from audit_core.study.filters import Filters
from audit_core.study.grouping import add_up
from audit_core.study.nouns import (
    CheckpointMean,
    Contender,
    Grouped,
    ImageRow,
    MeanCurve,
    PairValues,
    StateCount,
    Values,
)
from audit_core.study.reading import Reading, scalar

Runs = Literal["apart", "together"]

EVERYTHING = Filters()
ORDERS = ("surprise", "worst", "best")
KINDS = ("deletion", "insertion")

#: Knuth's multiplicative hash (1973, section 6.4): neighbours, often of one class, go to different groups.
_HASHED = f"((unit::UBIGINT * 2654435761) & 4294967295) % {GROUPS}"
_PLACE = """(enum_code(contender)::INTEGER * $fills_in_all + enum_code(fill)::INTEGER) * $checkpoints_in_all
    + enum_code(checkpoint)::INTEGER"""


class Results(Reading):
    """Read-only view of a study's rows; all methods may be called from several threads at once.

    Numbers are rows in state "number" with a finite value; all others are counted with their reasons and never enter a
    mean. Names that the study does not have raise ``UnknownName``; files that are no results raise ``BadData``.
    """

    def counts(self, metric: str = "") -> tuple[StateCount, ...]:
        """Rows per cell, state and reason, of one metric or of all; the most frequent reason of a cell first."""
        where = "WHERE metric = $metric::metric_name" if metric else ""
        values = {"metric": self._known(metric, "metric")} if metric else None
        found = self.query(
            f"""SELECT contender, fill, metric, state, reason, count(*) AS n FROM
                (SELECT contender, fill, metric, 'number' AS state, '' AS reason FROM numbers {where}
                 UNION ALL SELECT contender, fill, metric, state, reason FROM gaps {where})
                GROUP BY ALL ORDER BY contender, fill, metric, state, n DESC, reason""",
            values,
        )
        columns = (found[name] for name in ("contender", "fill", "metric", "state", "reason", "n"))
        return tuple(StateCount(*(scalar(value) for value in row)) for row in zip(*columns, strict=True))

    def fills_of(self, metric: str) -> tuple[str, ...]:
        """The fills under which any contender has a number of this metric; slow checks run under the first one only."""
        values = {"metric": self._known(metric, "metric")}
        found = self.query("SELECT DISTINCT fill FROM numbers WHERE metric = $metric::metric_name", values)
        return tuple(fill for fill in self.fills if fill in set(found["fill"]))

    def observations(
        self, metric: str, filters: Filters = EVERYTHING, contenders: Collection[str] = (), fills: Collection[str] = ()
    ) -> Grouped:
        """Sums and counts over groups of images, for resampling; contenders and fills: names, all by default.

        Up to 2,000 images are a group each; more are put into 2,000 groups by a hash of their unit, which keeps the
        pairing. Groups without a number are left out. ``InvalidParameter`` where no number is left at all.
        """
        condition, values = filters.image_condition()
        passing = self.query(f"SELECT count(*) AS n FROM images WHERE {condition or 'true'}", values or None)
        group = "unit" if passing["n"][0] <= GROUPS else _HASHED
        return self._grouped(group, "apart", metric, filters, contenders, fills)

    def by_unit(
        self, metric: str, filters: Filters = EVERYTHING, contenders: Collection[str] = (), fills: Collection[str] = ()
    ) -> Grouped:
        """As :meth:`observations`, but every image is its own group and all training runs are one (R = 1)."""
        return self._grouped("unit", "together", metric, filters, contenders, fills)

    def by_unit_and_run(
        self, metric: str, filters: Filters = EVERYTHING, contenders: Collection[str] = (), fills: Collection[str] = ()
    ) -> Grouped:
        """As :meth:`observations`, but every image is its own group; for few contenders at a time."""
        return self._grouped("unit", "apart", metric, filters, contenders, fills)

    def checkpoint_means(self, metric: str, filters: Filters = EVERYTHING) -> tuple[CheckpointMean, ...]:
        """Mean of one metric over images, seeds and contenders, for each checkpoint under each fill."""
        condition, values = filters.condition()
        found = self.query(
            f"""SELECT fill, checkpoint, avg(value) AS mean, count(*) AS n FROM numbers
                WHERE metric = $metric::metric_name AND {condition}
                GROUP BY fill, checkpoint ORDER BY fill, checkpoint""",
            {"metric": self._known(metric, "metric"), **values},
        )
        return tuple(CheckpointMean(*(scalar(v) for v in row)) for row in zip(*found.values(), strict=True))

    def values(self, contender: str, fill: str, metric: str, filters: Filters = EVERYTHING) -> Values:
        """Every number of one cell with its image and training run, ordered by unit, run and seed."""
        condition, values = self._cell(contender, fill, metric, filters)
        found = self.query(
            f"""SELECT value, unit::BIGINT AS unit, checkpoint, coalesce(training_seed, -1)::BIGINT AS training_seed,
                coalesce(label, '') AS label, image FROM numbers JOIN images USING (unit)
                WHERE {condition} ORDER BY unit, checkpoint, seed, value""",
            values,
        )
        place = {name: run for run, name in enumerate(self.contender(contender).checkpoints)}
        run = np.array([place[name] for name in found.pop("checkpoint")], dtype=np.int64)
        return Values(run=run, **found)

    def pair(self, a: str, b: str, fill: str, metric: str, filters: Filters = EVERYTHING) -> PairValues:
        """Both contenders on the images where both have a number (mean over runs and seeds), ordered by unit."""
        both = self.by_unit(metric, filters, (a, b), (fill,))
        values = both.means()[[both.contenders.index(a), both.contenders.index(b)], 0]
        held = ~np.isnan(values).any(axis=0)
        return PairValues(both.groups[held], *values[:, held], *self.shown(a, b, both.groups[held], filters))

    def shown(self, a: str, b: str, units: np.ndarray, filters: Filters = EVERYTHING) -> tuple[np.ndarray, ...]:
        """Image, label, and what the checkpoints of a and of b said, object (n,) each, for units int64 (n,)."""
        words = [self._of_images(column) for column in ("image", "label")]
        words += [self._predicted(self.contender(name), filters) for name in (a, b)]
        return tuple(word[units] for word in words)

    def mean_curves(
        self, contenders: Collection[str], fill: str, kind: str, filters: Filters = EVERYTHING
    ) -> tuple[MeanCurve, ...]:
        """Mean curve of each contender under one fill ("deletion" or "insertion"); those without any are left out."""
        if kind not in KINDS:
            raise InvalidParameter(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        found = (self._mean_curve(name, fill, kind, filters) for name in dict.fromkeys(contenders))
        return tuple(curve for curve in found if curve is not None)

    def images(
        self,
        contender: str,
        fill: str,
        metric: str,
        order: str = "surprise",
        filters: Filters = EVERYTHING,
        limit: int = 50,
    ) -> tuple[ImageRow, ...]:
        """Single numbers of a cell: the most surprising, worst or best first; ties by unit, checkpoint and seed."""
        if order not in ORDERS:
            raise InvalidParameter(f"order must be one of {', '.join(ORDERS)}; got {order!r}")
        key = "surprise DESC" if order == "surprise" else _by_merit(metric, order)
        condition, values = self._cell(contender, fill, metric, filters)
        found = self.query(
            f"""WITH cell AS (SELECT *, abs(value - avg(value) OVER ()) AS surprise FROM numbers WHERE {condition})
                SELECT unit, image, coalesce(label, '') AS label, checkpoint,
                coalesce(training_seed, -1) AS training_seed, seed, coalesce(predicted, '') AS predicted,
                cell.correct AS correct, value, surprise
                FROM cell JOIN images USING (unit) LEFT JOIN answers USING (checkpoint, unit)
                ORDER BY {key}, unit, checkpoint, seed LIMIT $limit""",
            {**values, "limit": limit},
        )
        return tuple(ImageRow(*(scalar(v) for v in row)) for row in zip(*found.values(), strict=True))

    def _grouped(
        self,
        group: str,
        runs: Runs,
        metric: str,
        filters: Filters,
        contenders: Collection[str],
        fills: Collection[str],
    ) -> Grouped:
        """group: SQL for the group of a row. Rows of one metric pass as they are: adding them up here is faster."""
        chosen, chosen_fills = self.named(contenders), self._fills(fills)
        condition, values = filters.condition()
        checkpoints, chosen_only, names = self._names("checkpoint"), "true", {}
        if len(chosen) < len(self.contenders) or len(chosen_fills) < len(self.fills):  # else there is nothing to choose
            chosen_only = "contender = ANY($contenders::contender_name[]) AND fill = ANY($fills::fill_name[])"
            names = {"contenders": [c.name for c in chosen], "fills": list(chosen_fills)}
        found = self.query(
            f"""SELECT {_PLACE} AS place, ({group})::INTEGER AS part, value FROM numbers
                WHERE metric = $metric::metric_name AND {condition}
                AND {chosen_only}""",
            {
                "metric": self._known(metric, "metric"),
                **names,
                "fills_in_all": len(self.fills),
                "checkpoints_in_all": len(checkpoints),
                **values,
            },
        )
        if not len(found["part"]):
            raise InvalidParameter(f"no number of {metric!r} is left ({filters.sentence}); widen the filters")
        run = np.zeros((len(chosen), len(checkpoints)), dtype=np.int64)
        for at, contender in enumerate(chosen) if runs == "apart" else ():
            run[at, [checkpoints.index(name) for name in contender.checkpoints]] = self.places_of_runs(contender)
        codes = np.array([self._names("contender").index(c.name) for c in chosen])
        fill_codes = np.array([self.fills.index(fill) for fill in chosen_fills])
        shape = (len(self.contenders), len(self.fills), len(checkpoints))
        total, count, groups = add_up(found, shape, codes, fill_codes, run)
        families = np.unique([c.family for c in chosen], return_inverse=True)[1]
        return Grouped(tuple(c.name for c in chosen), chosen_fills, groups, total, count, families)

    def _mean_curve(self, contender: str, fill: str, kind: str, filters: Filters) -> MeanCurve | None:
        if not self._curves or kind not in self.metrics:
            return None
        condition, values = self._cell(contender, fill, kind, filters)
        try:
            found = self.query(_MEAN_CURVE.format(condition=condition), {**values, "files": self._curves, "kind": kind})
        except duckdb.IOException:
            raise BadData("the curves of the study cannot be read any more; open the study again") from None
        if not len(found["point"]):
            return None
        if len(set(found["n"])) > 1:
            raise BadData(f"{kind} curves of {contender} have different lengths; use one number of steps")
        n, mean = int(found["n"][0]), found["mean"]
        half = (stats.t.ppf(0.975, n - 1) if n > 1 else np.nan) * found["deviation"] / np.sqrt(n)
        return MeanCurve(contender, kind, found["fraction"], mean, mean - half, mean + half, n)

    def _predicted(self, contender: Contender, filters: Filters) -> np.ndarray:
        """What the contender's checkpoints said, by unit; object (largest unit + 1,)."""
        seeds = filters.training_seeds
        names = [
            name
            for name, seed in zip(contender.checkpoints, contender.training_seeds, strict=True)
            if not seeds or seed in seeds
        ]
        found = self.query(
            """SELECT unit, string_agg(DISTINCT predicted, ' | ' ORDER BY predicted) AS said FROM answers
               WHERE list_contains($names, checkpoint::VARCHAR) GROUP BY unit""",
            {"names": names},
        )
        return self._by_unit(found["unit"], found["said"])

    def _of_images(self, column: str) -> np.ndarray:
        found = self.query(f"SELECT unit, coalesce({column}, '') AS word FROM images")
        return self._by_unit(found["unit"], found["word"])

    def _by_unit(self, unit: np.ndarray, word: np.ndarray) -> np.ndarray:
        last = self.query("SELECT max(unit) AS n FROM images")["n"][0]
        words = np.full(int(last) + 1, "", dtype=object)
        words[unit] = word
        return words


# Only curves of rows that are numbers: the curve of a sick map says nothing.
_MEAN_CURVE = """
WITH chosen AS (SELECT checkpoint::VARCHAR AS checkpoint, seed, unit FROM numbers WHERE {condition}),
points AS (
    SELECT unit, unnest(range(1, len(score) + 1)) AS point, unnest(fraction) AS fraction, unnest(score) AS score
    FROM read_parquet($files) JOIN chosen USING (checkpoint, seed, unit)
    WHERE contender = $contender AND fill = $fill AND kind = $kind),
by_unit AS (SELECT unit, point, avg(fraction::DOUBLE) AS fraction, avg(score::DOUBLE) AS score
    FROM points GROUP BY unit, point)
SELECT point, avg(fraction) AS fraction, avg(score) AS mean, coalesce(stddev_samp(score), 0) AS deviation,
    count(*) AS n FROM by_unit GROUP BY point ORDER BY point"""


def _by_merit(metric: str, order: str) -> str:
    rising = (sign(metric) < 0) == (order == "best")
    return f"value {'ASC' if rising else 'DESC'}"
