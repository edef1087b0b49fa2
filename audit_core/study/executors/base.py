"""The one interface of all executors: do these tasks of that study folder, tell of each that ends, stop when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from audit_core.registry import Registry
from audit_core.study.plan import Plan, Task
from audit_core.study.worker import Outcome
from audit_core.workbench import Workbench

#: Called once for every task that ends, from the calling thread.
Done = Callable[[Outcome], None]
#: Asked at least once a second; True stops the work: tasks in flight are dropped or end, no new one begins.
Stop = Callable[[], bool]


class Executor:
    """Base of all executors; the registered ones are frozen dataclasses whose fields are their parameters.

    Results are written by whoever does a task, into the study's folder, which all workers must be able to reach. Every
    task of ``tasks`` is reported once unless the work was stopped; tasks may run in any order.
    """

    title: ClassVar[str]

    def refuse(self) -> str | None:
        """The sentence why this executor cannot work here, or None."""
        return None

    def run(self, root: Path, plan: Plan, tasks: Sequence[Task], bench: Workbench, done: Done, stop: Stop) -> None:
        """Do ``tasks`` of the study in ``root``; returns when all have ended or the work was stopped."""
        raise NotImplementedError


EXECUTORS: Registry[Executor] = Registry("executor")
