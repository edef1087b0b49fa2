"""The identity of a computation: equal keys mean equal results, across processes and machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_core.errors import InvalidParameter

VERSION = 2  # of the computation: raise it when results change although no parameter did


@dataclass(frozen=True)
class Choice:
    """A registry name with parameters; prints and parses as ``rise:n_masks=4000,p=0.5``."""

    name: str
    params: tuple[tuple[str, Any], ...] = ()  # Any: bool, int, float or str

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``name`` or ``name:key=value,key=value``; values stay strings until a registry types them."""
        name, _, rest = text.strip().partition(":")
        if not re.fullmatch(r"[A-Za-z0-9_.\-]+", name):
            raise InvalidParameter(f"expected name or name:key=value,…, got {text!r}")
        params = []
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise InvalidParameter(f"expected key=value after {name!r}, got {part!r}")
            params.append((key.strip(), value.strip()))
        if len({key for key, _ in params}) < len(params):
            raise InvalidParameter(f"a parameter of {name!r} is given twice in {text!r}")
        return cls(name, tuple(params))

    def __str__(self) -> str:
        # An empty word is the default wherever a parameter may be empty, so it need not be written.
        shown = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in self.params if v != "")
        return f"{self.name}:{shown}" if shown else self.name


def canonical(value: Any) -> Any:
    """Plain JSON data that stands for ``value``; whatever has no canonical form is refused with ``TypeError``.

    Arrays become dtype, shape and the sha256 of their exact bytes (nothing is rounded or sampled).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__qualname__, **fields}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:  # an object array's bytes are addresses
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "sha256": digest}
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("only dictionaries with string keys have a canonical form")
        return {name: canonical(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value!r} has no canonical form")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__qualname__} has no canonical form; give its name or the hash of its content")


def key(**parts: Any) -> str:
    """sha256 (64 hex digits) of the canonical parts and the computation version."""
    text = json.dumps({"version": VERSION, **canonical(parts)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
