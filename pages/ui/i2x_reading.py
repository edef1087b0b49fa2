"""How to read the page: the method, its source, and what we chose where the source is silent."""

from __future__ import annotations

import streamlit as st

from pages.ui import wording
from pages.ui.i2x_link import short
from pages.ui.i2x_work import Opened

TEXT = """
I2X explains a model by its own training (Li et al. 2026, [arXiv 2603.10234](https://arxiv.org/abs/2603.10234)):

1. **Prototypes.** Every location of the final model's feature map is a vector; PCA and K-means sort all of them into
   K kinds. A prototype is one kind, and every location of every image belongs to one, once and for all.
2. **Intensity.** Each checkpoint's raw saliency for an image's class, averaged over the locations of a prototype.
3. **Groups.** From one checkpoint to the next, images whose confidences changed alike form a group (HDBSCAN).
4. **β.** A ridge regression of the groups' changes of confidence on their changes of intensity: what a rise of a
   prototype went with, for every class. It describes what moved together, and does not prove a cause.
5. **Uncertain prototypes** push now one class of a pair, now the other. Fine-tuning without the images that hold
   one, beside two controls, shows whether they were to blame.
"""


def draw(opened: Opened) -> None:
    """The fold at the end of the page."""
    settings, images = opened.analysis.settings, len(opened.analysis.references)
    data, _, split = str(opened.analysis.manifest["source"]).rpartition(":")
    source = short(f"{data}:{split}:0").rpartition(":")[0]  # its settings may name a folder of this server
    scaled = "without rescaling" if settings.normalisation == "none" else "rescaled to 1 in every image"
    with st.expander("How to read this", icon=":material/menu_book:"):
        st.markdown(TEXT)
        found = opened.analysis.prototypes
        grid = "×".join(map(str, found.grid))
        chosen = (
            f"Chosen here, where the paper is silent: K = {found.count} on the {grid} grid of {found.layer}, "
            f"{settings.components} PCA components at most, {settings.explainer} for the image's {settings.target} "
            f"class {scaled}, groups of at least {settings.smallest_group(images)} images, λ = "
            f"{settings.ridge:g} of the mean squared intensity change, regression on group {settings.reading}, seed "
            f"{settings.seed}; {images:,} images of {source}."
        )
        st.markdown(wording.plain(chosen))
        st.markdown(
            "The thresholds of the roles, the score, and the two controls of the fine-tuning (“random”, “other "
            "prototype”) are ours as well."
        )
