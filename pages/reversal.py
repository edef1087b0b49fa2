"""Rank reversal: who wins, and does it depend on the fill?"""

import streamlit as st

from pages.ui import shell

shell.through_app("reversal")

with st.spinner("Opening the study (first use takes some seconds) …"):
    from audit_core.errors import AuditError
    from audit_core.study.shelf import Shelf
    from pages.ui import (
        link,
        reversal_cd,
        reversal_chart,
        reversal_claims,
        reversal_filters,
        reversal_link,
        reversal_looks,
        reversal_main,
        reversal_pair,
        reversal_tables,
        reversal_work,
        wording,
    )

PAGE = reversal_link.PAGE
shell.title("Rank reversal", "Who wins, and does it depend on the fill?")
asked, news = reversal_link.words()
names = Shelf.default().names()
if not names:
    st.info("No study is here yet: define one on the Study page, or run `python -m audit_core study run`.")
    st.stop()
wanted = link.first(asked, "study") if news else ""
try:
    if wanted:
        Shelf.default().folder(wanted)
except AuditError as problem:
    st.warning(wording.plain(f"{problem}; showing {names[0]}."), icon=":material/link_off:")
    wanted, asked = names[0], {}

with st.sidebar:
    study = reversal_filters.study(wanted or (names[0] if news else ""), names)
try:
    opened = reversal_work.open_study(study)
except AuditError as problem:
    st.info(wording.plain(wording.without_folders(str(problem))), icon=":material/hourglass_empty:")
    st.stop()
if news or st.session_state.get(f"{PAGE}.opened") != study:
    st.session_state[f"{PAGE}.problems"] = reversal_filters.seed(asked if news else {}, opened)
    st.session_state[f"{PAGE}.opened"] = study
for problem in st.session_state[f"{PAGE}.problems"]:
    st.warning(wording.plain(problem), icon=":material/link_off:")
reversal_main.unfinished(study)

looks = reversal_looks.looks(opened.results.contenders, opened.manifest, reversal_chart.theme())
with st.sidebar:
    metric, filters = reversal_filters.draw(opened)
top = st.container()
contenders, row = reversal_main.choose(opened, looks)
if not contenders:
    top.info("Choose two or more contenders: a ranking needs something to rank.", icon=":material/checklist:")
    st.stop()
try:
    with top, st.spinner("Resampling …"):
        view = reversal_work.reversal(opened, metric, filters, contenders)
except AuditError as problem:
    top.info(wording.plain(str(problem)), icon=":material/filter_alt_off:")
    st.stop()
with st.sidebar:
    scheme = reversal_filters.scheme(view.schemes)
with top:
    sentence = reversal_main.headline(view, scheme, looks)
published = reversal_main.bump(opened, view, scheme, looks, sentence, row)
inspected = reversal_pair.draw(opened, view, scheme, filters, looks)

st.subheader("Do the fills agree?", anchor=False)
left, right = st.columns(2, gap="large")
with left:
    st.markdown("**Kendall’s τ between the orders under every two fills**")
    reversal_tables.tau(view, scheme)
with right:
    st.markdown("**Does one number for all fills (mean SRG) stand for each of them?**")
    reversal_tables.summary(view, scheme, looks)
st.markdown("**What can be claimed**")
reversal_claims.claims(view, scheme, looks)
reversal_main.compressed(opened, metric, filters, scheme)
reversal_cd.draw(opened, metric, filters, contenders, inspected["fill"] or view.fills[0], looks)

reversal_link.remember(
    {
        "study": [study],
        "metric": [metric],
        "contender": [] if contenders == reversal_filters.preset("default", opened) else contenders,
        "scheme": [str(scheme.scheme)] if len(view.schemes) > 1 else [],
        "published": ["1"] if published else [],
        **{name: [value] for name, value in inspected.items()},
    },
    filters,
)
