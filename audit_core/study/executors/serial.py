"""In this process, one task after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from audit_core.params import Between
from audit_core.study.executors.base import EXECUTORS, Done, Executor, Stop
from audit_core.study.plan import Plan, Task
from audit_core.study.worker import Worker
from audit_core.workbench import Workbench


class Stopped(BaseException):
    """Raised inside a task when the work was stopped; not an ``Exception``, so that no one takes it for a failure."""


@EXECUTORS.register("in-process")
@dataclass(frozen=True)
class InProcess(Executor):
    """In this process, one task after the other, with all threads that torch has."""

    title: ClassVar[str] = "In this process"
    threads: Annotated[int, Between(0, 1024, "threads", "Threads of torch; 0 leaves them as they are.")] = 0

    def run(self, root: Path, plan: Plan, tasks: Sequence[Task], bench: Workbench, done: Done, stop: Stop) -> None:
        """Stops within a fill of a task."""
        worker = Worker(root, bench, self.threads or None, plan)

        def look(fraction: float) -> None:
            if stop():
                raise Stopped

        for task in tasks:
            if stop():
                return
            try:
                outcome = worker.do(task.id, look)
            except Stopped:
                return
            done(outcome)
