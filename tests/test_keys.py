"""Keys, parameters, registries and nouns: what decides that two audits are the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_core import keys
from audit_core.errors import AuditError, InvalidParameter, UnknownName
from audit_core.keys import Choice, canonical, key
from audit_core.params import Between, Note, OneOf, Parameter, parameters
from audit_core.registry import Registry
from audit_core.types import Attribution, AuditSpec, Curve, SourceImage, Triple, read_only

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=12)


@dataclass(frozen=True)
class Sample:
    """An entry with one parameter of every kind."""

    count: Annotated[int, Between(1, 100, "masks", "How many.")] = 5
    width: Annotated[float, Between(0.5, 2.0, "px", "How wide.")] = 1.0
    kind: Annotated[str, OneOf(("soft", "hard"), "Which.")] = "soft"
    sharp: Annotated[bool, Note("Whether.")] = False


def registry() -> Registry[Sample]:
    made: Registry[Sample] = Registry("gadget")
    made.register("sample")(Sample)
    return made


@given(WORD, st.dictionaries(WORD, WORD, max_size=4))
def test_choice_prints_and_parses_to_itself(name: str, params: dict[str, str]) -> None:
    choice = Choice(name, tuple(params.items()))
    assert Choice.parse(str(choice)) == choice


@given(st.integers(1, 100), st.floats(0.5, 2.0), st.sampled_from(["soft", "hard"]), st.booleans())
def test_complete_choice_survives_text(count: int, width: float, kind: str, sharp: bool) -> None:
    choice = Choice("sample", (("count", count), ("width", width), ("kind", kind), ("sharp", sharp)))
    again = registry().complete(Choice.parse(str(choice)))
    assert again == choice
    assert [type(value) for _, value in again.params] == [int, float, str, bool]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected name"),
        ("ri se", "expected name"),
        ("rise:n", "expected key=value after 'rise', got 'n'"),
        ("rise:=3", "expected key=value"),
        ("rise:n=3,n=4", "given twice"),
    ],
)
def test_choice_refuses(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Choice.parse(text)


def test_choice_ignores_blanks_and_keeps_empty_values() -> None:
    assert Choice.parse(" cam: layer = , relu=true ") == Choice("cam", (("layer", ""), ("relu", "true")))


def test_key_is_the_hash_of_this_very_text() -> None:
    text = json.dumps({"a": [1, 2.5, None, True], "b": "é", "version": keys.VERSION}, sort_keys=True)
    assert key(b="é", a=(1, 2.5, None, True)) == hashlib.sha256(text.encode()).hexdigest()


def test_key_changes_with_the_computation_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(a=1)
    monkeypatch.setattr(keys, "VERSION", keys.VERSION + 1)
    assert key(a=1) != before


def test_values_of_different_kind_have_different_keys() -> None:
    values = [1, 1.0, True, "1", None, [1], [[1]], {"1": 1}, np.array(1), np.array([1]), np.array([1.0]), Choice("1")]
    assert len({key(value=value) for value in values}) == len(values)


def test_order_of_named_parts_is_immaterial() -> None:
    assert key(a={"x": 1, "y": 2}, b=2) == key(b=2, a={"y": 2, "x": 1})


def test_every_bit_of_an_array_counts() -> None:
    base = np.linspace(0, 1, 50_000, dtype=np.float32).reshape(100, 500)
    near = base.copy()
    near[50, 250] = np.nextafter(near[50, 250], np.float32(2))
    arrays = [base, near, base.reshape(500, 100), base.astype(np.float64), base.astype(">f4"), base.view(np.int32)]
    assert len({key(array=array) for array in arrays}) == len(arrays)
    assert canonical(base)["sha256"] == hashlib.sha256(base.tobytes()).hexdigest()


def test_memory_layout_of_an_array_is_immaterial() -> None:
    base = np.arange(12.0).reshape(3, 4)
    assert key(a=base) == key(a=np.asfortranarray(base)) == key(a=np.repeat(base, 2, axis=1)[:, ::2])


@pytest.mark.parametrize(
    "value",
    [{1, 2}, float("nan"), float("inf"), object(), b"x", {1: 2}, np.int64(3), lambda: 0, Choice, np.array([object()])],
    ids=lambda value: type(value).__name__,
)
def test_no_canonical_form(value: object) -> None:
    with pytest.raises(TypeError, match="canonical form"):
        key(value=value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", "7", 7), ("count", 7.0, 7), ("count", np.int64(7), 7), ("width", "1.5", 1.5), ("width", 1, 1.0),
        ("kind", "hard", "hard"), ("sharp", "Yes", True), ("sharp", "0", False), ("sharp", True, True),
        ("count", 1, 1), ("count", 100, 100), ("width", 0.5, 0.5), ("width", 2.0, 2.0),
    ],
)
def test_parameter_is_converted(name: str, value: object, expected: object) -> None:
    parsed = parameters(Sample)[name].parse(value, "gadget 'sample'")
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, r"gadget 'sample': count must be in \[1, 100\] masks, got 0"),
        ("count", "101", r"count must be in \[1, 100\] masks, got '101'"),
        pytest.param("count", 10**400, r"count must be in \[1, 100\]", id="huge"),
        ("count", 2.5, "count must be a whole number, got 2.5"),
        ("count", "2.5", "count must be a whole number"),
        ("count", True, "count must be a whole number, got True"),
        ("count", None, "count must be a whole number, got None"),
        ("count", float("inf"), "count must be a whole number"),
        ("width", "nan", "width must be a number, got 'nan'"),
        ("width", "inf", "width must be a number"),
        ("width", "wide", "width must be a number"),
        ("width", 2.0000001, r"width must be in \[0.5, 2\] px"),
        ("kind", "Soft", "kind must be one of soft, hard; got 'Soft'"),
        ("kind", 3, "kind must be a word, got 3"),
        ("sharp", "maybe", "sharp must be true or false, got 'maybe'"),
        ("sharp", 1, "sharp must be true or false, got 1"),
    ],
)
def test_parameter_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parameters(Sample)[name].parse(value, "gadget 'sample'")


def test_parameters_are_read_from_the_class() -> None:
    assert parameters(Sample)["width"] == Parameter("width", float, 1.0, Between(0.5, 2.0, "px", "How wide."))
    assert list(parameters(Sample)) == ["count", "width", "kind", "sharp"]


def test_a_field_without_limits_cannot_register() -> None:
    @dataclass(frozen=True)
    class Bare:
        """Has a field of which nothing is known."""

        width: float = 1.0

    with pytest.raises(TypeError, match="width must be Annotated"):
        Registry("gadget").register("bare")(Bare)


def test_a_field_without_default_cannot_register() -> None:
    @dataclass(frozen=True)
    class Needy:
        """Has a field that must be given."""

        width: Annotated[float, Between(0, 1)]

    with pytest.raises(TypeError, match="width needs a default"):
        Registry("gadget").register("needy")(Needy)


def test_registry_refuses_another_class_of_the_same_name() -> None:
    made = registry()

    @dataclass(frozen=True)
    class Rival:
        """Another class."""

    with pytest.raises(ValueError, match=r"gadget 'sample' is already .*Sample"):
        made.register("sample")(Rival)
    assert made.register("sample")(Sample) is Sample


def test_registry_wants_frozen_and_documented_dataclasses() -> None:
    @dataclass
    class Loose:
        """Not frozen."""

    @dataclass(frozen=True)
    class Silent:
        pass

    with pytest.raises(TypeError, match="must be a frozen dataclass"):
        Registry("gadget").register("loose")(Loose)
    with pytest.raises(TypeError, match="needs a docstring"):
        Registry("gadget").register("silent")(Silent)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no gadget named 'sampel'. Did you mean 'sample'\? Known: sample"):
        registry()["sampel"]
    with pytest.raises(LookupError, match=r"no gadget named 'q'. Known"):
        registry().build(Choice("q"))


def test_build_checks_and_fills_in_defaults() -> None:
    made = registry()
    assert made.build(Choice.parse("sample:count=9")) == Sample(count=9)
    assert made.complete(Choice("sample")) == made.complete(Choice.parse("sample:sharp=no,kind=soft"))
    with pytest.raises(InvalidParameter, match=r"'sample' has no parameter 'size'; it has count, width, kind, sharp"):
        made.build(Choice.parse("sample:size=9"))


def test_registry_describes_its_entries() -> None:
    made = registry()
    assert made.defaults("sample") == {"count": 5, "width": 1.0, "kind": "soft", "sharp": False}
    assert made.help("sample") == "An entry with one parameter of every kind."
    assert list(made) == ["sample"]
    assert len(made) == 1


def test_read_only_copies_what_the_caller_may_still_write() -> None:
    mine = np.zeros((2, 3))
    kept = read_only(mine)
    mine[0, 0] = 1
    assert kept[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 2
    assert read_only(kept) is kept


def test_a_read_only_view_does_not_follow_its_base() -> None:
    base = np.zeros((2, 3))
    view = base.view()
    view.setflags(write=False)
    kept = read_only(view)
    base[0, 0] = 1
    assert kept[0, 0] == 0


def test_source_image_is_known_by_its_content() -> None:
    codes = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = SourceImage(codes, True, "a")
    assert image.digest == SourceImage(codes.copy(), True, "b", ("note",)).digest
    others = [(codes, False), (codes.reshape(1, 4), True), (codes.T, True)]
    assert len({image.digest, *(SourceImage(values, wafer, "a").digest for values, wafer in others)}) == 4


SPEC = AuditSpec(Triple("net", Choice("rise"), Choice("zero")), "synthetic:sample:0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, r"steps must be a whole number in \[1, 10000\], got 0"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"patch": True}, "patch must be a whole number"),
        ({"controls": 201}, "controls must be"),
        ({"seed": -1}, "seed must be"),
        ({"direction": "up"}, "direction must be one of most, least; got 'up'"),
        ({"quantity": "odds"}, "quantity must be one of probability, logit"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16"),
    ],
)
def test_spec_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(AuditError, match=message):
        dataclasses.replace(SPEC, **change)


def test_every_field_of_a_spec_changes_its_key_and_it_is_hashable() -> None:
    other = {
        "triple": Triple("net", Choice("rise"), Choice("blur")), "image": "synthetic:sample:1", "target": "label",
        "steps": 10, "patch": 2, "direction": "least", "quantity": "logit", "controls": 9, "seed": 1,
        "precision": "bf16", "against": "ring",
    }
    assert set(other) == set(AuditSpec.__dataclass_fields__)
    changed = [dataclasses.replace(SPEC, **{name: value}) for name, value in other.items() if name != "against"]
    changed.append(dataclasses.replace(SPEC, quantity="logit", against="ring"))  # a contrast is one of logits
    assert len({key(spec=spec) for spec in [SPEC, *changed]}) == len(changed) + 1
    assert len({SPEC, *changed, dataclasses.replace(SPEC)}) == len(changed) + 1


def test_attribution_is_float32_and_frozen() -> None:
    values = np.arange(8.0).reshape(2, 2, 2)
    found = Attribution(values, np.array([0, 1], dtype=np.int32), signed=False, error=values)
    assert (found.values.dtype, found.target.dtype, found.error.dtype) == (np.float32, np.int64, np.float32)
    values[:] = 9
    np.testing.assert_array_equal(found.values.ravel(), np.arange(8))
    np.testing.assert_array_equal(found.error.ravel(), np.arange(8))
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0, 0] = 1
    with pytest.raises(ValueError, match=r"values must be \(n, h, w\) and target \(n,\)"):
        Attribution(values[0], np.array([0, 1]), signed=False)


def test_area_of_simple_curves() -> None:
    fraction = np.array([0.0, 0.1, 0.4, 1.0])
    assert Curve(fraction, np.full(4, 0.7)).auc() == pytest.approx(0.7, abs=1e-15)
    assert Curve(fraction, 3 * fraction + 1).auc() == pytest.approx(2.5, abs=1e-15)
    assert Curve([0, 0.5, 1], [1, 0, 0]).auc() == 0.25
