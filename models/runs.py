"""What a training run leaves behind: numbered checkpoints and one manifest, ``run.json``. Imports no torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.wafers import CLASSES

MANIFEST = "run.json"
_NUMBERED = re.compile(r"step(\d{6,})\.safetensors")


@dataclass(frozen=True)
class TrainingData:
    """What a run learned from: ``source`` as given on the command line, how many images, and their sha256.

    scored_on: in words, the images that score every checkpoint and choose the best one.
    """

    source: str
    images: int
    sha256: str
    scored_on: str = ""


@dataclass(frozen=True)
class Saved:
    """One numbered checkpoint: optimizer steps and epochs before it; None where nobody wrote a fact down.

    loss: mean cross-entropy in nats, accuracy in [0, 1], both on the scoring images, of the weights as stored.
    """

    step: int
    file: str
    epoch: float | None = None
    loss: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class RunManifest:
    """All that is needed to open the checkpoints of a run, and to repeat it.

    input_size: (rows, columns); mean, std: per channel, of pixels in [0, 1]; encoding: of die codes, "" for pictures;
    data: None for a run from before it was recorded; checkpoints: by rising step.
    """

    folder: Path
    architecture: str
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    encoding: str
    seed: int
    recipe: dict[str, Any]
    data: TrainingData | None
    checkpoints: tuple[Saved, ...]
    command: str = ""

    def path(self, saved: Saved) -> Path:
        """Where the weights of one of ``checkpoints`` lie."""
        return self.folder / saved.file


def read_manifest(folder: str | Path) -> RunManifest:
    """The manifest of the run in ``folder``; ``ValueError`` where there is none, or one of something else.

    Runs from before checkpoints were listed are wafer runs: what they leave out is filled in, and their checkpoints
    are those whose files are there.
    """
    folder = Path(folder)
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        rows, columns = raw.get("input_size", (64, 64))
        return RunManifest(
            folder=folder,
            architecture=str(raw["architecture"]),
            classes=tuple(map(str, raw.get("classes") or CLASSES)),
            input_size=(int(rows), int(columns)),
            channels=int(raw.get("channels", 1)),
            mean=per_channel(raw["mean"]),
            std=per_channel(raw["std"]),
            encoding=str(raw["encoding"]),
            seed=int(raw["seed"]),
            recipe=dict(raw["recipe"]),
            data=TrainingData(**raw["data"]) if raw.get("data") else None,
            checkpoints=checkpoints_of(raw, folder),
            command=str(raw.get("command", "")),
        )
    except OSError:
        raise ValueError(f"{folder} holds no {MANIFEST}; give the --out folder of python -m models train") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(f"{folder / MANIFEST} describes no training run ({reason}); train it again") from None


def checkpoints_of(raw: dict[str, Any], folder: Path) -> tuple[Saved, ...]:
    """The checkpoints that a manifest lists, or the numbered files in ``folder`` where it lists none at all."""
    if (listed := raw.get("checkpoints")) is not None:
        return tuple(sorted((Saved(**entry) for entry in listed), key=lambda saved: saved.step))
    steps = {path.name: found for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))}
    return tuple(sorted((Saved(int(found[1]), name) for name, found in steps.items()), key=lambda saved: saved.step))


def write_manifest(folder: Path, settings: dict[str, Any], checkpoints: Sequence[Saved]) -> None:
    """Write ``run.json`` in one stroke: a reader sees the old list or the new one, never half of it."""
    listed = [asdict(saved) for saved in sorted(checkpoints, key=lambda saved: saved.step)]
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps({**settings, "checkpoints": listed}, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def checkpoint_file(step: int) -> str:
    """Name of the checkpoint after ``step`` optimizer steps."""
    return f"step{step:06d}.safetensors"


def per_channel(values: float | Sequence[float]) -> tuple[float, ...]:
    """One number per channel; older wafer runs wrote the bare number of their only channel."""
    return (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)


def saving_steps(words: str, total: int) -> frozenset[int]:
    """The steps after which a run of ``total`` steps keeps a checkpoint.

    words: "N" is every N steps (0: none); "log:K" is about K steps spaced evenly in their logarithm, 0 (the untrained
    network) and ``total`` always among them; "log:K:FIRST" begins at step FIRST instead of 1, where learning shows.
    ``ValueError`` for other words.
    """
    kind, *numbers = words.split(":") if ":" in words else ("", words)
    if kind not in ("", "log") or not all(number.isdecimal() for number in numbers) or len(numbers) > 1 + bool(kind):
        raise ValueError(f"--save-every takes a number of steps, log:K or log:K:FIRST, got {words!r}")
    count, first = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 1
    if not kind:
        return frozenset(range(count, total + 1, count)) if count else frozenset()
    if count < 2 or not 1 <= first <= total:
        raise ValueError(f"--save-every log:K:FIRST needs K of 2 or more and FIRST in [1, {total}], got {words!r}")
    spaced = np.geomspace(first, total, count - 1) if count > 2 else np.array([total])
    return frozenset({0, total, *np.rint(spaced).astype(int).tolist()})
