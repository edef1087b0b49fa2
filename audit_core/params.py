"""Bounds of a parameter, said once: the check, the widget, the command line and the tests all read the same object."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from audit_core.errors import InvalidParameter

Scalar = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Between:
    """Closed interval [low, high] of a number, with the unit and the sentence shown to the user."""

    low: float
    high: float
    unit: str = ""
    help: str = ""


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A choice among named options."""

    options: tuple[str, ...]
    help: str = ""


@dataclasses.dataclass(frozen=True)
class Note:
    """Help for a parameter that has no bounds of its own (a name, a switch)."""

    help: str


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One field of a registered entry, as pages, command line and documentation see it."""

    name: str
    type: type
    default: Scalar
    limit: Between | OneOf | Note

    def parse(self, value: Any, owner: str) -> Scalar:
        """Check ``value`` (words are converted) and return it as ``type``; ``InvalidParameter`` says what is wrong."""
        parsed = self._convert(value, owner)
        if isinstance(self.limit, OneOf) and parsed not in self.limit.options:
            raise InvalidParameter(
                f"{owner}: {self.name} must be one of {', '.join(self.limit.options)}; got {value!r}"
            )
        if isinstance(self.limit, Between) and (
            isinstance(parsed, str) or not self.limit.low <= parsed <= self.limit.high
        ):
            unit = f" {self.limit.unit}" if self.limit.unit else ""
            raise InvalidParameter(
                f"{owner}: {self.name} must be in [{self.limit.low:g}, {self.limit.high:g}]{unit}, got {value!r}"
            )
        return parsed

    def _convert(self, value: Any, owner: str) -> Scalar:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[self.type]
        wrong = InvalidParameter(f"{owner}: {self.name} must be {wanted}, got {value!r}")
        if self.type is bool:
            named = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if isinstance(value, bool):
                return value
            if isinstance(value, str) and value.lower() in named:
                return named[value.lower()]
            raise wrong
        if isinstance(value, bool) or ((self.type is str) != isinstance(value, str) and self.type is str):
            raise wrong
        try:
            number = self.type(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if self.type is int and not isinstance(value, str) and number != value:
            raise wrong
        if self.type is float and not math.isfinite(number):
            raise wrong
        return number


def parameters(owner: type) -> dict[str, Parameter]:
    """Field name -> its parameter, in order of declaration; every field needs a type, a default and a limit."""
    hints = get_type_hints(owner, include_extras=True)
    found = {}
    for field in dataclasses.fields(owner):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            raise TypeError(f"{owner.__qualname__}.{field.name} must be Annotated with Between, OneOf or Note")
        if field.default is dataclasses.MISSING:
            raise TypeError(f"{owner.__qualname__}.{field.name} needs a default, so that the entry builds without it")
        kind, limit = get_args(hint)[:2]
        found[field.name] = Parameter(field.name, kind, field.default, limit)
    return found


Seed = Annotated[int, Between(0, 2**31 - 1, help="Number that fixes every random draw of this method.")]
