"""``python -m tests.bench.study``: what giving out tasks costs, and what the full WM-811K study would take.

``overhead``: executors hand out tasks whose results are there already, so that nothing but the handing out is timed.
``projection``: throughput and bytes of real tasks on one core, carried over to 172,950 wafers x 4 families x 3
explainers x 2 fills x 3 seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from audit_core.explainers import EXPLAINERS
from audit_core.keys import Choice
from audit_core.store import Store
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.executors import EXECUTORS
from audit_core.study.folder import MANIFEST, StudyFolder
from audit_core.study.plan import TASK_FORWARDS, TASK_IMAGES, Plan, make_plan
from audit_core.study.worker import Worker
from audit_core.workbench import Workbench
from models import zoo
from models.cards import ModelCard
from tests.bench.report import say

IMAGES, SEEDS, FILLS, STEPS = 172_950, 3, ("zero", "blur"), 20
PROJECTED = ("rise:n_masks=4000", "grad-cam", "random")
MEASURED = {"rise": "rise:n_masks=300", "other": "random"}  # short stand-ins whose speed per forward is the same
FEW = ImageSet(per_class=1, leave_out=("Loc", "Near-full", "Random", "Scratch", "none"))


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.study", description=__doc__)
    parser.add_argument("sections", nargs="*", default=["overhead", "projection"], help="overhead, projection")
    parser.add_argument("--tasks", type=int, default=200, help="handed out by each executor")
    parser.add_argument("--executor", action="append", help="may be repeated; in-process, processes, ray unless named")
    parser.add_argument("--gpu-rate", type=float, help="forwards per second of one GPU, for GPU-hours; none is assumed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        bench = Workbench(Store(Path(folder) / "store"), "cpu")
        if "overhead" in asked.sections:
            print(overhead(Path(folder), bench, asked.tasks, asked.executor or ["in-process", "processes", "ray"]))
        if "projection" in asked.sections:
            print(projection(Path(folder), bench, asked.gpu_rate))


# ---------------------------------------------------------------- overhead


def overhead(folder: Path, bench: Workbench, tasks: int, executors: Sequence[str]) -> str:
    """A table: seconds until the first task, and milliseconds for each further one, of every executor."""
    plan, planned = planning(bench, tasks)
    root = folder / "no-work"
    StudyFolder(root).create(plan)
    for task in plan.tasks:
        StudyFolder(root).measures(task).touch()
    rows = []
    for words in executors:
        executor = EXECUTORS.build(Choice.parse(words))
        if reason := executor.refuse():
            rows.append((words, "–", "–", "–", reason))
            continue
        say(f"{words}: {tasks} tasks without work")
        times: list[float] = []
        began = time.perf_counter()
        executor.run(root, plan, plan.tasks, bench, lambda _, t=times: t.append(time.perf_counter()), lambda: False)
        ended = time.perf_counter()
        each = (times[-1] - times[0]) / (len(times) - 1)
        rows.append(
            (words, f"{times[0] - began:.1f}", f"{1000 * each:.2f}", f"{1 / each:,.0f}", f"{ended - times[-1]:.1f}")
        )
    size = (root / MANIFEST).stat().st_size
    head = ("executor", "until the first task, s", "each further task, ms", "tasks per s", "to end, s")
    note = f"Planning takes {1000 * planned:.2f} ms and the manifest {size / tasks:.0f} bytes a task."
    return f"{table(head, rows)}\n\n{note}\n"


def planning(bench: Workbench, tasks: int) -> tuple[Plan, float]:
    """A plan of so many tasks with four images each, and the seconds of processor time that each task took."""
    curves = CurveSettings(steps=1, seeds=tuple(range(tasks)))
    study = Study("no work", (Entry("wafer-resnet18-cbam"),), ("random",), ("zero",), FEW, curves)
    make_plan(study, bench)  # opens what is opened once
    began = time.process_time()
    return make_plan(study, bench), (time.process_time() - began) / tasks


# ---------------------------------------------------------------- projection


@dataclass(frozen=True)
class Count:
    """Tasks, forwards and backwards (images) of a study or a share of it."""

    tasks: int
    forwards: int
    backwards: int

    def times(self, n: int) -> Count:
        """``n`` repetitions."""
        return Count(n * self.tasks, n * self.forwards, n * self.backwards)


def count(card: ModelCard, explainer: str, fills: int, steps: int, images: int) -> Count:
    """What the planner makes of one checkpoint, explainer and seed, without opening that many images."""
    cost = EXPLAINERS.build(Choice.parse(explainer)).cost(card)
    each = cost.forwards + 2 * fills * steps + 1
    size = max(1, min(TASK_IMAGES, TASK_FORWARDS // max(1, each + 2 * cost.backwards)))
    return Count(-(-images // size), images * each, images * cost.backwards)


@dataclass(frozen=True)
class Speed:
    """Forwards per second of one core's time, in whole tasks with all their writing, by kind of explainer."""

    rise: float
    other: float


def speeds(folder: Path, bench: Workbench, name: str) -> Speed:
    """The better of two tasks of each kind: the first one also loads the model and proves the explainer."""
    curves = CurveSettings(steps=STEPS, seeds=(0, 1))
    study = Study("speed", (Entry(name),), tuple(MEASURED.values()), FILLS, FEW, curves)
    plan = make_plan(study, bench)
    root = folder / name
    StudyFolder(root).create(plan)
    worker = Worker(root, bench, 1, plan)
    rates = [(task.explainer, _rate(worker, task.id)) for task in plan.tasks]
    best = {kind: max(rate for explainer, rate in rates if explainer == words) for kind, words in MEASURED.items()}
    say(f"{name}: {best['rise']:.0f} forwards per s in RISE, {best['other']:.0f} in curves")
    return Speed(**best)


def _rate(worker: Worker, task: str) -> float:
    """Forwards per second of processor time: with one thread, others on the machine lengthen it little."""
    began = time.process_time()
    outcome = worker.do(task)
    if outcome.reason:
        raise RuntimeError(outcome.reason)
    return outcome.forwards / (time.process_time() - began)


def bytes_of_parts(folder: Path, bench: Workbench) -> tuple[float, float, int]:
    """Bytes of a task's files: a fixed share, and one for each image under both fills; rows of such an image.

    From the line through two tasks, of 66 images and of 6.
    """
    images, curves = ImageSet(per_class=8), CurveSettings(steps=STEPS)
    study = Study("bytes", (Entry("wafer-resnet18-cbam"),), ("input-intensity",), FILLS, images, curves)
    plan = make_plan(study, bench)
    root = folder / "bytes"
    StudyFolder(root).create(plan)
    worker, points = Worker(root, bench, 1, plan), []
    for task in plan.tasks:
        worker.do(task.id)
        size = sum(path(task).stat().st_size for path in (worker.folder.measures, worker.folder.curves))
        points.append((task.stop - task.start, size))
    (n, large), (m, small) = points
    each = (large - small) / (n - m)
    return small - m * each, each, _rows(root, plan)


def _rows(root: Path, plan: Plan) -> int:
    import pyarrow.parquet as pq

    folder = StudyFolder(root)
    return sum(pq.read_metadata(folder.measures(task)).num_rows for task in plan.tasks) // len(plan.pictures)


def projection(folder: Path, bench: Workbench, gpu_rate: float | None) -> str:
    """Tables: work and hours of every family and explainer; tasks, bytes and overhead of the whole."""
    rows, whole, hours = [], Count(0, 0, 0), 0.0
    for name in zoo.names():
        card, speed = zoo.card(name), speeds(folder, bench, name)
        for explainer in PROJECTED:
            part = count(card, explainer, len(FILLS), STEPS, IMAGES).times(SEEDS)
            rate = speed.rise if explainer.startswith("rise") else speed.other
            took = (part.forwards + 2 * part.backwards) / rate / 3600
            numbers = (f"{part.tasks:,}", f"{part.forwards:,}", f"{rate:,.0f}", f"{took:,.0f}")
            rows.append((card.family, explainer, *numbers))
            whole = replace(
                whole,
                tasks=whole.tasks + part.tasks,
                forwards=whole.forwards + part.forwards,
                backwards=whole.backwards + part.backwards,
            )
            hours += took
    rows.append(("all", "", f"{whole.tasks:,}", f"{whole.forwards:,}", "", f"{hours:,.0f}"))
    head = ("family", "explainer", "tasks", "forwards", "forwards per s on one core", "core-hours")
    fixed, each, per_image = bytes_of_parts(folder, bench)
    images = IMAGES * len(zoo.names()) * len(PROJECTED) * SEEDS
    volume = fixed * whole.tasks + each * images
    notes = [
        f"Rows of measures: {images * per_image:,}; of curves: {images * len(FILLS) * 2:,}.",
        f"Bytes: {fixed:,.0f} a task and {each:,.0f} an image with both fills: {volume / 1e9:,.1f} GB in all; "
        f"merged into one table without the tasks' fixed share {each * images / 1e9:,.1f} GB.",
        f"Planning, once in every worker: {planning(bench, 400)[1] * whole.tasks / 60:.1f} minutes.",
        f"A scheduling overhead of 1 ms a task is {whole.tasks / 3.6e6:,.2f} hours in all, "
        f"{whole.tasks / 3.6e4 / hours:.4f} % of the core-hours.",
        "GPU-hours: (forwards + 2 x backwards) / (3600 x forwards per second of one GPU); no GPU was measured.",
    ]
    if gpu_rate:
        gpu = (whole.forwards + 2 * whole.backwards) / gpu_rate / 3600
        notes.append(f"At {gpu_rate:,.0f} forwards per second: {gpu:,.0f} GPU-hours.")
    return f"{table(head, rows)}\n\n" + "\n".join(notes) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, columns aligned."""
    lines = [head, *rows]
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["| " + " | ".join(word.ljust(n) for word, n in zip(line, wide, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (n + 2) for n in wide) + "|", *text[1:]])


if __name__ == "__main__":
    main()
