"""What is looked at again a little later: withdrawn claims, orphans, replies kept too long.

Every worker does this by itself; two who do the same change nothing more.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from kazoo_ips import work
from kazoo_ips.errors import Conflict, IPNotFound, KazooIPsError
from kazoo_ips.metrics import Metrics
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.services.claims import ClaimService
from kazoo_ips.services.idempotency import LEASE, IdempotencyService
from kazoo_ips.services.settlement import Settlement

log = logging.getLogger(__name__)

DELAYS = (1.0, 5.0, 30.0, 120.0)
"""Seconds after which a withdrawn claim is looked at: nodes that lag, or are down, come back."""
ROUND = 60.0
"""Seconds between two looks for orphans."""


class LaterQueue:
    """Addresses that somebody should look at again, and when. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[tuple[float, str, str]] = []

    def add(self, address: str, account_id: str = "") -> None:
        """Have an address looked at several times in the next minutes.

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


class HousekeepingService:
    """The work itself, and a thread that does it again and again.

    :param clock: the time in Unix seconds
    :param metrics: where rounds that fail are counted
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is another part of the work
        self,
        later: LaterQueue,
        settlement: Settlement,
        claims: ClaimService,
        idempotency: IdempotencyService,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._later = later
        self._settlement = settlement
        self._claims = claims
        self._idempotency = idempotency
        self._clock = clock
        self._metrics = metrics

    def look_again(self, now: float | None = None) -> int:
        """Settle the addresses whose time has come; how many there were."""
        due = self._later.take(now)
        for address, account_id in due:
            try:
                if account_id:
                    self._settlement.drop_copy(account_id, address)
                else:
                    self._settlement.settle(address)
            except (Conflict, IPNotFound):
                pass  # its next time comes, or it is gone for good
            except KazooIPsError as error:
                log.warning("%s: not settled yet: %s", address, error)
                self._later.add(address, account_id)
        return len(due)

    def recover(self) -> int:
        """Give back what dead processes claimed; how many addresses."""
        return self._claims.recover(int(self._clock()) + GREGORIAN_EPOCH - LEASE)

    def start(self) -> None:
        """Keep doing it, in a thread of this process, for as long as the process lives."""
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def _run(self) -> None:
        # Workers start together; they need not do the same at the same moment.
        next_round = time.monotonic() + random.uniform(0, ROUND)
        while True:
            time.sleep(1)
            work.begin(f"housekeeping-{uuid4().hex[:16]}")
            try:
                self.look_again()
                if time.monotonic() >= next_round:
                    next_round = time.monotonic() + ROUND
                    self.recover()
                    self._idempotency.sweep()
            except KazooIPsError as error:
                self._metrics.housekeeping_failures.inc()
                log.warning("housekeeping waits: %s", error)
            except Exception:  # nobody else would notice that the thread has ended
                self._metrics.housekeeping_failures.inc()
                log.exception("housekeeping met what it does not know")
