"""Tables of results of any size with planted means, for tests and timings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audit_core.study.tables import CURVES, MEASURES

Planted = Callable[[str, str, str], float]
LABELS = ("Center", "Donut", "none")


def write_results(
    folder: Path,
    contenders: Mapping[str, str],
    fills: Sequence[str],
    units: int,
    runs: int | Mapping[str, int],
    metrics: Sequence[str],
    rng: np.random.Generator,
    *,
    means: Planted,
    spread: float = 0.1,
    image_spread: float = 0.1,
    run_spread: float = 0.0,
    seeds: Sequence[int] = (0,),
    wrong: float = 0.2,
    curves: int = 0,
) -> int:
    """Write measures.parquet (and curves.parquet with ``curves`` points each); returns the number of rows.

    contenders: "FAMILY · EXPLAINER" -> role; runs: training runs of all families or of each. A value is the planted
    mean(contender, fill, metric) + an effect of the image, equal for all contenders, + an effect of the training run +
    noise; spreads are their standard deviations. wrong: share of images that a checkpoint gets wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_image = image_spread * rng.normal(size=units)
    of_image -= of_image.mean()
    label = rng.integers(len(LABELS), size=units)
    families = sorted({name.split(" · ")[0] for name in contenders})
    rows = 0
    with pq.ParquetWriter(folder / "measures.parquet", MEASURES, compression="zstd") as writer:
        for family in families:
            own = [name for name in contenders if name.startswith(f"{family} · ")]
            for run in range(runs if isinstance(runs, int) else runs[family]):
                predicted = np.where(rng.random(units) < wrong, (label + 1) % len(LABELS), label)
                shift = run_spread * rng.normal()
                for name in own:
                    at = np.array([[means(name, fill, metric) for metric in metrics] for fill in fills])
                    shape = (len(seeds), len(fills), units, len(metrics))
                    value = at[None, :, None] + of_image[None, None, :, None] + shift + spread * rng.normal(size=shape)
                    table = _cell(name, contenders[name], run, fills, metrics, seeds, value, label, predicted)
                    writer.write_table(table, row_group_size=120_000)
                    rows += table.num_rows
    if curves:
        _write_curves(folder / "curves.parquet", contenders, fills, units, runs, seeds, curves, rng)
    return rows


def checkpoint_of(family: str, run: int) -> str:
    """Name of the checkpoint of a training run."""
    return f"{family.lower()}-{run}"


def _words(codes: np.ndarray, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(names)))


def _cell(
    name: str,
    role: str,
    run: int,
    fills: Sequence[str],
    metrics: Sequence[str],
    seeds: Sequence[int],
    value: np.ndarray,
    label: np.ndarray,
    predicted: np.ndarray,
) -> pa.Table:
    family, explainer = name.split(" · ")
    seed, fill, unit, metric = (axis.ravel() for axis in np.indices(value.shape))
    same = np.zeros(value.size)
    images = pa.array([f"planted:test:{n}" for n in range(len(label))])
    columns = {
        "contender": _words(same, [name]),
        "checkpoint": _words(same, [checkpoint_of(family, run)]),
        "family": _words(same, [family]),
        "training_seed": pa.array(np.full(value.size, 42 + run, dtype=np.int32)),
        "explainer": _words(same, [explainer]),
        "role": _words(same, [role]),
        "fill": _words(fill, fills),
        "seed": pa.array(np.asarray(seeds, dtype=np.int32)[seed]),
        "unit": pa.array(unit.astype(np.int32)),
        "image": images.take(pa.array(unit)),
        "label": _words(label[unit], LABELS),
        "predicted": _words(predicted[unit], LABELS),
        "correct": pa.array((label == predicted)[unit]),
        "metric": _words(metric, metrics),
        "value": pa.array(value.ravel()),
        "state": _words(same, ["number"]),
        "reason": pa.nulls(value.size, pa.dictionary(pa.int32(), pa.string())),
    }
    return pa.table(columns).cast(MEASURES)


def _write_curves(
    path: Path,
    contenders: Mapping[str, str],
    fills: Sequence[str],
    units: int,
    runs: int | Mapping[str, int],
    seeds: Sequence[int],
    points: int,
    rng: np.random.Generator,
) -> None:
    fraction = np.linspace(0, 1, points, dtype=np.float32)
    kinds = ("deletion", "insertion")
    with pq.ParquetWriter(path, CURVES, compression="zstd") as writer:
        for name in contenders:
            family, explainer = name.split(" · ")
            for run in range(runs if isinstance(runs, int) else runs[family]):
                shape = (len(seeds), len(fills), units, len(kinds))
                seed, fill, unit, kind = (axis.ravel() for axis in np.indices(shape))
                n, same = seed.size, np.zeros(seed.size)
                score = (np.exp(-3 * fraction) + 0.05 * rng.normal(size=(n, points))).astype(np.float32)
                offsets = pa.array(np.arange(n + 1, dtype=np.int32) * points)
                columns = {
                    "checkpoint": _words(same, [checkpoint_of(family, run)]),
                    "contender": _words(same, [name]),
                    "explainer": _words(same, [explainer]),
                    "fill": _words(fill, fills),
                    "seed": pa.array(np.asarray(seeds, dtype=np.int32)[seed]),
                    "unit": pa.array(unit.astype(np.int32)),
                    "kind": _words(kind, kinds),
                    "fraction": pa.ListArray.from_arrays(offsets, pa.array(np.tile(fraction, n))),
                    "score": pa.ListArray.from_arrays(offsets, pa.array(score.ravel())),
                }
                writer.write_table(pa.table(columns).cast(CURVES), row_group_size=2 * units)
