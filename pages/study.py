"""Study: does it hold on the data set?"""

import streamlit as st

from pages.ui import shell

shell.through_app("study")

with st.spinner("Starting the engine (first use takes some seconds) …"):
    from audit_core.errors import AuditError
    from audit_core.study import runner
    from audit_core.study.shelf import SHIPPED, Shelf
    from pages.ui import (
        params,
        resources,
        study_cell,
        study_define,
        study_ended,
        study_files,
        study_grid,
        study_link,
        study_results,
        study_run,
        study_words,
        wording,
    )

resources.bench()
shell.title("Study", "Does it hold on the data set? Many images, every contender under every fill, paired by image.")
study_link.follow()
name = study_link.pick()
study_link.tell_problem()

if name == study_link.NEW:
    study_link.remember(name)
    study_define.draft()
    st.stop()

try:
    study_define.told(name)
    folder = Shelf.default().folder(name)
except AuditError as problem:
    st.error(wording.plain(wording.without_folders(str(problem))), icon=":material/error:")
    st.stop()
st.subheader("3 · Run and browse", anchor=False)
live = study_run.running(name)
if sentence := study_results.changed_criteria(folder, name):
    st.warning(wording.plain(sentence), icon=":material/gavel:")
status = None if name == SHIPPED or live else runner.status(folder.root, count=False)
whole = not live and (status is None or status.complete)
if status is not None:
    study_ended.told(name, status)

results = study_results.opened(name)
if results is None and not live and (reason := study_results.unreadable(name)):
    st.error(wording.plain(wording.without_folders(reason)), icon=":material/error:")
known = study_words.ranked(results.metrics) if results else [study_link.METRIC]
if st.session_state.get(f"{study_link.PAGE}.metric") not in known:
    st.session_state[f"{study_link.PAGE}.metric"] = known[0] if known else study_link.METRIC
left, right = st.columns([2, 1], vertical_alignment="bottom")
with left:
    params.hold(f"{study_link.PAGE}.metric")
    metric = st.selectbox(
        "Metric", known, key=f"{study_link.PAGE}.metric", format_func=study_words.metric, persist_state="session"
    )
with right:
    params.hold("study.controls")
    every = st.toggle(
        "All controls",
        key="study.controls",
        help="The random order always stands beside its family; this adds the other controls.",
    )

if live:
    study_run.watch(name, lambda: study_grid.draw(name, metric, every, whole))
else:
    study_grid.draw(name, metric, every, whole)
cell = study_cell.draw(name, metric, whole)
study_link.remember(name, metric, cell if st.session_state.get(study_link.CELL) else "")
st.subheader("Take it along", anchor=False)
study_files.draw(name)
