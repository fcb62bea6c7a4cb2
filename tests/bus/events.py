"""Events of the history for tests, and a feed of them."""

from collections.abc import Sequence
from uuid import uuid4

from kazoo_ips.errors import SinceGone
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, State

AT = 63_960_000_000
"""A time in Gregorian seconds, in 2026."""
A, B = "aa" * 16, "bb" * 16
"""Accounts."""


def state(account_id: str | None = None, zone: str = "us-east") -> State:
    """Return the state of an address: assigned to an account, or available if it is None."""
    return State("assigned" if account_id else "available", account_id, zone, "proxy.example.com")


def event(
    kind: str,
    before: State | None,
    after: State | None,
    *,
    address: str = "192.0.2.1",
    account_id: str | None = None,
    at: int = AT,
    revision: str | None = "2-abc",
) -> HistoryEvent:
    """An event."""
    return HistoryEvent(
        uuid4().hex,
        address,
        kind,
        at,
        account_id,
        before,
        after,
        Author(),
        None,
        revision=revision,
    )


def assigned(account_id: str = A, address: str = "192.0.2.1", at: int = AT) -> HistoryEvent:
    """Return the event of the assignment of an available address."""
    return event(
        HistoryEventKind.ASSIGNED,
        state(),
        state(account_id),
        address=address,
        account_id=account_id,
        at=at,
    )


class EventList:
    """A feed of events that a test adds to. A position is a number."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []
        self.deleted = 0
        """The events up to this position are deleted."""

    def history(self) -> str:
        """Its id."""
        return "events"

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        """Return the events after a position."""
        start = len(self.events) if since == "now" else int(since or "0")
        if 0 < start < self.deleted:
            raise SinceGone
        found = self.events[start : start + limit]
        return str(start + len(found)), found, start + len(found) < len(self.events)
