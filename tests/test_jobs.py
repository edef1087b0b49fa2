"""Jobs: one at a time per device, shared by id, fair between owners, stopped within one chunk."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from audit_core.errors import AuditError, Refused
from audit_core.jobs import STATES, JobContext, JobManager, Snapshot, TooManyJobs

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds until a test gives up; nothing here comes near on an idle machine


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """Work that runs, with checkpoints, until it is opened."""

    def __init__(self, name: str = "gate", log: list[str] | None = None) -> None:
        self.name, self.log = name, [] if log is None else log
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, context: JobContext) -> str:
        self.log.append(self.name)
        self.entered.set()
        while not self.opened.wait(0.01):
            context.checkpoint()
        return f"result of {self.name}"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def finished(manager: JobManager, job_id: str) -> Snapshot:
    snapshot = manager.wait(job_id, PATIENCE)
    assert snapshot is not None
    assert snapshot.final, snapshot
    return snapshot


@pytest.fixture
def manager() -> Iterator[JobManager]:
    manager = JobManager(per_owner=100)
    yield manager
    manager.shutdown()


def test_a_job_goes_from_queued_over_running_to_done(manager: JobManager) -> None:
    first, second = Gate("first"), Gate("second")
    manager.submit("1", "one", first, "ann")
    assert first.entered.wait(PATIENCE)
    queued = manager.submit("2", "two", second, "ann")
    assert (queued.state, queued.ahead, queued.label, queued.seconds, queued.final) == ("queued", 1, "two", 0.0, False)
    running = manager.get("1")
    assert running is not None
    assert (running.state, running.ahead, running.result) == ("running", 0, None)
    assert manager.stats() == dict.fromkeys(STATES, 0) | {"running": 1, "queued": 1}
    first.opened.set()
    second.opened.set()
    done = finished(manager, "1")
    assert (done.state, done.fraction, done.result, done.error) == ("done", 1.0, "result of first", None)
    assert finished(manager, "2").result == "result of second"
    assert running.state == "running"  # a snapshot never changes
    with pytest.raises(AttributeError, match="cannot assign to field"):
        running.state = "done"  # type: ignore[misc]
    assert manager.get("unknown") is None
    assert manager.wait("unknown", 0) is None
    assert manager.attach("unknown", "ann") is None


def test_progress_partials_and_versions(manager: JobManager) -> None:
    step, seen = threading.Semaphore(0), threading.Semaphore(0)

    def work(context: JobContext) -> int:
        for fraction, message, partial in (
            (0.1, "a", (1,)),
            (0.5, "b", None),
            (7.0, "c", (1, 2)),
            (float("nan"), "", None),
        ):
            assert step.acquire(timeout=PATIENCE)
            context.report(fraction, message, partial)
            seen.release()
        assert step.acquire(timeout=PATIENCE)
        return 42

    manager.submit("1", "one", work, "ann")
    shown = []
    for _ in range(4):
        step.release()
        assert seen.acquire(timeout=PATIENCE)
        shown.append(manager.get("1"))
    step.release()
    assert [(s.fraction, s.message, s.partial, s.version) for s in shown if s] == [
        (0.1, "a", (1,), 1),
        (0.5, "b", (1,), 1),
        (1.0, "c", (1, 2), 2),
        (0.0, "", (1, 2), 2),
    ]
    done = finished(manager, "1")
    assert (done.result, done.partial) == (42, None)


def test_two_owners_share_one_job(manager: JobManager) -> None:
    gate = Gate()
    manager.submit("1", "one", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    assert manager.submit("1", "one", Gate("other", gate.log), "bob").state == "running"
    gate.opened.set()
    assert finished(manager, "1").result == "result of gate"
    assert manager.submit("1", "one", Gate("third", gate.log), "cyd").result == "result of gate"
    assert gate.log == ["gate"]
    assert [len(manager.of_owner(owner)) for owner in ("ann", "bob", "cyd", "dan")] == [1, 1, 1, 0]


def test_nobody_sees_the_jobs_of_others(manager: JobManager) -> None:
    for owner in ("ann", "bob"):
        manager.submit(f"of {owner}", "one", lambda context, owner=owner: f"secret of {owner}", owner)
        finished(manager, f"of {owner}")
    assert [s.result for s in manager.of_owner("ann")] == ["secret of ann"]
    assert [s.result for s in manager.of_owner("bob")] == ["secret of bob"]
    manager.get("of ann", "bob")
    manager.cancel("of ann", "bob")
    assert [s.job_id for s in manager.of_owner("bob")] == ["of bob"]
    manager.attach("of ann", "bob")
    assert [s.job_id for s in manager.of_owner("bob")] == ["of ann", "of bob"]


def test_one_owner_with_many_jobs_does_not_starve_the_others(manager: JobManager) -> None:
    log: list[str] = []
    gate = Gate("a0", log)
    manager.submit("a0", "", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    names = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"]
    for name in names:
        manager.submit(
            name, "", lambda context, name=name: log.append(name), {"a": "ann", "b": "bob", "c": "cyd"}[name[0]]
        )
    expected = ["b1", "c1", "a1", "b2", "a2", "a3", "a4"]  # ann is being served, so the others come first
    ahead = {name: snapshot.ahead for name in names if (snapshot := manager.get(name))}
    assert ahead == {name: place + 1 for place, name in enumerate(expected)}
    gate.opened.set()
    for name in names:
        finished(manager, name)
    assert log == ["a0", *expected]


def test_a_late_comer_waits_for_one_job_of_each_other_at_most(manager: JobManager) -> None:
    log: list[str] = []
    gates = {name: Gate(name, log) for name in ("a0", "a1", "a2", "a3", "b0", "b1")}
    for name in ("a0", "a1", "a2", "a3"):
        manager.submit(name, "", gates[name], "ann")
    assert gates["a0"].entered.wait(PATIENCE)
    gates["a0"].opened.set()
    assert gates["a1"].entered.wait(PATIENCE)
    manager.submit("b0", "", gates["b0"], "bob")
    manager.submit("b1", "", gates["b1"], "bob")
    for gate in gates.values():
        gate.opened.set()
    for name in gates:
        finished(manager, name)
    assert log == ["a0", "a1", "b0", "a2", "b1", "a3"]


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_round_robin(manager: JobManager, seed: int) -> None:
    rng, gate, log = np.random.default_rng(seed), Gate(), list[str]()
    manager.submit("gate", "", gate, "gate")
    assert gate.entered.wait(PATIENCE)
    queues: dict[str, deque[str]] = {}
    for number in range(25):
        owner = "abcd"[rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])]
        manager.submit(f"{owner}{number}", "", lambda context, name=f"{owner}{number}": log.append(name), owner)
        queues.setdefault(owner, deque()).append(f"{owner}{number}")
    expected = []
    while queues:  # literal: each owner in turn gives one job
        for owner in list(queues):
            expected.append(queues[owner].popleft())
            if not queues[owner]:
                del queues[owner]
    gate.opened.set()
    for name in expected:
        finished(manager, name)
    assert log == expected


def test_cancelling_waiting_jobs_costs_no_turn(manager: JobManager) -> None:
    log: list[str] = []
    gate = Gate("gate", log)
    manager.submit("gate", "", gate, "dan")
    assert gate.entered.wait(PATIENCE)
    for number in range(5):
        manager.submit(f"a{number}", "", Gate(f"a{number}", log), "ann")
        manager.cancel(f"a{number}", "ann")
    for name, owner in (("a9", "ann"), ("b1", "bob"), ("b2", "bob")):
        manager.submit(name, "", lambda context, name=name: log.append(name), owner)
    gate.opened.set()
    for name in ("a9", "b1", "b2"):
        finished(manager, name)
    assert log == ["gate", "a9", "b1", "b2"]


def test_a_shared_job_takes_the_better_place(manager: JobManager) -> None:
    gate, noop = Gate(), lambda context: None
    manager.submit("gate", "", gate, "dan")
    assert gate.entered.wait(PATIENCE)
    for name in ("a1", "a2", "a3"):
        manager.submit(name, "", noop, "ann")
    manager.submit("b1", "", noop, "bob")
    manager.submit("a3", "", noop, "cyd")
    places = [snapshot.ahead for name in ("a1", "b1", "a3", "a2") if (snapshot := manager.get(name))]
    assert places == [1, 2, 3, 4]
    gate.opened.set()


def test_devices_work_side_by_side_each_on_one_job(manager: JobManager) -> None:
    at_work, most = dict.fromkeys(("cpu", "cuda"), 0), dict.fromkeys(("cpu", "cuda"), 0)

    def work(device: str) -> Callable[[JobContext], None]:
        def run(context: JobContext) -> None:
            at_work[device] += 1
            most[device] = max(most[device], at_work[device])
            time.sleep(0.005)
            at_work[device] -= 1

        return run

    both = threading.Barrier(2, timeout=PATIENCE)
    for device in ("cpu", "cuda"):
        manager.submit(f"meet on {device}", "", lambda context: both.wait() >= 0, "ann", device)
    for number in range(8):
        for device in ("cpu", "cuda"):
            manager.submit(f"{device} {number}", "", work(device), f"owner {number % 3}", device)
    for number in range(8):
        for device in ("cpu", "cuda"):
            assert finished(manager, f"{device} {number}").state == "done"
    assert finished(manager, "meet on cpu").result is True
    assert most == {"cpu": 1, "cuda": 1}


def test_cancel_stops_within_one_chunk(manager: JobManager) -> None:
    chunk, chunks = threading.Semaphore(0), []

    def work(context: JobContext) -> None:
        try:
            for number in range(1000):
                context.report(number / 1000, partial=number)
                chunks.append(number)
                assert chunk.acquire(timeout=PATIENCE)
        except Exception:
            chunks.append(-1)  # a cancel is no error that the work may handle

    manager.submit("1", "one", work, "ann")
    chunk.release()
    until(lambda: len(chunks) == 2)
    manager.cancel("1", "ann")
    stopping = manager.get("1", "ann")
    assert stopping is not None
    assert (stopping.state, stopping.final, stopping.seconds_left) == ("stopping", False, None)
    assert [s.state for s in manager.of_owner("ann")] == ["stopping"]
    assert manager.stats()["stopping"] == 1
    chunk.release()
    ended = finished(manager, "1")
    assert (ended.state, ended.fraction, ended.partial, ended.result) == ("cancelled", 0.001, 1, None)
    assert chunks == [0, 1]


def test_a_cancelled_waiting_job_never_runs(manager: JobManager) -> None:
    gate = Gate()
    manager.submit("1", "one", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    manager.submit("2", "two", Gate("never", gate.log), "ann")
    manager.cancel("2", "ann")
    cancelled = manager.get("2")
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    gate.opened.set()
    finished(manager, "1")
    manager.submit("3", "three", lambda context: None, "ann")
    finished(manager, "3")
    assert gate.log == ["gate"]


def test_cancel_by_one_of_two_owners_only_detaches_it(manager: JobManager) -> None:
    gate = Gate()
    manager.submit("1", "one", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    manager.submit("1", "one", gate, "bob")
    manager.cancel("1", "stranger")
    manager.cancel("1", "ann")
    assert manager.of_owner("ann") == []
    assert [s.state for s in manager.of_owner("bob")] == ["running"]
    manager.cancel("1", "bob")
    assert finished(manager, "1").state == "cancelled"


def test_a_cancelled_or_failed_job_can_be_started_anew(manager: JobManager) -> None:
    gate, again = Gate(), Gate("again")
    manager.submit("1", "one", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    manager.cancel("1", "ann")
    manager.submit("1", "one", again, "bob")  # while the first one is still stopping
    again.opened.set()
    assert finished(manager, "1").result == "result of again"
    manager.submit("2", "two", lambda context: 1 / 0, "ann")
    assert finished(manager, "2").state == "failed"
    manager.submit("2", "two", lambda context: "mended", "ann")
    repaired = finished(manager, "2")
    assert (repaired.result, repaired.error, repaired.trace) == ("mended", None, None)


def test_a_result_that_came_before_the_next_checkpoint_is_kept(manager: JobManager) -> None:
    entered, go = threading.Event(), threading.Event()

    def work(context: JobContext) -> str:
        entered.set()
        go.wait(PATIENCE)
        return "whole"

    manager.submit("1", "one", work, "ann")
    assert entered.wait(PATIENCE)
    manager.cancel("1", "ann")
    go.set()
    assert finished(manager, "1").result == "whole"


def test_a_failure_is_a_sentence_and_harms_no_other_job(manager: JobManager) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fail(error: BaseException) -> Callable[[JobContext], None]:
        def work(context: JobContext) -> None:
            context.report(0.5, partial="half")
            raise error

        return work

    manager.submit("user", "", fail(Refused("Rollout needs a class token; Swin has none")), "ann")
    manager.submit("bug", "", fail(ZeroDivisionError("division\nby zero")), "ann")
    manager.submit("exit", "", fail(SystemExit(3)), "ann")
    manager.submit("odd", "", fail(Unprintable()), "ann")
    manager.submit("fine", "", lambda context: 7, "ann")
    user, bug = finished(manager, "user"), finished(manager, "bug")
    assert (user.state, user.error, user.trace) == ("failed", "Rollout needs a class token; Swin has none", None)
    assert (user.fraction, user.partial, user.result) == (0.5, "half", None)
    assert (bug.state, bug.error) == ("failed", "An internal error: ZeroDivisionError: division")
    assert bug.trace is not None
    assert "in work" in bug.trace
    assert finished(manager, "exit").error == "An internal error: SystemExit: 3"
    assert "Unprintable" in (finished(manager, "odd").error or "")
    assert finished(manager, "fine").result == 7


def test_an_owner_has_a_limited_number_of_unfinished_jobs() -> None:
    manager, gate = JobManager(per_owner=2), Gate()
    manager.submit("1", "", gate, "ann")
    manager.submit("2", "", gate, "ann")
    with pytest.raises(TooManyJobs, match="2 jobs of yours are waiting or running, which is the limit"):
        manager.submit("3", "", gate, "ann")
    assert manager.get("3") is None
    assert manager.submit("2", "", gate, "ann").state == "queued"  # asking again is no new job
    assert manager.submit("3", "", gate, "bob").state == "queued"
    manager.cancel("2", "ann")
    manager.submit("4", "", gate, "ann")
    gate.opened.set()
    assert finished(manager, "4").state == "done"
    manager.shutdown()


def test_a_job_nobody_asks_for_stops_itself() -> None:
    clock, gate, idle = Clock(), Gate(), Gate("idle")
    manager = JobManager(abandon_after=30, clock=clock)
    manager.submit("1", "", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    manager.submit("2", "", idle, "bob")
    manager.submit("3", "", lambda context: "kept", "cyd")
    for _ in range(3):
        clock.now += 25
        assert [s.state for s in manager.of_owner("ann")] == ["running"]
        assert manager.get("3", "cyd") is not None
    manager.get("1", "stranger")
    assert manager.get("1").state == "running"  # type: ignore[union-attr]
    clock.now += 25
    manager.get("3", "cyd")
    clock.now += 6  # 31 s without ann, 81 without bob
    until(lambda: manager.get("1").final)  # type: ignore[union-attr]
    stopped = manager.get("1")
    assert stopped is not None
    assert (stopped.state, stopped.message) == ("cancelled", "nobody was waiting for it any more")
    assert finished(manager, "3").result == "kept"
    assert finished(manager, "2").state == "cancelled"
    assert idle.log == []
    manager.shutdown()


def test_waiting_for_a_job_keeps_it_alive() -> None:
    manager = JobManager(abandon_after=0.4)

    def work(context: JobContext) -> str:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            context.checkpoint()
            time.sleep(0.01)
        return "whole"

    manager.submit("1", "", work, "ann")
    assert finished(manager, "1").state == "done"
    manager.shutdown()


def test_wait_gives_up_after_its_timeout(manager: JobManager) -> None:
    gate = Gate()
    manager.submit("1", "", gate, "ann")
    start = time.monotonic()
    snapshot = manager.wait("1", 0.1)
    assert snapshot is not None
    assert not snapshot.final
    assert 0.1 <= time.monotonic() - start < PATIENCE
    gate.opened.set()


def test_seconds_and_the_time_left() -> None:
    clock, entered, go = Clock(), threading.Semaphore(0), threading.Semaphore(0)
    manager = JobManager(clock=clock)

    def work(context: JobContext) -> None:
        for fraction in (0.0, 0.25, 0.5):
            context.report(fraction)
            entered.release()
            assert go.acquire(timeout=PATIENCE)

    def times() -> tuple[float, float | None]:
        snapshot = manager.get("1", "ann")
        assert snapshot is not None
        return snapshot.seconds, snapshot.seconds_left

    manager.submit("1", "", work, "ann")
    assert entered.acquire(timeout=PATIENCE)
    assert times() == (0.0, None)
    clock.now += 8
    go.release()
    assert entered.acquire(timeout=PATIENCE)
    assert times() == (8.0, 24.0)  # a quarter in 8 s: 32 s in all
    clock.now += 4
    assert times() == (12.0, 20.0)
    go.release()
    assert entered.acquire(timeout=PATIENCE)
    assert times() == (12.0, 12.0)  # half in 12 s: 24 s in all
    clock.now += 50
    assert times() == (62.0, 0.0)
    go.release()
    assert finished(manager, "1").seconds == 62.0
    clock.now += 5
    assert times() == (62.0, None)
    manager.shutdown()


def test_finished_jobs_are_bounded_and_waiting_ones_never_dropped() -> None:
    manager, gate = JobManager(per_owner=100, keep=3), Gate()
    for number in range(6):
        manager.submit(f"{number}", "", lambda context, number=number: number, "ann")
        finished(manager, f"{number}")
    manager.submit("gate", "", gate, "ann")
    for number in range(6, 12):
        manager.submit(f"{number}", "", lambda context, number=number: number, "ann")
    assert [s.job_id for s in manager.of_owner("ann") if s.final] == ["3", "4", "5"]
    assert manager.stats()["queued"] + manager.stats()["running"] == 7
    gate.opened.set()
    finished(manager, "11")
    assert [s.result for s in manager.of_owner("ann")] == [9, 10, 11]
    assert manager.get("8") is None
    manager.shutdown()


def test_a_finished_job_lets_go_of_its_work(manager: JobManager) -> None:
    class Heavy:
        def __call__(self, context: JobContext) -> int:
            return 1

    heavy = Heavy()
    gone = weakref.ref(heavy)
    manager.submit("1", "", heavy, "ann")
    del heavy
    finished(manager, "1")

    def collected() -> bool:
        gc.collect()
        return gone() is None

    until(collected)


def test_shutdown_cancels_everything_and_takes_nothing_new() -> None:
    manager, gate = JobManager(), Gate()
    manager.submit("1", "", gate, "ann")
    assert gate.entered.wait(PATIENCE)
    manager.submit("2", "", gate, "bob")
    manager.shutdown()
    assert finished(manager, "2").state == "cancelled"
    assert finished(manager, "1").state == "cancelled"
    with pytest.raises(AuditError, match="'audit' cannot start: the server is stopping"):
        manager.submit("3", "audit", gate, "ann")
    until(
        lambda: not any(thread.name == "jobs-cpu" and manager_of(thread) is manager for thread in threading.enumerate())
    )


def manager_of(thread: threading.Thread) -> object:
    return getattr(getattr(thread, "_target", None), "__self__", None)


ENDLESS = """
import time
from audit_core.jobs import JobManager
manager = JobManager()
manager.submit("1", "endless", lambda context: time.sleep(600), "ann")
while manager.get("1").state != "running":
    time.sleep(0.01)
manager.submit("2", "waiting", lambda context: time.sleep(600), "ann")
manager.shutdown()
print("end", flush=True)
"""


@pytest.mark.parametrize("code", [ENDLESS, ENDLESS.replace("manager.shutdown()\n", "")])
def test_a_running_job_does_not_hold_the_process(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stdout) == (0, "end\n"), result.stderr


def test_memory_goes_back_after_a_job(manager: JobManager) -> None:
    """Resident size after work that frees many pieces is that of before; measured in a process of its own."""
    code = """
import numpy as np
from audit_core.jobs import JobManager

def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024

def work(context):
    kept = [np.ones(2_000) for _ in range(10_000)]  # 160 MB in pieces below the size that is mapped on its own
    kept = kept[::1000]  # pieces that stay hold the others' pages
    return resident()

manager = JobManager()
manager.submit("1", "", work, "ann")
manager.wait("1")
manager.submit("2", "", lambda context: None, "ann")
manager.wait("2")
print(resident())
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("resident size is read from /proc")
    found = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert found < 150
