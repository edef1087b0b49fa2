"""I2X: how did the model come to look there?"""

import streamlit as st

from pages.ui import shell

shell.through_app("i2x")

with st.spinner("Opening the training run (first use takes some seconds) …"):
    from audit_core.errors import AuditError
    from pages.ui import (
        i2x_curate,
        i2x_evolution,
        i2x_gallery,
        i2x_link,
        i2x_pickers,
        i2x_reading,
        i2x_roles,
        i2x_strip,
        i2x_words,
        i2x_work,
        link,
        wording,
    )

PAGE = i2x_link.PAGE
shell.title("I2X", "How did the model come to look there? Its training checkpoints, one by one.")
asked, news = i2x_link.words()
names = i2x_work.names()
if not names:
    st.info("No analysis is here yet: run `python -m audit_core i2x trajectory`.")
    st.stop()
wanted = link.first(asked, "run") if news else ""
problems = []
if wanted and wanted not in names:
    problems.append(f"there is no training run {wanted!r} here; showing {names[0]}.")
    wanted, asked = names[0], {}

row = st.container(horizontal=True, vertical_alignment="bottom")
with row:
    name = i2x_pickers.run(wanted, names)
try:
    opened = i2x_work.open_analysis(name)
except AuditError as problem:
    link.settle(PAGE, {"run": [name]})
    st.error(wording.plain(wording.without_folders(str(problem))), icon=":material/error:")
    st.stop()
if news or st.session_state.get(f"{PAGE}.opened") != opened.stamp:
    st.session_state[f"{PAGE}.problems"] = problems + i2x_link.seed(asked if news else {}, opened)
    st.session_state[f"{PAGE}.opened"] = opened.stamp
with row:
    pair = i2x_pickers.class_pair(opened)
for problem in st.session_state[f"{PAGE}.problems"]:
    st.warning(wording.plain(problem), icon=":material/link_off:")
for sentence in i2x_words.left_out(opened.analysis.broken):
    st.warning(wording.plain(sentence), icon=":material/broken_image:")

st.subheader("The same image through training", anchor=False)
with st.container(horizontal=True, vertical_alignment="bottom"):
    place = i2x_pickers.image(opened)
    scale = st.container(width=330, gap=None)
i2x_strip.draw(opened, place, scale)

st.subheader("How prototypes moved the classes", anchor=False)
i2x_evolution.draw(opened)
every = f"All {opened.analysis.prototypes.count} prototypes, the most uncertain first"
all_of_them = st.expander(every, icon=":material/apps:", key=f"{PAGE}.gallery", on_change="rerun")
if all_of_them.open:
    with all_of_them:
        ordered = [role.prototype for role in i2x_work.roles(opened, pair)]
        i2x_gallery.cards(opened, ordered, st.session_state[f"{PAGE}.prototypes"], pair)

first, second = (wording.plain(opened.analysis.classes[c]) for c in pair)
st.subheader(f"What pulls {first} and {second} apart", anchor=False)
left, right = st.columns([1.9, 1], gap="large")
with left:
    i2x_roles.between(opened)
with right:
    i2x_roles.per_class(opened)

st.subheader("Curate and fine-tune", anchor=False)
i2x_curate.draw(opened)
i2x_reading.draw(opened)
i2x_link.remember(opened)
