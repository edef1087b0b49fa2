"""Results made elsewhere: per-image tables in CSV or Parquet, put through the same statistics as our own studies."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audit_core.errors import BadData, InvalidParameter
from audit_core.statistics import (
    Better,
    Estimate,
    Observations,
    bca,
    clustered_bootstrap,
    cohen_d,
    fill_agreement,
    hedges_g,
    holm,
    paired,
    paired_clustered,
    resample,
    reversals,
)
from audit_core.statistics.significance import Friedman, friedman

MEANS_ONLY = "under one of the two fills only means are known, so how sure this is cannot be said"
LARGEST = 200  # contenders, and fills: more are a mistake in the column mapping


@dataclass(frozen=True)
class Mapping:
    """Which columns of a file mean what.

    contender, metric: always; unit: the image, "" for a file with one row per contender (means made elsewhere, which
    have no interval); fill: the fill of the whole file, unless ``fill_column`` names a column; seed_column: the
    training run, "" where there is one.
    """

    contender: str
    metric: str
    unit: str = ""
    fill: str = "all"
    fill_column: str = ""
    seed_column: str = ""


def read(path: Path, mapping: Mapping) -> pd.DataFrame:
    """The file as columns contender, unit, fill, seed (words) and value (float64, finite).

    ``BadData`` for an unreadable file, a missing column, a value that is no number, or a row that stands twice.
    """
    raw = _table(path)
    wanted = {
        "contender": mapping.contender,
        "unit": mapping.unit,
        "fill": mapping.fill_column,
        "seed": mapping.seed_column,
        "value": mapping.metric,
    }
    for column in filter(None, wanted.values()):
        if column not in raw.columns:
            raise BadData(f"{path.name} has no column {column!r}; it has {', '.join(map(str, raw.columns))}")
    table = pd.DataFrame({name: raw[column] for name, column in wanted.items() if column})
    if table.empty:
        raise BadData(f"{path.name} has no rows below its header; give a table with numbers")
    for name in table.columns.drop("value"):
        if (empty := table[name].isna()).any():
            row = int(np.flatnonzero(empty)[0]) + 2
            raise BadData(f"{path.name}: {wanted[name]!r} is empty in {int(empty.sum())} rows, first in line {row}")
    table["value"] = pd.to_numeric(table["value"], errors="coerce").astype("float64")
    broken = ~np.isfinite(table["value"])
    if broken.any():
        row = int(np.flatnonzero(broken)[0]) + 2
        raise BadData(f"{path.name}: {mapping.metric!r} is no number in {int(broken.sum())} rows, first in line {row}")
    for name, fixed in (("unit", ""), ("fill", mapping.fill), ("seed", "")):
        table[name] = _words(table[name]) if name in table else fixed
    table["contender"] = _words(table["contender"])
    refuse_twice(table, path.name)
    return table[["contender", "unit", "fill", "seed", "value"]]


def refuse_twice(table: pd.DataFrame, name: str) -> None:
    """``BadData`` where two rows are about the same contender, unit, fill and seed."""
    if twice := int(table.duplicated(["contender", "unit", "fill", "seed"]).sum()):
        raise BadData(
            f"{name}: {twice} rows have the same contender, unit, fill and seed as another; map the column that tells "
            "them apart, or name the fill of each file"
        )


def _words(column: pd.Series) -> pd.Series:
    """Numbers without a fraction read as whole ones: 1.0 and 1 are the same unit."""
    if pd.api.types.is_float_dtype(column) and (column == column.round()).all():
        column = column.astype("int64")
    return column.astype(str)


@dataclass(frozen=True)
class Summary:
    """One contender under one fill: all rows, their mean and sd, the pooled and the clustered interval.

    A mean made elsewhere has n = 0, no sd and no interval.
    """

    contender: str
    fill: str
    n: int
    mean: float
    median: float | None
    sd: float | None
    pooled: Estimate
    clustered: Estimate | None
    clusters: int


@dataclass(frozen=True)
class Comparison:
    """Contender a against b under one fill.

    d, g: Cohen's and Hedges', all rows pooled (the numbers that papers print); n units with both, over which the
    difference (a - b), d_z, p and probability (a beats b) are paired; clustered: the difference, training runs first.
    """

    a: str
    b: str
    fill: str
    n: int
    d: float
    d_z: Estimate
    g: float
    difference: Estimate
    clustered: Estimate | None
    p: float
    p_holm: float
    probability: Estimate


@dataclass(frozen=True)
class Import:
    """What the statistics say about tables made elsewhere; see :func:`analyse`."""

    better: Better
    fills: tuple[str, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    friedman: dict[str, Friedman]
    reversed_pairs: tuple[dict[str, Any], ...]  # Any: names, lists of fills, a probability or None
    tau: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON data
        """Plain data; what is not a number (no value, no interval) is null."""
        return _finite(dataclasses.asdict(self))

    def as_text(self) -> str:
        """Tables for a terminal: contenders, pairs, reversed pairs, agreement of the fills."""
        lines = [f"{self.better} is better"]
        for s in self.summaries:
            lines.append(
                f"{s.contender:24} {s.fill:12} n {s.n:>6}  mean {s.mean:.4f}{_bounds(s.pooled)}"
                + (f"  by run{_bounds(s.clustered)}" if s.clustered else "")
            )
        for c in self.comparisons:
            lines.append(
                f"{c.a} - {c.b} ({c.fill}): {c.difference.value:+.4f}{_bounds(c.difference)}"
                + (f" by run{_bounds(c.clustered)}" if c.clustered else "")
                + f"  d {c.d:+.3f}  d_z {c.d_z.value:+.3f}  g {c.g:+.3f}  p {c.p:.2g}, Holm {c.p_holm:.2g}"
            )
        for pair in self.reversed_pairs:
            sure = "" if pair["probability"] is None else f", in {pair['probability']:.0%} of resamples"
            fills = "; ".join(" / ".join(two) for two in pair["between"])
            lines.append(f"reversed: {pair['a']} and {pair['b']} between {fills}{sure}")
        for two in self.tau:
            lines.append(f"Kendall's tau {two['fill_a']} / {two['fill_b']}: {two['tau']:+.3f} {two['note']}".rstrip())
        return "\n".join(lines)


def analyse(table: pd.DataFrame, better: Better, rng: np.random.Generator, resamples: int = 2000) -> Import:
    """All statistics of a table with columns contender, unit, fill, seed, value (see :func:`read`).

    better: whether "lower" or "higher" values win. Contenders and fills keep the order in which they first appear.
    """
    contenders, fills = list(dict.fromkeys(table["contender"])), list(dict.fromkeys(table["fill"]))
    for what, names in (("contenders", contenders), ("fills", fills)):
        if len(names) > LARGEST:
            raise InvalidParameter(f"{len(names)} {what} were found, at most {LARGEST} are compared; map other columns")
    cells = {name: group for name, group in table.groupby(["contender", "fill"], sort=False)}
    summaries = [
        _summary(contender, fill, cells[contender, fill], rng, resamples)
        for fill in fills
        for contender in contenders
        if (contender, fill) in cells
    ]
    comparisons: list[Comparison] = []
    tests: dict[str, Friedman] = {}
    for fill in fills:
        here = {c: cells[c, fill] for c in contenders if (c, fill) in cells and (cells[c, fill]["unit"] != "").any()}
        comparisons += _compare(fill, here, better, rng, resamples)
        if len(here) > 1:
            units = pd.concat([_per_unit(cell).rename(name) for name, cell in here.items()], axis=1).dropna()
            tests[fill] = friedman(units.to_numpy(), better)
    means = np.array([[_mean(cells.get((c, f))) for f in fills] for c in contenders])
    drawn = _resampled(cells, contenders, fills, better, rng, resamples, means)
    return Import(
        better,
        tuple(fills),
        tuple(summaries),
        tuple(comparisons),
        tests,
        tuple(_reversed(means, drawn, contenders, fills, better)),
        tuple(_agreement(means, drawn, fills)),
    )


def _mean(cell: pd.DataFrame | None) -> float:
    return float("nan") if cell is None else float(cell["value"].mean())


def _per_unit(cell: pd.DataFrame) -> pd.Series:
    """Mean over training runs of every unit."""
    return cell[cell["unit"] != ""].groupby("unit")["value"].mean()


def _summary(contender: str, fill: str, cell: pd.DataFrame, rng: np.random.Generator, resamples: int) -> Summary:
    values = cell["value"].to_numpy(np.float64)
    if (cell["unit"] == "").all():
        nothing = Estimate(float(values.mean()), None, None, 0, "none", "only the mean is known: no interval")
        return Summary(contender, fill, 0, float(values.mean()), None, None, nothing, None, 0)
    runs = cell["seed"].nunique()
    pooled = bca(values, "mean", rng, resamples)
    clustered = clustered_bootstrap(values, cell["seed"].to_numpy(), rng, resamples) if runs > 1 else None
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    median = float(np.median(values))
    return Summary(contender, fill, len(values), float(values.mean()), median, sd, pooled, clustered, runs)


def _compare(
    fill: str, cells: dict[str, pd.DataFrame], better: Better, rng: np.random.Generator, resamples: int
) -> list[Comparison]:
    """Every pair of contenders that have values per unit; p corrected over the pairs of this fill (Holm 1979)."""
    found = []
    for a, b in itertools.combinations(cells, 2):
        both = pd.concat([_per_unit(cells[a]).rename("a"), _per_unit(cells[b]).rename("b")], axis=1).dropna()
        result = paired(both["a"].to_numpy(), both["b"].to_numpy(), rng, resamples, better=better)
        rows = cells[a]["value"].to_numpy(), cells[b]["value"].to_numpy()
        found.append(
            (a, b, (cohen_d(*rows), hedges_g(*rows)), result, _clustered_difference(cells[a], cells[b], rng, resamples))
        )
    adjusted = holm(np.array([result.p for *_, result, _ in found], dtype=float))
    return [
        Comparison(a, b, fill, r.n, d, r.d_z, g, r.mean_difference, clustered, r.p, float(p_holm), r.probability)
        for (a, b, (d, g), r, clustered), p_holm in zip(found, adjusted, strict=True)
    ]


def _clustered_difference(
    a: pd.DataFrame, b: pd.DataFrame, rng: np.random.Generator, resamples: int
) -> Estimate | None:
    """The difference with training runs as clusters; the k-th run of a stands beside the k-th of b, by name."""
    sides = []
    for cell in (a, b):
        number = {name: k for k, name in enumerate(sorted(cell["seed"].unique()))}
        sides.append(cell.assign(run=cell["seed"].map(number)).set_index(["run", "unit"])["value"])
    both = pd.concat(sides, axis=1, keys=["a", "b"]).dropna()
    runs = both.index.get_level_values("run").to_numpy()
    if len(np.unique(runs)) < 2:
        return None
    return paired_clustered((both["a"] - both["b"]).to_numpy(), runs, rng, resamples)


def _resampled(
    cells: dict[Any, pd.DataFrame],  # Any: (contender, fill)
    contenders: Sequence[str],
    fills: Sequence[str],
    better: Better,
    rng: np.random.Generator,
    resamples: int,
    means: np.ndarray,
) -> np.ndarray:
    """Means (resamples, contenders, fills) with the units drawn jointly; a mean made elsewhere stays as it is."""
    units = sorted({unit for cell in cells.values() for unit in cell["unit"] if unit})
    drawn = np.repeat(means[None], resamples, axis=0)
    if not units:
        return drawn
    place = {unit: k for k, unit in enumerate(units)}
    total, count = (np.zeros((len(contenders), len(fills), len(units))) for _ in range(2))
    for (contender, fill), cell in cells.items():
        own = cell[cell["unit"] != ""]
        at = contenders.index(contender), fills.index(fill)
        np.add.at(total[at], own["unit"].map(place).to_numpy(int), own["value"].to_numpy())
        np.add.at(count[at], own["unit"].map(place).to_numpy(int), 1.0)
    made = resample(Observations(total, count, better), rng, resamples)
    return np.where(np.isnan(made), drawn, made)


def _reversed(
    means: np.ndarray,
    drawn: np.ndarray,
    contenders: Sequence[str],
    fills: Sequence[str],
    better: Better,
) -> list[dict[str, Any]]:
    """Pairs whose order is not the same under all fills; no probability where a fill is known by its means alone."""
    if len(fills) < 2:
        return []
    fixed, found = _fixed(drawn), []
    for pair in reversals(means, drawn, better):
        if pair.reverses:
            known = not any(fixed[i] or fixed[k] for i, k in pair.between)
            found.append(
                {
                    "a": contenders[pair.first],
                    "b": contenders[pair.second],
                    "between": [[fills[i], fills[k]] for i, k in pair.between],
                    "probability": pair.probability if known else None,
                    "certain": pair.certain if known else None,
                    "note": "" if known else MEANS_ONLY,
                }
            )
    return found


def _fixed(drawn: np.ndarray) -> np.ndarray:
    """Bool (fills,): the fill has means only, which are the same in every resample."""
    return np.nan_to_num(np.ptp(drawn, axis=0)).max(axis=0) == 0


def _agreement(means: np.ndarray, drawn: np.ndarray, fills: Sequence[str]) -> list[dict[str, Any]]:
    """Kendall's tau of every two fills."""
    if len(fills) < 2:
        return []
    table, fixed = fill_agreement(means, drawn), _fixed(drawn)
    return [
        {
            "fill_a": fills[i],
            "fill_b": fills[k],
            "tau": _plain(table.tau[i, k]),
            "low": None if fixed[i] or fixed[k] else _plain(table.low[i, k]),
            "high": None if fixed[i] or fixed[k] else _plain(table.high[i, k]),
            "n": int(table.n[i, k]),
            "note": MEANS_ONLY if fixed[i] or fixed[k] else "",
        }
        for i, k in itertools.combinations(range(len(fills)), 2)
    ]


def _bounds(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.4f}, {estimate.high:.4f}]"


def _finite(value: Any) -> Any:  # Any: nested plain data
    """JSON has no NaN: null stands for it; arrays become lists."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def has(path: Path, column: str) -> bool:
    """Whether a table has a column; ``BadData`` for an unreadable file."""
    return column in _table(path).columns


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadData(f"{path.name} is no readable CSV or Parquet table ({first}); export it again") from None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
