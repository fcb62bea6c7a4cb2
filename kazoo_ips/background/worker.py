"""The background work of a worker process: retries, recovery, sweeps, the changes feed.

Each worker process does this work by itself. All of it is idempotent, so two workers may do the
same work. Only one worker of all follows the pool's changes feed.
"""

import logging
import random
import threading
import time
from collections.abc import Callable

from kazoo_ips.background import state_keeper
from kazoo_ips.background.change_follower import ChangeFollower
from kazoo_ips.background.rounds import run_round
from kazoo_ips.background.state_keeper import StateKeeper
from kazoo_ips.errors import Conflict, IPNotFound, KazooIPsError
from kazoo_ips.model import GREGORIAN_EPOCH, Changed
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.pool_feed import Revision
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.limits import REFRESH, LimitService
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.idempotency import IdempotencyService
from kazoo_ips.services.maintenance.retention import RetentionService
from kazoo_ips.services.maintenance.status import HEARTBEAT, StatusService
from kazoo_ips.services.pool.low_zones import LowZoneService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

ARCHIVER_ROUND = 0.25
"""Seconds between two steps of the archiver. Most of them find nothing to do, and send nothing:
the archiver reads the feed once a second, and handles each change a certain time later."""
ROUND = 20.0
"""Seconds between two searches for orphaned transactions."""
SPELLINGS = 60.0
"""Seconds between two searches for addresses in unusual spellings."""
SWEEP = 600.0
"""Seconds between two sweeps of expired Idempotency-Keys: each sweep reads all keys of a day."""
LOW_ZONES = 15.0
"""Seconds between two checks whether a zone has become low. Each worker makes them."""
RETENTION = 3600.0
"""Seconds between two checks whether a year of the history is to be deleted."""


class _Round:
    """Work that is repeated at intervals.

    Worker processes start together. A random delay before the first time spreads their work.

    :param seconds: the interval
    :param at_start: whether it is done at once when the process starts
    """

    def __init__(
        self, seconds: float, do: Callable[[], object], *, at_start: bool = False
    ) -> None:
        self._seconds = seconds
        self._do = do
        self._due = time.monotonic() + (0 if at_start else random.uniform(0, seconds))

    def do_if_due(self) -> None:
        """Do the work if its time has come. If it fails, the next time is an interval later."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._seconds
            self._do()


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
        limits: LimitService,
        idempotency: IdempotencyService,
        follower: ChangeFollower[Changed],
        archiver: ChangeFollower[Revision],
        retention: RetentionService,
        low_zones: LowZoneService,
        status: StatusService,
        states: StateKeeper,
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._retries = retries
        self._conflicts = conflicts
        self._recovery = recovery
        self._limits = limits
        self._idempotency = idempotency
        self._follower = follower
        self._archiver = archiver
        self._retention = retention
        self._low_zones = low_zones
        self._status = status
        self._states = states
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

    def recover(self) -> None:
        """End the transactions of dead processes."""
        self._recovery.recover()

    def learn_spellings(self) -> None:
        """Read the unusual spellings of addresses in the pool, for later assignments."""
        self._ips.learn_spellings()

    def follow(self) -> int:
        """Handle changes of the pool if this process holds the lease; return their number."""
        return self._follower.step()

    def archive(self) -> int:
        """Archive events of the pool's changes if this process holds the lease.

        Every process reads the progress of the archive: its writes may drop archived events.

        :returns: how many changes were handled
        """
        try:
            return self._archiver.step()
        finally:
            self._ips.archived = covered = self._archiver.covered
            if covered is not None:
                self._metrics.archived(covered - GREGORIAN_EPOCH)

    def keep_states(self) -> int:
        """Change states as time and settings demand, if this process holds the lease."""
        return self._states.keep()

    def read_settings(self) -> None:
        """Read the settings of zones and hosts, for the requests of this process."""
        self._states.read_settings()

    def work(self) -> int:
        """Do the work of the retry queue; return how many pieces succeeded."""
        return self._retries.work()

    def start(self) -> None:
        """Start the threads, which run as long as the process.

        The archiver has a thread of its own, so that no other work delays it.
        """
        threading.Thread(target=self._run, name="background", daemon=True).start()
        threading.Thread(target=self._run_archiver, name="archiver", daemon=True).start()

    def _run_archiver(self) -> None:
        while True:
            time.sleep(ARCHIVER_ROUND)
            run_round("archiver round", self.archive, self._metrics.background_failures.inc)

    def _run(self) -> None:
        rounds = [
            _Round(ROUND, self.recover),
            _Round(SWEEP, self._idempotency.sweep),
            _Round(RETENTION, self._retention.delete_expired),
            _Round(LOW_ZONES, self._low_zones.check),
            _Round(state_keeper.ROUND, self.keep_states),
            # Operators look for a new worker at once. Its assignments need the other two.
            _Round(HEARTBEAT, self._status.beat, at_start=True),
            _Round(SPELLINGS, self.learn_spellings, at_start=True),
            _Round(REFRESH, self._limits.refresh, at_start=True),
        ]

        def do_round() -> None:
            self.read_settings()
            self.work()
            self.check_due()
            self.follow()
            for each in rounds:
                each.do_if_due()

        while True:
            time.sleep(1)
            run_round("background round", do_round, self._metrics.background_failures.inc)
