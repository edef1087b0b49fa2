"""Worker processes on this machine, each with its own models and threads."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from audit_core.errors import AuditError
from audit_core.params import Between
from audit_core.study.executors.base import EXECUTORS, Done, Executor, Stop
from audit_core.study.executors.line import FOREIGN, Line, digest
from audit_core.study.plan import Plan, Task
from audit_core.study.worker import Outcome
from audit_core.workbench import Workbench

STARTS = 3  # so many workers in a row that die before they are ready end the run
PATIENCE = 0.5  # seconds between two looks whether to stop
CODE = Path(__file__).resolve().parents[3]  # holds the packages that a worker imports

Message = dict[str, Any] | None  # Any: JSON data; None: the process is gone
Events = queue.SimpleQueue["tuple[_Process, Message]"]


@EXECUTORS.register("processes")
@dataclass(frozen=True)
class Processes(Executor):
    """Worker processes on this machine, one thread each: small models gain more from this than from threads.

    A worker that is killed loses nothing but the task it was at, which another one does again.
    """

    title: ClassVar[str] = "Processes on this machine"
    workers: Annotated[int, Between(0, 1024, "processes", "Worker processes; 0 is one for each core.")] = 0
    threads: Annotated[int, Between(1, 1024, "threads", "Threads of torch in each worker.")] = 1

    def run(self, root: Path, plan: Plan, tasks: Sequence[Task], bench: Workbench, done: Done, stop: Stop) -> None:
        """Stops within a second: workers are ended in the middle of their tasks."""
        if not tasks:
            return
        command = worker_command(Path(root).resolve(), bench, self.threads)
        crew = _Crew(command, min(self.workers or cores(), len(tasks)), digest(plan), Line(root, tasks, done))
        try:
            while crew.line.left and not stop():
                crew.step()
        finally:
            crew.end()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_command(root: Path, bench: Workbench, threads: int) -> list[str]:
    """A fresh interpreter rather than a spawned copy of this one: whatever program asks is not run a second time."""
    words = [str(root), str(bench.store.directory), str(bench.device), str(threads)]
    return [sys.executable, "-m", "audit_core.study.executors.child", *words]


class _Process:
    """One worker: its process, the task it is at, the one before."""

    def __init__(self, command: Sequence[str], events: Events) -> None:
        path = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH", "")]))
        environment, pipe = {**os.environ, "PYTHONPATH": path}, subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment)
        self.ready = False
        self.task: Task | None = None
        self.last: Task | None = None
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def _listen(self, events: Events) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # half a line of a killed process
            for line in self._process.stdout:
                events.put((self, json.loads(line)))
        events.put((self, None))

    def give(self, task: Task) -> None:
        """Ask for a task; should the process be gone, its listener tells."""
        self.task = self.last = task
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(f"{task.id}\n")
            self._process.stdin.flush()

    def end(self) -> int:
        """End the process, wherever it is, and wait for it; returns its exit code."""
        self._process.kill()  # parts are written whole or not at all, so there is nothing to tidy up
        code = self._process.wait()
        self._listener.join()
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with suppress(OSError):
                pipe.close()
        return code


class _Crew:
    """``size`` workers at most; the dead are replaced as long as there is work for them."""

    def __init__(self, command: Sequence[str], size: int, expected: str, line: Line) -> None:
        self.line = line
        self._command, self._size, self._expected = command, size, expected
        self._events: Events = queue.SimpleQueue()
        self._workers: list[_Process] = []
        self._stillborn = 0

    def step(self) -> None:
        """Fill the places, hand out tasks, and take in what one worker said."""
        while len(self._workers) < min(self._size, self.line.left):
            self._workers.append(_Process(self._command, self._events))
        for worker in self._workers:
            if worker.ready and worker.task is None and (task := self.line.take(worker.last)) is not None:
                worker.give(task)
        with suppress(queue.Empty):
            worker, message = self._events.get(timeout=PATIENCE)
            self._bury(worker) if message is None else self._hear(worker, message)

    def _hear(self, worker: _Process, message: dict[str, Any]) -> None:
        if "task" in message:
            worker.task = None
            self.line.end(Outcome(**message))
        elif message.get("plan") == self._expected:
            worker.ready, self._stillborn = True, 0
        else:
            raise AuditError(f"a worker process {message.get('problem', FOREIGN)}")

    def _bury(self, worker: _Process) -> None:
        self._workers.remove(worker)
        code = worker.end()
        if worker.task is not None:
            self.line.lose(worker.task)
        self._stillborn += not worker.ready
        if self._stillborn >= STARTS:
            raise AuditError(
                f"{STARTS} worker processes ended before they were ready (exit code {code}); if memory is short, "
                "give fewer workers, else see what they wrote to the terminal"
            )

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.end()
