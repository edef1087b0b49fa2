"""Tables of roles: what each prototype is between two classes, and to every single class."""

from __future__ import annotations

import streamlit as st

from audit_core.i2x.explanation import SHARED, SPECIALISED, ClassRole
from pages.ui import i2x_link, i2x_work
from pages.ui.i2x_pickers import title
from pages.ui.i2x_work import Opened

PAIR = (
    "Effects are pushes on A minus pushes on B, on the images of the two classes, in units of confidence. Net: their "
    "sum; movement: the sum of their sizes; alternation: 1 − |net| / movement, 0 always one way, 1 back and forth; "
    "swings: changes of sign; score: alternation times movement over the largest movement (0 to 1, ↑ more uncertain). "
    "“Uncertain” alternates by half or more, and moves at least a tenth of what the strongest does."
)
CLASSES = (
    "Shared: nearly all images of the class hold it and it mostly pushed the class up. Specialised: only one sub-group "
    "of the class holds it, and it mostly pushed the class up."
)


def between(opened: Opened) -> None:
    """All prototypes between the two classes, the most uncertain first."""
    pair = i2x_link.pair()
    a, b = (opened.analysis.classes[c] for c in pair)
    rows = [
        {
            "Prototype": title(role.prototype),
            "Role": role.kind,
            f"In images of {a}": role.presence[0],
            f"In images of {b}": role.presence[1],
            "Net push": role.net,
            "Movement": role.movement,
            "Alternation": role.alternation,
            "Swings": role.swings,
            "Score": role.score,
        }
        for role in i2x_work.roles(opened, pair)
    ]
    number, held = st.column_config.NumberColumn, (f"In images of {a}", f"In images of {b}")
    columns = {
        **{name: number(format="percent") for name in held},
        "Net push": number(format="%+.3f"),
        "Movement": number(format="%.3f"),
        "Alternation": number(format="%.3f"),
        "Score": st.column_config.ProgressColumn("Score ↑", format="%.2f", min_value=0, max_value=1),
    }
    height = min(460, 38 + 35 * len(rows))
    st.dataframe(rows, hide_index=True, height=height, column_config=columns, key="i2x.between")
    st.caption(PAIR)


def per_class(opened: Opened) -> None:
    """Shared and specialised prototypes of every class."""
    rows = []
    for name, found in zip(opened.analysis.classes, i2x_work.roles_per_class(opened), strict=True):
        rows.append({"Class": name, "Shared": _named(found, SHARED), "Specialised": _named(found, SPECIALISED)})
    st.dataframe(rows, hide_index=True, key="i2x.classes")
    st.caption(CLASSES)


def _named(found: list[ClassRole], kind: str) -> str:
    return ", ".join(title(role.prototype) for role in found if role.kind == kind) or "–"
