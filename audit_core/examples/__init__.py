"""Finished audits that ship with the project, so that a first visit shows a result. Reading them needs no torch.

``python -m audit_core.examples`` computes them anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from audit_core.record import AuditRecord, loads

FOLDER = Path(__file__).parent
IMAGE = "synthetic:sample:3"

#: File stem -> (checkpoint, explainer, fill). The first is the home page's; the four zero fills open Compare.
SHIPPED = {
    "1-vit-zero": ("wafer-vit-tiny", "rollout", "zero"),
    "2-swin-zero": ("wafer-swin-tiny", "grad-cam", "zero"),
    "3-resnet-zero": ("wafer-resnet18-cbam", "grad-cam", "zero"),
    "4-densenet-zero": ("wafer-densenet121", "grad-cam", "zero"),
    "5-vit-blur": ("wafer-vit-tiny", "rollout", "blur"),
}


@cache
def examples() -> dict[str, AuditRecord]:
    """Shipped records by key, in the order of their file names."""
    found = [loads(path.read_bytes()) for path in sorted(FOLDER.glob("[0-9]*.json"))]
    return {one.key: one for one in found}


@cache
def measures() -> dict[str, Any]:  # Any: JSON of :class:`audit_core.metrics.Measure`
    """Shipped measures by their own keys, which name record, weights and metric."""
    return _read("measures.json")


@cache
def self_tests() -> dict[str, Any]:  # Any: JSON of :class:`audit_core.selftest.Outcome`
    """Self-tests of every explainer on the shipped checkpoints, by their identity."""
    return _read("self-tests.json")


def _read(name: str) -> dict[str, Any]:
    path = FOLDER / name
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
