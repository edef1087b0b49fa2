"""A worker process: task identities come in on stdin, outcomes go out on stdout, one JSON object a line.

``python -m audit_core.study.executors.child ROOT STORE DEVICE THREADS``, started by :mod:`.processes`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from audit_core.errors import AuditError
from audit_core.store import Store
from audit_core.study.executors.line import digest
from audit_core.study.worker import Worker
from audit_core.workbench import Workbench


def main(root: str, store: str, device: str, threads: str) -> None:
    """Open the study once, then do what is asked until the parent ends this process or dies itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent sees to this process
    answers = _answers()
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, tasks), daemon=True).start()
    try:
        worker = Worker(Path(root), Workbench(Store(store), device), int(threads))
    except AuditError as error:
        _say(answers, {"problem": f"cannot open the study: {error}"})
        return
    _say(answers, {"plan": digest(worker.plan)})
    while True:
        _say(answers, dataclasses.asdict(worker.do(tasks.get())))


def _answers() -> TextIO:
    """The pipe to the parent, for this module alone: whatever else prints goes to stderr."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _listen(lines: Iterable[str], tasks: queue.SimpleQueue[str]) -> None:
    """Queue what is asked; a closed pipe means that the parent is gone, and results are written whole or not at all."""
    for line in lines:
        tasks.put(line.strip())
    os._exit(0)


def _say(answers: TextIO, message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
