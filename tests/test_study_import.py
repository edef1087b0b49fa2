"""Tables made elsewhere: the published numbers come out, and what was never computed is added."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audit_core.errors import BadData
from audit_core.study.external import Import, Mapping, analyse, read


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Import:
    """Zero fill per image, blur fill as means: all that was published."""
    tables = shared_data / "paper_tables"
    zero = read(
        tables / "native_zero_fill_per_image.csv",
        Mapping("family", "deletion_auc", "sample_idx", "zero", "", "run_dir"),
    )
    blur = read(tables / "native_blur_fill_summary.csv", Mapping("family", "blur_del_mean", fill="blur"))
    return analyse(pd.concat([zero, blur]), "lower", np.random.default_rng(0))


def test_published_means_come_out(published: Import, shared_data: Path) -> None:
    expected = pd.read_csv(shared_data / "paper_tables" / "native_zero_fill_summary.csv").set_index("family")
    found = {s.contender: s for s in published.summaries if s.fill == "zero"}
    assert set(found) == set(expected.index)
    for family, summary in found.items():
        assert summary.n == expected.loc[family, "n_samples"]
        assert summary.mean == pytest.approx(expected.loc[family, "deletion_auc_mean"], abs=5e-5)
        assert summary.sd == pytest.approx(expected.loc[family, "deletion_auc_std"], abs=5e-4)


def test_published_effect_sizes_come_out(published: Import) -> None:
    d = {frozenset((c.a, c.b)): abs(c.d) for c in published.comparisons}
    for other, size in (("swin_tiny", 0.951), ("resnet18_cbam", 1.125), ("densenet121", 1.207)):
        assert d[frozenset(("vit_tiny", other))] == pytest.approx(size, abs=5e-4)


def test_published_reversals_come_out_and_claim_no_probability(published: Import) -> None:
    pairs = {frozenset((pair["a"], pair["b"])) for pair in published.reversed_pairs}
    assert pairs == {
        frozenset(two) for two in itertools.product(("vit_tiny", "swin_tiny"), ("resnet18_cbam", "densenet121"))
    }
    assert published.tau[0]["tau"] == pytest.approx(-1 / 3)
    assert all(pair["probability"] is None and "means" in pair["note"] for pair in published.reversed_pairs)
    assert published.tau[0]["low"] is None


def test_what_was_not_published_is_added(published: Import) -> None:
    vit = next(s for s in published.summaries if s.contender == "vit_tiny" and s.fill == "zero")
    assert vit.clusters == 3
    assert vit.clustered is not None
    assert vit.clustered.high - vit.clustered.low > vit.pooled.high - vit.pooled.low
    pair = next(c for c in published.comparisons if {c.a, c.b} == {"vit_tiny", "swin_tiny"})
    assert pair.n == 198
    assert pair.difference.high < 0
    assert pair.p_holm >= pair.p


def test_every_number_is_that_of_plain_loops(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"who": who, "photo": photo, "run": run, "operator": fill, "area": float(rng.normal(shift))}
        for who, shift in (("a", 0.0), ("b", 0.4), ("c", 0.4))
        for fill in ("zero", "blur")
        for run in (1, 2)
        for photo in range(12)
        if not (who == "c" and photo == 0)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "table.parquet")
    table = read(tmp_path / "table.parquet", Mapping("who", "area", "photo", "", "operator", "run"))
    found = analyse(table, "higher", np.random.default_rng(0), resamples=200)
    for summary in found.summaries:
        values = [r["area"] for r in rows if r["who"] == summary.contender and r["operator"] == summary.fill]
        mean = sum(values) / len(values)
        assert summary.mean == pytest.approx(mean, abs=1e-12)
        assert summary.sd == pytest.approx(
            math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)), abs=1e-12
        )
    for pair in found.comparisons:
        differences = []
        for photo in range(12):
            sides = [
                [r["area"] for r in rows if (r["who"], r["operator"], r["photo"]) == (who, pair.fill, photo)]
                for who in (pair.a, pair.b)
            ]
            if all(sides):
                differences.append(sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1]))
        assert pair.n == len(differences) == (11 if "c" in (pair.a, pair.b) else 12)
        assert pair.difference.value == pytest.approx(sum(differences) / len(differences), abs=1e-12)
    assert set(found.friedman) == {"zero", "blur"}
    assert found.friedman["zero"].n == 11


@pytest.mark.parametrize(
    ("rows", "mapping", "says"),
    [
        ([{"a": "x", "b": 1.0}], Mapping("who", "b"), "has no column 'who'; it has a, b"),
        ([{"a": "x", "b": "much"}], Mapping("a", "b"), "no number in 1 rows, first in line 2"),
        ([{"a": "x", "b": math.inf}], Mapping("a", "b"), "no number"),
        ([{"a": "x", "u": 1, "b": 1.0}] * 2, Mapping("a", "b", "u"), "same contender, unit"),
    ],
)
def test_a_wrong_mapping_or_value_is_named(rows: list[dict], mapping: Mapping, says: str, tmp_path: Path) -> None:
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadData, match=says):
        read(tmp_path / "t.csv", mapping)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(BadData, match="no readable CSV or Parquet"):
        read(tmp_path / "t.parquet", Mapping("a", "b"))


def test_the_command_line_prints_plain_json(tmp_path: Path) -> None:
    rows = [{"who": who, "photo": k, "area": k + (who == "b") * (-1) ** k} for who in "ab" for k in range(6)]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    words = [
        "study",
        "import",
        str(tmp_path / "t.csv"),
        "--contender",
        "who",
        "--unit",
        "photo",
        "--metric",
        "area",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "audit_core", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fills"] == ["all"]
    assert [s["contender"] for s in found["summaries"]] == ["a", "b"]
    assert found["comparisons"][0]["n"] == 6
    wrong = subprocess.run(
        [sys.executable, "-m", "audit_core", *words[:3], "--contender", "nobody", "--metric", "area"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "has no column 'nobody'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
