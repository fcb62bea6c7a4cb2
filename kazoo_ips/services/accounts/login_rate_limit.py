"""The rate limit of failed logins: per client and account, per client, and per account.

Each limit is a leaky bucket (GCRA: the table stores one time for each bucket, at which it will be
empty). Only failed logins count, so successful logins lock out no one. The limit per client and
account is the lowest. A client that guesses reaches it first, and does not affect other clients.
The limit per account stops guesses from many addresses. It does not apply to a client that has
logged in to the account within a day, so that an attacker cannot lock out the account's users
(similar to OWASP's device cookies).
"""

import ipaddress
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo_ips.errors import InvalidCredentials, TooManyAttempts
from kazoo_ips.processes.shared_table import SharedTable

WINDOW = 600
"""Seconds in which a full bucket becomes empty."""
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
        self._limit = limit
        self._clock = clock

    @contextmanager
    def attempt(self, client: str, account: str | None) -> Iterator[None]:
        """Run a login in this context. It has failed if it raises InvalidCredentials.

        Concurrent logins can exceed the limit. Their failures are counted afterwards.

        :param client: the client's address
        :param account: the account's normalised name; None for a login with an API key
        :raises TooManyAttempts: a limit is reached; the credentials are not checked
        """
        if not self._limit:
            yield
            return
        allowances, login_key = self._allowances(_network(client), account)
        self._check(allowances, login_key)
        try:
            yield
        except InvalidCredentials:
            self._charge(allowances)
            raise
        if account is not None:
            with self._table.locked():
                self._table.put(login_key, self._clock() + _KNOWN)

    def _allowances(self, client: str, account: str | None) -> tuple[dict[str, float], str]:
        """Return the cost of a failure in seconds, by bucket, and the key of the last login."""
        each = WINDOW / self._limit
        allowances = {f"client {client}": each / CLIENT}
        if account is not None:
            allowances[f"pair {client} {account}"] = each
            allowances[f"account {account}"] = each / ACCOUNT
        return allowances, f"known {client} {account}"

    def _check(self, allowances: dict[str, float], login_key: str) -> None:
        now = self._clock()
        with self._table.locked():
            debts = {key: self._table.get(key) - now for key in allowances}
            is_known = self._table.get(login_key) > now
        waits = [
            debts[key] + cost - WINDOW
            for key, cost in allowances.items()
            if not (is_known and key.startswith("account "))
        ]
        if max(waits) > 1e-6:  # rounding errors of sums
            raise TooManyAttempts(math.ceil(max(waits)))

    def _charge(self, allowances: dict[str, float]) -> None:
        now = self._clock()
        with self._table.locked():
            for key, cost in allowances.items():
                # If the clock is set back, no client is locked out for longer than this.
                debt = min(max(self._table.get(key), now), now + 2 * WINDOW)
                self._table.put(key, debt + cost)


def _network(client: str) -> str:
    """Return the address itself, or the /64 network of an IPv6 address, which is one client."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
