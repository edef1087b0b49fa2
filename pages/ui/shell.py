"""The frame around every page: titles, the guard against running a page without app.py, the running jobs."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

WATCHING = ("spot_audit", "compare", "study", "i2x")  # pages that poll their own jobs
TITLES = {
    "home": "Triplecheck",
    "spot_audit": "Spot audit",
    "compare": "Compare",
    "study": "Study",
    "reversal": "Rank reversal",
    "i2x": "I2X",
    "side_by_side": "Side by side",
    "story": "Story",
    "checkpoints": "Checkpoints",
    "methods": "Methods",
}


def open_asked_page(pages: dict[str, StreamlitPage]) -> None:
    """Mark that app.py ran; follow a page that was asked for before it could."""
    st.session_state["shell"] = True
    asked = st.query_params.get("page")
    if asked in pages and asked != "home":
        rest = {name: value for name, value in st.query_params.to_dict().items() if name != "page"}
        st.switch_page(pages[asked], query_params=rest)


def through_app(name: str) -> None:
    """Call first in every page. On a fresh server Streamlit serves a deep link to a file of ``pages/`` without
    running app.py: go through it, and come back to page ``name`` with the link's parameters."""
    if "shell" not in st.session_state:
        st.switch_page("app.py", query_params={**st.query_params.to_dict(), "page": name})


def heartbeat(page: str) -> None:
    """Keep this session's jobs alive on pages that do not watch them, and say that they run."""
    from pages.ui import resources

    if page in WATCHING or all(job.final for job in resources.jobs().of_owner(resources.owner())):
        return

    @st.fragment(run_every=5)
    def beat() -> None:
        running = [job for job in resources.jobs().of_owner(resources.owner()) if not job.final]
        for job in running:
            st.progress(job.fraction, text=f"{job.message or job.state}")
        if not running:
            st.caption("All audits are finished.")

    with st.sidebar:
        st.caption("Running in the background")
        beat()


def title(text: str, question: str) -> None:
    """Heading and the one question that the page answers."""
    st.title(text, anchor=False)
    st.caption(question)
