"""The trail of a dedicated IP: its latest events, as its document records them.

Every write that changes an address adds an event to the trail in the same document. So the event
exists if and only if the change exists. The archiver copies the events to the archive. Standard
library only.
"""

from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from kazoo_ips.model.history import NOBODY, Author, State

TRAIL_LENGTH = 16
"""Number of the latest events of which those with an Idempotency-Key are kept for later attempts.
An event that the archive does not have yet is kept in any case."""
KEY_SECONDS = 24 * 3600
"""Seconds for which the reply to a request with an Idempotency-Key is stored. The transaction
record of the request and its events in the trail are kept as long: a later attempt may need
them."""
RECENT_LENGTH = 4
"""Number of the latest events that are always kept. The service resolves conflicts and repairs the
copies of earlier owners by them."""
RECENT_SECONDS = 60
"""An event is removed only if the archive has all events until this many seconds after it. That is
longer than any request takes; the remainder is how far the clocks of two machines may differ."""


class EventKind(StrEnum):
    """What a write did to a dedicated IP."""

    CREATED = "created"
    CHANGED = "changed"
    """The zone, host, description, labels or replacement changed. The account did not."""
    ASSIGNED = "assigned"
    RELEASED = "released"
    """An assignment or a reservation has ended."""
    TRANSFERRED = "transferred"
    """Another account has it, without it being available between."""
    RESERVED = "reserved"
    """It was reserved, or its reservation was extended."""
    AGED = "aged"
    """It has begun to rest, or its rest has ended."""
    DISABLED = "disabled"
    ENABLED = "enabled"
    DELETED = "deleted"
    UNDONE = "undone"
    """An assignment that was not acknowledged was undone."""
    WITHDRAWN = "withdrawn"
    """A write without a quorum was withdrawn, and the address restored without it."""
    FOUND = "found"
    """Another program, for example Kazoo, has written the document. The service found this state
    when it read the document, and added the event with its own next write."""


NOT_DONE = frozenset({EventKind.UNDONE, EventKind.WITHDRAWN})
"""Kinds of events that stand for a change which is no longer in effect."""
_NOT_TRANSITIONS = frozenset({EventKind.WITHDRAWN, EventKind.FOUND})
"""Kinds of events that no transition of this service adds."""


ACQUISITIONS = frozenset({EventKind.ASSIGNED, EventKind.TRANSFERRED, EventKind.RESERVED})
"""Kinds of events by which an account gets an address. The service undoes them if it does not
acknowledge them."""


class Origin(NamedTuple):
    """The fields of an address before an event, so that an undo can restore them.

    They have the names of those of `DedicatedIP`, except that `account_id` is its `assigned_to`.
    Only changes and deletions record zone and host, because only after them they may be different.
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

    :param kind: the name of an `EventKind`, or of a kind that only a newer release knows
    :param account_id: the account that has the address after an assignment, a transfer or a
        reservation, or had it before a release or an undo; None for other events
    :param at: the time in Gregorian seconds
    :param generation: the generation of the revision that the write creates; 0 if an older release
        has written the event
    :param by: who made the change
    :param keyed: whether the request has an Idempotency-Key. Then a later attempt of the request
        may look for the event
    :param state: the state after it; None if it follows from the kind
    :param since: of the kind `found`: the generation of the service's last write before; 0 if the
        service had not written the document before
    :param created: of the first event, of the kind `found`: when the address was created
    :param was: of the kind `undone` or `withdrawn`: the kind of the event before that
    :param origin: the fields before it; None if they follow from the kind
    :param reason: the reason that the author has given; empty if there is none
    :param committed: whether the transaction of this write was committed before the write, so that
        the change is acknowledged
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
"""The latest events of an address, the latest one last."""


def generation(revision: str | None) -> int:
    """Return the number of writes that led to a revision; 0 for None."""
    return int(revision.split("-", maxsplit=1)[0]) if revision else 0


def latest(trail: Trail) -> Event | None:
    """Return the latest event that a transition added; None if there is none."""
    return next((event for event in reversed(trail) if event.kind not in _NOT_TRANSITIONS), None)


def latest_acquisition(trail: Trail) -> Event | None:
    """Return the event by which an account got an address.

    :returns: None if the latest event is another one. Events that disable or enable the address do
        not count
    """
    skipped = _NOT_TRANSITIONS | {EventKind.DISABLED, EventKind.ENABLED}
    events = (event for event in reversed(trail) if event.kind not in skipped)
    event = next(events, None)
    return event if event and event.kind in ACQUISITIONS else None


def undone(trail: Trail, event: Event, origin: Origin) -> Trail:
    """Return a trail in which an event has the kind `undone`, and later events fit to that.

    :param event: an event of the trail
    :param origin: the fields before the event, which the undo restores
    """

    def without_undone(later: Event) -> Event:
        """Return a later event as it would be if the undone event had never happened."""
        if later.state is None:
            return later
        state = later.state._replace(status=origin.status, account_id=origin.account_id)
        before = (event.origin or Origin("available")) if later.origin else None
        return later._replace(account_id=origin.account_id, state=state, origin=before)

    index = next(n for n, each in enumerate(trail) if each is event)
    replaced = event._replace(kind=EventKind.UNDONE, was=str(event.kind))
    return (*trail[:index], replaced, *map(without_undone, trail[index + 1 :]))


def original(event: Event) -> Event:
    """Return an event as it was before it was undone or withdrawn."""
    if event.kind not in NOT_DONE:
        return event
    return event._replace(kind=event.was or EventKind.ASSIGNED, was="")


def added(before: Trail, after: Trail) -> Trail:
    """Return the events that a write adds to a trail."""
    return tuple(event for event in after if event not in before)


def lost(trail: Trail, kept: Trail) -> Trail:
    """Return the events that a dropped revision has and the kept revision lacks.

    Events before the first one of the kept trail are left out. Both revisions may have had them
    before the conflict, and later writes remove them.

    :param trail: that of the dropped revision
    :param kept: that of the kept revision
    """
    start = kept[0].generation if kept else 0
    return tuple(e for e in trail if e not in kept and e.generation >= max(start, 1))


def rebased(trail: Trail, base: int, to: int) -> Trail:
    """Return a trail whose latest events are written on another revision than they were made for.

    :param base: the generation of the revision that the events were made for
    :param to: the generation of the revision that they are written on
    """
    shift = to - base
    return tuple(
        event._replace(generation=event.generation + shift) if event.generation > base else event
        for event in trail
    )


def shortened(trail: Trail, archived: int | None) -> Trail:
    """Return a trail without the earliest events, as far as nobody needs them any more.

    :param archived: the time up to which the archive has all events, in Gregorian seconds; None
        keeps all events, because the time is not known
    """
    if archived is None or len(trail) <= RECENT_LENGTH:
        return trail
    now = trail[-1].at
    # A clock may have been set back, on the machine that wrote the events or on this one. So no
    # event is taken as earlier than the event before it, and `archived` not as later than now.
    limit = min(archived, now) - RECENT_SECONDS
    times = list(accumulate((event.at for event in trail), max))
    for index in range(len(trail) - RECENT_LENGTH):
        event, resumable = trail[index], index >= len(trail) - TRAIL_LENGTH
        is_waiting = times[index] > limit
        is_needed = resumable and event.keyed and now - event.at < KEY_SECONDS
        if is_waiting or is_needed:
            return trail[index:]
    return trail[-RECENT_LENGTH:]
