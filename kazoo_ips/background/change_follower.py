"""A follower of a changes feed, which handles every change even if processes die.

One process of all workers of all instances follows the feed: the process that holds the lease. It
moves the checkpoint to a position when all changes before that position are handled. The next
holder of the lease starts at the checkpoint. So each change is handled at least once, and some are
handled twice.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints

log = logging.getLogger(__name__)

LEASE = 30
"""Seconds after which another process takes over, unless the holder has renewed the lease. A
process that knows the holder to be dead takes over at once."""
RENEW = 10
"""Seconds before the end of the lease at which the holder renews it."""
LEASE_CHECK = 15
"""Seconds between two reads of the lease by a process that does not hold it."""
POLL = 5
"""Seconds between two reads of the feed by the holder of the lease."""
RETRY_INTERVAL = 10
"""Seconds after which changes that could not be handled are retried."""
RETRY_LIMIT = 3600
"""Seconds after which a change is not retried any more."""
BATCH = 1000
"""Number of changes that are handled together."""
_MAX_BATCHES = 100
"""Maximum number of batches that wait to be handled, and of batches that wait for a retry."""

Change = TypeVar("Change", bound=Hashable)
Change_co = TypeVar("Change_co", bound=Hashable, covariant=True)


class Feed(Protocol[Change_co]):
    """The feed that is followed."""

    def history(self) -> str:
        """Return an id of the feed.

        A database that was deleted and created again has another id.
        """

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[Change_co], bool]:
        """Return a part of the feed: its end, its changes, and whether more changes follow.

        :param since: the end of the previous part, or `0` for the start of the feed
        """


@dataclass(frozen=True, slots=True)
class _Batch(Generic[Change]):
    """Changes, the time they were read in Gregorian seconds, and their end in the feed."""

    changes: Sequence[Change]
    read: int
    since: str


class ChangeFollower(Generic[Change]):
    """Follows one feed for one purpose.

    When it runs for the first time, it starts at the beginning of the feed.

    :param name: names the purpose, and so the lease; the same in all processes
    :param handle: handles changes, and returns those that have to be handled again later
    :param delay: seconds between reading a change and handling it
    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        name: str,
        feed: Feed[Change],
        checkpoints: Checkpoints,
        handle: Callable[[Collection[Change]], Iterable[Change]],
        *,
        delay: int,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._feed = feed
        self._checkpoints = checkpoints
        self._handle = handle
        self._delay = delay
        self._now = now
        self._metrics = metrics
        self._held: Checkpoint | None = None
        self._next_lease_check = self._next_poll = self._next_retry = 0
        self._start("")

    def _start(self, since: str) -> None:
        """Start at a position of the feed, with nothing read."""
        self._read = self._handled = since
        self._batches: deque[_Batch[Change]] = deque()
        self._to_retry: dict[Change, int] = {}
        """Changes that wait for a retry, each with the time of its first attempt."""

    def step(self) -> int:
        """Do what is due, and return how many changes were handled.

        It renews the lease, reads the feed and handles changes. The background thread calls it
        about once a second.

        :raises DatastoreError: CouchDB failed; the remaining changes are handled later
        """
        if not self._holds_lease():
            return 0
        self._poll()
        count = 0
        while self._keep_lease() and self._is_due():
            count += self._handle_next()
        if self._to_retry and self._now() >= self._next_retry:
            self._retry()
        return count

    # The lease.

    def _holds_lease(self) -> bool:
        if self._held:  # `_keep_lease` finds out whether another process has taken it meanwhile
            return True
        now = self._now()
        if now < self._next_lease_check:
            return False
        self._next_lease_check = now + LEASE_CHECK
        stored = self._checkpoints.find(self._name)
        if stored and now < stored.until and self._is_held_by_another(stored.holder):
            return False
        return self._take_lease(stored)

    @staticmethod
    def _is_held_by_another(holder: str) -> bool:
        """Return whether another process, which may be alive, holds the lease.

        If the document names this process as the holder, an earlier write of this process had an
        unknown outcome. Then this process may take the lease.
        """
        return holder != liveness.identity() and not liveness.is_dead(holder)

    def _take_lease(self, stored: Checkpoint | None) -> bool:
        history = self._feed.history()
        since = stored.since if stored and stored.history == history else "0"
        revision = stored.revision if stored else None
        until = self._now() + LEASE
        taken = Checkpoint(self._name, liveness.identity(), until, since, history, revision)
        self._held = self._checkpoints.put(taken)
        if self._held:
            log.info("following %s from %.20s", self._name, since)
            self._start(since)
            self._next_poll = 0
        return self._held is not None

    def _keep_lease(self) -> bool:
        """Renew the lease and store the checkpoint if it is time; return whether it is held."""
        held = self._held
        if held is None:
            return False
        remaining = held.until - self._now()
        since = held.since if self._to_retry else self._handled
        if remaining > RENEW and since == held.since:
            return True
        history = held.history
        if remaining <= RENEW:
            history = self._feed.history()
            if history != held.history:
                log.warning("%s: the database was created again", self._name)
                self._start(since := "0")
        until = self._now() + LEASE
        self._held = None  # the lease is not held if the next write raises an error
        self._held = self._checkpoints.put(
            replace(held, until=until, since=since, history=history)
        )
        return self._held is not None

    # The feed.

    def _poll(self) -> None:
        now = self._now()
        if now < self._next_poll:
            return
        self._next_poll = now + POLL
        self._metrics.follower_polls.inc()
        more = True
        while (
            more
            and len(self._batches) < _MAX_BATCHES
            and len(self._to_retry) < _MAX_BATCHES * BATCH
        ):
            self._read, changes, more = self._feed.changed(self._read, BATCH)
            if changes:
                self._batches.append(_Batch(changes, now, self._read))

    def _is_due(self) -> bool:
        return bool(self._batches) and self._batches[0].read + self._delay <= self._now()

    def _handle_next(self) -> int:
        batch = self._batches[0]
        to_retry = self._handle(batch.changes)
        self._batches.popleft()
        self._handled = batch.since
        now = self._now()
        self._to_retry |= {change: self._to_retry.get(change, now) for change in to_retry}
        self._metrics.follower_lag.observe(now - batch.read)
        self._metrics.changes_followed.inc(len(batch.changes))
        return len(batch.changes)

    def _retry(self) -> None:
        """Retry the changes that wait for a retry. The checkpoint stays while any change waits."""
        now = self._now()
        self._next_retry = now + RETRY_INTERVAL
        failed = set(self._handle(self._to_retry))
        expired = {change for change, at in self._to_retry.items() if now - at > RETRY_LIMIT}
        for change in failed & expired:
            log.error("%s: no more retries: %s", self._name, change)
            failed.discard(change)
        self._to_retry = {c: at for c, at in self._to_retry.items() if c in failed}
