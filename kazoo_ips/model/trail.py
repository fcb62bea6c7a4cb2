"""The trail of a dedicated IP: what happened to it lately, as its document records it.

Every write that changes an address adds an event to the trail of the document. So the event exists
if and only if the change does. The archive of the history takes the events from there. Standard
library only.
"""

from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from kazoo_ips.model.history import NOBODY, Author, State

TRAIL_LENGTH = 16
"""Maximum number of events that are kept only because a later attempt of a request may need them.
Events that the archive does not have yet do not count."""
KEY_SECONDS = 24 * 3600
"""Seconds that the reply to an Idempotency-Key is kept. The transaction record of such a request
and its events in the trail are kept as long, because a later attempt may need them."""
RECENT_LENGTH = 4
"""Number of events that always stay. From the latest ones, conflicts are resolved and the copies
of earlier owners are repaired."""
RECENT_SECONDS = 60
"""Seconds that every event stays, and by which the archive has to be ahead of an event that goes.
It is longer than any request takes. The clocks of two machines may differ by the rest of it."""


class EventKind(StrEnum):
    """What a write did to a dedicated IP."""

    CREATED = "created"
    CHANGED = "changed"
    """Another zone, host, description, label or replacement. Status and account are the same."""
    ASSIGNED = "assigned"
    RELEASED = "released"
    """An assignment or a reservation has ended."""
    TRANSFERRED = "transferred"
    """Another account has it, without it being available between."""
    RESERVED = "reserved"
    """It was reserved, or its reservation was extended."""
    AGED = "aged"
    """It begins to rest, or its rest has ended."""
    DISABLED = "disabled"
    ENABLED = "enabled"
    DELETED = "deleted"
    UNDONE = "undone"
    """An assignment that was not acknowledged was undone."""
    WITHDRAWN = "withdrawn"
    """A write without a quorum was withdrawn, and the address restored without it."""
    FOUND = "found"
    """Another program, for example Kazoo, has written the document. The service has found this
    state when it read the document."""


NOT_DONE = frozenset({EventKind.UNDONE, EventKind.WITHDRAWN})
"""Kinds of events that are not in effect."""
_NOTES = frozenset({EventKind.WITHDRAWN, EventKind.FOUND})
"""Kinds of events that no transition of this service adds."""


TAKES = frozenset({EventKind.ASSIGNED, EventKind.TRANSFERRED, EventKind.RESERVED})
"""Kinds of events that are undone if their write is not acknowledged."""


class Origin(NamedTuple):
    """What an address was before an event, so that an undo can restore it.

    The fields are those of `DedicatedIP`. Only an event after which the address may be elsewhere,
    a change or a deletion, has zone and host.
    """

    status: str
    account_id: str | None = None
    available_at: int | None = None
    last_assigned_to: str | None = None
    reserved_for: str | None = None
    reserved_until: int | None = None
    reservation: str | None = None
    zone: str | None = None
    host: str | None = None


class Event(NamedTuple):
    """One write, as the trail of the document records it.

    :param kind: an `EventKind`, or a kind that only a newer release knows
    :param account_id: the account that has the address after an assignment, a transfer or a
        reservation, or had it before a release or an undo; None for other events
    :param at: the time in Gregorian seconds
    :param generation: the generation of the revision that the write creates; 0 if an older release
        has written the event
    :param by: who caused it
    :param keyed: whether the request has an Idempotency-Key, so that a later attempt looks for it
    :param state: the state after it, if it does not follow from the other events
    :param since: for a state that was found, the generation of the service's last write before; 0
        if the service had not written the document before
    :param created: for a state that was found first, when the address was created
    :param was: the kind of an event that was undone or withdrawn
    :param origin: what the address was before, if it does not follow from the kind
    :param reason: why, if the author has given a reason
    :param committed: whether the release of several addresses that it belongs to was committed
        before this write, and so is acknowledged
    """

    kind: str
    account_id: str | None
    at: int
    request_id: str
    generation: int = 0
    by: Author = NOBODY
    keyed: bool = False
    state: State | None = None
    since: int = 0
    created: int = 0
    was: str = ""
    origin: Origin | None = None
    reason: str = ""
    committed: bool = False


Trail = tuple[Event, ...]


def generation(revision: str | None) -> int:
    """Return the number of writes that led to a revision; 0 for None."""
    return int(revision.split("-", maxsplit=1)[0]) if revision else 0


def latest(trail: Trail) -> Event | None:
    """Return the latest event that a transition of this service added, or None."""
    return next((event for event in reversed(trail) if event.kind not in _NOTES), None)


def latest_taking(trail: Trail) -> Event | None:
    """Return the event by which an account got an address, if nothing but a mark came after it."""
    marks = {EventKind.DISABLED, EventKind.ENABLED}
    events = (event for event in reversed(trail) if event.kind not in _NOTES | marks)
    event = next(events, None)
    return event if event and event.kind in TAKES else None


def undone(trail: Trail, event: Event, origin: Origin) -> Trail:
    """Return a trail in which an event is marked as undone.

    :param origin: what the address was before the event
    """

    def undone_in(later: Event) -> Event:
        """Return what would have been written later, if not for the event that was undone."""
        if later.state is None:
            return later
        state = later.state._replace(status=origin.status, account_id=origin.account_id)
        before = (event.origin or Origin("available")) if later.origin else None
        return later._replace(account_id=origin.account_id, state=state, origin=before)

    index = next(n for n, each in enumerate(trail) if each is event)
    mark = event._replace(kind=EventKind.UNDONE, was=str(event.kind))
    return (*trail[:index], mark, *map(undone_in, trail[index + 1 :]))


def original(event: Event) -> Event:
    """Return an event as it was before it was undone or withdrawn."""
    if event.kind not in NOT_DONE:
        return event
    return event._replace(kind=event.was or EventKind.ASSIGNED, was="")


def added(before: Trail, after: Trail) -> Trail:
    """Return the events that a write adds to a trail."""
    return tuple(event for event in after if event not in before)


def lost(trail: Trail, kept: Trail) -> Trail:
    """Return the events of a conflicting revision that the revision that is kept does not have.

    What both had before the conflict may be gone from the trail that is kept.
    """
    start = kept[0].generation if kept else 0
    return tuple(e for e in trail if e not in kept and e.generation >= max(start, 1))


def moved(trail: Trail, base: int, to: int) -> Trail:
    """Return a trail whose latest events, made for one generation, get another one.

    :param base: the generation of the revision that the transition was made from
    :param to: the generation of the revision that it is written to
    """
    shift = to - base
    return tuple(
        event._replace(generation=event.generation + shift)
        if event.generation > base and event.kind != EventKind.FOUND
        else event
        for event in trail
    )


def shortened(trail: Trail, archived: int | None) -> Trail:
    """Return a trail without the earliest events that are no longer needed.

    :param archived: the time up to which the archive has all events, in Gregorian seconds; None if
        it is not known, and then all events stay
    """
    if archived is None or len(trail) <= RECENT_LENGTH:
        return trail
    now = trail[-1].at
    # A clock may have been set back, on the machine that wrote the events or on this one. So an
    # event counts as no earlier than the events before it, and the archive as no further than now.
    limit = min(archived, now) - RECENT_SECONDS
    times = list(accumulate((event.at for event in trail), max))
    for index in range(len(trail) - RECENT_LENGTH):
        event, resumable = trail[index], index >= len(trail) - TRAIL_LENGTH
        is_waiting = times[index] > limit
        is_needed = resumable and event.keyed and now - event.at < KEY_SECONDS
        if is_waiting or is_needed:
            return trail[index:]
    return trail[-RECENT_LENGTH:]
