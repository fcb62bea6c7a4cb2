"""A circuit breaker for CouchDB's logins: a refused password is not sent again for a while.

CouchDB 3.4 and later counts wrong passwords by user and client address. After five of them in five
minutes it refuses that user from there altogether, the right password too
(`[chttpd_auth_lockout]`). Every request carries the password, and load balancers ask for readiness
all the time. So the pauses are such that three requests at the most, of all workers together,
carry a wrong password in any five minutes; the first of them goes alone, and others wait for its
answer. A password that turns wrong under load is noticed when the first refusal comes: the
requests that are under way by then have carried it as well.

The state is in a table that the workers share. Knows neither HTTP nor what a refusal looks like.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo_ips.errors import DatastoreLoginRefused
from kazoo_ips.processes.shared_table import SharedTable

PAUSES = (5.0, 60.0, 330.0)
"""Seconds without a request after the first refusal, the second, and each that follows. The last
is longer than CouchDB counts."""
LOCKED = PAUSES[1]
"""Seconds after an answer that the user is locked out: such answers are not counted."""
PATIENCE = 1.0
"""Seconds to wait for the answer to the first request with a password: a refusal takes less."""
_LEASE = 60.0
"""Seconds after which a request that was to try a password is given up: its process is dead."""
_INTERVAL = 0.005
_ACCEPTED = -1.0


class LoginBreaker:
    """The state of each login, for any thread and all processes with that table.

    :param table: holds when each login may be tried again
    :param count: called for each pause that begins
    :param clock: seconds of a clock that all those processes have in common
    """

    def __init__(
        self,
        table: SharedTable,
        count: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._count = count
        self._clock = clock
        self._readers: dict[str, Callable[[], float]] = {}

    def is_closed(self, login: str) -> bool:
        """Whether requests may go out with this login as they come: it was accepted last time."""
        read = self._readers.get(login)
        if read is None:
            read = self._readers[login] = self._table.reader(f"until {login}")
        return read() == _ACCEPTED

    @contextmanager
    def trial(self, login: str) -> Iterator[None]:
        """Send one request in here with a login of which it is not known whether it is good.

        It is good when nothing is raised; refused when `refuse` was called; otherwise as before.

        :raises DatastoreLoginRefused: it was refused, and is not to be tried yet
        """
        tries = self._admit(login)
        try:
            yield
        except BaseException:
            if tries:
                self._give_up(login)
            raise
        with self._table.locked():
            if tries or self._table.get(f"until {login}") <= 0:
                self._set(login, _ACCEPTED, pauses=0)

    def refuse(self, login: str, *, locked: bool) -> float | None:
        """Note that a login was refused.

        :param locked: not for the password, but because others were wrong before
        :returns: seconds until it is tried again, or None when it has been noted already
        """
        now = self._clock()
        with self._table.locked():
            if self._table.get(f"until {login}") > now:
                return None
            pauses = int(self._table.get(f"pauses {login}"))
            pause = LOCKED if locked else PAUSES[min(pauses, len(PAUSES) - 1)]
            self._set(login, now + pause, pauses=max(pauses, 1) if locked else pauses + 1)
        self._count()
        return pause

    def _admit(self, login: str) -> bool:
        """Wait until a request may go out with this login; whether it is the one to try it."""
        end = time.monotonic() + PATIENCE
        while True:
            now = self._clock()
            with self._table.locked():
                until = self._table.get(f"until {login}")
                busy = self._table.get(f"trial {login}") > now
                if until <= now and until != _ACCEPTED and not busy:
                    self._table.put(f"trial {login}", now + _LEASE)
                    return True
            if until == _ACCEPTED or (until == 0 and time.monotonic() > end):
                return False
            if until > 0:
                raise DatastoreLoginRefused("it was refused before, and is not tried now")
            time.sleep(_INTERVAL)

    def _give_up(self, login: str) -> None:
        """Let another request try it, a little later where it was refused before."""
        now = self._clock()
        with self._table.locked():
            self._table.put(f"trial {login}", 0)
            until = self._table.get(f"until {login}")
            if 0 < until <= now:
                self._table.put(f"until {login}", now + PAUSES[0])

    def _set(self, login: str, until: float, pauses: int) -> None:
        self._table.put(f"until {login}", until)
        self._table.put(f"pauses {login}", pauses)
        self._table.put(f"trial {login}", 0)
