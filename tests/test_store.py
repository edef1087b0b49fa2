"""The store: what goes in comes out exactly, and whatever was damaged or planted never comes out at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audit_core.errors import StoreError
from audit_core.store import BytesDisk, Store, default_directory

ROOT = Path(__file__).resolve().parents[1]
BIG = 100_000  # bytes: large enough for a file of its own beside the index
fired: list[str] = []


def fire(text: str) -> None:
    fired.append(text)


class Bomb:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return fire, ("unpickled",)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options)


def value_files(store: Store) -> list[Path]:
    return sorted(store.directory.glob("*/*/*.val"))


def edit(store: Store, statement: str, values: tuple[object, ...] = ()) -> None:
    with sqlite3.connect(store.directory / "cache.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def put_many(store: Store, count: int) -> None:
    for number in range(count):
        store.put_bytes(f"{number} {'long key ' * 50}", os.urandom(BIG // 3))


def get_many(store: Store, count: int) -> None:
    for number in range(count):
        store.get_bytes(f"{number}")


def sealed(key: str, kind: str, payload: bytes) -> bytes:
    """The stored form, written out literally: magic, kind, sha256 over kind, length, key and payload."""
    digest = hashlib.sha256(f"{kind} {len(payload)} {key}\n".encode() + payload).hexdigest()
    return f"triplecheck-1 {kind} {digest}\n".encode() + payload


@pytest.mark.parametrize("data", [b"", b"\n", b"one\ntwo\x00", os.urandom(BIG)])
def test_bytes_come_back_exactly_also_in_a_new_store(store: Store, data: bytes) -> None:
    store.put_bytes("k", data)
    assert store.get_bytes("k") == data
    assert Store(store.directory).get_bytes("k") == data


def test_json_comes_back_equal(store: Store) -> None:
    value = {"a": [1, 2.5, None, True], "ü\n": {"deep": "\u2028"}}
    store.put_json("k", value)
    assert store.get_json("k") == value
    with pytest.raises(ValueError, match="JSON compliant"):
        store.put_json("k", {"x": float("nan")})
    with pytest.raises(TypeError, match="got list"):
        store.put_json("k", [1])  # type: ignore[arg-type]
    assert store.get_json("k") == value


def test_arrays_come_back_bit_for_bit_and_equal_arrays_are_equal_bytes(store: Store) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "file": rng.normal(size=(3, 0, 2)).astype(np.float16),
        "allow_pickle": np.array([np.nan, -0.0, np.inf]),
        "scalar": np.array(7, dtype=np.int64),
        "maps": np.asfortranarray(rng.normal(size=(150, 100))),
        "words": np.array(["Edge-Ring", "none"]),
        "": np.zeros(2, dtype=bool),
    }
    store.put_arrays("k", arrays)
    found = store.get_arrays("k")
    assert found is not None
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    first = value_files(store)[0].read_bytes()
    store.put_arrays("k", arrays)
    assert value_files(store)[0].read_bytes() == first


def test_arrays_of_objects_are_not_stored(store: Store) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        store.put_arrays("k", {"x": np.array([Bomb()], dtype=object)})
    assert store.get_arrays("k") is None


def test_a_value_is_not_read_as_another_kind(store: Store) -> None:
    store.put_bytes("k", b"{}")
    with pytest.raises(StoreError, match="'k' was asked for as json, but it holds bytes"):
        store.get_json("k")
    assert store.get_bytes("k") == b"{}"


def test_keys_contains_and_delete(store: Store) -> None:
    for key in ("audit:b", "audit:a", "upload:1", "audit%", "Audit:c"):
        store.put_bytes(key, b"x")
    assert store.keys("audit:") == ["audit:a", "audit:b"]
    assert store.keys("audit%") == ["audit%"]
    assert len(store.keys()) == 5
    assert "audit:a" in store
    assert store.delete("audit:a")
    assert not store.delete("audit:a")
    assert "audit:a" not in store
    assert store.get_bytes("audit:a") is None


@pytest.mark.parametrize("key", ["", "a\nb", "a\x00", "\ud800", "x" * 513])
def test_a_key_from_a_broken_link_is_one_sentence(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="1 to 512 printable characters"):
        store.get_bytes(key)
    with pytest.raises(StoreError, match="1 to 512 printable characters"):
        store.put_bytes(key, b"x")


def test_only_text_keys_and_bytes_values_are_taken(store: Store) -> None:
    with pytest.raises(TypeError, match="key must be str, got bytes"):
        store.put_bytes(b"k", b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes bytes, got Bomb"):
        store.put_bytes("k", Bomb())  # type: ignore[arg-type]
    disk = BytesDisk(str(store.directory))
    with pytest.raises(TypeError, match="key must be str, got tuple"):
        disk.put(("k",))
    with pytest.raises(TypeError, match="value must be bytes, got Bomb"):
        disk.store(Bomb(), False)


def test_a_planted_pickle_is_never_unpickled(store: Store) -> None:
    pickled = pickle.dumps(Bomb())
    assert pickle.loads(pickled) is None
    assert fired == ["unpickled"]  # the bomb works
    fired.clear()
    for key in ("inline", "large", "text"):
        store.put_bytes(key, os.urandom(BIG) if key == "large" else b"x")
    value_files(store)[0].write_bytes(pickled)
    edit(store, "UPDATE Cache SET mode = 4 WHERE key = 'large'")
    edit(store, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'inline'", (pickled,))
    edit(store, "UPDATE Cache SET value = 'text', store_time = NULL, size = 'many' WHERE key = 'text'")
    edit(store, "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 1, ?)", (pickled, b"x"))
    reopened = Store(store.directory)
    assert reopened.keys() == ["inline", "large", "text"]
    for key in ("inline", "large", "text"):
        assert key not in reopened
        assert reopened.get_bytes(key) is None
    assert reopened.keys() == []
    with pytest.raises(StoreError, match="not text"):
        BytesDisk(str(store.directory)).get(pickled, False)
    assert BytesDisk(str(store.directory)).fetch(4, None, pickled, False) is None
    assert fired == []


def test_a_planted_pickle_under_a_right_seal_is_never_unpickled(store: Store) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Bomb()], dtype=object))
    for payload in (buffer.getvalue(), pickle.dumps(Bomb()), b"PK"):
        store.put_bytes("k", b"x")
        edit(store, "UPDATE Cache SET value = ? WHERE key = 'k'", (sealed("k", "arrays", payload),))
        assert store.get_arrays("k") is None
        assert store.keys() == []
    store.put_json("k", {})
    edit(store, "UPDATE Cache SET value = ? WHERE key = 'k'", (sealed("k", "json", b"[1]"),))
    assert store.get_json("k") is None
    store.put_json("k", {})
    edit(store, "UPDATE Cache SET value = ? WHERE key = 'k'", (sealed("k", "json", b'{"a": 1}'),))
    assert store.get_json("k") == {"a": 1}  # the literal seal above is the right one
    assert fired == []


def test_a_planted_file_name_reaches_nothing_outside(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.val"
    for name in ("../secret.val", str(secret)):
        secret.write_bytes(sealed("k", "bytes", b"secret"))
        store.put_bytes("k", b"x")
        edit(store, "UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = 'k'", (name,))
        assert store.get_bytes("k") is None
        store.put_bytes("k", b"x")
        edit(store, "UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = 'k'", (name,))
        store.put_bytes("k", b"y")
        assert store.get_bytes("k") == b"y"
        assert secret.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "longer", "gone"])
def test_a_damaged_file_counts_as_missing_and_is_deleted(store: Store, damage: str) -> None:
    store.put_bytes("other", os.urandom(BIG))
    (other,) = value_files(store)
    data = os.urandom(BIG)
    store.put_bytes("k", data)
    (path,) = set(value_files(store)) - {other}
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    forms = {"cut": whole[: BIG // 2], "empty": b"", "flip": bytes(flipped), "longer": whole + b"\0"}
    path.write_bytes(forms[damage]) if damage in forms else path.unlink()
    assert store.get_bytes("k") is None
    assert store.keys() == ["other"]
    assert value_files(store) == [other]
    assert store.get_bytes("other") is not None
    store.put_bytes("k", data)
    assert store.get_bytes("k") == data


def test_a_value_moved_under_another_key_is_refused(store: Store) -> None:
    store.put_bytes("a", b"of a")
    edit(store, "UPDATE Cache SET key = 'b' WHERE key = 'a'")
    assert store.get_bytes("b") is None


def test_the_least_recently_used_value_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, size_limit=5 * BIG)
    for name in "abcd":
        store.put_bytes(name, os.urandom(BIG))
    assert store.get_bytes("a") is not None
    store.put_bytes("e", os.urandom(BIG))
    assert store.keys() == ["a", "c", "d", "e"]
    store.put_bytes("f", os.urandom(3 * BIG))
    assert store.keys() == ["e", "f"]
    assert store.volume() <= 5 * BIG
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.val"))
    assert on_disk == sum(len(sealed(name, "bytes", b"x" * n)) for name, n in (("e", BIG), ("f", 3 * BIG)))
    assert on_disk < store.volume()


def test_many_small_values_stay_within_the_limit(tmp_path: Path) -> None:
    store = Store(tmp_path, size_limit=300_000)
    for number in range(60):
        store.put_bytes(f"{number:03d}", os.urandom(10_000))
    kept = store.keys()
    assert store.volume() <= 300_000
    assert kept == [f"{number:03d}" for number in range(60)][-len(kept) :]
    assert len(kept) >= 15


def test_a_value_beyond_the_limit_is_refused_and_drops_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, size_limit=2 * BIG)
    store.put_bytes("small", b"x")
    with pytest.raises(StoreError, match=r"'large' cannot be stored: 300,\d+ bytes do not fit"):
        store.put_bytes("large", bytes(3 * BIG))
    assert store.keys() == ["small"]


def test_compute_runs_once_for_many_threads(store: Store) -> None:
    calls, found = [], []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        time.sleep(0.2)
        return {"x": np.arange(5)}

    threads = [
        threading.Thread(target=lambda: found.append(store.get_or_compute_arrays("k", compute))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert [arrays["x"].tolist() for arrays in found] == [[0, 1, 2, 3, 4]] * 6


def test_threads_read_what_was_written(store: Store) -> None:
    errors: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for turn in range(15):
            key = f"{rng.integers(4)}"
            data = f"{key}:{seed}:{turn} ".encode() * int(rng.integers(1, 6000))
            store.put_bytes(key, data)
            found = store.get_bytes(key)
            if found is None or not found.startswith(f"{key}:".encode()):
                errors.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(value_files(store)) <= 4


WRITER = """
import sys
from audit_core.store import Store
store, turn = Store(sys.argv[1]), 0
while True:
    key = f"k{turn % 7}"
    store.put_bytes(key, f"{key} {turn} ".encode() * (9000 if turn % 2 else 20))
    turn += 1
    if turn == 20:
        print("writing", flush=True)
"""


def test_a_killed_writer_leaves_every_key_readable_or_absent(tmp_path: Path) -> None:
    for delay in (0.0, 0.013, 0.05):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            time.sleep(delay)
            process.kill()
        store = Store(tmp_path)
        keys = store.keys()
        assert keys == [f"k{number}" for number in range(7)]
        for key in keys:
            found = store.get_bytes(key)
            assert found is not None
            words = found.decode().split()
            assert set(words[::2]) == {key}
            assert len(set(words[1::2])) == 1
        store.put_bytes("after", b"alive")
        assert store.get_bytes("after") == b"alive"
        store.delete("after")


SHARER = """
import sys
from audit_core.store import Store
store = Store(sys.argv[1], size_limit=400_000)
for turn in range(50):
    key = f"k{turn % 9}"
    store.put_bytes(key, f"{key} ".encode() * (30000 if turn % 3 else 9))
    for other in (f"k{(turn + step) % 9}" for step in range(3)):
        found = store.get_bytes(other)
        assert found is None or set(found.decode().split()) == {other}
    if turn % 10 == 9:
        store.delete(key)
"""


def test_processes_share_a_store_at_its_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHARER, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", "", ""]
    store = Store(tmp_path, size_limit=400_000)
    assert store.volume() <= 400_000
    assert all(key in store for key in store.keys())  # noqa: SIM118 - a store is no dictionary
    assert len(value_files(store)) <= len(store.keys())


def test_files_left_by_a_killed_process_are_swept_when_they_are_old(store: Store) -> None:
    store.put_bytes("k", os.urandom(BIG))
    entered = value_files(store)
    names = {"old": "ab/cd/" + "0" * 28 + ".val", "young": "ab/cd/" + "1" * 28 + ".val"}
    for name in names.values():
        (store.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (store.directory / name).write_bytes(b"left over")
    for path in (store.directory / names["old"], *entered):
        os.utime(path, (time.time() - 7200,) * 2)
    Store(store.directory)
    assert set(value_files(store)) == {*entered, store.directory / names["young"]}


def test_a_full_disk_keeps_the_old_value(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_bytes("k", b"old")
    limit = "full"

    def full(self: BytesDisk, path: str, iterator: Iterator[bytes], mode: str, encoding: str | None = None) -> int:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"only a part")
        raise OSError(errno.ENOSPC, limit)

    with monkeypatch.context() as patch:
        patch.setattr(BytesDisk.__mro__[1], "_write", full)
        with pytest.raises(StoreError, match="cannot store 'k': no space left for the store"):
            store.put_bytes("k", os.urandom(BIG))
    assert value_files(store) == []
    assert store.get_bytes("k") == b"old"
    store.put_bytes("k", b"new")
    assert store.get_bytes("k") == b"new"


def test_a_full_index_keeps_the_old_value_and_leaves_no_file(store: Store) -> None:
    store.put_bytes("k", b"old")
    assert store._cache is not None
    store._cache._con.execute("PRAGMA max_page_count = 1")  # "database or disk is full" at the next growth
    with pytest.raises(StoreError, match="cannot store 'fill': no space left for the store"):
        store.put_bytes("fill", os.urandom(30_000))
    store._cache._con.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="no space left"):
        put_many(store, 2000)
    assert len(value_files(store)) == len(store.keys()) - 1
    assert store.get_bytes("k") == b"old"
    store.put_bytes("k", b"new")
    assert store.get_bytes("k") == b"new"


FULL = """
import os, sys
from audit_core.errors import StoreError
from audit_core.store import Store
store = Store(sys.argv[1])
small, large, refused = {}, {}, 0
for number in range(60):
    held, size = (small, 9000) if number % 2 else (large, 90000)
    data = os.urandom(size)
    try:
        store.put_bytes(f"k{number}", data)
        held[f"k{number}"] = data
    except StoreError as error:
        assert "no space left" in str(error), str(error)
        refused += 1
assert refused > 20 and len(small) > 2 and len(large) > 2, (refused, len(small), len(large))
again = Store(sys.argv[1])
for key, data in {**small, **large}.items():
    assert store.get_bytes(key) == data and again.get_bytes(key) == data
for key in large:
    assert store.delete(key)
store.put_bytes("after", os.urandom(50000))
assert "after" in again
print("fine", refused, len(small), len(large))
"""


def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    script = f'{mount} && exec {sys.executable} -c "$0" {tmp_path}'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, FULL], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.stdout.startswith("fine"), result.stderr


READ_ONLY = """
import encodings.hex_codec, os, sys
from audit_core.errors import StoreError
from audit_core.store import Store
early = Store(sys.argv[1]) if sys.argv[2] == "early" else None
if os.geteuid() == 0:
    os.setuid(65534)
else:
    for folder, _, files in os.walk(sys.argv[1]):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            os.chmod(path, 0o555)
store = early or Store(sys.argv[1])
assert store.get_json("small") == {"a": 1}
assert store.get_bytes("large") == b"x" * 100_000
assert store.keys() == ["large", "small"]
assert store.get_bytes("none") is None
actions = [lambda: store.put_bytes("new", b"x" * 100_000), lambda: store.delete("small")]
for action in actions if early else [*actions, lambda: store.put_bytes("new", b"x")]:
    try:
        action()
        raise SystemExit("written")
    except StoreError as error:
        print(error)
assert store.get_json("small") == {"a": 1}
"""


@pytest.mark.parametrize("opened", ["early", "late"])
@pytest.mark.parametrize("writer_lives", [True, False])
def test_a_read_only_folder_is_still_readable(opened: str, writer_lives: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Store(folder)
        store.put_json("small", {"a": 1})
        store.put_bytes("large", b"x" * 100_000)
        if not writer_lives:
            store.close()
        result = run(READ_ONLY, folder, opened)
        for path in [Path(folder), *Path(folder).rglob("*")]:
            os.chmod(path, 0o755)
        store.close()
    assert result.returncode == 0, result.stderr
    sentences = result.stdout.count("is not writable; allow it or set TRIPLECHECK_STORE elsewhere\n")
    assert sentences == (2 if opened == "early" else 3), result.stdout


@pytest.mark.parametrize("content", [b"no database at all " * 500, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_index_is_one_sentence_and_touches_no_value(store: Store, content: bytes) -> None:
    store.put_bytes("k", os.urandom(BIG))
    files = value_files(store)
    store.close()
    (store.directory / "cache.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"the index of the store in .* is damaged .*; move that folder away$"):
        Store(store.directory)
    assert value_files(store) == files


def test_an_index_damaged_while_open_is_one_sentence(store: Store) -> None:
    for number in range(50):
        store.put_bytes(f"{number}", os.urandom(20_000))
    store.close()
    path = store.directory / "cache.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + os.urandom(len(whole) - 5000))
    with pytest.raises(StoreError, match="cannot read it: the index of the store"):
        get_many(store, 50)
    with pytest.raises(StoreError, match="cannot store 'new'"):
        store.put_bytes("new", b"x")
    path.write_bytes(whole)
    assert store.get_bytes("3") is not None


def test_a_foreign_setting_in_the_index_is_one_sentence(store: Store) -> None:
    edit(store, "INSERT INTO Settings VALUES ('disk_surprise', 1)")
    store.put_bytes("k", b"x")
    reopened = Store(store.directory)  # cannot be opened for writing, but what it holds can be read
    assert reopened.get_bytes("k") == b"x"
    with pytest.raises(StoreError, match=r"cannot open it for writing: the index of .* is damaged"):
        reopened.put_bytes("k", b"y")


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot open it for writing: the store in .* is not writable"):
        Store(tmp_path / "store")


def test_a_lock_that_never_ends_is_one_sentence_and_reading_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("k", b"old")
    store.close()
    assert store._cache is not None
    monkeypatch.setattr(store._cache, "_timeout", 0.1)
    with sqlite3.connect(store.directory / "cache.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.get_bytes("k") == b"old"
        with pytest.raises(StoreError, match="was in use for 20 s by another process; try again"):
            store.put_bytes("k", b"new")
        other.execute("ROLLBACK")
    other.close()
    store.put_bytes("k", b"new")
    assert store.get_bytes("k") == b"new"


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIPLECHECK_STORE", str(tmp_path / "elsewhere"))
    assert default_directory() == tmp_path / "elsewhere"
    monkeypatch.delenv("TRIPLECHECK_STORE")
    assert default_directory() == ROOT / ".triplecheck" / "store"


def test_a_folder_with_an_odd_name_works(tmp_path: Path) -> None:
    store = Store(tmp_path / "a b?c#d%20ü")
    store.put_json("k", {"a": 1})
    assert json.dumps(store.get_json("k")) == '{"a": 1}'
    assert Store(tmp_path / "a b?c#d%20ü").keys() == ["k"]


def test_the_store_imports_neither_torch_nor_streamlit() -> None:
    code = "import sys, audit_core.store, audit_core.jobs; print({'torch', 'streamlit'} & set(sys.modules))"
    assert run(code).stdout.strip() == "set()"
