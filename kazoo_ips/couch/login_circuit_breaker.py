"""A circuit breaker for CouchDB's logins: it pauses the use of a refused password.

CouchDB 3.4 and later counts wrong passwords by user and client address. After five of them in five
minutes it refuses that user from that address, even with the right password
(`[chttpd_auth_lockout]`). Every request carries the password, and load balancers request
`/readyz` all the time. So all workers together send at most three requests with a wrong password
in any five minutes. The first request is sent alone, and other requests wait for its response. If
a password becomes wrong under load, more requests may carry it: those that were sent before the
first refusal is received.

The state is in a table that the workers share. The caller decides whether a response is a refusal.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo_ips.errors import DatastoreLoginRefused
from kazoo_ips.processes.shared_table import SharedTable

PAUSES = (5.0, 60.0, 330.0)
"""Seconds without a request after the first refusal, the second, and each later one. The last
pause is longer than the time over which CouchDB counts."""
LOCKED = PAUSES[1]
"""Seconds without a request after CouchDB has locked the user out. CouchDB does not count the
refusals of a lockout."""
MAX_WAIT = 1.0
"""Seconds to wait for the response to the first request with a password. CouchDB refuses a
password faster."""
_LEASE = 60.0
"""Seconds after which the trial of a password counts as abandoned: its process has died."""
_INTERVAL = 0.005
_ACCEPTED = -1.0


class LoginBreaker:
    """The state of each login, for all threads of all processes that share the table.

    :param table: contains when each login may be tried again
    :param count: called at the beginning of each pause
    :param clock: seconds of a clock that these processes have in common
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

    def is_closed(self, login: str) -> bool:
        """Whether CouchDB accepted this login last time, so that requests may be sent at once."""
        return self._table.get(f"until {login}") == _ACCEPTED

    @contextmanager
    def trial(self, login: str) -> Iterator[None]:
        """Send one request in this context, with a login that may be wrong.

        The login counts as accepted if nothing is raised, and as refused if `refuse` was called.
        Otherwise its state does not change.

        :raises DatastoreLoginRefused: it was refused, and must not be tried yet
        """
        tries = self._admit(login)
        try:
            yield
        except BaseException:
            if tries:
                self._give_up(login)
            raise
        with self._table.lock:
            if tries or self._table.get(f"until {login}") <= 0:
                self._set(login, _ACCEPTED, pauses=0)

    def refuse(self, login: str, *, locked: bool) -> float | None:
        """Record that a login was refused.

        :param locked: whether CouchDB has locked the user out because of earlier wrong passwords
        :returns: seconds until it is tried again, or None if the refusal was recorded already
        """
        now = self._clock()
        with self._table.lock:
            if self._table.get(f"until {login}") > now:
                return None
            pauses = int(self._table.get(f"pauses {login}"))
            pause = LOCKED if locked else PAUSES[min(pauses, len(PAUSES) - 1)]
            self._set(login, now + pause, pauses=max(pauses, 1) if locked else pauses + 1)
        self._count()
        return pause

    def _admit(self, login: str) -> bool:
        """Wait until a request may be sent with this login. Return whether it is a trial."""
        end = time.monotonic() + MAX_WAIT
        while True:
            now = self._clock()
            with self._table.lock:
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
        """Let another request try the login: after a short pause if it was refused before."""
        now = self._clock()
        with self._table.lock:
            self._table.put(f"trial {login}", 0)
            until = self._table.get(f"until {login}")
            if 0 < until <= now:
                self._table.put(f"until {login}", now + PAUSES[0])

    def _set(self, login: str, until: float, pauses: int) -> None:
        self._table.put(f"until {login}", until)
        self._table.put(f"pauses {login}", pauses)
        self._table.put(f"trial {login}", 0)
