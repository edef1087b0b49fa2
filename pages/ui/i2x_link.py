"""The view of I2X in the words of its URL: run, class pair, image, transition, prototypes, and the curation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import streamlit as st

from audit_core.i2x import choices
from audit_core.i2x.comparisons import Compared
from audit_core.i2x.explanation import most_uncertain
from pages.ui import i2x_work, link
from pages.ui.i2x_work import Opened

PAGE = "i2x"
KNOWN = ("run", "a", "b", "image", "to", "prototype", "remove", "share", "only", "repeats", "rate", "start")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SHARES = tuple(round(step * choices.STEP, 2) for step in range(round(1 / choices.STEP)))
REPEATS = 5  # at most
CHOSEN = 3  # prototypes at first

Words = dict[str, list[str]]


def words() -> tuple[Words, bool]:
    """(what was asked for, whether it is news to the widgets): an opened link, else what was here last."""
    return link.lists(PAGE, KNOWN, f"{PAGE}.run")


def pair() -> tuple[int, int]:
    """The two classes on screen."""
    return st.session_state[f"{PAGE}.a"], st.session_state[f"{PAGE}.b"]


def seed(asked: Mapping[str, Sequence[str]], opened: Opened) -> list[str]:
    """Set the widgets to a link's words, else to a good beginning; returns a sentence for each without meaning."""
    made, example, problems = opened.analysis, opened.example, []
    state = st.session_state
    a, b = example.asked.pair if example else made.trajectory.most_confused
    named = [link.first(asked, side) for side in ("a", "b")]
    if any(named):
        known = {made.classes[c]: c for c in i2x_work.choosable(opened)}
        places = [known.get(name) for name in named]
        if None in places or places[0] == places[1]:
            problems.append(f"the run has no pair of classes {named[0]!r} and {named[1]!r}; showing another.")
        else:
            a, b = (place for place in places if place is not None)
    state[f"{PAGE}.a"], state[f"{PAGE}.b"] = a, b
    named_image = link.first(asked, "image")
    images = {short(reference): place for place, reference in enumerate(made.references)} if named_image else {}
    if named_image and named_image not in images:
        problems.append(f"the analysis holds no image {named_image!r}; showing another.")
    first = next((found[0] for c in (a, b) if (found := i2x_work.images_of_class(opened, c))), 0)
    show_image(opened, images.get(named_image, first))
    ends = {str(step): t for t, step in enumerate(made.trajectory.steps[1:])}
    to = link.first(asked, "to")
    if to and to not in ends:
        problems.append(f"no transition ends at step {to!r}; the steps are {', '.join(ends)}.")
    state[f"{PAGE}.at"] = ends.get(to, choices.opening_transition(made.transitions))
    follow_pair(opened)
    numbers = {str(k): k for k in range(made.prototypes.count)}
    chosen = [numbers[word] for word in asked.get("prototype", []) if word in numbers]
    if unknown := [word for word in asked.get("prototype", []) if word not in numbers]:
        problems.append(f"there are prototypes 0 to {len(numbers) - 1}, not {', '.join(unknown)}; left out.")
    state[f"{PAGE}.prototypes"] = chosen or state[f"{PAGE}.prototypes"]
    return problems + _seed_curation(asked, opened, example if example and (a, b) == example.asked.pair else None)


def _seed_curation(asked: Mapping[str, Sequence[str]], opened: Opened, example: Compared | None) -> list[str]:
    state, made = st.session_state, opened.analysis
    state[f"{PAGE}.only"], state[f"{PAGE}.repeats"], state[f"{PAGE}.rate"] = False, REPEATS, 1e-3
    state[f"{PAGE}.start"] = choices.start_step(made.trajectory)
    if example:
        curation = example.asked.curation
        state[f"{PAGE}.remove"], state[f"{PAGE}.share"] = curation.prototype, curation.least
        state[f"{PAGE}.only"], state[f"{PAGE}.start"] = bool(curation.classes), example.start
        state[f"{PAGE}.repeats"], state[f"{PAGE}.rate"] = example.asked.repeats, example.asked.recipe.learning_rate
    offered: dict[str, Sequence[int | float | bool]] = {
        "remove": range(made.prototypes.count), "share": SHARES, "only": (False, True),
        "repeats": range(1, REPEATS + 1), "rate": RATES, "start": made.trajectory.steps,
    }  # fmt: skip
    problems = []
    for name, values in offered.items():
        if not (word := link.first(asked, name)):
            continue
        if (value := next((one for one in values if said(one) == word), None)) is None:
            problems.append(f"{name} {word!r} is not offered; it is left as it is.")
        else:
            state[f"{PAGE}.{name}"] = value
    return problems


def short(reference: str) -> str:
    """An image in a link: its data set without the settings, which may name a folder of this server."""
    head, split, index = reference.rsplit(":", 2)
    return f"{re.split('[(:]', head, maxsplit=1)[0]}:{split}:{index}"


def said(value: int | float | bool) -> str:
    """A number as a word of the link."""
    return str(int(value)) if isinstance(value, bool) else f"{value:g}"


def follow_pair(opened: Opened) -> None:
    """Prototypes and curation that fit the two classes: the most uncertain ones."""
    roles = i2x_work.roles(opened, pair())
    st.session_state[f"{PAGE}.prototypes"] = [role.prototype for role in roles[:CHOSEN]]
    st.session_state[f"{PAGE}.remove"] = most_uncertain(roles).prototype
    follow_prototype(opened)


def follow_prototype(opened: Opened) -> None:
    """A share of locations at which no class loses more than half of its images."""
    seen, k = opened.analysis.trajectory, st.session_state[f"{PAGE}.remove"]
    classes = pair() if st.session_state.get(f"{PAGE}.only") else ()
    st.session_state[f"{PAGE}.share"] = choices.gentle_share(seen.shares, seen.labels, k, classes)


def show_image(opened: Opened, place: int) -> None:
    """Turn the image chooser to an image of the analysis."""
    label = int(opened.analysis.trajectory.labels[place])
    st.session_state[f"{PAGE}.class"] = label
    st.session_state[f"{PAGE}.image"] = i2x_work.images_of_class(opened, label).index(place) + 1


def image(opened: Opened) -> int:
    """Place of the chosen image in the analysis."""
    places = i2x_work.images_of_class(opened, st.session_state[f"{PAGE}.class"])
    return places[min(len(places), max(1, st.session_state[f"{PAGE}.image"])) - 1]


def remember(opened: Opened) -> None:
    """Write what is on screen into the URL and keep it for page switches; a fragment may call it, too."""
    state, made = st.session_state, opened.analysis
    a, b = pair()
    shown: Words = {
        "run": [opened.name],
        "a": [made.classes[a]],
        "b": [made.classes[b]],
        "image": [short(made.references[image(opened)])],
        "to": [str(made.trajectory.steps[state[f"{PAGE}.at"] + 1])],
        "prototype": [str(k) for k in state[f"{PAGE}.prototypes"]],
        **{name: [said(state[f"{PAGE}.{name}"])] for name in ("remove", "share", "only", "repeats", "rate", "start")},
    }
    shown = {name: values for name, values in shown.items() if values}
    state[f"{PAGE}.words"] = shown
    link.settle(PAGE, shown)
