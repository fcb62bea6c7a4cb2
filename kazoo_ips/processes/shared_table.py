"""A table from keys to times, shared by a process and its forks. Standard library only.

The table has a fixed size. A new key replaces the key of its set that has the earliest time. The
lock is a file lock (`lockf`), which the kernel releases when a process is killed. An entry that a
killed process has written in part is still a valid entry. The table is lost when the last process
ends.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

_ENTRY = struct.Struct("<Qd")
_WAYS = 8
"""Number of entries in a set. A key can be stored in any entry of its set."""
_SET = struct.Struct("<" + _WAYS * "Qd")


class SharedMemory:
    """Memory with a lock, shared by a process and its forks.

    :param size: in bytes; the memory is zeroed
    """

    def __init__(self, size: int) -> None:
        # The file has no name, and is freed when the last process ends.
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            self._entries = mmap.mmap(file.fileno(), size)
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._lock = Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, which excludes all other threads and processes."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


class SharedTable(SharedMemory):
    """Times by key. The default size is half a megabyte. Call `get` and `put` inside `locked`.

    :param sets: the number of sets; each can hold eight keys
    """

    def __init__(self, sets: int = 4096) -> None:
        super().__init__(sets * _SET.size)
        self._sets = sets
        # Without the secret, a client cannot choose keys whose hashes collide.
        self._secret = secrets.token_bytes(16)

    def get(self, key: str) -> float:
        """Return the time of a key; 0 if it has none, or if it was replaced."""
        mark, start = self._place(key)
        marks, times = self._set(start)
        return times[marks.index(mark)] if mark in marks else 0.0

    def reader(self, key: str) -> Callable[[], float]:
        """Return a function like `get` for one key, ten times as fast, which needs no lock.

        While another process writes, it may return the previous time.
        """
        mark, start = self._place(key)
        offset = start

        def read() -> float:
            nonlocal offset
            at, time = _ENTRY.unpack_from(self._entries, offset)
            if at != mark:
                marks, _ = self._set(start)
                offset = start + _ENTRY.size * (marks.index(mark) if mark in marks else 0)
                at, time = _ENTRY.unpack_from(self._entries, offset)
            return float(time) if at == mark else 0.0

        return read

    def put(self, key: str, time: float) -> None:
        """Set the time of a key."""
        mark, start = self._place(key)
        marks, times = self._set(start)
        # The entry of this key, if there is one, otherwise the entry with the earliest time.
        way = marks.index(mark) if mark in marks else times.index(min(times))
        _ENTRY.pack_into(self._entries, start + way * _ENTRY.size, mark, time)

    def _place(self, key: str) -> tuple[int, int]:
        digest = hashlib.blake2b(key.encode(), digest_size=16, key=self._secret).digest()
        mark, index = struct.unpack("<QQ", digest)
        return mark, index % self._sets * _SET.size

    def _set(self, start: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the marks and the times of the entries of a set."""
        values = _SET.unpack_from(self._entries, start)
        return values[::2], values[1::2]


@cache
def shared(_name: str) -> SharedTable:
    """Return the table of that name, shared with the processes forked after the first call."""
    return SharedTable()
