"""Command line: ``python -m models train|publish|held-out|list``."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models import zoo
from models.architectures import ARCHITECTURES, Architecture
from models.pictures import SOURCES, Pictures, is_picture_source, read_pictures, stratified
from models.runs import TrainingData
from models.training import Run, Trainer, balanced_recipe, new_run, picture_recipe, picture_run, print_line
from models.wafers import ENCODINGS, WaferMaps, join, read_npz, split_validation, write_npz


def main(argv: list[str] | None = None) -> int:
    """Parse and dispatch; returns the exit code (2 with one sentence on stderr for what the user can mend)."""
    options = parser().parse_args(argv)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line as data."""
    top = argparse.ArgumentParser(prog="python -m models", description="Train and describe checkpoints.")
    verbs = top.add_subparsers(required=True, metavar="train|publish|held-out|list")
    train = verbs.add_parser("train", help="train one family; stop and start again at will")
    train.add_argument("--model", required=True, choices=sorted(ARCHITECTURES), help="definition in the zoo")
    train.add_argument("--data", required=True, nargs="+", help=f"npz files of wafer maps, or pictures: {SOURCES}")
    train.add_argument("--val", help="wafer maps: npz file whose even positions choose the checkpoint")
    train.add_argument("--out", required=True, type=Path, help="folder of the run")
    train.add_argument("--seed", type=int, default=42, help="initialisation, order, augmentation (default 42)")
    train.add_argument("--recipe", choices=("paper", "balanced"), help="wafer maps only (default: the paper's)")
    train.add_argument("--encoding", choices=tuple(ENCODINGS), help="wafer maps only (default: three-level)")
    train.add_argument("--images", type=int, help="pictures only: as many, evenly from all classes (default: all)")
    train.add_argument("--test-images", type=int, help="pictures only: score on as many test pictures (default: all)")
    train.add_argument("--epochs", type=int, help="default: the recipe's (balanced and pictures: 20)")
    train.add_argument("--epoch-images", type=int, default=0, help="images drawn per epoch (default: all)")
    train.add_argument("--minutes", type=float, default=float("inf"), help="stop after the epoch that passes this")
    train.add_argument(
        "--save-every",
        default="0",
        metavar="N|log:K[:FIRST]",
        help="also keep a checkpoint every N steps, or about K spaced evenly in log(step), first and last included",
    )
    train.add_argument("--half", action="store_true", help="keep those checkpoints as float16")
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    train.add_argument("--threads", type=positive, help="CPU threads (default: torch's)")
    train.set_defaults(run=run_train)
    publish = verbs.add_parser("publish", help="turn a run into a shipped checkpoint with its card")
    publish.add_argument("--run", dest="folder", required=True, type=Path, help="folder that train wrote")
    publish.add_argument("--name", required=True, help="name of the checkpoint, as wafer-resnet18-cbam")
    publish.add_argument("--data", required=True, nargs="+", help="npz files that the run was trained on")
    publish.add_argument("--val", required=True, help="npz file whose odd positions are the held-out half")
    publish.add_argument("--out", type=Path, help="folder for weights and card (default: the shipped ones)")
    publish.add_argument("--threads", type=positive, help="CPU threads (default: torch's)")
    publish.set_defaults(run=run_publish)
    held = verbs.add_parser("held-out", help="write the held-out half of a validation file as an npz of its own")
    held.add_argument(
        "--data", required=True, nargs="+", help="npz files of training: maps that stand there are dropped"
    )
    held.add_argument("--val", required=True, help="npz file whose odd positions are the held-out half")
    held.add_argument("--out", required=True, type=Path, help="npz file to write")
    held.set_defaults(run=run_held_out)
    listing = verbs.add_parser("list", help="definitions in the zoo, or the shipped checkpoints with --measured")
    listing.add_argument(
        "--measured", action="store_true", help="table of what was measured on the shipped checkpoints"
    )
    listing.set_defaults(run=run_list)
    return top


def positive(words: str) -> int:
    """A whole number from 1 on."""
    if not words.isdecimal() or int(words) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {words!r}")
    return int(words)


def run_held_out(options: argparse.Namespace) -> None:
    """The maps that no training and no choice of a checkpoint has seen: what a study may audit."""
    _, held_out = split_validation(read_npz(options.val), [read_npz(path) for path in options.data])
    write_npz(options.out, held_out)
    sys.stdout.write(f"{len(held_out)} maps written to {options.out}\n")


def run_list(options: argparse.Namespace) -> None:
    """One definition a line: name, parameters, what is narrowed; or the table of measured scores."""
    if options.measured:
        sys.stdout.write(measured_table())
        return
    for entry in ARCHITECTURES.values():
        with torch.device("meta"):
            count = sum(p.numel() for p in entry.build(9, 1).parameters())
        sys.stdout.write(f"{entry.name:24}{count:>12,}  {entry.narrowed or 'full size'}\n")


def measured_table() -> str:
    """Markdown table of the shipped checkpoints: size and scores with 95 % intervals, read from their cards."""
    heads = (
        "checkpoint",
        "parameters",
        "macro-F1, held-out",
        "balanced accuracy",
        "accuracy",
        "calibration error",
        "macro-F1, synthetic",
    )
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for card in map(zoo.card, zoo.names()):
        held_out, synthetic = card.evaluations
        shown = [held_out.scores[name] for name in ("macro_f1", "balanced_accuracy", "accuracy", "calibration_error")]
        cells = [f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in (*shown, synthetic.scores["macro_f1"])]
        rows.append(f"| {card.name} ({card.family}) | {card.parameters:,} | " + " | ".join(cells) + " |")
    sizes = {(card.evaluations[0].n, card.evaluations[1].n) for card in map(zoo.card, zoo.names())}
    note = "; ".join(f"n = {real:,} held-out maps, {made:,} synthetic maps" for real, made in sorted(sizes))
    return "\n".join([*rows, "", f"{note}. Calibration error: lower is better; all others: higher is better.", ""])


def run_train(options: argparse.Namespace) -> None:
    """Read the wafer maps or the pictures, train."""
    device = device_of(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    architecture = ARCHITECTURES[options.model]
    prepare = prepare_pictures if is_picture_source(options.data[0]) else prepare_wafers
    run, train, scoring = prepare(options, architecture)
    run = replace(run, save_every=options.save_every, half=options.half, command=command_of(options))
    trainer = Trainer(
        architecture,
        run,
        train,
        scoring,
        options.out,
        device,
        print_line,
        options.bf16,
        options.minutes,
    )
    best, where = trainer.fit(), "test split" if isinstance(train, Pictures) else "early-stopping half"
    sys.stdout.write(f"best {run.recipe.metric} on the {where}: {best:.4f} ({options.out}/best.safetensors)\n")


def device_of(words: str) -> torch.device:
    """The device called so; ``ValueError`` where there is none."""
    try:
        device = torch.device(words)
    except RuntimeError:
        raise ValueError(f"--device takes cpu or cuda[:N], got {words!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {words}: {torch.cuda.device_count()} CUDA devices are here; take cpu")
    return device


def prepare_wafers(options: argparse.Namespace, architecture: Architecture) -> tuple[Run, WaferMaps, WaferMaps]:
    """(run, training maps, early-stopping half) as the options say."""
    if not options.val:
        raise ValueError("wafer maps need a file that chooses the checkpoint; give it as --val FILE.npz")
    if options.images or options.test_images:
        raise ValueError("--images and --test-images draw from pictures; for wafer maps give --epoch-images")
    train, early = training_maps(options.data, options.val)
    recipe = architecture.paper
    if options.recipe == "balanced":
        recipe = balanced_recipe(architecture, options.epochs or 20, options.epoch_images)
    elif options.epochs or options.epoch_images:
        recipe = replace(recipe, epochs=options.epochs or recipe.epochs, epoch_images=options.epoch_images)
    run = new_run(architecture, recipe, options.seed, options.encoding or "three-level", train)
    scored = f"even positions of {options.val} ({len(early)} maps)"
    data = TrainingData(" ".join(options.data), len(train), train.digest, scored)
    return replace(run, data=data), train, early


def prepare_pictures(options: argparse.Namespace, architecture: Architecture) -> tuple[Run, Pictures, Pictures]:
    """(run, training pictures, test pictures) as the options say; a subset is the same one for every seed."""
    if len(options.data) > 1:
        raise ValueError(f"pictures come from one source, got {len(options.data)}; name one of {SOURCES}")
    if options.val or options.recipe or options.encoding:
        raise ValueError("--val, --recipe and --encoding are for wafer maps; leave them out for pictures")
    source = options.data[0]
    train, test = read_pictures(source, "train"), read_pictures(source, "test")
    if options.images is not None:
        train = stratified(train, options.images // len(train.classes), np.random.default_rng(0))
    if options.test_images is not None:
        test = stratified(test, options.test_images // len(test.classes), np.random.default_rng(0))
    recipe = picture_recipe(architecture, options.epochs or 20, options.epoch_images, source.startswith("cifar10"))
    scored = f"{test.name} ({len(test)} pictures): it scores every checkpoint and chooses best.safetensors"
    data = TrainingData(source, len(train), train.digest, scored)
    return replace(picture_run(architecture, recipe, options.seed, train), data=data), train, test


def command_of(options: argparse.Namespace) -> str:
    """The line that repeats a run: every option that can change what is learned or kept."""
    words = ["python", "-m", "models", "train", "--model", options.model, "--data", *options.data]
    for name in (
        "val",
        "out",
        "seed",
        "recipe",
        "encoding",
        "images",
        "test_images",
        "epochs",
        "epoch_images",
        "save_every",
        "threads",
    ):
        if (value := getattr(options, name)) not in (None, 0, "0") or name == "seed":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words + [f"--{flag}" for flag in ("half", "bf16") if getattr(options, flag)])


def run_publish(options: argparse.Namespace) -> None:
    """Write float16 weights and their card, measured on the held-out half and on generated maps."""
    from models.publish import publish, read_source
    from models.zoo import WEIGHTS

    if options.threads:
        torch.set_num_threads(options.threads)
    out = options.out or WEIGHTS
    card = publish(options.folder, options.name, read_source(options.data, options.val), out)
    for part in card.evaluations:
        scores = "  ".join(f"{name} {s.value:.4f} [{s.low:.4f}, {s.high:.4f}]" for name, s in part.scores.items())
        sys.stdout.write(f"{part.data} (n {part.n:,})\n  {scores}\n")
    sys.stdout.write(f"{out / options.name}.safetensors\n")


def training_maps(data: list[str], val: str) -> tuple[WaferMaps, WaferMaps]:
    """(training maps of all files, early-stopping half of the validation file)."""
    parts = [read_npz(path) for path in data]
    early, _ = split_validation(read_npz(val), parts)
    return join(parts), early


if __name__ == "__main__":
    sys.exit(main())
