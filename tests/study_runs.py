"""A tiny study and what the tests of all executors ask of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from audit_core.store import Store
from audit_core.study import runner
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.executors.serial import InProcess
from audit_core.study.folder import PARTS
from audit_core.workbench import Workbench

EXPLAINERS, FILLS, SEEDS = ("grad-cam", "random", "input-intensity"), ("zero", "blur"), (0, 1)
TASKS = len(EXPLAINERS) * len(SEEDS)
METRICS = 5  # of every cell; "r-oms" of the random control besides


def tiny_study(seeds: tuple[int, ...] = SEEDS) -> Study:
    """One checkpoint, three explainers, two fills, one wafer of each class, four steps: one task per map and seed."""
    curves = CurveSettings(steps=4, seeds=seeds)
    return Study("tiny", (Entry("wafer-resnet18-cbam"),), EXPLAINERS, FILLS, ImageSet(per_class=1), curves)


def tiny_bench(folder: Path) -> Workbench:
    """On the CPU, with a store of its own."""
    return Workbench(Store(folder / "store"), "cpu")


def in_process(folder: Path, seeds: tuple[int, ...] = SEEDS) -> pa.Table:
    """The measures of the tiny study, done in this process with one thread."""
    runner.run(tiny_study(seeds), folder / "study", tiny_bench(folder), InProcess(threads=1))
    return runner.merged(folder / "study")


def assert_each_once(whole: pa.Table, seeds: tuple[int, ...] = SEEDS) -> None:
    """Every cell, image and metric stands there once: counted, not compared."""
    columns = ["explainer", "fill", "seed", "unit", "metric"]
    keys = [tuple(row.values()) for row in whole.select(columns).to_pylist()]
    wafers = 9
    cells = len(EXPLAINERS) * len(FILLS) * len(seeds)
    assert len(keys) == cells * wafers * METRICS + cells // len(EXPLAINERS) * wafers
    assert len(set(keys)) == len(keys)


def parts(root: Path) -> list[Path]:
    """The parts that are there."""
    return sorted((root / PARTS).glob("measures-*.parquet"))
