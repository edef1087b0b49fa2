"""Long work outside the page's thread: queued per device, shared by key, fair between owners, cancelled on request.

Plain daemon threads, not a thread pool: the interpreter joins a pool's threads at exit, so that a server could not
stop before its running job had ended.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from audit_core.errors import AuditError
from audit_core.memory import give_back

# Plain strings: an enumeration's members lose their identity when a page reload imports this module again.
QUEUED, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "queued", "running", "stopping", "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, STOPPING, DONE, FAILED, CANCELLED)
FINAL = frozenset({DONE, FAILED, CANCELLED})


class JobCancelled(BaseException):
    """Raised inside the work at the first checkpoint after a cancel; not an ``Exception``, so that no one eats it."""


class TooManyJobs(AuditError):
    """The owner has as many unfinished jobs as allowed: "4 jobs of yours are waiting or running; cancel one…"."""


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment.

    state: one of ``STATES``; fraction: progress in [0, 1]; partial: the latest intermediate result, to be read
    only, and version: how many there were; result: of a job that is done; error: one sentence for the user and
    trace: the details behind an internal error; ahead: jobs that use the device earlier; seconds: time it has run;
    seconds_left: estimate from the steady progress so far, None while nothing can be said.
    """

    job_id: str
    label: str
    state: str
    fraction: float = 0.0
    message: str = ""
    partial: Any = None  # Any: partial and result are whatever the work gives
    version: int = 0
    result: Any = None
    error: str | None = None
    trace: str | None = None
    ahead: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL


@dataclass(eq=False)
class _Job:
    """A job's mutable record; touched only under the manager's lock."""

    job_id: str
    label: str
    device: str
    work: Callable[[JobContext], Any] | None
    order: int
    seen: dict[str, float] = field(default_factory=dict)  # owner -> when last asked
    state: str = QUEUED
    stop: bool = False
    fraction: float = 0.0
    message: str = ""
    partial: Any = None
    version: int = 0
    result: Any = None
    error: str | None = None
    trace: str | None = None
    started: float | None = None
    reported: float | None = None
    finished: float | None = None

    @property
    def live(self) -> bool:
        """Waiting or running with nobody having stopped it."""
        return self.state not in FINAL and not self.stop


class JobContext:
    """What the work is given: it calls one of the two methods at least every few hundred milliseconds."""

    def __init__(self, manager: JobManager, job: _Job) -> None:
        self._manager, self._job = manager, job

    def checkpoint(self) -> None:
        """Raise :class:`JobCancelled` when the job was cancelled or nobody asks for it any more."""
        self._manager._checkpoint(self._job)

    def report(self, fraction: float, message: str = "", partial: Any = None) -> None:
        """Publish progress in [0, 1]; ``partial`` replaces the last one unless None. A checkpoint, too."""
        self._manager._report(self._job, fraction, message, partial)


Work = Callable[[JobContext], Any]  # Any: the result, whatever it is


class JobManager:
    """All jobs of a process; every method may be called from any thread.

    per_owner: unfinished jobs an owner may have; keep: finished jobs remembered; abandon_after: seconds without a
    question by any of its owners after which a job stops itself (:meth:`get`, :meth:`of_owner` with the owner's
    name and :meth:`wait` are questions); clock: seconds, rising.
    """

    def __init__(
        self,
        per_owner: int = 4,
        keep: int = 64,
        abandon_after: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_owner, self._keep, self._abandon_after, self._clock = per_owner, keep, abandon_after, clock
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._running: dict[str, _Job] = {}  # device -> job
        self._devices: set[str] = set()
        self._turns: dict[tuple[str, str], float] = {}  # (device, owner) -> ticket; the smallest is served next
        self._tickets = itertools.count()
        self._closed = False

    def submit(self, job_id: str, label: str, work: Work, owner: str, device: str = "cpu") -> Snapshot:
        """Queue ``work``, or join the job of that id which waits, runs or is done; failed ones start anew.

        Raises :class:`TooManyJobs` when ``owner`` has ``per_owner`` unfinished jobs already.
        """
        with self._changed:
            if self._closed:
                raise AuditError(f"{label!r} cannot start: the server is stopping; start it again and reload the page")
            job = self._jobs.get(job_id)
            if job is None or not (job.live or job.state == DONE):
                self._check_room(owner)
                self._start_worker(device)
                job = _Job(job_id, label, device, work, next(self._tickets))
                self._jobs[job_id] = job
            self._join(job, owner)
            self._changed.notify_all()
            return self._snapshot(job)

    def attach(self, job_id: str, owner: str) -> Snapshot | None:
        """Make ``owner`` one of the job's owners, as opening a shared link does; None for an unknown job."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if job.live or job.state == DONE:
                self._join(job, owner)
            return self._snapshot(job)

    def get(self, job_id: str, owner: str | None = None) -> Snapshot | None:
        """The job now, None for an unknown one; asked in the name of one of its owners it is kept alive."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if owner in job.seen:
                job.seen[owner] = self._clock()
            return self._snapshot(job)

    def of_owner(self, owner: str) -> list[Snapshot]:
        """The owner's jobs, oldest first; keeps them alive."""
        with self._changed:
            mine = sorted((job for job in self._jobs.values() if owner in job.seen), key=lambda job: job.order)
            for job in mine:
                job.seen[owner] = self._clock()
            return [self._snapshot(job) for job in mine]

    def cancel(self, job_id: str, owner: str) -> None:
        """Take ``owner`` off the job; the last one stops it (and still sees it stop)."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.live or owner not in job.seen:
                return
            if len(job.seen) > 1:
                del job.seen[owner]
            else:
                self._stop(job, "cancelled")

    def wait(self, job_id: str, timeout: float | None = None, partial: bool = False) -> Snapshot | None:
        """Block until the job is final or ``timeout`` seconds are over; its state then. Keeps it alive meanwhile.

        With ``partial`` a first partial result ends the wait, too.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (job := self._jobs.get(job_id)) is not None and job.state not in FINAL:
                if partial and job.version:
                    break
                left = 1.0 if end is None else end - time.monotonic()
                if left <= 0:
                    break
                job.seen.update(dict.fromkeys(job.seen, self._clock()))
                self._changed.wait(min(left, 1.0, self._abandon_after / 4))
            return None if job is None else self._snapshot(job)

    def stats(self) -> dict[str, int]:
        """State -> how many remembered jobs are in it."""
        with self._changed:
            count = Counter(self._shown_state(job) for job in self._jobs.values())
        return {state: count[state] for state in STATES}

    def shutdown(self) -> None:
        """Stop everything and take nothing new; returns at once, running work ends at its next checkpoint."""
        with self._changed:
            self._closed = True
            for job in [*self._jobs.values(), *self._running.values()]:
                if job.state not in FINAL:
                    self._stop(job, "the server is stopping")
            self._changed.notify_all()

    def _check_room(self, owner: str) -> None:
        mine = sum(owner in job.seen and job.live and not self._abandoned(job) for job in self._jobs.values())
        if mine >= self._per_owner:
            raise TooManyJobs(f"{mine} jobs of yours are waiting or running, which is the limit; cancel one or wait")

    def _join(self, job: _Job, owner: str) -> None:
        if job.state == QUEUED and owner not in job.seen:
            running = self._running.get(job.device)
            turn = math.inf if running is not None and owner in running.seen else next(self._tickets)
            self._turns.setdefault((job.device, owner), turn)
        job.seen[owner] = self._clock()

    def _stop(self, job: _Job, message: str) -> None:
        job.stop = True
        if job.state == QUEUED:
            job.message = message
            self._finish(job, CANCELLED)

    def _abandoned(self, job: _Job) -> bool:
        return self._clock() - max(job.seen.values()) > self._abandon_after

    def _line(self, device: str) -> list[_Job]:
        """Waiting jobs in the order they will start: every owner's next job before anyone's second (round robin).

        Owners come in the order of their tickets, drawn on arrival and again when a job of theirs has ended; the one
        being served is last. A shared job takes the best place that any of its owners has.
        """
        places, passed = [], Counter[str]()
        waiting = (job for job in self._jobs.values() if job.state == QUEUED and job.device == device)
        for job in sorted(waiting, key=lambda job: job.order):
            place = min((passed[owner], self._turns[device, owner]) for owner in job.seen)
            places.append((place, job.order, job))
            passed.update(job.seen.keys())
        return [job for _, _, job in sorted(places)]

    def _draw_turns(self, device: str, served: _Job, ticket: float) -> None:
        """New tickets for the owners of the job that starts or ends; owners without a waiting job hold none."""
        holders = {owner for job in self._line(device) for owner in job.seen}
        for owner in set(served.seen) & holders:
            self._turns[device, owner] = ticket
        for place in [place for place in self._turns if place[0] == device and place[1] not in holders]:
            del self._turns[place]

    def _shown_state(self, job: _Job) -> str:
        return STOPPING if job.state == RUNNING and job.stop else job.state

    def _snapshot(self, job: _Job) -> Snapshot:
        ahead = seconds = 0.0
        if job.state == QUEUED:
            ahead = self._line(job.device).index(job) + (job.device in self._running)
        if job.started is not None:
            seconds = (self._clock() if job.finished is None else job.finished) - job.started
        return Snapshot(
            job_id=job.job_id,
            label=job.label,
            state=self._shown_state(job),
            fraction=job.fraction,
            message=job.message,
            partial=job.partial,
            version=job.version,
            result=job.result,
            error=job.error,
            trace=job.trace,
            ahead=int(ahead),
            seconds=seconds,
            seconds_left=self._seconds_left(job),
        )

    def _seconds_left(self, job: _Job) -> float | None:
        if job.state != RUNNING or job.stop or job.started is None or job.reported is None or job.fraction <= 0:
            return None
        whole = (job.reported - job.started) / job.fraction
        return max(0.0, job.started + whole - self._clock())

    def _start_worker(self, device: str) -> None:
        if device not in self._devices:
            threading.Thread(target=self._serve, args=(device,), name=f"jobs-{device}", daemon=True).start()
            self._devices.add(device)

    def _serve(self, device: str) -> None:
        while self._serve_one(device):
            pass

    def _serve_one(self, device: str) -> bool:
        """Run the next job of the device; False after a shutdown. A frame of its own, so that no job outlives it."""
        with self._changed:
            while (job := self._take(device)) is None:
                if self._closed:
                    return False
                self._changed.wait()
        self._run(job)
        give_back()
        return True

    def _take(self, device: str) -> _Job | None:
        """Mark the first waiting job as running; those that nobody asks for any more are dropped unstarted."""
        for job in self._line(device):
            if self._abandoned(job):
                self._stop(job, "nobody was waiting for it any more")
        line = self._line(device)
        if not line:
            return None
        job = line[0]
        job.state, job.started = RUNNING, self._clock()
        self._running[device] = job
        self._draw_turns(device, job, math.inf)
        self._changed.notify_all()
        return job

    def _run(self, job: _Job) -> None:
        state, outcome = CANCELLED, {}
        try:
            if job.work is not None:
                outcome = {"result": job.work(JobContext(self, job))}
            state = DONE
        except JobCancelled:
            pass
        except AuditError as error:
            state, outcome = FAILED, {"error": str(error)}
        except BaseException as error:  # whatever it is, the device's only worker must live on
            what = traceback.format_exception_only(error)[0].strip().splitlines()[0]
            state, outcome = FAILED, {"error": f"An internal error: {what}", "trace": traceback.format_exc()}
        with self._changed:
            del self._running[job.device]
            self._draw_turns(job.device, job, next(self._tickets))
            self._finish(job, state, **outcome)

    def _finish(self, job: _Job, state: str, **outcome: Any) -> None:
        job.state, job.finished, job.work = state, self._clock(), None
        job.result, job.error, job.trace = (outcome.get(name) for name in ("result", "error", "trace"))
        if state == DONE:
            job.fraction, job.partial = 1.0, None
        finished = [other for other in self._jobs.values() if other.state in FINAL]
        finished.sort(key=lambda other: (other.finished or 0.0, other.order))
        for other in finished[: max(0, len(finished) - self._keep)]:
            del self._jobs[other.job_id]
        self._changed.notify_all()

    def _checkpoint(self, job: _Job) -> None:
        with self._changed:
            if not job.stop and self._abandoned(job):
                job.stop, job.message = True, "nobody was waiting for it any more"
            if job.stop:
                raise JobCancelled

    def _report(self, job: _Job, fraction: float, message: str, partial: Any) -> None:
        with self._changed:
            self._checkpoint(job)
            job.fraction, job.message, job.reported = min(max(0.0, fraction), 1.0), message, self._clock()
            if partial is not None:
                job.partial, job.version = partial, job.version + 1
            self._changed.notify_all()
