"""The Ray executor on a real cluster of two nodes, one of which is killed, and what it says when it cannot work."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from audit_core.borrow import untouched_random_state
from audit_core.errors import AuditError, InvalidParameter, Refused
from audit_core.keys import Choice
from audit_core.study import runner
from audit_core.study.executors import EXECUTORS, ray_cluster
from audit_core.study.executors.line import Line, digest
from audit_core.study.executors.ray_cluster import RayCluster
from audit_core.study.executors.seat import Seat
from audit_core.study.folder import StudyFolder
from audit_core.study.plan import make_plan
from tests.study_runs import TASKS, assert_each_once, in_process, tiny_bench, tiny_study

WITH_RAY = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 1024**2, "include_dashboard": False}


def ray_processes() -> set[int]:
    """Ray's servers and workers on this machine."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"raylet/raylet" in words or b"gcs/gcs_server" in words or words.startswith(b"ray::"):
            found.add(int(entry.name))
    return found


def workers_of(node) -> list[int]:
    """Processes that a node's raylet has begun, besides its agents."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for entry in ray_processes():
        status = Path(f"/proc/{entry}/status").read_text()
        if f"\nPPid:\t{raylet}\n" in status:
            found.append(entry)
    return found


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head with one core, its workers with a store of their own; nothing of it is left."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "node-store"))
    before = ray_processes()
    with untouched_random_state():  # Ray draws ports from the global generator
        made = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            yield made
        finally:
            made.shutdown()
    assert not ray_processes() - before


@WITH_RAY
def test_a_killed_node_loses_nothing(cluster, tmp_path, monkeypatch) -> None:
    node = cluster.add_node(**NODE)
    root, bench, study = tmp_path / "study", tiny_bench(tmp_path), tiny_study()
    plan = make_plan(study, bench)
    StudyFolder(root).create(plan)
    lost, outcomes, both, killed = [], [], [], []
    lose, take, step = Line.lose, Line.take, ray_cluster._Crew.step

    def wait_for_both(crew) -> None:
        both.extend([True] * (sum(place.ready for place in crew._places) == 2))
        step(crew)

    def take_and_kill(line, last):
        taken = take(line, last) if both else None
        if not killed and outcomes and line.left - line.waiting == 2:  # one core a node: one of the two tasks is there
            killed.extend(workers_of(node))
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
            with untouched_random_state():
                cluster.remove_node(node, allow_graceful=False)
        return taken

    monkeypatch.setattr(ray_cluster._Crew, "step", wait_for_both)
    monkeypatch.setattr(Line, "take", take_and_kill)
    monkeypatch.setattr(Line, "lose", lambda line, task: (lost.append(task.id), lose(line, task)))
    found = random.getstate(), dict(os.environ), signal.getsignal(signal.SIGTERM), sys.excepthook
    executor = RayCluster(cluster.address)
    assert RayCluster(cluster.address, gpus_per_worker=1).refuse() is None
    with pytest.raises(InvalidParameter, match=r"1 GPUs of one machine; the cluster's machines have 1 CPUs and 0 GPUs"):
        RayCluster(cluster.address, gpus_per_worker=1).run(root, plan, plan.tasks, bench, print, lambda: False)
    executor.run(root, plan, plan.tasks, bench, outcomes.append, lambda: False)
    assert killed
    assert len(lost) == 1
    assert sorted(outcome.task for outcome in outcomes) == sorted(task.id for task in plan.tasks)
    assert not any(outcome.reason for outcome in outcomes)
    whole = runner.merged(root)
    assert_each_once(whole)
    assert whole.equals(in_process(tmp_path / "alone"))
    assert not list(root.glob(".folder-*"))
    left = random.getstate(), dict(os.environ), signal.getsignal(signal.SIGTERM), sys.excepthook
    assert [a == b for a, b in zip(left, found, strict=True)] == [True] * 4
    assert len(cluster.list_all_nodes()) == 1, "a cluster of others was ended"
    assert cluster.head_node.any_processes_alive()


@WITH_RAY
def test_without_a_cluster_one_is_started_and_ended(tmp_path, monkeypatch) -> None:
    import ray

    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "node-store"))
    before, root, bench, study = ray_processes(), tmp_path / "study", tiny_bench(tmp_path), tiny_study((0,))
    victim = make_plan(study, bench).tasks[0]
    blocked = StudyFolder(root).measures(victim)
    blocked.mkdir(parents=True)  # nothing can be written where a folder stands
    first = runner.run(study, root, bench, RayCluster("local", workers=1))
    assert (first.done, first.failed, first.total) == (TASKS // 2 - 1, 1, TASKS // 2)
    assert StudyFolder(root).failures()[0]["reason"].startswith("IsADirectoryError")
    assert not ray.is_initialized()
    assert not ray_processes() - before
    blocked.rmdir()
    assert runner.run(study, root, bench).done == TASKS // 2
    assert runner.merged(root).equals(in_process(tmp_path / "alone", (0,)))


@WITH_RAY
def test_an_address_where_nothing_answers_gets_a_sentence(tmp_path) -> None:
    if ray_processes():
        pytest.skip("a Ray cluster runs on this machine")
    bench = tiny_bench(tmp_path)
    plan = make_plan(tiny_study(), bench)
    with pytest.raises(AuditError, match=r"no Ray cluster answers at 'auto' .*ray start --head"):
        RayCluster("auto").run(tmp_path, plan, plan.tasks, bench, print, lambda: False)


def test_without_ray_it_says_how_to_install_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    executor = EXECUTORS.build(Choice.parse("ray:address=ray://head:10001,gpus_per_worker=0.5"))
    assert executor == RayCluster("ray://head:10001", gpus_per_worker=0.5)
    assert executor.refuse() == ray_cluster.INSTALL
    with pytest.raises(Refused, match=r"pip install 'ray>=2\.40'"):
        executor.run(tmp_path, None, [], None, print, lambda: False)


def test_workers_that_never_get_ready_end_the_run(monkeypatch, tmp_path) -> None:
    class Lost(Exception):
        pass

    def lose(call: object) -> None:
        raise Lost("the actor died\nno module named audit_core\n")

    begun, ended = [], []
    actor = SimpleNamespace(greet=SimpleNamespace(remote=lambda token: object()))
    actors = SimpleNamespace(remote=lambda *_: (begun.append(actor), actor)[1])
    fake = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 3.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}],
        remote=lambda seat: SimpleNamespace(options=lambda **_: actors),
        wait=lambda calls, **_: (calls[:1], calls[1:]),
        get=lose,
        kill=ended.append,
        exceptions=SimpleNamespace(RayError=Lost),
    )
    plan = make_plan(tiny_study(), tiny_bench(tmp_path))
    line = Line(tmp_path, plan.tasks, print)
    crew = ray_cluster._Crew(fake, RayCluster(), tmp_path, "token", digest(plan), line)

    def work() -> None:
        while line.left:
            crew.step()

    with pytest.raises(AuditError, match=r"9 workers in a row .* \(no module named audit_core\)"):
        work()
    crew.end()
    assert len(begun) == 3 + 8  # the three places of the machine that is alive, refilled until it is enough
    assert len(ended) == 2


# ---------------------------------------------------------------- a seat, without a cluster


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where this process stands; a seat goes to where the study was begun."""
    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "node-store"))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path)


def test_a_folder_that_is_not_shared_is_noticed(tmp_path, place) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with ray_cluster._token(here) as token:
        problem = Seat(str(there), place, "cpu", 1).greet(token)["problem"]
        assert "the study's folder is not there, or it is another one" in problem
        assert "one folder that all machines share" in problem
        (there / f".folder-{token}").write_text("else")
        assert "holds other words" in Seat(str(there), place, "cpu", 1).greet(token)["problem"]
        assert "holds no study" in Seat(str(here), place, "cpu", 1).greet(token)["problem"]
    assert not list(here.iterdir())


def test_a_folder_that_cannot_be_written_is_noticed(tmp_path, place, monkeypatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with ray_cluster._token(tmp_path) as token:
        monkeypatch.setattr(Path, "write_text", refuse)
        problem = Seat(str(tmp_path), place, "cpu", 1).greet(token)["problem"]
    assert "cannot be written (Permission denied)" in problem


def test_a_seat_opens_the_study_and_does_its_tasks(tmp_path, place) -> None:
    bench, root = tiny_bench(tmp_path), tmp_path / "study"
    plan = make_plan(tiny_study((0,)), bench)
    StudyFolder(root).create(plan)
    seat = Seat(str(root), place, "cpu", 1)
    with pytest.raises(RuntimeError, match="greet comes first"):
        seat.do(plan.tasks[0].id)
    with ray_cluster._token(root) as token:
        assert seat.greet(token)["plan"] == digest(plan)
    said = seat.do(plan.tasks[0].id)
    assert (said["task"], said["reason"]) == (plan.tasks[0].id, "")
    assert StudyFolder(root).done(plan.tasks[0])
