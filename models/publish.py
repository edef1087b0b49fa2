"""Turn a training run into a shipped checkpoint: float16 weights and a card with everything that was measured."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.architectures import ARCHITECTURES, Architecture, Recipe
from models.cards import Evaluation, ModelCard
from models.checkpoint import read_state
from models.scores import evaluate
from models.training import Run, balanced_recipe, save_weights
from models.wafers import WaferMaps, encode, join, read_npz, split_validation, stack
from models.zoo import WEIGHTS, Loaded, load

BATCH = 64
SYNTHETIC = (900, 20260)  # how many generated maps a checkpoint is measured on, and their seed
LICENCE = "MIT (weights); data: see notice"
NOTICE = "Trained on MIR-WM811K, copyright 2015 Jyh-Shing Roger Jang; redistribution asks for this notice."
CITATIONS = (
    "[1] M.-J. Wu, J.-S. R. Jang, J.-L. Chen, Wafer Map Failure Pattern Recognition and Similarity Ranking for "
    "Large-Scale Data Sets, IEEE Transactions on Semiconductor Manufacturing 28(1), 2015, "
    "doi 10.1109/TSM.2014.2364237",
    "[2] MIR-WM811K: Dataset for wafer map failure pattern recognition, 2015, mirlab.org/dataset/public",
)


@dataclass(frozen=True)
class Source:
    """What a run was trained on and is measured with: files as given, training maps, held-out half."""

    data: tuple[Path, ...]
    val: Path
    train: WaferMaps
    held_out: WaferMaps


def read_source(data: Sequence[str | Path], val: str | Path) -> Source:
    """Read the training files and cut the held-out half (odd positions, duplicates dropped) off ``val``."""
    parts = [read_npz(path) for path in data]
    _, held_out = split_validation(read_npz(val), parts)
    return Source(tuple(map(Path, data)), Path(val), join(parts), held_out)


def read_run(folder: Path) -> Run:
    """The run that ``folder`` holds; ``ValueError`` when there is none or it was not written by ``train``."""
    try:
        raw = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        run = Run.from_json(raw)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no training run ({error}); give the --out folder of train") from None
    if run.architecture not in ARCHITECTURES:
        raise ValueError(f"{folder} was trained on {run.architecture!r}, which is no longer in the zoo")
    return run


def publish(folder: Path, name: str, source: Source, out: Path = WEIGHTS) -> ModelCard:
    """Write ``out/name.safetensors`` (float16) and ``out/name.json``, measured on the reloaded weights.

    The scores are those of exactly the bytes that are shipped, on the held-out half and on generated maps.
    ``ValueError`` when the run has no checkpoint yet or was trained on other data than ``source``.
    """
    run = read_run(folder)
    if run.data_sha256 != source.train.digest:
        raise ValueError(
            f"{folder} was trained on data {run.data_sha256[:12]}…, the files given hold {source.train.digest[:12]}…; "
            "give the files of its training, in their order"
        )
    best = folder / "best.safetensors"
    if not best.is_file():
        raise ValueError(f"{folder} has no best.safetensors yet; train at least one epoch")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as place:
        bench = Path(place)
        save_weights(bench / f"{name}.safetensors", read_state(best.read_bytes(), best.name), torch.float16)
        card = describe_run(run, name, source, progress_words(folder, run))
        card = replace(card, weights_sha256=_sha256(bench / f"{name}.safetensors"))
        card.save(bench / f"{name}.json")
        loaded = load(name, bench)
        card = replace(card, evaluations=tuple(measure(loaded, source, publish_command(name, source))))
        card.save(bench / f"{name}.json")
        (bench / f"{name}.safetensors").chmod(0o644)
        for suffix in (".safetensors", ".json"):
            (bench / f"{name}{suffix}").replace(out / f"{name}{suffix}")
    return card


def describe_run(run: Run, name: str, source: Source, progress: str) -> ModelCard:
    """The card of a run, before its weights are hashed and measured."""
    entry = ARCHITECTURES[run.architecture]
    files = " + ".join(path.name for path in source.data)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in entry.build(len(source.train.classes), 1).parameters())
    return ModelCard(
        name=name,
        family=entry.family,
        architecture=entry.name,
        input_size=(entry.input_size, entry.input_size),
        channels=1,
        encoding=run.encoding,
        mean=run.mean,
        std=run.std,
        classes=source.train.classes,
        feature_layers=entry.feature_layers,
        readout=entry.readout,
        attention=entry.attention,
        parameters=parameters,
        narrowed=entry.narrowed,
        training_command=training_command(run, source),
        recipe=recipe_words(run.recipe) + progress,
        data=f"WM-811K, {files} ({len(source.train):,} labelled maps)",
        data_sha256=run.data_sha256,
        seed=run.seed,
        licence=LICENCE,
        notice=NOTICE,
        citations=CITATIONS,
    )


def training_command(run: Run, source: Source) -> str:
    """The ``python -m models train`` line that repeats a run, up to where its files and its output stand.

    ``ValueError`` when the recipe is neither the paper's nor ours, so that no command line can repeat it.
    """
    entry, recipe = ARCHITECTURES[run.architecture], run.recipe
    words = [
        "python",
        "-m",
        "models",
        "train",
        "--model",
        entry.name,
        *_files(source),
        "--out",
        "RUN",
        "--seed",
        str(run.seed),
        "--recipe",
        recipe_name(entry, recipe),
        "--encoding",
        run.encoding,
        "--epochs",
        str(recipe.epochs),
    ]
    if recipe.epoch_images:
        words += ["--epoch-images", str(recipe.epoch_images)]
    return shlex.join(words)


def publish_command(name: str, source: Source) -> str:
    """The line that measures a published checkpoint again."""
    return shlex.join(["python", "-m", "models", "publish", "--run", "RUN", "--name", name, *_files(source)])


def _files(source: Source) -> list[str]:
    return ["--data", *(f"WM811K/{path.name}" for path in source.data), "--val", f"WM811K/{source.val.name}"]


def recipe_name(entry: Architecture, recipe: Recipe) -> str:
    """ "paper" or "balanced", whichever gives ``recipe`` at its epochs and images per epoch."""
    if recipe == replace(entry.paper, epochs=recipe.epochs, epoch_images=recipe.epoch_images):
        return "paper"
    if recipe == balanced_recipe(entry, recipe.epochs, recipe.epoch_images):
        return "balanced"
    raise ValueError(f"the run's recipe is neither the paper's nor the balanced one of {entry.name}; train it again")


def recipe_words(recipe: Recipe) -> str:
    """A recipe as one readable sentence without its full stop."""
    words = [
        f"{recipe.optimizer}, learning rate {recipe.learning_rate:g} ({recipe.schedule}), weight decay "
        f"{recipe.weight_decay:g}, batches of {recipe.batch_size}, {recipe.epochs} epochs"
        + (f" of {recipe.epoch_images:,} images" if recipe.epoch_images else ""),
        f"{recipe.sampling} class sampling",
        f"{recipe.augmentation} augmentation",
    ]
    if recipe.class_weights:
        words.append("class weights n / (K n_c) in the loss")
    if recipe.label_smoothing:
        words.append(f"label smoothing {recipe.label_smoothing:g}")
    if recipe.token_dropout:
        words.append(f"{recipe.token_dropout:.0%} of the patch tokens left out except in the last tenth")
    if recipe.averaging:
        words.append(f"weights averaged with decay {recipe.averaging:g}")
    words.append(f"checkpoint with the best {recipe.metric} on the early-stopping half (even positions)")
    return "; ".join(words)


def progress_words(folder: Path, run: Run) -> str:
    """How far the run came and its best early-stopping score, as the tail of the recipe; "" where unrecorded."""
    try:
        progress = json.loads((folder / "last.json").read_text(encoding="utf-8"))["progress"]
        return f" = {progress['best']:.4f}; {progress['epoch']} of {run.recipe.epochs} epochs were run"
    except (OSError, KeyError, ValueError):
        return ""


def measure(loaded: Loaded, source: Source, command: str) -> Iterator[Evaluation]:
    """Scores on the held-out half, then on generated maps, each map once."""
    from models.synthetic import wafer_maps

    count, seed = SYNTHETIC
    rule = f"odd positions of {source.val.name} without the maps that also stand in training or at even positions"
    for words, maps in (
        (f"WM-811K held-out half: {rule}", source.held_out),
        (f"synthetic wafer maps: models.synthetic.wafer_maps({count}, seed={seed})", wafer_maps(count, seed=seed)),
    ):
        probabilities = predict_codes(loaded.module, loaded.card, stack(maps, loaded.card.input_size[0]))
        yield evaluate(maps.labels, probabilities, words, maps.digest, command)


def predict_codes(module: nn.Module, card: ModelCard, codes: np.ndarray, batch: int = BATCH) -> np.ndarray:
    """Class probabilities, float64 (n, classes), for die codes uint8 (n, side, side) at the card's input size.

    Encoded and normalised as the card says; every channel gets the same values. The module is used as it is:
    put it in eval mode first. ``ValueError`` for another size or a card without an encoding.
    """
    if codes.ndim != 3 or codes.shape[1:] != tuple(card.input_size):
        raise ValueError(
            f"{card.name} takes codes of shape (n, {card.input_size[0]}, {card.input_size[1]}), "
            f"got {codes.shape}; resize the maps first"
        )
    device = next(module.parameters()).device
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (card.mean, card.std))
    rows = [np.zeros((0, len(card.classes)))]
    with torch.inference_mode():
        for start in range(0, len(codes), batch):
            values = torch.from_numpy(encode(codes[start : start + batch], card.encoding)).to(device)
            logits = module((values[:, None].expand(-1, card.channels, -1, -1) - mean) / std)
            rows.append(logits.double().softmax(dim=1).cpu().numpy())
    return np.concatenate(rows)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
