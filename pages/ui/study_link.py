"""Which study, metric and cell the page shows, in words of its address; and where studies stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from audit_core.errors import AuditError
from audit_core.study.folder import MANIFEST, StudyFolder
from audit_core.study.shelf import SHIPPED, VISITOR, Shelf
from pages.ui import link, wording

PAGE, NEW = "study", "new"
WORDS = ("study", "metric", "cell")
METRIC = "srg"
CHOSEN, CELL = f"{PAGE}.chosen", f"{PAGE}.cell"  # state: name of the study, "CONTENDER|FILL"


def follow() -> None:
    """Before any widget: take up a link that was opened, else what this session saw last, else the shipped study."""
    asked = {name: value for name, value in st.query_params.to_dict().items() if name in WORDS}
    news = bool(asked) and asked != st.session_state.get(f"{PAGE}.written") and not link.late(PAGE, asked)
    known = st.session_state.get(f"{PAGE}.words", {})
    if not news and CHOSEN in st.session_state:
        return
    words = asked if news else known
    name = words.get("study", "")
    st.session_state[CHOSEN] = name if name == NEW or _is_here(name) else first()
    st.session_state[f"{PAGE}.metric"] = words.get("metric", METRIC)
    st.session_state[CELL] = words.get("cell", "")
    if name.startswith(VISITOR) and _is_here(name):
        remember_own(name)
    if name and st.session_state[CHOSEN] != name:
        instead = title(st.session_state[CHOSEN])
        st.session_state[f"{PAGE}.problem"] = f"there is no study {name[:80]!r} here (any more); showing: {instead}"


def remember(name: str, metric: str = "", cell: str = "") -> None:
    """Write what is on screen into the address; the shipped study and SRG need no word."""
    shown = {"study": name, **({"metric": metric} if metric else {}), **({"cell": cell} if cell else {})}
    if shown == {"study": first(), "metric": METRIC}:
        shown = {}
    st.session_state[f"{PAGE}.words"] = shown or {"study": name}
    link.note(PAGE, shown)
    if st.query_params.to_dict() != shown:
        st.query_params.from_dict(shown)


def show(name: str, cell: str = "") -> None:
    """Turn the page to a study; the next run draws it."""
    st.session_state[CHOSEN], st.session_state[CELL] = name, cell
    st.session_state.pop(f"{PAGE}.problem", None)


def pick() -> str:
    """The menu of studies: shipped and run here, this session's own, and a new one."""
    names = list(dict.fromkeys([*Shelf.default().names(), *own(), NEW]))
    if st.session_state[CHOSEN] not in names:
        st.session_state[CHOSEN] = first()
    st.session_state[f"{PAGE}.menu"] = st.session_state[CHOSEN]
    return st.selectbox(
        "Study",
        names,
        key=f"{PAGE}.menu",
        format_func=title,
        on_change=lambda: show(st.session_state[f"{PAGE}.menu"]),
        help="A study built on this page is listed for you alone; everybody else needs its link.",
    )


def first() -> str:
    """What a first visit shows."""
    return next(iter(Shelf.default().names()), NEW)


def title(name: str) -> str:
    """A study in the menu's words."""
    if name == NEW:
        return "New study …"
    try:
        told = str(read_manifest(name)["title"])
    except AuditError:
        return name
    where = "finished example" if name == SHIPPED else "yours" if name.startswith(VISITOR) else "run here"
    return f"{told} ({where})"


def read_manifest(name: str) -> dict[str, Any]:  # Any: JSON data, to be read only
    """The manifest of a study; ``AuditError`` where there is none."""
    folder = Shelf.default().folder(name)
    return _manifest(str(folder.root), (folder.root / MANIFEST).stat().st_mtime_ns)


@st.cache_resource(max_entries=32, show_spinner=False)
def _manifest(root: str, changed: int) -> dict[str, Any]:
    return StudyFolder(Path(root)).manifest()


def own() -> list[str]:
    """Names of the studies that this session built or opened by link, and that are still there."""
    return [name for name in st.session_state.get(f"{PAGE}.own", []) if _is_here(name)]


def remember_own(name: str) -> None:
    """List a visitor's study in this session's menu."""
    kept = st.session_state.setdefault(f"{PAGE}.own", [])
    if name not in kept:
        kept.append(name)


def tell_problem() -> None:
    """Say what was wrong with the link."""
    if problem := st.session_state.get(f"{PAGE}.problem"):
        st.warning(wording.plain(problem), icon=":material/link_off:")


def _is_here(name: str) -> bool:
    try:
        Shelf.default().folder(name)
    except AuditError:
        return False
    return True
