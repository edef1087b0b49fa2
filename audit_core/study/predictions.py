"""The five predictions of arXiv 2605.14255, made testable before looking, and what a study's numbers say to each.

The paper names no test and no threshold for them: what counts for and against is our reading, and stands with each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.statistics import Estimate, Observations, agreement_of, resample, spread_compression
from audit_core.statistics.estimates import from_resamples
from audit_core.study.direction import sign
from audit_core.study.guidance import RULES, facts, on_common_images, paired_by_rule, rule_for, scheme_for
from audit_core.study.nouns import Contender, Grouped
from audit_core.study.plain import plain
from audit_core.study.results import Results

VERDICTS = ("holds", "fails", "undecided")
SCORE = "macro_f1"  # the paper's order of classification
LOOSE = 0.5  # |tau| below which two orders count as independent
METHOD = "percentile of joint resamples"
RESAMPLES = 2000

Manifest = Mapping[str, Any]  # Any: JSON data of the study's folder


@dataclass(frozen=True)
class Finding:
    """One number that speaks to a prediction: what is compared, in words, and by how much; above 0 speaks for it.

    (For a ratio, below 1 speaks for it; tau is the agreement of two orders.)
    """

    what: str
    estimate: Estimate


@dataclass(frozen=True)
class UnderFill:
    """A prediction under one fill: verdict, sentence with the numbers, and all the numbers."""

    fill: str
    verdict: str
    sentence: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """number, title: as the paper states it; counts: what counts for and against it; verdict: over all fills.

    "holds" where it holds under every fill, "fails" where it fails under any (a claim that depends on the fill is not
    the claim that was made), else "undecided".
    """

    number: int
    title: str
    counts: str
    verdict: str
    sentence: str
    fills: tuple[UnderFill, ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """Plain data."""
        found: dict[str, Any] = plain(self)
        return found


def predictions(results: Results, manifest: Manifest, rng: np.random.Generator) -> tuple[Prediction, ...]:
    """All five, in the paper's order; manifest: of the study's folder, for readouts and classification scores.

    A family stands for itself with the explainer that the paper's rule pairs with its readout (see ``guidance``).
    Intervals are 95 % percentile intervals of joint resamples of training runs and images, on the images that all
    compared contenders have a number for; a family with one run shows nothing of how retraining would change it, and
    where a family's contenders were measured on different runs only images are drawn. They are not corrected for the
    number of comparisons: "holds" asks for all of them at once, "fails" rests on single ones.
    """
    named = {family: paired_by_rule(results, manifest, family) for family in _families(results)}
    main = [contender for contender in named.values() if contender is not None]
    return (
        _native_wins(results, manifest, main, rng),
        _orders_independent(results, manifest, main, rng),
        _order_stable(results, main, rng),
        _agnostic_compresses(results, main, rng),
        _grad_cam_for_hierarchies(results, manifest, rng),
    )


def _native_wins(
    results: Results, manifest: Manifest, main: Sequence[Contender], rng: np.random.Generator
) -> Prediction:
    title = "Native readouts give lower deletion and higher insertion areas"
    counts = (
        "Each family whose score is gathered by attention, with rollout, against each other family with its paired "
        "explainer: deletion lower and insertion higher. For: all intervals of these differences on the right side. "
        "Against: any interval on the wrong side."
    )
    token = [c for c in main if rule_for(*facts(manifest, c.family)) == RULES[0]]
    others = [c for c in main if c not in token]
    if not token or not others:
        why = "it needs a family read through attention and another one, each with its paired explainer"
        return _unanswered(1, title, counts, results, why)
    found: dict[str, list[Finding]] = {fill: [] for fill in _fills(results, "deletion")}
    for metric, word in (("deletion", "lower deletion"), ("insertion", "higher insertion")):
        for fill, one in _leads(results, metric, list(product(token, others)), word, rng):
            found.setdefault(fill, []).append(one)
    complete = 2 * len(token) * len(others)
    return _over_fills(1, title, counts, [_by_signs(fill, f, complete) for fill, f in found.items()])


def _orders_independent(
    results: Results, manifest: Manifest, main: Sequence[Contender], rng: np.random.Generator
) -> Prediction:
    title = "The order of faithfulness is independent of the order of classification"
    counts = (
        "Kendall's tau between the families' macro-F1 (mean over training runs, one data set for all) and their mean "
        "deletion area, turned so that 1 = the better classifier is the more faithful. Against: p < 0.05 in the exact "
        "test over all orders of the families, whichever the sign, and an interval of tau over images that leaves out "
        "0. For: the 95 % interval of tau over families "
        f"(Fieller, Hartley and Pearson 1957) within -{LOOSE} to {LOOSE}. Four families can settle neither: a perfect "
        "agreement or reversal comes up in 2 of their 24 orders."
    )
    scores = _scores(manifest, [c.family for c in main])
    main = [c for c in main if c.family in scores]
    if len(main) < 2:
        why = "it needs two families whose macro-F1 was measured on one data set, each with its paired explainer"
        return _unanswered(2, title, counts, results, why)
    observed = _observe(results, "deletion", main)
    if observed is None:
        return _unanswered(2, title, counts, results, "there is no deletion area")
    point, drawn = _means(observed, "lower", rng)
    reference = np.array([scores[c.family] for c in main])
    taus = agreement_of(reference, point, drawn, better="lower", reference_better="higher")
    judged = [
        _by_tau(fill, tau, reference, -point[:, f])
        for f, (fill, tau) in enumerate(zip(observed.fills, taus, strict=True))
    ]
    return _over_fills(2, title, counts, judged)


def _by_tau(fill: str, tau: Estimate, scores: np.ndarray, faithful: np.ndarray) -> UnderFill:
    """tau: with its interval over images; the verdict rests on the number of families."""
    finding = (Finding("tau between macro-F1 and faithfulness", tau),)
    if np.isnan(tau.value):
        return UnderFill(fill, "undecided", f"Tau is not defined: {tau.note}.", finding)
    held = ~np.isnan(faithful)
    p = float(stats.kendalltau(scores[held], faithful[held]).pvalue)
    low, high = _fieller(tau.value, tau.n)
    loose = low is not None and high is not None and low > -LOOSE and high < LOOSE
    sure = tau.low is not None and tau.high is not None and tau.low * tau.high > 0
    verdict = "fails" if p < 0.05 and sure else "holds" if loose else "undecided"
    over = f"[{low:.2f}, {high:.2f}] over families" if low is not None else "no interval over so few families"
    words = f"tau {_number(tau)} over images, {over}, p = {p:.2g} with {tau.n} families"
    return UnderFill(fill, verdict, f"{words}.", finding)


def _fieller(tau: float, n: int) -> tuple[float | None, float | None]:
    """95 % interval of Kendall's tau over n > 4 things: z = artanh(tau), variance 0.437 / (n - 4)."""
    if n <= 4:
        return None, None
    z, half = np.arctanh(np.clip(tau, -1 + 1e-9, 1 - 1e-9)), stats.norm.ppf(0.975) * np.sqrt(0.437 / (n - 4))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _order_stable(results: Results, main: Sequence[Contender], rng: np.random.Generator) -> Prediction:
    title = "The order is stable over training seeds"
    counts = (
        "Families with two or more training runs, two by two: the difference of their mean deletion areas for every "
        "run of one with every run of the other, with its interval over images. For: in each pair all of them on one "
        "side. Against: in some pair two of them on opposite sides."
    )
    several = [c for c in main if len(c.checkpoints) > 1]
    observed = _observe(results, "deletion", several) if len(several) > 1 else None
    if observed is None:
        why = f"it needs two families with two training runs each, found {len(several)}"
        return _unanswered(3, title, counts, results, why)
    runs = [dict(zip(results.places_of_runs(c), c.checkpoints, strict=True)) for c in several]
    judged = [_by_runs(observed, f, runs, rng) for f in range(len(observed.fills))]
    return _over_fills(3, title, counts, judged)


def _by_runs(observed: Grouped, fill: int, runs: Sequence[Mapping[int, str]], rng: np.random.Generator) -> UnderFill:
    """runs: of each contender, place on the axis of runs -> name of the checkpoint."""
    total, count = (np.moveaxis(part[:, fill], 1, 0) for part in (observed.total, observed.count))  # (R, C, G)
    shape = total.shape
    apart = Observations(total.reshape(-1, 1, shape[2]), count.reshape(-1, 1, shape[2]), "lower")
    point = apart.means().reshape(shape[:2])
    drawn = resample(apart, rng, RESAMPLES)[:, :, 0].reshape(-1, *shape[:2])
    findings, words = [], []
    for a, b in combinations(range(len(runs)), 2):
        pair = []
        for r, s in product(np.flatnonzero(~np.isnan(point[:, a])), np.flatnonzero(~np.isnan(point[:, b]))):
            lead = from_resamples(float(point[s, b] - point[r, a]), drawn[:, s, b] - drawn[:, r, a], shape[2], METHOD)
            pair.append(Finding(f"{runs[a][int(r)]} before {runs[b][int(s)]}", lead))
        findings += pair
        words.append(_one_side([one.estimate for one in pair]))
    verdict = "fails" if "fails" in words else "holds" if set(words) == {"holds"} else "undecided"
    same = f"{words.count('holds')} of {len(words)} pairs of families keep their order in every pair of runs"
    turned = f", {words.count('fails')} change it" if "fails" in words else ""
    return UnderFill(observed.fills[fill], verdict, f"{same}{turned}.", tuple(findings))


def _one_side(leads: Sequence[Estimate]) -> str:
    above = sum(lead.low is not None and lead.low > 0 for lead in leads)
    below = sum(lead.high is not None and lead.high < 0 for lead in leads)
    if above and below:
        return "fails"
    return "holds" if leads and len(leads) in (above, below) else "undecided"


def _agnostic_compresses(results: Results, main: Sequence[Contender], rng: np.random.Generator) -> Prediction:
    title = "A model-agnostic explainer compresses the spread between families"
    counts = (
        "Largest minus smallest mean deletion area over the families under one model-agnostic explainer (RISE where it "
        "was run, else the first that most families have), divided by the same under their paired explainers. For: the "
        "interval below 1. Against: above 1."
    )
    agnostic = _shared_agnostic(results, main)
    both = [(c, agnostic[c.family]) for c in main if c.family in agnostic]
    observed = _observe(results, "deletion", [c for pair in both for c in pair]) if len(both) > 1 else None
    if observed is None:
        why = f"it needs two families with their paired explainer and a model-agnostic one, found {len(both)}"
        return _unanswered(4, title, counts, results, why)
    point, drawn = _means(observed, "lower", rng)
    places = np.arange(2 * len(both)).reshape(-1, 2)
    ratios = spread_compression(point, drawn, places[:, 0], places[:, 1])
    explainer = both[0][1].explainer
    judged = [_by_ratio(fill, ratio, explainer) for fill, ratio in zip(observed.fills, ratios, strict=True)]
    return _over_fills(4, title, counts, judged)


def _by_ratio(fill: str, ratio: Estimate, explainer: str) -> UnderFill:
    finding = (Finding(f"spread under {explainer} over spread under the paired explainers", ratio),)
    if ratio.low is None or ratio.high is None:
        return UnderFill(fill, "undecided", f"{_upper(ratio.note)}.", finding)
    verdict = "holds" if ratio.high < 1 else "fails" if ratio.low > 1 else "undecided"
    return UnderFill(fill, verdict, f"spread ratio {_number(ratio)} over {ratio.n} families.", finding)


def _shared_agnostic(results: Results, main: Sequence[Contender]) -> dict[str, Contender]:
    """Family -> its contender of the one model-agnostic explainer that is compared."""
    families = {c.family for c in main}
    found: dict[str, dict[str, Contender]] = {}
    for contender in results.named(roles=("agnostic",)):
        if contender.family in families:
            found.setdefault(contender.explainer, {})[contender.family] = contender
    ordered = sorted(found, key=lambda name: (Choice.parse(name).name != "rise", -len(found[name]), name))
    return found[ordered[0]] if ordered else {}


def _grad_cam_for_hierarchies(results: Results, manifest: Manifest, rng: np.random.Generator) -> Prediction:
    title = "A hierarchical transformer goes with Grad-CAM"
    counts = (
        "Each family with windowed attention and a pooled readout (such as Swin): the SRG of Grad-CAM on its last "
        "stage against random order and against every other explainer that reads its inside (Grad-CAM on earlier "
        "stages is no other; model-agnostic ones are a reference). For: all intervals above 0. Against: any below 0."
    )
    pairs = []
    for family in _families(results):
        first = paired_by_rule(results, manifest, family)
        if facts(manifest, family)[1] == "windowed" and first is not None and first.explainer.startswith("grad-cam"):
            pairs += [(first, c) for c in results.contenders if c.family == family and _is_rival(c)]
    asked = [pair for pair in pairs if all(_observe(results, "srg", [one]) is not None for one in pair)]
    if not any(_name(rival) == "random" for _, rival in asked):
        why = "it needs a family with windowed attention, its Grad-CAM and the control random"
        return _unanswered(5, title, counts, results, why)
    found: dict[str, list[Finding]] = {fill: [] for fill in _fills(results, "srg")}
    for fill, one in _leads(results, "srg", asked, "higher SRG", rng):
        found[fill].append(one)
    return _over_fills(5, title, counts, [_by_signs(fill, f, len(asked)) for fill, f in found.items()])


def _is_rival(contender: Contender) -> bool:
    name = _name(contender)
    return name == "random" or (contender.role == "own" and name != "grad-cam")


def _leads(
    results: Results, metric: str, pairs: Sequence[tuple[Contender, Contender]], word: str, rng: np.random.Generator
) -> list[tuple[str, Finding]]:
    """Per fill and pair, by how much the first is better than the second; pairs without both numbers are left out."""
    turn, found = sign(metric), []
    for a, b in pairs:
        observed = _observe(results, metric, (a, b))
        if observed is None:
            continue
        point, drawn = _means(observed, "higher" if turn > 0 else "lower", rng)
        n = (observed.count.sum(axis=2) > 0).all(axis=0).sum(axis=1)
        for f, fill in enumerate(observed.fills):
            if n[f]:
                gap, gaps = point[0, f] - point[1, f], drawn[:, 0, f] - drawn[:, 1, f]
                lead = from_resamples(float(turn * gap), turn * gaps, int(n[f]), METHOD)
                found.append((fill, Finding(f"{a.name} against {b.name}: {word}", lead)))
    return found


def _by_signs(fill: str, findings: Sequence[Finding], complete: int) -> UnderFill:
    """holds: all ``complete`` leads are there and above 0; fails: one of them is below 0."""
    if not findings:
        return UnderFill(fill, "undecided", "There are no numbers to compare.")
    above = [f for f in findings if f.estimate.low is not None and f.estimate.low > 0]
    below = [f for f in findings if f.estimate.high is not None and f.estimate.high < 0]
    verdict = "fails" if below else "holds" if len(above) == complete else "undecided"
    shown = min(findings, key=lambda f: f.estimate.value)
    words = f"{len(above)} of {complete} comparisons for it, {len(below)} against"
    return UnderFill(
        fill, verdict, f"{words}; the least favourable: {shown.what} by {_number(shown.estimate)}.", tuple(findings)
    )


def _fills(results: Results, metric: str) -> tuple[str, ...]:
    """Fills under which there is any number: one that was refused to all says nothing about a prediction."""
    return results.fills_of(metric) if metric in results.metrics else ()


def _observe(results: Results, metric: str, contenders: Sequence[Contender]) -> Grouped | None:
    """Sums of these contenders, in this order, on the images that they share; None where they have no number."""
    fills = _fills(results, metric)
    if not fills or not contenders:
        return None
    try:
        return on_common_images(results.observations(metric, contenders=[c.name for c in contenders], fills=fills))
    except InvalidParameter:  # every row is refused or sick
        return None


def _means(observed: Grouped, way: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # Any: Better
    """Means (C, F) and their joint resamples (B, C, F)."""
    observations = observed.observations(way)
    return observations.means(), resample(observations, rng, RESAMPLES, scheme_for(observed))


def _scores(manifest: Manifest, families: Sequence[str]) -> dict[str, float]:
    """Family -> mean macro-F1 over its checkpoints, on the first data set that most of these families share."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in manifest.get("checkpoints", ()):
        for evaluation in entry.get("scores", ()) if entry.get("family") in families else ():
            if score := evaluation.get("scores", {}).get(SCORE):
                data = found.setdefault(evaluation.get("data_sha256", ""), {})
                data.setdefault(entry["family"], []).append(float(score["value"]))
    best = max(found.values(), key=len, default={})
    return {family: float(np.mean(values)) for family, values in best.items()}


def _over_fills(number: int, title: str, counts: str, judged: Sequence[UnderFill]) -> Prediction:
    under: Callable[[str], list[str]] = lambda word: [one.fill for one in judged if one.verdict == word]
    told = [f"{word} under {', '.join(under(word))}" for word in VERDICTS if under(word)]
    verdict = "fails" if under("fails") else "holds" if judged and len(under("holds")) == len(judged) else "undecided"
    first = next((one for one in judged if one.verdict == verdict), None)
    shown = f" ({first.fill}: {first.sentence.rstrip('.')})" if first else ""
    return Prediction(number, title, counts, verdict, f"{_upper('; '.join(told))}{shown}.", tuple(judged))


def _unanswered(number: int, title: str, counts: str, results: Results, why: str) -> Prediction:
    judged = tuple(UnderFill(fill, "undecided", f"{_upper(why)}.") for fill in results.fills)
    return Prediction(number, title, counts, "undecided", f"Undecided: {why}.", judged)


def _families(results: Results) -> list[str]:
    return sorted({contender.family for contender in results.contenders})


def _name(contender: Contender) -> str:
    return Choice.parse(contender.explainer).name


def _number(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g} (no interval)"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
