"""What an instance has lately assigned, known to all its workers. Standard library only.

A ring of fixed size: the oldest makes room. A hint where to look, not a truth: whoever asks reads
the documents.
"""

import hashlib
import struct
import time
from collections.abc import Iterable
from functools import cache

from kazoo_ips.processes.shared_table import SharedMemory

_ENTRY = struct.Struct("<Qd48s")
"""An account, a time, an address: the longest has 45 letters."""
_NEXT = struct.Struct("<Q")
REMEMBERED = 60.0
"""Seconds after which every copy of a healthy cluster has a write."""


class RecentWrites(SharedMemory):
    """Addresses by account, in a quarter of a megabyte unless said otherwise.

    :param entries: how many addresses it holds
    """

    def __init__(self, entries: int = 4096) -> None:
        super().__init__(_ENTRY.size * (entries + 1))
        self._count = entries

    def note(self, account_id: str, addresses: Iterable[str]) -> None:
        """Remember that these addresses are an account's by now."""
        mark, now = _mark(account_id), time.monotonic()
        with self.locked():
            [place] = _NEXT.unpack_from(self._entries)
            for address in addresses:
                where = _ENTRY.size * (1 + place % self._count)
                _ENTRY.pack_into(self._entries, where, mark, now, address.encode())
                place += 1
            _NEXT.pack_into(self._entries, 0, place)

    def recent(self, account_id: str) -> set[str]:
        """The addresses that were noted for an account in the last minute and are still known."""
        mark, oldest = _mark(account_id), time.monotonic() - REMEMBERED
        with self.locked():
            entries = self._entries[_ENTRY.size :]
        return {
            address.rstrip(b"\0").decode()
            for owner, at, address in _ENTRY.iter_unpack(entries)
            if owner == mark and at > oldest
        }


def _mark(account_id: str) -> int:
    digest = hashlib.blake2b(account_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@cache
def shared() -> RecentWrites:
    """The one memory of this process and those forked after the first call."""
    return RecentWrites()
