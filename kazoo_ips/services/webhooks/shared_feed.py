"""The feed of events, read once for all webhooks that are at the same position."""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple, Protocol

from cachetools import LRUCache

from kazoo_ips.errors import SinceGone, ValidationFailed
from kazoo_ips.model.history import HistoryEvent

SEGMENT = 100
"""Number of events that are read at once. Positions between two segments are not known, so the
progress of a webhook has the ids of the events that are delivered in its segment."""
_SEGMENTS = 64
"""Number of segments that are kept in memory."""


class EventFeed(Protocol):
    """The feed of all events. The events of one address are in order."""

    def history(self) -> str:
        """Return an id of the feed. After it was created again it has another id."""

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        """Return a part of the feed: its end, its events, and whether more follow.

        :param since: the end of the previous part, or `0` for the start of the feed
        """


class Segment(NamedTuple):
    """A part of the feed.

    :param end: its end in the feed
    """

    end: str
    events: tuple[HistoryEvent, ...]
    more: bool


class SharedFeed:
    """Reads the feed for several threads.

    Positions are opaque, and two positions may have the same events after them. Webhooks without
    anything to do are moved to one position, so that one request shows whether any of them
    has new events.
    """

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        self._lock = Lock()
        """Guards the cache. No thread holds it while it reads the feed."""
        self._segments: LRUCache[str, Segment] = LRUCache(_SEGMENTS)
        self._end: str | None = None
        """A position that nothing followed when it was read last."""
        self.history = feed.history

    def read(self, since: str) -> Segment:
        """Return the segment after a position.

        Several threads that read the same segment at once may each send a request.

        :raises DatastoreError: CouchDB failed
        """
        end = self._end
        segment = self._read(since)
        if segment.events or segment.more:
            return segment
        if end is not None and end != segment.end:
            # Nothing followed `since` just now. If now nothing follows `end` either, the same
            # events will follow both. This holds only because `end` was known before: a position
            # that another thread has found meanwhile may be after a new event.
            other = self._read_known(end)
            if other and not other.events and not other.more:
                return segment._replace(end=end)
        self._end = segment.end
        return segment

    def is_end(self, since: str) -> bool:
        """Return whether nothing followed a position at the last `look`."""
        return self._end == since

    def look(self) -> None:
        """Find out whether something follows the end.

        :raises DatastoreError: CouchDB failed
        """
        end = self._end
        if end is None:
            return
        segment = self._read_known(end)
        if segment is None or segment.events or segment.more:
            with self._lock:
                if self._end == end:
                    self._end = None

    def forget(self) -> None:
        """Forget everything that was read, because the feed was created again."""
        with self._lock:
            # A thread that is reading keeps the old cache, and adds what it has read to that.
            self._segments = LRUCache(_SEGMENTS)
            self._end = None

    def _read_known(self, since: str) -> Segment | None:
        """Read what follows a position; None if the feed does not know it any more."""
        try:
            return self._read(since)
        except (SinceGone, ValidationFailed):
            return None

    def _read(self, since: str) -> Segment:
        with self._lock:
            segments = self._segments
            segment = segments.get(since)
        if segment is not None:
            return segment
        # Without the lock: while CouchDB does not answer one thread, the others go on.
        end, events, more = self._feed.changed(since, SEGMENT)
        segment = Segment(end, tuple(events), more)
        if events:  # what follows nothing may change
            with self._lock:
                segments[since] = segment
        return segment
