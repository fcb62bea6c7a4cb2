"""The rate limit of failed logins: per client and account, per client, and per account.

Each limit is a token bucket. Only failed logins count, so successful logins lock out no one. The
limit per client and account is the lowest. A client that guesses reaches it first, and does not
affect other clients. The limit per account stops guesses from many addresses. It does not apply to
a client that has logged in to the account within a day, so that an attacker cannot lock out the
account's users (similar to OWASP's device cookies).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo_ips.errors import InvalidCredentials, TooManyAttempts
from kazoo_ips.processes.shared_table import SharedTable
from kazoo_ips.services.accounts.rate_limits import Bucket, TokenBuckets, client_network

WINDOW = 600
"""Seconds in which an empty bucket becomes full."""
CLIENT = 5
"""Limit per client, as a multiple of the limit per client and account."""
ACCOUNT = 20
"""Limit per account, as a multiple of the limit per client and account."""
_KNOWN = 24 * 3600
"""Seconds after a login in which the limit per account does not apply to the client."""


class LoginRateLimit:
    """Limits failed logins.

    :param table: the shared table in which all processes of this machine count
    :param limit: failed logins per client and account in ten minutes; 0 is no limit
    :param clock: the time in Unix seconds
    """

    def __init__(self, table: SharedTable, limit: int, clock: Callable[[], float]) -> None:
        self._table = table
        self._buckets = TokenBuckets(table, clock)
        self._limit = limit
        self._clock = clock

    @contextmanager
    def attempt(self, client: str, account: str | None) -> Iterator[None]:
        """Check a login in this context. The login has failed if it raises InvalidCredentials.

        Concurrent logins can exceed the limit. Their failures are counted afterwards.

        :param client: the client's address
        :param account: the account's normalised name; None for a login with an API key
        :raises TooManyAttempts: a limit is reached; the credentials are not checked
        """
        if not self._limit:
            yield
            return
        client = client_network(client)
        buckets = self._buckets_of(client, account)
        login_key = f"known {client} {account}"
        self._check(buckets, login_key)
        try:
            yield
        except InvalidCredentials:
            self._buckets.take_afterwards(buckets)
            raise
        if account is not None:
            with self._table.lock:
                self._table.put(login_key, self._clock() + _KNOWN)

    def _buckets_of(self, client: str, account: str | None) -> list[Bucket]:
        buckets = [Bucket(f"client {client}", self._limit * CLIENT, WINDOW)]
        if account is not None:
            buckets.append(Bucket(f"pair {client} {account}", self._limit, WINDOW))
            buckets.append(Bucket(f"account {account}", self._limit * ACCOUNT, WINDOW))
        return buckets

    def _check(self, buckets: list[Bucket], login_key: str) -> None:
        with self._table.lock:
            is_known = self._table.get(login_key) > self._clock()
        limits = [b for b in buckets if not (is_known and b.key.startswith("account "))]
        wait = max(self._buckets.waits(limits))
        if wait:
            raise TooManyAttempts(math.ceil(wait))
