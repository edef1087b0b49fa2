"""Measuring a record: kept by content, refused one by one, with the region where the image is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from audit_core import audit, measuring
from audit_core.data import dataset_of
from audit_core.errors import AuditError, BadCheckpoint, InvalidParameter, UnknownName
from audit_core.images import prepare
from audit_core.metrics import METRICS, Measure
from audit_core.metrics.controls import MAPS_COMPARED
from audit_core.record import AuditRecord, loads
from audit_core.store import Store
from audit_core.types import SourceImage
from audit_core.workbench import Workbench

CHEAP = ("srg", "gini", "energy-inside", "sufficiency:share=0.2")
NET, IMAGE = "wafer-resnet18-cbam", "synthetic:sample:3"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(Store(tmp_path_factory.mktemp("store")), "cpu")


@pytest.fixture(scope="module")
def record(bench: Workbench) -> AuditRecord:
    spec = audit.spec(NET, "grad-cam:layer=stage1", "zero", IMAGE, target="label", steps=3, controls=2)
    return audit.run(spec, bench)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """A metric that fails on purpose, in place of one that works."""
    entry = METRICS["gini"]
    monkeypatch.setattr(entry, "measure", lambda *_: (_ for _ in ()).throw(AuditError("no room for it")))
    return entry


def test_measures_come_as_asked_and_are_kept(bench: Workbench, record: AuditRecord) -> None:
    told: list[tuple[float, str]] = []
    assert measuring.find(record, bench, CHEAP) == {}
    spent = measuring.forwards(record, bench, CHEAP)
    first = measuring.measure(record, bench, CHEAP, lambda f, words: told.append((f, words)))
    assert tuple(first) == CHEAP
    assert spent == 1 + MAPS_COMPARED, "confidence drop: the map and its controls"
    assert measuring.forwards(record, bench, CHEAP) == 0
    assert measuring.find(record, bench, CHEAP) == first
    before = bench.classifier(NET).forwards
    assert measuring.measure(record, bench, CHEAP) == first
    assert bench.classifier(NET).forwards == before
    assert [f for f, _ in told] == sorted(f for f, _ in told)
    assert told[-1][0] == 1
    assert any(METRICS["srg"].title in words for _, words in told)


def test_the_numbers_are_those_of_the_record(bench: Workbench, record: AuditRecord) -> None:
    found = measuring.measure(record, bench, CHEAP)
    assert found["srg"].value == pytest.approx(record.insertion_auc - record.deletion_auc)
    dataset, index = dataset_of(IMAGE)
    region = prepare(SourceImage((dataset.region(index) * 2).astype(np.uint8), True, "r"), bench.card(NET))[0] == 1
    expected = record.values[region].sum() / record.values.sum()
    assert found["energy-inside"].value == pytest.approx(float(expected), rel=1e-4)


def test_a_record_that_was_sent_gives_the_same_measures(bench: Workbench, record: AuditRecord) -> None:
    sent = loads(record.dumps())
    assert measuring.find(sent, bench, CHEAP[:3]) == measuring.measure(record, bench, CHEAP[:3])


def test_keys_tell_apart_what_gives_other_numbers(
    bench: Workbench, record: AuditRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = measuring.open_session(record, bench)
    choice = METRICS.complete(measuring.Choice.parse("sufficiency"))
    other = replace(record, values=-record.values)
    keys = {
        session.key(choice),
        session.key(measuring.Choice.parse("sufficiency:share=0.3")),
        session.key(measuring.Choice.parse("gini")),
        replace(session, region=None).key(choice),
        replace(session, record=other).key(choice),
    }
    assert session.key(measuring.Choice.parse("sufficiency:share=0.1")) in keys
    monkeypatch.setattr(measuring, "VERSION", 10**6)
    keys.add(session.key(choice))
    assert len(keys) == 6


def test_the_region_lies_where_the_image_lies(bench: Workbench) -> None:
    """On generated maps the signature is denser in failed dies than the rest, in the input as in the source."""
    card = bench.card(NET)
    for index in (1, 3, 7):
        dataset, i = dataset_of(f"synthetic:sample:{index}")
        region, pixels = measuring.region_of(f"synthetic:sample:{index}", card), prepare(dataset.image(i), card)[0]
        assert region.shape == pixels.shape
        assert region.mean() == pytest.approx(dataset.region(i).mean(), abs=0.03)
        assert (pixels == 1)[region].mean() > 2 * (pixels == 1)[~region].mean()
    assert not measuring.region_of("synthetic:sample:8", card).any()
    assert measuring.region_of("upload:0123", card) is None
    assert measuring.region_of("no-such-set:all:0", card) is None


def test_a_picture_and_its_region_are_resized_alike(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(bench.card(NET), input_size=(20, 30))

    class Pictures:
        def region(self, i: int) -> np.ndarray:
            region = np.zeros((7, 9), bool)
            region[2:4, 3:8] = True
            return region

    monkeypatch.setattr(measuring, "dataset_of", lambda reference: (Pictures(), 0))
    region = measuring.region_of("pictures:all:0", card)
    rows, columns = ((np.arange(n) + 0.5) * s / n for n, s in ((20, 7), (30, 9)))
    inside = ((rows >= 2) & (rows < 4))[:, None] & ((columns >= 3) & (columns < 8))
    np.testing.assert_array_equal(region, inside)


def test_a_metric_that_cannot_be_measured_is_refused_alone(bench: Workbench, record: AuditRecord, broken: type) -> None:
    other = replace(record, key="1" * 64)
    found = measuring.measure(other, bench, ("gini", "srg"))
    assert found["gini"] == Measure.refusal("no room for it")
    assert found["srg"].value is not None
    assert set(measuring.find(other, bench, ("gini", "srg"))) == {"srg"}, "a passing failure is asked again"


def test_a_refusal_of_principle_is_kept(bench: Workbench) -> None:
    spec = audit.spec(NET, "centre-prior", "zero", "synthetic:sample:8", target="label", steps=2, controls=0)
    alone = audit.run(spec, bench)
    names = ("energy-inside", "beats-centre", "r-oms")
    found = measuring.measure(alone, bench, names)
    assert all(found[name].refused and found[name].value is None for name in names)
    assert measuring.find(alone, bench, names) == found
    assert "no pixel" in found["energy-inside"].sentence


def test_a_defect_is_not_hidden(bench: Workbench, record: AuditRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS["gini"], "measure", lambda *_: {}["defect"])
    with pytest.raises(KeyError, match="defect"):
        measuring.measure(replace(record, key="2" * 64), bench, ("gini",))
    assert bench.classifier(NET).lock.acquire(blocking=False)
    bench.classifier(NET).lock.release()


def test_unknown_metrics_and_parameters_have_their_sentence(bench: Workbench, record: AuditRecord) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'gini'"):
        measuring.measure(record, bench, ("ginni",))
    with pytest.raises(InvalidParameter, match="share must be in"):
        measuring.measure(record, bench, ("sufficiency:share=7",))


def test_other_weights_are_not_measured_in_place_of_the_recorded(bench: Workbench, record: AuditRecord) -> None:
    foreign = replace(record, provenance={**record.provenance, "weights_sha256": "f" * 64})
    with pytest.raises(BadCheckpoint, match="other weights"):
        measuring.measure(foreign, bench, ("srg",))
    assert measuring.find(foreign, bench, ("srg",)) == {}


def test_another_image_under_the_same_words_is_not_measured(bench: Workbench, record: AuditRecord) -> None:
    """The record's own input is taken, and the region of the image that is here is not that of the record."""
    other = replace(record, pixels=record.pixels[:, ::-1], key="3" * 64)
    session = measuring.open_session(other, bench)
    np.testing.assert_array_equal(session.prepared.subject.pixels, other.pixels)
    assert session.region is None
    assert measuring.open_session(record, bench).region is not None


def test_a_contrast_is_measured_as_a_contrast(bench: Workbench) -> None:
    settings = {"steps": 2, "controls": 0, "quantity": "logit", "against": "none"}
    found = audit.run(audit.spec(NET, "grad-cam:layer=stage1", "zero", IMAGE, **settings), bench)
    evidence = measuring.open_session(found, bench).evidence(bench)
    assert evidence.classifier.contrast == found.classes.index("none")
    assert evidence.scores(evidence.pixels)[0] == pytest.approx(found.untouched, abs=1e-4)


def test_a_table_is_plain_data(bench: Workbench, record: AuditRecord) -> None:
    rows = measuring.table(measuring.measure(record, bench, (*CHEAP, "r-oms")))
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == [*CHEAP, "r-oms"]
    assert rows[3]["title"] == METRICS["sufficiency"].title
    assert rows[4]["n"] == 2
    assert set(rows[0]) >= {"name", "title", "value", "low", "high", "n", "better", "sentence", "refused"}




def test_a_map_from_a_file_is_measured_but_not_made_again(tmp_path):
    """It would come out the same for every image and model, and so look perfectly stable."""
    bench = Workbench(Store(tmp_path), "cpu")
    out = io.BytesIO()
    np.save(out, np.random.default_rng(0).random((64, 64)))
    words = f"outside:map={bench.add_map(out.getvalue(), 'mine.npy')}"
    record = audit.run(audit.spec("wafer-resnet18-cbam", words, "zero", "synthetic:sample:3", steps=2), bench)
    found = measuring.measure(record, bench, ["srg", "parameter-randomisation", "noise-stability"])
    assert [measured.refused for measured in found.values()] == [False, True, True]
    assert "cannot be made again" in found["noise-stability"].sentence
