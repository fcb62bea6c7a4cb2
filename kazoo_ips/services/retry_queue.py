"""What a process has to do again a little later. It is lost with the process.

Whatever must survive that is found by others: transactions by their records, keys by theirs,
addresses by the changes of the pool.
"""

import logging
import threading
import time
from collections.abc import Callable

from kazoo_ips.errors import KazooIPsError

log = logging.getLogger(__name__)

DELAYS = (1.0, 5.0)
"""Seconds after which an address is looked at: nodes that lag have caught up. What takes longer is
seen to by whoever follows the pool's changes."""


class RetryQueue:
    """Addresses to look at, and work to repeat until it is done. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[tuple[float, str, str]] = []
        self._work: dict[str, Callable[[], object]] = {}

    def look_again(self, address: str, account_id: str = "") -> None:
        """Have an address looked at twice in the next seconds.

        :param account_id: whose copy of it may be wrong
        """
        now = time.monotonic()
        with self._lock:
            self._due += [(now + delay, address, account_id) for delay in DELAYS]

    def take(self, now: float | None = None) -> list[tuple[str, str]]:
        """The addresses and accounts whose time has come.

        :param now: of the monotonic clock
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            taken = {(address, account) for due, address, account in self._due if due <= now}
            self._due = [entry for entry in self._due if entry[0] > now]
        return sorted(taken)

    def repeat(self, name: str, work: Callable[[], object]) -> None:
        """Have work done soon, and again until it no longer raises one of our errors.

        :param name: of two by the same name the later one is done
        """
        with self._lock:
            self._work[name] = work

    def work(self) -> int:
        """Do what there is to do; how much of it came to its end."""
        with self._lock:
            due, self._work = self._work, {}
        done = 0
        for name, work in due.items():
            try:
                work()
                done += 1
            except KazooIPsError as error:
                log.warning("%s: not done yet: %s", name, error)
                with self._lock:
                    self._work.setdefault(name, work)
        return done
