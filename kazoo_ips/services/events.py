"""The feed of events, as the operator and as an account sees it."""

from typing import Protocol

from kazoo_ips.model.history import FeedEntry, FeedPage

_BATCH = 500
"""Number of events that are read at a time, to find those of an account."""
_MAX_SCANNED = 5000
"""Maximum number of events of all accounts that one request of an account reads."""


class Feed(Protocol):
    """The feed that is read."""

    def read(self, since: str, limit: int) -> FeedPage:
        """Return the next events."""

    def wait(self, since: str, seconds: float) -> bool:
        """Wait for events, and return whether there are any after a position."""


class EventService:
    """Reads the feed of events."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def read(self, since: str, limit: int, account_id: str | None = None) -> FeedPage:
        """Return the next events.

        :param since: `0`, `now`, or a position that was returned before
        :param limit: the maximum number of events
        :param account_id: the account whose events are returned, as it may see them; None for all
            events. If an account has few of the next events, fewer than `limit` are returned even
            if more follow
        :raises SinceGone: the years of this position are deleted
        :raises ValidationFailed: `since` is no position
        """
        entries: list[FeedEntry] = []
        page, scanned = FeedPage(since, entries, True), 0
        while page.more and len(entries) < limit and scanned < _MAX_SCANNED:
            page = self._feed.read(page.since, limit if account_id is None else _BATCH)
            scanned += _BATCH
            entries += page.entries if account_id is None else seen_by(account_id, page)
        if len(entries) > limit:
            entries = entries[:limit]
            return FeedPage(entries[-1].since, entries, True)
        return FeedPage(page.since, entries, page.more)

    def wait(self, since: str, seconds: float) -> bool:
        """Wait for events of any account, and return whether there are any after a position."""
        return self._feed.wait(since, seconds)


def seen_by(account_id: str, page: FeedPage) -> list[FeedEntry]:
    """Return the events of a page that concern an account, as it may see them."""
    seen = (
        (entry.since, entry.event.seen_by(lambda each: each == account_id))
        for entry in page.entries
    )
    return [FeedEntry(since, event) for since, event in seen if event]
