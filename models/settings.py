"""Everything that fixes a training run, and the claim on the folder that it is written to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.architectures import Architecture, Recipe
from models.pictures import Pictures
from models.runs import MANIFEST, Saved, TrainingData, checkpoints_of, per_channel, write_manifest
from models.wafers import ENCODINGS, WaferMaps, stack


@dataclass(frozen=True)
class Run:
    """Where and how one training run happens; the manifest ``run.json`` in its folder says it all.

    input_size: (rows, columns); mean, std: per channel, of pixels in [0, 1]; encoding: of die codes, "" for pictures;
    save_every: as :func:`models.runs.saving_steps` reads it; half: numbered checkpoints are stored as float16.
    ``data`` and ``command`` are words for the reader: two runs that differ in them alone are equal.
    """

    architecture: str
    seed: int
    recipe: Recipe
    encoding: str
    data_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    input_size: tuple[int, int] = (64, 64)
    channels: int = 1
    save_every: str = "0"
    half: bool = False
    data: TrainingData | None = field(default=None, compare=False)
    command: str = field(default="", compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Run:
        """The run that a manifest describes; fields that older ones lack have their defaults."""
        known = {name: value for name, value in raw.items() if name != "checkpoints"}
        known |= {"recipe": Recipe(**raw["recipe"]), "mean": per_channel(raw["mean"]), "std": per_channel(raw["std"])}
        known |= {name: tuple(raw[name]) for name in ("classes", "input_size") if name in raw}
        return cls(**{**known, "data": TrainingData(**raw["data"]) if raw.get("data") else None})


def settings(run: Run) -> dict[str, Any]:
    """The run as plain JSON values."""
    return json.loads(json.dumps(asdict(run)))


def claim(folder: Path, run: Run) -> dict[int, Saved]:
    """Write the manifest and return the checkpoints that the folder already lists, by step.

    ``ValueError`` where ``folder`` already holds progress or checkpoints of a run with other settings. Settings that an
    older manifest does not know are taken on; words about data and command stay those of the first start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, mine = folder / MANIFEST, settings(run)
    saved: tuple[Saved, ...] = ()
    if path.exists() and ((folder / "last.safetensors").exists() or any(folder.glob("step*.safetensors"))):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            found, saved = settings(Run.from_json(raw)), checkpoints_of(raw, folder)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path} describes no run of this program; give another --out") from None
        words = {"data", "command"}
        if changed := sorted(key for key in mine if key in raw and key not in words and found[key] != mine[key]):
            raise ValueError(f"{folder} holds a run with another {', '.join(changed)}; give another --out")
        mine |= {key: found[key] for key in words if found[key]}
    write_manifest(folder, mine, saved)
    return {entry.step: entry for entry in saved}


def new_run(architecture: Architecture, recipe: Recipe, seed: int, encoding: str, train: WaferMaps) -> Run:
    """Fix everything that can change the result; mean and standard deviation are those of the training pixels."""
    size = architecture.input_size
    shares = np.bincount(stack(train, size).ravel(), minlength=3) / (len(train) * size * size)
    values = np.asarray(ENCODINGS[encoding])
    mean = float(shares @ values)
    std = float(np.sqrt(shares @ (values - mean) ** 2))
    return Run(
        architecture.name,
        seed,
        recipe,
        encoding,
        train.digest,
        (round(mean, 4),),
        (round(std, 4),),
        train.classes,
        (size, size),
    )


def picture_run(architecture: Architecture, recipe: Recipe, seed: int, train: Pictures) -> Run:
    """The same for pictures: mean and standard deviation per channel, at the pictures' own size."""
    channels, side = train.images.shape[3], architecture.input_size
    values = np.arange(256) / 255
    counts = [np.bincount(train.images[..., c].ravel(), minlength=256) for c in range(channels)]
    shares = [count / count.sum() for count in counts]
    means = [float(share @ values) for share in shares]
    stds = [float(np.sqrt(share @ (values - mean) ** 2)) for share, mean in zip(shares, means, strict=True)]
    if min(stds) == 0:
        raise ValueError("the training pictures all have one colour in a channel; give pictures that differ")
    return Run(
        architecture.name,
        seed,
        recipe,
        "",
        train.digest,
        tuple(round(mean, 4) for mean in means),
        tuple(round(std, 4) for std in stds),
        train.classes,
        (side, side),
        channels,
    )
