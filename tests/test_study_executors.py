"""Executors: the same tables however the work is shared, whoever is killed, whenever it is stopped."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from audit_core.errors import AuditError, InvalidParameter
from audit_core.keys import Choice
from audit_core.study import cost, runner
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.executors import EXECUTORS, processes
from audit_core.study.executors.line import KILLS, Line, digest
from audit_core.study.executors.processes import Processes
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import Task, make_plan
from audit_core.study.worker import Outcome
from tests.study_runs import TASKS, assert_each_once, in_process, parts, tiny_bench, tiny_study

LINUX = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads the process table of Linux")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What the tiny study must come to."""
    whole = in_process(tmp_path_factory.mktemp("reference"))
    assert_each_once(whole)
    return whole


def workers_of(root: Path) -> list[int]:
    """Worker processes of a study that live on this machine, by their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"audit_core.study.executors.child" in words and str(root.resolve()).encode() in words:
            found.append(int(entry.name))
    return found


def wait_for(condition, seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "nothing happened in time"
        time.sleep(0.05)


# ---------------------------------------------------------------- real worker processes


@LINUX
def test_a_killed_worker_loses_nothing(tmp_path, reference, monkeypatch) -> None:
    given, lost = [], []
    give, lose = processes._Process.give, Line.lose

    def give_and_kill(worker, task) -> None:
        give(worker, task)
        given.append(task.id)
        if len(given) == 3:
            os.kill(worker._process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes._Process, "give", give_and_kill)
    monkeypatch.setattr(Line, "lose", lambda line, task: (lost.append(task.id), lose(line, task)))
    environment, handler, threads = dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    outcomes, root = [], tmp_path / "study"
    bench = tiny_bench(tmp_path)
    plan = make_plan(tiny_study(), bench)
    StudyFolder(root).create(plan)
    Processes(workers=2).run(root, plan, plan.tasks, bench, outcomes.append, lambda: False)
    assert lost == [given[2]]
    assert Counter(given) == Counter([task.id for task in plan.tasks] + lost)
    assert sorted(outcome.task for outcome in outcomes) == sorted(task.id for task in plan.tasks)
    assert not any(outcome.reason for outcome in outcomes)
    assert_each_once(runner.merged(root))
    assert runner.merged(root).equals(reference)
    assert workers_of(root) == []
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == (
        environment,
        handler,
        threads,
    )


@LINUX
def test_a_failing_task_is_isolated_and_tried_again(tmp_path, reference) -> None:
    root, bench, study = tmp_path / "study", tiny_bench(tmp_path), tiny_study()
    victim = make_plan(study, bench).tasks[2]
    blocked = StudyFolder(root).measures(victim)
    blocked.mkdir(parents=True)  # nothing can be written where a folder stands
    progress = runner.run(study, root, bench, Processes(workers=2))
    assert (progress.done, progress.failed, progress.total) == (TASKS - 1, 1, TASKS)
    (failure,) = StudyFolder(root).failures()
    assert failure["explainer"] == victim.explainer
    assert failure["reason"].startswith("IsADirectoryError")
    blocked.rmdir()
    assert len(parts(root)) == TASKS - 1
    progress = runner.run(study, root, bench)
    assert (progress.done, progress.failed) == (TASKS, 0)
    assert StudyFolder(root).failures() == []
    assert runner.merged(root).equals(reference)


@LINUX
def test_stop_ends_the_workers_and_the_study_goes_on_later(tmp_path, reference) -> None:
    root, bench, study = tmp_path / "study", tiny_bench(tmp_path), tiny_study()
    stopped = []

    def stop() -> bool:
        if parts(root) and not stopped:
            stopped.append(time.monotonic())
        return bool(stopped)

    progress = runner.run(study, root, bench, Processes(workers=2), stop=stop)
    assert time.monotonic() - stopped[0] < 10
    assert workers_of(root) == []
    assert progress.message == "stopped"
    assert 0 < len(parts(root)) < TASKS
    before = {path: path.stat().st_mtime_ns for path in parts(root)}
    assert runner.run(study, root, bench).done == TASKS
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was there was computed again"
    assert runner.merged(root).equals(reference)


@LINUX
def test_a_study_killed_as_a_whole_leaves_no_worker_and_is_resumed(tmp_path, reference) -> None:
    root = tmp_path / "study"
    code = f"""
        from pathlib import Path
        from audit_core.study import runner
        from audit_core.study.executors.processes import Processes
        from tests.study_runs import tiny_bench, tiny_study
        runner.run(tiny_study(), Path({str(root)!r}), tiny_bench(Path({str(tmp_path)!r})), Processes(workers=2))
    """
    whole = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=processes.CODE)
    try:
        wait_for(lambda: parts(root) or whole.poll() is not None)
        assert len(workers_of(root)) == 2
    finally:
        whole.kill()
        whole.wait()
    wait_for(lambda: not workers_of(root), 30)
    assert 0 < len(parts(root)) < TASKS
    assert runner.run(tiny_study(), root, tiny_bench(tmp_path)).done == TASKS
    assert runner.merged(root).equals(reference)


# ---------------------------------------------------------------- scripted worker processes

SCRIPT = """
import json, os, signal, sys
print(json.dumps({greeting}), flush=True)
for line in sys.stdin:
    task = line.strip()
    if task == {victim!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({{"task": task, "seconds": 0.0, "forwards": 1, "reason": ""}}), flush=True)
"""


def task(name: str, checkpoint: str = "a", explainer: str = "e", forwards: int = 1) -> Task:
    return Task(name, "curves", checkpoint, explainer, 0, 0, 1, forwards, 0)


def scripted(monkeypatch, tmp_path: Path, tasks: list[Task], victim: str = "", **greeting: str) -> list[Outcome]:
    """Run ``tasks`` on workers that follow SCRIPT."""
    plan = SimpleNamespace(tasks=tasks)
    code = SCRIPT.format(greeting=greeting or {"plan": digest(plan)}, victim=victim)
    monkeypatch.setattr(processes, "worker_command", lambda *_: [sys.executable, "-S", "-c", code])
    outcomes: list[Outcome] = []
    Processes(workers=2).run(tmp_path, plan, tasks, None, outcomes.append, lambda: False)
    return outcomes


def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done(monkeypatch, tmp_path) -> None:
    tasks = [task(f"t{n}") for n in range(20)]
    outcomes = scripted(monkeypatch, tmp_path, tasks, victim="t7")
    assert sorted(outcome.task for outcome in outcomes) == sorted(task.id for task in tasks)
    (failed,) = [outcome for outcome in outcomes if outcome.reason]
    assert failed.task == "t7"
    assert failed.reason.startswith("the worker was killed 3 times on this task")
    assert json.loads((tmp_path / "failures" / "t7.json").read_text())["reason"] == failed.reason


def test_workers_that_plan_something_else_are_refused(monkeypatch, tmp_path) -> None:
    with pytest.raises(AuditError, match="plans other tasks than were planned here; use the same weights"):
        scripted(monkeypatch, tmp_path, [task("t")], plan="another")


def test_a_worker_that_cannot_open_the_study_says_why(monkeypatch, tmp_path) -> None:
    with pytest.raises(AuditError, match="a worker process cannot open the study: no such wafer"):
        scripted(monkeypatch, tmp_path, [task("t")], problem="cannot open the study: no such wafer")


def test_workers_that_never_get_ready_end_the_run(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(processes, "worker_command", lambda *_: [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    plan = SimpleNamespace(tasks=[task("t")])
    with pytest.raises(AuditError, match=r"3 worker processes ended before they were ready \(exit code 3\)"):
        Processes(workers=1).run(tmp_path, plan, plan.tasks, None, lambda outcome: None, lambda: False)


def test_an_error_of_the_one_who_watches_ends_the_workers(monkeypatch, tmp_path) -> None:
    started = []
    start = processes._Process.__init__
    monkeypatch.setattr(processes._Process, "__init__", lambda w, *a: (started.append(w), start(w, *a))[1])
    plan = SimpleNamespace(tasks=[task("t"), task("u")])
    code = SCRIPT.format(greeting={"plan": digest(plan)}, victim="")
    monkeypatch.setattr(processes, "worker_command", lambda *_: [sys.executable, "-S", "-c", code])

    def done(outcome: Outcome) -> None:
        raise KeyError(outcome.task)

    with pytest.raises(KeyError):
        Processes(workers=2).run(tmp_path, plan, plan.tasks, None, done, lambda: False)
    assert started
    assert all(worker._process.poll() is not None for worker in started)


def test_parameters_are_checked() -> None:
    assert EXECUTORS.build(Choice.parse("processes:workers=3,threads=2")) == Processes(3, 2)
    with pytest.raises(InvalidParameter, match="threads must be in"):
        EXECUTORS.build(Choice.parse("processes:threads=0"))


# ---------------------------------------------------------------- the line


def test_a_worker_stays_with_its_checkpoint_and_explainer(tmp_path) -> None:
    tasks = [task(f"{c}{e}{n}", c, e) for c in "ab" for e in "xyz" for n in range(4)]
    line = Line(tmp_path, tasks, lambda outcome: None)
    last: dict[int, Task | None] = {0: None, 1: None}
    seen: dict[int, list[Task]] = {0: [], 1: []}
    while line.left:
        for worker in (0, 1):
            taken = line.take(last[worker])
            assert taken is not None
            last[worker] = taken
            seen[worker].append(taken)
        for worker in (0, 1):
            line.end(Outcome(last[worker].id, 0.0, 1))
    for worker in (0, 1):
        assert len({t.checkpoint for t in seen[worker]}) == 1, "a checkpoint was loaded twice"
        explainers = [t.explainer for t in seen[worker]]
        assert sum(a != b for a, b in itertools.pairwise(explainers)) == 2
    assert sorted(t.id for t in seen[0] + seen[1]) == sorted(t.id for t in tasks)


def test_a_free_worker_goes_where_most_work_is_left(tmp_path) -> None:
    line = Line(tmp_path, [task("small", "a"), task("large", "b", forwards=9)], lambda outcome: None)
    assert line.take(None).id == "large"


def test_a_lost_task_waits_first_and_each_is_reported_once(tmp_path) -> None:
    outcomes: list[Outcome] = []
    line = Line(tmp_path, [task("t"), task("u")], outcomes.append)
    first = line.take(None)
    line.lose(first)
    assert (line.waiting, line.left) == (2, 2)
    assert line.take(None) == first
    line.end(Outcome(first.id, 1.0, 1))
    line.end(Outcome(first.id, 2.0, 1))  # a worker that was thought dead
    assert [outcome.seconds for outcome in outcomes] == [1.0]
    second = line.take(first)
    for _ in range(KILLS - 1):
        line.lose(second)
        assert line.take(None) == second
    line.lose(second)
    assert (line.waiting, line.left, len(outcomes)) == (0, 0, 2)


# ---------------------------------------------------------------- cost


def plan_of(tasks: list[Task], disk: int = 0) -> SimpleNamespace:
    return SimpleNamespace(tasks=tasks, disk=disk)


def test_an_estimate_is_work_over_rate() -> None:
    tasks = [Task(f"{c}{n}", "curves", c, "e", 0, 0, 1, 4000, 500) for c in "ab" for n in range(4)]
    rates = cost.Rates("cpu", 4, {"a": 100.0, "b": 50.0}, {"a": 50.0, "b": 25.0})
    found = cost.estimate(plan_of(tasks, disk=800), rates, cores=4)
    assert (found.forwards, found.backwards, found.disk) == (32_000, 4_000, 800)
    assert found.in_process == pytest.approx(4 * 5000 / 100 + 4 * 5000 / 50)
    assert found.processes == pytest.approx(cost.START + (4 * 5000 / 50 + 4 * 5000 / 25) / 4)
    assert found.executor == "processes"
    assert found.seconds == found.processes
    assert "4 processes with one thread each do 2.0 times the work of one with 4 threads" in found.sentence
    half = cost.estimate(plan_of(tasks, disk=800), rates, cores=4, tasks=tasks[:4])
    assert (half.forwards, half.disk) == (16_000, 400)


def test_one_long_task_is_not_shared() -> None:
    rates = cost.Rates("cpu", 4, {"a": 100.0}, {"a": 50.0})
    found = cost.estimate(plan_of([task("t", forwards=100_000)]), rates, cores=4)
    assert found.processes == pytest.approx(cost.START + 2000)
    assert found.executor == "in-process"


@pytest.mark.parametrize(
    ("device", "cores", "single", "forwards", "reason"),
    [
        ("cuda:0", 8, 100.0, 10**6, "models are on cuda:0"),
        ("cpu", 1, 100.0, 10**6, "there is one core"),
        ("cpu", 2, 55.0, 10**6, "1.1 times"),
        ("cpu", 2, 100.0, 10, "starting them takes"),
    ],
)
def test_the_simple_way_is_kept_where_processes_gain_nothing(device, cores, single, forwards, reason) -> None:
    tasks = [task(f"t{n}", forwards=forwards) for n in range(10)]
    found = cost.estimate(plan_of(tasks), cost.Rates(device, 2, {"a": 100.0}, {"a": single}), cores)
    assert found.executor == "in-process"
    assert reason in found.sentence


def test_a_probe_measures_both_ways_and_gives_the_threads_back(tmp_path, monkeypatch) -> None:
    asked = []

    def timed(classifier, pixels) -> float:
        asked.append((classifier.card.architecture, torch.get_num_threads(), tuple(pixels.shape[1:])))
        return len(pixels) / (300.0 if torch.get_num_threads() == 2 else 200.0)

    monkeypatch.setattr(cost, "_timed", timed)
    entries = (Entry("wafer-resnet18-cbam"), Entry("wafer-vit-tiny"))
    study = Study("s", entries, ("random",), ("zero",), ImageSet(per_class=1), CurveSettings(steps=1))
    bench = tiny_bench(tmp_path)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        rates = cost.probe(make_plan(study, bench), bench, 0.02)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    names = [entry.name for entry in entries]
    assert rates.together == dict.fromkeys(names, pytest.approx(300.0))
    assert rates.single == dict.fromkeys(names, pytest.approx(200.0))
    assert {(threads, shape) for _, threads, shape in asked} == {(2, (1, 64, 64)), (1, (1, 64, 64))}


def test_a_probe_agrees_with_the_clock(tmp_path) -> None:
    bench = tiny_bench(tmp_path)
    plan = make_plan(tiny_study(), bench)
    rates = cost.probe(plan, bench, 0.5)
    classifier = bench.classifier("wafer-resnet18-cbam").steady()
    pixels = torch.zeros(64, 1, 64, 64)
    began = time.perf_counter()
    classifier.predict(pixels)
    measured = 64 / (time.perf_counter() - began)
    assert measured / 20 < rates.single["wafer-resnet18-cbam"] < measured * 20


@pytest.mark.parametrize("explainer", ["random", "grad-cam", "rise:n_masks=1500"])
def test_the_projection_counts_as_the_planner_does(tmp_path, explainer) -> None:
    from models import zoo
    from tests.bench.study import count

    curves = CurveSettings(steps=7)
    entry = Entry("wafer-resnet18-cbam")
    study = Study("s", (entry,), (explainer,), ("zero", "blur"), ImageSet(per_class=8), curves)
    plan = make_plan(study, tiny_bench(tmp_path))
    found = count(zoo.card(entry.name), explainer, 2, 7, len(plan.pictures))
    assert (found.tasks, found.forwards, found.backwards) == (len(plan.tasks), plan.forwards, plan.backwards)
