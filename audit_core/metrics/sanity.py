"""Does the map depend on what it claims to show: the model's weights, and the class that was asked for?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import nn

from audit_core.classifier import Classifier
from audit_core.explainers.base import Cost
from audit_core.metrics.base import FLAT, METRICS, Budget, Evidence, Measure, Metric, Report, over_budget, silent
from audit_core.metrics.similarity import rank_correlation, small, structure
from audit_core.params import Between, OneOf

SAME = 0.5  # rank correlation from which on a sentence calls two maps alike
STAGES = 6


@contextmanager
def twin(classifier: Classifier) -> Iterator[Classifier]:
    """A classifier with a copy of the module, for changing its weights; its forwards count for the original."""
    other = copy.copy(classifier)
    other.module = copy.deepcopy(classifier.module)
    before = other.forwards
    try:
        yield other
    finally:
        classifier.forwards += other.forwards - before


def stages_of(module: nn.Module, count: int) -> list[tuple[str, list[str]]]:
    """(words, parameter names) of the steps of a cascade, from the output down; at most ``count``.

    The last layer stands alone, as in the paper; the other layers are shared out evenly over the remaining steps.
    Layers are the modules that own parameters, in the order in which they were registered.
    """
    layers = []
    for name, part in module.named_modules():
        own = [f"{name}.{key}" if name else key for key, _ in part.named_parameters(recurse=False)]
        if own:
            layers.append((name or ", ".join(own), own))
    layers.reverse()
    groups = [layers] if count == 1 else [layers[:1], *_shared_out(layers[1:], count - 1)]
    return [(_words(group), [key for _, own in group for key in own]) for group in groups if group]


def _shared_out(layers: list[tuple[str, list[str]]], count: int) -> list[list[tuple[str, list[str]]]]:
    borders = np.linspace(0, len(layers), min(count, len(layers)) + 1).round().astype(int)
    return [layers[a:b] for a, b in pairwise(borders)]


def _words(group: list[tuple[str, list[str]]]) -> str:
    first, last = group[-1][0], group[0][0]
    return first if first == last else f"{first} to {last}"


@METRICS.register("parameter-randomisation")
@dataclass(frozen=True)
class ParameterRandomisation(Metric):
    """Parameter randomisation: how alike the map stays when the model's weights are made random.

    ``cascading`` randomises from the output down, one group of layers after the other, until nothing learned is left;
    the value is the similarity at its end. ``independent`` randomises one group at a time and takes the mean. Each
    weight tensor keeps its own distribution: its values are permuted, or drawn from a normal of the same mean and
    standard deviation. Running statistics stay. All of it happens on a copy of the model.
    """

    mode: Annotated[str, OneOf(("cascading", "independent"), "All layers from the top, or one group at a time.")] = (
        "cascading"
    )
    draw: Annotated[str, OneOf(("permutation", "normal"), "Where the new weights come from.")] = "permutation"
    similarity: Annotated[str, OneOf(("spearman", "ssim"), "Which similarity is the value.")] = "spearman"
    stages: Annotated[int, Between(1, STAGES, "stages", "Groups of layers, at most.")] = STAGES
    draws: Annotated[int, Between(1, 50, "draws", "Repetitions with other random weights.")] = 3
    budget: Budget = 10_000

    title: ClassVar[str] = "Parameter randomisation"
    family: ClassVar[str] = "sanity"
    better: ClassVar[str] = "lower"
    span: ClassVar[str] = "-1 to 1; 1 = the map ignores the weights, about 0 = it depends on them"
    formula: ClassVar[str] = "mean over draws of rho(m(f), m(f with random weights)), rho a rank correlation or SSIM"
    source: ClassVar[str] = "Adebayo et al. 2018, https://arxiv.org/abs/1810.03292"
    library: ClassVar[str] = "own; SSIM by scikit-image"
    witness: ClassVar[str] = (
        "weights permuted in a literal loop, scipy's correlation; 1 for maps without the model: "
        "tests/test_sanity.py::test_randomisation_is_that_of_a_literal_loop, "
        "tests/test_sanity.py::test_a_map_made_without_the_model_stays_the_same"
    )
    pitfalls: ClassVar[str] = (
        "Coarse, smooth maps agree by chance, and a random network still passes edges on, so a middling value proves "
        "little. Layers are taken in order of registration, which need not be the order of the forward pass."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map agrees with nothing; one more map must fit the budget."""
        if evidence.flat:
            return FLAT
        if next(evidence.classifier.module.parameters(), None) is None:
            return f"{evidence.classifier.card.name} has no weights to randomise"
        return over_budget(evidence, 1, self.budget)

    def cost(self, evidence: Evidence) -> Cost:
        """One map per stage and draw, as many as the budget allows."""
        draws, stages = self._plan(evidence)
        return evidence.cost_of(draws * len(stages))

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The similarity after all stages; extra holds both series and small maps of the first draw."""
        draws, stages = self._plan(evidence)
        maps = np.stack([self._maps(evidence, stages, n, draws, report) for n in range(draws)])
        series = {
            name: np.array([[alike(evidence.values, one) for one in row] for row in maps])
            for name, alike in (("spearman", rank_correlation), ("ssim", structure))
        }
        chosen = series[self.similarity]
        sample = chosen[:, -1] if self.mode == "cascading" else chosen.mean(1)
        means = {name: rows.mean(0).tolist() for name, rows in series.items()}
        names, flat = [name for name, _ in stages], int((np.ptp(maps, axis=(2, 3)) == 0).sum())
        strip = self._strip(evidence, names, maps[0], series["spearman"][0])
        sentence = self._sentence(float(sample.mean()), draws, len(stages), flat)
        extra = {"mode": self.mode, "stages": names, **means, "flat": flat, "maps": strip}
        return Measure.over(sample, sentence, "t interval over random weights", **extra)

    def _plan(self, evidence: Evidence) -> tuple[int, list[tuple[str, list[str]]]]:
        """(draws, stages) that fit the budget: draws give way first."""
        affordable = max(1, evidence.explanations(self.budget))
        stages = stages_of(evidence.classifier.module, min(self.stages, affordable))
        return max(1, min(self.draws, affordable // len(stages))), stages

    def _maps(
        self, evidence: Evidence, stages: list[tuple[str, list[str]]], draw: int, draws: int, report: Report
    ) -> np.ndarray:
        """The map after each stage, float32 (stages, rows, columns)."""
        maps, learned = [], dict(evidence.classifier.module.named_parameters())
        with twin(evidence.classifier) as other:
            for n, (name, keys) in enumerate(stages):
                report((draw + n / len(stages)) / draws, f"Randomising {name}")
                self._randomise(other.module, keys, (evidence.record.spec.seed, 41, draw))
                maps.append(evidence.explain(evidence.pixels, other)[0])
                if self.mode == "independent":
                    _restore(other.module, keys, learned)
        return np.stack(maps)

    @torch.no_grad()
    def _randomise(self, module: nn.Module, keys: list[str], seed: tuple[int, ...]) -> None:
        """Replace the named parameters; what each becomes depends on the seed and its own name's place alone."""
        for place, (name, parameter) in enumerate(module.named_parameters()):
            if name in keys:
                old, rng = parameter.detach().double().cpu().numpy().ravel(), np.random.default_rng((*seed, place))
                normal = self.draw == "normal"
                new = rng.normal(old.mean(), old.std(), old.size) if normal else rng.permutation(old)
                parameter.copy_(torch.from_numpy(new).view_as(parameter))

    def _strip(
        self, evidence: Evidence, names: list[str], maps: np.ndarray, correlations: np.ndarray
    ) -> list[dict[str, object]]:
        rows = zip(["trained", *names], [evidence.values, *maps], [1.0, *map(float, correlations)], strict=True)
        return [{"name": name, "values": small(one), "correlation": rho} for name, one, rho in rows]

    def _sentence(self, value: float, draws: int, stages: int, flat: int) -> str:
        where = "with all weights random" if self.mode == "cascading" else "with one group of layers random at a time"
        counts = f"{draws} draw{'s' * (draws > 1)}, {stages} stage{'s' * (stages > 1)}"
        name = {"spearman": "rank correlation", "ssim": "SSIM"}[self.similarity]
        verdict = "hardly shows" if value >= SAME else "depends on"
        blank = f" {flat} of the {draws * stages} maps were flat and count as 0." if flat else ""
        return f"Its {name} {where} is {value:.2f} ({counts}): the map {verdict} what the model learned.{blank}"


@torch.no_grad()
def _restore(module: nn.Module, keys: list[str], learned: dict[str, nn.Parameter]) -> None:
    for name, parameter in module.named_parameters():
        if name in keys:
            parameter.copy_(learned[name])


@METRICS.register("label-flip")
@dataclass(frozen=True)
class LabelFlip(Metric):
    """Label flip: rank correlation of the target's map with the map of another class.

    The other class is the most probable one besides the target (and besides the class of a contrast). A map that stays
    the same shows what is in the image, not why the model chose this class.
    """

    title: ClassVar[str] = "Label flip"
    family: ClassVar[str] = "sanity"
    better: ClassVar[str] = "lower"
    span: ClassVar[str] = "-1 to 1; 1 = the map ignores the class, -1 = one speaks against where the other speaks for"
    formula: ClassVar[str] = "rho(m_t, m_k), k the most probable class besides t, rho the rank correlation"
    source: ClassVar[str] = "after the random logit test of Sixt, Granz and Landgraf 2020, https://arxiv.org/abs/1912.09818"
    witness: ClassVar[str] = (
        "scipy's Spearman correlation of two maps explained apart; 1 for maps without a target: "
        "tests/test_sanity.py::test_label_flip_is_the_correlation_with_the_runner_up, "
        "tests/test_sanity.py::test_a_map_made_without_the_model_stays_the_same"
    )
    pitfalls: ClassVar[str] = (
        "Two classes may rest on the same pixels for good reason; compare with how the other explainers do."
    )

    def refuse(self, evidence: Evidence) -> str | None:
        """A flat map agrees with nothing; there must be another class."""
        if evidence.flat:
            return FLAT
        return None if self._other(evidence) is not None else "the model has no other class to explain"

    def cost(self, evidence: Evidence) -> Cost:
        """One map."""
        return evidence.cost_of(1)

    def measure(self, evidence: Evidence, report: Report = silent) -> Measure:
        """The correlation; no interval, as nothing is drawn."""
        other = self._other(evidence)
        if other is None:
            raise ValueError("measure is called only where refuse says None")
        values = evidence.explain(evidence.pixels, target=other)[0]
        extra = {"class": evidence.record.classes[other], "ssim": structure(evidence.values, values)}
        if np.allclose(values, evidence.values, rtol=1e-4, atol=1e-6 * float(np.abs(evidence.values).max())):
            words = f"The map of {extra['class']!r} is the same: the method ignores the class."
            return Measure(1.0, words, extra=extra)
        value = rank_correlation(evidence.values, values)
        word = "much alike" if value >= SAME else "another map"
        words = f"The map of {extra['class']!r} has a rank correlation of {value:.2f} with this one: {word}."
        return Measure(value, words, extra=extra)

    def _other(self, evidence: Evidence) -> int | None:
        """The most probable class besides the target and the contrast."""
        taken = {evidence.record.target, evidence.classifier.contrast}
        ranked = np.argsort(-evidence.record.probabilities, kind="stable")
        return next((int(k) for k in ranked if int(k) not in taken), None)
