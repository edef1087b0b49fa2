"""Does an explainer that reads scores alone bring the families closer together?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_core.errors import InvalidParameter
from audit_core.statistics import Estimate, Scheme, resample, spread_compression
from audit_core.study.direction import better_of
from audit_core.study.filters import Filters
from audit_core.study.plain import View, columns
from audit_core.study.results import EVERYTHING, Results
from audit_core.study.scope import by_scope


@dataclass(frozen=True)
class CompressionView(View):
    """Spread of the agnostic contenders' means over that of the native ones, per fill; below 1 = compressed.

    pairs: (family, native contender, agnostic contender); scheme: what was drawn; ratios: one per fill.
    """

    metric: str
    filters: Filters
    pairs: tuple[tuple[str, str, str], ...]
    fills: tuple[str, ...]
    scheme: Scheme
    ratios: tuple[Estimate, ...]

    def _rows(self) -> list[dict[str, Any]]:  # Any: numbers, words and None
        """One row per fill."""
        return [{"fill": f} | columns("ratio", ratio) for f, ratio in zip(self.fills, self.ratios, strict=True)]


def compression(
    results: Results,
    metric: str,
    filters: Filters = EVERYTHING,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
    *,
    native: Collection[str] = (),
    agnostic: str = "rise",
    scheme: Scheme = "images",
) -> CompressionView:
    """Does an explainer that reads scores alone bring the families closer together than their native ones do?

    native: one contender per family, default the first "own" one of each; agnostic: how the other explainer's name
    begins. Families without both are left out; ``InvalidParameter`` where fewer than two remain.
    """
    rng = rng or np.random.default_rng(0)
    chosen = results.named(native) if native else results.named(roles=("own",))
    first = {c.family: c.name for c in reversed(chosen)}
    others = {c.family: c.name for c in reversed(results.contenders) if c.explainer.startswith(agnostic)}
    pairs = tuple((family, first[family], others[family]) for family in sorted(first) if family in others)
    if len(pairs) < 2:
        asked = f"a native contender and one whose explainer begins with {agnostic!r}"
        raise InvalidParameter(f"a spread needs two families with {asked}, found {len(pairs)}; choose others")
    names = [name for _, *both in pairs for name in both]
    fills, _, _ = by_scope(results, filters, results.fills_of(metric))
    grouped = results.observations(metric, filters, names, fills)
    observations = grouped.observations(better_of(metric))
    drawn = resample(observations, rng, resamples, scheme)
    places = np.arange(len(names)).reshape(-1, 2)
    ratios = spread_compression(observations.means(), drawn, places[:, 0], places[:, 1])
    return CompressionView(metric, filters, pairs, tuple(fills), scheme, tuple(ratios))
