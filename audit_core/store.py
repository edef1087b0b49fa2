"""Results on disk: sealed bytes, JSON and npz in diskcache; nothing is ever pickled or unpickled.

Writing goes through diskcache. Reading uses a read-only connection of its own, because diskcache's reading under
least-recently-used eviction writes the access time first: on a full disk or in a read-only folder every value would
become unreadable although it lies there intact.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import sqlite3
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import diskcache
import numpy as np
from diskcache.core import DBNAME, MODE_BINARY, MODE_RAW

from audit_core.errors import StoreError

GIB = 2**30
PATIENCE = 20.0  # seconds to wait for another process that is writing
ORPHAN_AGE = 3600.0  # seconds after which a value file without a row was left by a killed process
MAGIC = b"triplecheck-1"
VALUE_FILE = re.compile(r"[0-9a-f]{2}[\\/][0-9a-f]{2}[\\/][0-9a-f]{28}\.val")

Arrays = dict[str, np.ndarray]
T = TypeVar("T")


def default_directory() -> Path:
    """The folder named by the environment variable TRIPLECHECK_STORE, else ``.triplecheck/store`` in the project."""
    chosen = os.environ.get("TRIPLECHECK_STORE", "").strip()
    return Path(chosen).expanduser() if chosen else Path(__file__).resolve().parents[1] / ".triplecheck" / "store"


class BytesDisk(diskcache.Disk):
    """Keys are str and values are bytes; whatever would need pickle is refused on the way in and on the way out."""

    def __init__(self, directory: str, **settings: Any) -> None:  # Any: diskcache's own disk settings
        super().__init__(directory, **settings)
        self._written = threading.local()

    def put(self, key: Any) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"a key must be str, got {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or type(key) is not str:
            raise StoreError("a key in the store is not text: another program wrote it, so it is refused; delete it")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, str | None, Any]:
        if type(value) is not bytes or read:
            raise TypeError(f"a value must be bytes, got {type(value).__name__}")
        self._written.filename = None
        fields: tuple[int, int, str | None, Any] = super().store(value, read, key=key)
        self._written.filename = fields[2]
        return fields

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes | None:
        """The stored bytes; None for a missing file and for any row that :meth:`store` cannot have written."""
        if mode == MODE_RAW and filename is None and type(value) is bytes:
            return value
        if mode != MODE_BINARY or type(filename) is not str or not VALUE_FILE.fullmatch(filename):
            return None
        with suppress(FileNotFoundError):
            return Path(self._directory, filename).read_bytes()
        return None

    def remove(self, file_path: str) -> None:
        """Delete a value file; a name that leads out of the store is left alone."""
        if VALUE_FILE.fullmatch(file_path):
            super().remove(file_path)

    def undo(self) -> None:
        """Delete the file that this thread's failed write left behind: diskcache keeps it, and the disk is full."""
        if filename := getattr(self._written, "filename", None):
            self.remove(filename)

    def _write(self, full_path: str, iterator: Any, mode: str, encoding: str | None = None) -> int:
        with suppress(FileNotFoundError):  # another process has just removed the empty parent; diskcache tries again
            os.makedirs(os.path.dirname(full_path), exist_ok=True)  # diskcache hides why this fails
        try:
            size: int = super()._write(full_path, iterator, mode, encoding)
        except OSError:
            with suppress(OSError):
                os.remove(full_path)
            raise
        return size


class _Row(NamedTuple):
    """One row of the index; ``stored`` tells it apart from a later value under the same row number."""

    number: int
    stored: float
    mode: int
    filename: str | None
    value: Any  # bytes in a row of ours; anything in a planted one
    bytes: int


_BYTES = "max(cast(ifnull(size, 0) AS INTEGER), ifnull(length(value), 0))"
_ROW = f"SELECT rowid, store_time, mode, filename, value, {_BYTES} FROM Cache"


class Store:
    """Key -> bytes, JSON or arrays, shared by threads and processes.

    Every value carries its kind and a sha256 over key and content: a truncated, altered, swapped or pickled one
    counts as missing and is deleted. At ``size_limit`` bytes the least recently read or written values are dropped.
    A folder that cannot be written is opened for reading. Raises :class:`StoreError` with one sentence for a full
    disk, a read-only folder, a damaged index or an endless lock; values stored before stay as they were.
    """

    def __init__(self, directory: str | Path, size_limit: int = 2 * GIB) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self.size_limit = size_limit
        self._lock = threading.RLock()
        self._flights: WeakValueDictionary[str, Any] = WeakValueDictionary()  # Any: a lock
        self._disk = BytesDisk(str(self.directory))
        self._cache: diskcache.Cache | None = None
        self._refusal = ""
        self._options = "mode=ro"
        self._open()

    def get_bytes(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None where there are none or they were damaged."""
        return self._get(key, "bytes", bytes)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Keep ``data`` under ``key``; an older value is replaced at once or, on an error, kept."""
        if type(data) is not bytes:
            raise TypeError(f"put_bytes takes bytes, got {type(data).__name__}")
        self._put(key, "bytes", data)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """The JSON object under ``key``, or None."""
        return self._get(key, "json", _json_object)

    def put_json(self, key: str, value: dict[str, Any]) -> None:
        """Keep a dictionary of JSON data; NaN and infinity have no JSON form and raise ``ValueError``."""
        if not isinstance(value, dict):
            raise TypeError(f"put_json takes a dictionary, got {type(value).__name__}")
        self._put(key, "json", json.dumps(value, allow_nan=False, ensure_ascii=False).encode())

    def get_arrays(self, key: str) -> Arrays | None:
        """The named arrays under ``key`` as fresh, writable copies, or None."""
        return self._get(key, "arrays", _unpack_arrays)

    def put_arrays(self, key: str, arrays: Arrays) -> None:
        """Keep named arrays, exactly; an array of Python objects raises ``ValueError``."""
        self._put(key, "arrays", _pack_arrays(arrays))

    def get_or_compute_arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays under ``key``; where missing, ``compute()`` runs once per process and its result is kept."""
        with self._lock:
            flight = self._flights.setdefault(_checked(key), threading.Lock())
        with flight:
            found = self.get_arrays(key)
            if found is None:
                found = compute()
                self.put_arrays(key, found)
        return found

    def __contains__(self, key: str) -> bool:
        """Whether an undamaged value lies under ``key``; it counts as a use of it."""
        return self._get(key, None, bytes) is not None

    def delete(self, key: str) -> bool:
        """Drop the value under ``key``; False where there was none."""
        row = self._row(_checked(key))
        return row is not None and self._drop("delete a value", [row]) > 0

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted; rows with foreign keys are left out."""
        query = "SELECT key FROM Cache WHERE raw = 1 AND typeof(key) = 'text' AND substr(key, 1, ?) = ? ORDER BY key"
        return [key for (key,) in self._read(query, (len(prefix), prefix))]

    def volume(self) -> int:
        """Bytes on disk: the index and all value files."""
        ((pages,),), ((page,),) = self._read("PRAGMA page_count"), self._read("PRAGMA page_size")
        ((files,),) = self._read("SELECT ifnull(sum(size), 0) FROM Cache")
        return int(pages * page + files)

    def close(self) -> None:
        """Close this thread's connection; the next call opens it again."""
        if self._cache is not None:
            self._cache.close()

    def _open(self) -> None:
        """Open for writing, else for reading, else raise."""
        try:
            self._cache = diskcache.Cache(
                str(self.directory),
                timeout=PATIENCE,
                disk=BytesDisk,
                eviction_policy="none",
                cull_limit=0,  # diskcache drops ten values at a time, the one just written among them
                sqlite_mmap_size=0,  # a truncated index must be an error, not a bus error
            )
        except Exception as error:  # planted settings raise whatever they like inside diskcache
            refusal = self._explained("open it for writing", error)
            if not self._readable():
                raise refusal from error
            self._refusal = str(refusal)
        else:
            with suppress(OSError):
                self._sweep()

    def _readable(self) -> bool:
        """Try the ways to read a folder that cannot be written; the last one needs no lock files beside the index."""
        for self._options in ("mode=ro", "immutable=1"):
            with suppress(StoreError):
                self._read("SELECT count(*) FROM Cache")
                return True
        return False

    def _sweep(self) -> None:
        """Delete value files that a killed process wrote but never entered, or replaced but never deleted."""
        limit = time.time() - ORPHAN_AGE
        files = [path for path in self.directory.glob("*/*/*.val") if path.stat().st_mtime < limit]
        if files:
            entered = {name for (name,) in self._read("SELECT filename FROM Cache WHERE filename IS NOT NULL")}
            for path in files:
                name = str(path.relative_to(self.directory))
                if name not in entered:
                    self._disk.remove(name)

    def _get(self, key: str, kind: str | None, decode: Callable[[bytes], T]) -> T | None:
        _checked(key)
        for _ in range(3):
            row = self._row(key)
            if row is None:
                return None
            found = _unseal(key, self._fetch(row))
            if found is not None and kind not in (None, found[0]):
                raise StoreError(f"{key!r} was asked for as {kind}, but it holds {found[0]}; ask for that instead")
            value = None if found is None else _decoded(key, found[1], decode)
            if value is not None:
                self._touch(row)
                return value
            if self._cache is None or self._drop("delete a damaged value", [row]):
                return None
        return None

    def _put(self, key: str, kind: str, payload: bytes) -> None:
        sealed = _seal(_checked(key), kind, payload)
        if len(sealed) > self.size_limit:
            sizes = f"{len(sealed):,} bytes do not fit into the store's limit of {self.size_limit:,} bytes"
            raise StoreError(f"{key!r} cannot be stored: {sizes}; raise the limit")
        with self._writing(f"store {key!r}") as cache:
            cache.set(key, sealed)
        self._evict(key)

    def _evict(self, newest: str) -> None:
        """Drop the least recently used values until the volume is within the limit; ``newest`` stays."""
        oldest_first = f"{_ROW} WHERE NOT (raw = 1 AND key = ?) ORDER BY access_time, rowid LIMIT 100"
        while (excess := self.volume() - self.size_limit) > 0:
            rows = []
            for row in map(_Row._make, self._read(oldest_first, (newest,))):
                rows.append(row)
                excess -= row.bytes
                if excess <= 0:
                    break
            if not rows:
                break
            self._drop("make room", rows)

    def _row(self, key: str) -> _Row | None:
        rows = self._read(f"{_ROW} WHERE raw = 1 AND key = ?", (key,))
        return _Row._make(rows[0]) if rows else None

    def _fetch(self, row: _Row) -> bytes | None:
        try:
            return self._disk.fetch(row.mode, row.filename, row.value, False)
        except OSError as error:
            raise self._explained("read a value", error) from error

    def _touch(self, row: _Row) -> None:
        """Note the use; best effort, because a value must stay readable where nothing can be written."""
        if self._cache is None:
            return
        with suppress(sqlite3.Error), closing(self._connect("mode=rw", patience=0.1)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            update = "UPDATE Cache SET access_time = ? WHERE rowid = ? AND store_time IS ?"
            connection.execute(update, (time.time(), row.number, row.stored))

    def _drop(self, action: str, rows: list[_Row]) -> int:
        """Delete these very rows, not what another process has put in their place since; how many there were."""
        dropped = 0
        with self._writing(action) as cache:
            for row in rows:
                if type(row.filename) is str:
                    cache.disk.remove(row.filename)  # first, since on a full disk the index can only grow after this
            with closing(self._connect("mode=rw")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    delete = "DELETE FROM Cache WHERE rowid = ? AND store_time IS ?"
                    dropped += connection.execute(delete, (row.number, row.stored)).rowcount
                connection.execute("COMMIT")
        return dropped

    def _connect(self, options: str, patience: float = PATIENCE) -> sqlite3.Connection:
        address = f"{(self.directory / DBNAME).as_uri()}?{options}"
        return sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(self._connect(self._options)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._explained("read it", error) from error

    @contextmanager
    def _writing(self, action: str) -> Iterator[diskcache.Cache]:
        """One writer at a time in this process; whatever goes wrong becomes a sentence and leaves nothing behind."""
        if self._cache is None:
            raise StoreError(self._refusal)
        with self._lock:
            try:
                yield self._cache
            except (OSError, sqlite3.Error, diskcache.Timeout) as error:
                self._cache.disk.undo()
                self._cache.close()  # a COMMIT that failed leaves its transaction open on this connection
                raise self._explained(action, error) from error

    def _explained(self, action: str, error: BaseException) -> StoreError:
        """The one sentence for ``error``; diskcache hides the cause of its time-outs in ``__context__``."""
        causes: list[BaseException] = [error]
        while (before := causes[-1].__context__) is not None:
            causes.append(before)
        texts = " | ".join(str(cause).lower() for cause in causes)
        numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
        where = f"the store in {self.directory}"
        if numbers & {errno.ENOSPC, errno.EDQUOT} or "disk is full" in texts:
            return StoreError(f"cannot {action}: no space left for {where}; free some, what it holds is kept")
        if numbers & {errno.EACCES, errno.EPERM, errno.EROFS} or "readonly" in texts or "unable to open" in texts:
            return StoreError(f"cannot {action}: {where} is not writable; allow it or set TRIPLECHECK_STORE elsewhere")
        if "locked" in texts or "busy" in texts:
            return StoreError(f"cannot {action}: {where} was in use for {PATIENCE:g} s by another process; try again")
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, OSError) or "disk i/o" in texts:
            return StoreError(f"cannot {action}: {where} failed with {detail!r}; check the disk")
        return StoreError(f"cannot {action}: the index of {where} is damaged ({detail}); move that folder away")


def _checked(key: str) -> str:
    if type(key) is not str:
        raise TypeError(f"a key must be str, got {type(key).__name__}")
    if not key.isprintable() or not 0 < len(key) <= 512:
        raise StoreError(f"a key must be 1 to 512 printable characters, got {key[:40]!r}")
    return key


def _digest(key: str, kind: str, payload: bytes) -> bytes:
    digest = hashlib.sha256(f"{kind} {len(payload)} {key}\n".encode())
    digest.update(payload)
    return digest.hexdigest().encode()


def _seal(key: str, kind: str, payload: bytes) -> bytes:
    return b" ".join([MAGIC, kind.encode(), _digest(key, kind, payload)]) + b"\n" + payload


def _unseal(key: str, sealed: bytes | None) -> tuple[str, bytes] | None:
    """Kind and payload; None unless the seal fits this key and every byte."""
    head, _, payload = (sealed or b"").partition(b"\n")
    parts = head.split(b" ")
    if len(parts) != 3 or parts[0] != MAGIC or not parts[1].isalpha():
        return None
    kind = parts[1].decode("ascii")
    return (kind, payload) if parts[2] == _digest(key, kind, payload) else None


def _decoded(key: str, payload: bytes, decode: Callable[[bytes], T]) -> T | None:
    """The decoded value; None for a planted one, since under a right seal no other fails to decode."""
    try:
        return decode(payload)
    except MemoryError as error:
        raise StoreError(f"{key!r} does not fit into memory ({len(payload):,} bytes stored); close others") from error
    except Exception:  # zip and npy readers raise a dozen kinds
        return None


def _json_object(payload: bytes) -> dict[str, Any]:
    value = json.loads(payload)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _pack_arrays(arrays: Arrays) -> bytes:
    """An uncompressed npz; unlike ``np.savez`` it takes any name and gives equal bytes for equal arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def _unpack_arrays(payload: bytes) -> Arrays:
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("a member is not an array")
    return arrays
