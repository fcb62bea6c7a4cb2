"""Clients that wait for events: what is written to each of them.

No thread waits for such a client. Its connection is kept by `server/readers.py`, which reads the
feed once for all clients of the process, and writes what the subscription of a client returns.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from kazoo_ips.api.event_resources import encoded
from kazoo_ips.errors import DatastoreError, KazooIPsError
from kazoo_ips.model.history import FeedEntry, FeedPage
from kazoo_ips.services.events import EventService, seen_by

HEARTBEAT = 20.0
"""Seconds between two heartbeats of a stream that has no events. Proxies close a connection on
which nothing is sent for a minute."""
_RETRY = (1000, 5000)
"""Milliseconds after which a client connects again. Each client gets a random number in this
range, so that the clients of a worker that ends do not all connect at once."""
_POLL = 1.0
"""Seconds that `in_parts` waits for an event."""


class Authority:
    """The permission with which a client reads the feed. It is checked again from time to time.

    :param key: equal for all clients with the same permission
    :param check: raises an error if the client may not read the feed any more
    """

    def __init__(self, key: tuple[str | None, ...], check: Callable[[], object]) -> None:
        self.key = key
        self._check = check

    def holds(self) -> bool:
        """Return whether the client may still read the feed.

        While CouchDB does not respond, it returns True: no events arrive meanwhile either.
        """
        try:
            self._check()
        except DatastoreError:
            return True
        except KazooIPsError:
            return False
        return True


class Subscription(Protocol):
    """One client that waits."""

    since: str
    """The position up to which the events are written."""
    account_id: str | None
    authority: Authority
    deadline: float
    """The end, by the monotonic clock."""
    is_complete: bool
    """Whether nothing more is to be written."""

    def begin(self) -> bytes:
        """Return the first bytes."""

    def write(self, page: FeedPage) -> bytes:
        """Return the bytes for the next part of the feed."""

    def heartbeat(self) -> bytes:
        """Return the heartbeat: bytes that keep the connection open."""

    def end(self) -> bytes:
        """Return the last bytes, if the time is over or the service stops."""


class _Client:
    def __init__(
        self, since: str, account_id: str | None, authority: Authority, seconds: float
    ) -> None:
        self.since = since
        self.account_id = account_id
        self.authority = authority
        self.deadline = time.monotonic() + seconds
        self.is_complete = False

    def _seen(self, page: FeedPage) -> list[FeedEntry]:
        if self.account_id is None:
            return page.entries
        return seen_by(self.account_id, page)


class EventStream(_Client):
    """Server-Sent Events. The id of each is the position after it.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def begin(self) -> bytes:
        """Return the time after which to connect again, and the first position."""
        return b"retry: %d\n%b" % (random.randint(*_RETRY), self.heartbeat())

    def write(self, page: FeedPage) -> bytes:
        """Return the events of a part of the feed."""
        self.since = page.since
        return b"".join(
            b"id: %b\nevent: %b\ndata: %b\n\n"
            % (entry.since.encode(), entry.event.event.encode(), encoded(entry.event))
            for entry in self._seen(page)
        )

    def heartbeat(self) -> bytes:
        """Return the position. Without data, clients store it and report no event."""
        return b"id: %b\n\n" % self.since.encode()

    def end(self) -> bytes:
        """Return the position."""
        return self.heartbeat()


class LongPoll(_Client):
    """A reply that is sent as soon as there is an event.

    :param limit: the maximum number of events
    :param reply: returns the body for the events; called without a request context
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as its base class
        self,
        since: str,
        account_id: str | None,
        authority: Authority,
        seconds: float,
        limit: int,
        reply: Callable[[FeedPage], bytes],
    ) -> None:
        super().__init__(since, account_id, authority, seconds)
        self._limit = limit
        self._reply = reply

    def begin(self) -> bytes:
        """Return nothing: the reply has only one part."""
        return b""

    def write(self, page: FeedPage) -> bytes:
        """Return the reply, if there is an event for the client."""
        entries = self._seen(page)[: self._limit]
        if not entries:
            self.since = page.since
            return b""
        is_whole = entries[-1] == page.entries[-1]
        since = page.since if is_whole else entries[-1].since
        return self._complete(FeedPage(since, entries, page.more or not is_whole))

    def heartbeat(self) -> bytes:
        """Return nothing: a client waits for less than a minute."""
        return b""

    def end(self) -> bytes:
        """Return a reply without events."""
        return self._complete(FeedPage(self.since, [], False))

    def _complete(self, page: FeedPage) -> bytes:
        self.is_complete = True
        self.since = page.since
        return self._reply(page)


def in_parts(subscription: Subscription, events: EventService, limit: int) -> Iterator[bytes]:
    """Yield what a client is sent, on a server that cannot keep its connection without a thread.

    Such servers are those of tests and of development.
    """
    yield subscription.begin()
    while not subscription.is_complete:
        page = events.read(subscription.since, limit)
        yield subscription.write(page)
        remaining = subscription.deadline - time.monotonic()
        if subscription.is_complete:
            return
        if remaining <= 0 or not subscription.authority.holds():
            yield subscription.end()
            return
        if not page.more:
            events.wait(subscription.since, min(remaining, _POLL))


FOREVER = math.inf
"""The seconds of a subscription that has no end."""
