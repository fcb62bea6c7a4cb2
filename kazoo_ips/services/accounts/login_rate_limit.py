"""How often a login may fail: for a client at one account, for a client, and for an account.

Each has an allowance that fills up again evenly (GCRA, "leaky bucket as a meter": one time for
each, when its debt will be paid). Only failures cost, so nobody is locked out by logging in. The
narrowest is that of one client at one account: who guesses uses that up first, and others may go
on. The account's own, against guesses from many addresses, does not hold for a client that has
logged in there within a day, so that an attacker cannot keep its users out (after OWASP's device
cookies). Knows neither HTTP nor CouchDB.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo_ips.errors import InvalidCredentials, TooManyAttempts
from kazoo_ips.processes.shared_table import SharedTable

WINDOW = 600
"""Seconds in which an allowance that is used up fills again."""
CLIENT = 5
"""So many times what a client may at one account it may at all accounts together."""
ACCOUNT = 20
"""So many times what one client may at an account all clients together may."""
_KNOWN = 24 * 3600
"""Seconds that a client is known at an account after a login."""


class LoginRateLimit:
    """The limit on wrong logins.

    :param table: where the processes of this machine keep count together
    :param limit: wrong logins of a client at one account in ten minutes; 0 is no limit
    :param clock: the time in Unix seconds
    """

    def __init__(self, table: SharedTable, limit: int, clock: Callable[[], float]) -> None:
        self._table = table
        self._limit = limit
        self._clock = clock

    @contextmanager
    def attempt(self, client: str, account: str | None) -> Iterator[None]:
        """Try a login in here: whether it failed is seen by InvalidCredentials.

        Logins that are under way at the same time may pass the limit together; what they fail
        with is counted, and paid for.

        :param client: the address it comes from
        :param account: as it was named, in one spelling; None when a key names it
        :raises TooManyAttempts: not now, whatever the credentials
        """
        if not self._limit:
            yield
            return
        allowances, known = self._allowances(_whose(client), account)
        self._check(allowances, known)
        try:
            yield
        except InvalidCredentials:
            self._charge(allowances)
            raise
        if account is not None:
            with self._table.locked():
                self._table.put(known, self._clock() + _KNOWN)

    def _allowances(self, client: str, account: str | None) -> tuple[dict[str, float], str]:
        """By key, the seconds that one failure takes to be paid; and the key of being known."""
        each = WINDOW / self._limit
        allowances = {f"client {client}": each / CLIENT}
        if account is not None:
            allowances[f"pair {client} {account}"] = each
            allowances[f"account {account}"] = each / ACCOUNT
        return allowances, f"known {client} {account}"

    def _check(self, allowances: dict[str, float], known: str) -> None:
        now = self._clock()
        with self._table.locked():
            debts = {key: self._table.get(key) - now for key in allowances}
            is_known = self._table.get(known) > now
        waits = [
            debts[key] + cost - WINDOW
            for key, cost in allowances.items()
            if not (is_known and key.startswith("account "))
        ]
        if max(waits) > 1e-6:  # sums of fractions of a second
            raise TooManyAttempts(math.ceil(max(waits)))

    def _charge(self, allowances: dict[str, float]) -> None:
        now = self._clock()
        with self._table.locked():
            for key, cost in allowances.items():
                # A clock that was put back must not keep anybody out for longer than this.
                debt = min(max(self._table.get(key), now), now + 2 * WINDOW)
                self._table.put(key, debt + cost)


def _whose(client: str) -> str:
    """Whose address that is: with IPv6 everybody has a network of 64 bits."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
