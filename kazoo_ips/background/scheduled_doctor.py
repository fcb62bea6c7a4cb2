"""The daily examination by the doctor, in the hours of the settings, in one process of all.

It repairs nothing. After each part of its work it pauses for as long as that part has taken. So it
uses at most half of the time of one core, and of CouchDB.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from kazoo_ips.background.lease import Lease
from kazoo_ips.background.rounds import run_round
from kazoo_ips.model.usage import DAY
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.services.maintenance.examinations import ExaminationService
from kazoo_ips.services.maintenance.status import StatusService

log = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds between two checks whether it is time."""
_HOUR = 3600
_AUTHOR = "background"


class LeaseLost(Exception):
    """Another process has the lease, and continues the examination."""


class ScheduledDoctor:
    """Examines all documents once a day.

    :param hours: the first hour in UTC in which it may begin, and the hour before which it has to
        begin; the day may change between them; None is never
    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        examinations: ExaminationService,
        status: StatusService,
        lease: Lease,
        *,
        hours: tuple[int, int] | None,
        now: Callable[[], int],
        pause: Callable[[float], None] = time.sleep,
        metrics: Metrics,
    ) -> None:
        self._examinations = examinations
        self._status = status
        self._lease = lease
        self._hours = hours
        self._now = now
        self._pause = pause
        self._metrics = metrics

    def step(self) -> bool:
        """Examine all documents if it is time, and return whether that was done.

        :raises LeaseLost: another process has taken over
        :raises DatastoreError: CouchDB failed; the next step continues
        """
        begins = self._begins()
        if begins is None or not self._lease.hold():
            return False
        last = self._status.last_doctor()
        if last is not None and last.started >= begins:
            return False
        self._examine()
        return True

    def _begins(self) -> int | None:
        """Return the beginning of the hours in which it is now, or None if it is not time."""
        if self._hours is None:
            return None
        first, end = self._hours
        now = self._now()
        since = (now - first * _HOUR) % DAY
        return now - since if since < (end - first) % 24 * _HOUR else None

    def _examine(self) -> None:
        worked = time.monotonic()

        def throttle(_count: int) -> None:
            nonlocal worked
            self._pause(time.monotonic() - worked)
            if not self._lease.hold():
                raise LeaseLost
            worked = time.monotonic()

        found = Counter(each.problem for each in self._examinations.run(_AUTHOR, seen=throttle))
        text = dict(found) or "nothing found"
        log.info("the doctor has examined all documents: %s", text)

    def start(self) -> None:
        """Start the thread, which runs as long as the process."""
        threading.Thread(target=self._run, name="doctor", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(ROUND)
            run_round("doctor", self._step, self._metrics.background_failures.inc)

    def _step(self) -> None:
        try:
            self.step()
        except LeaseLost:
            log.info("another process examines the documents")
