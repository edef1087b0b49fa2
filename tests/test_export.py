"""Records as files: the card's picture and its hidden record, CSV, npz, a folder of all; and damaged ones."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import make_record, same
from PIL import Image

from audit_core import card as card_module
from audit_core import export as export_module
from audit_core.errors import AuditError, BadData, BadImage
from audit_core.export import card_png, curves_csv, is_card, maps_npz, read_card, read_json, read_record, write_all
from audit_core.record import AuditRecord
from audit_core.types import Curve, Effect

RECORD = make_record(health=["The map is odd."], error=True)
LONG = "a class name that is far longer than anybody would ever want to read on a card, and then some more"


@pytest.fixture(scope="module")
def card() -> bytes:
    return card_png(RECORD)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A white pixel with further chunks in front of its data, written out after the PNG specification."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    tail = chunk(b"IDAT", zlib.compress(b"\x00\xff")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*parts) for parts in chunks) + tail


TEXT = RECORD.dumps().encode()
NAME = b"triplecheck-record\0"


def test_a_card_carries_its_record_bit_by_bit(card):
    assert same(read_card(card), RECORD)
    assert same(read_record(card), RECORD)
    assert is_card(card)
    with Image.open(io.BytesIO(card)) as picture:
        assert (picture.size, picture.mode) == ((1600, 900), "RGB")
        assert json.loads(picture.text["triplecheck-record"]) == RECORD.to_json()


def test_a_record_above_pillows_text_limit_comes_back():
    big = make_record(size=224, channels=3, classes=[f"class {i}" for i in range(1000)], seed=5)
    assert len(big.dumps()) > 2**20
    assert same(read_json(big.dumps()), big)
    body = NAME + b"\0" + zlib.compress(big.dumps().encode(), 1)
    assert same(read_card(png((b"zTXt", body))), big)


@pytest.mark.parametrize(
    "parts",
    [
        (b"tEXt", NAME + TEXT),
        (b"zTXt", NAME + b"\0" + zlib.compress(TEXT)),
        (b"iTXt", NAME + b"\0\0en\0name\0" + TEXT),
        (b"iTXt", NAME + b"\1\0\0\0" + zlib.compress(TEXT)),
    ],
    ids=["tEXt", "zTXt", "iTXt", "iTXt compressed"],
)
def test_any_text_chunk_may_hold_the_record(parts):
    data = png((b"tEXt", b"Title\0other"), parts)
    assert is_card(data)
    assert same(read_card(data), RECORD)


BAD_CARDS = {
    "nothing": (b"", BadImage, "expected a PNG card, found a file that starts with b''"),
    "a JPEG": (b"\xff\xd8\xff\xe0 and so on", BadImage, "expected a PNG card"),
    "a JSON text": (TEXT, BadImage, "expected a PNG card"),
    "another PNG": (png(), BadData, "carries no audit record; .* choose the file as exported"),
    "another text": (png((b"tEXt", b"Title\0triplecheck-record")), BadData, "carries no audit record"),
    "two records": (png((b"tEXt", NAME + TEXT), (b"tEXt", NAME + TEXT)), BadData, "found 2"),
    "a foreign record": (png((b"tEXt", NAME + b"{}")), BadData, "expected an audit record of schema"),
    "no JSON": (png((b"tEXt", NAME + b"hello")), BadData, "not JSON"),
    "an empty record": (png((b"zTXt", NAME)), BadImage, "is cut off"),
    "no zlib stream": (png((b"zTXt", NAME + b"\0hello")), BadImage, "does not unpack"),
    "half a zlib stream": (png((b"zTXt", NAME + b"\0" + zlib.compress(TEXT)[:-40])), BadImage, "is cut off"),
    "a short iTXt": (png((b"iTXt", NAME)), BadData, "not JSON"),
    "half a file": (png((b"tEXt", NAME + TEXT))[:-30], BadImage, "is cut off after"),
    "only the signature": (b"\x89PNG\r\n\x1a\n", BadImage, "is cut off after 8 bytes"),
    "a chunk without end": (b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffzTXt" + NAME, BadImage, "is cut off"),
}


@pytest.mark.parametrize(("data", "error", "complaint"), BAD_CARDS.values(), ids=BAD_CARDS.keys())
def test_what_is_no_card_is_refused_in_a_sentence(data, error, complaint):
    with pytest.raises(error, match=complaint):
        read_card(data)


def test_one_flipped_bit_is_noticed(card):
    at = card.index(b"triplecheck-record") + 200
    damaged = card[:at] + bytes([card[at] ^ 1]) + card[at + 1 :]
    assert is_card(damaged)
    with pytest.raises(BadImage, match=r"damaged \(checksum of its b'zTXt' part\)"):
        read_card(damaged)


def test_a_text_that_unpacks_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(export_module, "MAX_RECORD", 2**20)
    bomb = png((b"zTXt", NAME + b"\0" + zlib.compress(bytes(2**22))))
    assert len(bomb) < 2**14
    with pytest.raises(BadData, match="unpacks to more than 1 MiB"):
        read_card(bomb)
    with pytest.raises(BadData, match="has 4 MiB, the limit is 1 MiB"):
        read_json(" " * 2**22)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", TEXT, png(), NAME, png((b"tEXt", b"Title\0triplecheck-record"))])
def test_what_is_no_card_is_not_taken_for_one(data):
    assert not is_card(data)


def changed(path: str, value: object, record: AuditRecord = RECORD) -> str:
    """The record's JSON with the field at ``path`` (dots) set to ``value``."""
    raw = json.loads(record.dumps())
    inner = raw
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("key", "../../etc", "key is not 64 hex digits"),
        ("predicted", "Donut!", "predicted is 'Donut!', but class"),
        ("target", "Donut!", "target is 'Donut!', but class"),
        ("deletion_auc", 0.01, "deletion_auc is 0.01, its curve gives"),
        ("insertion_auc_normalised", None, "insertion_auc_normalised is None, its curve gives"),
        ("deletion.4", 0.9, "deletion_auc is .*, its curve gives"),
        ("advantage.insertion.value", 0.9, "advantage of insertion is 0.9, the curves give"),
        ("advantage.deletion.low", 0.9, "advantage of deletion"),
        ("random.deletion_auc", [0.1], "random deletion areas has the shape"),
        ("fractions.20", 2.0, "fractions do not rise from 0 to 1"),
        ("fractions.7", 0.0, "fractions do not rise from 0 to 1"),
        ("probabilities", [1.0], "probabilities has the shape"),
        ("probabilities.0", float("nan"), "probabilities holds values that are not finite"),
        ("insertion.3", float("inf"), "insertion holds values that are not finite"),
        ("seconds", float("nan"), "not JSON compliant"),
        ("provenance.threads", float("inf"), "not JSON compliant"),
        ("map.error", {"dtype": "float32", "shape": [1, 1], "base64": "AAAAAA=="}, "error of the map has the shape"),
        ("map.values", {"dtype": "float32", "shape": [1, 1], "base64": "AADAfw=="}, "map has the shape"),
        ("input", {"dtype": "float32", "shape": [16, 16], "base64": "AAAAAA=="}, "damaged"),
        ("along.classes", [0], "probabilities along deletion has the shape"),
        ("along.classes.0", -1, "class index is out of range"),
        ("label_index", 9, "class index is out of range"),
        ("label_index", "Donut", "class index is out of range"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(path, value, complaint):
    with pytest.raises(BadData, match=complaint):
        read_json(changed(path, value))


def test_a_map_with_nan_is_refused():
    values = np.array(RECORD.values)
    values[3, 4] = np.nan
    with pytest.raises(BadData, match="map holds values that are not finite"):
        read_json(dataclasses.replace(RECORD, values=values).dumps())


def test_the_csv_holds_the_curves_and_their_random_level():
    rows = list(csv.DictReader(io.StringIO(curves_csv(RECORD))))
    assert [float(row["fraction"]) for row in rows] == list(RECORD.deletion.fraction)
    for name in ("deletion", "insertion"):
        assert [float(row[name]) for row in rows] == list(getattr(RECORD, name).score)
        for step, row in enumerate(rows):
            ranked = sorted(float(orders[step]) for orders in getattr(RECORD.controls, name))
            assert len(ranked) == 8
            assert float(row[f"random_{name}_mean"]) == pytest.approx(sum(ranked) / 8, rel=1e-12)
            low, high = ranked[0] + 0.175 * (ranked[1] - ranked[0]), ranked[7] - 0.175 * (ranked[7] - ranked[6])
            assert float(row[f"random_{name}_percentile_2.5"]) == pytest.approx(low, rel=1e-12)
            assert float(row[f"random_{name}_percentile_97.5"]) == pytest.approx(high, rel=1e-12)


def test_the_csv_leaves_the_random_columns_empty_without_random_orders():
    text = curves_csv(make_record(orders=0, steps=3, classes=["=1+1", "@x"]))
    header, *rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 4
    for row in rows:
        assert len(row) == len(header) == 9
        assert all(float(cell) >= 0 for cell in row[:3])
        assert row[3:] == [""] * 6
    assert "=" not in text
    assert "@" not in text


def test_the_npz_holds_the_exact_arrays_and_no_objects():
    with np.load(io.BytesIO(maps_npz(RECORD)), allow_pickle=False) as arrays:
        found = dict(arrays)
    expected = {
        "values": RECORD.values, "error": RECORD.error, "pixels": RECORD.pixels, "probabilities": RECORD.probabilities,
        "fractions": RECORD.deletion.fraction, "deletion": RECORD.deletion.score, "insertion": RECORD.insertion.score,
        "random_deletion": RECORD.controls.deletion, "random_insertion": RECORD.controls.insertion,
        "random_deletion_auc": RECORD.controls.deletion_auc, "random_insertion_auc": RECORD.controls.insertion_auc,
    }  # fmt: skip
    assert set(found) == set(expected)
    assert all(same(found[name], expected[name]) for name in expected)
    with np.load(io.BytesIO(maps_npz(make_record(size=4))), allow_pickle=False) as arrays:
        assert "error" not in arrays


def test_a_folder_of_all_four_reads_back(tmp_path):
    paths = write_all(RECORD, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["record.json", "card.png", "curves.csv", "maps.npz"]
    assert same(read_record(paths[0].read_bytes()), RECORD)
    assert same(read_record(paths[1].read_bytes()), RECORD)
    assert paths[2].read_bytes() == curves_csv(RECORD).encode()
    assert paths[3].read_bytes() == maps_npz(RECORD)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "card_png", lambda record: b"")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(AuditError, match=r"could not be written into .*taken \(File exists\); choose another folder"):
        write_all(RECORD, tmp_path / "taken")


def drawn(record: AuditRecord) -> tuple[np.ndarray, list]:
    """The card's colours, uint8 (900, 1600, 3), and its figure's texts."""
    sheet = card_module._Sheet()
    card_module._draw(sheet, record)
    return np.asarray(sheet.image()), sheet.figure.texts


def test_the_picture_shows_the_input_as_it_is():
    record = make_record()
    colours, _ = drawn(record)
    for row in range(16):
        for column in range(16):
            y, x = 148 + int((row + 0.5) * 326 / 16), 40 + int((column + 0.5) * 326 / 16)
            grey = 255 * record.pixels[0, row, column]
            assert np.abs(colours[y, x] - grey).max() <= 1


def test_the_heatmap_centres_signed_maps_on_zero():
    values = np.zeros((16, 16), dtype=np.float32)
    values[2, 3], values[9, 9] = 0.25, -1.0
    record = dataclasses.replace(make_record(signed=True), values=values, pixels=np.full((1, 16, 16), 0.5, np.float32))
    colours, texts = drawn(record)

    def at(row, column):
        return colours[148 + int((row + 0.5) * 326 / 16), 428 + int((column + 0.5) * 326 / 16)].astype(float)

    shown = 0.32 * 127.5
    assert at(0, 0) == pytest.approx(0.68 * np.array([0xF7, 0xF7, 0xF7]) + shown, abs=2)
    assert at(9, 9) == pytest.approx(0.68 * np.array([0x21, 0x66, 0xAC]) + shown, abs=2)
    quarter = 0.75 * np.array([0xF7, 0xF7, 0xF7]) + 0.25 * np.array([0xE0, 0x82, 0x14])
    assert at(2, 3) == pytest.approx(0.68 * quarter + shown, abs=3)
    assert {"1.00", "0", "−1.00"} <= {text.get_text() for text in texts}


def test_a_heatmap_comes_with_its_numbers():
    _, texts = drawn(RECORD)
    words = [text.get_text() for text in texts]
    area = RECORD.deletion_auc
    assert f"{area:.3g}" in words
    assert f"{area / RECORD.untouched:.3g}" in words
    assert f"+{RECORD.advantage['deletion'].value:.3g}".ljust(6, "0") in words
    assert any("n = 8" in word and "> 0 is better" in word for word in words)
    assert any("scale: this image" in word and "largest standard error 0.0125" in word for word in words)
    assert {"0123456789abcdef", "ab12ab12ab12ab12", "The map is odd.", "▲ 1 warning", "◆ adapted"} <= set(words)
    assert any("361 forwards" in word and "1.75 s" in word for word in words)
    assert RECORD.provenance["command"] in words


def test_least_important_first_turns_the_directions():
    record = make_record(direction="least")
    words = [text.get_text() for text in drawn(record)[1]]
    assert {"↑ Deletion", "↓ Insertion", "↑ higher is better", "advantage over random"} <= set(words)
    assert any(word.startswith("> 0 is better") for word in words)


def test_the_target_is_listed_however_unlikely():
    likely = make_record()
    last = int(likely.probabilities.argmin())
    words = [text.get_text() for text in drawn(dataclasses.replace(likely, target=last))[1]]
    assert likely.classes[last] in words
    assert likely.classes[int(likely.probabilities.argmax())] in words


@pytest.mark.parametrize(
    ("name", "rising", "value", "sentence"),
    [
        ("deletion", False, 0.2, "falls faster than random order"),
        ("deletion", False, -0.2, "falls slower than random order"),
        ("insertion", True, 0.2, "rises faster than random order"),
        ("deletion", True, 0.2, "lies below random order"),
        ("insertion", False, 0.2, "lies above random order"),
        ("insertion", False, -0.2, "lies below random order"),
        ("insertion", True, 0.05, "not told apart from random order"),
    ],
)
def test_the_finding_says_what_the_curve_does(name, rising, value, sentence):
    score = np.linspace(0, 1, 21) if rising else np.linspace(1, 0, 21)
    curve = Curve(RECORD.deletion.fraction, score)
    effect = Effect(value, value - 0.1, value + 0.1, 8, "by hand")
    record = dataclasses.replace(RECORD, advantage={name: effect}, **{name: curve})
    assert card_module._finding(record, name) == sentence


HARD = {
    "mathematics": {"classes": ["$x$_{bad", r"\frac{", "$$", "$", "$\\alpha$"], "checkpoint": "$a_b$"},
    "long names": {"classes": [LONG, LONG + "!"], "checkpoint": "checkpoint-" * 20, "image": LONG, "error": True},
    "colour and many classes": {"channels": 3, "size": 48, "classes": [f"class {i}" for i in range(1000)]},
    "no control": {"orders": 0, "label": None, "classes": ["one"]},
    "one control": {"orders": 1, "signed": True, "quantity": "logit", "direction": "least", "patch": 4},
    "sick": {"health": [LONG, LONG, "short", LONG, LONG], "classes": ["日本", "a\nb", "\u202eab", "", "\U0001f9a5"]},
}


@pytest.mark.parametrize("options", HARD.values(), ids=HARD.keys())
def test_nothing_on_a_card_overlaps_or_leaves_it(options):
    record = make_record(**options)
    sheet = card_module._Sheet()
    card_module._draw(sheet, record)
    renderer = sheet.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in sheet.figure.texts if text.get_text()]
    for at, (words, box) in enumerate(boxes):
        assert box.x0 >= 36, words
        assert box.x1 <= 1564, words
        assert box.y0 >= 0, words
        for others, other in boxes[:at]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or down <= 4, (words, others)


def test_names_are_drawn_literally():
    record = make_record(**HARD["mathematics"])
    texts = drawn(record)[1]
    assert not any(text.get_parse_math() for text in texts)
    shown = {text.get_text() for text in texts}
    assert set(record.classes) <= shown
    assert "$a_b$" in shown
    assert same(read_card(card_png(record)), record)


def test_letters_that_cannot_be_drawn_become_boxes():
    assert card_module.plain("日a\nb\u202e\U0001f9a5é→") == "□a□b□□é→"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (0.1, "0.100"), (12.0, "12.0"), (123.4, "123"), (54321.0, "54321"), (0, "0.00"),
     (-0.5, "−0.500"), (2.5e-7, "2.50e−07"), (1e7, "1.00e+07"), (None, "—")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert card_module.figures(value) == text


def test_percentages_admit_what_rounding_hides():
    assert [card_module.percent(p) for p in (1.0, 0.9999, 0.5, 0.0187, 0.0009, 0.0)] == [
        "100 %", "> 99.9 %", "50.0 %", "1.87 %", "< 0.1 %", "0.00 %",
    ]  # fmt: skip


def test_importing_needs_no_torch_and_drawing_no_pyplot():
    code = (
        "import sys, audit_core.export as e; from tests.helpers import make_record as m\n"
        "assert not {'torch', 'streamlit', 'matplotlib'} & set(sys.modules)\n"
        "e.card_png(m(size=4)); assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True, timeout=120)
