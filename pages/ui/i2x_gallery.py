"""The prototypes: their strongest patches and where these sit, how common they are, and what they are to the pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from audit_core.errors import AuditError
from audit_core.i2x.explanation import SHARED, SPECIALISED, UNCERTAIN, PairRole
from pages.ui import i2x_charts, i2x_pictures, i2x_work, wording
from pages.ui.i2x_work import Opened
from pages.ui.reversal_looks import GREY

SHOWN = 4  # patches per prototype
SIDE = 66  # px of a patch's image
BADGES = {
    UNCERTAIN: (":material/swap_horiz:", "orange"),
    SHARED: (":material/join_inner:", "blue"),
    SPECIALISED: (":material/target:", "violet"),
}


def cards(opened: Opened, shown: Sequence[int], chosen: Sequence[int], pair: tuple[int, int]) -> None:
    """A card for each prototype of ``shown``; those of ``chosen`` wear their colour."""
    by_number = {role.prototype: role for role in i2x_work.roles(opened, pair)}
    with st.container(horizontal=True, gap="medium"):
        for k in shown:
            with st.container(width=SHOWN * (SIDE + 5), gap="xsmall"):
                _card(opened, k, by_number[k], i2x_charts.hue(chosen, k) if k in chosen else GREY["dark"], pair)


def _card(opened: Opened, k: int, role: PairRole, colour: str, pair: tuple[int, int]) -> None:
    share = opened.analysis.trajectory.shares[:, k]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**P-{k}**")
        badge(role.kind, pair, opened.analysis.classes)
    try:
        found = i2x_work.strongest(opened, k, SHOWN)
        grid = opened.analysis.prototypes.grid
        tiles = [i2x_pictures.framed(i2x_work.pixels(opened, i), (r, c), grid, colour) for i, r, c in found]
        labels = [opened.analysis.classes[int(opened.analysis.trajectory.labels[i])] for i, _, _ in found]
        if tiles:
            st.image(i2x_pictures.row(tiles), width=len(tiles) * (SIDE + 4),
                     alt=f"Strongest patches of prototype {k}, in images of class {', '.join(labels)}")  # fmt: skip
    except AuditError:  # the reason is said once, above the strip
        st.caption(":material/hide_image: The images are not at hand.")
    a, b = (wording.plain(opened.analysis.classes[c]) for c in pair)
    st.caption(
        f"{share.mean():.1%} of all locations; in {role.presence[0]:.0%} of the images of {a}, "
        f"{role.presence[1]:.0%} of {b}"
    )


def badge(kind: str, pair: tuple[int, int], classes: Sequence[str]) -> None:
    """Role of a prototype between two classes, as text, shape and colour."""
    icon, colour = BADGES.get(kind, (":material/remove:", "gray"))
    names = " and ".join(wording.plain(classes[c]) for c in pair)
    st.badge(kind, icon=icon, color=colour, help=f"Its role between {names}")


def patches(opened: Opened, most: int = 24) -> Mapping[int, str]:
    """Prototype -> its most typical patch as a data address; empty where the images are not at hand."""
    count, grid = opened.analysis.prototypes.count, opened.analysis.prototypes.grid
    if count > most:
        return {}
    try:
        first = {k: i2x_work.strongest(opened, k, 1) for k in range(count)}
        return {
            k: i2x_pictures.patch(i2x_work.pixels(opened, found[0][0]), found[0][1:], grid)
            for k, found in first.items()
            if found
        }
    except AuditError:
        return {}
