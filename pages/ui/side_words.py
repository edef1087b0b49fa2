"""What Side by side says in sentences: whether a rank is stable, which prototype rose, and how to read the page."""

from __future__ import annotations

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.beside import Place, riser
from pages.ui.reversal_looks import fill_title

HOW_TO_READ = """
**Left**: the explainers of the chosen checkpoint, ranked under every fill. Lines that cross are a rank reversal. Bands
are 95 % intervals over images; R-OMS under a fill is higher where it keeps images in the model's scope.

**Right**: the same training run. Top: mean confidence of the images of A (solid) and B (dashed) in their own class,
and in the other one (thin, dotted). Middle: mean saliency on the locations of the three prototypes that swing most
between the two classes, over the images that hold them. Bottom: rank of the explainer in front at every checkpoint.
The vertical line is the chosen checkpoint; the shaded band is the transition that led to it.

Sources: rank reversal arXiv 2605.14255; prototypes and trajectories Li et al. 2026, arXiv 2603.10234.
"""


def stable_or_not(place: Place, steps: tuple[int, ...], title: str, fill: str, images: int) -> str:
    """The line under both halves: stable or not."""
    now, under = place.ranks[-1], fill_title(fill)
    if now != now:
        return f"{title} has no rank under {under} at the last checkpoint: it could not be computed there."
    if not place.changes:
        return f"{title} keeps rank {now:g} under {under} at every checkpoint (n = {images} images)."
    told = ", ".join(str(steps[t]) for t in place.changes)
    return (
        f"{title} ends at rank {now:g} under {under} and keeps it from step {steps[place.settled]} on; its rank "
        f"changed at step {told} (n = {images} images)."
    )


def what_rose(made: Analysis, place: Place, ranked: tuple[int, ...], pair: tuple[int, int]) -> str:
    """Which prototype rose when the rank changed for the last time; ranked: steps of the ranking."""
    if not place.changes:
        return "Nothing to trace: no change of rank along this run."
    steps, end = made.trajectory.steps, ranked[place.settled]
    if end not in steps[1:]:
        return f"The rank changed last at step {end}, which the analysis of the run does not hold."
    t = steps.index(end)
    found = riser(made, t - 1, made.of_classes(*pair))
    a, b = (made.classes[c] for c in pair)
    between = f"Between step {steps[t - 1]} and {end}, the last change, "
    if found is None:
        return between + f"no prototype's intensity rose on images of {a} and {b}."
    pushed = f"; by β it pushed class {made.classes[found.up]} by {found.push:+.3f} of confidence" if found.push else ""
    return (
        f"{between}P-{found.prototype} rose most on images of {a} and {b} ({found.rise:+.3g} in intensity){pushed}. "
        "That both happened at the same time does not say that one caused the other."
    )
