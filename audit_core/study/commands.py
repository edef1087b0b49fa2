"""Command line of studies: ``python -m audit_core study plan|run|resume|status|verify|export|import|preset``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit_core.errors import AuditError, BadData, InvalidParameter

PRESETS = ("wm811k", "mvtec", "folder", "demo")


def add_parsers(study: argparse.ArgumentParser, parser_class: type[argparse.ArgumentParser]) -> None:
    """Hang the verbs below ``study``."""
    verbs = study.add_subparsers(required=True, metavar="preset|plan|run|resume|status|verify|export|import",
                                 parser_class=parser_class)  # fmt: skip
    preset = verbs.add_parser("preset", help="write a ready-made study as TOML")
    preset.add_argument("name", choices=PRESETS)
    preset.add_argument("--data", default="", metavar="PATH", help="your copy of the data (a file or a folder)")
    preset.add_argument("--checkpoint", action="append", default=[], metavar="FILE[=ARCH]", help="may be repeated")
    preset.add_argument("--out", type=Path, metavar="FILE", help="write here instead of to the screen")
    preset.set_defaults(run=run_preset)
    plan = verbs.add_parser("plan", help="cells, refusals, forwards, time and disk of a study")
    plan.add_argument("file", type=Path, metavar="STUDY.toml")
    plan.add_argument("--no-probe", action="store_true", help="without the one-second measurement of speed")
    _shared(plan)
    plan.set_defaults(run=run_plan)
    run = verbs.add_parser("run", help="run a study, or go on with it")
    run.add_argument("file", type=Path, metavar="STUDY.toml")
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    resume = verbs.add_parser("resume", help="go on with the study in a folder")
    resume.add_argument("out", type=Path, metavar="FOLDER")
    for verb in (run, resume):
        verb.add_argument("--executor", metavar="NAME[:k=v,…]", help="in-process, processes, ray; default: the faster")
        _shared(verb)
        verb.set_defaults(run=run_run)
    resume.set_defaults(file=None)
    status = verbs.add_parser("status", help="what a study's folder holds")
    status.add_argument("out", type=Path, metavar="FOLDER")
    status.add_argument("--json", action="store_true", help="machine-readable")
    status.set_defaults(run=run_status)
    verify = verbs.add_parser("verify", help="every cell is there once, and recomputed tasks agree")
    verify.add_argument("out", type=Path, metavar="FOLDER")
    verify.add_argument("--recompute", type=int, default=3, help="tasks to compute again")
    _shared(verify)
    verify.set_defaults(run=run_verify)
    export = verbs.add_parser("export", help="tables and report of a study")
    export.add_argument("folder", type=Path, metavar="FOLDER")
    endings = "by its ending: .parquet, .csv (rows), .md (tables), .html, .pdf (report); none: a folder to ship"
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help=endings)
    export.set_defaults(run=run_export)
    _import_parser(verbs.add_parser("import", help="the same statistics for tables made elsewhere"))


def _shared(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    verb.add_argument("--json", action="store_true", help="machine-readable")


def _import_parser(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="CSV or Parquet; one fill each, or --fill-column"
    )
    verb.add_argument("--contender", required=True, metavar="COL", help="what is compared")
    verb.add_argument(
        "--metric", required=True, action="append", metavar="COL", help="the value; once, or once per file"
    )
    verb.add_argument("--unit", default="", metavar="COL", help="the image; a file without it holds means only")
    verb.add_argument("--fill", action="append", default=[], metavar="NAME", help="fill of each file, in order")
    verb.add_argument("--fill-column", default="", metavar="COL")
    verb.add_argument("--seed-column", default="", metavar="COL", help="the training run")
    verb.add_argument("--better", choices=("lower", "higher"), default="lower", help="which values win")
    verb.add_argument("--resamples", type=int, default=2000)
    verb.add_argument("--seed", type=int, default=0, help="of the resampling")
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(run=run_import)


def run_preset(options: argparse.Namespace) -> None:
    """Write the study that the preset comes to."""
    from audit_core.study.definition import Entry
    from audit_core.study.presets import PRESETS as MADE
    from audit_core.study.presets import demo

    if options.name == "demo":
        study = demo()
    else:
        if not options.data:
            raise InvalidParameter(f"preset {options.name} needs --data, the path of your copy")
        entries = []
        for words in options.checkpoint:
            path, _, arch = words.partition("=")
            entries.append(Entry(Path(path).stem, path=path, arch=arch) if Path(path).is_file() else Entry(path))
        study = MADE[options.name](options.data, entries, _bench("auto"))
    if options.out:
        options.out.write_text(study.dumps(), encoding="utf-8")
        sys.stderr.write(f"wrote {options.out}; next: python -m audit_core study plan {options.out}\n")
    else:
        sys.stdout.write(study.dumps())


def run_plan(options: argparse.Namespace) -> None:
    """Say what a study will come to."""
    from audit_core.study import cost
    from audit_core.study.plan import make_plan

    bench = _bench(options.device)
    plan = make_plan(_read(options.file), bench)
    words: dict[str, Any] = {
        "title": plan.study.title,
        "images": len(plan.pictures),
        "cells": plan.cells,
        "refused": [dataclasses.asdict(cell) for cell in plan.refused],
        "tasks": len(plan.tasks),
        "forwards": plan.forwards,
        "backwards": plan.backwards,
        "disk_bytes": plan.disk,
    }
    if not options.no_probe:
        words["estimate"] = dataclasses.asdict(cost.estimate(plan, cost.probe(plan, bench), os.cpu_count() or 1))
    if options.json:
        sys.stdout.write(json.dumps(words) + "\n")
        return
    sys.stdout.write(
        f"{words['title']}: {words['images']} images, {words['cells']} cells in {words['tasks']} tasks, "
        f"{plan.forwards:,} forwards and {plan.backwards:,} backwards at most, {plan.disk / 1e6:.1f} MB\n"
    )
    if "estimate" in words:
        told = words["estimate"]
        seconds = told["processes"] if told["executor"] == "processes" else told["in_process"]
        sys.stdout.write(f"about {seconds / 60:.1f} minutes here. {told['sentence']}\n")
    for cell in plan.refused:
        sys.stdout.write(f"refused: {cell.checkpoint} · {cell.explainer} · {cell.fill or 'all fills'}: {cell.reason}\n")


def run_run(options: argparse.Namespace) -> None:
    """Run or resume; Ctrl-C ends it cleanly and what is done stays done. Exit code 2 when tasks failed."""
    from tqdm import tqdm

    from audit_core.study import runner
    from audit_core.study.folder import StudyFolder

    study = _read(options.file) if options.file else StudyFolder(options.out).study()
    bench = _bench(options.device)
    with tqdm(unit="forward", unit_scale=True, disable=None) as bar, _interruptible() as stop:

        def tell(now: runner.Progress) -> None:
            bar.total = now.forwards_total
            bar.update(now.forwards - bar.n)
            bar.set_description_str(f"{now.done}/{now.total} {now.message}"[:60])

        end = runner.run(study, options.out, bench, executor_of(options.executor, study, bench), tell, stop)
    found = runner.status(options.out)
    if options.json:
        sys.stdout.write(json.dumps(found.to_json()) + "\n")
    else:
        sys.stdout.write(f"{found.title}: {found.done} of {found.total} tasks in {options.out}, {end.seconds:.0f} s\n")
    if found.failures:
        first = found.failures[0]
        raise AuditError(
            f"{len(found.failures)} tasks failed, first {first['checkpoint']} · {first['explainer']}: {first['reason']}"
        )


def executor_of(words: str | None, study: Any, bench: Any) -> Any:  # Any: Study, Workbench, Executor; imported late
    """The named executor, ready to run; without a name the one that the probe finds faster."""
    from audit_core.keys import Choice
    from audit_core.study.executors import EXECUTORS

    if words is None:
        from audit_core.study import cost
        from audit_core.study.plan import make_plan

        plan = make_plan(study, bench)
        words = cost.estimate(plan, cost.probe(plan, bench), os.cpu_count() or 1).executor
    executor = EXECUTORS.build(Choice.parse(words))
    if reason := executor.refuse():
        raise InvalidParameter(reason)
    return executor


def run_status(options: argparse.Namespace) -> None:
    """What is there, what failed, and which rows there are."""
    from audit_core.study import runner

    found = runner.status(options.out)
    if options.json:
        sys.stdout.write(json.dumps(found.to_json()) + "\n")
        return
    rows = ", ".join(f"{count:,} {state}" for state, count in sorted(found.rows.items()))
    sys.stdout.write(f"{found.title}: {found.done} of {found.total} tasks, rows: {rows or 'none'}\n")
    for failure in found.failures:
        sys.stdout.write(f"failed: {failure['checkpoint']} · {failure['explainer']}: {failure['reason']}\n")


def run_verify(options: argparse.Namespace) -> None:
    """Check completeness and recompute a few tasks; exit code 2 when anything is wrong."""
    from audit_core.study import runner

    check = runner.verify(options.out, _bench(options.device), options.recompute)
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(check)) + "\n")
    else:
        sys.stdout.write(
            f"{check.tasks} tasks; {check.recomputed} computed again, {check.identical} identical to the bit, largest "
            f"difference {check.difference:.2g}\n"
        )
    if check.problems:
        raise AuditError("; ".join(check.problems))


def run_export(options: argparse.Namespace) -> None:
    """Write the tables, or the report, of a study."""
    from audit_core.study import runner

    ending = options.out.suffix.lower()
    if ending in (".html", ".pdf"):
        from audit_core.study.report import write as write_report

        write_report(options.folder, options.out)
    elif ending == ".md":
        from audit_core.study.markdown import findings

        options.out.write_text(findings(options.folder), encoding="utf-8")
    elif ending == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(runner.merged(options.folder), options.out, compression="zstd")
    elif ending == ".csv":
        runner.merged(options.folder).to_pandas().to_csv(options.out, index=False)
    elif not ending:
        from audit_core.study.compact import write as write_compact

        write_compact(options.folder, options.out)
    else:
        raise InvalidParameter(f"export writes .parquet, .csv, .md, .html or .pdf; got {options.out.name!r}")
    sys.stderr.write(f"wrote {options.out}\n")


def run_import(options: argparse.Namespace) -> None:
    """Statistics of tables made elsewhere."""
    import numpy as np
    import pandas as pd

    from audit_core.study import external

    files, n = options.files, len(options.files)
    metrics = options.metric * n if len(options.metric) == 1 else options.metric
    fills = options.fill or ([""] * n if options.fill_column else [path.stem for path in files] if n > 1 else ["all"])
    if len(metrics) != n or len(fills) != n:
        raise InvalidParameter(
            f"each of {n} files needs a fill, and a metric unless all share one; "
            f"got {len(fills)} --fill and {len(metrics)} --metric"
        )
    parts = []
    for path, metric, fill in zip(files, metrics, fills, strict=True):
        if not path.is_file():
            raise BadData(f"there is no file {path}; correct the path")
        unit, seed = (
            column if column and external.has(path, column) else "" for column in (options.unit, options.seed_column)
        )
        parts.append(
            external.read(path, external.Mapping(options.contender, metric, unit, fill, options.fill_column, seed))
        )
    if options.resamples < 1:
        raise InvalidParameter(f"--resamples must be 1 or more, got {options.resamples}")
    table = pd.concat(parts, ignore_index=True)
    external.refuse_twice(table, " and ".join(path.name for path in files))
    found = external.analyse(table, options.better, np.random.default_rng(options.seed), options.resamples)
    if options.json:
        sys.stdout.write(json.dumps(found.to_json(), allow_nan=False) + "\n")
    else:
        sys.stdout.write(found.as_text() + "\n")


def _read(path: Path) -> Any:  # Any: Study; imported late
    from audit_core.study.definition import Study

    try:
        return Study.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read ({error}); give a study as TOML, see study preset") from None


def _bench(device: str) -> Any:  # Any: Workbench; imported late so that --help needs no torch
    from audit_core.cli import open_workbench

    return open_workbench(device)


@contextmanager
def _interruptible() -> Iterator[Any]:  # Any: a function that says whether to stop
    """The first Ctrl-C asks for a stop, the second one ends the process."""
    asked = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("\nstopping; what is done stays done (again to end at once)\n")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
