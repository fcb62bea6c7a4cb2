"""A table from keys to times, shared by a process and its forks. Standard library only.

The table has a fixed size. A new key replaces the key of its set that has the earliest time. The
lock is a file lock (`lockf`), which the kernel releases when a process is killed. An entry that a
killed process has written in part is still a valid entry. The table is lost when the last process
ends.
"""

import hashlib
import mmap
import os
import secrets
import struct
import tempfile
import weakref
from functools import cache, lru_cache
from threading import Lock

_ENTRY = struct.Struct("<Qd")
_WAYS = 8
"""Number of entries in a set. A key can be stored in any entry of its set."""
_SET = struct.Struct("<" + _WAYS * "Qd")
_KNOWN = 1024
"""The number of keys whose entries a process remembers. To find an entry takes a hash."""


class FileLock:
    """A lock that excludes all other threads and processes, inside a `with` statement.

    :param file: the descriptor of the file that is locked
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._of_threads = Lock()

    def __enter__(self) -> None:
        self._of_threads.acquire()
        try:
            os.lockf(self._file, os.F_LOCK, 0)
        except BaseException:
            self._of_threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            os.lockf(self._file, os.F_ULOCK, 0)
        finally:
            self._of_threads.release()


def _nameless_file() -> int:
    """Return the descriptor of a file that is freed when the last process ends.

    On Linux it is in memory. The pages of a file on a disk would be written to the disk.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kazoo_ips")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedMemory:
    """Memory with a lock, shared by a process and its forks.

    :param size: in bytes; the memory is zeroed
    """

    def __init__(self, size: int) -> None:
        file = _nameless_file()
        os.ftruncate(file, size)
        self._entries = mmap.mmap(file, size)
        weakref.finalize(self, os.close, file)
        self.lock = FileLock(file)


class Entry:
    """The entry of one key in a table. It remembers its place. Any thread may use it.

    :param memory: the memory of the table
    :param mark: the hash of the key
    :param start: the offset of the key's set
    """

    __slots__ = ("_mark", "_memory", "_offset", "_start")

    def __init__(self, memory: mmap.mmap, mark: int, start: int) -> None:
        self._memory = memory
        self._mark = mark
        self._start = self._offset = start

    def get(self) -> float:
        """Return the time of the key; 0 if it has none, or if it was replaced.

        Without the table's lock, while another process writes, this may be the previous time.
        """
        mark, time = _ENTRY.unpack_from(self._memory, self._offset)
        if mark != self._mark:
            marks, times = self._set()
            if self._mark not in marks:
                return 0.0
            way = marks.index(self._mark)
            self._offset, time = self._start + way * _ENTRY.size, times[way]
        return float(time)

    def put(self, time: float) -> None:
        """Set the time of the key. The caller holds the table's lock."""
        offset = self._offset  # a thread that calls `get` may change the attribute meanwhile
        mark, _ = _ENTRY.unpack_from(self._memory, offset)
        if mark != self._mark:
            marks, times = self._set()
            # The entry of this key, if there is one, otherwise the entry with the earliest time.
            known = self._mark in marks
            way = marks.index(self._mark) if known else times.index(min(times))
            offset = self._offset = self._start + way * _ENTRY.size
        _ENTRY.pack_into(self._memory, offset, self._mark, time)

    def _set(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the marks and the times of the entries of the set."""
        values = _SET.unpack_from(self._memory, self._start)
        return values[::2], values[1::2]


class SharedTable(SharedMemory):
    """Times by key. The default size is half a megabyte.

    :param sets: the number of sets; each can hold eight keys
    """

    def __init__(self, sets: int = 4096) -> None:
        super().__init__(sets * _SET.size)
        self._sets = sets
        # Without the secret, a client cannot choose keys whose hashes collide.
        self._secret = secrets.token_bytes(16)
        self.entry = lru_cache(_KNOWN)(self._entry)
        """Returns the entry of a key."""

    def get(self, key: str) -> float:
        """Return the time of a key; see `Entry.get`."""
        return self.entry(key).get()

    def put(self, key: str, time: float) -> None:
        """Set the time of a key; see `Entry.put`."""
        self.entry(key).put(time)

    def _entry(self, key: str) -> Entry:
        digest = hashlib.blake2b(key.encode(), digest_size=16, key=self._secret).digest()
        mark, index = struct.unpack("<QQ", digest)
        return Entry(self._entries, mark, index % self._sets * _SET.size)


@cache
def shared(_name: str) -> SharedTable:
    """Return the table of that name, shared with the processes forked after the first call."""
    return SharedTable()
