"""Timelines: who had an address at a time, and which addresses an account had, by the events.

Events are ordered by time, then by the generation of the document's revision. Times are Gregorian
seconds, so several events can have the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, starmap
from typing import NamedTuple

from kazoo_ips.model import addresses
from kazoo_ips.model.history import NOBODY, Author, HistoryEvent, HistoryEventKind, State
from kazoo_ips.model.trail import generation

GONE = "deleted"
"""The status of a `Holder` at a time when the address had been deleted."""


class EventPosition(NamedTuple):
    """The position of an event in a list. A later event has a greater position.

    :param at: the time of the event in Gregorian seconds
    :param generation: the generation of the revision that the event created; 0 if it is not known
    :param id: the sort key of the address and the id of the event
    """

    at: int
    generation: int
    id: str


def position(event: HistoryEvent) -> EventPosition:
    """Return the position of an event. It is the event's key in the views of the archive."""
    return EventPosition(
        event.at, generation(event.revision), f"{_order(event.address)}-{event.id}"
    )


@lru_cache(maxsize=10_000)
def _order(address: str) -> str:
    canonical = addresses.canonical(address)
    return addresses.sort_key(canonical) if canonical else f"0{address}"


@dataclass(frozen=True, slots=True)
class ListEvents:
    """List events, the latest first. A filter that is None matches any event.

    :param address: the canonical form of the address
    :param account_id: an account that the event names, or that has the address before or after it
    :param zone: the zone of the address before or after the event
    :param since: the earliest time of an event, in Gregorian seconds
    :param until: the time, in Gregorian seconds, that all events are before
    :param limit: the maximum number of lines; None is no limit
    :param after: the position where the page before ended; None is the start
    :param paged: whether the reply may say where the next page starts
    """

    address: str | None = None
    account_id: str | None = None
    zone: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = 50
    after: EventPosition | None = None
    paged: bool = True

    @property
    def is_partial(self) -> bool:
        """Whether no view has exactly the events that match the filters.

        Each view has one of address, account and zone as its key.
        """
        chosen = (self.address, self.account_id, self.zone)
        return sum(each is not None for each in chosen) > 1

    def is_past(self, after: EventPosition | None) -> bool:
        """Return whether no event after a position, in the order of the list, can match."""
        if self.since is None:
            return False
        ends = [each for each in (self.until, after.at + 1 if after else None) if each is not None]
        return any(end <= self.since for end in ends)

    def covers(self, event: HistoryEvent) -> bool:
        """Return whether an event matches all filters, and comes after the page before."""
        states = [state for state in (event.before, event.after) if state]
        accounts = {event.account_id, *(state.account_id for state in states)}
        return (
            self.address in (None, event.address)
            and (self.account_id is None or self.account_id in accounts)
            and (self.zone is None or any(state.zone == self.zone for state in states))
            and self.is_between(event, self.after, forward=False)
        )

    def is_between(
        self, event: HistoryEvent, after: EventPosition | None, *, forward: bool
    ) -> bool:
        """Return whether an event is between the times of the filters, and after a position.

        :param forward: whether the later event comes after the earlier one; if not, "after" is
            meant in the order of the list, which has the latest event first
        """
        if self.since is not None and event.at < self.since:
            return False
        if self.until is not None and event.at >= self.until:
            return False
        if after is None:
            return True
        return position(event) > after if forward else position(event) < after


class EventPage(NamedTuple):
    """A part of a list of events.

    :param after: the position after which the next part starts; None at the end
    """

    items: tuple[HistoryEvent, ...]
    after: EventPosition | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who had an address at a time.

    :param status: the status at that time; `GONE` if the address had been deleted; None if it is
        not known, for example before the first event of the address
    :param account_id: the account that had the address; None if none had it
    :param since: when the address got this status and account, in Gregorian seconds; None if that
        is not known
    :param until: when it lost them; None if it has them still, or if that is not known
    :param certain: whether status and account are known, and not inferred
    :param by: the author of the change at `since`
    :param request_id: the request of that change; None if it is not known
    """

    address: str
    status: str | None
    account_id: str | None
    since: int | None
    until: int | None
    certain: bool
    by: Author = NOBODY
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tenure:
    """The time in which an account had an address.

    :param zone: the zone at the beginning; at the end, if the beginning is not known
    :param host: the host at the same time as `zone`
    :param since: the beginning in Gregorian seconds; None if it is not known
    :param until: the end in Gregorian seconds; None if the account has the address still
    :param certain: whether both times are known, and not inferred
    :param assigned_by: who assigned the address to the account
    :param released_by: who released it
    """

    address: str
    zone: str
    host: str
    since: int | None
    until: int | None
    certain: bool
    assigned_by: Author
    assign_request_id: str | None
    released_by: Author = NOBODY
    release_request_id: str | None = None


class TenurePage(NamedTuple):
    """A part of a list of tenures.

    :param after: the position after which the next part starts; None at the end
    """

    items: tuple[Tenure, ...]
    after: EventPosition | None = None


def holds(state: State | None, account_id: str) -> bool:
    """Return whether an account has the address in a state. In an unknown state it has not."""
    return state is not None and state.account_id == account_id


def changes_holder(event: HistoryEvent) -> bool:
    """Return whether an event changes the status or the account, or may have changed it."""
    if event.before is None or event.after is None:
        return True
    return event.before[:2] != event.after[:2]


def holder_at(address: str, time: int, timeline: Sequence[HistoryEvent]) -> Holder:
    """Return who had an address at a time.

    :param time: in Gregorian seconds
    :param timeline: events of the address, the earliest first. It has at least the latest event
        until `time` that changes the holder, the first such event after `time`, and all events
        between these two
    """
    past = [event for event in timeline if event.at <= time]
    future = timeline[len(past) :]
    end = next(filter(changes_holder, future), None)
    until = end.at if end else None
    first = next((n for n in reversed(range(len(past))) if changes_holder(past[n])), None)
    if first is None and not past:
        return _inferred(address, future[0] if future else None, until)
    chain = past[first or 0 :]
    start, last = chain[0], chain[-1]
    state = last.after
    if state is None and last.event != HistoryEventKind.DELETED:
        return _inferred(address, future[0] if future else None, until)
    # If the next event is not certain, it may have happened before `time`.
    known = [*chain, *future[:1]]
    certain = first is not None and all(event.certain for event in known)
    certain = certain and all(starmap(_agree, pairwise(known)))
    return Holder(
        address,
        state.status if state else GONE,
        state.account_id if state else None,
        start.at if first is not None else None,
        until,
        certain,
        start.by if first is not None else NOBODY,
        start.request_id if first is not None else None,
    )


def _agree(earlier: HistoryEvent, later: HistoryEvent) -> bool:
    """Return whether the state before an event is the one that the event before it has left.

    If not, there was a change between them that the history does not have.
    """
    states = [state[:2] if state else None for state in (earlier.after, later.before)]
    return states[0] == states[1]


def _inferred(address: str, after: HistoryEvent | None, until: int | None) -> Holder:
    """Return the holder at a time before all known events, from the state before the next event.

    :param after: the next event; None if there is none
    :param until: when the holder changed; None if that is not known
    """
    state = after.before if after else None
    status, account_id = state[:2] if state else (None, None)
    return Holder(address, status, account_id, None, until, certain=False)


def begins_tenure(event: HistoryEvent, account_id: str) -> bool:
    """Return whether the account has the address after an event and did not have it before."""
    return holds(event.after, account_id) and not holds(event.before, account_id)


def ends_tenure(event: HistoryEvent, account_id: str) -> bool:
    """Return whether the account does not have the address after an event, or may not have it."""
    return not holds(event.after, account_id)


def tenure(account_id: str, start: HistoryEvent | None, end: HistoryEvent | None) -> Tenure:
    """Return a tenure of an account.

    It does not name users of other accounts: `assigned_by` and `released_by` are `NOBODY`, unless
    a token of the account itself was used. At least one of `start` and `end` is given.

    :param start: the event that begins the tenure; None if the history does not have it
    :param end: the event that ends it; None if it has not ended
    """
    known = start or end
    assert known is not None
    state = start.after if start else known.before
    certain = start is not None and start.certain
    if end:
        certain = certain and end.certain and holds(end.before, account_id)
    return Tenure(
        known.address,
        state.zone if state else "",
        state.host if state else "",
        start.at if start else None,
        end.at if end else None,
        certain,
        *_own(account_id, start),
        *_own(account_id, end if end and holds(end.before, account_id) else None),
    )


def _own(account_id: str, event: HistoryEvent | None) -> tuple[Author, str | None]:
    """Return the author and the request of an event, if the author's account is this one."""
    if event and event.by.account_id == account_id and account_id in event.accounts:
        return event.by, event.request_id
    return NOBODY, None
