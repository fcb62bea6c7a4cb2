"""A table from keys to times, shared by a process and all that it forks. Standard library only.

It has a fixed size: what is nearest to its end makes room. The lock is the kernel's (`lockf`), so
that a killed process leaves none behind, and an entry that it left half written is an entry like
any other. Whatever the table says is gone when the last of the processes is.
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
"""Entries among which a key may lie."""
_SET = _WAYS * _ENTRY.size


class SharedMemory:
    """Memory with a lock, for a process and all that it forks.

    :param size: bytes, zero at first
    """

    def __init__(self, size: int) -> None:
        with tempfile.TemporaryFile() as file:  # it has no name, and is gone with its users
            file.truncate(size)
            self._entries = mmap.mmap(file.fileno(), size)
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._lock = Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other threads and processes out."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


class SharedTable(SharedMemory):
    """Times by key, in half a megabyte unless said otherwise. `get` and `put` belong in `locked`.

    :param sets: how many times eight keys it holds
    """

    def __init__(self, sets: int = 4096) -> None:
        super().__init__(sets * _SET)
        self._sets = sets
        # Nobody outside can choose keys that fall together.
        self._secret = secrets.token_bytes(16)

    def get(self, key: str) -> float:
        """The key's time in Unix seconds; 0 when it has none, or none any more."""
        mark, start = self._place(key)
        return next((time for at, time in self._set(start).values() if at == mark), 0.0)

    def reader(self, key: str) -> Callable[[], float]:
        """A function that does `get` for this key, in a tenth of the time, without the lock.

        It may say what was so a moment ago.
        """
        mark, start = self._place(key)
        where = start

        def read() -> float:
            nonlocal where
            at, time = _ENTRY.unpack_from(self._entries, where)
            if at != mark:
                where = next((i for i, (at, _) in self._set(start).items() if at == mark), start)
                at, time = _ENTRY.unpack_from(self._entries, where)
            return float(time) if at == mark else 0.0

        return read

    def put(self, key: str, time: float) -> None:
        """Give a key a time."""
        mark, start = self._place(key)
        entries = self._set(start)
        # Its own entry, or else the one whose time is over, or will be, before the others'.
        where = min(entries, key=lambda i: (entries[i][0] != mark, entries[i][1]))
        _ENTRY.pack_into(self._entries, where, mark, time)

    def _place(self, key: str) -> tuple[int, int]:
        digest = hashlib.blake2b(key.encode(), digest_size=16, key=self._secret).digest()
        mark, place = struct.unpack("<QQ", digest)
        return mark, place % self._sets * _SET

    def _set(self, start: int) -> dict[int, tuple[int, float]]:
        return {
            where: _ENTRY.unpack_from(self._entries, where)
            for where in range(start, start + _SET, _ENTRY.size)
        }


@cache
def shared(_name: str) -> SharedTable:
    """The one table of that name of this process and those forked after the first call."""
    return SharedTable()
