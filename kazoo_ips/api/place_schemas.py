"""Zones and hosts as JSON, in requests and replies."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, fields

from kazoo_ips.api import examples
from kazoo_ips.api.address_schemas import DisabledSchema, dump_disabled, require_reason
from kazoo_ips.api.event_resources import member, optional
from kazoo_ips.api.fields import Flag, Name, Number, Text
from kazoo_ips.api.schemas import load_strictly
from kazoo_ips.api.summary_resources import AddressCountsSchema, dump_pool
from kazoo_ips.model import Scope
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState

WHEN_EMPTY = {"wait": False, "oldest": True}
"""The values of `when_empty`: whether an allocation takes addresses that still rest."""
_MOST_AGING = 366 * 86_400


class PatchHostSchema(Schema):
    """`data` of a change of a host. Settings that it leaves out do not change."""

    class Meta:
        """`load_strictly` refuses unknown fields, with Crossbar's text."""

        unknown = EXCLUDE

    enabled = Flag(
        metadata={
            "description": "`false`: drain it: none of its addresses is assigned any more. "
            "`true`: enable it again"
        }
    )
    reason = Name(
        metadata={
            "description": "The reason; required with `enabled: false`",
            "examples": ["the proxy is replaced"],
        }
    )


class PatchZoneSchema(PatchHostSchema):
    """`data` of a change of a zone. Settings that it leaves out do not change."""

    aging_seconds = Number(
        least=0,
        most=_MOST_AGING,
        metadata={
            "description": "How long an address rests after its release, before another account "
            "gets it; 0 by default",
            "examples": [604800],
        },
    )
    when_empty = Text(
        one_of=tuple(WHEN_EMPTY),
        metadata={
            "description": "What an allocation does if only addresses are left that still rest: "
            "`wait`, the default, refuses it; `oldest` takes those that have rested longest"
        },
    )
    low_percent = Number(
        least=0,
        most=90,
        metadata={
            "description": "The percentage of available addresses at which the zone is low; 0: it "
            "is never low. By default the percentage for all zones"
        },
    )


class HostSchema(AddressCountsSchema):
    """A host: how many addresses it has, and its settings."""

    host = fields.String(**member("The host", examples.HOST))
    enabled = fields.Boolean(**member("`false` if it is drained"))
    disabled = fields.Nested(DisabledSchema, **optional("Why it is drained; missing if it is not"))
    pending = fields.Integer(
        **member("Number of addresses that are still to be disabled because it is drained", 0)
    )


class ZoneSchema(AddressCountsSchema):
    """A zone: how many addresses it has, and its settings."""

    zone = fields.String(**member("The zone", examples.ZONE))
    enabled = fields.Boolean(**member("`false` if it is drained"))
    disabled = fields.Nested(DisabledSchema, **optional("Why it is drained; missing if it is not"))
    pending = fields.Integer(
        **member("Number of addresses that are still to be disabled because it is drained", 0)
    )
    aging_seconds = fields.Integer(**member("How long an address rests after its release", 0))
    when_empty = fields.String(
        **member("What an allocation does if only resting addresses are left", "wait")
    )
    low_percent = fields.Integer(
        **optional("Percentage at which it is low; missing if that for all zones applies", 10)
    )


_PATCH_HOST, _PATCH_ZONE = PatchHostSchema(), PatchZoneSchema()


def load_change(
    place: Place, data: Mapping[str, Any], other_members: Iterable[str] = ()
) -> ChangePlace:
    """Return the command to change a zone or a host.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    schema = _PATCH_HOST if place.scope is Scope.HOST else _PATCH_ZONE
    loaded = load_strictly(schema, data, other_members)
    require_reason(loaded)
    return ChangePlace(
        place,
        loaded.get("enabled"),
        loaded.get("reason", ""),
        loaded.get("aging_seconds"),
        WHEN_EMPTY.get(loaded.get("when_empty", "")),
        loaded.get("low_percent"),
    )


def dump_place(state: PlaceState) -> dict[str, Any]:
    """Return a zone or a host as JSON."""
    settings = state.settings
    dumped = {
        state.place.scope.value: state.place.name,
        **dump_pool(state.summary),
        "enabled": settings.drained is None,
        **({"disabled": dump_disabled(settings.drained)} if settings.drained else {}),
        "pending": state.pending,
    }
    if state.place.scope is Scope.ZONE:
        dumped["aging_seconds"] = settings.aging_seconds
        dumped["when_empty"] = "oldest" if settings.takes_oldest else "wait"
        if settings.low_percent is not None:
            dumped["low_percent"] = settings.low_percent
    return dumped
