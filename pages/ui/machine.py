"""What runs here, said without importing torch."""

from __future__ import annotations

import os
import shutil
import sys

from audit_core.record import AuditRecord
from models import zoo
from pages.ui import resources


def line() -> str:
    """Device, checkpoints and cached audits, in one quiet line."""
    audits = len(resources.store().keys("record:"))
    return f"Device: {device()} · {len(zoo.names())} checkpoints installed · {audits} audits in the store"


def device() -> str:
    """The device audits will use; certain once torch is loaded, else told from the driver's presence."""
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    elif shutil.which("nvidia-smi"):
        return "NVIDIA GPU"
    return f"CPU, {os.cpu_count()} cores"


def family(record: AuditRecord) -> str:
    """Family of a record's checkpoint, or its name."""
    name = record.spec.triple.checkpoint
    return zoo.card(name).family if name in zoo.names() else name
