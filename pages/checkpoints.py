"""Checkpoints: what is under audit, how its score is read, how good it is; and your own."""

import streamlit as st

from pages.ui import shell

shell.through_app("checkpoints")

from models import zoo  # noqa: E402  (the guard runs first)
from pages.ui import bring, cards, wording  # noqa: E402

shell.title("Checkpoints", "What is under audit, how does it read its score, and how good is it?")
shipped = [zoo.card(name) for name in zoo.names()]
own = bring.brought()
if shipped:
    cards.overview(shipped)
else:
    st.info("No checkpoint is installed. Train one with `python -m models train`, or add your own below.")

labels = [card.family for card in shipped] + [f"Yours {place + 1}" for place in range(len(own))]
fresh = st.session_state.get("bring.added")
default = labels[len(shipped) + own.index(fresh)] if fresh in own else None
if labels:
    for place, tab in enumerate(st.tabs([wording.plain(label) for label in labels], default=default)):
        with tab:
            if place < len(shipped):
                card = shipped[place]
                explainer = "rollout" if card.readout == "CLS token" else "grad-cam"
                st.page_link(
                    "pages/spot_audit.py",
                    label="Audit with it",
                    icon=":material/arrow_forward:",
                    query_params={"checkpoint": card.name, "explainer": explainer},
                )
                cards.draw(card, f"card.{card.name}")
            else:
                bring.added(own[place - len(shipped)])

st.subheader("Add a custom checkpoint", anchor=False)
st.markdown(
    "Weights of any timm architecture or of ours. They are read as plain tensors, nothing in the file is executed, and "
    "what nobody declared stands as *unknown* on the card. Only this session lists it; a link to an audit "
    "with it opens it for others."
)
bring.form()
