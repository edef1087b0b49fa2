"""Entry point: page configuration, navigation and nothing else."""

import streamlit as st

from pages.ui import shell

st.set_page_config(page_title="Triplecheck", page_icon="🔬", layout="wide")
pages = {
    name: st.Page(f"pages/{name}.py", title=title, url_path=name, default=name == "home")
    for name, title in shell.TITLES.items()
}
chosen = st.navigation(list(pages.values()), position="top")
shell.open_asked_page(pages)
shell.heartbeat(chosen.url_path)
chosen.run()
