"""Workers on the machines of a Ray cluster, or of a small one that is started for the run."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from audit_core.borrow import untouched_random_state
from audit_core.errors import AuditError, InvalidParameter, Refused
from audit_core.params import Between, Note
from audit_core.study.executors.base import EXECUTORS, Done, Executor, Stop
from audit_core.study.executors.line import FOREIGN, Line, digest
from audit_core.study.executors.processes import CODE, PATIENCE, STARTS, cores
from audit_core.study.executors.seat import Seat
from audit_core.study.plan import Plan, Task
from audit_core.study.worker import Outcome
from audit_core.workbench import Workbench

INSTALL = "Ray is not installed; pip install 'ray>=2.40', here and on every machine of the cluster"
LOOK = 5.0  # seconds between two looks at the cluster's nodes
LONELY = 300.0  # seconds without any worker after which the run gives up
OBJECTS = 100 * 1024**2  # bytes of Ray's object store: results do not pass through it


@EXECUTORS.register("ray")
@dataclass(frozen=True)
class RayCluster(Executor):
    """Workers on every machine of a Ray cluster; each keeps its models loaded and writes into the study's folder.

    The folder, the checkpoints and the data must lie at the same path on every machine, and the same version of this
    project too. A worker or a whole machine that dies loses nothing but the tasks it was at, which others do again.
    """

    title: ClassVar[str] = "A Ray cluster"
    address: Annotated[
        str, Note("auto, HOST:PORT or ray://HOST:PORT; empty: the cluster of this machine, else one for this run.")
    ] = ""
    workers: Annotated[int, Between(0, 10_000, "workers", "Workers at most; 0 is as many as there is room for.")] = 0
    cpus_per_worker: Annotated[float, Between(0.1, 1024, "cores", "Reserved per worker, and its threads.")] = 1.0
    gpus_per_worker: Annotated[float, Between(0, 64, "GPUs", "Reserved per worker; 0 computes on CPUs.")] = 0.0

    def refuse(self) -> str | None:
        """Ray is an optional dependency."""
        return None if importlib.util.find_spec("ray") else INSTALL

    def run(self, root: Path, plan: Plan, tasks: Sequence[Task], bench: Workbench, done: Done, stop: Stop) -> None:
        """Stops within a second or two; a cluster that was there before is left as it was found."""
        if reason := self.refuse():
            raise Refused(reason)
        if not tasks:
            return
        folder = Path(root).resolve()
        with _connected(self.address) as ray, _token(folder) as token:
            crew = _Crew(ray, self, folder, token, digest(plan), Line(folder, tasks, done))
            try:
                while crew.line.left and not stop():
                    crew.step()
            finally:
                crew.end()


@dataclass
class _Place:
    """One actor: the call it is at, and the task if it is one; ``ready`` once the study is open there."""

    actor: Any  # Any: a handle of Ray's
    call: Any  # Any: a reference of Ray's; None when idle
    ready: bool = False
    task: Task | None = None
    last: Task | None = None


class _Crew:
    """As many actors as there is room and work for; the dead are replaced, machines that join later are used."""

    def __init__(self, ray: Any, asked: RayCluster, root: Path, token: str, expected: str, line: Line) -> None:
        self.line = line
        self._ray, self._asked, self._token, self._expected = ray, asked, token, expected
        device = "cuda" if asked.gpus_per_worker else "cpu"
        self._arguments = (str(root), os.getcwd(), device, max(1, int(asked.cpus_per_worker)))
        self._actors = ray.remote(Seat).options(
            num_cpus=asked.cpus_per_worker,
            num_gpus=asked.gpus_per_worker,
            max_restarts=0,  # a new actor takes the place of a dead one, wherever there is room by then
            runtime_env={"env_vars": {"PYTHONPATH": f"{CODE}{os.pathsep}${{PYTHONPATH}}"}},
        )
        self._places: list[_Place] = []
        self._stillborn = 0
        self._room, self._looked, self._peopled = self._count_room(), time.monotonic(), time.monotonic()
        if not self._room:
            raise InvalidParameter(self._no_room())

    def step(self) -> None:
        """Fill the places, hand out tasks, and take in what one worker said."""
        if time.monotonic() - self._looked > LOOK:
            self._room, self._looked = self._count_room(), time.monotonic()
        while len(self._places) < min(self._room, self.line.left):
            actor = self._actors.remote(*self._arguments)
            self._places.append(_Place(actor, actor.greet.remote(self._token)))
        for place in self._places:
            if place.call is None and (task := self.line.take(place.last)) is not None:
                place.task = place.last = task
                place.call = place.actor.do.remote(task.id)
        calls = {place.call: place for place in self._places if place.call is not None}
        ended, _ = self._ray.wait(list(calls), num_returns=1, timeout=PATIENCE) if calls else ([], [])
        for call in ended:
            self._hear(calls[call])
        if any(place.ready for place in self._places):
            self._peopled = time.monotonic()
        elif time.monotonic() - self._peopled > LONELY:
            raise AuditError(f"no worker could be started for {LONELY:.0f} s; {self._no_room()}")

    def _hear(self, place: _Place) -> None:
        try:
            said = self._ray.get(place.call)
        except self._ray.exceptions.RayError as error:  # its process or its machine is gone
            self._bury(place, error)
            return
        place.call = None
        if place.task is not None:
            place.task = None
            self.line.end(Outcome(**said))
        elif said.get("plan") == self._expected:
            place.ready, self._stillborn = True, 0
        else:
            raise AuditError(f"a worker on {said['node']} {said.get('problem', FOREIGN)}")

    def _bury(self, place: _Place, error: Exception) -> None:
        self._places.remove(place)
        if place.task is not None:
            self.line.lose(place.task)
        self._stillborn += not place.ready
        if self._stillborn >= STARTS * max(1, self._room):
            cause = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            raise AuditError(
                f"{self._stillborn} workers in a row ended before they were ready ({cause.strip()}); compare "
                "RAY_AUTH_MODE and the versions of Python and Ray on all machines, see docs/studies-at-scale.md"
            )

    def _count_room(self) -> int:
        """How many workers fit on the machines that are there now."""
        asked, room = self._asked, 0
        for node in self._ray.nodes():
            if node["Alive"]:
                fits = node["Resources"].get("CPU", 0) / asked.cpus_per_worker
                if asked.gpus_per_worker:
                    fits = min(fits, node["Resources"].get("GPU", 0) / asked.gpus_per_worker)
                room += int(fits + 1e-9)
        return min(room, asked.workers or room)

    def _no_room(self) -> str:
        there = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in there)
        return (
            f"a worker asks for {self._asked.cpus_per_worker:g} CPUs and {self._asked.gpus_per_worker:g} GPUs of one "
            f"machine; the cluster's machines have {found or 'nothing'}; ask for less or add machines"
        )

    def end(self) -> None:
        """End all actors in the middle of whatever they do."""
        for place in self._places:
            self._ray.kill(place.actor)


@contextmanager
def _token(root: Path) -> Iterator[str]:
    """A word in a file of the study's folder, for the time of a run: a worker that reads it has the same folder."""
    token = secrets.token_hex(8)
    path = root / f".folder-{token}"
    path.write_text(token, encoding="utf-8")
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _connected(address: str) -> Iterator[Any]:  # Any: the package ray
    """A connection for the block: the one that is there, else to ``address``, else to a Ray of our own on this machine.

    A cluster of others is only left; our own is ended. Environment and signal handlers are as found afterwards.
    """
    with _as_found():
        import ray

        theirs = ray.is_initialized()
        if not theirs:
            _connect(ray, address)
    try:
        yield ray
    finally:
        if not theirs:
            with _as_found():
                ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address != "local":
            ray.init(address=address or "auto", **quiet)
            return
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        if address:
            raise AuditError(
                f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); begin one with "
                "'ray start --head', or leave the address empty"
            ) from None
    ray.init(address="local", num_cpus=cores(), include_dashboard=False, object_store_memory=OBJECTS, **quiet)


@contextmanager
def _as_found() -> Iterator[None]:
    """Ray sets variables, a handler and a hook and draws random numbers; all is as it was after the block."""
    environment, hook = dict(os.environ), sys.excepthook
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    try:
        with untouched_random_state():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ |= environment
        sys.excepthook = hook
        if main:
            signal.signal(signal.SIGTERM, handler)
