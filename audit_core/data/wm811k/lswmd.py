"""LSWMD.pkl without running it.

A pickle is a small program that may call anything importable. Here every name it mentions must stand in an
allow-list, and even an allowed name is never imported: it becomes a :class:`Record` that keeps what the file wanted
to build as plain data. The table is then put together from these records by the code below, so neither numpy's nor
pandas' own restoring code ever sees the file. That also makes files of all pandas versions since 0.14.1 readable,
whatever version is installed.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from audit_core.errors import BadData
from models.wafers import CLASSES, FAILED, WaferMaps, digest_of

MAPS, LABELS, LOTS = "waferMap", "failureType", "lotName"

_BASE_INDEX = ("Index", "_new_Index")
_NUMBER_INDEX = ("Int64Index", "UInt64Index", "Float64Index", "RangeIndex")
_STRINGS = ("StringArray", "ArrowStringArray", "ArrowStringArrayNumpySemantics", "StringDtype")
#: module -> names that a pickled table of arrays needs, in today's places and in those of Python 2 and old versions.
ALLOWED: dict[str, tuple[str, ...]] = {
    "builtins": ("slice", "bytes", "bytearray", "object"),
    "__builtin__": ("slice", "bytes", "bytearray", "object"),
    "copyreg": ("_reconstructor",),
    "copy_reg": ("_reconstructor",),
    "_codecs": ("encode",),
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "pandas": ("DataFrame", *_BASE_INDEX, *_NUMBER_INDEX, *_STRINGS),
    "pandas.core.frame": ("DataFrame",),
    "pandas.core.index": (*_BASE_INDEX, *_NUMBER_INDEX),
    "pandas.indexes.base": _BASE_INDEX,
    "pandas.core.indexes.base": _BASE_INDEX,
    "pandas.indexes.range": _NUMBER_INDEX,
    "pandas.core.indexes.range": _NUMBER_INDEX,
    "pandas.indexes.numeric": _NUMBER_INDEX,
    "pandas.core.indexes.numeric": _NUMBER_INDEX,
    "pandas.core.internals": ("BlockManager",),
    "pandas.core.internals.managers": ("BlockManager",),
    "pandas.core.internals.blocks": ("new_block",),
    "pandas._libs.internals": ("_unpickle_block", "BlockPlacement"),
    "pandas.arrays": _STRINGS,
    "pandas.core.arrays.string_": _STRINGS,
    "pandas.core.arrays.string_arrow": _STRINGS,
    "pyarrow.lib": ("_restore_array", "type_for_alias", "py_buffer"),
}
_ARRAYS = ("_reconstruct", "_frombuffer", "scalar")


class Record:
    """What the file wanted to call or build: ``name``, the arguments, and the state set afterwards. Calls nothing."""

    __slots__ = ("args", "state")
    name: ClassVar[str] = ""
    args: tuple[Any, ...]  # Any: whatever plain data and records the file holds
    state: Any

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Rebuilt(Record):
    """The oldest protocols make an object by naming its class and its base: an empty record of that class."""

    __slots__ = ()

    def __new__(cls, kind: type[Record], *_base: Any) -> Any:  # an instance of ``kind``
        if not (isinstance(kind, type) and issubclass(kind, Record)):
            raise BadData("it builds an object of no known class")
        return kind()


@cache
def _kind(name: str) -> type[Record]:
    if name == "_reconstructor":
        return _Rebuilt
    return type(name, (Record,), {"__slots__": (), "name": name})


class _Reader(pickle.Unpickler):
    """Gives out record classes for allowed names; imports nothing."""

    def find_class(self, module: str, name: str) -> type[Record]:
        if name not in ALLOWED.get(module, ()):
            raise BadData(f"it asks to run {module}.{name}, which a table of wafer maps never needs")
        return _kind(name)

    def persistent_load(self, pid: Any) -> NoReturn:
        raise BadData(f"it refers to something outside itself ({pid!r})")


def read_pickle(path: str | Path) -> tuple[WaferMaps, int]:
    """The labelled maps of LSWMD.pkl, in its order and with the nine classes, and how many unlabelled ones it has.

    Their lots come from the column ``lotName`` where the table has it. ``BadData`` for a pickle that names anything but
    plain arrays and tables (nothing of it is run), and for a table without the columns ``waferMap`` and
    ``failureType``.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            table = _Reader(file, encoding="latin1").load()
        columns = _columns(table)
        return _labelled(columns[MAPS], columns[LABELS], columns.get(LOTS))
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror or error}); give the path of LSWMD.pkl") from None
    except BadData as error:
        raise BadData(f"{path.name} is refused: {error}; use the original LSWMD.pkl or an npz of wafer maps") from None
    except Exception as error:  # the bytes of a broken or hostile pickle may lead anywhere
        detail = f"{type(error).__name__}: {error}"[:120]
        raise BadData(f"{path.name} is no readable pickle of a table ({detail}); copy LSWMD.pkl again") from None


def _labelled(maps: Iterable[Any], labels: Iterable[Any], lots: Sequence[Any] | None) -> tuple[WaferMaps, int]:
    known = {name.casefold(): index for index, name in enumerate(CLASSES)}
    grids, kept, found, unlabelled = [], [], [], 0
    for row, (codes, label) in enumerate(zip(maps, labels, strict=True)):
        word = _word(label)
        if word is None:
            unlabelled += 1
            continue
        if word.casefold() not in known:
            raise BadData(f"row {row} has the unknown class {word!r}")
        grids.append(_grid(codes, row))
        kept.append(known[word.casefold()])
        found.append("" if lots is None else _lot(lots[row]))
    indices, names = np.array(kept, dtype=np.int64), np.array(found, dtype=str)
    return WaferMaps(grids, indices, CLASSES, digest_of(grids, indices), names if any(found) else None), unlabelled


def _lot(cell: Any) -> str:
    """The name of a lot, or its number as a word; the empty word for None and NaN."""
    if isinstance(cell, (int, float, np.integer, np.floating)):
        return "" if math.isnan(cell) else str(cell)
    return _word(cell) or ""


def _word(label: Any) -> str | None:
    """``[['Center']]``, ``'Center'``, or nothing: an empty array or list, None, NaN."""
    if isinstance(label, Record):
        label = _array(label).tolist() if label.name in _ARRAYS else _bytes(label)
    while isinstance(label, list):
        if len(label) > 1:
            raise BadData(f"a map has {len(label)} classes at once")
        label = label[0] if label else None
    if isinstance(label, bytes):
        label = label.decode("ascii")
    return label.strip() or None if isinstance(label, str) else None


def _grid(record: Any, row: int) -> np.ndarray:
    codes = _array(record)
    if codes.ndim != 2 or not codes.size or codes.dtype.kind not in "buif":
        raise BadData(f"the map of row {row} is no grid of numbers")
    grid = codes.astype(np.uint8)
    if not np.array_equal(grid, codes) or grid.max() > FAILED:
        raise BadData(f"the map of row {row} has die codes other than 0, 1 and 2")
    return np.ascontiguousarray(grid)


def _columns(table: Any) -> dict[str, list[Any]]:
    """The two columns that are needed, and that of the lots where there is one, as lists of cells."""
    if not isinstance(table, Record) or table.name != "DataFrame":
        raise BadData(f"it holds {getattr(table, 'name', type(table).__name__)}, not a table")
    state = table.state  # pandas before 0.17 sets the manager itself
    axes, blocks = _parts(state if isinstance(state, Record) else state.get("_mgr", state.get("_data")))
    names = _cells(axes[0])
    if missing := [name for name in (MAPS, LABELS) if name not in names]:
        raise BadData(f"the table has no column {' and '.join(missing)}; it has {', '.join(map(str, names))}")
    columns = {}
    for values, place in blocks:
        positions = _positions(place, len(names))
        for row, position in enumerate(positions):
            if names[position] in (MAPS, LABELS, LOTS):
                columns[names[position]] = _row(values, row)
    return columns


def _parts(manager: Any) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Axes and (values, positions) of the blocks: pandas 1.3 and later build them, earlier ones set a state."""
    if manager.args:
        blocks, axes = manager.args[:2]
        return axes, [block.args[:2] for block in blocks]
    state = manager.state[3]["0.14.1"]
    return state["axes"], [(block["values"], block["mgr_locs"]) for block in state["blocks"]]


def _positions(place: Any, n: int) -> list[int]:
    if place.name == "BlockPlacement":
        place = place.args[0]
    if place.name == "slice":
        return list(range(n))[slice(*place.args)]
    return _array(place).tolist()


def _row(values: Record, row: int) -> list[Any]:
    if values.name in _ARRAYS:
        return list(_array(values)[row])
    return _cells(values)


def _cells(record: Record) -> list[Any]:
    """The cells of an index, a plain array or an array of words."""
    if record.name == "_new_Index":
        return _cells(record.args[1]["data"])
    if record.name in _ARRAYS:
        return _array(record).tolist()
    if "_pa_array" in record.state:
        return _arrow_words(record.state["_pa_array"])
    return _array(record.state["_ndarray"]).tolist()


def _arrow_words(record: Record) -> list[str | None]:
    """Arrow's layout of words: bits of presence, n + 1 offsets, and all bytes in one run."""
    kind, n, _, start, (present, offsets, text) = record.args[0][:5]
    width = {"large_string": "<i8", "large_utf8": "<i8", "string": "<i4", "utf8": "<i4"}[kind.args[0]]
    ends = np.frombuffer(_bytes(offsets.args[0]), dtype=width)[start : start + n + 1].tolist()
    data = _bytes(text.args[0]) if text is not None else b""
    words: list[str | None] = [data[a:b].decode() for a, b in pairwise(ends)]
    if present is not None:
        bits = np.unpackbits(np.frombuffer(_bytes(present.args[0]), dtype=np.uint8), bitorder="little")
        words = [word if bit else None for word, bit in zip(words, bits[start : start + n], strict=True)]
    return words


def _array(record: Any) -> np.ndarray:
    """A numpy array (or scalar) from its record: numbers and words from bytes, objects as the records they are."""
    if not isinstance(record, Record) or record.name not in _ARRAYS:
        raise BadData(f"it holds {getattr(record, 'name', type(record).__name__)} where an array should be")
    if record.name == "_frombuffer":
        raw, dtype, shape, order = record.args
        return _shaped(_bytes(raw), _dtype(dtype), shape, order)
    if record.name == "scalar":
        return _shaped(_bytes(record.args[1]), _dtype(record.args[0]), (), "C")
    _, shape, dtype, fortran, raw = record.state
    if isinstance(raw, list):
        cells = np.empty(len(raw), dtype=object)
        for position, cell in enumerate(raw):
            cells[position] = cell
        return cells.reshape(shape)
    return _shaped(_bytes(raw), _dtype(dtype), shape, "F" if fortran else "C")


def _shaped(raw: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise BadData(f"an array of shape {shape} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype).reshape(shape, order=order)


def _dtype(record: Record) -> np.dtype:
    """Plain numbers and words only; never objects, whose bytes would be taken for addresses."""
    text = str(record.args[0])
    if record.name != "dtype" or not re.fullmatch(r"[biufSU][0-9]{1,6}", text):
        raise BadData(f"it has an array of type {text}")
    order = record.state[1] if record.state else "="
    return np.dtype(f"{order}{text}" if order in ("<", ">") else text)


def _bytes(value: Any) -> bytes | bytearray:
    """Raw bytes as the different protocols write them; Python 2 wrote them as text, read here as Latin-1."""
    if isinstance(value, (bytes, bytearray)):
        return value
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, Record) and value.name in ("encode", "bytes", "bytearray"):
        return _bytes(value.args[0]) if value.args else b""
    raise BadData(f"it holds {getattr(value, 'name', type(value).__name__)} where bytes should be")
