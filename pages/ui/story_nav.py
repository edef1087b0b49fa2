"""Walking through the story: the step in the link, two buttons, the arrow keys."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

STEPS = 5
SHOWN = "story.step"
#: One screen on a projector: the page's own margins shrink around the story, and its sentence fits in two lines.
LOOK = """<style>
.st-key-story { margin-top: -3.75rem; margin-bottom: -8rem; }
.st-key-story h1 { font-size: clamp(1.5rem, 2.6vw, 2.5rem); line-height: 1.2; padding: 0.4rem 0 0.8rem; }
.st-key-story p { font-size: 1.12rem; }
.st-key-story-bar p { font-size: 0.95rem; }
.st-key-story h2, .st-key-story h3, .st-key-story h4 { padding-top: 0.2rem; padding-bottom: 0.2rem; }
@media (max-width: 640px) { .st-key-story { margin-top: -2rem; margin-bottom: 0; } }
</style>"""


def current() -> int:
    """The step that the link asks for, 1 to 5; anything else is the first."""
    asked = st.query_params.get("step", "1")
    st.session_state[SHOWN] = int(asked) if asked in map(str, range(1, STEPS + 1)) else 1
    return st.session_state[SHOWN]


def screen() -> DeltaGenerator:
    """Where a step is drawn."""
    st.html(LOOK)
    return st.container(key="story")


def bar(step: int) -> None:
    """Back and next, also on the arrow keys, and where we are."""
    with st.container(horizontal=True, vertical_alignment="center", key="story-bar"):
        st.button(
            "Back", key="story.back", icon=":material/arrow_back:", shortcut="Left", on_click=_go, args=(-1,),
            disabled=step == 1,
        )  # fmt: skip
        st.button(
            "Next", key="story.next", icon=":material/arrow_forward:", shortcut="Right", on_click=_go, args=(1,),
            type="primary", disabled=step == STEPS,
        )  # fmt: skip
        st.caption(f"{step} of {STEPS}")


def _go(by: int) -> None:
    # From the session, not from the button: a second press may come before the first one was drawn.
    st.session_state[SHOWN] = min(STEPS, max(1, st.session_state.get(SHOWN, 1) + by))
    st.query_params["step"] = str(st.session_state[SHOWN])
