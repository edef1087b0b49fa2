"""A task whose parts, and the order in which they become useful, are known: what I2X must find again.

Six parts sit on a 4x4 grid: S in classes A and B alike, X in A alone, Y in B alone, U in A and B, used for one and then
for the other, Z in C, and the ground. The network reads the parts as they are; its head is set by hand per checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from audit_core.classifier import Classifier
from audit_core.i2x.runs import Facts
from audit_core.i2x.sample import Sample, digest_of
from models.cards import FeatureLayer, ModelCard

CLASSES = ("A", "B", "C")
GROUND, S, X, Y, U, Z = range(6)
PARTS = {"A": (S, X, U), "B": (S, Y, U), "C": (Z,)}
GRID = 4
#: weight changes per transition: {(part, class): rise}; what is planted at t must show in beta at t
PLAN = (
    {(S, 0): 12.0, (S, 1): 12.0},
    {(Z, 2): 14.0},
    {(U, 0): 10.0},
    {(U, 1): 12.0},
    {(U, 0): 14.0},
    {(U, 1): 12.0},
    {(X, 0): 16.0},
    {(Y, 1): 16.0},
)


class PartNet(nn.Module):
    """Parts in, logits out: an identity stage, the mean over cells, a linear head."""

    def __init__(self, head: np.ndarray) -> None:
        super().__init__()
        self.stage = nn.Conv2d(6, 6, 1, bias=False)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.stage.weight.copy_(torch.eye(6)[:, :, None, None])
            self.head.weight.copy_(torch.as_tensor(head, dtype=torch.float32))
            self.head.bias.zero_()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.stage(pixels).mean((2, 3)))


def part_net(head: np.ndarray) -> PartNet:
    """The network, made without a draw from the global generator."""
    with torch.random.fork_rng(devices=[]):
        return PartNet(head)


def images(per_class: int = 60, seed: int = 0) -> tuple[Sample, np.ndarray]:
    """Images of all classes, and the planted part of every cell, int (n, 4, 4)."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((3 * per_class, GRID * GRID), dtype=np.int64)
    labels = np.repeat(np.arange(3), per_class)
    for i, label in enumerate(labels):
        cells = rng.permutation(GRID * GRID)
        for k, part in enumerate(PARTS[CLASSES[label]]):
            count = 2 + rng.integers(0, 3)  # images of a class differ, so that they do not move as one
            parts[i, cells[5 * k : 5 * k + count]] = part
    parts = parts.reshape(-1, GRID, GRID)
    pixels = np.moveaxis(np.eye(6)[parts], -1, 1) * rng.uniform(0.8, 1.0, (len(parts), 1, GRID, GRID))
    pixels = np.clip(pixels + rng.normal(0, 0.02, pixels.shape), 0, 1).astype(np.float32)
    tensor = torch.from_numpy(pixels)
    names = tuple(f"planted:all:{i}" for i in range(len(labels)))
    return Sample(tensor, labels, names, CLASSES, digest_of(tensor, labels)), parts


class PlantedRun:
    """Stands where a :class:`TrainingRun` does."""

    name, data, seed, broken = "planted", "planted", 0, ()
    facts = Facts("part net", CLASSES)
    folder = Path("planted")

    def __init__(self) -> None:
        self.steps = tuple(10 * t for t in range(len(PLAN) + 1))

    def classifier(self, step: int, device: str = "cpu") -> Classifier:
        head = np.zeros((3, 6))
        for rises in PLAN[: self.steps.index(step)]:
            for (part, label), rise in rises.items():
                head[label, part] += rise
        layer = FeatureLayer("stage1", "stage", "NCHW", (GRID, GRID))
        card = ModelCard(
            f"planted {step}", "PartNet", "part net", (GRID, GRID), 6, "unknown", (0.0,) * 6, (1.0,) * 6, CLASSES,
            (layer,), "global average pool", "none", 57, weights_sha256=f"planted-{step}",
        )  # fmt: skip
        return Classifier(card, part_net(head), torch.device(device))
