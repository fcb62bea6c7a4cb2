"""What is looked at again a little later: withdrawn writes, orphans, replies kept too long.

Every worker does this by itself; two who do the same change nothing more. The pool's changes are
followed by one worker of all.
"""

import logging
import random
import threading
import time
from uuid import uuid4

from kazoo_ips.background.change_follower import ChangeFollower
from kazoo_ips.errors import Conflict, IPNotFound, KazooIPsError
from kazoo_ips.model import Changed
from kazoo_ips.observability import request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

ROUND = 20.0
"""Seconds between two looks for orphans."""
SWEEP = 600.0
"""Seconds between two looks for keys to forget: all keys of a day are read for it."""


class BackgroundWorker:
    """The work itself, and a thread that does it again and again.

    :param metrics: where rounds that fail are counted
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each kind of work
        self,
        retries: RetryQueue,
        conflicts: ConflictResolver,
        recovery: RecoveryService,
        idempotency: IdempotencyService,
        follower: ChangeFollower[Changed],
        metrics: Metrics,
    ) -> None:
        self._retries = retries
        self._conflicts = conflicts
        self._recovery = recovery
        self._idempotency = idempotency
        self._follower = follower
        self._metrics = metrics

    def look_again(self, now: float | None = None) -> int:
        """Settle the addresses whose time has come; how many there were."""
        due = self._retries.take(now)
        for address, account_id in due:
            try:
                if account_id:
                    self._conflicts.drop_copy(account_id, address)
                else:
                    self._conflicts.resolve(address)
            except (Conflict, IPNotFound):
                pass  # its next time comes, or it is gone for good
            except KazooIPsError as error:
                log.warning("%s: not settled yet: %s", address, error)
                self._retries.look_again(address, account_id)
        return len(due)

    def recover(self) -> int:
        """Bring the transactions of dead processes to their end; how many."""
        return self._recovery.recover()

    def follow(self) -> int:
        """Look once more at what has changed, if that is this process's part; how much."""
        return self._follower.step()

    def work(self) -> int:
        """Do again what this process could not do, and what it put off; how much is done."""
        return self._retries.work()

    def start(self) -> None:
        """Keep doing it, in a thread of this process, for as long as the process lives."""
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def _run(self) -> None:
        rounds = [(ROUND, self.recover), (SWEEP, self._idempotency.sweep)]
        # Workers start together; they need not do the same at the same moment.
        due = [time.monotonic() + random.uniform(0, seconds) for seconds, _ in rounds]
        while True:
            time.sleep(1)
            request_context.begin(f"housekeeping-{uuid4().hex[:16]}")
            try:
                self.work()
                self.look_again()
                self.follow()
                for n, (seconds, do) in enumerate(rounds):
                    if time.monotonic() >= due[n]:
                        due[n] = time.monotonic() + seconds
                        do()
            except KazooIPsError as error:
                self._metrics.housekeeping_failures.inc()
                log.warning("housekeeping waits: %s", error)
            except Exception:  # nobody else would notice that the thread has ended
                self._metrics.housekeeping_failures.inc()
                log.exception("housekeeping met what it does not know")
