"""Converts the document of a dedicated IP to a model and back (`core/kazoo_ips/src/kz_ip.erl`).

The model keeps the document that it was read from, so that unknown fields survive a write.
"""

from typing import TypeGuard

from kazoo_ips.couch.client import Document
from kazoo_ips.model import DedicatedIP, Event, Status

POOL = "dedicated_ips"
"""The database of the pool."""

TYPE = "dedicated_ip"
"""`pvt_type` of a dedicated IP."""

TRAIL, TRANSACTION = "pvt_trail", "pvt_transaction"
"""Fields of pool documents that the accounts' copies do not have."""

_STATUSES = frozenset(Status)


def is_ip(document: Document | None) -> TypeGuard[Document]:
    """Whether this is the document of a dedicated IP that Kazoo has not marked as deleted."""
    return bool(document and document.get("pvt_type") == TYPE and not document.get("pvt_deleted"))


def status_of(value: object) -> str:
    """Return the status for a value of `pvt_status`: a `Status`, or the value if it is unknown."""
    if not isinstance(value, str) or not value:
        return Status.ASSIGNED  # an address without a status must not be allocated
    return Status(value) if value in _STATUSES else value


def from_document(document: Document) -> DedicatedIP:
    """Return the model of a document."""
    return DedicatedIP(
        address=document["_id"],
        zone=document.get("pvt_zone") or "",
        host=document.get("pvt_host") or "",
        status=status_of(document.get("pvt_status")),
        assigned_to=document.get("pvt_assigned_to"),
        created=document.get("pvt_created", 0),
        modified=document.get("pvt_modified", 0),
        request_id=document.get("pvt_request_id"),
        revision=document["_rev"],
        conflicted="_conflicts" in document,
        trail=_trail(document[TRAIL]) if TRAIL in document else (),
        transaction=document.get(TRANSACTION),
        source=document,
    )


def to_document(ip: DedicatedIP) -> Document:
    """Return the document of a model, with the unknown fields of the document it was read from."""
    document = {
        **{k: v for k, v in ip.source.items() if k != "_conflicts"},
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
        TRAIL: [_event(event) for event in ip.trail] or None,
        # An available address is never part of a transaction.
        TRANSACTION: None if ip.status is Status.AVAILABLE else ip.transaction,
        "_rev": ip.revision,
    }
    optional = ("pvt_assigned_to", "pvt_request_id", TRAIL, TRANSACTION, "_rev")
    return {k: v for k, v in document.items() if v is not None or k not in optional}


def _event(event: Event) -> Document:
    document = {"event": str(event.kind), "at": event.at, "request_id": event.request_id}
    return {**document, "account_id": event.account_id} if event.account_id else document


def _trail(events: object) -> tuple[Event, ...]:
    """Return the events of a document. Malformed entries, written by hand, are left out."""
    trail = []
    for event in events if isinstance(events, list) else ():
        try:
            kind, account_id = str(event["event"]), event.get("account_id")
            trail.append(Event(kind, account_id, int(event["at"]), str(event["request_id"])))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return tuple(trail)
