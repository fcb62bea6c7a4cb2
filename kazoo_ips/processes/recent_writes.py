"""The recent assignments of one instance, shared by its workers. Standard library only.

A ring buffer of fixed size: a new entry replaces the oldest one. The entries are hints. Callers
have to read the documents.
"""

import hashlib
import struct
import time
from collections.abc import Iterable
from functools import cache

from kazoo_ips.processes.shared_table import SharedMemory

_ENTRY = struct.Struct("<Qd48s")
"""Hash of the account, time, address. The longest address has 45 characters."""
_NEXT = struct.Struct("<Q")
LIFETIME = 60.0
"""Seconds that an entry is valid. By then every replica of a healthy cluster has the write."""


class RecentWrites(SharedMemory):
    """Recently assigned addresses by account. The default size is a quarter of a megabyte.

    :param entries: the number of addresses it can hold
    """

    def __init__(self, entries: int = 4096) -> None:
        super().__init__(_ENTRY.size * (entries + 1))
        self._count = entries

    def add(self, account_id: str, addresses: Iterable[str]) -> None:
        """Record that these addresses were assigned to an account."""
        account_hash, now = _account_hash(account_id), time.monotonic()
        with self.lock:
            [index] = _NEXT.unpack_from(self._entries)
            for address in addresses:
                offset = _ENTRY.size * (1 + index % self._count)
                _ENTRY.pack_into(self._entries, offset, account_hash, now, address.encode())
                index += 1
            _NEXT.pack_into(self._entries, 0, index)

    def recent(self, *account_ids: str) -> set[str]:
        """Return the addresses assigned to accounts in the last minute, unless overwritten."""
        hashes, oldest = {*map(_account_hash, account_ids)}, time.monotonic() - LIFETIME
        with self.lock:
            entries = self._entries[_ENTRY.size :]
        return {
            address.rstrip(b"\0").decode()
            for owner, at, address in _ENTRY.iter_unpack(entries)
            if owner in hashes and at > oldest
        }


def _account_hash(account_id: str) -> int:
    digest = hashlib.blake2b(account_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@cache
def shared() -> RecentWrites:
    """Return the memory shared by this process and the processes forked after the first call."""
    return RecentWrites()
