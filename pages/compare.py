"""Compare: which of these, on this image?"""

import streamlit as st

from pages.ui import shell

shell.through_app("compare")

with st.spinner("Starting the engine (first use takes some seconds) …"):
    from pages.ui import (
        compare_link,
        compare_parts,
        compare_slots,
        compare_work,
        link,
        pickers,
        resources,
        wording,
    )

PAGE = "compare"
bench = resources.bench()
shell.title("Compare", "Which of these, on this image? Up to six triples side by side; change any of them in place.")
words, texts, news = compare_link.words()
if news or f"{PAGE}.source" not in st.session_state or not compare_slots.present():
    problems = pickers.seed_widgets(PAGE, {**link.DEFAULTS, **words}) + compare_slots.seed(texts)
    for problem in problems:
        st.warning(wording.plain(problem), icon=":material/link_off:")

slots = compare_slots.order()
first_card = bench.card(compare_slots.defaults()[0].checkpoint)
with st.sidebar:
    image = pickers.image(PAGE, first_card)
    target = pickers.target(PAGE, first_card, labelled=bool(image and not image.startswith("upload:")))
    against = pickers.against(PAGE, first_card)
    settings = pickers.settings(PAGE)
    scale = st.radio(
        "Scale of the heatmaps",
        list(compare_parts.SCALES),
        key=f"{PAGE}.scale",
        help="Scaling is a view: curves and numbers never change with it.",
    )
    st.caption(compare_parts.SCALES[scale])
    opacity = st.slider("Opacity of the heatmaps", 0.0, 1.0, 0.75, 0.05, key=f"{PAGE}.opacity")
if image is None:
    st.info(
        "Drop an image into the left rail to compare on it. On a narrow screen, open the rail with »",
        icon=":material/upload:",
    )
    st.stop()

with st.container(horizontal=True):
    for kind, (label, icon) in compare_slots.QUICK.items():
        st.button(
            label,
            key=f"{PAGE}.quick.{kind}",
            on_click=compare_slots.quick,
            args=(kind,),
            icon=icon,
            help="Fills the columns from the first triple.",
        )
    st.button(
        "Add a triple",
        key=f"{PAGE}.add",
        on_click=compare_slots.add,
        icon=":material/add:",
        disabled=len(slots) >= compare_link.PLACES,
    )
if rest := st.session_state.pop(f"{PAGE}.rest", None):
    st.caption(wording.plain(rest))
progress, per_row, boxes, triples = st.container(), len(slots) if len(slots) <= 4 else 3, {}, {}
for start in range(0, len(slots), per_row):
    for column, slot in zip(st.columns(per_row, gap="small"), slots[start : start + per_row], strict=False):
        boxes[slot] = column.container(border=True, gap="xsmall")
        with boxes[slot]:
            triples[slot] = compare_slots.editor(slot)

shared = {**words, "image": image, "target": target, "against": against, **settings}
compare_link.remember(shared, [compare_link.encode(triple, slot) for slot, triple in triples.items()])
cells = compare_work.prepare(triples, shared)
records = compare_work.records(cells)
with progress:
    failed = compare_work.compute(cells, records)

for slot, cell in cells.items():
    with boxes[slot]:
        if slot in records:
            compare_parts.draw_map(records[slot], slot, scale, list(records.values()), opacity)
            compare_parts.card(records[slot], shared)
        elif isinstance(cell, str) or slot in failed:
            reason = cell if isinstance(cell, str) else failed[slot]
            st.info(f"**Refused.** {wording.plain(reason)}", icon=":material/block:")
            st.caption("The cell stays here as a result; choose another explainer, checkpoint or fill to fill it.")
        else:
            with st.container(height=290, border=False):
                st.caption(":material/hourglass_empty: Not computed yet; the map and its numbers appear here.")

if records:
    st.subheader("The curves in one chart", anchor=False)
    left, right = st.columns(2, gap="medium")
    with left:
        compare_parts.curves(records, "deletion")
    with right:
        compare_parts.curves(records, "insertion")
    grey = compare_slots.LETTERS[next(iter(records))]
    st.caption(
        f"Grey: range and mean of the random orders of {grey}; each triple is judged against its own, on its card."
    )
    compare_parts.agree(records, cells)
    st.caption("The address of this page is the comparison: send it, and it opens the very same one.")
