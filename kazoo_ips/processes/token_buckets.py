"""Token buckets in a shared table. All workers of a machine take tokens from the same buckets.

The algorithm is GCRA: for each bucket the table stores one time, at which the bucket will be full.
A bucket without an entry, or with a time in the past, is full. So a table of fixed size loses a
bucket that is not full only if it has no room for all such buckets.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from kazoo_ips.processes.shared_table import SharedTable

_TOLERANCE = 0.1
"""Seconds that a worker may wait for the lock after it has read the clock. Meanwhile another
worker may store a time that is later by these seconds."""


class Bucket(NamedTuple):
    """A token bucket.

    :param key: identifies it in its table
    :param size: the tokens of a full bucket
    :param seconds: the time in which an empty bucket becomes full
    """

    key: str
    size: float
    seconds: float


class Balance(NamedTuple):
    """A bucket after a request for tokens.

    :param left: the number of remaining tokens
    :param wait: seconds until the bucket has the requested tokens; 0 if it had them
    """

    bucket: Bucket
    left: float
    wait: float


class TokenBuckets:
    """Takes tokens from buckets.

    :param table: the shared table in which all processes of this machine count
    :param clock: the time in Unix seconds
    """

    def __init__(self, table: SharedTable, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock

    def take(self, buckets: Sequence[Bucket], cost: float) -> list[Balance]:
        """Take tokens from all buckets, or from none of them if one does not have enough.

        :param cost: the number of tokens; a bucket that holds fewer gives all that it holds
        """
        now = self._clock()
        taken, refused = [], False
        with self._table.lock:
            for bucket in buckets:
                entry = self._table.entry(bucket.key)
                before = _missing(bucket, entry.get(), now)
                after = before + min(cost, bucket.size) * bucket.seconds / bucket.size
                wait = _wait(after - bucket.seconds)
                taken.append((bucket, entry, before, after, wait))
                refused = refused or wait > 0
            if not refused:
                for _, entry, _, after, _ in taken:
                    entry.put(now + after)
        return [
            Balance(b, max(b.size * (1 - (before if refused else after) / b.seconds), 0.0), wait)
            for b, _, before, after, wait in taken
        ]

    def waits(self, buckets: Iterable[Bucket]) -> list[float]:
        """Return the seconds until each bucket has a token; 0 if it has one."""
        now = self._clock()
        with self._table.lock:
            return [
                _wait(self._overdrawn(b, now) + b.seconds / b.size - b.seconds) for b in buckets
            ]

    def take_afterwards(self, buckets: Iterable[Bucket]) -> None:
        """Take a token from each bucket, for an event that has happened already.

        An empty bucket is overdrawn, by at most as many tokens as it can hold.
        """
        now = self._clock()
        with self._table.lock:
            for bucket in buckets:
                missing = self._overdrawn(bucket, now) + bucket.seconds / bucket.size
                self._table.put(bucket.key, now + min(missing, 2 * bucket.seconds))

    def _overdrawn(self, bucket: Bucket, now: float) -> float:
        """Return the seconds until a bucket is full that may be overdrawn."""
        return _missing(bucket, self._table.get(bucket.key), now, most=2 * bucket.seconds)


def _missing(bucket: Bucket, full_at: float, now: float, most: float | None = None) -> float:
    """Return the seconds until a bucket is full.

    :param full_at: the time in the table
    :param most: the possible maximum; by default that of a bucket that is not overdrawn. If the
        result were more, the clock was set back. Then the bucket counts as full
    """
    missing = full_at - now
    return max(missing, 0.0) if missing <= (most or bucket.seconds) + _TOLERANCE else 0.0


def _wait(seconds: float) -> float:
    """Return a time to wait, rounded because sums have rounding errors; 0 if it is negative."""
    return round(seconds, 5) if seconds > 0 else 0.0


@lru_cache(maxsize=4096)
def client_network(client: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, which counts as one client.

    :param client: an address; any other text is returned unchanged
    """
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return str(address)
    return str(ip_network((address.packed[:8] + bytes(8), 64)))
