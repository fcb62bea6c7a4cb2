"""The background work of a worker process: retries, recovery, sweeps, the changes feed.

Each worker process does this work by itself. All of it is idempotent, so two workers may do the
same work. Only one worker of all follows the pool's changes feed.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from kazoo_ips.background.change_follower import ChangeFollower
from kazoo_ips.errors import Conflict, IPNotFound, KazooIPsError
from kazoo_ips.model import Changed
from kazoo_ips.observability import request_context, tracing
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

ROUND = 20.0
"""Seconds between two searches for orphaned transactions."""
SPELLINGS = 60.0
"""Seconds between two searches for addresses in unusual spellings."""
SWEEP = 600.0
"""Seconds between two sweeps of expired Idempotency-Keys: each sweep reads all keys of a day."""


class BackgroundWorker:
    """The background work, and the thread that does it repeatedly.

    :param metrics: counts the rounds that fail
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each kind of work
        self,
        ips: IPRepository,
        retries: RetryQueue,
        conflicts: ConflictResolver,
        recovery: RecoveryService,
        idempotency: IdempotencyService,
        follower: ChangeFollower[Changed],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._retries = retries
        self._conflicts = conflicts
        self._recovery = recovery
        self._idempotency = idempotency
        self._follower = follower
        self._metrics = metrics

    def check_due(self, now: float | None = None) -> int:
        """Check the addresses whose check is due; return how many were checked."""
        due = self._retries.take(now)
        for address, account_id in due:
            try:
                if account_id:
                    self._conflicts.drop_copy(account_id, address)
                else:
                    self._conflicts.resolve(address)
            except (Conflict, IPNotFound):
                pass  # the next check tries again, or the address is deleted
            except KazooIPsError as error:
                log.warning("%s: not resolved yet: %s", address, error)
                self._retries.schedule_check(address, account_id)
        return len(due)

    def recover(self) -> int:
        """End the transactions of dead processes; return how many were recovered."""
        return self._recovery.recover()

    def learn_spellings(self) -> None:
        """Read the unusual spellings of addresses in the pool, for later assignments."""
        self._ips.learn_spellings()

    def follow(self) -> int:
        """Handle changes of the pool if this process holds the lease; return their number."""
        return self._follower.step()

    def work(self) -> int:
        """Do the work of the retry queue; return how many pieces succeeded."""
        return self._retries.work()

    def start(self) -> None:
        """Start the thread, which runs as long as the process."""
        threading.Thread(target=self._run, name="background", daemon=True).start()

    def _run(self) -> None:
        rounds: list[tuple[float, Callable[[], object]]] = [
            (ROUND, self.recover),
            (SWEEP, self._idempotency.sweep),
            (SPELLINGS, self.learn_spellings),
        ]
        # Worker processes start together. A random delay spreads their rounds.
        due = [time.monotonic() + random.uniform(0, seconds) for seconds, _ in rounds]
        due[-1] = time.monotonic()  # assignments need it from the start
        while True:
            time.sleep(1)
            work = request_context.begin(f"background-{uuid4().hex[:16]}", by="background")
            try:
                with tracing.span(work, "background round"):
                    self.work()
                    self.check_due()
                    self.follow()
                    for index, (seconds, do) in enumerate(rounds):
                        if time.monotonic() >= due[index]:
                            due[index] = time.monotonic() + seconds
                            do()
            except KazooIPsError as error:
                self._metrics.background_failures.inc()
                log.warning("background work failed and will be repeated: %s", error)
            except Exception:  # nothing restarts the thread, so no error may end it
                self._metrics.background_failures.inc()
                log.exception("background work failed unexpectedly")
