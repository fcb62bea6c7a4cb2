"""Converts the events of trails to events of the history. Standard library only.

The archiver and a reader of the document get the same events, with the same ids.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from kazoo_ips.model import addresses
from kazoo_ips.model.dedicated_ip import DedicatedIP
from kazoo_ips.model.history import (
    NOBODY,
    Author,
    HistoryEvent,
    HistoryEventKind,
    Source,
    State,
)
from kazoo_ips.model.lifecycle import Status
from kazoo_ips.model.trail import NOT_DONE, Event, EventKind, Trail, generation, original

Revisions = Mapping[int, str]
"""The known revisions of a document, by generation."""


class Snapshot(NamedTuple):
    """The state of an address at one revision of its document.

    :param state: None if the address is deleted
    :param modified: the time of the change that the document names, in Gregorian seconds
    """

    generation: int
    state: State | None
    modified: int

    def dated(self, modified: int, latest: int) -> "Snapshot":
        """Return it with the time at which it was written.

        Kazoo sets `pvt_modified`. A person who edits a document by hand does not. Then the time is
        the latest one that is possible, a few seconds after the write.

        :param modified: when the document was modified before, as it said itself
        :param latest: when the document was read, or changed again before that
        """
        if self.modified > modified or latest - self.modified < FRESH:
            return self
        return self._replace(modified=latest)


FRESH = 60
"""Seconds after which the time in an unchanged `pvt_modified` is not that of the last write. A
deletion that was found within this time has the time at which it was found."""
_STATE_UNKNOWN = frozenset({HistoryEventKind.UNKNOWN, HistoryEventKind.RETRACTED})
"""Kinds of events of the archive that do not record the state after them."""


def service_id(address: str, event: Event) -> str:
    """Return the id of an event of this service. It sorts after the ids of earlier events.

    The deletion of an assigned address is two events of one revision: a release and a deletion.

    :param address: the id of the document
    """
    event = original(event)
    order = int(event.kind == EventKind.DELETED)
    content = (address, event.kind, event.account_id, event.at, event.request_id)
    return f"{event.generation:08d}.{order}-{_digest(content)}"


def foreign_id(address: str, generation: int, order: int = 0) -> str:
    """Return the id of an event of another program.

    :param address: the id of the document
    :param generation: that of the revision which the other program wrote
    :param order: the number of the event among those of the revision, from 0
    """
    return f"{generation:08d}.{order}-{_digest((address, generation))}"


def _canonical(document_id: str) -> str:
    return addresses.canonical(document_id) or document_id


def _digest(content: Iterable[object]) -> str:
    text = "\0".join("" if value is None else str(value) for value in content)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_trail(
    ip: DedicatedIP,
    read_at: int,
    revisions: Revisions | None = None,
    last: HistoryEvent | None = None,
) -> list[HistoryEvent]:
    """Return the events of a trail, the earliest first.

    Of the writes of other programs, there are only the events that follow from the document. The
    archiver compares revisions: it may have more events, and other contents of the same ids.

    :param read_at: the time before the document was read, in Gregorian seconds
    :param last: the latest event of the address in the archive; None if it was not read. Writes of
        other programs until that event are left out
    """
    archived = generation(last.revision) if last else 0
    state: State | None = None
    events: list[HistoryEvent] = []
    for event in ip.trail:
        if event.kind == EventKind.FOUND:
            if not (event.since or archived):
                events = [*created(ip, event), *events]
            latest = min([read_at, *(e.at for e in ip.trail if e.generation > event.generation)])
            made = _of_found(ip, event, state, revisions or {}, last, latest)
            state = event.state
        elif event.kind not in NOT_DONE:
            made = of_service(ip, event, state, revisions or {})
            state = made.after
        else:
            continue
        events += [made] if made else []
    return events


def needs_archive(trail: Trail) -> bool:
    """Return whether the archive may have other events than those that follow from a trail.

    The archiver compares all revisions of other programs. The trail has only the last state before
    the next write of this service. It lacks the state before that, if the earlier event has been
    removed, and the time of an edit by hand.
    """
    return any(
        event.kind == EventKind.FOUND
        and event.generation > 1
        and (
            number == 0
            or event.generation - event.since > 1
            or event.at <= _modified_before(trail, event)
        )
        for number, event in enumerate(trail)
    )


def _modified_before(trail: Trail, found: Event) -> int:
    """Return when this service has written a document last before another program did."""
    return max((event.at for event in trail if event.generation <= found.since), default=0)


def _of_found(  # noqa: PLR0913, PLR0917 - one for each thing that is known of the write
    ip: DedicatedIP,
    found: Event,
    before: State | None,
    revisions: Revisions,
    last: HistoryEvent | None,
    latest: int,
) -> HistoryEvent | None:
    """Return the event for a state that another program has written; None if it is archived.

    :param latest: the latest time at which it can have been written
    """
    archived = generation(last.revision) if last else 0
    if archived >= found.generation:
        return None
    modified = max(_modified_before(ip.trail, found), last.at if last else 0)
    after = Snapshot(found.generation, found.state, found.at).dated(modified, latest)
    if last and archived and archived >= found.since and last.event not in _STATE_UNKNOWN:
        certain = archived == found.generation - 1 and after.modified == found.at
        return change(ip.address, last.after, after, revisions, certain=certain)
    made = of_found(ip, found._replace(at=after.modified), before, revisions)
    return replace(made, certain=False) if made and after.modified != found.at else made


def of_service(
    ip: DedicatedIP, event: Event, before: State | None, revisions: Revisions
) -> HistoryEvent:
    """Return the event of the history for an event of the trail that this service made.

    :param before: the state before it; None if it is not known
    """
    before, after = _states(ip, event, before)
    return HistoryEvent(
        id=service_id(ip.address, event),
        address=_canonical(ip.address),
        event=str(event.kind),
        at=event.at,
        account_id=event.account_id,
        before=before,
        after=after,
        by=event.by,
        request_id=event.request_id or None,
        revision=_revision(event.generation, revisions),
        reason=event.reason or None,
    )


def _states(
    ip: DedicatedIP, event: Event, known: State | None
) -> tuple[State | None, State | None]:
    """Return the states before and after an event. Most of them follow from the event itself.

    :param known: the state before it, if it follows from an earlier event
    """
    place = known or _place(ip, event)
    available = State(Status.AVAILABLE.value, None, place.zone, place.host)
    assigned = State(Status.ASSIGNED.value, event.account_id, place.zone, place.host)
    if event.origin is not None:
        was = event.origin
        zone, host = was.zone or place.zone, was.host or place.host
        known = State(was.status, was.account_id, zone, host)
    if event.kind == EventKind.CREATED:
        return None, event.state or available
    if event.kind == EventKind.ASSIGNED:
        return known or available, assigned
    if event.kind == EventKind.RELEASED:
        return known if event.origin else assigned, event.state or available
    if event.kind == EventKind.DELETED:
        return known or available, None
    return known, event.state or known


def _place(ip: DedicatedIP, event: Event) -> State:
    """Return the zone and host at an event, if the state before it is not known.

    A later event may record the zone and host before it. Otherwise they are the present ones. Such
    an event can be a deletion, after which the address was added again with another zone.

    :returns: a state that has only zone and host
    """
    for later in ip.trail:
        origin = later.origin
        if later.generation >= event.generation and origin and origin.zone and origin.host:
            return State("", None, origin.zone, origin.host)
    return State("", None, ip.zone, ip.host)


def of_found(
    ip: DedicatedIP, event: Event, before: State | None, revisions: Revisions
) -> HistoryEvent | None:
    """Return the event for a state that another program has written; None if nothing changed.

    If the service has not written the document before, the time of the write is not known. Then
    the event has the latest possible time: when the document was modified.

    :param before: the state before it; None if it is not known
    """
    after = Snapshot(event.generation, event.state, event.at)
    state = event.state or ip.state
    known = before or State(Status.AVAILABLE.value, None, state.zone, state.host)
    if not event.since:
        known = known._replace(zone=state.zone, host=state.host)
    return change(ip.address, known, after, revisions, certain=bool(event.since))


def created(ip: DedicatedIP, found: Event) -> list[HistoryEvent]:
    """Return the event of the creation of an address by another program, as a list.

    :param found: the event of the state in which this service first found the address
    :returns: empty if the trail has an event of the creation
    """
    earlier = ip.trail[: ip.trail.index(found)]
    if any(event.kind == EventKind.CREATED for event in earlier):
        return []
    place = found.state or ip.state
    made = HistoryEvent(
        id=f"{0:08d}.0-{_digest((ip.address, 'created', found.created))}",
        address=_canonical(ip.address),
        event=HistoryEventKind.CREATED,
        at=found.created,
        account_id=None,
        before=None,
        after=State(Status.AVAILABLE.value, None, place.zone, place.host),
        by=NOBODY,
        request_id=None,
        source=Source.KAZOO,
    )
    return [made]


def change(
    address: str,
    before: State | None,
    after: Snapshot,
    revisions: Revisions,
    *,
    certain: bool = True,
) -> HistoryEvent | None:
    """Return the event for a revision that another program has written; None if nothing changed.

    :param address: the id of the document
    :param before: the state before it; None if the address was not in the pool. If `certain` is
        false, None can also mean that the state is not known
    :param certain: whether the time and the states are known, and not inferred
    """
    if before == after.state:
        return None
    kind, account_id = _compared(before, after.state)
    return HistoryEvent(
        id=foreign_id(address, after.generation),
        address=_canonical(address),
        event=kind,
        at=after.modified,
        account_id=account_id,
        before=before,
        after=after.state,
        by=NOBODY,
        request_id=None,
        source=Source.KAZOO,
        certain=certain,
        revision=_revision(after.generation, revisions),
    )


def _compared(before: State | None, after: State | None) -> tuple[HistoryEventKind, str | None]:
    if after is None:
        return HistoryEventKind.DELETED, None
    owner = before.account_id if before else None
    if after.account_id and after.account_id != owner:
        return HistoryEventKind.ASSIGNED, after.account_id
    if before is None:
        return HistoryEventKind.CREATED, None
    if owner and not after.account_id:
        return HistoryEventKind.RELEASED, owner
    return _changed(before.status, after.status), None


def _changed(before: str, after: str) -> HistoryEventKind:
    """Return the kind of a change of the status by another program."""
    if before == after:
        return HistoryEventKind.CHANGED
    if after == Status.DISABLED:
        return HistoryEventKind.DISABLED
    if after == Status.RESERVED:
        return HistoryEventKind.RESERVED
    if before == Status.DISABLED:
        return HistoryEventKind.ENABLED
    if before == Status.RESERVED:
        return HistoryEventKind.RELEASED
    return HistoryEventKind.AGED if Status.AGING in {before, after} else HistoryEventKind.CHANGED


def gap(address: str, at: int, revision: str) -> HistoryEvent:
    """Return the event for a revision of another program that CouchDB does not have any more.

    :param at: the latest time at which it can have been written, in Gregorian seconds
    """
    return HistoryEvent(
        id=foreign_id(address, generation(revision)),
        address=_canonical(address),
        event=HistoryEventKind.UNKNOWN,
        at=at,
        account_id=None,
        before=None,
        after=None,
        by=NOBODY,
        request_id=None,
        source=Source.GAP,
        certain=False,
        revision=revision,
    )


def after_gap(address: str, after: Snapshot, revisions: Revisions) -> HistoryEvent:
    """Return the event for the first known state after a gap, if it is that before the gap."""
    unknown = State("", None, "", "")
    made = change(address, unknown, after, revisions, certain=False)
    assert made is not None
    return replace(made, before=None, event=HistoryEventKind.CHANGED, account_id=None)


def deletion(
    address: str, before: State | None, after: Snapshot, revisions: Revisions, *, certain: bool
) -> HistoryEvent:
    """Return the event for an address that another program has deleted.

    :param before: the state before it; None if it is not known
    """
    unknown = State("", None, "", "")
    made = change(address, unknown, after, revisions, certain=certain)
    assert made is not None
    return replace(made, before=before)


def retraction(event: HistoryEvent, at: int) -> HistoryEvent:
    """Return the retraction of an event of the archive, whose write was withdrawn.

    :param at: when the service noticed the withdrawal, in Gregorian seconds
    """
    return HistoryEvent(
        id=f"{event.id}-retracted",
        address=event.address,
        event=HistoryEventKind.RETRACTED,
        at=at,
        account_id=event.account_id,
        before=None,
        after=None,
        by=Author(command="background"),
        request_id=event.request_id,
        revision=event.revision,
        retracts=event.id,
    )


def not_done(ip: DedicatedIP | None, address: str, others: Iterable[Event]) -> list[HistoryEvent]:
    """Return the events of undone, withdrawn and dropped writes, as they were before that.

    :param ip: the dedicated IP; None if it does not exist
    :param others: the events of dropped and withdrawn revisions
    """
    known = ip or DedicatedIP(address, "", "", 0, 0)
    in_trail = [event for event in known.trail if event.kind in NOT_DONE]
    return [of_service(known, original(event), None, {}) for event in (*in_trail, *others)]


def _revision(generation: int, revisions: Revisions) -> str | None:
    return revisions.get(generation, str(generation)) if generation else None
