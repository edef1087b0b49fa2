"""Side by side: is the reversal already there when the model learns?"""

import streamlit as st

from pages.ui import shell

shell.through_app("side_by_side")

with st.spinner("Opening the training run (first use takes some seconds) …"):
    from audit_core.errors import AuditError
    from pages.ui import i2x_pickers, i2x_words, i2x_work, link, side_link, side_main, side_work, wording

PAGE = side_link.PAGE
top = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
with top.container(width=300):
    shell.title("Side by side", "Is the reversal already there when the model learns?")
asked, news = side_link.words()
names = i2x_work.names()
if not names:
    st.info("No analysis is here yet: run `python -m audit_core i2x trajectory` and `i2x rank`.")
    st.stop()
wanted, problems = asked.get("run", "") if news else "", []
if wanted and wanted not in names:
    problems, wanted, asked = [f"there is no training run {wanted!r} here; showing {names[0]}."], names[0], {}
name = names[0]
if len(names) > 1:
    with top:
        name = i2x_pickers.run(wanted, names, PAGE)
try:
    run = side_work.open_run(name)
    study = side_work.study(run)
except AuditError as problem:
    link.settle(PAGE, {"run": [name]})
    st.error(wording.plain(wording.without_folders(str(problem))), icon=":material/error:")
    st.stop()
stamp = run.stamp + study.stamp
if news or st.session_state.get(f"{PAGE}.opened") != stamp:
    st.session_state[f"{PAGE}.problems"] = problems + side_link.seed(asked if news else {}, run, study)
    st.session_state[f"{PAGE}.opened"] = stamp
for problem in st.session_state[f"{PAGE}.problems"]:
    st.warning(wording.plain(problem), icon=":material/link_off:")
for sentence in i2x_words.left_out(run.analysis.broken):
    st.warning(wording.plain(sentence), icon=":material/broken_image:")
side_main.draw(run, study, top)
