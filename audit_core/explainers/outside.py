"""Maps from outside: a file that somebody made elsewhere, and explainers that other packages bring as plug-ins.

A plug-in is an entry point of the group ``triplecheck.explainers``. It names either an :class:`Explainer` class that
registers itself, or a function ``f(model, images, target) -> maps``: images are normalised, float32 (n, channels, rows,
columns); target is int64 (n,); maps (n, rows, columns), higher = more evidence for the target.
"""

from __future__ import annotations

import copy
import inspect
import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from audit_core.classifier import Classifier
from audit_core.errors import BadData, InvalidParameter, Refused
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer, Report, silent
from audit_core.params import Note
from audit_core.types import Attribution, read_only
from models.cards import ModelCard

GROUP = "triplecheck.explainers"
MAX_VALUES = 40_000_000  # as many as an uploaded image may have pixels
ASPECT = 0.01  # relative difference of two aspects that count as the same
LIMIT = Cost(1000, 1000)  # images that a plug-in may evaluate per explained image, unless it states its own ``cost``

#: A stranger's explainer; see the module's docstring.
Function = Callable[[nn.Module, torch.Tensor, torch.Tensor], "np.ndarray | torch.Tensor"]


def read_map(data: bytes, name: str) -> np.ndarray:
    """The map in an ``.npy`` file, or in an ``.npz`` file that holds one array: float32 (rows, columns), finite.

    name: the file's name, for messages. ``BadData`` says in one sentence what is wrong. Nothing is ever unpickled,
    and nothing large is unpacked before its header has been looked at.
    """
    if not data:
        raise BadData(f"{name} is empty; save the map with numpy.save and upload the file again")
    if data[:4] == b"PK\x03\x04":
        data = _only_member(data, name)
    if data[:6] != b"\x93NUMPY":
        raise BadData(f"{name} is no .npy or .npz file; save the map with numpy.save")
    _check_header(data, name)
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise BadData(f"{name} is cut off or damaged; save the map again with numpy.save") from None
    return _checked(values, name)


def _only_member(data: bytes, name: str) -> bytes:
    """The bytes of the single array of an npz archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                names = ", ".join(member.filename.removesuffix(".npy") for member in members[:8]) or "none"
                raise BadData(f"{name} must hold exactly one array, found {len(members)} ({names}); save the map alone")
            if members[0].file_size > 16 * MAX_VALUES:
                raise BadData(_too_large(name, f"{members[0].file_size:,} bytes"))
            return archive.read(members[0])
    except BadData:
        raise
    except Exception:  # whatever an unpacker stumbles over
        raise BadData(f"{name} is a damaged or encrypted archive; save the map again with numpy.savez") from None


def _check_header(data: bytes, name: str) -> None:
    """What the header of an npy file promises, before any value is read."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception:  # whatever the header parser stumbles over
        raise BadData(f"{name} has a damaged header; save the map again with numpy.save") from None
    if dtype.hasobject:
        raise BadData(f"{name} holds pickled objects, which are never loaded; save the map as an array of floats")
    if dtype.kind not in "fiu":
        raise BadData(f"{name} must hold floats or whole numbers, found {dtype}; save it as float32")
    if len(shape) != 2:
        raise BadData(
            f"{name} must be one map of 2 dimensions (rows, columns), found shape {shape}; save a single map"
        )
    if 0 in shape:
        raise BadData(f"{name} has no values, its shape is {shape}; save a map with at least one")
    if shape[0] * shape[1] > MAX_VALUES:
        raise BadData(_too_large(name, f"{shape[0]}x{shape[1]} values"))


def _too_large(name: str, size: str) -> str:
    return f"{name} has {size}; the limit is {MAX_VALUES:,} values, save the map at a lower resolution"


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise BadData(f"{name} has {count} values that are NaN or infinite; replace them before saving the map")
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(found).all():
        raise BadData(f"{name} has values beyond the range of float32 (3.4e38); rescale the map before saving it")
    return found


def bind(explainer: Explainer, values: np.ndarray) -> Explainer:
    """``explainer`` with the map it needs; ``InvalidParameter`` where it needs none."""
    if not isinstance(explainer, Outside):
        raise InvalidParameter(
            f"a map from a file was given to {explainer.title}, which makes its own; choose the explainer outside"
        )
    return explainer.bound(values)


@EXPLAINERS.register("outside")
@dataclass(frozen=True)
class Outside(Explainer):
    """A map from outside: made elsewhere and given as a file, it is audited as any other.

    The file is .npy, or .npz with one array: floats or whole numbers, (rows, columns), higher = more evidence for the
    target. A map of another size and the same aspect is resized bilinearly; its values are never rescaled. The model is
    not asked, so nobody knows whether the map belongs to this checkpoint, image and target: that is the auditor's word.
    """

    title: ClassVar[str] = "Map from a file"
    family: ClassVar[str] = "outside"
    reads: ClassVar[str] = "outside"
    formula: ClassVar[str] = "map = the file's values, resized to the image"
    source: ClassVar[str] = "the file that is given; its sha256 is in the record"
    witness: ClassVar[str] = (
        "the same values back; linear interpolation written out: "
        "tests/test_outside.py::test_a_map_of_the_images_size_comes_back_as_it_is, "
        "tests/test_outside.py::test_a_map_of_another_size_is_resized_bilinearly"
    )
    pitfalls: ClassVar[str] = (
        "It cannot be computed again for another image or model, so checks that need that are refused. A map that was "
        "made on another crop of the picture is misplaced without anybody noticing."
    )
    needs: ClassVar[str] = "map"

    map: Annotated[str, Note("sha256 of the map's file, as the store keeps it; set by giving a file.")] = ""

    def refuse(self, card: ModelCard) -> str | None:
        """Without a file there is nothing to audit."""
        if not self.map:
            return f"a map from outside is audited on {card.name} once a .npy or .npz file is given, and none was"
        return None

    def cost(self, card: ModelCard) -> Cost:
        """Nothing."""
        return Cost(0)

    def bound(self, values: np.ndarray) -> Explainer:
        """The explainer that yields ``values``, finite float32 (rows, columns), for the one image they belong to."""
        return Bound(self.map, read_only(np.asarray(values, dtype=np.float32)))

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """``InvalidParameter``: a file is missing."""
        raise InvalidParameter("a map from outside was asked for, no file was given; give its .npy or .npz file")


@dataclass(frozen=True, eq=False)
class Bound(Outside):
    """A map from outside with its values."""

    values: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.float32))

    def refuse(self, card: ModelCard) -> str | None:
        """Whether it fits is known once the image is."""
        return None

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """The map at the image's size; ``Refused`` for several images, ``InvalidParameter`` for another aspect."""
        if len(images) != 1:
            raise Refused(f"a map from outside belongs to one image; {len(images)} were to be explained")
        values = fitted(self.values, (images.shape[-2], images.shape[-1]))
        extra = {"map": self.map, "grid": list(self.values.shape)}
        return Attribution(values[None], target.cpu().numpy(), bool((values < 0).any()), None, 0, 0, extra)


def fitted(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``values`` resized to (rows, columns) bilinearly, widened when shrinking; ``InvalidParameter`` if distorted."""
    rows, columns = values.shape
    if abs(rows * size[1] - columns * size[0]) > ASPECT * rows * size[1]:
        raise InvalidParameter(
            f"the map from outside has {rows}x{columns} values, the model sees {size[0]}x{size[1]} pixels; "
            "make a map of the same aspect, on the image as the model sees it"
        )
    if (rows, columns) == size:
        return values
    plane = torch.from_numpy(np.array(values))[None, None]
    return F.interpolate(plane, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0].numpy()


class PlugIn(Explainer):
    """Base of the explainers made from a stranger's function; subclasses are made by :func:`wrap`."""

    family: ClassVar[str] = "outside"
    reads: ClassVar[str] = "outside"
    formula: ClassVar[str] = "not stated: see the plug-in's own documentation"
    witness: ClassVar[str] = "none: shape, finiteness and isolation are checked on every call, its numbers are not"
    pitfalls: ClassVar[str] = "Foreign code: what it computes is its author's word. Its maps are audited as any other."
    name: ClassVar[str]
    function: ClassVar[Function]
    stated: ClassVar[Cost]

    def cost(self, card: ModelCard) -> Cost:
        """The most that the plug-in may evaluate; it is stopped beyond."""
        return self.stated

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        """One call per image on a copy of the model; ``Refused`` names the plug-in and what it did wrong."""
        maps, spent = [], Cost(0)
        for image, wanted in zip(images, target.tolist(), strict=True):
            values, forwards, backwards = self._one(classifier, image[None], wanted, seed)
            maps.append(values)
            classifier.forwards += forwards
            spent = Cost(spent.forwards + forwards, spent.backwards + backwards)
            report(len(maps) / len(images), f"image {len(maps)} of {len(images)}", values)
        stacked = np.stack(maps)
        signed = bool((stacked < 0).any())
        return Attribution(stacked, target.cpu().numpy(), signed, None, spent.forwards, spent.backwards)

    def _one(self, classifier: Classifier, image: torch.Tensor, wanted: int, seed: int) -> tuple[np.ndarray, int, int]:
        """Map (rows, columns) of one image (1, channels, rows, columns), and the evaluations that it took."""
        try:
            with classifier.lend() as module, torch.enable_grad():
                private = copy.deepcopy(module)  # whatever happens to it, the model is as found
                meter = _Meter(private, self.stated)
                inputs = classifier.normalise(image)  # a new tensor: the pixels are out of reach
                _seed_everything(seed)
                found = type(self).function(private, inputs, torch.tensor([wanted], device=inputs.device))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200].rstrip(".")
            raise Refused(f"plug-in {self.name!r} failed with {type(error).__name__}: {reason}") from error
        return self._valid(found, image.shape[-2:]), meter.forwards, meter.backwards

    def _valid(self, values: Any, size: torch.Size) -> np.ndarray:  # Any: whatever a stranger's function returns
        if isinstance(values, torch.Tensor) and not values.is_complex():
            values = values.detach().to("cpu", torch.float32).numpy()  # numpy has no bfloat16
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
            kind = getattr(values, "dtype", type(values).__name__)
            raise Refused(f"plug-in {self.name!r} must return an array of floats, it returned {kind}")
        if values.shape != (1, *size):
            raise Refused(f"plug-in {self.name!r} must return maps of shape {(1, *size)}, it returned {values.shape}")
        with np.errstate(over="ignore"):
            values = np.array(values[0], dtype=np.float32)
        if not np.isfinite(values).all():
            raise Refused(f"plug-in {self.name!r} returned {int((~np.isfinite(values)).sum())} NaN or infinite values")
        return values


class _Meter:
    """Counts the images that go through ``module`` and back, and stops it beyond ``limit``."""

    def __init__(self, module: nn.Module, limit: Cost) -> None:
        self.forwards = self.backwards = 0
        self.limit = limit
        module.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:  # Any: the module's inputs
        self.forwards += len(logits)
        self._check(self.forwards, self.limit.forwards, "forward")
        if logits.requires_grad:
            logits.register_hook(self._backward)

    def _backward(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)
        self._check(self.backwards, self.limit.backwards, "backward")

    def _check(self, spent: int, limit: int, way: str) -> None:
        if spent > limit:
            raise RuntimeError(
                f"more than {limit} {way} evaluations per image; its author can set cost = (forwards, backwards)"
            )


def _seed_everything(seed: int) -> None:
    """Inside a loan, which restores all generators: a stranger's code draws from the global ones."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def wrap(name: str, function: Function, origin: str) -> type[Explainer]:
    """A frozen dataclass that makes ``function`` an explainer called ``name``; origin: the package that brings it.

    The function's docstring becomes the help text; its attribute ``cost``, a pair (forwards, backwards) of images per
    explained image, the limit, 1000 each by default.
    """
    forwards, backwards = getattr(function, "cost", (LIMIT.forwards, LIMIT.backwards))
    words = inspect.cleandoc(function.__doc__ or "") or "Its author has not described it."
    members = {
        "__doc__": f"{words}\n\nA plug-in from {origin}; it is run on a copy of the model, one image at a time.",
        "__module__": __name__,
        "__qualname__": f"PlugIn[{name}]",
        "title": f"{name} (plug-in)",
        "source": origin,
        "library": origin,
        "name": name,
        "function": staticmethod(function),
        "stated": Cost(int(forwards), int(backwards)),
    }
    return dataclass(frozen=True)(type("PlugIn", (PlugIn,), members))


def load_plugins() -> None:
    """Register what installed packages offer under ``triplecheck.explainers``; a broken one warns and is left out."""
    for entry in entry_points(group=GROUP):
        try:
            _load(entry)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"explainer plug-in {entry.name!r} is left out: {reason}", stacklevel=2)


def _load(entry: EntryPoint) -> None:
    found = entry.load()
    if isinstance(found, type) and issubclass(found, Explainer):
        if found not in EXPLAINERS.values():
            raise TypeError("an Explainer class has to register itself with EXPLAINERS.register")
        return
    if not callable(found) or isinstance(found, type):
        raise TypeError(f"expected an Explainer class or a function f(model, images, target), found {found!r}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name):
        raise ValueError("the name must be lower-case words joined by hyphens")
    origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
    if entry.name in list(EXPLAINERS) and EXPLAINERS[entry.name].library != origin:
        raise ValueError(f"the name is taken by {EXPLAINERS[entry.name].title!r}")
    EXPLAINERS.register(entry.name)(wrap(entry.name, found, origin))
