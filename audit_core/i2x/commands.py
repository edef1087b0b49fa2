"""Command line of I2X: ``python -m audit_core i2x prototypes|trajectory|explain|finetune|rank RUN``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit_core.errors import InvalidParameter


def add_parsers(i2x: argparse.ArgumentParser, parser_class: type[argparse.ArgumentParser]) -> None:
    """Hang the verbs below ``i2x``."""
    verbs = i2x.add_subparsers(required=True, metavar="prototypes|trajectory|explain|finetune|rank",
                               parser_class=parser_class)  # fmt: skip
    told = {
        "prototypes": "what the final model sees: prototypes, their sizes and most typical places",
        "trajectory": "intensity of every prototype and confidence of every class over the checkpoints",
        "explain": "beta per transition, roles of the prototypes, competition of the classes",
        "finetune": "fine-tune without an uncertain prototype, beside controls, and measure the effect",
    }
    for name, words in told.items():
        verb = verbs.add_parser(name, help=words)
        _shared(verb)
        if name in ("explain", "finetune"):
            verb.add_argument("--pair", metavar="A,B", help="two classes by name; default: the most confused pair")
        if name == "finetune":
            _finetune(verb)
        verb.set_defaults(run=run_verb, verb=name)
    rank = verbs.add_parser("rank", help="rank of the explainers at every checkpoint, and how far it is the last one's")
    _rank(rank)


def _rank(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, metavar="RUN", help="folder of checkpoints (models train --save-every)")
    verb.add_argument("--data", default="", help="registered data set; default: the run's own")
    verb.add_argument("--split", default="test")
    verb.add_argument("--per-class", type=int, default=6, help="images of each class, 0 for all")
    verb.add_argument("--explainer", action="append", default=[], metavar="NAME[:k=v,…]", help="may be repeated")
    verb.add_argument("--fill", action="append", default=[], metavar="NAME[:k=v,…]", help="may be repeated")
    verb.add_argument("--metric", default="srg")
    verb.add_argument("--steps", type=int, default=12, help="points of each curve after the untouched one")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the study; it is taken up")
    _facts(verb)
    verb.add_argument("--executor", metavar="NAME[:k=v,…]", default="in-process", help="in-process, processes, ray")
    verb.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(run=run_rank)


def _shared(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, metavar="RUN", help="folder of checkpoints (models train --save-every)")
    verb.add_argument("--data", default="", help="registered data set, as mnist:path=FOLDER; default: the run's own")
    verb.add_argument("--split", default="train")
    verb.add_argument("--per-class", type=int, default=0, help="images of each class, 0 for all")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the analysis")
    _facts(verb)
    verb.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                      help="a setting of the analysis, as prototypes=32; may be repeated")  # fmt: skip
    verb.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    verb.add_argument("--json", action="store_true", help="machine-readable")


def _facts(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--arch", default="", help="architecture, for a folder without run.json; classes are the data's")
    verb.add_argument("--img-size", type=int, metavar="N", help="with --arch: rows and columns; default: as declared")
    verb.add_argument("--mean", type=float, nargs="+", default=[], help="with --arch: of the input, per channel")
    verb.add_argument("--std", type=float, nargs="+", default=[], help="with --arch: of the input, per channel")


def _open(options: argparse.Namespace) -> tuple[Any, str]:
    """(the run, its data set in words); a folder without run.json takes its classes from the data set."""
    from audit_core.data import open_split
    from audit_core.data.base import DATASETS
    from audit_core.i2x.runs import Facts, open_run
    from audit_core.keys import Choice

    if not options.arch:
        run = open_run(options.folder)
        if not (data := options.data or run.data):
            raise InvalidParameter(f"{run.name} does not say what it was trained on; give --data, as digits")
        return run, data
    if not options.data:
        raise InvalidParameter("--arch needs --data too: the classes of the checkpoints are those of the data set")
    classes = open_split(DATASETS.complete(Choice.parse(options.data)), options.split).classes
    side = (options.img_size, options.img_size) if options.img_size else None
    facts = Facts(options.arch, tuple(classes), side, None, tuple(options.mean), tuple(options.std))
    return open_run(options.folder, facts), options.data


def _finetune(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--prototype", type=int, help="the one to leave out; default: the most uncertain of the pair")
    verb.add_argument("--share", type=float, help="of an image's locations above which it is held; default: the "
                      "smallest that leaves half of every class")  # fmt: skip
    verb.add_argument("--only-pair", action="store_true", help="remove images of the two classes only")
    verb.add_argument("--test", default="", help="data set that is measured on; default: --data")
    verb.add_argument("--test-split", default="test")
    verb.add_argument("--test-per-class", type=int, default=0, metavar="N", help="measure on as many images of each "
                      "class, drawn by a seed; 0 for all")  # fmt: skip
    verb.add_argument("--repeats", type=int, default=5)
    verb.add_argument("--from-step", type=int, help="checkpoint to start from; default: the last")
    verb.add_argument("--learning-rate", type=float, default=1e-3)


def run_verb(options: argparse.Namespace) -> None:
    """Open run and images, make what is missing, and print."""
    from tqdm import tqdm

    from audit_core.i2x import commands_text, making
    from audit_core.i2x.sample import open_sample

    run, data = _open(options)
    settings = parse_settings(options.set)
    sample = open_sample(data, options.split, run.final().card, options.per_class)
    with tqdm(total=100, disable=None, unit="%", leave=False) as bar:

        def report(share: float, message: str) -> None:
            bar.set_description(message, refresh=False)
            bar.update(round(100 * share) - bar.n)

        if options.verb == "prototypes":
            found, broken = making.prototypes_of(run, sample, settings, options.out, options.device, report)
            words = commands_text.prototypes(found, sample)
        else:
            source = f"{data}:{options.split}"
            origin = (source, options.per_class)
            made = making.analyse(run, sample, settings, options.out, *origin, options.device, report)
            broken = list(made.broken)
            tell: Callable[..., dict[str, Any]] = commands_text.trajectory
            words = tell(made) if options.verb == "trajectory" else {}
            if options.verb == "explain":
                words = commands_text.explanation(made, pair_of(options, made))
            if options.verb == "finetune":
                words = _compare(options, run, made, sample, data, report)
    words["broken"] = [list(entry) for entry in broken]
    sys.stdout.write(json.dumps(words) + "\n" if options.json else commands_text.lines(words))


def run_rank(options: argparse.Namespace) -> None:
    """A small study of every checkpoint, and the path of the ranks."""
    from tqdm import tqdm

    from audit_core.cli import open_workbench
    from audit_core.i2x import commands_text, ranking
    from audit_core.study import runner
    from audit_core.study.commands import executor_of
    from audit_core.study.definition import ImageSet
    from audit_core.study.results import Results

    run, data = _open(options)
    run = run.checked()
    images = ImageSet(data, options.split, options.per_class)
    chosen = options.explainer or list(ranking.EXPLAINERS), options.fill or list(ranking.FILLS)
    study, bench = ranking.study_of(run, images, *chosen, options.steps), open_workbench(options.device)
    with tqdm(unit="forward", unit_scale=True, disable=None, leave=False) as bar:

        def tell(now: runner.Progress) -> None:
            bar.total = now.forwards_total
            bar.update(now.forwards - bar.n)

        runner.run(study, options.out, bench, executor_of(options.executor, study, bench), tell)
    words = commands_text.rank_path(ranking.along(Results.open(options.out), options.metric))
    words["broken"] = [list(entry) for entry in run.broken]
    sys.stdout.write(json.dumps(words) + "\n" if options.json else commands_text.lines(words))


def _compare(options: argparse.Namespace, run: Any, made: Any, sample: Any, data: str, report: Any) -> dict[str, Any]:
    """Curate, fine-tune and measure; Any: see :func:`run_verb`."""
    from audit_core.i2x import commands_text, comparisons
    from audit_core.i2x.choices import gentle_share
    from audit_core.i2x.curation import Curation
    from audit_core.i2x.explanation import most_uncertain, pair_roles
    from audit_core.i2x.sample import open_sample
    from audit_core.i2x.strategies import Comparison
    from models.finetuning import FineTuning

    start = options.from_step if options.from_step is not None else made.trajectory.steps[-1]
    card = run.classifier(start, options.device).card
    test = open_sample(options.test or data, options.test_split, card, options.test_per_class)
    pair = pair_of(options, made)
    prototype = options.prototype
    if prototype is None:
        roles = pair_roles(made.pushes(made.of_classes(*pair)), made.present, made.trajectory.labels, pair)
        prototype = most_uncertain(roles).prototype
    try:
        recipe = FineTuning(options.learning_rate)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    if not 1 <= options.repeats <= 100:
        raise InvalidParameter(f"--repeats must be in [1, 100], got {options.repeats}")
    only, share = pair if options.only_pair else (), options.share
    if share is None:
        share = gentle_share(made.trajectory.shares, made.trajectory.labels, prototype, only)
    comparison = Comparison(
        Curation(prototype, share, only), pair, recipe, options.repeats,
        made.settings.seed,
    )  # fmt: skip
    folder = options.out / "fine-tuning"
    folder.mkdir(parents=True, exist_ok=True)
    measured = f"{test.references[0].rpartition(':')[0]}: {len(test)} images, {test.digest[:16]}"
    own = not (options.test or options.test_per_class or options.test_split != "test")
    found = comparisons.make(
        run, made, sample, test, start, comparison, folder, options.device, report, "" if own else measured
    )
    comparisons.write(found, options.out / comparisons.FILE)
    return commands_text.comparison(found.outcomes, comparison, made.classes, len(test))


def parse_settings(words: list[str]) -> Any:
    """Settings from NAME=VALUE words, each typed as its default is; Any: :class:`Settings`, imported late."""
    from audit_core.i2x.settings import Settings

    kinds = {field.name: field.default for field in dataclasses.fields(Settings)}
    raw: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(f"--set takes NAME=VALUE, got {word!r}")
        default = kinds.get(name, "")
        try:
            raw[name] = _typed(value, default)
        except ValueError:
            like = "+".join(map(str, default)) if isinstance(default, tuple) else default
            raise InvalidParameter(f"{name} takes a value like {like!r}, got {value!r}") from None
    return Settings.parse(raw)


def _typed(value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise ValueError(value)
        return value == "true"
    if isinstance(default, tuple):
        return tuple(int(part) for part in value.split("+"))
    return type(default)(value)


def pair_of(options: argparse.Namespace, made: Any) -> tuple[int, int]:
    """The two classes asked for, or those confused most; Any: an :class:`Analysis`."""
    pair = parse_pair(options.pair, made.classes) or made.trajectory.most_confused
    if missing := [made.classes[c] for c in pair if c not in made.trajectory.populated]:
        raise InvalidParameter(f"the analysis holds no image of class {missing[0]!r}; choose another pair")
    return pair


def parse_pair(words: str | None, classes: tuple[str, ...]) -> tuple[int, int] | None:
    """Indices of two different classes named ``A,B``; None where none are named."""
    if not words:
        return None
    names = [name.strip() for name in words.split(",")]
    if len(names) != 2 or names[0] == names[1] or not set(names) <= set(classes):
        raise InvalidParameter(f"--pair takes two different classes of {', '.join(classes)}; got {words!r}")
    a, b = sorted(classes.index(name) for name in names)
    return a, b
