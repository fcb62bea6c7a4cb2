"""Converts the document of an event of the history to a model and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import addresses
from kazoo_ips.model.history import (
    NOBODY,
    Author,
    HistoryEvent,
    PoolLevel,
    Source,
    State,
)


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


def from_view(value: Sequence[Any]) -> HistoryEvent:
    """Return the event of a row of a view that has the fields of events.

    :param value: the fields in the order of `couch_views/lib/event_value.js`. No view has events
        that take back another one, or events of a zone
    """
    # A page has a hundred rows. So no document is made of them first.
    id_, ip, kind, at, account_id, before, after, by, request_id, source, certain, *rest = value
    revision, reason = rest
    return HistoryEvent(
        id_,
        ip or "",
        kind,
        at,
        account_id,
        _state(*before) if before else None,
        _state(*after) if after else None,
        _author(by),
        request_id,
        Source(source or Source.SERVICE),
        certain is None or bool(certain),
        revision,
        None,
        reason,
    )


def from_document(document: Mapping[str, Any]) -> HistoryEvent:
    """Return the event of a document."""
    is_of_zone = "ip" not in document
    return HistoryEvent(
        id=document["id"],
        address=document.get("ip", ""),
        event=document["event"],
        at=document["at"],
        account_id=document.get("account_id"),
        before=_state_of(document.get("before")),
        after=_state_of(document.get("after")),
        by=_author(document.get("by")),
        request_id=document.get("request_id"),
        source=Source(document.get("source") or Source.SERVICE),
        certain=bool(document.get("certain", True)),
        revision=document.get("revision"),
        retracts=document.get("retracts"),
        reason=document.get("reason"),
        level=PoolLevel(*(document[name] for name in PoolLevel._fields)) if is_of_zone else None,
    )


def _author(stored: Mapping[str, Any] | None) -> Author:
    return Author(*map(stored.get, Author._fields)) if stored else NOBODY


def _state_of(stored: Mapping[str, Any] | None) -> State | None:
    return _state(*map(stored.get, State._fields)) if stored else None


def _state(
    status: str | None, account_id: str | None, zone: str | None, host: str | None
) -> State:
    return State(status or "", account_id, zone or "", host or "")
