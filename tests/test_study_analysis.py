"""Views of a study: planted truth, literal loops, scipy and the statistics package as witnesses."""

import json
import os
import resource
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from statistics import fmean, median, stdev
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from study_results import write_results
from test_study_results import CLASSES, FILLS, UNITS, numbers, planted_rows

from audit_core import statistics
from audit_core.errors import InvalidParameter
from audit_core.study.analysis import Filters, Results, cells, compression, controls, pair, pairs, reversal
from audit_core.study.joint import bca_of_sums, ratio, times_drawn
from audit_core.study.pairs import compare
from audit_core.study.ranking import headline
from audit_core.study.tables import MEASURES, as_table, write

FAMILIES, RUNS = ("DeiT", "Swin", "ViT"), {"DeiT": 1, "Swin": 1, "ViT": 3}
EXPLAINERS = {"rollout": "own", "rise:n_masks=9": "agnostic", "random": "control", "edges": "control"}
CONTENDERS = {f"{family} · {explainer}": role for family in FAMILIES for explainer, role in EXPLAINERS.items()}
PLANTED_FILLS = ("blur", "mean", "zero")
#: Deletion AUC, lower is better: ViT's rollout is best under zero and worst under blur; RISE stands close together.
MEANS = {
    ("DeiT", "rollout"): (0.30, 0.33, 0.36),
    ("Swin", "rollout"): (0.36, 0.36, 0.40),
    ("ViT", "rollout"): (0.44, 0.40, 0.30),
    ("DeiT", "rise:n_masks=9"): (0.50, 0.50, 0.50),
    ("Swin", "rise:n_masks=9"): (0.51, 0.51, 0.51),
    ("ViT", "rise:n_masks=9"): (0.53, 0.53, 0.53),
}


def planted(contender, fill, metric):
    family, explainer = contender.split(" · ")
    if metric == "r-oms":
        return {"blur": 0.9, "mean": 0.4, "zero": 0.6}[fill]
    value = MEANS.get((family, explainer), (0.7, 0.7, 0.7))[PLANTED_FILLS.index(fill)]
    return value if metric == "deletion" else 1 - 2 * value


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(1)
    metrics = ["deletion", "srg", "r-oms"]
    settings = {"means": planted, "spread": 0.05, "run_spread": 0.003}
    write_results(root, CONTENDERS, PLANTED_FILLS, 400, RUNS, metrics, rng, **settings)
    return Results.open(root)


@pytest.fixture(scope="module")
def rows():
    return planted_rows()


@pytest.fixture(scope="module")
def sick(rows, tmp_path_factory):
    """The small study in which everything goes wrong somewhere."""
    root = tmp_path_factory.mktemp("sick")
    write(as_table(rows, MEASURES), root / "measures.parquet")
    return Results.open(root)


@pytest.mark.parametrize("filters", [Filters(), Filters(correct="own"), Filters(("Donut",), seeds=(0,))], ids=str)
def test_cells_are_literal_counts_and_means(sick, rows, filters):
    view = cells(sick, "srg", filters, resamples=50)
    found = {(cell.contender, cell.fill): cell for cell in view.cells}
    label = {unit: CLASSES[unit % 4] for unit in range(UNITS)}
    seen = 0
    for contender in [c.name for c in sick.contenders]:
        for fill in FILLS:
            own = numbers(rows, filters, "srg", contender=contender, fill=fill)
            values = [row["value"] for row in own]
            if (contender, fill) not in found:
                assert not values
                continue
            cell = found[contender, fill]
            seen += 1
            assert cell.n == len(values)
            assert cell.mean.n == len({row["unit"] for row in own})
            if len(values) > 1:
                expected = fmean(values), median(values), stdev(values)
                assert (cell.mean.value, cell.median, cell.sd) == pytest.approx(expected)
            by_class, by_seed = defaultdict(list), defaultdict(list)
            for row in own:
                by_seed[-1 if row["training_seed"] is None else row["training_seed"]].append(row["value"])
                if label[row["unit"]]:
                    by_class[label[row["unit"]]].append(row["value"])
            assert cell.by_class == pytest.approx({name: fmean(part) for name, part in by_class.items()})
            assert cell.by_training_seed == pytest.approx({name: fmean(part) for name, part in by_seed.items()})
    assert seen >= 11


def test_rows_without_a_number_are_counted_and_never_enter(sick, rows):
    for cell in cells(sick, "deletion", resamples=20).cells:
        own = [r for r in rows if (r["contender"], r["fill"], r["metric"]) == (cell.contender, cell.fill, "deletion")]
        broken = [r for r in own if r["state"] == "number" and r["value"] != r["value"]]
        assert cell.n_sick == sum(r["state"] == "sick" for r in own) + len(broken)
        assert cell.n_refused == sum(r["state"] == "refused" for r in own)
        assert cell.n_failed == sum(r["state"] == "failed" for r in own)
        assert cell.n + cell.n_sick + cell.n_refused + cell.n_failed == len(own)
    never = {(cell.contender, cell.fill): cell for cell in cells(sick, "deletion", resamples=20).cells}[
        "B · rollout", "zero"
    ]
    assert (never.n, never.reason, never.mean.n) == (0, "why refused", 0)
    assert np.isnan(never.mean.value)
    assert never.mean.note == "no value is present"


def test_planted_means_lie_in_their_intervals(results):
    view = cells(results, "deletion")
    inside = [cell.mean.low <= planted(cell.contender, cell.fill, "deletion") <= cell.mean.high for cell in view.cells]
    assert len(inside) == len(CONTENDERS) * 3
    assert np.mean(inside) > 0.8  # 95 % intervals, but cells share their images and the runs shift them
    for cell in view.cells:
        assert cell.mean.value == pytest.approx(planted(cell.contender, cell.fill, "deletion"), abs=0.02)
        assert cell.mean.high - cell.mean.low == pytest.approx(2 * 1.96 * np.sqrt(0.01 + 0.0025) / 20, rel=0.35)


def test_one_training_run_has_no_interval_for_retraining(results):
    for cell in cells(results, "deletion", resamples=200).cells:
        if cell.family == "ViT":
            assert cell.retrained.n == 3
            assert cell.retrained.note == "only 3 training runs: the interval tends to be too narrow"
            assert cell.retrained.low < cell.retrained.value < cell.retrained.high
        else:
            assert (cell.retrained.low, cell.retrained.n) == (None, 1)
            assert "one training run" in cell.retrained.note
        assert cell.retrained.value == pytest.approx(cell.mean.value)


def test_retrained_interval_has_its_closed_form_for_three_runs(tmp_path):
    """Without noise, 3 of 3 runs drawn with replacement: the smallest mean has probability 1/27 > 2.5 %."""
    settings = {"means": lambda *_: 0.5, "spread": 0.0, "image_spread": 0.0, "run_spread": 0.1}
    write_results(tmp_path, {"A · x": "own"}, ["zero"], 30, 3, ["srg"], np.random.default_rng(2), **settings)
    (cell,) = cells(Results.open(tmp_path), "srg").cells
    runs = list(cell.by_training_seed.values())
    assert len(runs) == 3
    assert (cell.retrained.low, cell.retrained.high) == pytest.approx((min(runs), max(runs)))
    assert cell.mean.low == pytest.approx(cell.mean.high)  # images do not differ


@pytest.mark.parametrize("skewed", [False, True])
def test_joint_intervals_are_scipys_for_the_same_resamples(skewed):
    rng = np.random.default_rng(3)
    count = rng.integers(1, 5, size=(3, 80)).astype(float)
    total = count * (rng.exponential(size=(3, 80)) ** 2 if skewed else rng.normal(size=(3, 80)))
    drawn = times_drawn(80, 999, rng)
    assert (drawn.sum(axis=1) == 80).all()
    (found,) = bca_of_sums(np.stack([total, count]), ratio, np.full(3, 80), drawn)
    for k in range(3):
        made = SimpleNamespace(bootstrap_distribution=(drawn @ total[k]) / (drawn @ count[k]))
        mean = lambda t, c, axis=-1: t.sum(axis=axis) / c.sum(axis=axis)
        witness = stats.bootstrap(
            (total[k], count[k]), mean, paired=True, n_resamples=0, bootstrap_result=made, method="BCa"
        ).confidence_interval
        assert found[k].value == pytest.approx(total[k].sum() / count[k].sum())
        assert (found[k].low, found[k].high) == pytest.approx(tuple(witness))
        assert found[k].method == "BCa bootstrap"


def test_joint_intervals_have_written_answers():
    columns = np.zeros((2, 4, 6))
    columns[:, 1, 0] = 1.0  # one unit
    columns[:, 2] = [[0.7], [1.0]]  # all equal
    columns[:, 3] = np.arange(6.0), np.ones(6)
    (found,) = bca_of_sums(columns, ratio, np.array([0, 1, 6, 6]), times_drawn(6, 100, np.random.default_rng(0)))
    assert [(one.low, one.note) for one in found[:2]] == [
        (None, "no value is present"),
        (None, "one image has no interval"),
    ]
    assert (found[2].low, found[2].high) == (found[2].value, found[2].value)
    assert found[3].low < 2.5 < found[3].high


def test_comparisons_are_those_of_the_statistics_package():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(3, 150))
    b = a + rng.normal(0.2, 0.7, size=(3, 150))
    a[1, :30], b[1, 20:50] = np.nan, np.nan
    a[2, :40] = b[2, :40]  # ties
    for way in ("lower", "higher"):
        for k, found in enumerate(compare(a, b, way, np.random.default_rng(0), 4000)):
            witness = statistics.paired(a[k], b[k], np.random.default_rng(1), 4000, better=way)
            assert (found.n, found.p, found.note) == (witness.n, pytest.approx(witness.p), witness.note)
            for name in ("mean_difference", "d", "d_z", "g", "probability"):
                mine, other = getattr(found, name), getattr(witness, name)
                assert mine.value == pytest.approx(other.value), name
                assert (mine.low, mine.high) == pytest.approx((other.low, other.high), abs=0.03), name


def test_comparisons_without_pairs_have_written_answers():
    nothing, same = np.full(5, np.nan), np.arange(5.0)
    empty, equal, single = compare(
        np.stack([nothing, same, np.array([1.0, *nothing[1:]])]),
        np.stack([same, same, same]),
        "lower",
        np.random.default_rng(0),
        50,
    )
    assert (empty.n, empty.note) == (0, "no image has both values")
    assert np.isnan(empty.p)
    assert (equal.p, equal.probability.value, equal.d.value) == (1.0, 0.5, 0.0)
    assert (single.n, single.mean_difference.value, single.mean_difference.low) == (1, 1.0, None)


def test_the_planted_reversal_is_found_and_named(results):
    view = reversal(results, "deletion", roles=("own",))
    assert [one.scheme for one in view.schemes] == ["images", "runs+images"]
    assert view.headline == view.schemes[1].headline
    for one in view.schemes:
        first = one.pairs[0]
        assert (first.first, first.second, first.certain) == ("Swin · rollout", "ViT · rollout", True)
        assert (first.wins_under, first.loses_under) == ("blur", "zero")
        assert first.directed > 0.99
        assert first.gap == pytest.approx(0.08, abs=0.02)
        assert first.share_of_fills.value == pytest.approx(2 / 3)  # better under blur and mean
        assert [(p.first[:4], p.second[:4]) for p in one.pairs if p.certain] == [("Swin", "ViT "), ("DeiT", "ViT ")]
    expected = "Swin · rollout beats ViT · rollout under blur and loses to it under zero, in 100 % of the resamples of "
    assert view.headline == expected + "training runs and images."


def test_a_planted_order_that_no_fill_changes_is_no_reversal(results):
    for one in reversal(results, "deletion", roles=("agnostic",)).schemes:
        assert not any(pair.certain for pair in one.pairs)
        clear = [p for p in one.pairs if {p.first[:4], p.second[:4]} == {"DeiT", "ViT "}]
        assert [(p.reverses, p.share_of_fills.value) for p in clear] == [(False, 1.0)]
        assert clear[0].probability < 0.05
    between = reversal(results, "deletion", contenders=["DeiT · rollout", "DeiT · rise:n_masks=9"])
    assert between.headline == "No two contenders change places between the fills."
    one_fill = reversal(results, "deletion", fills=["zero"])
    assert one_fill.headline == "One fill: a reversal needs two."


def test_an_uncertain_reversal_is_called_so(results):
    pairs_found = reversal(results, "deletion", roles=("own",)).schemes[0].pairs
    doubtful = replace(pairs_found[0], certain=False, directed=0.6149)
    said = headline([doubtful], 3, "images")
    assert said.startswith("No reversal is certain; the likeliest: Swin · rollout beats")
    assert said.endswith("in 61 % of the resamples of images.")
    assert "more than 99 %" in headline([replace(doubtful, directed=0.9989)], 3, "images")


def test_ranks_and_agreement_are_those_of_the_means(results):
    view = reversal(results, "deletion", resamples=300)
    literal = np.full(view.means.shape, np.nan)
    for c, contender in enumerate(view.contenders):
        for f, fill in enumerate(view.fills):
            literal[c, f] = results.values(contender, fill, "deletion").value.mean()
    np.testing.assert_allclose(view.means, literal)
    srg = [fmean(results.values(c, fill, "srg").value.mean() for fill in view.fills) for c in view.contenders]
    np.testing.assert_allclose(view.srg, srg)
    for one in view.schemes:
        for f in range(3):
            np.testing.assert_array_equal(one.ranks.rank[:, f], stats.rankdata(literal[:, f]))
            for g in range(3):
                witness = stats.kendalltau(literal[:, f], literal[:, g]).statistic
                assert one.tau.tau[f, g] == pytest.approx(witness)
            assert one.summary[f].value == pytest.approx(stats.kendalltau(srg, -literal[:, f]).statistic)
            assert one.summary[f].low <= one.summary[f].value <= one.summary[f].high
        assert one.ranks.probability_best.sum(axis=0) == pytest.approx(np.ones(3))
        assert (one.low < view.means).all()
        assert (one.high > view.means).all()
    assert view.n.tolist() == [[400 * RUNS[name.split()[0]]] * 3 for name in view.contenders]


def test_training_runs_widen_only_families_that_have_them(results):
    images, both = reversal(results, "deletion").schemes
    wider = (both.high - both.low) / (images.high - images.low)
    vit = np.array([name.startswith("ViT") for name in reversal(results, "deletion", resamples=2).contenders])
    assert wider[~vit] == pytest.approx(np.ones(wider[~vit].shape), abs=0.15)
    assert wider.shape == (6, 3)


def test_fills_follow_r_oms(results, tmp_path):
    view = reversal(results, "deletion", resamples=20)
    assert view.fills == ("blur", "zero", "mean")  # planted 0.9, 0.6, 0.4
    assert view.scope_note == ""
    by_checkpoint = [one.mean for one in results.checkpoint_means("r-oms") if one.fill == "zero"]
    assert len(by_checkpoint) == 5
    expected = stats.t.interval(0.95, 4, np.mean(by_checkpoint), stats.sem(by_checkpoint))
    assert (view.scope[1].low, view.scope[1].high) == pytest.approx(expected)
    names = {"A · x": "own", "B · x": "own"}
    settings = {"means": lambda *_: 0.5, "run_spread": 0.0}
    write_results(tmp_path, names, ["blur", "zero"], 20, 1, ["deletion"], np.random.default_rng(0), **settings)
    without = reversal(Results.open(tmp_path), "deletion", resamples=20)
    assert without.scope == (None, None)
    assert without.scope_note == "no R-OMS for blur, zero: listed last, in no order of scope"
    assert np.isnan(without.srg).all()
    assert without.schemes[0].summary == ()


def test_a_ranking_asks_for_two_contenders_and_a_direction(results):
    with pytest.raises(InvalidParameter, match="a ranking needs two contenders, got ViT · rollout"):
        reversal(results, "deletion", contenders=["ViT · rollout"])
    with pytest.raises(InvalidParameter, match="'gini' describes and ranks nothing"):
        reversal(results, "gini")


def test_a_pair_is_literal_and_names_its_images(results):
    a, b = "ViT · rollout", "Swin · rollout"
    view = pair(results, a, b, "deletion", k=3)
    p = []
    for one in view.fills:
        values = [defaultdict(list), defaultdict(list)]
        for side, name in enumerate((a, b)):
            cell = results.values(name, one.fill, "deletion")
            for unit, value in zip(cell.unit.tolist(), cell.value.tolist(), strict=True):
                values[side][unit].append(value)
        left, right = (np.array([fmean(side[unit]) for unit in range(400)]) for side in values)
        witness = statistics.paired(left, right, np.random.default_rng(0), better="lower")
        p.append(witness.p)
        assert (one.mean_a, one.mean_b) == pytest.approx((left.mean(), right.mean()))
        assert one.paired.n == 400
        assert one.paired.d_z.value == pytest.approx(witness.d_z.value)
        assert one.paired.probability.value == pytest.approx(witness.probability.value)
        assert one.paired.mean_difference.low == pytest.approx(witness.mean_difference.low, abs=0.002)
        order = sorted(range(400), key=lambda unit: left[unit] - right[unit])  # lower is better: most for a first
        assert [image.unit for image in one.for_a] == order[:3]
        assert [image.unit for image in one.for_b] == order[::-1][:3]
        shown = one.for_a[0]
        assert (shown.image, shown.difference) == (
            f"planted:test:{shown.unit}",
            pytest.approx(left[order[0]] - right[order[0]]),
        )
        assert shown.predicted_b in ("Center", "Donut", "none")
        assert one.retrained.low < one.retrained.value < one.retrained.high
        assert one.retrained.note == "the one training run of a family is held fixed"
    ordered, highest, literal = np.argsort(p), 0.0, {}
    for place, at in enumerate(ordered):  # Holm 1979
        highest = max(highest, min(1.0, (len(p) - place) * p[at]))
        literal[at] = highest
    assert [one.p_holm for one in view.fills] == pytest.approx([literal[at] for at in range(len(p))])
    assert [one.fill for one in view.fills if one.paired.mean_difference.high < 0] == [
        "zero"
    ]  # a is better there alone


def test_a_pair_without_common_images_says_so(sick):
    view = pair(sick, "A · rollout", "B · rollout", "srg", resamples=50)
    never = next(one for one in view.fills if one.fill == "zero")
    assert (never.paired.n, never.for_a, never.retrained.low) == (0, (), None)
    assert np.isnan(never.p_holm)
    assert never.retrained.note == "no image has both values"
    single = pair(sick, "B · rollout", "B · random", "srg", resamples=50)
    assert "one training run each" in single.fills[0].retrained.note
    with pytest.raises(InvalidParameter, match="got 'B · random' twice"):
        pair(sick, "B · random", "B · random", "srg")


def test_retrained_difference_has_its_closed_form(tmp_path):
    """Two families of three runs without noise: 27 x 27 equally likely pairs of means."""
    settings = {"means": lambda *_: 0.5, "spread": 0.0, "image_spread": 0.0, "run_spread": 0.1}
    names = {"A · x": "own", "B · x": "own", "A · y": "own"}
    write_results(tmp_path, names, ["zero"], 20, 3, ["srg"], np.random.default_rng(2), **settings)
    opened = Results.open(tmp_path)
    runs = {c.contender: list(c.by_training_seed.values()) for c in cells(opened, "srg", resamples=10).cells}
    drawn = [fmean(three) for three in np.array(np.meshgrid(*[runs["A · x"]] * 3)).reshape(3, -1).T]
    others = [fmean(three) for three in np.array(np.meshgrid(*[runs["B · x"]] * 3)).reshape(3, -1).T]
    exact = np.quantile(np.subtract.outer(drawn, others), [0.025, 0.975])
    (found,) = pair(opened, "A · x", "B · x", "srg", resamples=8000).fills
    assert (found.retrained.low, found.retrained.high) == pytest.approx(tuple(exact), abs=0.01)
    (same,) = pair(opened, "A · x", "A · y", "srg").fills  # one family: the same runs on both sides
    assert same.retrained.low == pytest.approx(0.0, abs=1e-9)
    assert same.retrained.high == pytest.approx(0.0, abs=1e-9)


def test_all_pairs_and_friedman(results):
    view = pairs(results, "deletion", "zero", roles=("own",))
    assert [(one.a, one.b) for one in view.comparisons] == [
        ("DeiT · rollout", "Swin · rollout"),
        ("DeiT · rollout", "ViT · rollout"),
        ("Swin · rollout", "ViT · rollout"),
    ]
    witness = next(
        one for one in pair(results, "DeiT · rollout", "ViT · rollout", "deletion").fills if one.fill == "zero"
    )
    assert view.comparisons[1].paired.d.value == pytest.approx(witness.paired.d.value)
    assert view.comparisons[1].paired.p == pytest.approx(witness.paired.p)
    sides = results.by_unit("deletion", contenders=view.contenders, fills=["zero"]).means()[:, 0]
    assert view.friedman.p == pytest.approx(stats.friedmanchisquare(*sides).pvalue)
    assert np.argsort(view.friedman.mean_ranks).tolist() == [2, 0, 1]  # ViT, DeiT, Swin
    assert all(one.p_holm >= one.paired.p for one in view.comparisons)


def test_compression_is_the_ratio_of_spreads(results):
    view = compression(results, "deletion")
    means = {(c.contender, c.fill): c.mean.value for c in cells(results, "deletion", resamples=5).cells}
    assert view.pairs[2] == ("ViT", "ViT · rollout", "ViT · rise:n_masks=9")
    for fill, found in zip(view.fills, view.ratios, strict=True):
        wide, narrow = (
            np.ptp([means[f"{family} · {explainer}", fill] for family in FAMILIES])
            for explainer in ("rollout", "rise:n_masks=9")
        )
        assert found.value == pytest.approx(narrow / wide)
        assert found.low < found.value < found.high < 1  # planted: 0.03 against 0.14, 0.07 and 0.10
    with pytest.raises(InvalidParameter, match="one whose explainer begins with 'lime', found 0"):
        compression(results, "deletion", agnostic="lime")


@pytest.mark.parametrize("metric", ["deletion", "srg"])
def test_controls_are_beaten_by_what_was_planted(results, metric):
    view = controls(results, metric)
    assert len(view.comparisons) == 6 * 2 * 3
    for one in view.comparisons:
        assert one.a.split(" · ")[0] == one.b.split(" · ")[0]
        gap = planted(one.b, one.fill, metric) - planted(one.a, one.fill, metric)
        beats = view.beats(one)
        assert beats.value == pytest.approx(gap if metric == "deletion" else -gap, abs=0.02)
        assert 0 < beats.low < beats.value < beats.high
        assert one.p_holm < 1e-6
        literal = [results.values(name, one.fill, metric).value.mean() for name in (one.a, one.b)]
        assert one.paired.mean_difference.value == pytest.approx(literal[0] - literal[1])
    assert "beats_by_low" in view.as_rows()[0]


def test_the_control_on_right_images_keeps_the_planted_means(results):
    every, right = (cells(results, "deletion", Filters(correct=word), resamples=20) for word in ("any", "all"))
    assert 0 < right.cells[0].mean.n < every.cells[0].mean.n
    expected = 0.8**5 * 400  # five checkpoints, each right with probability 0.8
    assert right.cells[0].mean.n == pytest.approx(expected, abs=4 * np.sqrt(expected))
    for cell in right.cells:
        assert cell.mean.value == pytest.approx(planted(cell.contender, cell.fill, "deletion"), abs=0.05)


@pytest.mark.parametrize(
    "ask",
    [
        lambda study, rng: cells(study, "srg", rng=rng, resamples=100),
        lambda study, rng: reversal(study, "srg", rng=rng, resamples=100),
        lambda study, rng: pair(study, "A · rollout", "B · rollout", "srg", rng=rng, resamples=100),
        lambda study, rng: pairs(study, "srg", "zero", rng=rng, resamples=100),
        lambda study, rng: compression(study, "srg", rng=rng, resamples=100, native=["A · rollout", "B · random"]),
        lambda study, rng: controls(study, "srg", rng=rng, resamples=100),
    ],
)
def test_views_are_json_and_follow_the_generator(sick, ask):
    first, again, other = (
        json.dumps(ask(sick, np.random.default_rng(s)).to_json(), allow_nan=False) for s in (7, 7, 8)
    )
    assert first == again
    assert first != other
    table = ask(sick, np.random.default_rng(7)).as_rows()
    assert len(table) >= 1
    assert json.loads(json.dumps(table, allow_nan=False)) == table


@pytest.fixture
def huge(tmp_path):
    """A folder of ten million rows, removed afterwards: it is larger than all other tests' together."""
    families = ("DeiT", "ResNet18", "Swin-Tiny", "ViT-Tiny")
    explainers = {"rollout": "own", "grad-cam": "own", "rise": "agnostic"}
    explainers |= {name: "control" for name in ("random", "edges", "intensity")}
    names = {f"{family} · {explainer}": role for family in families for explainer, role in explainers.items()}
    fills, metrics = (
        ["blur", "inpaint", "mean", "noise", "zero"],
        ["deletion", "deletion-normalised", "insertion", "srg"],
    )
    rng = np.random.default_rng(0)
    offset = dict(zip(names, rng.normal(0.5, 0.05, len(names)), strict=True))
    means = lambda contender, fill, metric: offset[contender] + 0.001 * len(fill)
    rows = write_results(tmp_path / "huge", names, fills, 7000, 3, metrics, rng, means=means, curves=21)
    assert rows >= 10_000_000
    yield tmp_path / "huge"
    shutil.rmtree(tmp_path / "huge")


@pytest.mark.slow
def test_ten_million_rows_stay_interactive(huge):
    """Each view in 1 s of one core, so less on an idle one; TRIPLECHECK_SLACK (default 2) is for busy machines."""
    limit = float(os.environ.get("TRIPLECHECK_SLACK", "2"))
    clock = time.process_time()
    study = Results.open(huge)
    print(f"\nopen {time.process_time() - clock:.2f} s")
    a, b = "ViT-Tiny · rollout", "Swin-Tiny · grad-cam"
    asked = {
        "counts": lambda: study.counts(),
        "observations": lambda: study.observations("deletion"),
        "values": lambda: study.values(a, "zero", "deletion"),
        "pair of values": lambda: study.pair(a, b, "zero", "deletion"),
        "images": lambda: study.images(a, "zero", "deletion"),
        "mean curves": lambda: study.mean_curves([a, b], "zero", "deletion"),
        "cells": lambda: cells(study, "deletion"),
        "reversal": lambda: reversal(study, "deletion"),
        "pair": lambda: pair(study, a, b, "deletion"),
        "pairs": lambda: pairs(study, "deletion", "zero"),
        "compression": lambda: compression(study, "deletion"),
        "controls": lambda: controls(study, "deletion"),
        "cells, right images": lambda: cells(study, "srg", Filters(correct="own")),
    }
    seconds = {}
    for name, ask in asked.items():
        clock, wall = time.process_time(), time.perf_counter()
        ask()
        seconds[name] = time.process_time() - clock
        print(f"{name}: {time.perf_counter() - wall:.2f} s, {seconds[name]:.2f} s of processors")
    assert {name: value for name, value in seconds.items() if value > limit} == {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    assert peak < 1.5, f"peak memory {peak:.2f} GiB"
