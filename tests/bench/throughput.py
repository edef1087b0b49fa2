"""6: a study beside the bare model, and two processes beside one process with two threads."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from audit_core.store import Store
from audit_core.study import runner
from audit_core.study.definition import Entry, ImageSet, Study
from audit_core.study.engine import perform
from audit_core.study.executors import EXECUTORS
from audit_core.study.plan import make_plan
from audit_core.workbench import Workbench
from tests.bench.report import Row, race, say, speed
from tests.bench.stage import Bare, Options, named

FILLS = ("zero", "blur:sigma=3", "reference")
PER_CLASS = 2  # of the 22 of a full study: the work of an image is the same


def rows(options: Options) -> Iterator[Row]:
    """Native explainer and RISE of every checkpoint, then both ways to use two cores."""
    for name in options.checkpoints:
        yield _engine(name, options)
    yield from _executors(options)


def study_of(names: tuple[str, ...], masks: int, per_class: int) -> Study:
    """The study that is asked for, on fewer images of each class."""
    native = {"wafer-vit-tiny": "rollout"}
    entries = tuple(Entry(name, explainers=(native.get(name, "grad-cam"),)) for name in names)
    images = ImageSet("synthetic", "sample", per_class=per_class)
    return Study("bench", entries, (f"rise:n_masks={masks},settle=1",), FILLS, images)


def _engine(name: str, options: Options) -> Row:
    """Tasks of a study ÷ the same number of forwards of the bare model, which has its fastest batch and layout."""
    with tempfile.TemporaryDirectory() as place:
        bench = Workbench(Store(place), "cpu")
        plan = make_plan(study_of((name,), options.masks // 2, PER_CLASS), bench)
        tasks = plan.tasks
        work = sum(perform(task, plan, bench).forwards for task in tasks)  # warm: the self-test is behind us
        pixels = torch.stack([torch.from_numpy(bench.subject(p.reference, plan.members[0].card).pixels.copy())
                              for p in plan.pictures])  # fmt: skip
        classifier = bench.classifier(name)
        bare = Bare(
            classifier, classifier.normalise(pixels).repeat(-(-work // len(pixels)), 1, 1, 1)[:work], options.clock
        )
        say(f"{name}: {work} forwards in {len(tasks)} tasks")
        contenders = {"study": lambda: [perform(task, plan, bench) for task in tasks], "bare": bare.run}
        seconds = race(contenders, min(options.repetitions, 3), options.clock)
    ratio = speed(seconds, "study", "bare")
    what = f"study, native + RISE N = {options.masks // 2}, 3 fills, {work} forwards: ÷ bare model ({bare})"
    return Row(what, name, named("cpu"), str(ratio), "≥ 0.90", ratio.median >= 0.90)


def _executors(options: Options) -> Iterator[Row]:
    """The same study in one process with all threads, and in as many processes as cores; start-up included."""
    study, seconds = study_of(options.checkpoints, options.masks // 2, PER_CLASS), {}
    cores = os.cpu_count() or 1
    ways = {"in-process": {"threads": cores}, "processes": {"workers": cores}}
    tables = []
    with tempfile.TemporaryDirectory() as place:
        bench = Workbench(Store(Path(place) / "store"), "cpu")
        for way, settings in ways.items():
            root = Path(place) / way / "study"  # a folder each: results are taken over from neighbours
            before, began = torch.get_num_threads(), time.perf_counter()
            runner.run(replace(study, title=way), root, bench, EXECUTORS[way](**settings))
            seconds[way] = time.perf_counter() - began
            torch.set_num_threads(before)
            tables.append(runner.merged(root).to_pandas())
    same = tables[0].drop(columns="value").equals(tables[1].drop(columns="value"))
    gap = float((tables[0].value - tables[1].value).abs().max())
    say(f"same rows: {same}; largest difference of a value: {gap:.1e}")
    ratio = seconds["in-process"] / seconds["processes"]
    told = f"{seconds['in-process']:.0f} s ÷ {seconds['processes']:.0f} s = {ratio:.2f}"
    yield Row(f"study in one process with {cores} threads ÷ in {cores} processes", "all", named("cpu"), told, "–", None)
