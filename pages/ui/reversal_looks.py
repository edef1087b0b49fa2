"""How the contenders of a study look and are called: one hue per family, one shade and marker per explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.study.nouns import Contender

HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")  # Okabe and Ito 2008
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "cross", "star", "hexagon")
GREY = {"light": "#6E7681", "dark": "#9AA3AF"}
DASHES = {"random": "dash", "input-intensity": "dot", "centre-prior": "dashdot", "edges": "solid"}
INK = {"light": "#1B2430", "dark": "#E6EBF2"}
ACRONYMS = {"road": "ROAD", "rise": "RISE", "lime": "LIME"}


@dataclass(frozen=True)
class Look:
    """How one contender is drawn and called, the same wherever it appears.

    colour: of its lines and marks; dash: Plotly's word, other than "solid" for controls only; marker: Plotly's word;
    family, title: the two halves of its name; control: whether it reads no model.
    """

    colour: str
    dash: str
    marker: str
    family: str
    title: str
    control: bool

    @property
    def name(self) -> str:
        """Family and explainer in menu words."""
        return f"{self.family} · {self.title}"


def looks(contenders: Sequence[Contender], manifest: Mapping[str, Any], theme: str) -> dict[str, Look]:
    """Look of every contender of a study, by name; theme: "light" or "dark". Depends on the study, not on choices."""
    known = {entry["contender"]: str(entry.get("title", "")) for entry in manifest.get("contenders", [])}
    families = list(dict.fromkeys(c.family for c in contenders))
    first = native(contenders, manifest)
    found = {}
    for family in families:
        own = sorted(
            (c for c in contenders if c.family == family),
            key=lambda c: (c.role == "control", c.name != first.get(family), c.role != "agnostic"),
        )
        names = _titles(own, known)
        for place, contender in enumerate(own):
            control = contender.role == "control"
            hue = GREY[theme] if control else _shade(HUES[families.index(family) % len(HUES)], place, theme)
            dash = DASHES.get(_word(contender.explainer), "dash") if control else "solid"
            marker = "line-ew-open" if control else MARKERS[place % len(MARKERS)]
            found[contender.name] = Look(hue, dash, marker, family, names[contender.name], control)
    return {c.name: found[c.name] for c in contenders}


def native(contenders: Sequence[Contender], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Family -> the contender whose explainer reads what the family's score is read from, else its first own one."""
    badges = {entry["contender"]: entry.get("badge") for entry in manifest.get("contenders", [])}
    own = [c for c in contenders if c.role == "own"]
    ordered = sorted(own, key=lambda c: (badges.get(c.name) != "native", len(c.explainer)))
    return {c.family: c.name for c in reversed(ordered)}


def fill_title(fill: str) -> str:
    """A fill as a short label: "Blur, sigma 3"."""
    return _worded(fill)


def worded(sentence: str, looks: Mapping[str, Look], fills: Sequence[str]) -> str:
    """A sentence of the analysis with contenders and fills in menu words."""
    for name in sorted(looks, key=len, reverse=True):
        sentence = sentence.replace(name, looks[name].name)
    for fill in sorted(fills, key=len, reverse=True):
        title = fill_title(fill)
        inside = title if title[:2].isupper() else title[:1].lower() + title[1:]
        sentence = sentence.replace(f"under {fill}", f"under {inside}")
    return sentence


def _titles(contenders: Sequence[Contender], known: Mapping[str, str]) -> dict[str, str]:
    """Titles within one family; parameters only where a title would stand for two contenders."""
    short = {c.name: (known.get(c.name) or _worded(_word(c.explainer))).replace(" (control)", "") for c in contenders}
    plain = {c.name for c in contenders if ":" not in c.explainer}
    several = {title for title in short.values() if list(short.values()).count(title) > 1}
    return {
        c.name: short[c.name] + (f", {_parameters(c.explainer)}" if title in several and c.name not in plain else "")
        for c, title in ((c, short[c.name]) for c in contenders)
    }


def _shade(hue: str, place: int, theme: str) -> str:
    """The family's hue, for later explainers moved step by step towards the colour of the page's text."""
    share = (0.0, 0.38, 0.58, 0.2, 0.48, 0.68)[place % 6]
    parts = ((int(hue[k : k + 2], 16), int(INK[theme][k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * own + share * ink):02X}" for own, ink in parts)


def _worded(text: str) -> str:
    word, parameters = _word(text), _parameters(text)
    title = ACRONYMS.get(word, word.replace("-", " ").capitalize())
    return f"{title}, {parameters}" if parameters else title


def _word(text: str) -> str:
    return text.partition(":")[0]


def _parameters(text: str) -> str:
    try:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in Choice.parse(text).params)
    except InvalidParameter:
        return text.partition(":")[2]
