"""Command line: list, audit, verify. JSON on stdout; exit code 0, or 2 with one sentence on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit_core.errors import AuditError, BadData, InvalidParameter
from audit_core.types import DIRECTIONS, PRECISIONS, QUANTITIES, SETTINGS, AuditSpec

Handler = Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:  # Any: never returns
        """One sentence instead of argparse's usage block."""
        sys.stderr.write(f"{message}; see {self.prog} --help\n")
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    """Parse and dispatch; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        options.run(options)
    except AuditError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BrokenPipeError:
        return 0
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line as data."""
    top = _Parser(prog="python -m audit_core", description="Audit (checkpoint, explainer, fill) triples.")
    metavar = "list|audit|verify|measure|matrix|study|i2x"
    verbs = top.add_subparsers(required=True, metavar=metavar, parser_class=_Parser)
    listing = verbs.add_parser("list", help="what there is to choose from")
    listing.add_argument("what", choices=tuple(LISTINGS))
    listing.add_argument("--json", action="store_true", help="machine-readable")
    listing.set_defaults(run=run_list)
    _audit_parser(verbs.add_parser("audit", help="audit one image"))
    verify = verbs.add_parser("verify", help="recompute a record and compare")
    verify.add_argument("record", help="key of a stored record, or a JSON record, or an exported PNG card")
    _checkpoint_options(verify, required=False)
    verify.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    verify.add_argument("--json", action="store_true", help="machine-readable")
    verify.set_defaults(run=run_verify)
    measuring = verbs.add_parser("measure", help="controls, sanity, stability, … of a finished audit's map")
    measuring.add_argument("record", help="key of a stored record, or a JSON record, or an exported PNG card")
    measuring.add_argument("--metric", action="append", metavar="NAME[:k=v,…]", help="may be repeated; default: all")
    _checkpoint_options(measuring, required=False)
    measuring.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    measuring.add_argument("--json", action="store_true", help="machine-readable")
    measuring.set_defaults(run=run_measure)
    from audit_core.study import commands

    commands.add_parsers(verbs.add_parser("study", help="many images, seeds and statistics"), _Parser)
    from audit_core.i2x import commands as i2x

    i2x.add_parsers(verbs.add_parser("i2x", help="how a model came to look there, from its checkpoints"), _Parser)
    _matrix_parser(verbs.add_parser("matrix", help="every checkpoint x explainer x fill on a few images"))
    return top


def _matrix_parser(matrix: argparse.ArgumentParser) -> None:
    for name in ("checkpoint", "explainer", "fill"):
        matrix.add_argument(f"--{name}", action="append", metavar="NAME", help="may be repeated; all, unless named")
    matrix.add_argument("--images", type=int, default=9, help="synthetic sample wafers, one class after the other")
    matrix.add_argument("--steps", type=int, default=5, help="points of each curve after the untouched one")
    matrix.add_argument("--seed", type=int, default=0, help="fixes every random draw")
    matrix.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    matrix.add_argument("--json", action="store_true", help="cells and counts as JSON")
    matrix.set_defaults(run=run_matrix)


def _audit_parser(audit: argparse.ArgumentParser) -> None:
    _checkpoint_options(audit, required=True)
    audit.add_argument("--explainer", metavar="NAME[:k=v,…]", help="may be left out where --map gives the map")
    audit.add_argument("--map", type=Path, metavar="FILE", help="a map made elsewhere: .npy or .npz")
    audit.add_argument("--fill", required=True, metavar="NAME[:k=v,…]")
    audit.add_argument("--image", required=True, metavar="PATH|DATASET:SPLIT:INDEX")
    audit.add_argument("--target", default="predicted", metavar="predicted|label|CLASS")
    audit.add_argument(
        "--against", default="", metavar="CLASS", help="why the target rather than this class: scores logit differences"
    )
    for name, text in (
        ("steps", "points after the untouched one"),
        ("patch", "side of the changed square, px"),
        ("controls", "random orders behind the curve"),
        ("seed", "fixes every random draw"),
    ):
        audit.add_argument(f"--{name}", type=int, default=AuditSpec.__dataclass_fields__[name].default, help=text)
    audit.add_argument("--direction", choices=DIRECTIONS, default="most", help="which pixels are changed first")
    audit.add_argument("--quantity", choices=QUANTITIES, default="probability", help="scored quantity")
    audit.add_argument("--precision", choices=PRECISIONS, default="fp32")
    audit.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    audit.add_argument("--json", action="store_true", help="the whole record on stdout (the default without --out)")
    audit.add_argument("--out", type=Path, metavar="DIR", help="write record.json, card.png, curves.csv, maps.npz here")
    audit.set_defaults(run=run_audit)


def _checkpoint_options(verb: argparse.ArgumentParser, required: bool) -> None:
    verb.add_argument("--checkpoint", required=required, metavar="NAME|PATH")
    verb.add_argument("--arch", help="timm architecture (or one of ours) of a checkpoint given by path")
    for name, text in (("num-classes", "outputs"), ("in-chans", "input channels"), ("img-size", "input side, px")):
        verb.add_argument(f"--{name}", type=int, help=f"{text} of a checkpoint given by path")
    for name in ("mean", "std"):
        verb.add_argument(f"--{name}", metavar="X[,X,X]", help=f"normalisation {name} per channel")
    verb.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line")


def run_list(options: argparse.Namespace) -> None:
    """Names with titles and parameters."""
    rows = LISTINGS[options.what]()
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    width = max((len(row["name"]) for row in rows), default=0) + 2
    for row in rows:
        sys.stdout.write(f"{row['name']:{width}}{row['summary']}\n")


def _checkpoints() -> list[dict[str, Any]]:
    from models import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    return [
        {
            "name": card.name,
            "summary": f"{card.family}, {card.parameters:,} parameters, {card.readout}",
            "architecture": card.architecture,
            "input_size": list(card.input_size),
            "channels": card.channels,
            "classes": list(card.classes),
            "feature_layers": [layer.name for layer in card.feature_layers],
        }
        for card in cards
    ]


FACTS = ("title", "family", "better", "formula", "source", "library", "witness", "pitfalls")


def _registry(registry: Any) -> list[dict[str, Any]]:  # Any: Registry of any kind
    return [
        {
            "name": name,
            "summary": registry.help(name).splitlines()[0],
            **{fact: getattr(registry[name], fact) for fact in FACTS if hasattr(registry[name], fact)},
            "parameters": {
                key: {"default": p.default, "help": p.limit.help} for key, p in registry.parameters(name).items()
            },
        }
        for name in registry
    ]


def _explainers() -> list[dict[str, Any]]:
    from audit_core.explainers import EXPLAINERS

    return _registry(EXPLAINERS)


def _fills() -> list[dict[str, Any]]:
    from audit_core.fills import FILLS

    return _registry(FILLS)


def _metrics() -> list[dict[str, Any]]:
    from audit_core.metrics import METRICS

    return _registry(METRICS)


def _datasets() -> list[dict[str, Any]]:
    from audit_core.data import DATASETS

    return [{**row, "splits": list(DATASETS[row["name"]].splits)} for row in _registry(DATASETS)]


LISTINGS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "checkpoints": _checkpoints,
    "explainers": _explainers,
    "fills": _fills,
    "metrics": _metrics,
    "datasets": _datasets,
}


def run_audit(options: argparse.Namespace) -> None:
    """Resolve paths to references, run, print or write."""
    from audit_core import audit

    bench = open_workbench(options.device)
    checkpoint = checkpoint_reference(options, bench)
    settings = {name: getattr(options, name) for name in SETTINGS}
    if options.against:
        settings["quantity"] = "logit"
    explainer, image = explainer_words(options, bench), image_reference(options.image, bench)
    wanted = audit.spec(checkpoint, explainer, options.fill, image, **settings)
    record = audit.run(wanted, bench)
    if bench.problem:
        sys.stderr.write(f"{bench.problem}\n")
    if options.out:
        from audit_core.export import write_all

        for path in write_all(record, options.out):
            sys.stderr.write(f"wrote {path}\n")
    if options.json or not options.out:
        sys.stdout.write(record.dumps() + "\n")


def explainer_words(options: argparse.Namespace, bench: Any) -> str:  # Any: Workbench
    """The explainer as it was named, or the map that was given in its place."""
    if options.map is None:
        if not options.explainer:
            raise InvalidParameter("an audit needs --explainer NAME, or --map FILE with a map made elsewhere")
        return str(options.explainer)
    if options.explainer and options.explainer != "outside":
        raise InvalidParameter(f"--map gives the map itself, --explainer {options.explainer} another; leave one out")
    if not options.map.is_file():
        raise InvalidParameter(f"--map {str(options.map)!r} is no file; give a .npy or .npz file")
    return f"outside:map={bench.add_map(options.map.read_bytes(), options.map.name)}"


def run_matrix(options: argparse.Namespace) -> None:
    """Fill the matrix; exit code 2 when a cell ended in neither a number nor a reason."""
    from tqdm import tqdm

    from audit_core import matrix
    from audit_core.explainers import EXPLAINERS
    from audit_core.fills import FILLS
    from models import zoo

    if not 1 <= options.images <= 90:
        raise InvalidParameter(f"images must be in [1, 90], got {options.images}")
    checkpoints, explainers, fills = (
        list(named or every)
        for named, every in ((options.checkpoint, zoo.names()), (options.explainer, EXPLAINERS), (options.fill, FILLS))
    )
    images = [f"synthetic:sample:{index}" for index in range(options.images)]
    bench = open_workbench(options.device)
    with tqdm(unit="cell", disable=None) as bar:

        def tell(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.update(done - bar.n)
            bar.set_description_str(message)

        settings = {"steps": options.steps, "controls": 0, "seed": options.seed}
        cells = list(matrix.matrix(bench, checkpoints, explainers, fills, images, tell, **settings))
    counted = matrix.counts(cells)
    if options.json:
        rows = {"counts": counted, "settings": {"images": images, **settings}, "cells": [c.to_json() for c in cells]}
        sys.stdout.write(json.dumps(rows, allow_nan=False) + "\n")
    else:
        sys.stdout.write(matrix.as_text(cells) + "\n")
    if counted["error"]:
        raise AuditError(f"{counted['error']} of {counted['cells']} cells ended in a defect; their reasons name it")


def run_verify(options: argparse.Namespace) -> None:
    """Recompute and compare; exit code 2 when the numbers differ."""
    from audit_core import audit

    bench = open_workbench(options.device)
    if options.checkpoint:
        checkpoint_reference(options, bench)
    record = read_record(options.record, bench)
    result = audit.verify(record, bench)
    words = {
        "key": result.key,
        "same": result.same,
        "map_difference": result.map_difference,
        "curve_difference": result.curve_difference,
        "tolerance": result.tolerance,
        "note": result.note,
    }
    if options.json:
        sys.stdout.write(json.dumps(words) + "\n")
    else:
        verdict = "verified" if result.same else "NOT reproduced"
        sys.stdout.write(
            f"{verdict}: {result.key[:16]} largest difference {result.curve_difference:.2g} (curves), "
            f"{result.map_difference:.2g} (map), tolerance {result.tolerance:g} {result.note}\n"
        )
    if not result.same:
        raise AuditError(
            f"the record was not reproduced: {result.note or 'its numbers differ from the recomputed ones'}"
        )


def run_measure(options: argparse.Namespace) -> None:
    """Measure a finished audit's map: one row per metric, each a number with its direction or the reason for none."""
    from audit_core import measuring

    bench = open_workbench(options.device)
    if options.checkpoint:
        checkpoint_reference(options, bench)
    record = read_record(options.record, bench)
    rows = measuring.table(measuring.measure(record, bench, options.metric))
    if options.json:
        sys.stdout.write(json.dumps({"key": record.key, "measures": rows}, allow_nan=False) + "\n")
        return
    arrows = {"lower": "↓", "higher": "↑", "neither": " "}
    for row in rows:
        value = "–" if row["refused"] else f"{row['value']:.4g}"
        sys.stdout.write(f"{row['name']:26}{arrows[row['better']]} {value:>10}  {row['sentence']}\n")


def read_record(text: str, bench: Any) -> Any:  # Any: Workbench, AuditRecord; imported late
    """A record by stored key, JSON file or PNG card."""
    from audit_core.export import read_record
    from audit_core.record import from_json

    path = Path(text)
    if path.is_file():
        return read_record(path.read_bytes())
    raw = bench.store.get_json(f"record:{text}")
    if raw is None:
        raise BadData(
            f"{text!r} is neither a file nor the key of a stored record; run the audit first or give its JSON or PNG"
        )
    return from_json(raw)


def open_workbench(device: str) -> Any:  # Any: Workbench; imported late so that --help needs no torch
    """The workbench over the default store."""
    from audit_core.store import Store, default_directory
    from audit_core.workbench import Workbench

    return Workbench(Store(default_directory()), device)


def checkpoint_reference(options: argparse.Namespace, bench: Any) -> str:  # Any: Workbench
    """A shipped name as it is; a path is loaded safely and kept in the store."""
    from models import zoo

    path = Path(options.checkpoint)
    if options.checkpoint in zoo.names() or options.checkpoint.startswith("custom:") or not path.is_file():
        return str(options.checkpoint)
    if not options.arch:
        raise InvalidParameter(
            f"{options.checkpoint} is a file: give its architecture too, for example --arch resnet18"
        )
    classes = options.classes.read_text(encoding="utf-8").split("\n") if options.classes else None
    reference = bench.add_checkpoint(
        path.read_bytes(),
        path.name,
        options.arch,
        options.num_classes,
        options.in_chans,
        options.img_size,
        _numbers(options.mean, "mean"),
        _numbers(options.std, "std"),
        [line.strip() for line in classes if line.strip()] if classes else None,
    )
    if notes := bench.notes(reference):
        print(f"{path.name}, read off the file or assumed: {'; '.join(notes)}", file=sys.stderr)
    return reference


def image_reference(text: str, bench: Any) -> str:  # Any: Workbench
    """A file is read and kept in the store; anything else is a reference already."""
    path = Path(text)
    if path.is_file():
        return str(bench.add_image(path.read_bytes(), path.name))
    if text.count(":") < 2 and not text.startswith("upload:"):
        raise InvalidParameter(f"image {text!r} is neither a file nor DATASET:SPLIT:INDEX; see list datasets")
    return text


def _numbers(text: str | None, name: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidParameter(f"--{name} must be numbers separated by commas, got {text!r}") from None
