"""Ranks of explainers along a training run, against pandas, scipy and the rows themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.i2x.ranking import RankPath, along, contenders_at, study_of
from audit_core.i2x.runs import open_run
from audit_core.i2x.shelf import analyses
from audit_core.study import shelf
from audit_core.study.definition import ImageSet, Study
from audit_core.study.results import Results

SHIPPED = next(iter(analyses().values()))
RUN = Path(__file__).resolve().parents[1] / "models" / "runs" / "digits-resnet"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    found = pd.read_parquet(SHIPPED / "ranking" / "measures.parquet")
    found = found[(found.metric == "srg") & (found.state == "number")]
    return found.groupby(["family", "explainer", "fill"], observed=True).value.mean()


@pytest.fixture(scope="module")
def path() -> RankPath:
    return along(Results.open(SHIPPED / "ranking"), resamples=200)


def test_means_ranks_and_tau_are_those_of_the_rows(path: RankPath, rows: pd.Series) -> None:
    for f, fill in enumerate(path.fills):
        means = np.array([[rows[f"step {step}", e, fill] for e in path.explainers] for step in path.steps])
        assert np.allclose(path.means[:, :, f], means, rtol=1e-12)
        for t in range(len(path.steps)):
            assert np.array_equal(path.ranks[fill].rank[:, t], stats.rankdata(-means[t]))
            assert path.tau[fill][t].value == pytest.approx(stats.kendalltau(means[t], means[-1]).statistic)
        last = path.tau[fill][-1]
        assert (last.value, last.low, last.high) == (1, 1, 1)
        assert (path.ranks[fill].low <= path.ranks[fill].rank).all()
        assert (path.ranks[fill].high >= path.ranks[fill].rank).all()


def test_a_step_that_was_not_ranked_stands_at_the_one_before(path: RankPath) -> None:
    steps = path.steps
    assert [path.moment_of(step) for step in steps] == list(range(len(steps)))
    assert [path.moment_of(step) for step in (-1, steps[3] + 1, 10**9)] == [0, 3, len(steps) - 1]


def test_the_shipped_study_is_of_the_shipped_run(path: RankPath) -> None:
    run = open_run(RUN)
    assert path.steps == run.steps
    assert "random" not in path.explainers
    results = Results.open(SHIPPED / "ranking")
    assert {name.partition(" · ")[0] for name in contenders_at(results, run.steps[3])} == {f"step {run.steps[3]}"}


def test_another_study_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="not one of a training run"):
        along(Results.open(shelf.shipped()))


def test_the_study_survives_its_toml() -> None:
    run = open_run(RUN)
    made = study_of(run, ImageSet("digits", "test", 2), ("grad-cam", "random"), ("zero",), folder=Path("runs/x"))
    assert Study.parse(made.dumps()) == made
    assert made.checkpoints[0].path == "runs/x/step000000.safetensors"
