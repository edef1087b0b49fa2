"""Views as plain data for JSON and tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_core.statistics import Estimate
from audit_core.study.filters import Filters


def plain(value: Any) -> Any:  # Any: nouns of a view -> JSON data
    """Dataclasses become dictionaries, arrays and tuples lists, NaN None, filters their words."""
    if isinstance(value, Filters):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def columns(name: str, estimate: Estimate) -> dict[str, float | int | str | None]:
    """A number with interval and note as flat columns: name, name_low, name_high, name_note."""
    low, high = estimate.low, estimate.high
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high, f"{name}_note": estimate.note}


class View:
    """Base of all views: frozen dataclasses with everything that a page draws."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """The whole view as plain data."""
        found: dict[str, Any] = plain(self)
        return found

    def as_rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One flat row per line of the view's table, for tables and CSV files; NaN is None."""
        found: list[dict[str, Any]] = plain(self._rows())
        return found

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        raise NotImplementedError
