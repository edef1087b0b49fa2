"""Which images and runs of a study are looked at, in words that can stand in a link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from audit_core.errors import InvalidParameter

#: "any": every image; "own": images that the row's own checkpoint classified right; "all": images that every checkpoint
#: of the study classified right, the control that keeps a bad classifier from passing for a bad explainer.
CORRECT = ("any", "own", "all")

_WORDS = {"class": "classes", "leave-out": "leave_out", "training-seed": "training_seeds", "seed": "seeds"}


@dataclass(frozen=True)
class Filters:
    """Rows of a study's table that count; every part narrows it, and the default keeps everything.

    classes: labels that stay, empty for all; leave_out: labels that go (an image without a label stays only where
    ``classes`` is empty); training_seeds: of the checkpoints, empty for all; seeds: of the random draws, empty for all;
    correct: one of ``CORRECT``. An image whose label nobody knows is never right.
    """

    classes: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    training_seeds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    correct: str = "any"

    def __post_init__(self) -> None:
        if self.correct not in CORRECT:
            raise InvalidParameter(f"correct must be one of {', '.join(CORRECT)}; got {self.correct!r}")

    def __str__(self) -> str:
        """As a query string, ``class=Center&class=Donut&correct=own``; empty for the default."""
        parts = [(word, str(value)) for word, name in _WORDS.items() for value in getattr(self, name)]
        return urlencode([*parts, *([("correct", self.correct)] if self.correct != "any" else [])])

    @classmethod
    def parse(cls, text: str) -> Filters:
        """Inverse of ``str()``; ``InvalidParameter`` for a word that is no part of the filters."""
        found: dict[str, Any] = {name: () for name in _WORDS.values()}  # Any: words or whole numbers
        for word, value in parse_qsl(text, keep_blank_values=True):
            if word == "correct":
                found[word] = value
            elif word in _WORDS:
                found[_WORDS[word]] += (value if word in ("class", "leave-out") else _whole(word, value),)
            else:
                raise InvalidParameter(f"filters have no {word!r}; they have {', '.join(_WORDS)}, correct")
        return cls(**found)

    @property
    def sentence(self) -> str:
        """What is looked at, for a caption: "classes Center, Donut; images that every checkpoint classified right"."""
        parts = [f"classes {', '.join(self.classes)}"] if self.classes else []
        parts += [f"without {', '.join(self.leave_out)}"] if self.leave_out else []
        parts += [f"training seeds {', '.join(map(str, self.training_seeds))}"] if self.training_seeds else []
        parts += [f"seeds {', '.join(map(str, self.seeds))}"] if self.seeds else []
        own, everyone = "images that their checkpoint got right", "images that every checkpoint got right"
        parts += [own] if self.correct == "own" else [everyone] if self.correct == "all" else []
        return "; ".join(parts) or "all images"

    def condition(self) -> tuple[str, dict[str, Any]]:  # Any: values bound to the query
        """SQL over the columns of ``numbers`` and ``gaps`` with named parameters, and their values."""
        clauses, values = ["true"], {}
        for name in ("training_seeds", "seeds"):
            if getattr(self, name):
                clauses.append(f"{name[:-1]} IN ${name}")
                values[name] = list(getattr(self, name))
        if self.correct == "own":
            clauses.append("correct")
        images, named = self.image_condition()
        if images:
            clauses.append(f"unit IN (SELECT unit FROM images WHERE {images})")
        return " AND ".join(clauses), {**values, **named}

    def image_condition(self) -> tuple[str, dict[str, Any]]:  # Any: values bound to the query
        """SQL over the columns of ``images`` alone, empty where no part of the filters concerns images."""
        clauses: list[str] = []
        values: dict[str, Any] = {}
        if self.classes:
            clauses, values["classes"] = [*clauses, "label IN $classes"], list(self.classes)
        if self.leave_out:
            clauses.append("(label IS NULL OR label NOT IN $leave_out)")
            values["leave_out"] = list(self.leave_out)
        if self.correct == "all":
            clauses.append("all_correct")
        return " AND ".join(clauses), values


def _whole(word: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(f"{word} must be a whole number, got {value!r}") from None
