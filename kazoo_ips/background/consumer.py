"""Consumers of the feed of history events: each sends the changes to another system.

Each consumer has a checkpoint and a thread of its own. So an unavailable receiver delays no other
work. An event is handled at least once: the checkpoint moves after the receiver has taken it.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from kazoo_ips.background.change_follower import (
    ChangeFollower,
    ChangesFeed,
    FollowerOptions,
    Pending,
)
from kazoo_ips.background.rounds import run_round
from kazoo_ips.errors import ReceiverUnavailable, SinceGone
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.observability.metrics import ConsumerMetrics
from kazoo_ips.repositories.checkpoints import Checkpoints

log = logging.getLogger(__name__)

POLL = 1
"""Seconds between two reads of the feed."""
LEASE = 60
"""Seconds of a lease. A receiver that does not answer can take 20 s of them."""
MAX_PAUSE = 30
"""Maximum seconds between two attempts while a receiver is unavailable."""
BEFORE_START = 3600
"""Events that are older than the first start of a consumer by more seconds are not handled. When
the service is installed on an existing pool, the archive gets events for all earlier changes."""
_BATCH, _MAX_BATCHES = 200, 20
_START = "now"


class Receiver(Protocol):
    """The system that gets the events."""

    def take(self, events: Collection[HistoryEvent]) -> Iterable[HistoryEvent]:
        """Take events.

        :returns: those that have to be taken again later
        :raises ReceiverUnavailable: the receiver may not have taken all; they are given again
        """

    def work(self) -> object:
        """Do other work that is due. It is called about once a second with the lease.

        :raises ReceiverUnavailable: the work is done later
        """

    def forget(self) -> None:
        """Drop the work, as another process has the lease. It is called about once a second."""

    @property
    def oldest(self) -> int | None:
        """The time of the oldest event that was taken and is not done; None if all are done."""


class ResumingFeed:
    """A feed that continues at its oldest event if the events after a position were deleted.

    :param lost: called if that happens
    """

    def __init__(
        self, feed: ChangesFeed[HistoryEvent], name: str, lost: Callable[[], object]
    ) -> None:
        self._feed = feed
        self._name = name
        self._lost = lost

    def history(self) -> str:
        """Return the id of the feed."""
        return self._feed.history()

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        """Return a part of the feed, as `ChangesFeed.changed` does."""
        try:
            return self._feed.changed(since, limit)
        except SinceGone:
            log.error(
                "%s: events were deleted before they were handled; continuing at the oldest event",
                self._name,
            )
            self._lost()
            return self._feed.changed("0", limit)


class Consumer:
    """Gives the events of the feed to one receiver.

    :param name: names the consumer in its checkpoint, in logs and in metrics; without secrets
    :param now: returns the time in Gregorian seconds
    :param pending: the receiver, if its work is stored in the checkpoint
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        name: str,
        feed: ChangesFeed[HistoryEvent],
        checkpoints: Checkpoints,
        receiver: Receiver,
        *,
        now: Callable[[], int],
        metrics: ConsumerMetrics,
        pending: Pending | None = None,
    ) -> None:
        self.name = name
        self._receiver = receiver
        self._now = now
        self._metrics = metrics
        self._follower = ChangeFollower(
            name,
            ResumingFeed(feed, name, metrics.count_gap),
            checkpoints,
            self._take,
            options=FollowerOptions(
                poll=POLL, lease=LEASE, start=_START, batch=_BATCH, max_batches=_MAX_BATCHES
            ),
            now=now,
            metrics=metrics,
            pending=pending,
        )
        self._failures = 0
        self._failed_since = 0
        self._resume = 0

    def step(self) -> None:
        """Do what is due. The thread calls it about once a second.

        :raises DatastoreError: CouchDB failed; the remaining events are handled later
        """
        try:
            if self._now() < self._resume:
                self._follower.renew()
            else:
                self._attempt()
        finally:
            self._report()

    def _attempt(self) -> None:
        try:
            # Waiting work is done before new events are read, so that there is room for them.
            if self._follower.renew():
                self._receiver.work()
            else:
                self._receiver.forget()
            self._follower.step()
        except ReceiverUnavailable as error:
            self._pause(str(error))
            return
        if self._failures:
            seconds = self._now() - self._failed_since
            log.info("%s: it takes events again, after %d s", self.name, seconds)
        self._failures = self._resume = 0

    def _pause(self, why: str) -> None:
        now = self._now()
        if not self._failures:
            self._failed_since = now
        self._failures += 1
        self._metrics.count_failure()
        pause = min(2 ** min(self._failures, 10), MAX_PAUSE)
        self._resume = now + pause
        # The failures 1, 2, 4, 8 and so on are logged: 12 lines for a day without a receiver.
        if self._failures & (self._failures - 1) == 0:
            log.warning("%s: %s; trying again, failed %d times", self.name, why, self._failures)

    def _take(self, events: Collection[HistoryEvent]) -> Iterable[HistoryEvent]:
        oldest = (self._follower.began or 0) - BEFORE_START
        return self._receiver.take([event for event in events if event.at >= oldest])

    def _report(self) -> None:
        """Set the time up to which all events are handled, if this process knows it."""
        change = self._follower.next_change
        waiting = [self._receiver.oldest, change.at if change else None]
        times = [each for each in waiting if each is not None]
        if times and self._follower.began is not None:
            self._metrics.handled_until(min(times) - GREGORIAN_EPOCH)
        elif self._follower.is_at_end:
            self._metrics.handled_until(self._now() - GREGORIAN_EPOCH)

    def start(self) -> None:
        """Start the thread, which runs as long as the process."""
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(1)
            run_round(self.name, self.step, self._metrics.count_failure)
