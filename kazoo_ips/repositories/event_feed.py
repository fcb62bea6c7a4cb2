"""The feed of events: all events of the history, in the order in which the archive stored them.

Each year has a database with a changes feed of its own. This module reads them as one feed. An
event may be stored after events of the next year, so a position in the feed has a sequence for
each year.
"""

import re
import time
from collections.abc import Mapping, Sequence

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import DatastoreBadRequest, DatastoreMissing, SinceGone, ValidationFailed
from kazoo_ips.model.history import FeedEntry, FeedPage, HistoryEvent
from kazoo_ips.repositories.history_documents import from_document
from kazoo_ips.repositories.history_years import HistoryYears

START, END = "0", "now"
"""The position before the oldest event that is kept, and the position after the newest."""
_PART = re.compile(r"(\d{4})\.([0-9A-Za-z_-]{1,1000})")
_SEPARATOR = "~"
_WAIT = 3.0
"""Maximum seconds that CouchDB waits for a change in one request. It has to be less than the read
timeout."""

_Position = Mapping[int, str]
"""CouchDB's sequence for each year whose events were read."""


class EventFeed:
    """Reads the feed of events. Implements the feed of a change follower.

    A position (`since`) is opaque. Its characters need no quoting in a URL.

    :param wait: maximum seconds of one request that waits for a change
    """

    def __init__(self, years: HistoryYears, wait: float = _WAIT) -> None:
        self._years = years
        self._wait = wait

    def history(self) -> str:
        """Return the id of the feed, which is always the same.

        CouchDB's sequences name the database that they belong to. If that was created again, its
        events are read from the start.
        """
        return "events"

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        """Return the same as `read`, in the form that a change follower reads."""
        page = self.read(since, limit)
        return page.since, [entry.event for entry in page.entries], page.more

    def read(self, since: str, limit: int) -> FeedPage:
        """Return the next events, in the order of the archive.

        The events of one address are in their order. Each event is returned at least once.

        :param since: `0`, `now`, or a position that an earlier call has returned
        :param limit: about the maximum number of events; it can be exceeded at the turn of a year
        :raises SinceGone: the years of this position are deleted
        :raises ValidationFailed: `since` is no position
        """
        existing = self._years.existing()
        if since == END:
            return FeedPage(self._end(existing), [], False)
        position = _parse(since)
        if not existing:
            return FeedPage(since, [], False)
        if position and max(position) < existing[0]:
            raise SinceGone
        known = {y: sequence for y, sequence in position.items() if y in existing}
        return self._read(known or {existing[0]: START}, existing, limit)

    def _end(self, existing: Sequence[int]) -> str:
        position = {}
        for each in existing:
            feed = self._years.database(each).changes(since="now", limit=1)
            position[each] = str(feed["last_seq"])
        return _format(position) or START

    def _read(self, position: _Position, existing: Sequence[int], limit: int) -> FeedPage:
        position = dict(position)
        while True:
            entries, more = self._read_known(position, limit)
            later = [each for each in existing if each > max(position)]
            if more or not later:
                return FeedPage(_format(position), entries, more)
            # All years of the position are read to their end: the next year follows.
            position[later[0]] = START
            if entries:
                return FeedPage(_format(position), entries, True)

    def _read_known(self, position: dict[int, str], limit: int) -> tuple[list[FeedEntry], bool]:
        """Read the years of a position, and move it.

        The newest year is read first and returned last. So if an event of the newest year is
        returned, all events of earlier years that were stored before it are returned before it.
        """
        pages = {
            each: self._page(each, position[each], limit)
            for each in sorted(position, reverse=True)
        }
        entries = []
        for each in sorted(pages):
            last, rows = pages[each]
            for row in rows:
                if not row.get("deleted") and "event" in row["doc"]:
                    position[each] = str(row["seq"])
                    entries.append(FeedEntry(_format(position), from_document(row["doc"])))
            position[each] = last
            if len(rows) == limit:
                return entries, True
        return entries, False

    def _page(self, year: int, since: str, limit: int) -> tuple[str, list[Document]]:
        try:
            feed = self._years.database(year).changes(since=since, limit=limit, include_docs=True)
        except DatastoreMissing:
            self._years.forget(year)
            raise
        except DatastoreBadRequest as error:
            raise _invalid(since) from error
        return str(feed["last_seq"]), feed["results"]

    def wait(self, since: str, seconds: float) -> bool:
        """Wait for events, and return whether there are any after a position.

        It waits for events of the current year. Events of other years, which are rare, are noticed
        a few seconds later.

        :raises SinceGone: the years of this position are deleted
        :raises ValidationFailed: `since` is no position
        """
        end = time.monotonic() + seconds
        while True:
            since, events, more = self.changed(since, 1)
            remaining = end - time.monotonic()
            if events or more or remaining <= 0:
                return bool(events) or more
            self._wait_for_change(_parse(since), min(remaining, self._wait))

    def _wait_for_change(self, position: _Position, seconds: float) -> None:
        year = max((y for y in position if y <= self._years.current), default=None)
        if year is None:  # there is no database yet
            time.sleep(min(seconds, 1.0))
            return
        self._years.database(year).changes(
            since=position[year], limit=1, feed="longpoll", timeout=int(seconds * 1000)
        )


def _parse(since: str) -> dict[int, str]:
    if since in ("", START):
        return {}
    parts = [_PART.fullmatch(part) for part in since.split(_SEPARATOR)]
    position = {int(part[1]): part[2] for part in parts if part}
    if len(position) < len(parts):
        raise _invalid(since)
    return position


def _format(position: _Position) -> str:
    return _SEPARATOR.join(f"{each}.{sequence}" for each, sequence in sorted(position.items()))


def _invalid(since: str) -> ValidationFailed:
    message = "Value is not a position of this feed"
    return ValidationFailed({"since": {"invalid": {"message": message, "value": since}}})
