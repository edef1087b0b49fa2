"""What a verdict asks for, written down before anybody looks at the results."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tomli_w

from audit_core.errors import InvalidParameter
from audit_core.keys import key
from audit_core.params import Between, Note, OneOf, Parameter, parameters

if TYPE_CHECKING:
    from audit_core.study.definition import Study

#: The controls there are: maps that no model went into. A contender is compared with those of its own family.
CONTROLS = ("random", "input-intensity", "centre-prior", "edges")
METRICS = ("srg", "deletion", "insertion", "deletion-normalised")
OWNER = "[criteria]"


@dataclass(frozen=True)
class Criteria:
    """Thresholds of a study's verdicts. The audited paper (arXiv 2605.14255) names none: every default is ours.

    All of them are read against 95 % intervals over the study's images, but for the two shares, which count.
    """

    metric: Annotated[str, OneOf(METRICS, help="What the contenders are compared by; srg = insertion - deletion.")] = (
        "srg"
    )
    beats: Annotated[
        tuple[str, ...],
        Note("Controls of the same family that must be beaten: the interval of the paired advantage lies above 0."),
    ] = CONTROLS
    beats_random_by: Annotated[
        float, Between(0, 100, help="The interval of the advantage over random order must lie above this much.")
    ] = 0.0
    share_of_fills: Annotated[
        float, Between(0, 1, help="All controls must be beaten under at least this share of the fills not refused.")
    ] = 0.8
    sanity_below: Annotated[
        float,
        Between(
            -1,
            1,
            help="Upper end of the similarity of the maps before and after the weights are randomised must lie below "
            "this; 1 = not asked for.",
        ),
    ] = 0.5
    stability_above: Annotated[
        float,
        Between(
            -1,
            1,
            help="Lower end of every stability measured (rotation, shift, noise) must lie above this; -1 = not asked "
            "for.",
        ),
    ] = 0.5
    healthy_share: Annotated[
        float, Between(0, 1, help="At least this share of the maps must be fit to be ranked, else nothing is judged.")
    ] = 0.9
    min_images: Annotated[
        int, Between(2, 10_000_000, "images", "Fewer images than this, of the study or of a class, are not judged.")
    ] = 20
    per_class: Annotated[
        bool, Note("Also judge each class by itself, so that a verdict can be: only on Edge-Ring.")
    ] = True

    def __post_init__(self) -> None:
        if self.share_of_fills == 0:
            raise InvalidParameter(f"{OWNER}: share_of_fills must be above 0, got 0; 0.8 is the default")
        if not self.beats:
            raise InvalidParameter(f"{OWNER}: beats is empty; name at least one of {', '.join(CONTROLS)}")
        for name in self.beats:
            if name not in CONTROLS:
                raise InvalidParameter(f"{OWNER}: beats has no control {name!r}.{_near(name, CONTROLS)}")
            if self.beats.count(name) > 1:
                raise InvalidParameter(f"{OWNER}: beats names {name!r} twice; name every control once")
        object.__setattr__(self, "beats", tuple(name for name in CONTROLS if name in self.beats))  # order means nothing

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Criteria:  # Any: values of the TOML table
        """Read the table [criteria]; what is left out takes its default. ``InvalidParameter`` says what is wrong."""
        if not isinstance(raw, Mapping):
            raise InvalidParameter(f"{OWNER} must be a table of name = value, got {raw!r}")
        known = parameters(cls)
        for name in raw:
            if name not in known:
                raise InvalidParameter(f"{OWNER} has no {name!r}.{_near(name, tuple(known))}")
        return cls(**{name: _parsed(known[name], value) for name, value in raw.items()})

    def to_json(self) -> dict[str, Any]:  # Any: plain values
        """Every criterion, defaults written out; :meth:`parse` reads it back to equal criteria."""
        return {**dataclasses.asdict(self), "beats": list(self.beats)}

    def to_toml(self) -> str:
        """The table [criteria] of a study file, defaults written out."""
        return tomli_w.dumps({"criteria": self.to_json()})

    @property
    def digest(self) -> str:
        """sha256 (64 hex digits) of what is asked: equal whether a default is written out or not."""
        return key(kind="criteria", **self.to_json())


def changed_since(manifest: Mapping[str, Any], study: Study) -> str:  # Any: JSON data
    """One sentence if the criteria of the study's file are not those that its manifest fixed; "" when they are.

    Compared is the digest that was written before the first result; where it differs only because a default stands
    written out, nothing has changed.
    """
    from audit_core.study.folder import criteria_digest  # imports torch, which criteria do not need

    digest, fixed = manifest.get("criteria_sha256"), manifest.get("criteria")
    if not digest or not isinstance(fixed, Mapping):
        return "The manifest fixed no criteria, so nobody can tell whether they were chosen before the results."
    if criteria_digest(study) == digest:
        return ""
    if criteria_digest(dataclasses.replace(study, criteria=fixed)) != digest:
        return "The criteria in the manifest do not match their own digest: the manifest was changed by hand."
    before, now = Criteria.parse(fixed).to_json(), Criteria.parse(study.criteria).to_json()
    changes = [f"{name} was {before[name]!r} and is {now[name]!r}" for name in now if before[name] != now[name]]
    return f"The criteria were changed after the study began: {'; '.join(changes)}." if changes else ""


def _parsed(parameter: Parameter, value: Any) -> Any:  # Any: a value of the TOML table -> the field's value
    """``value`` checked; unlike on a command line, a word does not stand for a number."""
    if parameter.name == "beats":
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InvalidParameter(f"{OWNER}: beats must be a list of controls, got {value!r}")
    if (parameter.type is not str and isinstance(value, str)) or (parameter.type is bool) != isinstance(value, bool):
        wanted = {str: "a word", bool: "true or false"}.get(parameter.type, "a number")
        raise InvalidParameter(f"{OWNER}: {parameter.name} must be {wanted}, got {value!r}")
    return parameter.parse(value, OWNER)


def _near(name: str, options: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, options, n=1)
    return f"{f' Did you mean {near[0]!r}?' if near else ''} Known: {', '.join(options)}"
