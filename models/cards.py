"""Model cards: everything an audit may ask about a checkpoint without opening its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"


@dataclass(frozen=True)
class FeatureLayer:
    """A named place where spatial features can be read.

    layout: "NCHW" (n, channels, rows, columns), "NHWC" (n, rows, columns, channels) or "tokens"
    (n, prefix + rows * columns, channels), row-major; grid: (rows, columns) at the card's input size;
    prefix_tokens: class, register or distillation tokens that stand before the patches.
    """

    name: str
    module: str
    layout: str
    grid: tuple[int, int]
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Score:
    """One measured number with its 95 % interval; the interval is a percentile bootstrap over images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """How well a checkpoint classifies one data set: ``n`` images, named scores, and the data's sha256.

    Names: accuracy, balanced_accuracy, macro_f1 (higher is better); calibration_error (expected calibration
    error, 15 equal-width bins of the top probability; lower is better). All in [0, 1].
    """

    data: str
    data_sha256: str
    n: int
    scores: dict[str, Score]
    command: str = UNKNOWN


@dataclass(frozen=True)
class ModelCard:
    """Identity, input contract, structure and measured quality of one checkpoint.

    Pixel values are in [0, 1] per channel; the network sees (pixel - mean) / std. "unknown" stands wherever
    nobody measured or declared a fact, as for a checkpoint that a user brings.
    """

    name: str
    family: str
    architecture: str
    input_size: tuple[int, int]
    channels: int
    encoding: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    feature_layers: tuple[FeatureLayer, ...]
    readout: str
    attention: str
    parameters: int
    narrowed: str = UNKNOWN
    training_command: str = UNKNOWN
    recipe: str = UNKNOWN
    data: str = UNKNOWN
    data_sha256: str = UNKNOWN
    seed: int | None = None
    evaluations: tuple[Evaluation, ...] = ()
    weights_sha256: str = UNKNOWN
    licence: str = UNKNOWN
    notice: str = ""
    citations: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # what else the architecture's builder was given

    def layer(self, name: str = "") -> FeatureLayer:
        """The feature layer called ``name``; the last one for the empty name. ``ValueError`` names the known ones."""
        if not self.feature_layers:
            raise ValueError(f"{self.name} has no known spatial feature layer")
        if not name:
            return self.feature_layers[-1]
        for layer in self.feature_layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.feature_layers)
        raise ValueError(f"{self.name} has no feature layer {name!r}; it has {known}")

    def to_json(self) -> str:
        """Indented JSON; :meth:`from_json` reads it back to an equal card."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card; unknown or missing fields raise ``ValueError``."""
        raw = json.loads(text)
        names = {f.name for f in dataclasses.fields(cls)}
        if unexpected := sorted(set(raw) - names):
            raise ValueError(f"model card has unknown fields {unexpected}")
        raw["feature_layers"] = tuple(
            FeatureLayer(**{**layer, "grid": tuple(layer["grid"])}) for layer in raw["feature_layers"]
        )
        raw["evaluations"] = tuple(
            Evaluation(**{**e, "scores": {k: Score(**v) for k, v in e["scores"].items()}}) for e in raw["evaluations"]
        )
        for name in ("input_size", "mean", "std", "classes", "citations"):
            raw[name] = tuple(raw[name])
        return cls(**raw)

    def save(self, path: str | Path) -> None:
        """Write the JSON beside the weights."""
        Path(path).write_text(self.to_json(), encoding="utf-8")
