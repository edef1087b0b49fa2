"""What a report says in words: terms in one line each, numbers, what was asked, what is not known, whose data it is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from audit_core.card import figures
from audit_core.statistics import Estimate
from audit_core.study.definition import Study
from audit_core.study.means import FEW
from audit_core.study.nouns import StateCount
from audit_core.study.results import Results
from models import zoo

Manifest = Mapping[str, Any]  # Any: JSON data of the study's folder

#: Term, arrow, what it is.
TERMS = (
    ("Contender", "", "An explainer on a family of networks. Networks of a family differ in their training run alone."),
    ("Fill", "", "What stands in a pixel that is taken away: black, a blurred copy, an average, …"),
    ("Deletion", "↓", "Area under the score while the pixels that the map calls most important are filled first "
     "(Petsiuk et al. 2018). Lower is better: the score collapses early."),
    ("Insertion", "↑", "The same from the wholly filled image, the most important pixels shown first. Higher is "
     "better: the score recovers early."),
    ("SRG", "↑", "Symmetric relevance gain (Blücher et al. 2024), here insertion minus deletion area under one fill. "
     "Higher is better; 0 is what an order without meaning gets on average."),
    ("R-OMS", "↑", "Mean of deletion and insertion area of random order: how well a fill keeps images in what the "
     "network knows (Blücher et al. 2024). Higher: the fill disturbs less, which makes it no better a question."),
    ("Control", "", "A map made without any network: random order, brightness, centre, edges. An explainer that does "
     "not beat it has not explained anything."),
    ("Rank", "", "Place among the contenders under one fill, 1 = best. A reversal: two contenders change places when "
     "only the fill changes."),
    ("Tau", "", "Kendall's tau-b between the orders under two fills: 1 = the same order, −1 = the reverse."),
    ("Interval", "", "In brackets, 95 %. Over images: for these very networks on other images of the kind. Over "
     "training runs and images: for networks trained again."),
)  # fmt: skip
METRICS = {
    "srg": "SRG",
    "deletion": "deletion area",
    "insertion": "insertion area",
    "deletion-normalised": "deletion area / untouched score",
}
DATA_NOTICE = "Data: MIR-WM811K, copyright 2015 Jyh-Shing Roger Jang; redistribution asks for this notice."
ROLES = {"own": "reads the inside of the network", "agnostic": "reads scores only", "control": "reads no network"}


def metric_title(metric: str) -> str:
    """A metric inside a sentence."""
    return METRICS.get(metric, metric)


def arrow(better: str) -> str:
    """Direction of a metric."""
    return {"lower": "↓ lower is better", "higher": "↑ higher is better"}.get(better, "neither way is better")


def wrapped(text: str, width: int) -> str:
    """A label in lines of at most ``width`` letters, broken at its own marks first."""
    return "\n".join(textwrap.wrap(text.replace(":", ": ").replace(",", ", "), width) or [""])


def interval(low: float | None, high: float | None) -> str:
    """ "[0.101, 0.150]", "" where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"[{figures(low)}, {figures(high)}]"


def estimate(found: Estimate) -> str:
    """Value and interval; a dash for what does not exist."""
    if math.isnan(found.value):
        return "–"
    return f"{figures(found.value)} {interval(found.low, found.high)}".rstrip()


def share(value: float) -> str:
    """A share of resamples; 100 % only where all of them agree."""
    return "> 99 %" if 0.995 <= value < 1 else "< 1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"


def asked(study: Study, results: Results) -> tuple[str, ...]:
    """What was asked, in sentences."""
    families = {c.family for c in results.contenders}
    checkpoints = {name for c in results.contenders for name in c.checkpoints}
    read = [c for c in results.contenders if c.role != "control"]
    curves, images = study.curves, study.images
    drawn = f"{images.per_class} of each class" if images.per_class else "all"
    classes = f", classes {', '.join(results.classes)}" if results.classes else ""
    without = f", without {', '.join(images.leave_out)}" if images.leave_out else ""
    seeds = ", ".join(map(str, curves.seeds))
    return (
        f"{_count(len(families), 'family', 'families')} of networks ({_count(len(checkpoints), 'checkpoint')}), "
        f"{_count(len(read), 'contender')} that read a network and "
        f"{_count(len(results.contenders) - len(read), 'control')}, {_count(len(results.fills), 'fill')}.",
        f"{_count(results.units, 'image')}: {images.dataset}, split {images.split}, {drawn}{without} (draw seed "
        f"{images.seed}){classes}. Every contender saw the same images, so everything is paired.",
        f"Every curve has {curves.steps} steps of {curves.patch}×{curves.patch} pixels, {curves.direction} important "
        f"first; followed is the {curves.quantity} of the {curves.target} class in {curves.precision}. "
        f"Random draws: {_count(len(curves.seeds), 'seed')} ({seeds}).",
    )


def limits(results: Results, manifest: Manifest, counts: Sequence[StateCount], metric: str) -> tuple[str, ...]:
    """What this study cannot tell, in sentences."""
    runs = {c.family: len(c.checkpoints) for c in results.contenders}
    single, few = ([f for f, n in runs.items() if low <= n < high] for low, high in ((1, 2), (2, FEW)))
    found = ["One data set: nothing here says what holds on other images."]
    if single:
        found.append(f"{', '.join(single)}: one training run, so how much retraining changes the numbers is unknown.")
    if few:
        number = sorted({runs[family] for family in few})
        found.append(f"{', '.join(few)}: only {' or '.join(map(str, number))} training runs; intervals over training "
                     "runs tend to be too narrow.")  # fmt: skip
    found.append(f"Fills: {', '.join(results.fills)}. Another fill may give another order; none of them is the truth.")
    sick, failed = (sum(c.count for c in counts if c.state == state) for state in ("sick", "failed"))
    maps = sum(c.count for c in counts)
    if sick or failed:
        found.append(
            f"Of {maps:,} maps {sick:,} were sick (unfit to be ranked) and {failed:,} failed: they enter no mean."
        )
    if not any(c.role == "control" for c in results.contenders):
        found.append(
            "No control was run: nobody can say whether any of these maps is better than a map without a network."
        )
    if "r-oms" not in results.metrics:
        found.append("R-OMS was not measured: how far each fill leads out of the network's scope is unknown.")
    if not results.classes:
        found.append("The images have no labels: nothing can be said about single classes.")
    if unfinished := len(manifest.get("tasks", ())) - manifest.get("done", len(manifest.get("tasks", ()))):
        found.append(f"The study is not finished: {unfinished:,} of {len(manifest['tasks']):,} tasks are missing.")
    found.append("Intervals are not corrected for the number of comparisons, unless an adjusted p stands beside them.")
    return tuple(found)


def notices(study: Study, manifest: Manifest) -> tuple[str, ...]:
    """Licences and citations that travel with the data and the weights."""
    names = [str(entry.get("name")) for entry in manifest.get("checkpoints", ())]
    cards = [zoo.card(name) for name in names if name in zoo.names()]
    found = [f"{card.name}: {card.licence}. {card.notice}" for card in cards]
    if study.images.dataset.partition(":")[0] == "wm811k":
        cards = cards or [zoo.card(name) for name in zoo.names()]
        found.insert(0, DATA_NOTICE)
    return tuple(dict.fromkeys([*found, *(line for card in cards for line in card.citations)]))


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
