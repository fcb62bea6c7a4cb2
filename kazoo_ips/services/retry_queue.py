"""The retry queue of a process: work that the process repeats until it succeeds.

The queue is lost with the process. Work that must survive it is found again in the database:
transactions and Idempotency-Keys by their records, addresses by the changes feed of the pool.
"""

import logging
import threading
import time
from collections.abc import Callable

from kazoo_ips.errors import KazooIPsError

log = logging.getLogger(__name__)

DELAYS = (1.0, 5.0)
"""Seconds after which an address is checked. Nodes that lag have usually caught up by then. If it
takes longer, the follower of the pool's changes feed repairs the address."""


class RetryQueue:
    """Addresses to check later, and work to repeat until it succeeds. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[tuple[float, str, str]] = []
        self._work: dict[str, Callable[[], object]] = {}

    def schedule_check(self, address: str, account_id: str = "") -> None:
        """Schedule two checks of an address in the next seconds.

        :param account_id: the account whose copy of the address may be wrong
        """
        now = time.monotonic()
        with self._lock:
            self._due += [(now + delay, address, account_id) for delay in DELAYS]

    def take(self, now: float | None = None) -> list[tuple[str, str]]:
        """Remove and return the addresses and accounts whose check is due.

        :param now: the time of the monotonic clock
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            taken = {(address, account) for due, address, account in self._due if due <= now}
            self._due = [entry for entry in self._due if entry[0] > now]
        return sorted(taken)

    def repeat(self, name: str, work: Callable[[], object]) -> None:
        """Schedule work, to be repeated until it raises none of this package's errors.

        :param name: identifies the work; a later call with the same name replaces the work
        """
        with self._lock:
            self._work[name] = work

    def work(self) -> int:
        """Do the work that is scheduled; return how many pieces succeeded."""
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
