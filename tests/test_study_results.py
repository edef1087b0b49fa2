"""Results of a study: literal loops over plain rows as witnesses, and files that are no results."""

import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from study_results import checkpoint_of, write_results

from audit_core.errors import BadData, InvalidParameter, UnknownName
from audit_core.study.direction import better, sign
from audit_core.study.filters import Filters
from audit_core.study.results import Results
from audit_core.study.tables import CURVES, MEASURES, as_table, write

FILLS, METRICS, UNITS, SEEDS = ("blur:sigma=3", "zero"), ("deletion", "srg"), 14, (0, 1)
EXPLAINERS = {"rollout": "own", "rise:n_masks=1000": "agnostic", "random": "control"}
CHECKPOINTS = {"a-0": ("A", 42), "a-1": ("A", 43), "a-2": ("A", None), "b-0": ("B", 42)}
CLASSES = ["Center", "Donut", "none", None]
ASKED = (
    Filters(),
    Filters(classes=("Donut", "none")),
    Filters(leave_out=("none",)),
    Filters(training_seeds=(43,), seeds=(1,)),
    Filters(correct="own"),
    Filters(correct="all", leave_out=("Center",)),
)


def planted_rows():
    """Rows with everything that happens: missing, sick, refused and failed ones, a cell that never ran, a NaN."""
    chance = random.Random(5)
    label = [CLASSES[unit % 4] for unit in range(UNITS)]
    says = {
        (checkpoint, unit): chance.choice(CLASSES[:3]) if chance.random() < 0.3 else (label[unit] or "Center")
        for checkpoint in CHECKPOINTS
        for unit in range(UNITS)
    }
    rows = []
    for checkpoint, (family, training_seed) in CHECKPOINTS.items():
        for explainer, role in EXPLAINERS.items():
            for fill in FILLS:
                for seed in SEEDS:
                    for unit in range(UNITS):
                        for metric in (*METRICS, *(["r-oms"] if explainer == "random" else [])):
                            if chance.random() < 0.08:
                                continue
                            never = (checkpoint, explainer, fill) == ("b-0", "rollout", "zero")
                            state = (
                                "refused"
                                if never
                                else chance.choices(["number", "sick", "refused", "failed"], [20, 1, 1, 1])[0]
                            )
                            value = chance.gauss(0.5, 0.2) if state == "number" else None
                            if state == "number" and chance.random() < 0.03:
                                value = float("nan")
                            said = None if never else says[checkpoint, unit]
                            rows.append(
                                {
                                    "contender": f"{family} · {explainer}",
                                    "checkpoint": checkpoint,
                                    "family": family,
                                    "training_seed": training_seed,
                                    "explainer": explainer,
                                    "role": role,
                                    "fill": fill,
                                    "seed": seed,
                                    "unit": unit,
                                    "image": f"synthetic:sample:{unit}",
                                    "label": label[unit],
                                    "predicted": said,
                                    "correct": None if said is None or label[unit] is None else said == label[unit],
                                    "metric": metric,
                                    "value": value,
                                    "state": state,
                                    "reason": None if state == "number" else f"why {state}",
                                }
                            )
    return rows


def is_number(row):
    return row["state"] == "number" and row["value"] == row["value"]


def passes(row, filters, rows):
    """The filters, one sentence each."""
    if filters.classes and row["label"] not in filters.classes:
        return False
    if row["label"] is not None and row["label"] in filters.leave_out:
        return False
    if filters.training_seeds and row["training_seed"] not in filters.training_seeds:
        return False
    if filters.seeds and row["seed"] not in filters.seeds:
        return False
    if filters.correct == "own":
        return row["correct"] is True
    if filters.correct == "all":
        answers = [r for r in rows if r["unit"] == row["unit"] and r["predicted"] is not None]
        return all(r["correct"] is True for r in answers)
    return True


def numbers(rows, filters, metric, **where):
    return [
        row
        for row in rows
        if is_number(row)
        and row["metric"] == metric
        and all(row[name] == value for name, value in where.items())
        and passes(row, filters, rows)
    ]


@pytest.fixture(scope="module")
def rows():
    return planted_rows()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("study *")  # a pattern that would find the folder beside it, too
    write(as_table(rows, MEASURES), tmp_path_factory.mktemp("study x") / "parts" / "measures-0.parquet")
    for part in range(3):
        write(as_table(rows[part::3], MEASURES), root / "parts" / f"measures-{part}.parquet")
    (root / "parts" / ".measures-9.parquet.123").write_bytes(b"half a file of another process")
    write(as_table(list(curve_rows(rows)), CURVES), root / "parts" / "curves-0.parquet")
    return root


def curve_rows(rows):
    chance = random.Random(6)
    for row in rows:
        if row["metric"] == "deletion" and row["state"] != "refused":  # sick maps have curves, too
            score = [chance.random() for _ in range(5)]
            named = {name: row[name] for name in ("checkpoint", "contender", "explainer", "fill", "seed", "unit")}
            yield {**named, "kind": "deletion", "fraction": [0.0, 0.25, 0.5, 0.75, 1.0], "score": score}


@pytest.fixture(scope="module")
def results(folder):
    return Results.open(folder)


def test_the_study_is_told_as_it_is(results):
    assert [c.name for c in results.contenders] == [
        f"{family} · {explainer}" for family in "AB" for explainer in EXPLAINERS
    ]
    assert [c.role for c in results.contenders] == ["own", "agnostic", "control"] * 2
    rollout = results.contender("A · rollout")
    assert rollout.checkpoints == ("a-0", "a-1", "a-2")
    assert rollout.training_seeds == (42, 43, -1)
    assert results.contender("B · random").training_seeds == (42,)
    assert (results.fills, results.metrics, results.seeds) == (FILLS, ("deletion", "r-oms", "srg"), SEEDS)
    assert (results.classes, results.training_seeds, results.units) == (("Center", "Donut", "none"), (42, 43), UNITS)
    assert [c.name for c in results.named(roles=("control",))] == ["A · random", "B · random"]
    assert results.fills_of("deletion") == FILLS


def test_counts_hold_every_row_once_with_its_reason(results, rows):
    expected = defaultdict(int)
    for row in rows:
        told = (row["contender"], row["fill"], row["metric"])
        if row["state"] == "number":
            broken = row["value"] != row["value"]
            told += ("sick", "the value is not a finite number") if broken else ("number", "")
        else:
            told += (row["state"], row["reason"])
        expected[told] += 1
    assert any("not a finite number" in told[4] for told in expected)
    assert {(c.contender, c.fill, c.metric, c.state, c.reason): c.count for c in results.counts()} == expected
    assert sum(c.count for c in results.counts("srg")) == sum(row["metric"] == "srg" for row in rows)


@pytest.mark.parametrize("filters", ASKED, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_observations_are_literal_sums(results, rows, filters, metric):
    found = results.observations(metric, filters)
    expected = defaultdict(float)
    runs = {"a-0": 0, "a-1": 1, "a-2": 2, "b-0": 0}
    for row in numbers(rows, filters, metric):
        at = found.contenders.index(row["contender"]), found.fills.index(row["fill"]), runs[row["checkpoint"]]
        expected[(*at, row["unit"], "total")] += row["value"]
        expected[(*at, row["unit"], "count")] += 1
    assert found.groups.tolist() == sorted({place[3] for place in expected})
    assert found.total.shape == (6, 2, 3, len(found.groups))
    for place in np.ndindex(found.total.shape):
        key = (*place[:3], int(found.groups[place[3]]))
        assert found.total[place] == pytest.approx(expected.get((*key, "total"), 0.0), abs=1e-12)
        assert found.count[place] == expected.get((*key, "count"), 0)
    assert found.family.tolist() == [0, 0, 0, 1, 1, 1]


def test_observations_of_chosen_contenders_and_fills_are_a_part_of_all(results):
    whole = results.observations("srg")
    part = results.observations("srg", contenders=["B · random", "A · rollout"], fills=["zero"])
    at = [whole.contenders.index(name) for name in part.contenders]
    assert part.contenders == ("B · random", "A · rollout")
    np.testing.assert_array_equal(part.total[..., :], whole.total[at][:, [1]][..., np.isin(whole.groups, part.groups)])


@pytest.mark.parametrize("filters", ASKED, ids=str)
def test_values_are_the_rows(results, rows, filters):
    found = results.values("A · rollout", "zero", "deletion", filters)
    expected = numbers(rows, filters, "deletion", contender="A · rollout", fill="zero")
    expected.sort(key=lambda row: (row["unit"], row["checkpoint"], row["seed"]))
    assert len(found.value) > 0
    assert found.value.tolist() == [row["value"] for row in expected]
    assert found.unit.tolist() == [row["unit"] for row in expected]
    assert found.run.tolist() == [int(row["checkpoint"][-1]) for row in expected]
    assert found.training_seed.tolist() == [
        -1 if row["training_seed"] is None else row["training_seed"] for row in expected
    ]
    assert found.label.tolist() == [row["label"] or "" for row in expected]
    assert found.image.tolist() == [row["image"] for row in expected]


@pytest.mark.parametrize("filters", ASKED[:3], ids=str)
def test_a_pair_holds_the_common_images(results, rows, filters):
    found = results.pair("A · rollout", "B · rise:n_masks=1000", "zero", "srg", filters)
    means = []
    for name in ("A · rollout", "B · rise:n_masks=1000"):
        own = defaultdict(list)
        for row in numbers(rows, filters, "srg", contender=name, fill="zero"):
            own[row["unit"]].append(row["value"])
        means.append({unit: sum(values) / len(values) for unit, values in own.items()})
    common = sorted(set(means[0]) & set(means[1]))
    assert found.unit.tolist() == common
    assert found.a.tolist() == pytest.approx([means[0][unit] for unit in common])
    assert found.b.tolist() == pytest.approx([means[1][unit] for unit in common])
    for at, unit in enumerate(common):
        said = {row["predicted"] for row in rows if row["family"] == "A" and row["unit"] == unit} - {None}
        assert found.predicted_a[at] == " | ".join(sorted(said))
        assert found.image[at] == f"synthetic:sample:{unit}"
        assert found.label[at] == (CLASSES[unit % 4] or "")
    assert any(" | " in word for word in found.predicted_a)
    assert not any(" | " in word for word in found.predicted_b)  # one training run says one thing


@pytest.mark.parametrize(("metric", "best"), [("deletion", min), ("srg", max)])
def test_images_stand_in_the_asked_order(results, rows, metric, best):
    expected = numbers(rows, Filters(), metric, contender="A · random", fill="zero")
    mean = sum(row["value"] for row in expected) / len(expected)
    listed = {
        order: results.images("A · random", "zero", metric, order, limit=1000)
        for order in ("surprise", "best", "worst")
    }
    assert all(len(images) == len(expected) for images in listed.values())
    surprise = [image.surprise for image in listed["surprise"]]
    assert surprise == pytest.approx(sorted((abs(row["value"] - mean) for row in expected), reverse=True))
    assert listed["best"][0].value == best(row["value"] for row in expected)
    assert [image.value for image in listed["worst"]] == [image.value for image in listed["best"]][::-1]
    one = listed["worst"][0]
    (row,) = [row for row in expected if row["value"] == one.value]
    assert (one.unit, one.image, one.checkpoint, one.seed) == tuple(
        row[n] for n in ("unit", "image", "checkpoint", "seed")
    )
    assert (one.predicted, one.correct) == (row["predicted"], bool(row["correct"]))
    assert len(results.images("A · random", "zero", metric, limit=3)) == 3


@pytest.mark.parametrize("filters", ASKED[:5], ids=str)
def test_mean_curves_leave_sick_rows_out(results, rows, filters):
    (found,) = results.mean_curves(["A · rollout"], "zero", "deletion", filters)
    places = {
        (row["checkpoint"], row["seed"], row["unit"])
        for row in numbers(rows, filters, "deletion", contender="A · rollout", fill="zero")
    }
    by_unit = defaultdict(list)
    for row in curve_rows(rows):
        asked = (row["contender"], row["fill"]) == ("A · rollout", "zero")
        if asked and (row["checkpoint"], row["seed"], row["unit"]) in places:
            by_unit[row["unit"]].append(np.float32(row["score"]))
    means = np.array([np.mean(curves, axis=0, dtype=np.float64) for curves in by_unit.values()])
    np.testing.assert_allclose(found.mean, means.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(found.fraction, [0, 0.25, 0.5, 0.75, 1])
    interval = stats.t.interval(0.95, len(means) - 1, means.mean(axis=0), stats.sem(means, axis=0))
    np.testing.assert_allclose([found.low, found.high], interval, atol=1e-7)
    assert found.n == len(means)


def test_a_checkpoint_that_was_never_asked_spoils_no_image(rows, results, tmp_path):
    never = [
        {**row, "contender": "C · random", "checkpoint": "c-0", "family": "C", "predicted": None, "correct": None}
        | {"state": "refused", "value": None, "reason": "no card"}
        for row in rows
        if row["contender"] == "B · random"
    ]
    write(as_table([*rows, *never], MEASURES), tmp_path / "measures.parquet")
    alone, beside = (study.observations("srg", Filters(correct="all")) for study in (results, Results.open(tmp_path)))
    assert beside.groups.tolist() == alone.groups.tolist()
    assert len(alone.groups) > 0


def test_curves_that_nobody_wrote_are_no_curves(results, folder):
    assert results.mean_curves(["B · rollout"], "zero", "deletion") == ()  # the cell that never ran
    assert Results(sorted((folder / "parts").glob("measures-*"))).mean_curves(["A · rollout"], "zero", "deletion") == ()
    with pytest.raises(InvalidParameter, match="kind must be one of deletion, insertion"):
        results.mean_curves(["A · rollout"], "zero", "srg")


def test_names_that_the_study_lacks_get_the_nearest_one(results):
    with pytest.raises(UnknownName, match=r"no contender 'A · rolout'. Did you mean 'A · rollout'"):
        results.contender("A · rolout")
    with pytest.raises(UnknownName, match=r"no fill 'zeros'. Did you mean 'zero'"):
        results.values("A · rollout", "zeros", "srg")
    with pytest.raises(UnknownName, match="no metric 'srq'"):
        results.observations("srq")
    with pytest.raises(InvalidParameter, match="no role 'owner'"):
        results.named(roles=("owner",))
    with pytest.raises(InvalidParameter, match="order must be one of"):
        results.images("A · rollout", "zero", "srg", "loudest")


def test_words_from_a_link_are_values_and_never_statements(results):
    hostile = Filters(classes=("'); DROP TABLE numbers; --",))
    with pytest.raises(InvalidParameter, match="no number of 'srg' is left"):
        results.observations("srg", hostile)
    assert results.observations("srg").count.sum() > 0


def test_several_threads_get_what_one_gets(results):
    expected = results.observations("srg").total
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: results.observations("srg").total, range(12)):
            np.testing.assert_array_equal(found, expected)


def test_a_running_study_shows_the_parts_there_are(rows, tmp_path):
    (tmp_path / "parts").mkdir()
    with pytest.raises(BadData, match="no results yet"):
        Results.open(tmp_path)
    write(as_table([], MEASURES), tmp_path / "parts" / "measures-0.parquet")
    with pytest.raises(BadData, match="no results yet"):
        Results.open(tmp_path)
    write(as_table(rows[:100], MEASURES), tmp_path / "parts" / "measures-0.parquet")
    before = Results.fingerprint(tmp_path)
    assert sum(c.count for c in Results.open(tmp_path).counts()) == 100
    write(as_table(rows[100:150], MEASURES), tmp_path / "parts" / "measures-1.parquet")
    assert Results.fingerprint(tmp_path) != before
    assert sum(c.count for c in Results.open(tmp_path).counts()) == 150


def test_a_merged_study_reads_the_same(rows, results, tmp_path):
    write(as_table(rows, MEASURES), tmp_path / "measures.parquet")
    merged = Results.open(tmp_path)
    assert merged.counts() == results.counts()
    np.testing.assert_allclose(merged.observations("srg").total, results.observations("srg").total, atol=1e-12)


def _without(rows, column):
    return as_table(rows, MEASURES).drop_columns([column])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path, rows: path.write_bytes(b"PAR1 and no more"), "is not a complete Parquet file"),
        (lambda path, rows: pq.write_table(pa.table({"x": [1]}), path), "lacks the columns contender, checkpoint"),
        (lambda path, rows: pq.write_table(_without(rows, "unit"), path), "lacks the column unit"),
        (lambda path, rows: write(as_table([{**rows[0], "fill": None}], MEASURES), path), "1 rows without a name"),
        (lambda path, rows: write(as_table([{**rows[0], "unit": -1}], MEASURES), path), "1 rows without a name"),
        (lambda path, rows: write(as_table(rows, MEASURES), path), "cells with more rows than images"),
        (lambda path, rows: write(as_table([{**rows[0], "image": "x"}], MEASURES), path), "two images or labels"),
        (
            lambda path, rows: write(as_table([{**rows[0], "training_seed": 7, "seed": 1}], MEASURES), path),
            "two training",
        ),
        (
            lambda path, rows: write(as_table([{**rows[0], "role": "control", "seed": 1}], MEASURES), path),
            "has two families",
        ),
    ],
)
def test_files_that_are_no_results_get_one_sentence(rows, tmp_path, damage, sentence):
    complete = [{**row, "unit": unit} for unit in range(3) for row in rows[:1]]
    for row in complete:
        row["image"] = f"image {row['unit']}"
    write(as_table(complete, MEASURES), tmp_path / "parts" / "measures-0.parquet")
    damaged = complete if "more rows" in sentence or "two" in sentence else rows
    damage(tmp_path / "parts" / "measures-1.parquet", damaged)
    with pytest.raises(BadData, match=sentence) as caught:
        Results.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_cut_in_the_middle_is_named(folder, tmp_path):
    whole = (folder / "parts" / "measures-0.parquet").read_bytes()
    (tmp_path / "measures.parquet").write_bytes(whole[:4000] + b"\0" * 200 + whole[4200:])  # the footer is intact
    with pytest.raises(BadData, match="cannot be read"):
        Results.open(tmp_path)
    with pytest.raises(BadData, match="check the path"):
        Results.open(tmp_path / "nowhere")


def test_many_images_are_grouped_by_hash_and_nothing_is_lost(tmp_path):
    names = {"A · x": "own", "B · x": "own"}
    planted = lambda contender, fill, metric: 0.3 if contender == "A · x" else 0.6
    write_results(tmp_path, names, ["zero"], 5000, {"A": 1, "B": 2}, ["srg"], np.random.default_rng(0), means=planted)
    found = Results.open(tmp_path)
    grouped, single = found.observations("srg"), found.by_unit_and_run("srg")
    assert single.total.shape == (2, 1, 2, 5000)
    group = [unit * 2654435761 % 2**32 % 2000 for unit in range(5000)]
    assert grouped.groups.tolist() == sorted(set(group))
    expected = np.zeros((2, 1, 2, 2000))
    for unit in range(5000):
        expected[..., group[unit]] += single.total[..., unit]
    np.testing.assert_allclose(grouped.total, expected[..., grouped.groups], atol=1e-12)
    assert grouped.count.sum() == 3 * 5000
    few = found.observations("srg", Filters(classes=("Donut",)))  # below the limit, images stay single
    assert few.count.max() == 1
    np.testing.assert_allclose(found.by_unit("srg").means().mean(axis=2).ravel(), [0.3, 0.6], atol=0.01)
    assert found.contender("B · x").checkpoints == (checkpoint_of("B", 0), checkpoint_of("B", 1))


@pytest.mark.parametrize(
    "filters",
    [*ASKED, Filters(("a&b=c", "ü,;"), ("none", ""), (1, -1), (0, 7), "own")],
    ids=str,
)
def test_filters_survive_a_link(filters):
    assert Filters.parse(str(filters)) == filters


def test_filters_say_what_they_do_not_know():
    assert str(Filters()) == ""
    assert Filters().sentence == "all images"
    assert (
        Filters(leave_out=("none",), correct="all").sentence == "without none; images that every checkpoint got right"
    )
    with pytest.raises(InvalidParameter, match="filters have no 'classes'; they have class"):
        Filters.parse("classes=Donut")
    with pytest.raises(InvalidParameter, match="seed must be a whole number, got 'x'"):
        Filters.parse("seed=x")
    with pytest.raises(InvalidParameter, match="correct must be one of any, own, all; got 'most'"):
        Filters.parse("correct=most")


def test_directions():
    directions = {"deletion": "lower", "insertion": "higher", "srg": "higher", "deletion-normalised": "lower"}
    assert {name: better(name) for name in directions} == directions
    assert better("parameter-randomisation") == "lower"  # from its registry
    assert (sign("deletion"), sign("srg")) == (-1.0, 1.0)
    with pytest.raises(InvalidParameter, match="'gini' describes and ranks nothing"):
        sign("gini")
    with pytest.raises(UnknownName, match="no metric named 'srgg'"):
        better("srgg")
