"""How numbers, directions and badges are written, everywhere the same."""

from __future__ import annotations

import re

import streamlit as st

from audit_core.types import Effect

_PATH = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:;,'\"()]+/)+([^\s/:;,'\"()]*)")
DIRECTIONS = {"lower": "↓ lower is better", "higher": "↑ higher is better"}
BADGES = {
    "native": (":material/link:", "blue"),
    "adapted": (":material/alt_route:", "orange"),
    "mismatched": (":material/link_off:", "red"),
    "model-agnostic": (":material/visibility_off:", "violet"),
    "sick": (":material/sick:", "red"),
    "control": (":material/casino:", "gray"),
    "supported": (":material/check_circle:", "blue"),
    "qualified": (":material/rule:", "orange"),
    "not supported": (":material/cancel:", "red"),
    "not computable": (":material/block:", "gray"),
}


def number(value: float | None) -> str:
    """Three significant digits; a dash for what cannot be computed."""
    if value is None:
        return "–"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"


def interval(effect: Effect) -> str:
    """Value with sign, 95 % interval and n."""
    return f"{effect.value:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}], n = {effect.n}"


def heading(family: str) -> str:
    """A registry family as a heading: acronyms stay as they are."""
    return family[:1].upper() + family[1:]


def percent(value: float) -> str:
    """A probability as a percentage."""
    return f"{100 * value:.1f} %"


def without_folders(text: str) -> str:
    """A sentence whose absolute paths are cut to their last part: where files lie is no visitor's business."""
    return _PATH.sub(r"…/\1", str(text))


def plain(text: str) -> str:
    """Text from outside, so that Markdown shows it literally."""
    special = "\\`*_{}[]()<>#+-.!|~$:"
    return "".join("\\" + letter if letter in special else letter for letter in str(text))


def badge(word: str, why: str = "") -> None:
    """Text, shape and colour for a readout relation or a verdict."""
    icon, colour = BADGES.get(word, (":material/help:", "gray"))
    st.badge(plain(word), icon=icon, color=colour, help=plain(why) or None)


def duration(seconds: float | None) -> str:
    """Seconds in words for a progress line."""
    if seconds is None:
        return "estimating time left"
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"
