"""Audit lines: each change of the pool, who made it, and from what to what.

The services write a line when a change is certain: CouchDB has accepted the write, and the
transaction that it belongs to is committed. A change that is undone before that has no line. The
level of the log does not suppress audit lines, and each is written at once.

The request context (`Work`) names who makes the change. `request_id` is the id of that context. If
the change finishes or repairs the work of another request, `original_request_id` is that request's
id.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from kazoo_ips.model import DedicatedIP, Status
from kazoo_ips.observability import request_context

log = logging.getLogger("kazoo_ips.audit")

MAX_ADDRESSES = 100
"""Maximum number of addresses in a line. With IPv6 addresses, and a zone and a host of usual
length, a line is shorter than the 8 KiB that syslog servers accept."""

State = Mapping[str, str]


class Change(StrEnum):
    """What happened to the addresses of a line."""

    CREATED = "created"
    ASSIGNED = "assigned"
    RELEASED = "released"
    DELETED = "deleted"
    UNDONE = "undone"
    """The assignment of a dead worker was undone. It was acknowledged to no client."""
    RESTORED = "restored"
    """All writers had withdrawn, so the document was missing. It was written again."""
    CONFLICT_RESOLVED = "conflict_resolved"
    """One of several conflicting revisions was kept."""
    COPY_WRITTEN = "copy_written"
    """The account's copy was missing or differed from the pool. It was written."""
    COPY_REMOVED = "copy_removed"
    """The account had a copy of an address that is not assigned to it. The copy was removed."""


def created(ips: Iterable[DedicatedIP], *, recovered: bool = False) -> None:
    """Write the lines for addresses that were added, one for each zone and host.

    :param recovered: whether the log may already have a line for this change, written by an
        earlier attempt or by a worker that has died since; the same in the other functions
    """
    groups: dict[tuple[str, str, str | None], list[str]] = {}
    for ip in ips:
        groups.setdefault((ip.zone, ip.host, ip.request_id), []).append(ip.address)
    for (zone, host, request_id), addresses in groups.items():
        after = {"status": Status.AVAILABLE.value, "zone": zone, "host": host}
        _write(Change.CREATED, addresses, None, after, request_id, recovered)


def deleted(ip: DedicatedIP, request_id: str | None, *, recovered: bool = False) -> None:
    """Write the line for an address that was deleted.

    :param ip: the dedicated IP before the deletion
    """
    _write(Change.DELETED, [ip.address], _place(ip), None, request_id, recovered)


def assigned(
    addresses: Sequence[str], account_id: str, request_id: str, *, recovered: bool = False
) -> None:
    """Write the lines for available addresses that were assigned to an account."""
    after = _assigned(account_id)
    _write(Change.ASSIGNED, addresses, _AVAILABLE, after, request_id, recovered)


def released(
    addresses: Sequence[str],
    account_id: str | None,
    request_id: str | None,
    *,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses of an account that were made available."""
    before = _assigned(account_id)
    _write(Change.RELEASED, addresses, before, _AVAILABLE, request_id, recovered)


def undone(addresses: Sequence[str], account_id: str, request_id: str) -> None:
    """Write the lines for assignments of an aborted transaction that were undone."""
    _write(Change.UNDONE, addresses, _assigned(account_id), _AVAILABLE, request_id)


def restored(ip: DedicatedIP) -> None:
    """Write the line for an address that was restored."""
    _write(Change.RESTORED, [ip.address], None, _place(ip), ip.request_id)


def conflict_resolved(shown: DedicatedIP, kept: DedicatedIP | None) -> None:
    """Write the line for conflicting revisions of an address.

    :param shown: the revision that CouchDB showed as the winner
    :param kept: the revision that was kept; None if the address stays deleted
    """
    before, after = _state(shown), _state(kept) if kept else None
    _write(Change.CONFLICT_RESOLVED, [shown.address], before, after, (kept or shown).request_id)


def copies_written(ips: Iterable[DedicatedIP]) -> None:
    """Write the lines for copies that a repair has written.

    :param ips: the assigned dedicated IPs of the pool
    """
    for (account_id, request_id), addresses in _by_owner(ips).items():
        _write(Change.COPY_WRITTEN, addresses, None, _assigned(account_id), request_id)


def copies_removed(copies: Iterable[DedicatedIP]) -> None:
    """Write the lines for copies that a repair has removed."""
    for (account_id, request_id), addresses in _by_owner(copies).items():
        _write(Change.COPY_REMOVED, addresses, _assigned(account_id), None, request_id)


_AVAILABLE: State = {"status": Status.AVAILABLE.value}


def _assigned(account_id: str | None) -> State:
    status = {"status": Status.ASSIGNED.value}
    return {**status, "assigned_to": account_id} if account_id else status


def _state(ip: DedicatedIP) -> State:
    status = {"status": str(ip.status)}
    return {**status, "assigned_to": ip.assigned_to} if ip.assigned_to else status


def _place(ip: DedicatedIP) -> State:
    return {**_state(ip), "zone": ip.zone, "host": ip.host}


def _by_owner(ips: Iterable[DedicatedIP]) -> dict[tuple[str | None, str | None], list[str]]:
    groups: dict[tuple[str | None, str | None], list[str]] = {}
    for ip in ips:
        groups.setdefault((ip.assigned_to, ip.request_id), []).append(ip.address)
    return groups


def _write(  # noqa: PLR0913, PLR0917 - one for each part of a line
    change: Change,
    addresses: Sequence[str],
    before: State | None,
    after: State | None,
    request_id: str | None,
    recovered: bool = False,
) -> None:
    """Write one line, or several for more than `MAX_ADDRESSES` addresses.

    :param request_id: the id of the request that the documents name
    """
    parts = range(0, len(addresses), MAX_ADDRESSES)
    for number, start in enumerate(parts, 1):
        fields: dict[str, Any] = {
            "audit": change.value,
            "addresses": list(addresses[start : start + MAX_ADDRESSES]),
            **({"part": f"{number}/{len(parts)}"} if len(parts) > 1 else {}),
            "from": before,
            "to": after,
            **_who(request_id),
            **({"recovered": True} if recovered else {}),
        }
        log.info("%s", _text(fields), extra={"fields": fields})


def _who(request_id: str | None) -> dict[str, str | None]:
    """Return the fields that say who makes the change, and in which request."""
    work = request_context.CURRENT.get()
    if work is None:
        return {"by": None, "request_id": request_id}
    who: dict[str, str | None] = {"by": work.by}
    if work.account_id:
        who |= {"account_id": work.account_id, "user_id": work.user_id}
    if work.command:
        who |= {"command": work.command, "system_user": work.system_user}
    who["request_id"] = work.request_id
    if request_id not in (None, work.request_id):
        who["original_request_id"] = request_id
    return who


def _text(fields: Mapping[str, Any]) -> str:
    """Return a line for human readers."""
    what = f"{fields['audit']} {', '.join(fields['addresses'])}"
    how = f"from {_described(fields['from'])} to {_described(fields['to'])}"
    names = ("by", "account_id", "user_id", "command", "system_user", "request_id",
             "original_request_id", "part", "recovered")  # fmt: skip
    rest = " ".join(f"{name}={fields[name]}" for name in names if fields.get(name))
    return f"{what}: {how} {rest}"


def _described(state: State | None) -> str:
    return " ".join(state.values()) if state else "nothing"
