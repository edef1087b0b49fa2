"""What the results of a study let you say about each (family, explainer), by criteria that were fixed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.statistics import Estimate, bca, random_groups
from audit_core.statistics.bootstrap import GROUPS
from audit_core.study.criteria import Criteria
from audit_core.study.direction import sign
from audit_core.study.joint import bca_of_sums, ratio, times_drawn
from audit_core.study.nouns import Contender, Grouped, StateCount
from audit_core.study.plain import plain
from audit_core.study.results import Results

RESAMPLES = 2000

WORDS = ("supported", "qualified", "not supported", "not computable")
SANITY = "parameter-randomisation"
STABILITY = "-stability"  # ends the name of every metric of that kind


@dataclass(frozen=True)
class Criterion:
    """One thing that was asked for.

    name: what; met: None where it is not known; value, low, high: the number with its 95 % interval, None where there
    is none (a share is counted, not estimated); threshold: what it was held against; fill: under which, "" for a
    criterion that is not about one fill; n: images, maps or fills that the number rests on.
    """

    name: str
    met: bool | None
    value: float | None
    low: float | None
    high: float | None
    threshold: float
    sentence: str
    fill: str = ""
    n: int = 0


@dataclass(frozen=True)
class ClassResult:
    """One class by itself. holds: None where it has too few images; fills: under which every control is beaten."""

    name: str
    n: int
    holds: bool | None
    fills: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What may be said about a contender, under these criteria and fills, and not about the explainer as such.

    word: one of ``WORDS``; checkpoint: "" for all training runs of the family together, else the one that is judged;
    fills: under which every control is beaten; refused: fills that have no meaning here and do not count; n: images;
    runs: the same for each training run, where there are several.
    """

    contender: str
    family: str
    explainer: str
    role: str
    word: str
    sentence: str
    criteria: tuple[Criterion, ...]
    fills: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    classes: tuple[ClassResult, ...] = ()
    n: int = 0
    checkpoint: str = ""
    runs: tuple[Judgement, ...] = ()

    @property
    def met(self) -> tuple[Criterion, ...]:
        """Criteria that are met."""
        return tuple(criterion for criterion in self.criteria if criterion.met)

    @property
    def missed(self) -> tuple[Criterion, ...]:
        """Criteria that are not met."""
        return tuple(criterion for criterion in self.criteria if criterion.met is False)

    @property
    def unknown(self) -> tuple[Criterion, ...]:
        """Criteria of which nobody knows yet whether they are met."""
        return tuple(criterion for criterion in self.criteria if criterion.met is None)

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """Plain data."""
        found: dict[str, Any] = plain(self)
        return found


def judge(results: Results, criteria: Criteria, rng: np.random.Generator) -> tuple[Judgement, ...]:
    """One judgement per contender that is no control (controls are the yardstick), in the results' order.

    The advantage over a control is the difference of the metric on the same image and checkpoint, above 0 = better
    than the control, with a 95 % BCa interval over images (shared resamples; the training runs are fixed, so it speaks
    about other images for these very networks). A control is beaten when the interval lies above 0, random order when
    it lies above ``beats_random_by``. A fill *holds* when the control criteria that can be tested are all met under it.

    - not computable: refused under every fill; fewer than ``healthy_share`` of the maps fit to be ranked; no control
      to compare with; or fewer than ``min_images`` images with both numbers under every fill.
    - supported: under at least ``share_of_fills`` of the fills every control asked for was there and beaten, and
      sanity and stability were measured and are met.
    - qualified: every control that was there is beaten under some fill, or, with ``per_class``, on some class under
      ``share_of_fills`` of the fills, but one of the above is missing. So what was not measured, or failed in sanity
      or stability, leaves at best "qualified"; ``sanity_below = 1`` and ``stability_above = -1`` do not ask for them.
    - not supported: neither.

    A fill refused as a whole is left out of the share, a fill with too few images counts as one that does not hold.
    Classes are judged one by one with at least ``min_images`` images each, not corrected for their number. Health and
    refusals are counted over all training runs, also where one of them is judged by itself.
    """
    judged = results.named(roles=("own", "agnostic"))
    families = [_Family(results, criteria, name, rng) for name in dict.fromkeys(c.family for c in judged)]
    return tuple(_with_runs(family, contender) for family in families for contender in family.judged)


Advantages = Mapping[tuple[str, str, str], Estimate]  # by names of contender, control and fill


class _Family:
    """Advantages of a family's contenders over its controls, over all images, per class and per training run."""

    def __init__(self, results: Results, criteria: Criteria, family: str, rng: np.random.Generator) -> None:
        self.results, self.criteria, self.rng = results, criteria, rng
        own = [contender for contender in results.contenders if contender.family == family]
        self.judged = tuple(contender for contender in own if contender.role != "control")
        named = {Choice.parse(c.explainer).name: c.name for c in reversed(own) if c.role == "control"}
        self.controls = {control: named[control] for control in criteria.beats if control in named}
        self.counts = results.counts(criteria.metric) if criteria.metric in results.metrics else ()
        self.pooled: Advantages = {}
        self.by_class: dict[str, Advantages] = {c: {} for c in results.classes if criteria.per_class}
        self.by_run: dict[str, Advantages] = {}
        names = [*(contender.name for contender in self.judged), *self.controls.values()]
        if (grouped := _by_image(results, criteria.metric, names)) and self.controls:
            self._compare(grouped)

    def _compare(self, grouped: Grouped) -> None:
        cells = list(product([c.name for c in self.judged], self.controls.values(), grouped.fills))
        lead = sign(self.criteria.metric) * _differences(grouped, cells)
        together, label = _mean_over_runs(lead), _labels(self.results)[grouped.groups]
        self.pooled = self._estimates(cells, together)
        for name in self.by_class:
            self.by_class[name] = self._estimates(cells, together[:, label == name])
        several = {c: c.checkpoints for c in self.judged if len(c.checkpoints) > 1}
        place = {n: r for c in several for n, r in zip(c.checkpoints, self.results.places_of_runs(c), strict=True)}
        self.by_run = {name: self._estimates(cells, lead[:, run]) for name, run in sorted(place.items())}

    def _estimates(self, cells: Sequence[tuple[str, str, str]], lead: np.ndarray) -> Advantages:
        """Mean of each row of ``lead``, float (K, U), NaN = no pair, with its interval; n = images."""
        units, held = lead.shape[1], ~np.isnan(lead)
        if not held.any():
            return {}
        columns = np.stack([np.where(held, lead, 0.0), held.astype(np.float64)])
        if units > GROUPS:
            order = np.argsort(random_groups(units, self.rng), kind="stable")
            starts = np.linspace(0, units, GROUPS, endpoint=False).astype(int)
            columns = np.add.reduceat(columns[..., order], starts, axis=-1)
        drawn = times_drawn(columns.shape[-1], RESAMPLES, self.rng)
        return dict(zip(cells, bca_of_sums(columns, ratio, held.sum(axis=1), drawn)[0], strict=True))

    def judgement(self, contender: Contender, checkpoint: str = "") -> Judgement:
        """The verdict on one contender; checkpoint: "" for all its training runs."""
        own = [count for count in self.counts if count.contender == contender.name]
        fills = tuple(fill for fill in self.results.fills if any(count.fill == fill for count in own))
        refused = tuple(fill for fill in fills if all(c.state == "refused" for c in own if c.fill == fill))
        asked = tuple(fill for fill in fills if fill not in refused)
        health = _health([count for count in own if count.fill in asked], self.criteria)
        beats = self._beats(contender, asked, self.by_run[checkpoint] if checkpoint else self.pooled)
        n = max((criterion.n for criterion in beats), default=0)
        base = Judgement(contender.name, contender.family, contender.explainer, contender.role, "not computable", "",
                         (health, *beats), refused=refused, n=n, checkpoint=checkpoint)  # fmt: skip
        if why := _nothing_to_judge(own, asked, health, beats, self.criteria, bool(self.controls)):
            return replace(base, sentence=f"Not computable: {why}.")
        found = self._word(base, contender, asked, beats, health)
        more = f"; refused under {_listed(refused)}." if refused else "."
        return replace(found, sentence=f"{found.sentence[:-1]}{more}")

    def _word(
        self,
        base: Judgement,
        contender: Contender,
        asked: tuple[str, ...],
        beats: tuple[Criterion, ...],
        health: Criterion,
    ) -> Judgement:
        holding, sure = _holding(beats, asked), _holding(beats, asked, sure=True)
        share = _share(len(holding), len(asked), self.criteria)
        checks = tuple(self._checks(contender, base.checkpoint))
        classes = tuple(self._class(contender, name, asked) for name in self.by_class if not base.checkpoint)
        everything = (share, *beats, *checks, health)
        found = replace(base, criteria=everything, fills=holding, classes=classes)
        good = [result.name for result in classes if result.holds]
        if _enough(len(sure), len(asked), self.criteria) and all(check.met for check in checks):
            return replace(found, word="supported", sentence=_supported(holding, asked, checks))
        if holding or good:
            reasons = _reservations(holding, asked, good, share, beats, checks)
            return replace(found, word="qualified", sentence=f"Qualified: {'; '.join(reasons)}.")
        return replace(found, word="not supported", sentence=_unsupported(beats, asked))

    def _beats(self, contender: Contender, fills: Iterable[str], found: Advantages) -> tuple[Criterion, ...]:
        """One criterion per fill and control."""
        return tuple(
            _beaten(control, fill, found.get((contender.name, name, fill)), bool(name), self.criteria)
            for fill in fills
            for control in self.criteria.beats
            for name in [self.controls.get(control, "")]
        )

    def _class(self, contender: Contender, name: str, asked: tuple[str, ...]) -> ClassResult:
        beats = self._beats(contender, asked, self.by_class[name])
        n, fills = max((criterion.n for criterion in beats), default=0), _holding(beats, asked)
        known = any(criterion.met is not None for criterion in beats)
        return ClassResult(name, n, _enough(len(fills), len(asked), self.criteria) if known else None, fills)

    def _checks(self, contender: Contender, checkpoint: str) -> Iterable[Criterion]:
        """Sanity and stability, as far as the criteria ask for them."""
        below, above = self.criteria.sanity_below, self.criteria.stability_above
        if below < 1:
            measured = self._measured(contender, SANITY, checkpoint)
            yield from (_check("sanity", name, found, below, False) for name, found in measured)
        if above > -1:
            measured = self._measured(contender, STABILITY, checkpoint)
            yield from (_check("stability", name, found, above, True) for name, found in measured)

    def _measured(self, contender: Contender, ending: str, checkpoint: str) -> list[tuple[str, Estimate | None]]:
        """Mean over its images of each slow metric that ends so; one entry without a number if there is none."""
        found: list[tuple[str, Estimate | None]] = []
        for metric in self.results.metrics:
            grouped = _by_image(self.results, metric, [contender.name]) if _name(metric).endswith(ending) else None
            if grouped is None:
                continue
            values = _ratio(grouped)[0]  # (F, R, U)
            if checkpoint:
                run = self.results.places_of_runs(contender)[contender.checkpoints.index(checkpoint)]
                values = values[:, run : run + 1]
            estimate = bca(_mean_over_runs(_mean_over_runs(values)[None])[0], "mean", self.rng, RESAMPLES)
            found += [(metric, estimate)] if estimate.n else []
        return found or [(ending.strip("-"), None)]


def _by_image(results: Results, metric: str, contenders: Sequence[str]) -> Grouped | None:
    """Sums per image and training run; None where there is no number at all."""
    try:
        return results.by_unit_and_run(metric, contenders=contenders) if metric in results.metrics else None
    except InvalidParameter:  # no number is left: every row is refused or sick
        return None


def _ratio(grouped: Grouped) -> np.ndarray:
    """Mean over seeds, float64 (C, F, R, U); NaN = no number."""
    return np.divide(grouped.total, grouped.count, out=np.full(grouped.total.shape, np.nan), where=grouped.count > 0)


def _differences(grouped: Grouped, cells: Sequence[tuple[str, str, str]]) -> np.ndarray:
    """Contender minus control on the same image and training run, float64 (K, R, U); NaN = no pair."""
    values = _ratio(grouped)
    at = [(grouped.contenders.index(a), grouped.contenders.index(b), grouped.fills.index(f)) for a, b, f in cells]
    a, b, fill = np.array(at).T
    found: np.ndarray = values[a, fill] - values[b, fill]
    return found


def _mean_over_runs(values: np.ndarray) -> np.ndarray:
    """Mean of the numbers on the second axis, (K, R, U) to (K, U); NaN where there is none."""
    held = ~np.isnan(values)
    n = held.sum(axis=1)
    return np.divide(np.where(held, values, 0.0).sum(axis=1), n, out=np.full(n.shape, np.nan), where=n > 0)


def _labels(results: Results) -> np.ndarray:
    """Class of every unit, object (largest unit + 1,), "" = unknown."""
    found = results.query("SELECT unit, coalesce(label, '') AS label FROM images")
    labels = np.full(1 + int(found["unit"].max()), "", dtype=object)
    labels[found["unit"]] = found["label"]
    return labels


def _health(counts: Sequence[StateCount], criteria: Criteria) -> Criterion:
    maps, fit = sum(c.count for c in counts), sum(c.count for c in counts if c.state == "number")
    share = fit / maps if maps else None
    met = None if share is None else share >= criteria.healthy_share
    words = f"{fit:,} of {maps:,} maps are fit to be ranked" if maps else "No map was made"
    asked = f"; the criteria ask for {criteria.healthy_share:.0%}." if maps else "."
    return Criterion("healthy maps", met, share, None, None, criteria.healthy_share, words + asked, n=maps)


def _beaten(control: str, fill: str, found: Estimate | None, there: bool, criteria: Criteria) -> Criterion:
    margin = criteria.beats_random_by if control == "random" else 0.0
    name, n = f"beats {control}", found.n if found else 0
    if not there:
        why = f"The study has no control {control} for this family."
        return Criterion(name, None, None, None, None, margin, why, fill, 0)
    if found is None or n < criteria.min_images or found.low is None or found.high is None:
        why = f"Under {fill} {n} images can be compared with {control}; the criteria ask for {criteria.min_images}."
        return Criterion(name, None, None, None, None, margin, why, fill, n)
    met = found.low > margin
    by = f"by {_interval(found)} in {criteria.metric}"
    more = f", more than {margin:g}" if margin else ""
    words = f"Under {fill} it beats {control} {by}{more}."
    if not met:
        wanted = f" by more than {margin:g}" if margin else ""
        words = f"Under {fill} it does not beat {control}{wanted}: its advantage is {_interval(found)}."
    return Criterion(name, met, found.value, found.low, found.high, margin, words, fill, n)


def _check(name: str, metric: str, found: Estimate | None, threshold: float, above: bool) -> Criterion:
    """A mean that must lie above (or below) its threshold with its whole interval; open where that straddles."""
    title = f"{name}: {metric}"
    if found is None:
        return Criterion(title, None, None, None, None, threshold, f"{_upper(name)} was not measured.")
    if found.low is None or found.high is None:
        why = f"{_upper(name)} ({metric}) was measured on {found.n} image, which gives no interval."
        return Criterion(title, None, found.value, None, None, threshold, why, n=found.n)
    good, bad = (found.low > threshold, found.high <= threshold) if above else (
        found.high < threshold, found.low >= threshold)  # fmt: skip
    met = True if good else False if bad else None
    verb = {True: "is met", False: "is not met", None: "stays open"}[met]
    side = "above" if above else "below"
    words = f"{_upper(name)} {verb}: {metric} is {_interval(found)} and must lie {side} {threshold:g}."
    return Criterion(title, met, found.value, found.low, found.high, threshold, words, n=found.n)


def _share(holding: int, asked: int, criteria: Criteria) -> Criterion:
    words = f"Every control is beaten under {holding} of {asked} fills; the criteria ask for"
    met = _enough(holding, asked, criteria)
    share, wanted = holding / asked, criteria.share_of_fills
    return Criterion("share of fills", met, share, None, None, wanted, f"{words} {wanted:.0%}.", n=asked)


def _enough(holding: int, asked: int, criteria: Criteria) -> bool:
    return asked > 0 and holding / asked >= criteria.share_of_fills - 1e-12  # 0.8 of 5 fills are 4 of them


def _holding(beats: Sequence[Criterion], fills: Iterable[str], sure: bool = False) -> tuple[str, ...]:
    """Fills under which no control is unbeaten and some (``sure``: every one) is beaten."""
    met = {fill: [criterion.met for criterion in beats if criterion.fill == fill] for fill in fills}
    return tuple(f for f, known in met.items() if (all(known) if sure else False not in known and True in known))


def _nothing_to_judge(
    own: Sequence[StateCount],
    asked: tuple[str, ...],
    health: Criterion,
    beats: Sequence[Criterion],
    criteria: Criteria,
    compared: bool,
) -> str:
    """Why there is no verdict, "" where there is one."""
    if not own:
        return f"the study has no {criteria.metric} of this contender"
    if not asked:
        return f"refused: {own[0].reason.rstrip('.')}"
    if not health.met:
        sick = next((c.reason for c in own if c.state != "number" and c.fill in asked and c.reason), "")
        return _lower(health.sentence).rstrip(".") + (f" ({sick.rstrip('.')})" if sick else "")
    if not compared:
        return f"the study has none of its controls ({', '.join(criteria.beats)}), so there is no level to beat"
    if all(criterion.met is None for criterion in beats):
        most = max(criterion.n for criterion in beats)
        return f"{most} images can be compared with the controls, and the criteria ask for {criteria.min_images}"
    return ""


def _supported(holding: tuple[str, ...], asked: tuple[str, ...], checks: Sequence[Criterion]) -> str:
    passed = " and passes every check" if checks else ""
    return f"Supported: it beats every control under {_of(holding, asked)}{passed}."


def _of(holding: tuple[str, ...], asked: tuple[str, ...]) -> str:
    if len(asked) == 1:
        return f"the one fill of the study ({asked[0]})"
    return f"all {len(asked)} fills" if holding == asked else f"{len(holding)} of {len(asked)} fills"


def _reservations(
    holding: tuple[str, ...],
    asked: tuple[str, ...],
    classes: Sequence[str],
    share: Criterion,
    beats: Sequence[Criterion],
    checks: Sequence[Criterion],
) -> list[str]:
    """Where it holds, then what else stands in the way of "supported"."""
    found = []
    if not holding:
        found.append(f"only on {_listed(classes)}, and not over all images together")
    elif not share.met:
        found.append(f"only under {where(holding, asked)}")
        if classes:
            found.append(f"on {_listed(classes)} it holds under enough fills")
    else:
        found.append(f"it beats the controls under {_of(holding, asked)}")
    lacking = dict.fromkeys(c.name.removeprefix("beats ") for c in beats if c.met is None and c.fill in holding)
    if lacking:
        found.append(f"not compared with {_listed(tuple(lacking))}")
    return found + [_lower(check.sentence).rstrip(".") for check in checks if not check.met]


def _unsupported(beats: Sequence[Criterion], asked: tuple[str, ...]) -> str:
    known = {name: [c.met for c in beats if c.name == name] for name in dict.fromkeys(c.name for c in beats)}
    never = [name.removeprefix("beats ") for name, met in known.items() if True not in met and False in met]
    told = f"; it never beats {_listed(never)}" if never else ""
    if len(asked) == 1:
        return f"Not supported: under the one fill of the study ({asked[0]}) it does not beat every control{told}."
    return f"Not supported: under none of the {len(asked)} fills does it beat every control{told}."


def where(holding: Sequence[str], asked: Sequence[str]) -> str:
    """Fills in words: by family where the fills hold whose family it is and no others, "blur-like fills (blur)"."""
    from audit_core.fills import FILLS  # imports torch, which reading a table does not need

    words = {"constant": "constant fills", "blur": "blur-like fills", "noise": "noise fills",
             "data": "fills from the data", "imputation": "imputing fills"}  # fmt: skip
    names = {fill: Choice.parse(fill).name for fill in asked}
    families = {fill: FILLS[name].family if name in FILLS else "" for fill, name in names.items()}
    named = [f for f in dict.fromkeys(families[fill] for fill in holding) if f]
    whole = all(families[fill] for fill in holding) and all(
        fill in holding for fill, family in families.items() if family in named
    )
    return f"{_listed([words.get(f, f) for f in named])} ({', '.join(holding)})" if whole else _listed(holding)


def _with_runs(family: _Family, contender: Contender) -> Judgement:
    found = family.judgement(contender)
    if found.word == "not computable" or len(contender.checkpoints) < 2:
        return found
    runs = tuple(family.judgement(contender, name) for name in contender.checkpoints)
    same = sum(run.word == found.word for run in runs)
    told = f"{found.sentence[:-1]}; {same} of {len(runs)} training runs by themselves get the same word."
    return replace(found, runs=runs, sentence=told)


def _name(metric: str) -> str:
    return Choice.parse(metric).name


def _interval(found: Estimate) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
