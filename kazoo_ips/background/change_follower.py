"""Follows a changes feed: everything that was written is handled, whichever process dies.

One process at a time, of all workers of all instances: whoever holds the lease. The checkpoint
moves on when everything before it is handled, so that the next holder begins there and handles
some of it again: each change at least once.
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
"""Seconds after which somebody else takes over, at once where the holder is known to be dead."""
RENEW = 10
"""Seconds before that at which the holder renews it."""
LOOK = 15
"""Seconds between two looks at the lease by those who do not hold it."""
POLL = 5
"""Seconds between two looks at the feed by the one who does."""
AGAIN = 10
"""Seconds after which what could not be handled is tried again."""
GIVEN_UP = 3600
"""Seconds after which it is not tried any more."""
BATCH = 1000
"""Changes that are handled together."""
_AHEAD = 100
"""Batches that are read before the first of them is handled, and changes left over in each."""

Change = TypeVar("Change", bound=Hashable)
Change_co = TypeVar("Change_co", bound=Hashable, covariant=True)


class Feed(Protocol[Change_co]):
    """What is followed."""

    def history(self) -> str:
        """Names the feed: another one when the database was made anew."""

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[Change_co], bool]:
        """A part of the feed: where the next one starts, its changes, and whether there is more.

        :param since: where the part before ended, `0` for the start
        """


@dataclass(frozen=True, slots=True)
class _Batch(Generic[Change]):
    """Changes that were read at some time, in Gregorian seconds, and where they end."""

    changes: Sequence[Change]
    read: int
    since: str


class ChangeFollower(Generic[Change]):
    """Follows one feed for one purpose.

    The first time it starts with everything that there is.

    :param name: of the purpose, the same in all processes
    :param handle: called with changes; returns those that have to be handled once more later
    :param delay: seconds that a change waits for being handled
    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913 - who, what, how, when
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
        self._next_look = self._next_poll = self._next_again = 0
        self._start("")

    def _start(self, since: str) -> None:
        """Begin at some place of the feed."""
        self._read = self._handled = since
        self._batches: deque[_Batch[Change]] = deque()
        self._left: dict[Change, int] = {}
        """Changes to be handled once more, and since when."""

    def step(self) -> int:
        """Do what there is to do at this moment; how many changes were handled.

        Called about once a second, from one thread.

        :raises DatastoreError: the rest has to wait; it is not lost
        """
        if not self._holds_lease():
            return 0
        self._poll()
        count = 0
        while self._keep_lease() and self._is_due():
            count += self._handle_next()
        if self._left and self._now() >= self._next_again:
            self._handle_left()
        self._keep_lease()
        return count

    # The lease.

    def _holds_lease(self) -> bool:
        now = self._now()
        if self._held and now < self._held.until:
            return True
        self._held = None
        if now < self._next_look:
            return False
        self._next_look = now + LOOK
        known = self._checkpoints.find(self._name)
        if known and now < known.until and self._is_alive(known.holder):
            return False
        return self._take_lease(known)

    @staticmethod
    def _is_alive(holder: str) -> bool:
        """Whether another process may be at it. What this one held it has lost track of."""
        return holder != liveness.identity() and not liveness.is_dead(holder)

    def _take_lease(self, known: Checkpoint | None) -> bool:
        history = self._feed.history()
        since = known.since if known and known.history == history else "0"
        revision = known.revision if known else None
        until = self._now() + LEASE
        taken = Checkpoint(self._name, liveness.identity(), until, since, history, revision)
        self._held = self._checkpoints.put(taken)
        if self._held:
            log.info("following %s from %.20s", self._name, since)
            self._start(since)
            self._next_poll = 0
        return self._held is not None

    def _keep_lease(self) -> bool:
        """Renew the lease and move the checkpoint on where need be; whether it is still held."""
        held = self._held
        if held is None:
            return False
        left = held.until - self._now()
        since = held.since if self._left else self._handled
        if left > RENEW and since == held.since:
            return True
        history = held.history
        if left <= RENEW:
            history = self._feed.history()
            if history != held.history:
                log.warning("%s: the database was made anew", self._name)
                self._start(since := "0")
        until = self._now() + LEASE
        self._held = None  # unless it is certain
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
        while more and len(self._batches) < _AHEAD and len(self._left) < _AHEAD * BATCH:
            self._read, changes, more = self._feed.changed(self._read, BATCH)
            if changes:
                self._batches.append(_Batch(changes, now, self._read))

    def _is_due(self) -> bool:
        return bool(self._batches) and self._batches[0].read + self._delay <= self._now()

    def _handle_next(self) -> int:
        batch = self._batches[0]
        left = self._handle(batch.changes)
        self._batches.popleft()
        self._handled = batch.since
        now = self._now()
        self._left |= {change: self._left.get(change, now) for change in left}
        self._metrics.follower_lag.observe(now - batch.read)
        self._metrics.changes_followed.inc(len(batch.changes))
        return len(batch.changes)

    def _handle_left(self) -> None:
        """Handle once more what was left; the checkpoint waits for it."""
        now = self._now()
        self._next_again = now + AGAIN
        left = set(self._handle(self._left))
        for change in [c for c, at in self._left.items() if now - at > GIVEN_UP and c in left]:
            log.error("%s: given up: %s", self._name, change)
            left.discard(change)
        self._left = {change: at for change, at in self._left.items() if change in left}
