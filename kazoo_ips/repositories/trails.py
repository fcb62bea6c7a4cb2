"""Converts the trail of a document to events and back."""

from collections.abc import Mapping
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import Event, EventKind, Trail, generation
from kazoo_ips.model.history import NOBODY, Author, State
from kazoo_ips.model.trail import Origin


def dump_trail(trail: Trail) -> list[Document]:
    """Return the events of a trail as a document has them, without fields that are empty."""
    return [_dump(event) for event in trail]


def _dump(event: Event) -> Document:
    # Every write dumps whole trails. A loop over all optional fields takes three times as long.
    dumped: Document = {"event": str(event.kind), "at": event.at, "request_id": event.request_id}
    if event.account_id:
        dumped["account_id"] = event.account_id
    if event.generation:
        dumped["generation"] = event.generation
    if any(event.by):
        dumped["by"] = _present(event.by)
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
        "origin": event.origin and _present(event.origin),
        "reason": event.reason,
        "committed": event.committed,
    }
    return {name: value for name, value in fields.items() if value}


def _present(fields: Author | Origin) -> Document:
    named = zip(fields._fields, fields, strict=True)
    return {name: value for name, value in named if value}


def load_trail(events: object) -> Trail:
    """Return the events of a document. Malformed events, written by hand, are left out."""
    trail = []
    for event in events if isinstance(events, list) else ():
        try:
            trail.append(_load(event))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return tuple(trail)


def _load(event: Mapping[str, Any]) -> Event:
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


def found(trail: Trail, document: Document, state: State, since: int) -> Trail:
    """Return a trail with the state in which another program has left the document.

    The next write of this service keeps this event, so that it hides no change of another program.

    :param since: the generation of this service's last write; 0 if it is not known
    """
    last = trail[-1] if trail else None
    if since and last and not last.generation and _says(last, state):
        return trail  # an older release has written it, which does not store the generation
    event = Event(
        EventKind.FOUND,
        state.account_id,
        _time(document.get("pvt_modified")),
        "",
        generation(document["_rev"]),
        state=state,
        since=since,
        created=0 if since else _time(document.get("pvt_created")),
    )
    return (*trail, event)


def _time(value: object) -> int:
    return value if isinstance(value, int) else 0


def _says(event: Event, state: State) -> bool:
    """Return whether an address is in this state after an event."""
    assigned = event.account_id if event.kind == EventKind.ASSIGNED else None
    return assigned == state.account_id
