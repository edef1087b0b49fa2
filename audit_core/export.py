"""Records as files: a picture that carries its whole record, JSON, CSV and npz; and back, with checks.

Importing this needs neither torch nor matplotlib; only :func:`card_png` loads the latter.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from audit_core.card import KEYWORD, band, card_png
from audit_core.errors import AuditError, BadData, BadImage
from audit_core.record import AuditRecord, Controls, loads

MAX_RECORD = 64 * 2**20  # bytes of record text, unpacked; a 224×224×3 input makes about 1 MiB
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CURVE_COLUMNS = (
    "fraction", "deletion", "insertion",
    "random_deletion_mean", "random_deletion_percentile_2.5", "random_deletion_percentile_97.5",
    "random_insertion_mean", "random_insertion_percentile_2.5", "random_insertion_percentile_97.5",
)  # fmt: skip


def record_json(record: AuditRecord) -> str:
    """The record as one line of JSON after ``docs/audit-record.schema.json``; floats and arrays are exact."""
    return record.dumps() + "\n"


def curves_csv(record: AuditRecord) -> str:
    """The curves as comma-separated numbers under one header line, :data:`CURVE_COLUMNS`; full float64 precision.

    The random columns hold mean and 2.5 and 97.5 percentiles over the random orders at each step; they are empty
    where there are none. Only numbers follow the header, so no cell can be a formula.
    """
    columns = [record.deletion.fraction, record.deletion.score, record.insertion.score]
    for orders in (record.controls.deletion, record.controls.insertion):
        columns += list(band(orders)) if len(orders) else [np.full(len(columns[0]), np.nan)] * 3
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CURVE_COLUMNS)
    writer.writerows(["" if math.isnan(x) else repr(float(x)) for x in row] for row in zip(*columns, strict=True))
    return out.getvalue()


def maps_npz(record: AuditRecord) -> bytes:
    """The arrays of a record as an npz file without pickles.

    values float32 (rows, columns), error the same where the explainer estimates it, pixels float32 (channels,
    rows, columns) in [0, 1], probabilities float64 (classes,), fractions, deletion, insertion float64 (points,),
    random_deletion, random_insertion float64 (orders, points), random_deletion_auc, random_insertion_auc (orders,).
    """
    arrays = {
        "values": record.values, "pixels": record.pixels, "probabilities": record.probabilities,
        "fractions": record.deletion.fraction, "deletion": record.deletion.score, "insertion": record.insertion.score,
        **{f"random_{f.name}": getattr(record.controls, f.name) for f in fields(Controls)},
    }  # fmt: skip
    if record.error is not None:
        arrays["error"] = record.error
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def write_all(record: AuditRecord, folder: Path) -> list[Path]:
    """Write record.json, card.png, curves.csv and maps.npz into ``folder``, which is made where it is absent."""
    contents = {
        "record.json": record_json(record).encode(), "card.png": card_png(record),
        "curves.csv": curves_csv(record).encode(), "maps.npz": maps_npz(record),
    }  # fmt: skip
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise AuditError(f"the record could not be written into {folder} ({why}); choose another folder") from None
    return [folder / name for name in contents]


def is_card(data: bytes) -> bool:
    """Whether a file is a PNG that carries a record, be it whole or damaged; never raises."""
    heads = (kind + KEYWORD.encode() + b"\0" for kind in (b"zTXt", b"iTXt", b"tEXt"))
    return data.startswith(SIGNATURE) and any(head in data for head in heads)


def read_card(data: bytes) -> AuditRecord:
    """The record inside a card that :func:`card_png` made, checked against itself but not recomputed.

    ``BadImage`` for a file that is no PNG or a damaged one, ``BadData`` for a PNG without exactly one record, for
    one above 64 MiB and for a record that is damaged or contradicts itself.
    """
    if not data.startswith(SIGNATURE):
        raise BadImage(f"expected a PNG card, found a file that starts with {data[:8]!r}; choose a card.png")
    found = [text for kind, body in _chunks(data) if (text := _record_text(kind, body)) is not None]
    if not found:
        raise BadData(
            "the PNG carries no audit record; messengers and image editors drop it, so choose the file as exported"
        )
    if len(found) > 1:
        raise BadData(f"expected one audit record in the PNG, found {len(found)}; choose the file as it was exported")
    return read_json(found[0])


def read_json(text: str | bytes) -> AuditRecord:
    """The record in a JSON text, checked against itself but not recomputed; ``BadData`` says what is wrong."""
    if len(text) > MAX_RECORD:
        raise BadData(f"the audit record has {len(text) / 2**20:.0f} MiB, the limit is {MAX_RECORD // 2**20} MiB")
    record = loads(text)
    try:
        wrong = next(_contradictions(record, json.loads(text)), "")
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        raise BadData(f"the audit record is damaged or was changed ({wrong}); export it again")
    return record


def read_record(data: bytes) -> AuditRecord:
    """A record from the bytes of a card (PNG) or of a JSON file, whichever it is."""
    return read_card(data) if data.startswith(b"\x89PNG") else read_json(data)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of every PNG chunk up to the end mark. Pillow would cut long texts off, hence this walker."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body, end = data[at + 8 : at + 8 + length], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise BadImage(f"the PNG is damaged (checksum of its {kind!r} part); download the complete file again")
        if kind == b"IEND":
            return
        yield kind, body
        at = end
    raise BadImage(f"the PNG is cut off after {len(data)} bytes; download the complete file again")


def _record_text(kind: bytes, body: bytes) -> bytes | None:
    """Text of a record's chunk, None for any other chunk (PNG specification, 11.3.3)."""
    keyword, _, rest = body.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or keyword != KEYWORD.encode():
        return None
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflate(rest[1:])
    text = [*rest[2:].split(b"\0", 2), b"", b""][2]
    return _inflate(text) if rest[:1] == b"\x01" else text


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, MAX_RECORD + 1)
    except zlib.error:
        raise BadImage("the record inside the PNG does not unpack; download the complete file again") from None
    if len(text) > MAX_RECORD:
        raise BadData(f"the record inside the PNG unpacks to more than {MAX_RECORD // 2**20} MiB; no audit writes that")
    if not stream.eof:
        raise BadImage("the record inside the PNG is cut off; download the complete file again")
    return text


def _contradictions(record: AuditRecord, raw: dict[str, Any]) -> Iterator[str]:
    """What does not fit together in a record; ``raw`` is the JSON it was read from."""
    if not re.fullmatch("[0-9a-f]{64}", record.key):
        yield "its key is not 64 hex digits"
    yield from _misshapen(record)
    names = (("predicted", record.predicted), ("target", record.target))
    for name, index in names:
        if raw[name] != record.classes[index]:
            yield f"{name} is {raw[name]!r}, but class {index} is {record.classes[index]!r}"
    for name in ("deletion", "insertion"):
        yield from _wrong_areas(record, raw, name)
    json.dumps(raw, allow_nan=False)  # a number that is not finite raises ValueError


def _misshapen(record: AuditRecord) -> Iterator[str]:
    points, classes = len(record.deletion.fraction), len(record.classes)
    kept, orders = len(record.along.classes), len(record.controls.deletion)
    wanted: dict[str, tuple[np.ndarray | None, tuple[int, ...]]] = {
        "probabilities": (record.probabilities, (classes,)),
        "map": (record.values, record.pixels.shape[1:]),
        "error of the map": (record.error, record.values.shape),
        "insertion": (record.insertion.score, (points,)),
        "probabilities along deletion": (record.along.deletion, (points, kept)),
        "probabilities along insertion": (record.along.insertion, (points, kept)),
        "random deletion": (record.controls.deletion, (orders, points)),
        "random insertion": (record.controls.insertion, (orders, points)),
        "random deletion areas": (record.controls.deletion_auc, (orders,)),
        "random insertion areas": (record.controls.insertion_auc, (orders,)),
        "deletion": (record.deletion.score, (points,)),
        "input": (record.pixels, record.pixels.shape[-3:]),
    }
    for name, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            yield f"{name} has the shape {array.shape}, expected {shape}"
        if array is not None and not np.isfinite(array).all():
            yield f"{name} holds values that are not finite"
    fraction = record.deletion.fraction
    if points < 2 or fraction[0] != 0 or fraction[-1] != 1 or (np.diff(fraction) < 0).any():
        yield "its fractions do not rise from 0 to 1"
    if record.pixels.ndim != 3 or not record.pixels.size:
        yield f"its input has the shape {record.pixels.shape}, expected (channels, rows, columns)"
    if not all(isinstance(k, int) and 0 <= k < classes for k in (*record.along.classes, record.label or 0)):
        yield "a class index is out of range"


def _wrong_areas(record: AuditRecord, raw: dict[str, Any], name: str) -> Iterator[str]:
    """Areas and advantages are derived from the curves; they are compared up to rounding."""
    area: float = getattr(record, f"{name}_auc")
    share = record.normalised(area)
    for field, expected in ((f"{name}_auc", area), (f"{name}_auc_normalised", share)):
        found = raw[field]
        same = found is None if expected is None else found is not None and math.isclose(found, expected, rel_tol=1e-9)
        if not same:
            yield f"{field} is {found!r}, its curve gives {expected!r}"
    effect = record.advantage.get(name)
    if effect is None:
        return
    level = float(getattr(record.controls, f"{name}_auc").mean())
    gain = level - area if record.better(name) == "lower" else area - level
    if not (abs(effect.value - gain) < 1e-6 and effect.low <= effect.value <= effect.high):
        yield f"the advantage of {name} is {effect.value!r}, the curves give {gain!r}"


__all__ = [
    "card_png",
    "curves_csv",
    "is_card",
    "maps_npz",
    "read_card",
    "read_json",
    "read_record",
    "record_json",
    "write_all",
]
