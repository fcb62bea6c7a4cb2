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
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from kazoo_ips.model import Attempt, DedicatedIP, Scope, Status
from kazoo_ips.model.history import Author
from kazoo_ips.model.jobs import Job
from kazoo_ips.model.limits import Limits
from kazoo_ips.model.places import PlaceSettings
from kazoo_ips.model.stamps import StampFields
from kazoo_ips.model.webhooks import Webhook
from kazoo_ips.observability import request_context

log = logging.getLogger("kazoo_ips.audit")

MAX_ADDRESSES = 100
"""Maximum number of addresses in a line. With IPv6 addresses, and a zone and a host of usual
length, a line is shorter than the 8 KiB that syslog servers accept."""

LoggedState = Mapping[str, str]
"""The fields of an address before or after a change, as a line has them."""

NO_STATUSES: Mapping[str, str] = {}


class Change(StrEnum):
    """What happened to the addresses of a line."""

    CREATED = "created"
    ASSIGNED = "assigned"
    RELEASED = "released"
    TRANSFERRED = "transferred"
    RESERVED = "reserved"
    AGED = "aged"
    """It begins to rest, or its rest has ended."""
    DISABLED = "disabled"
    ENABLED = "enabled"
    CHANGED = "changed"
    """Another zone, host, description, label or replacement."""
    DELETED = "deleted"
    IMPORTED = "imported"
    """An import of an export has stored its document."""
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
    LIMITS_CHANGED = "limits_changed"
    """The limits of an account have changed."""
    PLACE_CHANGED = "place_changed"
    """The settings of a zone or a host have changed."""
    JOB_STARTED = "job_started"
    JOB_STOPPED = "job_stopped"
    """A client has stopped the job. It ends after the addresses that it is changing."""
    WEBHOOK_CREATED = "webhook_created"
    WEBHOOK_CHANGED = "webhook_changed"
    WEBHOOK_ROTATED = "webhook_rotated"
    """The webhook has a new secret."""
    WEBHOOK_REPLAYED = "webhook_replayed"
    """Its events since a time are delivered again."""
    WEBHOOK_DISABLED = "webhook_disabled"
    """The service has disabled it, because its receiver has replied 410."""
    WEBHOOK_DELETED = "webhook_deleted"


def created(ips: Iterable[DedicatedIP], *, recovered: bool = False) -> None:
    """Write the lines for addresses that were added, one for each zone and host.

    :param recovered: whether the log may already have a line for this change, written by an
        earlier attempt or by a worker that has died since; the same in the other functions
    """
    groups: dict[tuple[str, str, str, str | None], list[str]] = {}
    for ip in ips:
        key = (str(ip.status), ip.zone, ip.host, ip.request_id)
        groups.setdefault(key, []).append(ip.address)
    for (status, zone, host, request_id), addresses in groups.items():
        after = {"status": status, "zone": zone, "host": host}
        _write(Change.CREATED, addresses, None, after, request_id, recovered)


def imported(found: Iterable[tuple[str, str, str | None]]) -> None:
    """Write the lines for addresses that an import has stored.

    :param found: the addresses, each with its status and the account that has it
    """
    groups: dict[tuple[str, str | None], list[str]] = {}
    for address, status, account_id in found:
        groups.setdefault((status, account_id), []).append(address)
    for (status, account_id), addresses in groups.items():
        after = {"status": status, **({"assigned_to": account_id} if account_id else {})}
        _write(Change.IMPORTED, addresses, None, after, None)


def deleted(ip: DedicatedIP, request_id: str | None, *, recovered: bool = False) -> None:
    """Write the line for an address that was deleted.

    :param ip: the dedicated IP before the deletion
    """
    _write(Change.DELETED, [ip.address], _place(ip), None, request_id, recovered)


def assigned(
    addresses: Sequence[str],
    account_id: str,
    request_id: str,
    *,
    was: Mapping[str, str] = NO_STATUSES,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses that were assigned to an account.

    :param was: the status of each address before, if it was not available
    """
    after = _assigned(account_id)
    for status, group in _by_status(addresses, was):
        _write(Change.ASSIGNED, group, {"status": status}, after, request_id, recovered)


def reserved(
    addresses: Sequence[str],
    account_id: str,
    request_id: str,
    *,
    was: Mapping[str, str] = NO_STATUSES,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses that were reserved for an account, as `assigned` does."""
    after = {"status": Status.RESERVED.value, "reserved_for": account_id}
    for status, group in _by_status(addresses, was):
        _write(Change.RESERVED, group, {"status": status}, after, request_id, recovered)


def released(
    addresses: Sequence[str],
    account_id: str | None,
    request_id: str | None,
    *,
    to: Mapping[str, str] = NO_STATUSES,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses of an account that were released.

    :param to: the status of each address after it, if it is not available
    """
    before = _assigned(account_id)
    for status, group in _by_status(addresses, to):
        _write(Change.RELEASED, group, before, {"status": status}, request_id, recovered)


def changed(
    change: Change,
    before: Sequence[DedicatedIP],
    after: Sequence[DedicatedIP],
    reason: str = "",
    *,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses whose state was changed, one for each kind of change.

    :param before: the same dedicated IPs before the change
    :param reason: the reason that the author has given
    """
    groups: dict[tuple[str, str, str | None], tuple[LoggedState, LoggedState, list[str]]] = {}
    for was, ip in zip(before, after, strict=True):
        from_, to = _noted(was, ip), _noted(ip, was)
        # Disabling or enabling an assigned address keeps the request id of its assignment.
        kept = ip.request_id == was.request_id and ip.trail
        key = (str(from_), str(to), ip.trail[-1].request_id if kept else ip.request_id)
        groups.setdefault(key, (from_, to, []))[2].append(ip.address)
    for (_, _, request_id), (from_, to, addresses) in groups.items():
        _write(change, addresses, from_, to, request_id, recovered, reason)


def transferred(
    addresses: Sequence[str],
    old_id: str,
    new_id: str,
    request_id: str,
    *,
    recovered: bool = False,
) -> None:
    """Write the lines for addresses that were transferred from an account to another one."""
    before, after = _assigned(old_id), _assigned(new_id)
    _write(Change.TRANSFERRED, addresses, before, after, request_id, recovered)


def undone(
    addresses: Sequence[str],
    account_id: str,
    request_id: str,
    status: Status = Status.ASSIGNED,
    old_id: str | None = None,
) -> None:
    """Write the lines for assignments or reservations of an aborted transaction that were undone.

    :param status: the status that the transaction had written
    :param old_id: the account that has the addresses again, after a transfer
    """
    reserved = {"status": status.value, "reserved_for": account_id}
    before = reserved if status is Status.RESERVED else _assigned(account_id)
    after = _assigned(old_id) if old_id else _AVAILABLE
    _write(Change.UNDONE, addresses, before, after, request_id)


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


def webhook_changed(change: Change, webhook: Webhook) -> None:
    """Write the line for a change of a webhook, without its secrets and its custom data."""
    fields: dict[str, Any] = {
        "audit": change.value,
        "webhook_id": webhook.id,
        "webhook_account_id": webhook.account_id,
        "uri": webhook.uri.partition("?")[0],
        "hook": webhook.hook,
        "enabled": webhook.enabled,
        **_who(None),
    }
    text = (
        f"{change.value} {webhook.id} of {webhook.account_id or 'the operator'}: {fields['uri']}"
    )
    _write_text(text, fields)


def limits_changed(account_id: str, before: Limits, after: Limits, request_id: str) -> None:
    """Write the line for limits of an account that were set."""
    fields: dict[str, Any] = {
        "audit": Change.LIMITS_CHANGED.value,
        "limited_account_id": account_id,
        "from": asdict(before),
        "to": asdict(after),
        **_who(request_id),
    }
    text = f"{fields['audit']} of {account_id}: from {before} to {after}"
    _write_text(text, fields)


def place_changed(scope: Scope, name: str, before: PlaceSettings, after: PlaceSettings) -> None:
    """Write the line for settings of a zone or a host that were changed."""
    fields: dict[str, Any] = {
        "audit": Change.PLACE_CHANGED.value,
        scope.value: name,
        "from": _settings(scope, before),
        "to": _settings(scope, after),
        **_who(None),
    }
    how = f"from {fields['from']} to {fields['to']}"
    _write_text(f"{fields['audit']} {scope.value} {name}: {how}", fields)


def job_changed(change: Change, job: Job) -> None:
    """Write the line for a job that a client has started or stopped."""
    fields: dict[str, Any] = {
        "audit": change.value,
        "job_id": job.id,
        "kind": job.kind.value,
        "host": job.host,
        "to_host": job.to_host,
        "to_zone": job.to_zone,
        **_who(job.request_id),
    }
    to = " ".join(filter(None, (job.to_host, job.to_zone)))
    text = f"{change.value} {job.id}: {job.kind.value} {job.host}{' to ' if to else ''}{to}"
    _write_text(text, fields)


def _write_text(text: str, fields: Mapping[str, Any]) -> None:
    """Write a line that names no addresses: a text for human readers, and who makes the change."""
    names = ("by", "account_id", "user_id", "command", "system_user", "request_id",
             "original_request_id")  # fmt: skip
    rest = " ".join(f"{name}={fields[name]}" for name in names if fields.get(name))
    log.info("%s %s", text, rest, extra={"fields": fields})


_AVAILABLE: LoggedState = {"status": Status.AVAILABLE.value}


def _by_status(
    addresses: Iterable[str], statuses: Mapping[str, str]
) -> Iterable[tuple[str, list[str]]]:
    """Group addresses by status. Those that are not in `statuses` are available."""
    groups: dict[str, list[str]] = {}
    for address in addresses:
        status = str(statuses.get(address, Status.AVAILABLE))
        groups.setdefault(status, []).append(address)
    return groups.items()


def _assigned(account_id: str | None) -> LoggedState:
    status = {"status": Status.ASSIGNED.value}
    return {**status, "assigned_to": account_id} if account_id else status


def _state(ip: DedicatedIP) -> LoggedState:
    status = {"status": str(ip.status)}
    return {**status, "assigned_to": ip.assigned_to} if ip.assigned_to else status


def _place(ip: DedicatedIP) -> LoggedState:
    return {**_state(ip), "zone": ip.zone, "host": ip.host}


def _settings(scope: Scope, settings: PlaceSettings) -> dict[str, Any]:
    """Return the settings that the operator can change, by their names in the API."""
    mark = settings.drained
    drained = {"enabled": mark is None, **({"reason": mark.reason} if mark else {})}
    if scope is Scope.HOST:
        return drained
    return {
        **drained,
        "aging_seconds": settings.aging_seconds,
        "when_empty": "oldest" if settings.takes_oldest else "wait",
        "low_percent": settings.low_percent,
    }


def _noted(ip: DedicatedIP, other: DedicatedIP) -> LoggedState:
    """Return the place of an address, and those of its notes that differ from another state."""
    noted = dict(_place(ip))
    if ip.description != other.description:
        noted["description"] = ip.description or ""
    if ip.labels != other.labels:
        noted["labels"] = ", ".join(f"{key}:{value}" for key, value in ip.labels)
    if ip.replaced_by != other.replaced_by:
        noted["replaced_by"] = ip.replaced_by or ""
    if ip.reserved_until and other.reserved_until and ip.reserved_until != other.reserved_until:
        noted["reserved_until"] = str(ip.reserved_until)
    return noted


def _by_owner(ips: Iterable[DedicatedIP]) -> dict[tuple[str | None, str | None], list[str]]:
    groups: dict[tuple[str | None, str | None], list[str]] = {}
    for ip in ips:
        groups.setdefault((ip.assigned_to, ip.request_id), []).append(ip.address)
    return groups


def _write(  # noqa: PLR0913, PLR0917 - one for each part of a line
    change: Change,
    addresses: Sequence[str],
    before: LoggedState | None,
    after: LoggedState | None,
    request_id: str | None,
    recovered: bool = False,
    reason: str = "",
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
            **({"reason": reason} if reason else {}),
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


def author() -> Author:
    """Return the author of the current work, for the history."""
    work = request_context.CURRENT.get()
    if work is None:
        return Author()
    command = work.command or (work.by if work.by == "background" else "")
    return Author(work.account_id, work.user_id, command or None, work.system_user or None)


def stamp(at: int, request_id: str, attempt: Attempt | None = None) -> StampFields:
    """Return the stamp of a change by the current work: its time, request and author.

    :param at: the time in Gregorian seconds
    :param attempt: the attempt of a request with an Idempotency-Key
    """
    keyed = attempt is not None
    return {"at": at, "request_id": request_id, "by": author(), "keyed": keyed}


def _text(fields: Mapping[str, Any]) -> str:
    """Return a line for human readers."""
    what = f"{fields['audit']} {', '.join(fields['addresses'])}"
    how = f"from {_described(fields['from'])} to {_described(fields['to'])}"
    names = ("by", "account_id", "user_id", "command", "system_user", "request_id",
             "original_request_id", "part", "recovered", "reason")  # fmt: skip
    rest = " ".join(f"{name}={fields[name]}" for name in names if fields.get(name))
    return f"{what}: {how} {rest}"


def _described(state: LoggedState | None) -> str:
    return " ".join(state.values()) if state else "nothing"
