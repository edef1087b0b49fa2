"""Maps from files and explainers from other packages: what is read, what is refused, and what cannot be broken."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import BadData, InvalidParameter, Refused
from audit_core.explainers import EXPLAINERS, outside
from audit_core.explainers.base import Cost, Explainer
from audit_core.explainers.outside import MAX_VALUES, Outside, bind, fitted, load_plugins, read_map, wrap
from audit_core.keys import Choice

TARGET = torch.tensor([2, 0])
SHA = "a" * 64


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """An npy file that promises ``shape`` and holds nothing."""
    words = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


# Reading files

PLANE = np.arange(12, dtype=np.float64).reshape(3, 4) - 5


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "<i4", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_map_is_read_as_it_was_saved(dtype: str, order: str) -> None:
    array = np.asarray(PLANE.astype(dtype), order=order)
    for data in (npy(array), npz(any_name=array)):
        found = read_map(data, "map.npy")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, PLANE)
    np.testing.assert_array_equal(read_map(npy(PLANE.clip(0).astype(np.uint8)), "map.npy"), PLANE.clip(0))


def encrypted() -> bytes:
    """An archive whose only member claims to be encrypted."""
    data = bytearray(npz(a=PLANE))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "map.npy is empty"),
        (b"\x89PNG\r\n\x1a\n", "map.npy is no .npy or .npz file"),
        (npy(PLANE)[:-8], "map.npy is cut off or damaged"),
        (npy(PLANE)[:20], "map.npy has a damaged header"),
        (b"\x93NUMPY\x01\x00\x04\x00((((", "map.npy has a damaged header"),
        (npy(np.array([[{}]], dtype=object), pickled=True), "holds pickled objects, which are never loaded"),
        (npy(PLANE.astype(complex)), "must hold floats or whole numbers, found complex128"),
        (npy(PLANE > 0), "must hold floats or whole numbers, found bool"),
        (npy(np.array([["a"]])), "must hold floats or whole numbers, found <U1"),
        (npy(np.zeros((2, 2), [("x", "f4")])), "must hold floats or whole numbers"),
        (npy(PLANE[0]), r"must be one map of 2 dimensions \(rows, columns\), found shape \(4,\)"),
        (npy(PLANE[None, None]), r"found shape \(1, 1, 3, 4\)"),
        (npy(np.zeros((0, 4))), r"has no values, its shape is \(0, 4\)"),
        (npy(np.where(PLANE == 0, np.nan, PLANE)), "has 1 values that are NaN or infinite"),
        (npy(np.where(PLANE > 0, np.inf, PLANE)), "has 6 values that are NaN or infinite"),
        (npy(PLANE * 1e300), "values beyond the range of float32"),
        (header((10**5, 10**5)), f"has 100000x100000 values; the limit is {MAX_VALUES:,} values"),
        (header((-3, 4)), "map.npy is cut off or damaged"),
        (npz(a=PLANE, b=PLANE), r"exactly one array, found 2 \(a, b\)"),
        (npz(), "map.npy is no .npy or .npz file"),
        (npz(a=PLANE)[:-30], "map.npy is a damaged or encrypted archive"),
        (encrypted(), "map.npy is a damaged or encrypted archive"),
        (npz(a=PLANE[0]), r"found shape \(4,\)"),
    ],
)
def test_a_file_that_is_no_map_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadData, match=reason) as caught:
        read_map(data, "map.npy")
    assert "map.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_that_would_unpack_to_very_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "MAX_VALUES", 10_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(BadData, match="has 8,000,128 bytes; the limit is 10,000 values"):
        read_map(npz(a=np.zeros((1000, 1000))), "map.npz")


@pytest.mark.parametrize("seed", range(5))
def test_bytes_at_random_never_raise_anything_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for whole in (npy(PLANE), npz(a=PLANE)):
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 160), 3):
                data[place] = rng.integers(256)
            try:
                found = read_map(bytes(data), "map.npy")
                assert found.ndim == 2
            except BadData:
                pass


# Maps from outside


def bound(values: np.ndarray) -> Explainer:
    return bind(Outside(SHA), values)


def test_a_map_of_the_images_size_comes_back_as_it_is() -> None:
    found, values = tiny.classifier(tiny.cnn()), np.random.default_rng(0).standard_normal((16, 16))
    ours = bound(values).attribute(found, tiny.images(1), TARGET[:1], 0)
    np.testing.assert_array_equal(ours.values[0], values.astype(np.float32))
    assert ours.signed
    assert ours.extra == {"map": SHA, "grid": [16, 16]}
    assert found.forwards == ours.forwards == 0
    assert not bound(np.abs(values)).attribute(found, tiny.images(1), TARGET[:1], 0).signed


def interpolated(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between cell centres along each axis, flat beyond the outer centres."""
    for axis, wanted in enumerate(size):
        places = (np.arange(wanted) + 0.5) * coarse.shape[axis] / wanted - 0.5
        coarse = np.apply_along_axis(lambda line, p=places: np.interp(p, np.arange(len(line)), line), axis, coarse)
    return coarse


def test_a_map_of_another_size_is_resized_bilinearly() -> None:
    values = np.random.default_rng(0).standard_normal((4, 4))
    np.testing.assert_allclose(fitted(values.astype(np.float32), (16, 16)), interpolated(values, (16, 16)), atol=1e-6)
    values = np.random.default_rng(0).standard_normal((3, 6))
    np.testing.assert_allclose(fitted(values.astype(np.float32), (8, 16)), interpolated(values, (8, 16)), atol=1e-6)
    small = fitted(np.random.default_rng(1).random((64, 64)).astype(np.float32), (4, 4))
    assert small.std() < 0.05, "shrinking must average, not pick single values"


def test_a_map_of_another_aspect_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="has 10x16 values, the model sees 16x16 pixels; make a map of the same"):
        bound(np.zeros((10, 16))).attribute(tiny.classifier(tiny.cnn()), tiny.images(1), TARGET[:1], 0)
    assert fitted(np.zeros((199, 200), np.float32), (224, 224)).shape == (224, 224)


def test_a_map_belongs_to_one_image() -> None:
    with pytest.raises(Refused, match="belongs to one image; 2 were to be explained"):
        bound(np.zeros((16, 16))).attribute(tiny.classifier(tiny.cnn()), tiny.images(2), TARGET, 0)


def test_without_a_file_there_is_no_map() -> None:
    card = tiny.cnn()[0]
    assert "tiny-cnn" in str(Outside().refuse(card))
    assert Outside(SHA).refuse(card) is None
    assert bound(np.zeros((16, 16))).refuse(card) is None
    with pytest.raises(InvalidParameter, match=r"no file was given; give its \.npy or \.npz file"):
        Outside(SHA).attribute(tiny.classifier(tiny.cnn()), tiny.images(1), TARGET[:1], 0)
    with pytest.raises(InvalidParameter, match=r"given to Random order \(control\), which makes its own"):
        bind(EXPLAINERS.build(Choice("random")), np.zeros((16, 16)))


def test_a_bound_map_cannot_be_changed_from_outside() -> None:
    values = np.zeros((16, 16), np.float32)
    explainer = bound(values)
    values[:] = 7
    ours = explainer.attribute(tiny.classifier(tiny.cnn()), tiny.images(1), TARGET[:1], 0)
    assert ours.values.max() == 0


# Plug-ins


def gradient(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Absolute gradient of the target's logit, summed over channels."""
    images.requires_grad_()
    model(images).gather(1, target[:, None]).sum().backward()
    return images.grad.abs().sum(1)


def built(function: Callable[..., Any], name: str = "strange") -> Explainer:
    return wrap(name, function, "strange-package 1.0")()


def test_a_function_becomes_an_explainer() -> None:
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(2)
    explainer = built(gradient)
    ours = explainer.attribute(found, pixels, TARGET, 0)
    expected = EXPLAINERS.build(Choice("saliency")).attribute(found, pixels, TARGET, 0)
    np.testing.assert_allclose(ours.values, expected.values, rtol=1e-5)  # one channel: sum and maximum are the same
    assert (ours.forwards, ours.backwards, ours.signed) == (2, 2, False)
    assert found.forwards == 4
    assert explainer.cost(found.card) == Cost(1000, 1000)
    assert type(explainer).__doc__.startswith("Absolute gradient of the target's logit")
    assert "strange-package 1.0" in type(explainer).__doc__
    assert (explainer.title, explainer.family, explainer.reads) == ("strange (plug-in)", "outside", "outside")
    assert explainer.refuse(found.card) is None


def test_a_plug_in_under_a_contrast_explains_the_difference() -> None:
    found, pixels = tiny.classifier(tiny.linear()), tiny.images(1, 8)
    weights = found.module[1].weight.detach().view(3, 8, 8)
    ours = built(gradient).attribute(found.against(1), pixels, TARGET[:1], 0)
    np.testing.assert_allclose(ours.values[0], (weights[2] - weights[1]).abs().numpy(), rtol=1e-4)


def vandal(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """Breaks whatever it can reach."""
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3)
            parameter.requires_grad_(True)
    for part in model.modules():
        part.register_forward_hook(lambda *_: None)
    model.head = nn.Identity()
    shape = (1, *images.shape[2:])
    images.zero_()
    target.zero_()
    torch.set_grad_enabled(False)
    return np.random.random(shape)  # noqa: NPY002


def test_a_vandal_breaks_nothing() -> None:
    found, pixels, target = tiny.classifier(tiny.cnn()), tiny.images(2), TARGET.clone()
    before = {name: value.clone() for name, value in found.module.state_dict().items()}
    logits = found.predict(pixels)
    ours = built(vandal).attribute(found, pixels, target, 5)
    assert torch.equal(logits, found.predict(pixels))
    assert all(torch.equal(value, before[name]) for name, value in found.module.state_dict().items())
    assert torch.equal(pixels, tiny.images(2))
    assert torch.equal(target, TARGET)
    assert torch.is_grad_enabled()
    assert not any(part._forward_hooks or part.training for part in found.module.modules())
    assert all(parameter.requires_grad for parameter in found.module.parameters())
    again = built(vandal).attribute(found, pixels[1:], target[1:], 5)
    np.testing.assert_array_equal(ours.values[1:], again.values)  # its global draws follow the seed, per image
    assert (ours.values != built(vandal).attribute(found, pixels, target, 6).values).any()


def raising(*_: Any) -> None:
    raise KeyError("first line\nsecond line")


def endless(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> None:
    while True:
        model(images)


def backwards(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> None:
    output = model(images.requires_grad_()).sum()
    while True:
        output.backward(retain_graph=True)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raising, "plug-in 'strange' failed with KeyError: 'first line"),
        (lambda *_: None, "must return an array of floats, it returned NoneType"),
        (lambda *_: [[1.0]], "must return an array of floats, it returned list"),
        (lambda *_: np.zeros((1, 16, 16), bool), "must return an array of floats, it returned bool"),
        (lambda *_: torch.zeros(1, 16, 16, dtype=torch.complex64), "it returned torch.complex64"),
        (lambda *_: np.zeros((16, 16)), r"must return maps of shape \(1, 16, 16\), it returned \(16, 16\)"),
        (lambda *_: np.full((1, 16, 16), np.nan), "returned 256 NaN or infinite values"),
        (lambda *_: np.full((1, 16, 16), 1e300), "returned 256 NaN or infinite values"),
        (endless, "more than 1000 forward evaluations per image"),
        (backwards, "more than 1000 backward evaluations per image"),
    ],
)
def test_a_plug_in_that_goes_wrong_is_refused_by_name(function: Callable[..., Any], reason: str) -> None:
    found = tiny.classifier(tiny.cnn())
    with pytest.raises(Refused, match=reason) as caught:
        built(function).attribute(found, tiny.images(1), TARGET[:1], 0)
    assert "plug-in 'strange'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(part._forward_hooks for part in found.module.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int32, torch.float64])
def test_any_kind_of_number_will_do(dtype: torch.dtype) -> None:
    ours = built(lambda *_: torch.ones(1, 16, 16, dtype=dtype))
    assert ours.attribute(tiny.classifier(tiny.cnn()), tiny.images(1), TARGET[:1], 0).values.max() == 1


def test_a_stated_cost_is_the_limit() -> None:
    def costly(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> np.ndarray:
        for _ in range(3):
            model(images)
        return np.zeros((1, 16, 16))

    found = tiny.classifier(tiny.cnn())
    costly.cost = (3, 0)  # type: ignore[attr-defined]
    assert built(costly).cost(found.card) == Cost(3, 0)
    assert built(costly).attribute(found, tiny.images(2), TARGET, 0).forwards == 6
    costly.cost = (2, 0)  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="more than 2 forward evaluations per image; its author can set cost"):
        built(costly).attribute(found, tiny.images(1), TARGET[:1], 0)


# Loading


class Unregistered(Explainer):
    """An Explainer class that has not registered itself."""


class Offered:
    """Stands in for what an installed package brings: name, where it is, and what is found there."""

    dist = None

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.value, self._found = name, f"somewhere:{name}", found

    def load(self) -> Any:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Load the given entry points; whatever they register is taken off again."""
    entries, known = dict(EXPLAINERS._entries), dict(EXPLAINERS._parameters)

    def load(*offered: Any) -> None:
        monkeypatch.setattr(outside, "entry_points", lambda group: offered if group == outside.GROUP else ())
        load_plugins()

    yield load
    EXPLAINERS._entries, EXPLAINERS._parameters = entries, known


def test_a_function_is_registered_under_the_entry_points_name(offer: Callable[..., None]) -> None:
    before = list(EXPLAINERS)
    offer(Offered("my-gradient", gradient))
    assert list(EXPLAINERS) == [*before, "my-gradient"]
    assert EXPLAINERS.help("my-gradient").startswith("Absolute gradient")
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(1)
    ours = EXPLAINERS.build(Choice("my-gradient")).attribute(found, pixels, TARGET[:1], 0)
    assert ours.values.max() > 0
    offer(Offered("my-gradient", gradient))  # a page reload does that
    assert list(EXPLAINERS) == [*before, "my-gradient"]


def test_a_registered_class_is_taken_as_it_is(offer: Callable[..., None], recwarn: pytest.WarningsRecorder) -> None:
    before = list(EXPLAINERS)
    offer(Offered("anything", EXPLAINERS["saliency"]))
    assert list(EXPLAINERS) == before
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("broken", ImportError("no module strange"), "'broken' is left out: ImportError: no module strange"),
        ("number", 7, "TypeError: expected an Explainer class or a function"),
        ("module", nn.Linear, "TypeError: expected an Explainer class or a function"),
        ("loose", Unregistered, "TypeError: an Explainer class has to register itself"),
        ("Bad Name", gradient, "ValueError: the name must be lower-case words"),
        ("saliency", gradient, "ValueError: the name is taken by"),
    ],
)
def test_a_broken_plug_in_warns_and_leaves_the_others_alone(
    offer: Callable[..., None], name: str, found: Any, reason: str
) -> None:
    before = dict(EXPLAINERS)
    with pytest.warns(UserWarning, match=reason) as caught:
        offer(Offered(name, found), Offered("good", gradient))
    assert len(caught) == 1
    assert dict(EXPLAINERS) == {**before, "good": EXPLAINERS["good"]}


def test_two_packages_cannot_share_a_name(offer: Callable[..., None]) -> None:
    first, second = Offered("shared", gradient), Offered("shared", vandal)
    second.value = "elsewhere:shared"
    with pytest.warns(UserWarning, match=r"the name is taken by 'shared \(plug-in\)'"):
        offer(first, second)
    assert EXPLAINERS.help("shared").startswith("Absolute gradient")


def test_real_entry_points_are_understood(offer: Callable[..., None]) -> None:
    offer(EntryPoint("from-numpy", "numpy:zeros", outside.GROUP))
    assert EXPLAINERS["from-numpy"].library == "numpy:zeros"
    with pytest.raises(Refused, match="plug-in 'from-numpy' failed with TypeError"):
        EXPLAINERS.build(Choice("from-numpy")).attribute(tiny.classifier(tiny.cnn()), tiny.images(1), TARGET[:1], 0)


def test_classifier_is_untouched_by_a_failing_plug_in() -> None:
    module = tiny.cnn()[1].train()
    found = Classifier(tiny.cnn()[0], module, tiny.CPU)
    with pytest.raises(Refused, match="failed with KeyError"):
        built(raising).attribute(found, tiny.images(1), TARGET[:1], 0)
    assert all(part.training for part in module.modules())
    assert found.forwards == 0
