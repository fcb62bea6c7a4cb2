"""The JSON objects of events, holders and tenures, and their columns in CSV.

The history, the feed, CloudEvents, webhooks and the export show an event in this one form. What an
account may see of an event, `HistoryEvent.seen_by` decides before.

Each time is shown twice: in Gregorian seconds, as everywhere in Crossbar, and in ISO 8601. What is
not known is left out of JSON, and is an empty cell in CSV.
"""

from collections.abc import Mapping
from typing import Any

from kazoo_ips.model.history import Author, HistoryEvent, State
from kazoo_ips.model.timelines import Holder, Tenure
from kazoo_ips.services.history.times import iso_8601


def of_event(event: HistoryEvent) -> dict[str, Any]:
    """Return an event as a JSON object."""
    return _present(
        id=event.id,
        ip=event.address or None,
        event=str(event.event),
        **_time("at", event.at),
        account_id=event.account_id,
        before=_state(event.before),
        after=_state(event.after),
        by=of_author(event.by),
        request_id=event.request_id,
        source=str(event.source),
        certain=event.certain,
        revision=event.revision,
        retracts=event.retracts,
        reason=event.reason,
        **(event.level._asdict() if event.level else {}),
    )


def of_holder(holder: Holder, names: Mapping[str, str]) -> dict[str, Any]:
    """Return who had an address as a JSON object.

    :param names: the names of accounts by id
    """
    return _present(
        ip=holder.address,
        status=holder.status,
        account_id=holder.account_id,
        account_name=names.get(holder.account_id or ""),
        **_time("since", holder.since),
        **_time("until", holder.until),
        certain=holder.certain,
        by=of_author(holder.by),
        request_id=holder.request_id,
    )


def of_tenure(tenure: Tenure) -> dict[str, Any]:
    """Return a tenure as a JSON object."""
    return _present(
        ip=tenure.address,
        zone=tenure.zone,
        host=tenure.host,
        **_time("since", tenure.since),
        **_time("until", tenure.until),
        certain=tenure.certain,
        assigned_by=_own_author(tenure.assigned_by, tenure.assign_request_id),
        released_by=_own_author(tenure.released_by, tenure.release_request_id),
    )


_OWN = ("user_id", "request_id")
EVENT_COLUMNS = [
    "at", "at_iso_8601", "ip", "event", "account_id",
    *(f"{when}_{name}" for when in ("before", "after") for name in State._fields),
    *(f"by_{name}" for name in Author._fields),
    "request_id", "source", "certain", "id", "revision", "retracts", "reason",
]  # fmt: skip
HOLDER_COLUMNS = [
    "ip", "status", "account_id", "account_name", "since", "since_iso_8601", "until",
    "until_iso_8601", "certain", *(f"by_{name}" for name in Author._fields), "request_id",
]  # fmt: skip
TENURE_COLUMNS = [
    "ip", "zone", "host", "since", "since_iso_8601", "until", "until_iso_8601", "certain",
    *(f"{what}_by_{name}" for what in ("assigned", "released") for name in _OWN),
]  # fmt: skip
"""The columns of CSV. Those of a nested resource have its name before their own."""


def csv_line(content: Mapping[str, Any], columns: list[str]) -> dict[str, str]:
    """Return a JSON object as the cells of a line of CSV.

    A member that is missing is an empty cell. The values of a list are separated by spaces.
    """
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return {name: _cell(flat.get(name)) for name in columns}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _time(name: str, at: int | None) -> dict[str, Any]:
    return _present(**{name: at, f"{name}_iso_8601": None if at is None else iso_8601(at)})


def _state(state: State | None) -> dict[str, Any] | None:
    return _present(**state._asdict()) if state else None


def of_author(author: Author) -> dict[str, Any]:
    """Return who has made a change as a JSON object."""
    return _present(**author._asdict())


def _own_author(author: Author, request_id: str | None) -> dict[str, Any] | None:
    if author.account_id is None:
        return None
    return _present(account_id=author.account_id, user_id=author.user_id, request_id=request_id)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
