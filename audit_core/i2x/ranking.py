"""Is the ranking of explainers stable along a training run? Every checkpoint is audited, and compared with the last.

After the Meta-Rank question of Hedström et al. (arXiv 2407.19471), asked of checkpoints: a small study in which each
checkpoint is a family of its own. Its tables also hold the rank reversal of every single checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics import Better, Estimate, RankTable, agreement_of, rank_intervals, resample
from audit_core.study.definition import CurveSettings, Entry, ImageSet, Study
from audit_core.study.direction import better_of
from audit_core.study.filters import Filters
from audit_core.study.results import EVERYTHING, Results
from audit_core.study.tables import contender

if TYPE_CHECKING:
    from audit_core.i2x.runs import TrainingRun

PREFIX = "step "
RANDOM = "random"
#: What the command audits unless told otherwise: two resolutions, gradients, a model-agnostic map, and two controls.
EXPLAINERS = ("grad-cam", "layer-cam", "input-x-gradient", "integrated-gradients", "rise:n_masks=200", "random",
              "input-intensity")  # fmt: skip
FILLS = ("zero", "dataset-mean", "blur:sigma=3", "road")


@dataclass(frozen=True)
class RankPath:
    """Ranks along a run, per fill.

    steps: T; explainers: E; means: float64 (T, E, F), in the metric's unit; ranks: fill -> ranks (E, T), 1 best, with
    95 % intervals over images; tau: fill -> Kendall's tau-b of each checkpoint's order with the last one's, in [-1, 1],
    +1 is the same order; images: how many the means rest on.
    """

    metric: str
    better: Better
    steps: tuple[int, ...]
    explainers: tuple[str, ...]
    fills: tuple[str, ...]
    means: np.ndarray
    ranks: Mapping[str, RankTable]
    tau: Mapping[str, list[Estimate]]
    images: int

    def moment_of(self, step: int) -> int:
        """Place of the last ranked checkpoint at or before ``step``; the first where there is none."""
        return max(0, int(np.searchsorted(self.steps, step, side="right")) - 1)


def family(step: int) -> str:
    """The name under which a study knows a checkpoint."""
    return f"{PREFIX}{step}"


def study_of(
    run: TrainingRun,
    images: ImageSet,
    explainers: Sequence[str],
    fills: Sequence[str],
    steps: int = 20,
    folder: Path | None = None,
) -> Study:
    """Every readable checkpoint x explainers x fills; folder: how the study names the folder of the run."""
    facts = run.facts
    entries = tuple(
        Entry(
            family(saved.step),
            path=str((folder or run.folder) / saved.file),
            arch=facts.architecture,
            num_classes=len(facts.classes),
            in_chans=facts.channels or 0,
            img_size=facts.input_size[0] if facts.input_size else 0,
            mean=facts.mean,
            std=facts.std,
            classes=facts.classes,
            encoding=facts.encoding,
            family=family(saved.step),
            training_seed=-1 if run.seed is None else run.seed,
        )
        for saved in run.saved
    )
    return Study(
        title=f"Explainers along the training of {run.name}",
        checkpoints=entries,
        explainers=tuple(explainers),
        fills=tuple(fills),
        images=images,
        curves=CurveSettings(steps=steps, target="label", kept=False),
    )


def steps_of(results: Results) -> tuple[int, ...]:
    """The checkpoints that a study of a run holds, rising; ``InvalidParameter`` where it is no such study."""
    found = {one.family for one in results.contenders}
    if not found or not all(name.startswith(PREFIX) and name[len(PREFIX) :].isdecimal() for name in found):
        raise InvalidParameter("this study is not one of a training run; make it with python -m audit_core i2x rank")
    return tuple(sorted(int(name[len(PREFIX) :]) for name in found))


def contenders_at(results: Results, step: int) -> tuple[str, ...]:
    """The contenders of one checkpoint: what its rank reversal is drawn from."""
    return tuple(one.name for one in results.contenders if one.family == family(step))


def along(
    results: Results,
    metric: str = "srg",
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 500,
) -> RankPath:
    """Ranks of the explainers at every checkpoint, without random order, and how far they agree with the last ones.

    Images are drawn together for all checkpoints, so what is compared stays paired. rng: default seed 0.
    """
    steps = steps_of(results)
    explainers = tuple(dict.fromkeys(one.explainer for one in results.contenders if one.explainer != RANDOM))
    names = [contender(family(step), explainer) for step in steps for explainer in explainers]
    fills = results.fills_of(metric)
    known = {one.name for one in results.contenders}
    grouped = results.by_unit(metric, filters, [name for name in names if name in known], fills)
    fills = grouped.fills
    way = better_of(metric)
    observed = grouped.observations(way)
    drawn = resample(observed, rng or np.random.default_rng(0), resamples)
    place = [grouped.contenders.index(name) if name in grouped.contenders else -1 for name in names]
    shape = (len(steps), len(explainers), len(fills))
    means = _placed(observed.means(), place).reshape(shape)
    resampled = _placed(drawn, place).reshape(len(drawn), *shape)
    ranks, tau = {}, {}
    for f, fill in enumerate(fills):
        point, many = means[:, :, f].T, resampled[..., f].transpose(0, 2, 1)
        ranks[fill] = rank_intervals(point, many, way)
        tau[fill] = agreement_of(
            point[:, -1], point, many, better=way, reference_better=way, resampled_reference=many[:, :, -1]
        )
    return RankPath(metric, way, steps, explainers, fills, means, ranks, tau, len(grouped.groups))


def _placed(values: np.ndarray, place: Sequence[int]) -> np.ndarray:
    """The contenders (second axis from the end) in the order of ``place``; NaN for a missing one, at -1."""
    found = values[..., np.maximum(place, 0), :]
    return np.where((np.array(place) < 0)[:, None], np.nan, found)
