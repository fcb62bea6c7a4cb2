"""`/v2/accounts/{account_id}/ips/reservations`: addresses that are set aside for an account."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response, g
from marshmallow import fields

from kazoo_ips.api import bodies, envelope, examples, lists, queries, schemas
from kazoo_ips.api.fields import Number
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import (
    Conflict,
    InsufficientIPs,
    LimitReached,
    ReservationLimitReached,
    ValidationFailed,
)
from kazoo_ips.model import AllocateIPs, AssignIPs
from kazoo_ips.model.commands import ExtendReservation, ReserveIPs
from kazoo_ips.model.reservations import DEFAULT_SECONDS, MAX_SECONDS, Reservation
from kazoo_ips.services.history.times import iso_8601

routes = Routes("reservations", __name__, url_prefix="/v2/accounts/<account_id>/ips/reservations")

_ONE = "/<reservation_id>"
_COLUMNS = ["id", "ips", "created", "expires_at", "expires_at_iso_8601"]
_SECONDS = {
    "description": f"How long, in seconds; {DEFAULT_SECONDS} by default",
    "examples": [DEFAULT_SECONDS],
}


class ReserveAddressesSchema(bodies.AssignSchema):
    """`data` of a reservation of addresses that the request names."""

    seconds = Number(most=MAX_SECONDS, metadata=_SECONDS)


class ReserveQuantitySchema(bodies.AllocateSchema):
    """`data` of a reservation of a quantity of addresses, which the service chooses."""

    seconds = Number(most=MAX_SECONDS, metadata=_SECONDS)


class ExtendReservationSchema(schemas.RequestSchema):
    """`data` of a request that changes the end of a reservation."""

    seconds = Number(
        most=MAX_SECONDS,
        required=True,
        metadata={
            "description": "Seconds from now until it ends. In all it may last "
            f"{MAX_SECONDS} seconds",
            "examples": [DEFAULT_SECONDS],
        },
    )


class ReservationSchema(ReplySchema):
    """Addresses that are set aside for an account."""

    id = fields.String(
        required=True,
        metadata={
            "description": "Id of the reservation",
            "examples": [examples.RESERVATION_ID],
        },
    )
    ips = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "The addresses", "examples": [list(examples.AVAILABLE)]},
    )
    created = fields.Integer(
        required=True, metadata={"description": "When it was made, in Gregorian seconds"}
    )
    expires_at = fields.Integer(
        required=True, metadata={"description": "When it ends, in Gregorian seconds"}
    )
    expires_at_iso_8601 = fields.String(
        required=True,
        metadata={"description": "The same time", "examples": ["2026-11-30T10:00:00Z"]},
    )


class ReservationListItemSchema(ReservationSchema):
    """One line of a list of reservations."""


_ADDRESSES, _QUANTITY = ReserveAddressesSchema(), ReserveQuantitySchema()
_EXTENSION = ExtendReservationSchema()


@routes.on(
    "PUT",
    "",
    who=Who.ACCOUNT,
    replies=ReservationSchema(),
    status=201,
    body=(ReserveAddressesSchema, ReserveQuantitySchema),
    dry_run=True,
    operation_id="create_reservation",
    links=("get_reservation", "extend_reservation", "cancel_reservation"),
    raises=(Conflict, InsufficientIPs, LimitReached, ReservationLimitReached),
)
def create(account_id: str) -> Response:
    """Set addresses aside for the account, all or none.

    The body names the addresses, or a quantity of available addresses for the service to choose.
    No other account can get them until the reservation ends. They are not billed, but count
    against the limits of the account. A request that assigns addresses assigns them if its `data`
    is `{"reservation": id}`.
    """
    command = load_reservation(account_id, g.envelope.data(), g.envelope.other_members)
    return _reply(services().reservations.reserve(command, **write()), status=201)


@routes.on(
    "GET",
    "",
    who=Who.ACCOUNT,
    replies=ReservationListItemSchema(many=True),
    query=queries.ShortListSchema,
    csv=True,
    operation_id="list_reservations",
    links=("get_reservation", "extend_reservation", "cancel_reservation"),
)
def list_all(account_id: str) -> Response:
    """The open reservations of the account, the earliest first."""
    found = services().reservations.all_open(account_id)
    return lists.short(found, lambda reservation: reservation.order, _dump, _COLUMNS)


@routes.on(
    "GET",
    _ONE,
    who=Who.ACCOUNT,
    replies=ReservationSchema(),
    operation_id="get_reservation",
    links=("extend_reservation", "cancel_reservation"),
)
def fetch(account_id: str, reservation_id: str) -> Response:
    """One open reservation."""
    return _reply(services().reservations.fetch(account_id, reservation_id))


@routes.on(
    "PATCH",
    _ONE,
    who=Who.ACCOUNT,
    replies=ReservationSchema(),
    body=(ExtendReservationSchema,),
    dry_run=True,
    operation_id="extend_reservation",
    links=("get_reservation", "cancel_reservation"),
    raises=(Conflict,),
)
def extend(account_id: str, reservation_id: str) -> Response:
    """Change the end of a reservation, to a number of seconds from now."""
    seconds = load_extension(g.envelope.data(), g.envelope.other_members)
    command = ExtendReservation(account_id, reservation_id, seconds)
    return _reply(services().reservations.extend(command, **write()))


@routes.on(
    "DELETE",
    _ONE,
    who=Who.ACCOUNT,
    replies=ReservationSchema(),
    dry_run=True,
    operation_id="cancel_reservation",
    raises=(Conflict,),
)
def cancel(account_id: str, reservation_id: str) -> Response:
    """Cancel a reservation: other accounts can get its addresses. The reply is the reservation."""
    return _reply(services().reservations.cancel(account_id, reservation_id, **write()))


def load_reservation(
    account_id: str, data: Mapping[str, Any], other_members: Iterable[str]
) -> ReserveIPs:
    """Return the command to reserve addresses.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    if "ips" in data and "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    by_name = "ips" in data
    loaded = schemas.load_strictly(_ADDRESSES if by_name else _QUANTITY, data, other_members)
    seconds = loaded.pop("seconds", DEFAULT_SECONDS)
    if by_name:
        return ReserveIPs(AssignIPs(account_id, loaded["ips"]), seconds)
    return ReserveIPs(AllocateIPs(account_id, **loaded), seconds)


def load_extension(data: Mapping[str, Any], other_members: Iterable[str]) -> int:
    """Return the number of seconds from now until a reservation ends.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    return int(schemas.load_strictly(_EXTENSION, data, other_members)["seconds"])


def _reply(reservation: Reservation, status: int = 200) -> Response:
    return envelope.success(_dump(reservation), status=status)


def _dump(reservation: Reservation) -> dict[str, Any]:
    return {
        "id": reservation.id,
        "ips": list(reservation.addresses),
        "created": reservation.started,
        "expires_at": reservation.until,
        "expires_at_iso_8601": iso_8601(reservation.until),
    }
