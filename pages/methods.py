"""Methods: what each word on the other pages means, who says so, and what proves our number."""

import streamlit as st

from pages.ui import shell

shell.through_app("methods")

with st.spinner("Reading the registries …"):
    from pages.ui import methods

shell.title("Methods", "What is it exactly, who defined it, and what is our number checked against?")
kind = st.segmented_control(
    "Kind", list(methods.KINDS), key="methods.kind", default="Explainers", required=True, label_visibility="collapsed"
)
asked = st.text_input("Search", key="methods.search", placeholder="Name, word or author", icon=":material/search:")
methods.draw(kind, asked)
