"""Tasks in line: which worker takes which one next, and what becomes of a task whose worker died."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from audit_core.study.executors.base import Done
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import Plan, Task
from audit_core.study.worker import Outcome

KILLS = 3  # a task that has cost so many workers their life is given up, with the reason

Group = tuple[str, str]  # checkpoint, explainer


class Line:
    """The tasks of one run: handed out one by one, handed out again when a worker is lost, each reported once."""

    def __init__(self, root: Path, tasks: Sequence[Task], done: Done) -> None:
        self._folder, self._done = StudyFolder(root), done
        self._waiting: dict[Group, deque[Task]] = {}
        self._work: Counter[Group] = Counter()
        self._out: dict[str, Task] = {}
        self._kills: Counter[str] = Counter()
        for task in tasks:
            self._waiting.setdefault(_group(task), deque()).append(task)
            self._work[_group(task)] += task.forwards + 2 * task.backwards

    @property
    def waiting(self) -> int:
        """Tasks that no worker has."""
        return sum(map(len, self._waiting.values()))

    @property
    def left(self) -> int:
        """Tasks that have not ended."""
        return self.waiting + len(self._out)

    def take(self, last: Task | None) -> Task | None:
        """The next task of a worker whose previous one was ``last``; None when none waits.

        A worker stays with its checkpoint and explainer as long as there is work for them; then it goes where the
        fewest others are, and among those where the most work is left.
        """
        groups = [group for group, tasks in self._waiting.items() if tasks]
        if not groups:
            return None
        here = _group(last) if last else ("", "")
        at = Counter(task.checkpoint for task in self._out.values())
        on = Counter(_group(task) for task in self._out.values())
        best = min(groups, key=lambda g: (g != here, g[0] != here[0], at[g[0]], on[g], -self._work[g]))
        task = self._waiting[best].popleft()
        self._work[best] -= task.forwards + 2 * task.backwards
        self._out[task.id] = task
        return task

    def end(self, outcome: Outcome) -> None:
        """A task ended, well or not."""
        if self._out.pop(outcome.task, None) is not None:
            self._done(outcome)

    def lose(self, task: Task) -> None:
        """The worker of a task died: the task waits again, or is given up when it has cost too many workers."""
        self._kills[task.id] += 1
        if self._kills[task.id] < KILLS:
            del self._out[task.id]
            self._waiting[_group(task)].appendleft(task)
            self._work[_group(task)] += task.forwards + 2 * task.backwards
            return
        reason = f"the worker was killed {KILLS} times on this task; if memory was short, give fewer workers"
        self._folder.fail(task, reason, "")
        self.end(Outcome(task.id, 0.0, 0, reason))


def _group(task: Task) -> Group:
    return task.checkpoint, task.explainer


def digest(plan: Plan) -> str:
    """What a worker's own plan must agree in with the one the tasks were taken from."""
    return hashlib.sha256("".join(task.id for task in plan.tasks).encode()).hexdigest()


FOREIGN = "plans other tasks than were planned here; use the same weights, images and code everywhere"
