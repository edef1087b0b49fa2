"""Does tasks of one study folder, in whatever process or on whatever machine it is made."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from audit_core.errors import AuditError
from audit_core.study.engine import perform
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import Plan, Task, make_plan
from audit_core.workbench import Workbench

#: report(fraction of the task done); may raise to stop the work.
Report = Callable[[float], None]


@dataclass(frozen=True)
class Outcome:
    """How one task ended: ``reason`` is empty when its results are written, else one sentence."""

    task: str
    seconds: float
    forwards: int
    reason: str = ""


class Worker:
    """Keeps the study's models loaded and does one task at a time; results go into the folder.

    threads: of torch in this process, None leaves them as they are. Doing a task whose results are there costs nothing,
    so tasks may be given out twice.
    """

    def __init__(self, root: Path, bench: Workbench, threads: int | None = None, plan: Plan | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.folder = StudyFolder(Path(root))
        self.plan = plan or make_plan(self.folder.study(), bench)
        self.bench = bench
        self._tasks = {task.id: task for task in self.plan.tasks}

    def do(self, task_id: str, report: Report = lambda fraction: None) -> Outcome:
        """Do one task of the plan; whatever goes wrong in it is remembered in the folder and stops no other."""
        task, began = self._task(task_id), time.perf_counter()
        if self.folder.done(task):
            return Outcome(task_id, 0.0, 0)
        try:
            part = perform(task, self.plan, self.bench, report)
            self.folder.keep(task, part.measures, part.curves)
        except Exception as error:  # isolated: the other cells go on, and the reason is kept
            reason = str(error) if isinstance(error, AuditError) else f"{type(error).__name__}: {error}"
            with suppress(OSError):  # a full disk: the reason travels with the outcome
                self.folder.fail(task, reason, traceback.format_exc())
            return Outcome(task_id, time.perf_counter() - began, 0, reason)
        return Outcome(task_id, time.perf_counter() - began, part.forwards)

    def _task(self, task_id: str) -> Task:
        if task_id not in self._tasks:
            raise AuditError(
                f"task {task_id} is not planned here: weights, images or code differ from those the study began with"
            )
        return self._tasks[task_id]
