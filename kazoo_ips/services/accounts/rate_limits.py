"""The rate limits of requests with a valid token: per account, and per client's address.

Each limit is a token bucket, as in Crossbar (`kz_buckets.erl`). A bucket of Crossbar holds 100
tokens and gets 10 per second, but a request with a valid token costs nothing. In this service such
a request costs one or more, so the buckets are larger.

All workers of a machine take tokens from the same buckets, and logins have theirs. The algorithm
is GCRA: for each bucket the shared table stores one time, at which the bucket will be full. A
bucket without an entry, or with a time in the past, is full. So a table of fixed size loses a
bucket that is not full only if it has no room for all such buckets.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from kazoo_ips.errors import TooManyKeys
from kazoo_ips.model import KEY_SECONDS
from kazoo_ips.observability import request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes.shared_table import SharedTable

BURST = 5
"""Seconds in which an empty bucket becomes full. An idle client can send the requests of that many
seconds at once."""
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


class RateLimits:
    """Limits requests.

    :param per_account: tokens of an account per second; 0 is no limit
    :param per_client: tokens of a client's address per second; 0 is no limit
    :param keys: new Idempotency-Keys of an account per day; 0 is no limit
    """

    def __init__(
        self,
        buckets: TokenBuckets,
        metrics: Metrics,
        *,
        per_account: int,
        per_client: int,
        keys: int,
    ) -> None:
        self._buckets = buckets
        self._metrics = metrics
        self._per_account = per_account
        self._per_client = per_client
        self._keys = keys

    def take(self, account_id: str, client: str, cost: int) -> Sequence[Balance]:
        """Take the tokens for a request from the buckets of the account and of the client.

        If one bucket has too few tokens, neither bucket changes, and the request must be refused.

        :param client: the client's address; if it is empty, only the account's bucket is used
        :param cost: the number of tokens; a bucket that holds fewer gives all that it holds
        :returns: the balance of each bucket; its key begins with `account` or `client`
        """
        buckets = []
        if self._per_account:
            rate = self._per_account
            buckets.append(Bucket(f"account {account_id}", rate * BURST, BURST))
        if self._per_client and client:
            rate = self._per_client
            buckets.append(Bucket(f"client {client_network(client)}", rate * BURST, BURST))
        if not buckets:
            return ()
        balances = self._buckets.take(buckets, cost)
        for balance in balances:
            if balance.wait:
                self._refused(balance.bucket.key.partition(" ")[0])
        return balances

    def take_key(self, account_id: str) -> None:
        """Count a new Idempotency-Key of an account.

        An account can use all keys of a day at once. After that it gets further keys one by one,
        at equal intervals. So the database has the records of at most two days' keys.

        :raises TooManyKeys: the account has used too many keys
        """
        if not self._keys:
            return
        [balance] = self._buckets.take([Bucket(f"key {account_id}", self._keys, KEY_SECONDS)], 1)
        if balance.wait:
            self._refused("key")
            raise TooManyKeys(math.ceil(balance.wait))

    def _refused(self, limit: str) -> None:
        self._metrics.requests_limited.labels(limit).inc()
        request_context.over_limit(limit)
