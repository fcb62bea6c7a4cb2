"""A follower of a changes feed, which handles every change even if processes die.

One process of all workers of all instances follows the feed: the process that holds the lease. It
moves the checkpoint to a position when all changes before that position are handled. The next
holder of the lease starts at the checkpoint. So each change is handled at least once, and some are
handled twice.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from kazoo_ips.background.lease import OtherHolder
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints

log = logging.getLogger(__name__)

LEASE = 30
"""Seconds after which another process takes over, unless the holder has renewed the lease. A
process that knows the holder to be dead takes over at once."""
RENEW = LEASE // 3
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
_OLDEST = "0"
"""The position at the beginning of a feed."""

Change = TypeVar("Change", bound=Hashable)
Change_co = TypeVar("Change_co", bound=Hashable, covariant=True)


class ChangesFeed(Protocol[Change_co]):
    """The feed that is followed."""

    def history(self) -> str:
        """Return an id of the feed.

        A database that was deleted and created again has another id.
        """

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[Change_co], bool]:
        """Return a part of the feed: its end, its changes, and whether more changes follow.

        :param since: the end of the previous part, `0` for the start of the feed, or another
            position that the feed knows, such as `now`
        """


class FollowerMetrics(Protocol):
    """What a follower counts."""

    def count_poll(self) -> None:
        """Count a read of the feed."""

    def count_followed(self, count: int, seconds: int) -> None:
        """Count changes that were handled.

        :param seconds: the time between reading and handling them
        """


class Pending(Protocol):
    """Work that changes have caused and that is not done yet. It is stored in the checkpoint.

    So the position of the checkpoint advances, although some of the work may take days.
    """

    def load(self, stored: Mapping[str, Any]) -> None:
        """Replace all work by that of a checkpoint."""

    def dump(self) -> Mapping[str, Any]:
        """Return the work as it is stored: the same text for the same work."""


@dataclass(frozen=True, slots=True)
class FollowerOptions:
    """The settings of a follower.

    :param delay: seconds between reading a change and handling it
    :param poll: seconds between two reads of the feed
    :param lease: seconds that a lease lasts; a third of it is longer than `handle` takes
    :param start: where a follower without a checkpoint starts: `0` for the beginning of the feed
    :param batch: how many changes are read and handled together
    :param max_batches: how many batches wait in memory at most; the module's limit if None
    :param retry_interval: seconds after which changes that could not be handled are retried
    :param retry_limit: seconds after which a change is not retried any more; None is never
    """

    delay: int = 0
    poll: int = POLL
    lease: int = LEASE
    start: str = _OLDEST
    batch: int | None = None
    max_batches: int | None = None
    retry_interval: int = RETRY_INTERVAL
    retry_limit: int | None = RETRY_LIMIT

    @property
    def renew(self) -> int:
        """Seconds before the end of the lease at which the holder renews it."""
        return self.lease // 3


@dataclass(frozen=True, slots=True)
class _Batch(Generic[Change]):
    """Changes, the time they were read in Gregorian seconds, and their end in the feed.

    :param is_last: whether the feed had no more changes at that time
    """

    changes: Sequence[Change]
    read: int
    since: str
    is_last: bool


class ChangeFollower(Generic[Change]):
    """Follows one feed for one purpose.

    When it runs for the first time, it starts at the beginning of the feed, unless the options say
    otherwise.

    There are two ways to handle a change later. If `handle` returns it, it waits while others are
    handled, and is dropped after `RETRY_LIMIT`. If `handle` raises an error, it blocks: the same
    batch is handled again in the next step, the checkpoint stays, and nothing is ever dropped.

    :param name: names the purpose, and so the lease; the same in all processes
    :param handle: handles changes, and returns those that have to be handled again later
    :param now: returns the time in Gregorian seconds
    :param metrics: counts the changes, unless they are counted elsewhere
    :param pending: the work that is stored in the checkpoint, if there is any
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
        self,
        name: str,
        feed: ChangesFeed[Change],
        checkpoints: Checkpoints,
        handle: Callable[[Collection[Change]], Iterable[Change]],
        *,
        options: FollowerOptions,
        now: Callable[[], int],
        metrics: FollowerMetrics | None = None,
        pending: Pending | None = None,
    ) -> None:
        self._name = name
        self._feed = feed
        self._checkpoints = checkpoints
        self._handle = handle
        self._options = options
        self._now = now
        self._metrics = metrics
        self._pending = pending
        self.covered: int | None = None
        """The time before which every change in the feed is handled, as far as this process knows,
        in Gregorian seconds. None if it does not know."""
        self._held: Checkpoint | None = None
        self._other = OtherHolder(options.lease + LEASE_CHECK)
        self._latest = 0
        """The time of the last step, in Gregorian seconds."""
        self._next_lease_check = self._next_poll = self._next_retry = 0
        self._start("")

    def _start(self, since: str) -> None:
        """Start at a position of the feed, with nothing read."""
        self._read = self._handled = since
        self._batches: deque[_Batch[Change]] = deque()
        self._to_retry: dict[Change, int] = {}
        """Changes that wait for a retry, each with the time of its first attempt."""
        self._at_end = False

    def step(self) -> int:
        """Do what is due, and return how many changes were handled.

        It renews the lease, reads the feed and handles changes. The background thread calls it
        about once a second.

        :raises DatastoreError: CouchDB failed; the remaining changes are handled later
        """
        self._notice_clock()
        if not self._holds_lease():
            return 0
        self._poll()
        count = 0
        while self._keep_lease() and self._is_due():
            count += self._handle_next()
        if self._to_retry and self._now() >= self._next_retry:
            self._retry()
        return count

    def _notice_clock(self) -> None:
        """Make every step due now if the clock was set back. Otherwise it would wait for hours."""
        now, latest = self._now(), self._latest
        self._latest = now
        if now >= latest:
            return
        log.warning("%s: the clock was set back by %d s", self._name, latest - now)
        self._next_lease_check = self._next_poll = self._next_retry = 0
        self._batches = deque(replace(batch, read=now) for batch in self._batches)
        if self._held:
            self._held = replace(self._held, until=now)

    def renew(self) -> bool:
        """Renew the lease and store the checkpoint if it is time; return whether it is held.

        It handles nothing. A consumer calls it while its receiver is unavailable.

        :raises DatastoreError: CouchDB failed
        """
        return self._keep_lease()

    @property
    def began(self) -> int | None:
        """The time of the first start, in Gregorian seconds; None without the lease."""
        return self._held.began if self._held else None

    @property
    def next_change(self) -> Change | None:
        """The oldest change that was read and is not handled; None if there is none."""
        return self._batches[0].changes[0] if self._batches else None

    @property
    def is_at_end(self) -> bool:
        """Whether this process holds the lease, and all changes of the last read are handled."""
        return self._held is not None and self._at_end and not self._batches

    # The lease.

    def _holds_lease(self) -> bool:
        if self._held:  # `_keep_lease` finds out whether another process has taken it meanwhile
            return True
        now = self._now()
        if now < self._next_lease_check:
            return False
        self._next_lease_check = now + LEASE_CHECK
        stored = self._checkpoints.find(self._name)
        self.covered = stored.covered if stored else None
        if self._other.holds(stored, now):
            return False
        return self._take_lease(stored)

    def _take_lease(self, stored: Checkpoint | None) -> bool:
        history = self._feed.history()
        now = self._now()
        if stored is None:
            stored = Checkpoint(self._name, "", 0, self._first(), history, began=now)
        elif stored.history != history:
            stored = replace(stored, since=_OLDEST, history=history, covered=None)
            self.covered = None
        taken = replace(stored, holder=liveness.identity(), until=now + self._options.lease)
        self._held = self._checkpoints.put(taken)
        if self._held:
            log.info("following %s from %.20s", self._name, taken.since)
            self._start(taken.since)
            if self._pending:
                self._pending.load(taken.pending)
            self._next_poll = 0
        return self._held is not None

    def _first(self) -> str:
        """Return the position of a follower without a checkpoint."""
        start = self._options.start
        # A word like `now` is turned into a position here. If it were stored, a process that dies
        # before it handles anything would lose the changes until its successor starts.
        return start if start == _OLDEST else self._feed.changed(start, 1)[0]

    def _keep_lease(self) -> bool:
        """Renew the lease and store the checkpoint if it is time; return whether it is held."""
        held = self._held
        if held is None:
            return False
        remaining = held.until - self._now()
        due = remaining <= self._options.renew
        since = held.since if self._to_retry else self._handled
        pending = self._pending.dump() if self._pending else held.pending
        if not due and (since, pending) == (held.since, held.pending):
            return True
        history = held.history
        if due:
            history = self._feed.history()
            if history != held.history:
                log.warning("%s: the database was created again", self._name)
                self._start(since := _OLDEST)
                self.covered = None
        until = self._now() + self._options.lease
        self._held = None  # the lease is not held if the next write raises an error
        self._held = self._checkpoints.put(
            replace(
                held,
                until=until,
                since=since,
                history=history,
                pending=pending,
                covered=self.covered,
            )
        )
        return self._held is not None

    # The feed.

    def _poll(self) -> None:
        now = self._now()
        if now < self._next_poll:
            return
        self._next_poll = now + self._options.poll
        if self._metrics:
            self._metrics.count_poll()
        limit = self._options.batch or BATCH
        most = self._options.max_batches or _MAX_BATCHES
        more = True
        while more and len(self._batches) < most and len(self._to_retry) < most * limit:
            self._read, changes, more = self._feed.changed(self._read, limit)
            if changes:
                self._batches.append(_Batch(changes, now, self._read, is_last=not more))
        self._at_end = not more
        if not (more or self._batches or self._to_retry):
            self.covered = now

    def _is_due(self) -> bool:
        return bool(self._batches) and self._batches[0].read + self._options.delay <= self._now()

    def _handle_next(self) -> int:
        batch = self._batches[0]
        to_retry = self._handle(batch.changes)
        self._batches.popleft()
        self._handled = batch.since
        now = self._now()
        self._to_retry |= {change: self._to_retry.get(change, now) for change in to_retry}
        if batch.is_last and not self._to_retry:
            self.covered = batch.read
        if self._metrics:
            self._metrics.count_followed(len(batch.changes), now - batch.read)
        return len(batch.changes)

    def _retry(self) -> None:
        """Retry the changes that wait for a retry. The checkpoint stays while any change waits."""
        now = self._now()
        self._next_retry = now + self._options.retry_interval
        failed = set(self._handle(self._to_retry))
        limit = self._options.retry_limit
        expired = {c for c, at in self._to_retry.items() if limit is not None and now - at > limit}
        for change in failed & expired:
            log.error("%s: no more retries: %s", self._name, change)
            failed.discard(change)
        self._to_retry = {c: at for c, at in self._to_retry.items() if c in failed}
