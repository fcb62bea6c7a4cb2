"""Checks the archive of the history after a run.

Each acknowledged change has exactly one event, and no change that was refused, withdrawn or undone
has one. The events of an address follow from each other, and the last one leads to its document.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kazoo_ips.model.history import HistoryEvent, State
from kazoo_ips.repositories.history_documents import from_document
from tests.simulation.history import Call, is_final
from tests.simulation.plan import Allocate, Cancel, Confirm, Reserve
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Move,
    Release,
    ReleaseAll,
    ReleaseMany,
    Transfer,
)

Document = Mapping[str, Any]

_KINDS: dict[type[Command], str] = {
    Allocate: "assigned",
    Assign: "assigned",
    AssignMany: "assigned",
    Cancel: "released",
    Confirm: "assigned",
    Create: "created",
    Delete: "deleted",
    Move: "changed",
    Release: "released",
    ReleaseAll: "released",
    ReleaseMany: "released",
    Reserve: "reserved",
    Transfer: "transferred",
}


def request_id(call: Call) -> str:
    """Return the id that all requests of a call have."""
    return f"call-{call.number}"


def effective(documents: Iterable[Document]) -> list[HistoryEvent]:
    """Return the events of an archive that are in effect, those of each address in order."""
    events = [from_document(d) for d in documents if not d["_id"].startswith("_")]
    retracted = {event.retracts for event in events}
    found = [e for e in events if e.id not in retracted and not e.retracts]
    return sorted(found, key=lambda event: (event.address, event.id))


def violations(
    documents: Iterable[Document], calls: Iterable[Call], pool: Mapping[str, Document]
) -> list[str]:
    """Return what is wrong with an archive.

    :param documents: the documents of the archive
    :param pool: the documents of the pool
    """
    events = effective(documents)
    found = list(broken_chains(events, pool))
    by_request: dict[str | None, list[HistoryEvent]] = {}
    for event in events:
        by_request.setdefault(event.request_id, []).append(event)
    last = {id(listed[-1]) for listed in _by_address(events).values()}
    for call in calls:
        of_call = by_request.get(request_id(call), [])
        if not call.reply.status < 300:
            # Another client may have read a refused release, and based its write on it.
            of_call = [event for event in of_call if id(event) in last]
        found += _of_call(call, of_call)
    return found


def broken_chains(events: Iterable[HistoryEvent], pool: Mapping[str, Document]) -> Iterator[str]:
    """Yield where the events of an address do not follow from each other, or not lead to its
    document.

    :param events: those in effect, those of each address in order
    :param pool: the documents of the pool, by id
    """
    by_address = _by_address(events)
    for address in sorted(by_address.keys() | {i for i in pool if i[0] != "_"}):
        yield from _broken(address, by_address.get(address, []), pool.get(address))


def _by_address(events: Iterable[HistoryEvent]) -> dict[str, list[HistoryEvent]]:
    found: dict[str, list[HistoryEvent]] = {}
    for event in events:
        found.setdefault(event.address, []).append(event)
    return found


def _broken(
    address: str, events: Sequence[HistoryEvent], document: Document | None
) -> Iterator[str]:
    state: State | None = None
    for event in events:
        if event.before != state:
            yield f"history of {address}: {state} before {_shown(event)}"
        state = event.after
    end = (
        State(
            document["pvt_status"],
            document.get("pvt_assigned_to"),
            document["pvt_zone"],
            document["pvt_host"],
        )
        if document
        else None
    )
    if state != end:
        yield f"history of {address}: ends with {state}, the pool has {end}"


def _of_call(call: Call, events: Sequence[HistoryEvent]) -> Iterator[str]:
    kind = _KINDS.get(type(call.command))
    if kind is None or not is_final(call.reply):
        return
    counted = Counter((event.event, event.address) for event in events)
    done = call.reply.status < 300
    expected = {(kind, address) for address in _addresses(call.reply.data)} if done else set()
    found = {each for each in counted if each[0] == kind}
    if isinstance(call.command, Move) and not found:
        return  # the pool had the address before
    if isinstance(call.command, Cancel):  # some of its addresses may have been deleted
        expected &= found
    if found != expected or any(counted[each] != 1 for each in expected):
        shown = ", ".join(map(_shown, events)) or "no event"
        yield f"history of call {call}: {shown}"


def _addresses(data: Any) -> list[str]:
    listed = data.get("ips", [data])
    return [each if isinstance(each, str) else each["ip"] for each in listed]


def _shown(event: HistoryEvent) -> str:
    return f"{event.event} {event.address} {event.revision} by {event.request_id}"
