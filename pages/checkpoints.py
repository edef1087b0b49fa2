"""Checkpoints: what is under audit, how its score is read, how good it is; and your own."""

import streamlit as st

from pages.ui import shell

shell.through_app("checkpoints")

from models import zoo  # noqa: E402  (the guard runs first)
from pages.ui import bring, cards, wording  # noqa: E402

shell.title("Checkpoints", "What is under audit, how does it read its score, and how good is it?")
shipped = [zoo.card(name) for name in zoo.names()]
if shipped:
    cards.overview(shipped)
    for card, tab in zip(shipped, st.tabs([wording.plain(card.family) for card in shipped]), strict=True):
        with tab:
            explainer = "rollout" if card.readout == "CLS token" else "grad-cam"
            st.page_link(
                "pages/spot_audit.py",
                label="Audit with it",
                icon=":material/arrow_forward:",
                query_params={"checkpoint": card.name, "explainer": explainer},
            )
            cards.draw(card, f"card.{card.name}")
else:
    st.info("No checkpoint is installed. Train one with `python -m models train`, or add your own below.")

st.subheader("Add a custom checkpoint", anchor=False)
st.markdown(
    "Weights of any timm architecture or of ours. They are read as plain tensors, nothing in the file is executed, and "
    "what nobody declared stands as *unknown* on the card. Only this session lists it; a link to an audit "
    "with it opens it for others."
)
bring.form()
for reference in reversed(bring.brought()):
    with st.container(border=True):
        bring.added(reference)
