"""Files that no one should send: each gets its own clear sentence, and the server lives on."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from helpers import make_record
from PIL import Image

from audit_core.export import card_png

QUICK = {"checkpoint": "wafer-resnet18-cbam", "explainer": "random", "fill": "zero",
         "image": "synthetic:sample:3", "steps": "4", "controls": "2"}  # fmt: skip


def png(rows: int, columns: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(5).integers(0, 255, (rows, columns), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing (PNG specification, 11.2.2)."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
             (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))  # fmt: skip
    chunks = (struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
              for kind, body in parts)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=array.dtype.hasobject)
    return out.getvalue()


class Malice:
    """Its unpickling would create a file; nothing may do so."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def damaged_card() -> bytes:
    card = bytearray(card_png(make_record()))
    middle = card.index(b"zTXt") if b"zTXt" in card else card.index(b"iTXt")
    card[middle + 200] ^= 0xFF
    return bytes(card)


def bad_files(trap: str) -> dict[str, tuple[bytes, str]]:
    """Name -> (content, what the sentence must say)."""
    holes = np.zeros((8, 8))
    holes[2, 3:5] = np.nan
    objects = np.array([[Malice(trap), 1], [2, 3]], dtype=object)
    return {
        "cut.png": (png(60, 60)[:1500], "cut.png is truncated or damaged"),
        "text.png": (b"Dear model, what do you see?", "text.png is no known image"),
        "empty.png": (b"", "empty.png is empty (0 bytes)"),
        "bomb.png": (png_header(100_000, 100_000), "bomb.png would unpack to far more than 40 megapixels"),
        "large.png": (png_header(8_000, 6_000), "large.png has 48"),
        "dot.png": (png(1, 1), "dot.png has 1"),
        "holes.npy": (npy(holes), "holes.npy has 2 NaN or infinite values"),
        "objects.npy": (npy(objects), "objects.npy holds"),
        "stack.npy": (npy(np.zeros((5, 8, 8), np.float32)), "stack.npy has the shape (5, 8, 8)"),
        "card.png": (damaged_card(), "the PNG is damaged"),
    }


@pytest.fixture
def trap(tmp_path: Any) -> Any:
    """A file that exists only if something was executed."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists(), "a pickle was executed"


def test_ten_bad_files_give_ten_sentences_and_the_server_lives(visitor: Any, trap: Any) -> None:
    visitor.open("spot_audit", **QUICK)
    before = visitor.numbers()
    visitor.page.get_by_text("Your image", exact=True).click()
    visitor.says("Nothing uploaded yet")
    files, said = bad_files(str(trap)), []
    for name, (data, words) in files.items():
        visitor.upload("spot.file", name, data)
        sentence = visitor.says(words).inner_text()
        assert sentence.count("\n") == 0
        assert "Traceback" not in sentence
        said.append(sentence)
        assert visitor.server.healthy(), name
    assert len(set(said)) == len(files) == 10
    visitor.upload("spot.file", "good.png", png(60, 60))
    visitor.page.wait_for_url(lambda url: "image=upload" in url)
    visitor.numbers()
    assert visitor.options("spot.upload") == ["good.png"]
    visitor.page.get_by_text("Sample wafers", exact=True).click()
    visitor.see(before)


def test_a_pickled_checkpoint_is_refused_and_not_executed(visitor: Any, trap: Any) -> None:
    visitor.open("checkpoints")
    visitor.says("Add a custom checkpoint")
    visitor.upload("bring.file", "evil.pth", pickle.dumps(Malice(str(trap))))
    visitor.says("evil.pth")
    box = visitor.at("bring.arch").locator("input")
    box.click()
    visitor.page.keyboard.type("resnet18")
    visitor.page.get_by_role("option").first.wait_for()
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_role("button", name="Add checkpoint").click()
    sentence = visitor.page.get_by_test_id("stAlert").last
    sentence.wait_for()
    assert "pickle" in sentence.inner_text().lower(), sentence.inner_text()
    assert visitor.server.healthy()
