"""Files a user brings -> images, and images -> exactly what a model sees before normalisation.

Nothing in a file is trusted: the kind is read from the content, the size from the header before anything is
decoded, and arrays are never unpickled.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from audit_core.errors import BadImage
from audit_core.types import SourceImage
from models.cards import ModelCard
from models.wafers import ENCODINGS, FAILED, encode

MAX_PIXELS = 40_000_000
MIN_SIDE = 2  # a single row or column has no neighbourhood to explain
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".npy")

_NPY = b"\x93NUMPY"
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_FOREIGN = (
    (b"GIF8", "a GIF"), (b"%PDF", "a PDF document"), (b"PK\x03\x04", "a zip archive (npz and office files are such)"),
    (b"\x1f\x8b", "a gzip archive"), (b"\x89HDF", "an HDF5 file"), (b"8BPS", "a Photoshop file"),
    (b"<svg", "an SVG drawing"), (b"<", "a text in HTML, XML or SVG"), (b"{", "a JSON text"),
    (b"\x80\x02", "a Python pickle"), (b"\x80\x03", "a Python pickle"), (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
)  # fmt: skip
_EXPORT = "export it as PNG, JPEG, BMP, TIFF, WebP or .npy"
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's mode "L"
_ORIENTATION = 0x0112  # EXIF tag
_SLACK = 1e-4  # floats that leave 0…1 by rounding only are still meant as 0…1


def read_image(data: bytes, name: str) -> SourceImage:
    """The image in a PNG, JPEG, BMP, TIFF, WebP or .npy file, told apart by content, not by extension.

    Pictures become float32 (rows, columns, 1 or 3) in [0, 1] (8-bit codes / 255, 16-bit grey codes / 65535); a
    two-dimensional array of whole numbers 0/1/2 becomes a wafer map. Whatever was changed on the way stands in
    ``notes``. ``BadImage`` names the file, what was found and what to do; the limits are 2 pixels a side and
    40 megapixels.
    """
    if not data:
        raise BadImage(f"{name} is empty (0 bytes); upload the complete file")
    if data.startswith(_NPY):
        return _read_array(data, name)
    if data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return _read_picture(data, name)
    kind = next((kind for head, kind in _FOREIGN if data[:64].lstrip().startswith(head)), "")
    kind = "a HEIC, AVIF or video file" if data[4:8] == b"ftyp" else kind
    found = kind or f"no known image (it starts with bytes {data[:4].hex(' ')})"
    raise BadImage(f"{name} is {found}, not a readable image; {_EXPORT}")


def prepare(image: SourceImage, card: ModelCard) -> np.ndarray:
    """What the model sees before normalisation: float32 (channels, rows, columns) in [0, 1].

    A wafer map is resized by nearest neighbour (die codes stay die codes) and encoded as the card says
    (three-level where the card does not know). A picture is made grey by Rec. 601 luma or repeated over the
    channels, then resized whole, without cropping, by Pillow's antialiased bilinear filter on floats.
    """
    if image.wafer:
        encoding = card.encoding if card.encoding in ENCODINGS else "three-level"
        plane = encode(_nearest(image.values, card.input_size), encoding)
        return np.repeat(plane[None], card.channels, axis=0)
    pixels = np.moveaxis(image.values, 2, 0)
    if len(pixels) == 3 and card.channels != 3:
        pixels = np.tensordot(_LUMA, pixels, axes=1)[None]
    resized = np.stack([_bilinear(plane, card.input_size) for plane in pixels])
    return resized if len(resized) == card.channels else np.repeat(resized[:1], card.channels, axis=0)


def input_digest(pixels: np.ndarray) -> str:
    """sha256 (hex) of dtype, shape and exact bytes: the identity of what a model was shown."""
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _nearest(codes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """:func:`models.wafers.resize` for any (rows, columns): each pixel shows the die that contains its centre."""
    rows, columns = (((np.arange(s) + 0.5) * n / s).astype(np.int64) for s, n in zip(size, codes.shape, strict=True))
    return codes[rows[:, None], columns[None, :]]


def _bilinear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One float32 plane resized by the triangle filter, widened when shrinking; stays within [0, 1]."""
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    resized = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)


def _check_size(rows: int, columns: int, name: str) -> None:
    if rows * columns == 0:
        raise BadImage(f"{name} has no pixels ({rows}×{columns}); upload an image with content")
    if min(rows, columns) < MIN_SIDE:
        raise BadImage(f"{name} has {rows}×{columns} pixels, but an audit needs at least {MIN_SIDE} on each side")
    if rows * columns > MAX_PIXELS:
        megapixels = math.ceil(rows * columns / 1e5) / 10
        raise BadImage(f"{name} has {megapixels:.1f} megapixels; the limit is {MAX_PIXELS // 10**6}, shrink it first")


def _finish(values: np.ndarray, wafer: bool, name: str, notes: list[str]) -> SourceImage:
    values.setflags(write=False)  # so that the noun keeps this array instead of a second copy of it
    return SourceImage(values, wafer, name, tuple(notes))


def _read_array(data: bytes, name: str) -> SourceImage:
    file = io.BytesIO(data)
    shape, dtype = _array_header(file, name)
    if dtype.hasobject:
        raise BadImage(f"{name} holds Python objects, which could run code; save a plain number array without pickle")
    if dtype.kind not in "buif":
        raise BadImage(f"{name} holds values of type {dtype}; save whole numbers or floats")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise BadImage(f"{name} has the shape {shape}; expected (rows, columns) or (rows, columns, 1 or 3)")
    _check_size(shape[0], shape[1], name)
    promised, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if found < promised:
        raise BadImage(f"{name} is truncated: its header promises {promised} bytes of values, {found} are there")
    file.seek(0)
    return _from_values(np.lib.format.read_array(file, allow_pickle=False), name, [])


def _array_header(file: io.BytesIO, name: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        reader: Callable[..., tuple] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = reader(file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, RecursionError):
        raise BadImage(f"{name} has a broken .npy header; save it again with numpy.save") from None
    return shape, dtype


def _from_values(values: np.ndarray, name: str, notes: list[str]) -> SourceImage:
    """Numbers of any plain type -> die codes, or pixels in [0, 1] by the narrowest scale that holds them."""
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        raise BadImage(f"{name} has {int((~finite).sum())} NaN or infinite values; replace them and save again")
    low, high = float(values.min()), float(values.max())
    if values.ndim == 2 and _die_codes(values, low, high):
        notes = [*notes, "whole numbers 0/1/2 read as die codes"]
        return _finish(values.astype(np.uint8, order="C"), True, name, notes)
    whole = values.dtype.kind in "ui"
    slack = 0.0 if whole else _SLACK
    limits = (255.0, 65535.0) if whole else (1.0, 255.0)
    limit = limits[0] if high <= limits[0] + slack else limits[1]
    if low < -slack or high > limit + slack:
        raise BadImage(f"{name} has values from {low:g} to {high:g}; bring them into 0…1, 0…255 or (whole) 0…65535")
    pixels = values.astype(np.float32, order="C")
    if limit > 1.0:
        pixels /= np.float32(limit)
        notes = [*notes, f"values divided by {limit:.0f}"]
    np.clip(pixels, 0.0, 1.0, out=pixels)
    return _finish(pixels.reshape(*values.shape[:2], -1), False, name, notes)


def _die_codes(values: np.ndarray, low: float, high: float) -> bool:
    """Whole-number types within 0..2; floats only when they reach 2, since 0 and 1 are pixels there."""
    if values.dtype.kind == "f":
        return low >= 0.0 and high == FAILED and bool(np.isin(values, (0, 1, 2)).all())
    return values.dtype.kind in "ui" and low >= 0.0 and high <= FAILED


def _read_picture(data: bytes, name: str) -> SourceImage:
    with _opened(data, name) as picture:
        _check_size(picture.height, picture.width, name)
        try:
            return _decoded(picture, name)
        except BadImage:
            raise
        except Exception as error:  # a decoder that is fed a broken file may raise anything
            raise BadImage(f"{name} is truncated or damaged ({_reason(error)}); upload the complete file") from None


def _opened(data: bytes, name: str) -> Image.Image:
    """The header only; Pillow decodes later. Pillow refuses by itself what its header calls far too large."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the second where warnings are errors
        limit = MAX_PIXELS // 10**6
        raise BadImage(f"{name} would unpack to far more than {limit} megapixels; shrink it first") from None
    except Exception:  # whatever the header parser stumbles over
        raise BadImage(f"{name} has a broken or cut-off image header; export it again") from None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".") or type(error).__name__


def _decoded(picture: Image.Image, name: str) -> SourceImage:
    notes = []
    if (frames := getattr(picture, "n_frames", 1)) > 1:
        notes.append(f"first of {frames} frames used")
        picture.seek(0)
    if _deep_colour(picture):
        notes.append("16 bits a colour reduced to 8")
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        notes.append("turned as its EXIF orientation says")
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _from_deep(np.asarray(picture), name, notes)
    values = _colours(picture, name, notes)
    return _finish(np.ascontiguousarray(values), False, name, notes)


def _deep_colour(picture: Image.Image) -> bool:
    """Whether the file has 16 bits per colour, which Pillow unpacks to 8 for everything but grey."""
    tiles = getattr(picture, "tile", None) or []
    return not picture.mode.startswith("I") and any("16" in str(tile[3]) for tile in tiles)


def _from_deep(values: np.ndarray, name: str, notes: list[str]) -> SourceImage:
    """Grey with more than 8 bits: 16-bit codes / 65535 whatever their range, floats as in an array."""
    if values.dtype.kind == "f":
        return _from_values(values, name, notes)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadImage(f"{name} has grey codes from {low} to {high}; save it with at most 16 unsigned bits")
    pixels = values.astype(np.float32)[..., None]
    pixels /= np.float32(65535)
    return _finish(pixels, False, name, [*notes, "16-bit grey codes divided by 65535"])


def _colours(picture: Image.Image, name: str, notes: list[str]) -> np.ndarray:
    """8-bit grey or colour of any mode -> float32 (rows, columns, 1 or 3) in [0, 1], alpha laid over white."""
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.mode == "LAB":
        raise BadImage(f"{name} is in the colour mode LAB; export it as RGB or grey")
    if picture.mode in ("P", "PA"):
        notes.append("palette converted to RGB")
    elif picture.mode not in ("1", "L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX"):
        notes.append(f"{picture.mode} converted to RGB")
    if not picture.has_transparency_data:
        return _scaled(picture.convert("L" if grey else "RGB"))
    colours = _scaled(picture.convert("RGBA"))
    alpha = colours[..., 3:]
    if alpha.min() < 1.0:
        notes.append("alpha composited on white")
    return (colours[..., :3] * alpha + (1.0 - alpha))[..., : 1 if grey else 3]


def _scaled(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture).astype(np.float32)
    values /= np.float32(255)
    return values if values.ndim == 3 else values[..., None]
