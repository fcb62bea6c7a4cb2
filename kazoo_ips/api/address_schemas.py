"""An address of the pool as the operator sees it and changes it, as JSON."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from marshmallow import fields

from kazoo_ips.api import examples
from kazoo_ips.api.event_resources import AT, AuthorSchema, member, optional
from kazoo_ips.api.fields import Flag, Labels, Name, Note, Text
from kazoo_ips.api.resources import DedicatedIPSchema, ReplySchema
from kazoo_ips.api.schemas import RequestSchema, load_strictly
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import (
    MAX_LABELS,
    ChangeIP,
    Changes,
    DedicatedIP,
    Disabled,
    DisableIP,
    EnableIP,
    EndRest,
    Scope,
    Status,
)
from kazoo_ips.services.history.json_objects import of_author

MAX_DESCRIPTION = 1024
"""Maximum number of characters of the description of an address."""

# Requests.


class ChangeIPSchema(RequestSchema):
    """`data` of `PATCH /v2/ips/{ip}`: the members to change (JSON Merge Patch, RFC 7396)."""

    zone = Name(metadata={"description": "Another zone", "examples": [examples.ZONE]})
    host = Name(metadata={"description": "Another host"})
    description = Note(
        least=0,
        most=MAX_DESCRIPTION,
        allow_none=True,
        metadata={"description": "A note; null removes it", "examples": ["moves in May"]},
    )
    labels = Labels(
        allow_none=True,
        metadata={
            "description": "The labels to set, or with null to remove; null removes all of them. "
            f"An address has at most {MAX_LABELS}",
            "examples": [{"carrier": "example", "ticket": None}],
        },
    )
    enabled = Flag(
        metadata={
            "description": "`false`: disable the address: no other account can get it, and an "
            "assigned address stays assigned. `true`: enable it again. The request may have no "
            "other member than `reason`"
        }
    )
    status = Text(
        one_of=(Status.AVAILABLE.value,),
        metadata={
            "description": "`available`: end the rest of an aging address before its time. The "
            "request may have no other member than `reason`"
        },
    )
    reason = Name(
        metadata={
            "description": "The reason, which the history records; required with `enabled: false` "
            "and with `status`",
            "examples": ["on a block list"],
        }
    )


_CHANGE = ChangeIPSchema()


def load_change(
    address: str, data: Mapping[str, Any], other_members: Iterable[str], if_match: tuple[str, ...]
) -> ChangeIP | DisableIP | EnableIP | EndRest:
    """Return the command to change an address.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    given = load_strictly(_CHANGE, data, other_members)
    reason = given.get("reason", "")
    if "status" in given:
        _require_alone("status", given)
        require_reason(given)
        return EndRest(address, reason, if_match)
    if "enabled" in given:
        _require_alone("enabled", given)
        require_reason(given)
        command = EnableIP if given["enabled"] else DisableIP
        return command(address, reason, if_match)
    changes = Changes(
        zone=given.get("zone"),
        host=given.get("host"),
        description=(given["description"] or "") if "description" in given else None,
        labels=given.get("labels") or {},
        clear_labels="labels" in given and given["labels"] is None,
    )
    return ChangeIP(address, changes, reason, if_match)


def _require_alone(name: str, given: Mapping[str, Any]) -> None:
    """Refuse a member together with members that another write changes.

    Each write adds one event to the history. Such a request would need two writes, and one of them
    could fail.

    :raises ValidationFailed: the request has other members than `reason`
    """
    others = sorted(given.keys() - {name, "reason"})
    if others:
        rule = {"message": f"either {name} or {others[0]}", "value": given[name]}
        raise ValidationFailed({name: {"forbidden": rule}})


def require_reason(given: Mapping[str, Any]) -> None:
    """Require the reason why something is disabled, or why a rest ends.

    :raises ValidationFailed: it is missing
    """
    needed = given.get("enabled") is False or "status" in given
    if needed and not given.get("reason"):
        required = {"message": "Field is required but missing", "value": "reason"}
        raise ValidationFailed({"reason": {"required": required}})


# Replies.


class DisabledSchema(ReplySchema):
    """Why something is disabled."""

    reason = fields.String(**member("The reason that the author has given"))
    at = fields.Integer(**member("When it was disabled, in Gregorian seconds", AT))
    by = fields.Nested(AuthorSchema, **member("Who disabled it; empty if unknown"))


class DisabledIPSchema(DisabledSchema):
    """Why an address is disabled, or will be when it is released."""

    scope = fields.String(
        **member(
            "What was disabled or drained: the address itself, its host or its zone",
            examples=[each.value for each in Scope],
        )
    )


class PoolIPSchema(DedicatedIPSchema):
    """A dedicated IP as the operator sees it, with the operator's notes."""

    last_assigned_to = fields.String(
        **optional("Account that can get it back while it is aging", examples.ACCOUNT_ID)
    )
    reserved_for = fields.String(
        **optional("Account that it is reserved for", examples.ACCOUNT_ID)
    )
    reserved_until = fields.Integer(
        **optional("When its reservation ends, in Gregorian seconds", AT)
    )
    reservation = fields.String(**optional("Id of its reservation"))
    disabled = fields.Nested(
        DisabledIPSchema,
        **optional("Why it is disabled, or will be when it is released; missing if it is not"),
    )
    description = fields.String(metadata={"description": "The operator's note"})
    labels = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": f"Labels, at most {MAX_LABELS}",
            "examples": [{"carrier": "example"}],
        },
    )


_MARKS: dict[str, tuple[str, ...]] = {
    Status.AGING: ("last_assigned_to",),
    Status.RESERVED: ("reserved_for", "reserved_until", "reservation"),
}
"""The members that only addresses of one status have."""
_POOL_IP = PoolIPSchema(exclude=["disabled", "labels", *chain.from_iterable(_MARKS.values())])


def dump_pool_ip(ip: DedicatedIP) -> dict[str, Any]:
    """Return a dedicated IP as JSON for the operator."""
    marks = {name: getattr(ip, name) for name in _MARKS.get(ip.status, ())}
    return {
        **_POOL_IP.dump_fast(ip),
        **{name: value for name, value in marks.items() if value is not None},
        **({"disabled": _dump_disabled_ip(ip.disabled)} if ip.disabled else {}),
        **({"labels": dict(ip.labels)} if ip.labels else {}),
    }


def dump_disabled(disabled: Disabled) -> dict[str, Any]:
    """Return why something is disabled as JSON."""
    return {"reason": disabled.reason, "at": disabled.at, "by": of_author(disabled.by)}


def _dump_disabled_ip(disabled: Disabled) -> dict[str, Any]:
    return {**dump_disabled(disabled), "scope": disabled.scope.value}
