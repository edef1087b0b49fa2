"""Spot audit: may I trust this heatmap, here?"""

import streamlit as st

from pages.ui import shell

shell.through_app("spot_audit")

with st.spinner("Starting the engine (first use takes some seconds) …"):
    from audit_core import audit
    from audit_core.errors import AuditError, Refused
    from audit_core.explainers import EXPLAINERS
    from audit_core.keys import Choice
    from audit_core.types import AuditSpec, Triple
    from pages.ui import checks, fills_row, link, opened, pickers, resources, result, wording, work

PAGE = "spot"
bench = resources.bench()
shell.title("Spot audit", "May I trust this heatmap, here? Change the fill, and see the curve turn.")
words, news = link.words(PAGE)
if news or f"{PAGE}.checkpoint" not in st.session_state:
    st.session_state[f"{PAGE}.problems"] = pickers.seed_widgets(PAGE, words)

with st.sidebar:
    checkpoint = pickers.checkpoint(PAGE)
    card = bench.card(checkpoint)
    image = pickers.image(PAGE, card)
    explainer = pickers.explainer(PAGE, card)
    fill = pickers.fill(PAGE)
    target = pickers.target(PAGE, card, labelled=bool(image and not image.startswith("upload:")))
    against = pickers.against(PAGE, card)
    settings = pickers.settings(PAGE)

before, words = (
    words,
    {
        **words,
        "checkpoint": checkpoint,
        "explainer": str(explainer),
        "fill": str(fill),
        "image": image or "",
        "target": target,
        "against": against,
        **settings,
    },
)
if not news and words != before:
    st.session_state.pop(f"{PAGE}.problems", None)
for problem in st.session_state.get(f"{PAGE}.problems", []):
    st.warning(wording.plain(problem), icon=":material/link_off:")
if opened.banner(PAGE):
    st.stop()
if image is None:
    st.info(
        "Drop an image into the left rail to audit it: the curves start by themselves. "
        "On a narrow screen, open the rail with »",
        icon=":material/upload:",
    )
    st.stop()

link.remember(PAGE, words)
numbers = {name: int(settings[name]) for name in ("steps", "patch", "controls", "seed")}
spec = AuditSpec(
    Triple(checkpoint, explainer, fill),
    image,
    target,
    direction=settings["direction"],
    quantity="logit" if against else settings["quantity"],
    against=against,
    precision=settings["precision"],
    **numbers,
)
try:
    prepared = audit.prepare(spec, bench)
except Refused as reason:
    st.info(f"**Refused.** {wording.plain(str(reason))}.", icon=":material/block:")
    others = [name for name in EXPLAINERS if not EXPLAINERS.build(Choice(name)).refuse(card)]
    st.caption(
        "What would work: choose one of "
        + ", ".join(EXPLAINERS[name].title for name in others)
        + ", or another fill, in the left rail."
    )
    st.stop()
except AuditError as problem:
    st.error(wording.plain(str(problem)), icon=":material/error:")
    st.stop()

previous = st.session_state.get(f"{PAGE}.job")
if previous and previous != prepared.key:
    resources.jobs().cancel(previous, resources.owner())
st.session_state[f"{PAGE}.job"] = prepared.key

record = work.finished(prepared)
if record is None:
    work.start(prepared, PAGE)
    record = work.soon(prepared)
if record is None:
    cost = prepared.explainer.cost(card)
    forwards = cost.forwards + 2 + 2 * (spec.steps - 1) * (1 + spec.controls)
    st.caption(f"At most {forwards:,} forwards and {cost.backwards} backwards.")
    work.panel(prepared.key, result.draw_partial)
    st.stop()

if bench.problem:
    st.warning(wording.plain(bench.problem), icon=":material/save:")
result.draw(record, PAGE)
checks.draw(record, PAGE)
fills_row.draw(prepared, record, PAGE)
st.subheader("Take it along", anchor=False)
result.downloads(record, PAGE)
st.caption(
    "This link opens the very same audit; an uploaded image opens by its content hash, as long as this server has it."
)
st.code(link.address(), language=None, wrap_lines=True)
result.provenance(record)
