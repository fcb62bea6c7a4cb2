"""Converts the document of an event of the history to a model and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import addresses
from kazoo_ips.model.history import Author, HistoryEvent, PoolLevel, Source, State


def id_prefix(address: str) -> str:
    """Return the text with which the ids of all documents of an address begin.

    They sort as addresses do. An address that is none, which only Kazoo can have written, sorts
    before the others.

    :param address: in any spelling
    """
    canonical = addresses.canonical(address)
    return f"{addresses.sort_key(canonical) if canonical else f'0{address}'}-"


def to_document(event: HistoryEvent) -> Document:
    """Return the document of an event. The same event always has the same document."""
    level = event.level
    return {
        "_id": (f"pool-{level.zone}-" if level else id_prefix(event.address)) + event.id,
        "id": event.id,
        **(level._asdict() if level else {"ip": event.address}),
        "event": str(event.event),
        "at": event.at,
        "account_id": event.account_id,
        "before": event.before._asdict() if event.before else None,
        "after": event.after._asdict() if event.after else None,
        "by": {name: value for name, value in event.by._asdict().items() if value is not None},
        "request_id": event.request_id,
        "source": str(event.source),
        "certain": event.certain,
        "revision": event.revision,
        **({"retracts": event.retracts} if event.retracts else {}),
        **({"reason": event.reason} if event.reason else {}),
    }


_VIEW_FIELDS = (
    "id", "ip", "event", "at", "account_id", "before", "after", "by", "request_id", "source",
    "certain", "revision", "reason",
)  # fmt: skip
"""The fields of an event in the values of views, in their order (`couch_views/lib`). Views have no
events that take back another one."""


def from_view(value: Sequence[Any]) -> HistoryEvent:
    """Return the event of a row of a view that has the fields of events."""
    document = dict(zip(_VIEW_FIELDS, value, strict=True))
    for name in ("before", "after"):
        if document[name]:
            document[name] = dict(zip(State._fields, document[name], strict=True))
    return from_document(document)


def from_document(document: Mapping[str, Any]) -> HistoryEvent:
    """Return the event of a document."""
    by = document.get("by") or {}
    is_of_zone = "ip" not in document
    return HistoryEvent(
        id=document["id"],
        address=document.get("ip", ""),
        event=document["event"],
        at=document["at"],
        account_id=document.get("account_id"),
        before=_state(document.get("before")),
        after=_state(document.get("after")),
        by=Author(**{name: by.get(name) for name in Author._fields}),
        request_id=document.get("request_id"),
        source=Source(document.get("source") or Source.SERVICE),
        certain=bool(document.get("certain", True)),
        revision=document.get("revision"),
        retracts=document.get("retracts"),
        reason=document.get("reason"),
        level=PoolLevel(*(document[name] for name in PoolLevel._fields)) if is_of_zone else None,
    )


def _state(stored: Mapping[str, Any] | None) -> State | None:
    if not stored:
        return None
    status, account_id, zone, host = map(stored.get, State._fields)
    return State(status or "", account_id, zone or "", host or "")
