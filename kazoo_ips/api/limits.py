"""`/v2/accounts/{account_id}/ips/limits`: how many addresses an account may have."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response, g
from marshmallow import ValidationError, fields

from kazoo_ips.api import envelope, examples, schemas
from kazoo_ips.api.fields import Field, Name, Number
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import Conflict
from kazoo_ips.model.limits import Limits
from kazoo_ips.services.assigning.limits import LimitStatus

routes = Routes("limits", __name__, url_prefix="/v2/accounts/<account_id>/ips/limits")

_MAX = "Maximum number of addresses of the account"
_ZONES = "Maximum number of these in each of the zones"
_DESCENDANTS_MAX = "Maximum number of addresses of the account and all accounts below it"
_BY_ZONE = [{examples.ZONE: 5}]


class ZoneLimits(Field):
    """An object with a number for each zone."""

    type_name = "object"
    _name, _number = Name(), Number(least=0)

    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, in JSON Schema."""
        return {
            "type": "object",
            "propertyNames": self._name.json_schema(),
            "additionalProperties": self._number.json_schema(),
        }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, int]:
        if not isinstance(value, dict):
            raise self.wrong_type(value)
        loaded: dict[str, int] = {}
        errors = {}
        for zone, number in value.items():
            try:
                self._name.deserialize(zone)
                loaded[zone] = self._number.deserialize(number) or 0
            except ValidationError as error:
                errors[zone] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded


class LimitsSchema(schemas.RequestSchema):
    """`data` of a request that sets the limits of an account. A missing member means no limit."""

    max = Number(least=0, metadata={"description": _MAX, "examples": [10]})
    zones = ZoneLimits(metadata={"description": _ZONES, "examples": _BY_ZONE})
    descendants_max = Number(
        least=0, metadata={"description": _DESCENDANTS_MAX, "examples": [100]}
    )


class UsageSchema(ReplySchema):
    """What counts against the limits of an account."""

    total = fields.Integer(
        required=True, metadata={"description": "Addresses of the account", "examples": [7]}
    )
    zones = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "The number of these in each zone", "examples": _BY_ZONE},
    )
    descendants = fields.Integer(
        metadata={
            "description": "Addresses of the account and all accounts below it; missing if that "
            "is not limited",
            "examples": [40],
        },
    )


class LimitStatusSchema(ReplySchema):
    """The limits of an account, and what counts against them."""

    max = fields.Integer(metadata={"description": _MAX, "examples": [10]})
    zones = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": _ZONES, "examples": _BY_ZONE},
    )
    descendants_max = fields.Integer(
        metadata={"description": _DESCENDANTS_MAX, "examples": [100]},
    )
    used = fields.Nested(UsageSchema, required=True)
    exceeded_by = fields.Integer(
        required=True,
        metadata={
            "description": "Addresses above the limit that is exceeded most; 0 if none is. An "
            "assignment by Kazoo can exceed a limit",
            "examples": [0],
        },
    )


_LIMITS, _STATUS = LimitsSchema(), LimitStatusSchema()


@routes.on("GET", "", who=Who.ACCOUNT, replies=_STATUS, operation_id="get_limits")
def fetch(account_id: str) -> Response:
    """The limits of the account, and how many addresses count against them."""
    return _reply(services().limits.status(account_id))


@routes.on(
    "POST",
    "",
    who=Who.ABOVE,
    replies=_STATUS,
    body=(LimitsSchema,),
    dry_run=True,
    operation_id="set_limits",
    raises=(Conflict,),
)
def replace(account_id: str) -> Response:
    """Set the limits of the account. They replace the earlier ones.

    An account that has more addresses than a new limit permits keeps them. All processes apply new
    limits after ten seconds.
    """
    limits = load_limits(g.envelope.data(), g.envelope.other_members)
    return _reply(services().limits.set(account_id, limits, **write()))


def load_limits(data: Mapping[str, Any], other_members: Iterable[str]) -> Limits:
    """Return the limits that a request sets.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    return Limits(**schemas.load_strictly(_LIMITS, data, other_members))


def _reply(status: LimitStatus) -> Response:
    limits = status.limits
    used = {
        "total": status.used,
        "zones": status.zones,
        "descendants": status.descendants,
    }
    data = {
        "max": limits.max,
        "zones": dict(limits.zones),
        "descendants_max": limits.descendants_max,
        "used": _without_none(used),
        "exceeded_by": status.exceeded_by,
    }
    return envelope.success(_without_none(data))


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
