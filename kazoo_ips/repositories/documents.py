"""A dedicated IP's document, to a model and back (`core/kazoo_ips/src/kz_ip.erl`).

Fields that are not ours survive: a model carries the document that it was read from.
"""

from typing import TypeGuard

from kazoo_ips.couch.client import Document
from kazoo_ips.model import DedicatedIP, Status

POOL = "dedicated_ips"
"""The database of the pool."""

TYPE = "dedicated_ip"
"""`pvt_type` of a dedicated IP."""

_KNOWN = frozenset(Status)


def is_ip(document: Document | None) -> TypeGuard[Document]:
    """Whether it is the document of a dedicated IP that Kazoo has not deleted."""
    return bool(document and document.get("pvt_type") == TYPE and not document.get("pvt_deleted"))


def status_of(value: object) -> str:
    """The status that a document's `pvt_status` stands for: a `Status`, or what it says there."""
    if not isinstance(value, str) or not value:
        return Status.ASSIGNED  # what has none is nothing to give away
    return Status(value) if value in _KNOWN else value


def from_document(document: Document) -> DedicatedIP:
    """The model of a document."""
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
        source=document,
    )


def to_document(ip: DedicatedIP) -> Document:
    """The document of a model; fields that it was read with and that are not ours are kept."""
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
        "_rev": ip.revision,
    }
    optional = ("pvt_assigned_to", "pvt_request_id", "_rev")
    return {k: v for k, v in document.items() if v is not None or k not in optional}
