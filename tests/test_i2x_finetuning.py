"""Curation and fine-tuning: what is taken out, which controls there are, what is measured; a stop costs nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from planted import PlantedRun
from scipy import stats

from audit_core.errors import InvalidParameter
from audit_core.i2x.curation import CURATED, FULL, OTHER_PROTOTYPE, RANDOM, Curation, removed, training_sets
from audit_core.i2x.effects import difference, table
from audit_core.i2x.finetune import compare
from audit_core.i2x.prototypes import location_shares
from audit_core.i2x.strategies import STRATEGIES, Comparison, Outcome, words
from models.finetuning import FineTuning, fine_tune


def test_the_curation_takes_out_what_holds_the_prototype() -> None:
    shares = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0], [0.2, 0.8, 0.0]])
    labels = np.array([0, 0, 1, 1])
    assert removed(shares, labels, Curation(1)).tolist() == [True, True, False, True]
    assert removed(shares, labels, Curation(1, 0.3)).tolist() == [True, False, False, True]
    assert removed(shares, labels, Curation(1, 0.3, (0,))).tolist() == [True, False, False, False]
    with pytest.raises(InvalidParameter, match="prototypes 0 to 2"):
        removed(shares, labels, Curation(3))
    with pytest.raises(InvalidParameter, match="no image holds"):
        training_sets(shares, labels, Curation(2), np.random.default_rng(0))
    with pytest.raises(InvalidParameter, match="all 2 images of class 0"):
        training_sets(shares, labels, Curation(1), np.random.default_rng(0))


def test_controls_match_the_curation() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(6) * 0.3, 400)
    shares[shares < 0.1] = 0
    labels = rng.integers(0, 4, 400)
    curation = Curation(2, 0.2, (1, 3))
    sets = training_sets(shares, labels, curation, np.random.default_rng(1))
    again = training_sets(shares, labels, curation, np.random.default_rng(1))
    other = training_sets(shares, labels, curation, np.random.default_rng(2))
    assert set(sets) == {FULL, CURATED, RANDOM, OTHER_PROTOTYPE}
    assert sets[FULL].all()
    for c in range(4):
        assert sets[RANDOM][labels == c].sum() == sets[CURATED][labels == c].sum()
    assert all(np.array_equal(sets[name], again[name]) for name in sets)
    assert not np.array_equal(sets[RANDOM], other[RANDOM])
    assert not np.array_equal(sets[OTHER_PROTOTYPE], sets[CURATED])


@pytest.fixture(scope="module")
def setting() -> tuple[object, object, np.ndarray, object]:
    train, parts = planted.images(40)
    test, _ = planted.images(30, seed=5)
    return PlantedRun().classifier(30), train, location_shares(parts, 6), test


#: few images hold so much of U that they are taken out
ASKED = Comparison(Curation(planted.U, 0.2), (0, 1), FineTuning(0.05, batch_size=16), repeats=2)


def test_an_interrupted_comparison_ends_the_same(setting: tuple, tmp_path: Path) -> None:
    classifier, train, shares, test = setting
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    whole = compare(classifier, train, shares, test, ASKED, tmp_path / "whole")
    assert [outcome.strategy for outcome in whole] == [words(s) for s in STRATEGIES] * 2
    assert all(torch.equal(before[name], value) for name, value in classifier.module.state_dict().items())
    for stop_at in (1, 6, 12):
        asked = iter(range(1000))
        folder = tmp_path / str(stop_at)
        part = compare(classifier, train, shares, test, ASKED, folder, stop=lambda a=asked, s=stop_at: next(a) == s)
        assert len(part) == stop_at
        assert compare(classifier, train, shares, test, ASKED, folder) == whole
    assert not list((tmp_path / "whole").glob("*.safetensors"))
    assert compare(classifier, train, shares, test, ASKED, tmp_path / "again") == whole
    once = dataclasses.replace(ASKED, repeats=1)
    assert compare(classifier, train, shares, test, once, tmp_path / "grown") == whole[: len(whole) // 2]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "grown").glob("*.json")}
    assert compare(classifier, train, shares, test, ASKED, tmp_path / "grown") == whole  # only the new repeat is made
    assert all(path.stat().st_mtime_ns == made for path, made in before.items())


def test_outcomes_are_what_the_tuned_model_says(setting: tuple, tmp_path: Path) -> None:
    classifier, train, shares, test = setting
    outcome = compare(classifier, train, shares, test, ASKED, tmp_path)[0]
    confusion = np.array(outcome.confusion)
    assert confusion.sum() == len(test)
    assert outcome.accuracy == pytest.approx(np.trace(confusion) / len(test))
    assert outcome.confusions == confusion[0, 1] + confusion[1, 0]
    assert outcome.trained == len(train)


def test_fine_tuning_learns_and_repeats() -> None:
    losses = []
    for _ in range(2):
        train, _ = planted.images(30)
        module = planted.part_net(np.zeros((3, 6)))
        rng = torch.Generator().manual_seed(3)
        labels, recipe = torch.from_numpy(train.labels), FineTuning(0.1, batch_size=16)
        losses.append([fine_tune(module, train.pixels.__getitem__, labels, recipe, rng) for _ in range(8)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.5 * losses[0][0]
    with pytest.raises(ValueError, match="rate in"):
        FineTuning(0)


def _outcome(strategy: str, repeat: int, accuracy: float, confusions: int) -> Outcome:
    return Outcome(strategy, repeat, 10, accuracy, confusions, ((1,),))


def test_the_table_pairs_repeats_with_the_baseline_of_as_many_epochs() -> None:
    base, tuned = [30, 35, 32, 38], [25, 33, 30, 30]
    outcomes = [_outcome("full → full", r, 0.9, n) for r, n in enumerate(base)]
    outcomes += [_outcome("curated → full", r, 0.9, n) for r, n in enumerate(tuned)]
    full, curated = table(outcomes)
    assert full.confusions_difference is None
    assert (full.confusions, full.confusions_sd) == (np.mean(base), np.std(base))
    told = curated.confusions_difference
    assert told is not None
    change = np.subtract(tuned, base)
    interval = stats.ttest_rel(tuned, base).confidence_interval()
    assert told.value == change.mean()
    assert (told.low, told.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert curated.accuracy_difference is not None
    assert curated.accuracy_difference.low is None
    assert "do not differ" in curated.accuracy_difference.note
    assert "one repeat" in difference([1.0]).note
