"""Events of the history, made from the trails of documents. Standard library only.

The archive and a reader of the document make the same events, with the same ids.
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
"""The revisions of a document, by generation, as far as they are known."""


class Snapshot(NamedTuple):
    """What one revision of a document records.

    :param state: None if the address is deleted
    :param modified: when the document was modified, as it says itself, in Gregorian seconds
    """

    generation: int
    state: State | None
    modified: int


_STATE_UNKNOWN = frozenset({HistoryEventKind.UNKNOWN, HistoryEventKind.RETRACTED})
"""Kinds of events of the archive that do not say what state follows."""


def service_id(address: str, event: Event) -> str:
    """Return the id of an event that this service made. It sorts after those before it.

    The deletion of an assigned address is two events of one revision: a release and a deletion.
    """
    event = original(event)
    order = int(event.kind == EventKind.DELETED)
    content = (address, event.kind, event.account_id, event.at, event.request_id)
    return f"{event.generation:08d}.{order}-{_digest(content)}"


def foreign_id(address: str, generation: int, order: int = 0) -> str:
    """Return the id of an event that another program made with the revision of a generation."""
    return f"{generation:08d}.{order}-{_digest((address, generation))}"


def _canonical(document_id: str) -> str:
    return addresses.canonical(document_id) or document_id


def _digest(content: Iterable[object]) -> str:
    text = "\0".join("" if value is None else str(value) for value in content)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state_of(ip: DedicatedIP) -> State:
    """Return the state of a dedicated IP."""
    return State(str(ip.status), ip.assigned_to, ip.zone, ip.host)


def of_trail(
    ip: DedicatedIP, revisions: Revisions | None = None, last: HistoryEvent | None = None
) -> list[HistoryEvent]:
    """Return the events of a trail, the earliest first.

    What other programs have written is as far as the document itself shows it: the archive may
    have more events about it, and other ones of the same id.

    :param last: the latest event of the address in the archive, if it was read. What other
        programs have written until then is left out
    """
    archived = generation(last.revision) if last else 0
    state: State | None = None
    events: list[HistoryEvent] = []
    for event in ip.trail:
        if event.kind == EventKind.FOUND:
            if not (event.since or archived):
                events = [*created(ip, event), *events]
            made = _of_found(ip, event, state, revisions or {}, last)
            state = event.state
        elif event.kind not in NOT_DONE:
            made = of_service(ip, event, state, revisions or {})
            state = made.after
        else:
            continue
        events += [made] if made else []
    return events


def needs_archive(trail: Trail) -> bool:
    """Return whether the archive may have other events of a trail than the document shows.

    The archive compares all revisions of other programs. The document shows only the last state
    before a write of this service, and not the state before that if an earlier event is gone.
    """
    return any(
        event.kind == EventKind.FOUND
        and event.generation > 1
        and (number == 0 or event.generation - event.since > 1)
        for number, event in enumerate(trail)
    )


def _of_found(
    ip: DedicatedIP,
    found: Event,
    before: State | None,
    revisions: Revisions,
    last: HistoryEvent | None,
) -> HistoryEvent | None:
    """Return the event for a state that another program has written, if it is not archived."""
    archived = generation(last.revision) if last else 0
    if archived >= found.generation:
        return None
    if last and archived and archived >= found.since and last.event not in _STATE_UNKNOWN:
        after = Snapshot(found.generation, found.state, found.at)
        return change(ip.address, last.after, after, revisions, certain=False)
    return of_found(ip, found, before, revisions)


def of_service(
    ip: DedicatedIP, event: Event, before: State | None, revisions: Revisions
) -> HistoryEvent:
    """Return the event of the history for an event that this service made.

    :param before: the state before it, if it is known
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
    """Return the states before and after an event. The event itself says most of them."""
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
    """Return the zone and host at an event whose state before is not known, without the rest.

    They are those of the address, unless a later event says that it was elsewhere before. A
    deletion says so too: the address may have been added again elsewhere.
    """
    for later in ip.trail:
        origin = later.origin
        if later.generation >= event.generation and origin and origin.zone and origin.host:
            return State("", None, origin.zone, origin.host)
    return State("", None, ip.zone, ip.host)


def of_found(
    ip: DedicatedIP, event: Event, before: State | None, revisions: Revisions
) -> HistoryEvent | None:
    """Return the event for a state that another program has written, or None without a change.

    If the service has not written the document before, the state was written at an unknown time:
    at the latest when the document was modified.

    :param before: the state before it, if it is known
    """
    after = Snapshot(event.generation, event.state, event.at)
    state = event.state or state_of(ip)
    known = before or State(Status.AVAILABLE.value, None, state.zone, state.host)
    if not event.since:
        known = known._replace(zone=state.zone, host=state.host)
    return change(ip.address, known, after, revisions, certain=bool(event.since))


def created(ip: DedicatedIP, found: Event) -> list[HistoryEvent]:
    """Return the first event of an address that this service has not created with its trail.

    :param found: the state in which the service has found it first
    """
    earlier = ip.trail[: ip.trail.index(found)]
    if any(event.kind == EventKind.CREATED for event in earlier):
        return []
    place = found.state or state_of(ip)
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
    """Return the event for a revision that another program has written, or None without a change.

    :param before: the state before it; None if the address was not in the pool, or if that is not
        known and the change is not `certain`
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

    :param at: when it was written at the latest, in Gregorian seconds
    """
    generation = int(revision.split("-", maxsplit=1)[0])
    return HistoryEvent(
        id=foreign_id(address, generation),
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
    """Return the event for the first state that is known again after a gap.

    It is the same as before the gap.
    """
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
    made = change(address, before or unknown, after, revisions, certain=certain)
    assert made is not None
    return replace(made, before=before)


def retraction(event: HistoryEvent, at: int) -> HistoryEvent:
    """Return the event that takes back an event of the archive, whose write was withdrawn.

    :param at: when that was noticed, in Gregorian seconds
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
    """Return the events of writes that were undone, withdrawn or dropped, as they were before.

    :param ip: the dedicated IP, if it exists
    :param others: events of dropped and withdrawn revisions
    """
    shown = ip or DedicatedIP(address, "", "", 0, 0)
    marked = [event for event in shown.trail if event.kind in NOT_DONE]
    return [of_service(shown, original(event), None, {}) for event in (*marked, *others)]


def _revision(generation: int, revisions: Revisions) -> str | None:
    return revisions.get(generation, str(generation)) if generation else None
