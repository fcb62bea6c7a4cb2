"""Converts the document of a dedicated IP to a model and back (`core/kazoo_ips/src/kz_ip.erl`).

The model keeps the document that it was read from, so that unknown fields survive a write.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from kazoo_ips.couch.client import Document
from kazoo_ips.model import (
    DedicatedIP,
    Disabled,
    Event,
    EventKind,
    Labels,
    Scope,
    Status,
    Trail,
    generation,
)
from kazoo_ips.model.changes import Replacement
from kazoo_ips.model.history import NOBODY, Author, State
from kazoo_ips.model.lifecycle import STATUSES
from kazoo_ips.model.recorded_ip import NO_REST_OR_RESERVATION
from kazoo_ips.model.trail import Origin, shortened

POOL = "dedicated_ips"
"""The database of the pool."""

TYPE = "dedicated_ip"
"""`pvt_type` of a dedicated IP."""

TRAIL, TRANSACTION = "pvt_trail", "pvt_transaction"
WRITTEN = "pvt_written_generation"
"""The generation of the revision that this service has written last. Other programs keep the
field. So a revision of a later generation is theirs."""
DISABLED = "pvt_disabled"
_REST_AND_RESERVATION = {name: f"pvt_{name}" for name in NO_REST_OR_RESERVATION}
"""The fields of a rest and of a reservation, by their names in the model."""
_STATES = frozenset({*_REST_AND_RESERVATION.values(), DISABLED})
REPLACED, DESCRIPTION, LABELS = "pvt_replaced_by", "description", "labels"
_NOTES = frozenset({REPLACED, DESCRIPTION, LABELS})
"""What the operator notes. Description and labels are public fields in Kazoo, which keeps them."""
_NOT_COPIED = frozenset(
    {"_conflicts", "_rev", "_attachments", TRAIL, TRANSACTION, WRITTEN, *_STATES, *_NOTES}
)
"""Fields of pool documents that the accounts' copies do not have."""
_OPTIONAL = frozenset(
    {"pvt_assigned_to", "pvt_request_id", TRAIL, TRANSACTION, "_rev", *_STATES, *_NOTES}
)
"""Fields that a document does not have if they are None."""
_NOBODYS = frozenset({Status.AGING, Status.RESERVED, Status.DISABLED})
"""Statuses with which no account has an address, whatever `pvt_assigned_to` is."""
_SCOPES = frozenset(Scope)


def is_ip(document: Document | None) -> TypeGuard[Document]:
    """Whether this is the document of a dedicated IP that Kazoo has not marked as deleted."""
    return bool(document and document.get("pvt_type") == TYPE and not document.get("pvt_deleted"))


def status_of(value: object) -> str:
    """Return the status for a value of `pvt_status`: a `Status`, or the value if it is unknown."""
    if not isinstance(value, str) or not value:
        return Status.ASSIGNED  # an address without a status must not be allocated
    return STATUSES.get(value, value)


def name_of(value: object) -> str:
    """Return the name of a zone or host: the value of its field, as text if it is of another type.

    Only a client that writes to the database itself can make it a number, for example.
    """
    return value if isinstance(value, str) else "" if value is None else str(value)


def owner_of(value: object) -> str | None:
    """Return the account of an address: the value of its field, or None if it is not text."""
    return value if isinstance(value, str) else None


def description_of(value: object) -> str | None:
    """Return the description of an address: the value of its field, or None if it is not text."""
    return value if isinstance(value, str) and value else None


def labels_of(value: object) -> Labels:
    """Return the labels of an address. What another program has written otherwise is left out."""
    found = value.items() if isinstance(value, Mapping) else ()
    return tuple(sorted((str(k), v) for k, v in found if isinstance(v, str)))


def from_document(document: Document) -> DedicatedIP:
    """Return the model of a document."""
    status = status_of(document.get("pvt_status"))
    return DedicatedIP(
        address=document["_id"],
        zone=name_of(document.get("pvt_zone")),
        host=name_of(document.get("pvt_host")),
        status=status,
        assigned_to=None if status in _NOBODYS else owner_of(document.get("pvt_assigned_to")),
        created=document.get("pvt_created", 0),
        modified=document.get("pvt_modified", 0),
        request_id=document.get("pvt_request_id"),
        revision=document["_rev"],
        conflicted="_conflicts" in document,
        description=description_of(document.get(DESCRIPTION)),
        labels=labels_of(document.get(LABELS)),
        replacement=_replacement(document.get(REPLACED)),
        trail=_trail(document),
        transaction=document.get(TRANSACTION),
        source=document,
        available_at=_time(document.get("pvt_available_at")),
        last_assigned_to=owner_of(document.get("pvt_last_assigned_to")),
        reserved_for=owner_of(document.get("pvt_reserved_for")),
        reserved_until=_time(document.get("pvt_reserved_until")),
        reservation=owner_of(document.get("pvt_reservation")),
        disabled=_disabled(document.get(DISABLED)),
    )


def to_document(
    ip: DedicatedIP, archived: int | None = None, transaction: str | None = None
) -> Document:
    """Return the document of a model, with the unknown fields of the document it was read from.

    It is to be written on the revision of the model.

    :param archived: the time up to which the archive has all events, in Gregorian seconds, so that
        the trail is shortened; None keeps the whole trail
    :param transaction: the transaction that writes it; by default that of the model
    """
    trail, written = shortened(ip.trail, archived), generation(ip.revision) + 1
    if ip.revision is None and trail:
        # The document may follow the tombstone of an earlier one. The event of its creation has
        # the generation of the revision that the write creates.
        written = trail[-1].generation
    return _present(
        {
            **{k: v for k, v in ip.source.items() if k != "_conflicts"},
            **_fields(ip),
            **{field: getattr(ip, name) for name, field in _REST_AND_RESERVATION.items()},
            DISABLED: dump_disabled(ip.disabled) if ip.disabled else None,
            **_notes(ip),
            TRAIL: dump_trail(trail) or None,
            WRITTEN: written,
            # An available address is never part of a transaction.
            TRANSACTION: None if ip.status is Status.AVAILABLE else transaction or ip.transaction,
            "_rev": ip.revision,
        }
    )


def _replacement(value: object) -> Replacement | None:
    if not isinstance(value, Mapping):
        return None
    address, account_id = value.get("address"), value.get("account_id")
    if isinstance(address, str) and isinstance(account_id, str):
        return Replacement(address, account_id)
    return None


def _notes(ip: DedicatedIP) -> Document:
    """Return the fields of the notes that differ from the document that the model was read from.

    What another program has written there in another form survives other writes. A replacement
    ends with the assignment.
    """
    notes: Document = {
        REPLACED: ip.replacement._asdict() if ip.replacement and ip.replaced_by else None
    }
    if ip.description != description_of(ip.source.get(DESCRIPTION)):
        notes[DESCRIPTION] = ip.description
    if ip.labels != labels_of(ip.source.get(LABELS)):
        notes[LABELS] = dict(ip.labels) or None
    return notes


def _time(value: object) -> int | None:
    return value if isinstance(value, int) else None


def dump_disabled(disabled: Disabled) -> Document:
    """Return why an address, a host or a zone is disabled, as a document has it."""
    by = {name: value for name, value in disabled.by._asdict().items() if value}
    return {
        "reason": disabled.reason,
        "at": disabled.at,
        "by": by,
        "scope": disabled.scope.value,
    }


def _disabled(stored: object) -> Disabled | None:
    """Return why an address is disabled. A field that a person has written may lack members."""
    if not stored:
        return None
    return load_disabled(stored if isinstance(stored, Mapping) else {"reason": str(stored)})


def load_disabled(stored: Mapping[str, Any]) -> Disabled:
    """Return why an address, a host or a zone is disabled."""
    by = stored.get("by")
    known = by if isinstance(by, Mapping) else {}
    scope = str(stored.get("scope"))
    return Disabled(
        str(stored.get("reason", "")),
        _time(stored.get("at")) or 0,
        Author(**{name: known.get(name) for name in Author._fields}),
        Scope(scope) if scope in _SCOPES else Scope.IP,
    )


def to_copy(ip: DedicatedIP) -> Document:
    """Return the account's copy of a dedicated IP, as a new document."""
    kept = {k: v for k, v in ip.source.items() if k not in _NOT_COPIED}
    return _present({**kept, **_fields(ip)})


def _fields(ip: DedicatedIP) -> Document:
    """Return the fields that the pool document and the account's copy have in common."""
    return {
        "_id": ip.address,
        "pvt_vsn": ip.source.get("pvt_vsn", "1"),
        "pvt_type": TYPE,
        "pvt_status": str(ip.status),
        "pvt_zone": ip.zone,
        "pvt_host": ip.host,
        "pvt_created": ip.created,
        "pvt_modified": ip.modified,
        "pvt_assigned_to": ip.assigned_to,
        "pvt_request_id": ip.request_id,
    }


def _present(document: Document) -> Document:
    return {k: v for k, v in document.items() if v is not None or k not in _OPTIONAL}


def state_of(document: Mapping[str, Any]) -> State:
    """Return the state that a document records."""
    status = status_of(document.get("pvt_status"))
    return State(
        str(status),
        None if status in _NOBODYS else document.get("pvt_assigned_to"),
        document.get("pvt_zone") or "",
        document.get("pvt_host") or "",
    )


# The trail.


def _trail(document: Document) -> Trail:
    """Return the trail of a document, with what other programs have changed since as an event."""
    trail = load_trail(document.get(TRAIL))
    if document.get("_deleted") or not is_ip(document):
        return trail
    written, latest = document.get(WRITTEN), generation(document["_rev"])
    if not isinstance(written, int):
        written = 0
    if written >= latest:
        return trail
    return _found(trail, document, latest, written)


def dump_trail(trail: Trail) -> list[Document]:
    """Return the events of a trail as a document has them, without fields that are empty."""
    return [_dump_event(event) for event in trail]


def _dump_event(event: Event) -> Document:
    # Every write dumps whole trails. A loop over all optional fields takes three times as long.
    dumped: Document = {"event": str(event.kind), "at": event.at, "request_id": event.request_id}
    if event.account_id:
        dumped["account_id"] = event.account_id
    if event.generation:
        dumped["generation"] = event.generation
    if any(event.by):
        dumped["by"] = _named(event.by)
    if any(event[6:]):  # seldom
        dumped |= _dump_rare(event)
    return dumped


def _dump_rare(event: Event) -> Document:
    fields = {
        "keyed": event.keyed,
        "state": event.state and event.state._asdict(),
        "since": event.since,
        "created": event.created,
        "was": event.was,
        "origin": event.origin and _named(event.origin),
        "reason": event.reason,
        "committed": event.committed,
    }
    return {name: value for name, value in fields.items() if value}


def _named(fields: Author | Origin) -> Document:
    named = zip(fields._fields, fields, strict=True)
    return {name: value for name, value in named if value}


def load_trail(events: object) -> Trail:
    """Return the events of a document. Malformed events, written by hand, are left out."""
    trail = []
    for event in events if isinstance(events, list) else ():
        try:
            trail.append(_load_event(event))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return tuple(trail)


def _load_event(event: Mapping[str, Any]) -> Event:
    by, state, origin = event.get("by"), event.get("state"), event.get("origin")
    find = event.get
    return Event(
        str(event["event"]),
        find("account_id"),
        int(event["at"]),
        str(event["request_id"]),
        int(find("generation", 0)),
        Author(*map(by.get, Author._fields)) if by else NOBODY,
        bool(find("keyed")),
        State(*[state[name] for name in State._fields]) if state else None,
        int(find("since", 0)),
        int(find("created", 0)),
        str(find("was", "")),
        Origin(*map(origin.get, Origin._fields)) if origin else None,
        str(find("reason", "")),
        bool(find("committed")),
    )


def _found(trail: Trail, document: Document, latest: int, since: int) -> Trail:
    """Return a trail with the state in which another program has left the document.

    The next write of this service keeps this event, so that it hides no change of another program.

    :param latest: the generation of the document
    :param since: the generation of this service's last write; 0 if it is not known
    """
    state, last = state_of(document), trail[-1] if trail else None
    if since and last and not last.generation and _says(last, state):
        return trail  # an older release has written it, which does not store the generation
    event = Event(
        EventKind.FOUND,
        state.account_id,
        _time(document.get("pvt_modified")) or 0,
        "",
        latest,
        state=state,
        since=since,
        created=0 if since else _time(document.get("pvt_created")) or 0,
    )
    return (*trail, event)


def _says(event: Event, state: State) -> bool:
    """Return whether an address is in this state after an event."""
    assigned = event.account_id if event.kind == EventKind.ASSIGNED else None
    return assigned == state.account_id
