"""Audit records made by hand, for tests that need one and no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from audit_core.keys import Choice
from audit_core.record import AuditRecord, Controls, StepProbabilities
from audit_core.types import AuditSpec, Curve, Effect, Triple

WAFER_CLASSES = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch", "none")


def make_record(
    size: int = 16, channels: int = 1, classes: Sequence[str] = WAFER_CLASSES, signed: bool = False, orders: int = 8,
    health: Sequence[str] = (), error: bool = False, seed: int = 3, explainer: str = "grad-cam:layer=stage4,relu=true",
    fill: str = "blur:sigma=5.0", checkpoint: str = "wafer-vit-tiny", image: str = "synthetic:sample:3",
    steps: int = 20, label: int | None = 1, **settings: Any,
) -> AuditRecord:
    """A record whose parts agree with each other: areas belong to curves, advantages to areas."""
    rng = np.random.default_rng(seed)
    pixels = wafer(size, rng) if channels == 1 else picture(size, channels, rng)
    values = bump(size, signed)
    probabilities = rng.dirichlet(np.full(len(classes), 0.2))
    target = int(probabilities.argmax())
    fraction = np.linspace(0.0, 1.0, steps + 1)
    own = {
        "deletion": probabilities[target] * np.exp(-6 * fraction) + 0.01,
        "insertion": probabilities[target] * (1 - np.exp(-7 * fraction)) + 0.01,
    }
    drawn = {name: random_orders(fraction, curve, orders, rng) for name, curve in own.items()}
    areas = {name: np.array([area(fraction, row) for row in rows]) for name, rows in drawn.items()}
    gains = {
        "deletion": areas["deletion"] - area(fraction, own["deletion"]),
        "insertion": area(fraction, own["insertion"]) - areas["insertion"],
    }
    kept = tuple(sorted({int(k) for k in np.argsort(-probabilities)[:12]} | {target}))
    return AuditRecord(
        key="0123456789abcdef" * 4,
        spec=AuditSpec(Triple(checkpoint, Choice.parse(explainer), Choice.parse(fill)), image, steps=steps,
                       controls=orders, **settings),
        classes=tuple(classes), predicted=target, target=target, label=label, probabilities=probabilities,
        deletion=Curve(fraction, own["deletion"]), insertion=Curve(fraction, own["insertion"]),
        controls=Controls(drawn["deletion"], drawn["insertion"], areas["deletion"], areas["insertion"]),
        advantage={name: effect(gain) for name, gain in gains.items() if orders > 1},
        along=StepProbabilities(kept, *(rng.random((2, steps + 1, len(kept))).astype(np.float32))),
        values=values, error=np.full_like(values, 0.0125) if error else None, signed=signed, pixels=pixels,
        badge="adapted", badge_sentence="The score is read from CLS token, not from this feature map: a rebuilt proxy.",
        health=tuple(health), forwards=361, backwards=1, seconds=1.75, extra={"layer": "stage4", "grid": [8, 8]},
        provenance=provenance(checkpoint, explainer, fill, image),
    )


def same(a: Any, b: Any) -> bool:
    """Bit-equality of nested dataclasses, arrays and plain values."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b


def area(x: np.ndarray, y: np.ndarray) -> float:
    """Trapezoid rule, written out."""
    return sum((float(x[i + 1]) - float(x[i])) * (float(y[i]) + float(y[i + 1])) / 2 for i in range(len(x) - 1))


def random_orders(fraction: np.ndarray, own: np.ndarray, orders: int, rng: np.random.Generator) -> np.ndarray:
    """Curves that share the end points of ``own`` and wander between them: float64 (orders, points)."""
    straight = own[0] + (own[-1] - own[0]) * fraction**1.5
    wander = np.cumsum(rng.normal(0, 0.02, (orders, len(fraction))), axis=1) * np.sqrt(fraction * (1 - fraction))
    return np.clip(straight + wander, 0, 1).reshape(orders, len(fraction))


def effect(gain: np.ndarray) -> Effect:
    """Mean and a 95 % normal interval."""
    mean, half = float(gain.mean()), 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5
    return Effect(mean, mean - half, mean + half, len(gain), "normal interval over random orders")


def wafer(size: int, rng: np.random.Generator) -> np.ndarray:
    """A round wafer with failed dies and a blob, values 0, 0.5 and 1: float32 (1, size, size)."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    inside = np.hypot(rows, columns) <= 0.49
    near = np.hypot(rows + 0.12, columns - 0.1) < 0.17
    failed = (rng.random((size, size)) < np.where(near, 0.8, 0.06)) & inside
    return np.where(failed, 1.0, np.where(inside, 0.5, 0.0)).astype(np.float32)[None]


def picture(size: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth colours with a little noise: float32 (channels, size, size) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size] / size
    phases = np.arange(channels)[:, None, None]
    smooth = 0.5 + 0.35 * np.sin(6 * rows + 4 * columns * (phases + 1) + phases)
    return np.clip(smooth + rng.normal(0, 0.03, (channels, size, size)), 0, 1).astype(np.float32)


def bump(size: int, signed: bool) -> np.ndarray:
    """One hill, and a valley where signed: float32 (size, size)."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    hill = np.exp(-((rows + 0.12) ** 2 + (columns - 0.1) ** 2) / 0.02)
    valley = 0.6 * np.exp(-((rows - 0.2) ** 2 + (columns + 0.2) ** 2) / 0.015) if signed else 0.0
    return (hill - valley).astype(np.float32)


def provenance(checkpoint: str, explainer: str, fill: str, image: str) -> dict[str, Any]:
    """What an audit writes about its origin."""
    words = f"--checkpoint {checkpoint} --explainer {explainer} --fill {fill} --image {image}"
    return {
        "triplecheck": "0.1.0", "versions": {"torch": "2.15.0", "numpy": "2.4.6", "python": "3.11.2"},
        "device": "cpu (x86_64)", "threads": 1, "precision": "fp32", "checkpoint": checkpoint,
        "architecture": "vit_tiny_patch4_64", "weights_sha256": "ab12" * 16, "image": image,
        "image_sha256": "cd34" * 16, "input_sha256": "ef56" * 16, "seed": 0, "time": "2026-01-31T12:34:56+00:00",
        "command": f"python -m audit_core audit {words}",
    }
