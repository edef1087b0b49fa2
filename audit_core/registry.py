"""One kind of plug-in table, used for explainers, fills and data sets."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from audit_core.errors import InvalidParameter, UnknownName
from audit_core.keys import Choice
from audit_core.params import Parameter, Scalar, parameters

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Name -> frozen dataclass whose fields are the parameters and whose docstring is the help text.

    Iteration follows registration order, which is the order of the pages' menus.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, type[T]] = {}
        self._parameters: dict[str, dict[str, Parameter]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator. The same class may register again (a page reload does); another one may not."""

        def add(entry: type[T]) -> type[T]:
            known = self._entries.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__):
                raise ValueError(f"{self.kind} {name!r} is already {known.__module__}.{known.__qualname__}")
            if not (dataclasses.is_dataclass(entry) and entry.__dataclass_params__.frozen):  # type: ignore[attr-defined]
                raise TypeError(f"{entry.__qualname__} must be a frozen dataclass: its fields are its cache key")
            if not (entry.__doc__ or "").strip() or (entry.__doc__ or "").startswith(f"{entry.__name__}("):
                raise TypeError(f"{entry.__qualname__} needs a docstring: it is the help text on the page")
            self._entries[name], self._parameters[name] = entry, parameters(entry)
            return entry

        return add

    def build(self, choice: Choice) -> T:
        """The entry named by ``choice`` with its parameters, checked; missing ones take their defaults."""
        entry, owner = self[choice.name], f"{self.kind} {choice.name!r}"
        known = self._parameters[choice.name]
        if unknown := sorted(set(dict(choice.params)) - set(known)):
            has = ", ".join(known) or "no parameters"
            raise InvalidParameter(f"{owner} has no parameter {', '.join(map(repr, unknown))}; it has {has}")
        return entry(**{name: known[name].parse(value, owner) for name, value in choice.params})

    def complete(self, choice: Choice) -> Choice:
        """``choice`` with every parameter written out and typed: equal computations get equal choices."""
        built: Any = self.build(choice)
        return Choice(choice.name, tuple((f.name, getattr(built, f.name)) for f in dataclasses.fields(built)))

    def parameters(self, name: str) -> dict[str, Parameter]:
        """The parameters of the entry, for widgets, help and documentation."""
        self[name]  # an unknown name gets its sentence
        return dict(self._parameters[name])

    def help(self, name: str) -> str:
        """The entry's docstring without indentation."""
        return inspect.cleandoc(self[name].__doc__ or "")

    def defaults(self, name: str) -> dict[str, Scalar]:
        """Parameter name -> default value."""
        return {key: parameter.default for key, parameter in self.parameters(name).items()}

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownName(f"no {self.kind} named {name!r}.{hint} Known: {', '.join(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
