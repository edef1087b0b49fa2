"""Home: what is this, and does it work here?"""

import streamlit as st

from pages.ui import shell

shell.through_app("home")

from audit_core.examples import examples  # noqa: E402  (the guard runs first)
from audit_core.verdict import verdict  # noqa: E402
from pages.ui import charts, machine, wording  # noqa: E402

st.title("Is your model's heatmap telling the truth?", anchor=False)
st.markdown(
    "A heatmap is never faithful by itself. Its verdict belongs to the **triple**: the checkpoint, the explainer, and "
    "the **fill** that stands in for a removed pixel. Change the fill, and the ranking can reverse. Triplecheck shows "
    "you when."
)
doors = st.columns(3)
for column, (target, label, text) in zip(
    doors,
    (
        ("pages/spot_audit.py", "Audit one image", "Pick a triple, bring an image, watch the curves grow."),
        ("pages/compare.py", "Compare triples", "Up to six heatmaps and curves on one image."),
        ("pages/checkpoints.py", "See the checkpoints", "Four families trained on real wafers; add your own."),
    ),
    strict=True,
):
    with column.container(border=True):
        st.page_link(target, label=f"**{label}**", icon=":material/arrow_forward:")
        st.caption(text)

record = next(iter(examples().values()), None)
if record is None:
    st.info("No finished example is installed. Open *Audit one image* to make the first one.")
    st.stop()
judged = verdict(record)
st.subheader("A finished audit", anchor=False)
st.caption(
    wording.plain(
        f"{machine.family(record)} · Attention Rollout · zero fill · a generated “{record.classes[record.label]}” map"
        if record.label is not None
        else str(record.spec.triple)
    )
)
columns = st.columns([0.8, 1.1, 1.2, 1.2], gap="medium")
with columns[0]:
    st.markdown("**What the model sees**")
    charts.show_picture(
        record.pixels,
        "Wafer map with failed dies in white",
        f"predicted {record.classes[record.predicted]}, "
        f"{wording.percent(float(record.probabilities[record.predicted]))}",
    )
with columns[1]:
    st.markdown("**Heatmap over it**")
    st.plotly_chart(
        charts.heatmap(record.pixels, record.values, record.signed, 0.6, height=260),
        key="home.heatmap",
        theme="streamlit",
        config={"displayModeBar": False},
        alt="Heatmap over the wafer map",
    )
for column, (name, title, change) in zip(
    columns[2:], (("deletion", "Deletion", "removed"), ("insertion", "Insertion", "revealed")), strict=True
):
    direction = wording.DIRECTIONS[record.better(name)]
    curve, random = getattr(record, name), getattr(record.controls, name)
    with column:
        spec = charts.curve_spec(
            curve.fraction, curve.score, random, f"{title} · {direction}", change, record.spec.quantity
        )
        charts.curve(spec, f"home.{name}", f"{title} curve against random order")
        effect = record.advantage[name]
        st.caption(f"AUC {wording.number(curve.auc())}; advantage over random {wording.interval(effect)}")
with st.container(horizontal=True, vertical_alignment="center"):
    wording.badge(judged.word, judged.sentence)
    wording.badge(record.badge, record.badge_sentence)
    st.markdown(wording.plain(judged.sentence))
with st.expander("How to read this", icon=":material/help:"):
    st.markdown(
        "**Deletion**: the pixels that the heatmap calls most important are replaced first, step by step. If they "
        "matter to the model, its score falls early, and the area under the curve (AUC) is small. **Insertion** starts "
        "from the wholly filled image and reveals the most important pixels first: the score should rise early. The "
        "grey band is what *random* orders do: a heatmap that stays inside it knows nothing. The blue line must leave "
        "the band, downwards on the left chart, upwards on the right one. And all of it holds for **this fill**: open "
        "the audit and choose another."
    )
st.caption(machine.line())
