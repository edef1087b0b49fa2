"""Records as data: areas, exact round trips, the published schema, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import area, make_record, same
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jsonschema import Draft202012Validator

from audit_core.errors import BadData
from audit_core.record import Controls, from_json, loads, pack, unpack
from audit_core.types import Curve

SCHEMA_FILE = Path(__file__).parents[1] / "docs" / "audit-record.schema.json"
SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
VARIANTS = {
    "plain": {},
    "error and signed": {"error": True, "signed": True},
    "colour": {"channels": 3, "size": 12},
    "no label, no control": {"label": None, "orders": 0},
    "one control": {"orders": 1},
    "logit, least first": {"quantity": "logit", "direction": "least", "patch": 2, "seed": 9},
    "odd names": {"classes": ["$x$_{bad", "日本", "\u202e=1+1", '"', ""], "health": ["A.", "B."]},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def record(request):
    return make_record(**request.param)


def test_a_record_survives_json_bit_by_bit(record):
    again = loads(record.dumps())
    assert same(again, record)
    assert again.dumps() == record.dumps()


def test_every_number_of_the_json_stands_where_the_record_says(record):
    raw = json.loads(record.dumps())
    assert raw["deletion"] == list(record.deletion.score)
    assert raw["insertion"] == list(record.insertion.score)
    assert raw["fractions"] == list(record.deletion.fraction)
    assert raw["predicted"] == record.classes[record.predicted]
    assert raw["key"] == record.key
    first = struct.unpack("<f", base64.b64decode(raw["map"]["values"]["base64"])[:4])[0]
    assert first == record.values[0, 0]


def test_areas_are_trapezoids(record):
    for name in ("deletion", "insertion"):
        curve = getattr(record, name)
        found, by_hand = getattr(record, f"{name}_auc"), area(curve.fraction, curve.score)
        assert found == pytest.approx(by_hand, rel=1e-12)
        raw = record.to_json()
        assert raw[f"{name}_auc"] == found
        assert raw[f"{name}_auc_normalised"] == pytest.approx(by_hand / float(record.deletion.score[0]), rel=1e-12)


def test_areas_of_known_curves():
    uneven = np.array([0.0, 0.1, 0.4, 1.0])
    assert Curve(uneven, np.full(4, 0.3)).auc() == pytest.approx(0.3)
    assert Curve(uneven, uneven).auc() == pytest.approx(0.5)
    assert Curve(uneven, np.array([1.0, 0.0, 0.0, 0.0])).auc() == pytest.approx(0.05)


@pytest.mark.parametrize("start", [0.0, -2.5])
def test_no_share_of_an_untouched_score_that_is_not_positive(start):
    plain = make_record(quantity="logit")
    score = np.concatenate([[start], plain.deletion.score[1:]])
    record = dataclasses.replace(plain, deletion=Curve(plain.deletion.fraction, score))
    raw = record.to_json()
    assert raw["deletion_auc_normalised"] is None
    assert raw["insertion_auc_normalised"] is None
    Draft202012Validator(SCHEMA).validate(raw)


def test_the_schema_is_one_and_accepts_records(record):
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(json.loads(record.dumps()))


def places(schema, path=()):
    """Every object the schema knows by name: path and required fields."""
    yield path, schema.get("required", [])
    for name, inner in schema.get("properties", {}).items():
        if inner.get("type") == "object":
            yield from places(inner, (*path, name))
        elif "$ref" in inner:
            yield from places(SCHEMA["$defs"][inner["$ref"].rsplit("/", 1)[1]], (*path, name))


REQUIRED = [(path, name) for path, names in places(SCHEMA) for name in names]


@pytest.mark.parametrize(("path", "name"), REQUIRED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_schema_refuses_a_missing_field(path, name):
    raw = json.loads(make_record(size=4, steps=2).dumps())
    inner = raw
    for step in path:
        inner = inner[step]
    del inner[name]
    messages = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(raw)]
    assert f"{name!r} is a required property" in messages


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("surprise",), 1, "'surprise' was unexpected"),
        (("settings", "extra"), 1, "'extra' was unexpected"),
        (("schema",), "triplecheck/audit-record/2", "'triplecheck/audit-record/1' was expected"),
        (("key",), "0123", "does not match"),
        (("fractions",), [0.0, 1.5], "greater than the maximum of 1"),
        (("settings", "direction"), "upwards", "is not one of"),
        (("readout", "badge"), "great", "is not one of"),
        (("map", "values", "dtype"), "float64", "'float32' was expected"),
        (("map", "values", "base64"), "%%%", "does not match"),
        (("advantage", "deletion", "n"), 1, "less than the minimum of 2"),
        (("forwards",), -1, "less than the minimum of 0"),
        (("label_index",), "Donut", "is not of type"),
    ],
)
def test_the_schema_refuses_foreign_values(path, value, complaint):
    raw = json.loads(make_record(size=4, steps=2).dumps())
    inner = raw
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert any(complaint in error.message for error in Draft202012Validator(SCHEMA).iter_errors(raw))


def test_the_schema_leaves_provenance_and_extra_open():
    raw = json.loads(make_record(size=4, steps=2).dumps())
    raw["provenance"]["site"] = raw["map"]["extra"]["site"] = "line 3"
    Draft202012Validator(SCHEMA).validate(raw)
    assert loads(json.dumps(raw)).provenance["site"] == "line 3"


def test_every_field_of_the_schema_is_described():
    def undescribed(schema, path):
        for name, inner in schema.get("properties", {}).items():
            if not inner.get("description"):
                yield f"{path}.{name}"
            yield from undescribed(inner, f"{path}.{name}")

    assert not [*undescribed(SCHEMA, ""), *(x for name, d in SCHEMA["$defs"].items() for x in undescribed(d, name))]
    assert SCHEMA["$id"] == "urn:triplecheck:audit-record:1"


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, min_side=0, max_side=5), elements=st.floats(width=32)))
def test_packed_arrays_are_exact(array):
    raw = json.loads(json.dumps(pack(array)))
    assert same(unpack(raw), array)
    assert base64.b64decode(raw["base64"]) == struct.pack(f"<{array.size}f", *array.ravel().tolist()) or (
        np.isnan(array).any()  # a NaN's payload is kept by pack, not by a detour over Python floats
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dtype": "float64"}, "dtype 'float64' is not float32"),
        ({"shape": [5, 5]}, "cannot reshape array of size 4"),
        ({"base64": "AAAA*AAA"}, "base64|alphabet"),
        ({"base64": "AAAAA"}, "padding|base64|characters"),
        ({"base64": "AAAA"}, "buffer size must be a multiple"),
    ],
)
def test_damaged_arrays_are_refused(change, complaint):
    raw = pack(np.ones((2, 2), dtype=np.float32)) | change
    with pytest.raises(ValueError, match=complaint):
        unpack(raw)
    whole = make_record(size=2, steps=2).to_json()
    whole["map"]["values"] = raw
    with pytest.raises(BadData, match="the audit record is damaged"):
        from_json(whole)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "found 'list'"),
        ("null", "found 'NoneType'"),
        ('{"schema": "other/1"}', "found 'other/1'"),
        ('{"schema": "triplecheck/audit-record/1"}', "damaged .*checkpoint"),
    ],
)
def test_foreign_text_is_refused(text, complaint):
    with pytest.raises(BadData, match=complaint):
        loads(text)


@pytest.mark.parametrize("name", [field for path, field in REQUIRED if path == () and field not in
                                  ("schema", "predicted", "target", "deletion_auc", "insertion_auc",
                                   "deletion_auc_normalised", "insertion_auc_normalised")])
def test_reading_refuses_a_missing_field(name):
    raw = make_record(size=4, steps=2).to_json()
    del raw[name]
    with pytest.raises(BadData, match=f"damaged .*{name}"):
        from_json(raw)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("target_index", 9, "class index out of range"),
        ("predicted_index", -1, "class index out of range"),
        ("deletion", [1.0, 0.5], "differ in length"),
        ("settings", {"steps": 0}, "steps must be a whole number"),
        ("settings", {"stride": 3}, "unexpected keyword"),
        ("explainer", "no name!", "expected name"),
        ("random", {}, "deletion"),
        ("map", None, "NoneType"),
        ("advantage", {"deletion": {"value": 1}}, "missing"),
    ],
)
def test_reading_refuses_wrong_values(name, value, complaint):
    raw = make_record(size=4, steps=2).to_json() | {name: value}
    with pytest.raises(BadData, match=f"damaged .*{complaint}"):
        from_json(raw)


def test_nan_is_never_written():
    record = dataclasses.replace(make_record(size=4, steps=2), seconds=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.dumps()


def test_arrays_of_a_record_cannot_be_changed():
    record = make_record(size=4, steps=2)
    for array in (record.values, record.pixels, record.probabilities, record.deletion.score, record.deletion.fraction):
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 7
    assert {f.name for f in dataclasses.fields(Controls)} == set(record.to_json()["random"])
