"""A worker on a machine of a cluster; a plain class, so that it can be tried without one."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

from audit_core.errors import AuditError
from audit_core.store import Store, default_directory
from audit_core.study.executors.line import digest
from audit_core.study.worker import Worker
from audit_core.workbench import Workbench


class Seat:
    """Keeps the study's models loaded on one machine, with that machine's own store; all answers are plain data."""

    def __init__(self, root: str, place: str, device: str, threads: int) -> None:
        if os.path.isdir(place):
            os.chdir(place)  # relative paths of the study mean here what they mean where it was begun
        self._root, self._device, self._threads = Path(root), device, threads
        self._worker: Worker | None = None

    def greet(self, token: str) -> dict[str, str]:
        """Open the study; tells the digest of its plan, or the problem."""
        node = platform.node()
        try:
            _share(self._root, token)
            bench = Workbench(Store(default_directory()), self._device)
            self._worker = Worker(self._root, bench, self._threads)
        except AuditError as error:
            return {"node": node, "problem": f"cannot open the study: {error}"}
        return {"node": node, "plan": digest(self._worker.plan)}

    def do(self, task: str) -> dict[str, Any]:  # Any: words and numbers
        """Do one task; the fields of its outcome."""
        if self._worker is None:
            raise RuntimeError("greet comes first")
        return dataclasses.asdict(self._worker.do(task))


def _share(root: Path, token: str) -> None:
    """``AuditError`` unless this machine reads and writes the folder in which ``token`` was put."""
    shared = f"{root} must be one folder that all machines share, at the same path (NFS, for example)"
    try:
        found = (root / f".folder-{token}").read_text(encoding="utf-8")
    except OSError:
        raise AuditError(f"the study's folder is not there, or it is another one; {shared}") from None
    if found != token:
        raise AuditError(f"the study's folder holds other words than were written; {shared}")
    try:
        trial = root / f".folder-{token}-{platform.node()}-{os.getpid()}"
        trial.write_text(token, encoding="utf-8")
        trial.unlink()
    except OSError as error:
        raise AuditError(f"the study's folder cannot be written ({error.strerror}); {shared}") from None
