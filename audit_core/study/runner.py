"""Begin, resume, watch and check a study. What is written is never computed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audit_core.errors import BadData
from audit_core.study import tables
from audit_core.study.cost import work
from audit_core.study.definition import Study
from audit_core.study.engine import perform
from audit_core.study.executors import EXECUTORS, Executor
from audit_core.study.folder import StudyFolder
from audit_core.study.opening import check, files_of
from audit_core.study.plan import Plan, Task, make_plan
from audit_core.study.worker import Outcome
from audit_core.workbench import Workbench


@dataclass(frozen=True)
class Progress:
    """Where a run stands. forwards: model evaluations in images, at most; seconds_left: None until it can be said."""

    done: int
    total: int
    failed: int
    forwards: int
    forwards_total: int
    seconds: float
    seconds_left: float | None
    message: str = ""

    @property
    def fraction(self) -> float:
        """Share of the work done, by forwards, in [0, 1]."""
        return self.forwards / self.forwards_total if self.forwards_total else 1.0


#: report(progress); may raise to stop the work, at the latest after the tasks in flight.
Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The report that tells nobody."""


def run(
    study: Study,
    root: Path,
    bench: Workbench,
    executor: Executor | None = None,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Begin the study in ``root``, or go on with it; returns where it stands at the end.

    Results that stand in the folder, or in a study beside it for equal tasks, are taken as they are. Killed at any
    moment, at most the tasks in flight are lost, and nothing is there twice.
    """
    plan = make_plan(study, bench)
    folder = StudyFolder(Path(root))
    folder.create(plan)
    folder.borrow_parts(plan.tasks)
    missing = [task for task in plan.tasks if not folder.done(task)]
    watch = _Watch(plan, missing, report)
    watch.tell("starting")
    chosen = executor or EXECUTORS["in-process"]()
    chosen.run(Path(root), plan, missing, bench, watch.ended, stop)
    return watch.tell("stopped" if stop() else "finished")


class _Watch:
    """Counts what ended and says how long the rest will take."""

    def __init__(self, plan: Plan, missing: Sequence[Task], report: Report) -> None:
        self._work = {task.id: work(task) for task in plan.tasks}
        self._names = {task.id: f"{task.checkpoint} · {task.explainer}" for task in plan.tasks}
        self._before = len(plan.tasks) - len(missing)
        self._spared = sum(self._work.values()) - sum(self._work[task.id] for task in missing)
        self._done = self._failed = self._made = 0
        self._began, self._report = time.monotonic(), report

    def ended(self, outcome: Outcome) -> None:
        """One task ended, well or not."""
        self._made += self._work[outcome.task]
        self._failed += bool(outcome.reason)
        self._done += not outcome.reason
        self.tell(outcome.reason or self._names[outcome.task])

    def tell(self, message: str) -> Progress:
        """Report where the run stands."""
        seconds, total = time.monotonic() - self._began, sum(self._work.values())
        left = seconds * (total - self._spared - self._made) / self._made if self._made else None
        here = Progress(
            self._before + self._done,
            len(self._work),
            self._failed,
            self._spared + self._made,
            total,
            seconds,
            left,
            message,
        )
        self._report(here)
        return here


@dataclass(frozen=True)
class Status:
    """What a study folder holds: tasks done and planned, failures with their reasons, rows by state."""

    title: str
    done: int
    total: int
    failures: tuple[dict[str, str], ...]
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every planned task has its results."""
        return self.done == self.total

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """Plain data; the traces of failures are left in the folder."""
        brief = [{name: entry[name] for name in entry if name != "trace"} for entry in self.failures]
        return {
            "title": self.title,
            "done": self.done,
            "total": self.total,
            "complete": self.complete,
            "failures": brief,
            "rows": self.rows,
        }


def status(root: Path, count: bool = True) -> Status:
    """Read a study folder; ``BadData`` where it holds none. count: also the rows by state, which opens every part."""
    folder = StudyFolder(Path(root))
    tasks = folder.tasks()
    done = sum(folder.done(task) for task in tasks)
    rows = _rows_by_state(Path(root)) if count else {}
    return Status(folder.study().title, done, len(tasks), tuple(folder.failures()), rows)


def _rows_by_state(root: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    paths = files_of(root, "measures")
    check(paths, tables.MEASURES)
    for path in paths:
        for entry in pq.read_table(path, columns=["state"])["state"].value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


@dataclass(frozen=True)
class Check:
    """What a verification found; ``problems`` is empty when all is well; difference: the largest recomputed one."""

    tasks: int
    recomputed: int
    identical: int
    difference: float
    problems: tuple[str, ...]


TOLERANCE = 1e-4  # between machines; on one machine with the same threads equal tasks are equal to the bit


def verify(root: Path, bench: Workbench, recompute: int = 3, seed: int = 0) -> Check:
    """Every planned cell and image is there once, and ``recompute`` tasks drawn by ``seed`` give the same numbers."""
    folder = StudyFolder(Path(root))
    plan = make_plan(folder.study(), bench)
    problems = [f"{len(plan.tasks)} tasks are planned now, {len(folder.tasks())} were when the study began"] * (
        {task.id for task in plan.tasks} != {task.id for task in folder.tasks()}
    )
    missing = [task for task in plan.tasks if not folder.done(task)]
    problems += [f"{len(missing)} of {len(plan.tasks)} tasks have no results; resume the study"] * bool(missing)
    whole = merged(Path(root))
    keys = whole.select(["checkpoint", "explainer", "fill", "seed", "unit", "metric"]).to_pandas()
    twice = int(keys.duplicated().sum())
    problems += [f"{twice} rows stand twice"] * bool(twice)
    there = [task for task in plan.tasks if folder.done(task)]
    chosen = np.random.default_rng(seed).permutation(len(there))[:recompute]
    identical, worst = 0, 0.0
    for index in chosen:
        task = there[int(index)]
        part = perform(task, plan, bench)
        gap = _difference(part.measures, pq.read_table(folder.measures(task)))
        identical += gap == 0
        worst = max(worst, gap)
        if gap > TOLERANCE:
            problems.append(
                f"{task.checkpoint} · {task.explainer}, images {task.start} to {task.stop - 1}: off by {gap:.2g}"
            )
    return Check(len(plan.tasks), len(chosen), identical, worst, tuple(problems))


def _difference(made: pa.Table, kept: pa.Table) -> float:
    """Largest difference of two tables' values; infinite where they are not about the same rows."""
    names = ["fill", "unit", "metric", "state"]
    if made.select(names).to_pylist() != kept.select(names).to_pylist():
        return float("inf")
    a, b = (np.nan_to_num(table["value"].to_numpy(zero_copy_only=False)) for table in (made, kept))
    return float(np.abs(a - b).max(initial=0.0))


def merged(root: Path) -> pa.Table:
    """All measures of a study in one table whose order is fixed; ``BadData`` where there are none yet."""
    paths = files_of(Path(root), "measures")
    if not paths:
        raise BadData(f"{root} has no results yet; run or resume the study")
    check(paths, tables.MEASURES)
    return tables.merge(paths, tables.MEASURES, tables.ORDER)


def merged_curves(root: Path) -> pa.Table:
    """All curves of a study in one table whose order is fixed; empty where none were kept."""
    paths = files_of(Path(root), "curves")
    check(paths, tables.CURVES)
    return tables.merge(paths, tables.CURVES, tables.CURVE_ORDER)
