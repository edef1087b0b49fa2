"""A study in words: what the TOML file says, checked and written out in full."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomli_w

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice, key
from audit_core.types import QUANTITIES, SETTINGS


@dataclass(frozen=True)
class Entry:
    """One checkpoint of a study.

    name: unique in the study; a shipped checkpoint, unless ``path`` names a weights file. Beside a published file
    stands its card (``python -m models publish``); any other file needs ``arch`` and, where its weights do not tell
    them, the other facts; encoding: of wafer maps, where it is not three-level. family: checkpoints of one family are
    its training runs (default: the card's); training_seed: default the card's, -1; explainers: its own ones, besides
    those that all checkpoints share.
    """

    name: str
    path: str = ""
    arch: str = ""
    num_classes: int = 0
    in_chans: int = 0
    img_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    encoding: str = ""
    family: str = ""
    training_seed: int = -1
    explainers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSet:
    """Which images: a data set as ``name`` or ``name:key=value,…``, its split, and a stratified sample of it.

    per_class: images of each class, fewer where a class has fewer, 0 for all; seed: of the draw; leave_out: classes
    that are not drawn.
    """

    dataset: str = "synthetic"
    split: str = "sample"
    per_class: int = 2
    seed: int = 0
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurveSettings:
    """How every curve is made; see :class:`AuditSpec`.

    seeds: of all random draws, each a repetition of the study; kept: whether the curves themselves are stored too.
    """

    steps: int = 20
    patch: int = 1
    direction: str = "most"
    quantity: str = "probability"
    target: str = "predicted"
    precision: str = "fp32"
    seeds: tuple[int, ...] = (0,)
    kept: bool = True


@dataclass(frozen=True)
class Checks:
    """Slow metrics (sanity, stability, …), measured on a few images of each class under the study's first fill.

    own_only: only for explainers that read the model's inside; else for model-agnostic ones too, which is very slow.
    Controls read no model and are never checked.
    """

    metrics: tuple[str, ...] = ()
    per_class: int = 1
    own_only: bool = True


@dataclass(frozen=True)
class Study:
    """A whole study; :meth:`parse` and :meth:`dumps` are inverse to each other.

    explainers, fills: as on the command line, ``name:key=value,…``; criteria: what a verdict asks for, kept as it is.
    """

    title: str
    checkpoints: tuple[Entry, ...]
    explainers: tuple[str, ...]
    fills: tuple[str, ...]
    images: ImageSet = ImageSet()
    curves: CurveSettings = CurveSettings()
    checks: Checks = Checks()
    criteria: Mapping[str, Any] = field(default_factory=dict)  # Any: plain TOML values
    note: str = ""

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def parse(cls, text: str) -> Study:
        """Read TOML; ``InvalidParameter`` names the first thing that is wrong in one sentence."""
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidParameter(f"the study is not valid TOML: {error}; mend that line") from None
        known = ("title", "note", "images", "checkpoint", "explainers", "fills", "curves", "checks", "criteria")
        _known(raw, known, "the study")
        entries = raw.get("checkpoint", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidParameter("checkpoints stand in [[checkpoint]] tables, each with a name; add one")
        return cls(
            title=_word(raw, "title", "untitled study"),
            checkpoints=tuple(_build(Entry, entry, f"[[checkpoint]] {n}") for n, entry in enumerate(entries, 1)),
            explainers=_words(raw, "explainers"),
            fills=_words(raw, "fills"),
            images=_build(ImageSet, raw.get("images", {}), "[images]"),
            curves=_build(CurveSettings, raw.get("curves", {}), "[curves]"),
            checks=_build(Checks, raw.get("checks", {}), "[checks]"),
            criteria=raw.get("criteria", {}),
            note=_word(raw, "note", ""),
        )

    def dumps(self) -> str:
        """The study as TOML; what stands at its default is left out."""
        raw: dict[str, Any] = {"title": self.title}
        if self.note:
            raw["note"] = self.note
        raw["explainers"], raw["fills"] = list(self.explainers), list(self.fills)
        for name in ("images", "curves", "checks"):
            if told := _told(getattr(self, name)):
                raw[name] = told
        if self.criteria:
            raw["criteria"] = dict(self.criteria)
        raw["checkpoint"] = [_told(entry) for entry in self.checkpoints]
        return tomli_w.dumps(raw, multiline_strings=False)

    @property
    def key(self) -> str:
        """Identity of what the study asks, whatever its title and note say and its verdict demands."""
        raw = dataclasses.asdict(self)
        for entry in raw["checkpoints"]:
            if not entry["encoding"]:
                del entry["encoding"]  # as in studies that were asked before there was a choice
        return key(kind="study", **{name: raw[name] for name in raw if name not in ("title", "note", "criteria")})

    def settings(self, seed: int) -> dict[str, Any]:  # Any: fields of an AuditSpec
        """An :class:`AuditSpec` besides triple and image; controls are contenders of their own here."""
        shared = {name: getattr(self.curves, name) for name in SETTINGS if hasattr(self.curves, name)}
        return {**shared, "seed": seed, "controls": 0}


def _check(study: Study) -> None:
    """What can be said without opening a checkpoint or a data set."""
    if not study.checkpoints:
        raise InvalidParameter("the study names no checkpoint; add a [[checkpoint]] with a name")
    if not study.fills:
        raise InvalidParameter('the study names no fill; add for example fills = ["zero", "blur"]')
    names = [entry.name for entry in study.checkpoints]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidParameter(f"checkpoint {twice[0]!r} stands twice in the study; names are unique, change one")
    for named in (*names, *(entry.family for entry in study.checkpoints)):
        if set(named) & set("<>"):
            raise InvalidParameter(f"names of checkpoints and families hold no < or >; got {named!r}")
    for entry in study.checkpoints:
        if not (entry.explainers or study.explainers):
            raise InvalidParameter(f"checkpoint {entry.name!r} has no explainer; add explainers for all or its own")
    for explainer in (*study.explainers, *(e for entry in study.checkpoints for e in entry.explainers)):
        Choice.parse(explainer)
    for fill in study.fills:
        Choice.parse(fill)
    for named, values in (("fills", study.fills), ("[curves] seeds", study.curves.seeds)):
        if again := sorted({str(value) for value in values if values.count(value) > 1}):
            raise InvalidParameter(f"{named} has {again[0]} twice; each would be counted twice, leave one out")
    if wrong := [seed for seed in study.curves.seeds if not 0 <= seed < 2**31]:
        raise InvalidParameter(f"[curves] seeds must be in [0, {2**31 - 1}], got {wrong[0]}")
    if not isinstance(study.criteria, Mapping):
        raise InvalidParameter(f"[criteria] must be a table of name = value, got {study.criteria!r}")
    from audit_core.study.criteria import Criteria  # which needs this module

    Criteria.parse(study.criteria)
    images, curves = study.images, study.curves
    if images.per_class < 0 or study.checks.per_class < 0:
        least = min(images.per_class, study.checks.per_class)
        raise InvalidParameter(f"per_class must be 0 (all) or more, got {least}")
    if not curves.seeds:
        raise InvalidParameter("[curves] seeds is empty; give at least one, for example seeds = [0]")
    if curves.quantity not in QUANTITIES:
        raise InvalidParameter(f"[curves] quantity must be one of {', '.join(QUANTITIES)}; got {curves.quantity!r}")


def _known(raw: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    if not isinstance(raw, Mapping):
        raise InvalidParameter(f"{where} must be a table of name = value, got {raw!r}")
    for name in raw:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidParameter(f"{where} has no {name!r}.{hint} Known: {', '.join(names)}")


def _build(kind: type[Any], raw: Any, where: str) -> Any:  # Any: a table of the TOML file -> an instance of ``kind``
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _known(raw, tuple(fields), where)
    if "name" in fields and not raw.get("name"):
        raise InvalidParameter(f"{where} has no name; give a shipped checkpoint's name, or any name and a path")
    return kind(**{name: _typed(value, fields[name].default, f"{where} {name}") for name, value in raw.items()})


def _typed(value: Any, default: Any, where: str) -> Any:
    """``value`` if it has the default's type (lists become tuples, one word a list of one)."""
    if isinstance(default, tuple):
        items = value if isinstance(value, list) else [value]
        wanted: type = type(default[0]) if default else str
        if where.endswith((" mean", " std")):
            wanted = float
        if wanted is float:
            items = [float(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in items]
        if all(isinstance(item, wanted) and not isinstance(item, bool) for item in items):
            return tuple(items)
        raise InvalidParameter(f"{where} must be a list with each entry {_NAMES[wanted]}, got {value!r}")
    kind = str if default is dataclasses.MISSING else type(default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidParameter(f"{where} must be {_NAMES[kind]}, got {value!r}")
    return value


_NAMES = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}


def _words(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return _typed(raw.get(name, []), (), name)


def _word(raw: Mapping[str, Any], name: str, default: str) -> str:
    return _typed(raw.get(name, default), default, name)


def _told(part: Any) -> dict[str, Any]:
    """The fields of a part that differ from their defaults, as TOML values."""
    raw = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if getattr(part, f.name) != f.default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in raw.items()}
