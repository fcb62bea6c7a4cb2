"""The data of requests, converted to commands. An error lists all broken rules."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import EXCLUDE, ValidationError, validates_schema

from kazoo_ips.api import examples
from kazoo_ips.api.fields import (
    MAX_ADDRESSES,
    Address,
    Addresses,
    Field,
    Flag,
    Items,
    Name,
    Number,
    Text,
    broken,
    repeated,
)
from kazoo_ips.api.schemas import RequestSchema, load, load_strictly
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import AllocateIPs, AssignIPs, CreateIP, Login, ReleaseIPs, TransferIPs
from kazoo_ips.model.commands import AssignReserved


class CreateIPSchema(RequestSchema):
    """`data` of `PUT /v2/ips`."""

    ip = Address(required=True, metadata={"description": "IP address", "examples": examples.NEW})
    zone = Name(
        required=True, metadata={"description": "Zone of the address", "examples": [examples.ZONE]}
    )
    host = Name(
        required=True,
        metadata={
            "description": "Host of the address",
            "examples": [examples.HOST],
        },
    )


_LISTED = {"description": "List of IP addresses", "examples": [examples.ASSIGNED]}
_AVAILABLE = {**_LISTED, "examples": [examples.AVAILABLE]}
_NEW = [{"ip": ip, "zone": examples.ZONE, "host": examples.HOST} for ip in examples.NEW]


class _Object(Field):
    type_name = "object"


class CreateIPListSchema(RequestSchema):
    """`data` of `PUT /v2/ips` with a list. Each item has the form of `CreateIPSchema`."""

    ips = Items(
        required=True,
        metadata={"items": {"$ref": "#/components/schemas/CreateIP"}, "examples": [_NEW]},
    )


class AddressesSchema(RequestSchema):
    """`data` of a request that assigns or releases several addresses."""

    ips = Addresses(metadata=_LISTED)


class AssignSchema(AddressesSchema):
    """`data` of a request that assigns several addresses."""

    ips = Addresses(required=True, metadata=_AVAILABLE)


class AllocateSchema(RequestSchema):
    """`data` of an allocation: a quantity of addresses, which the service chooses."""

    quantity = Number(
        most=MAX_ADDRESSES,
        required=True,
        metadata={"description": "How many addresses", "examples": [2]},
    )
    zone = Text(
        metadata={"description": "Only addresses of this zone", "examples": [examples.ZONE]}
    )
    host = Text(metadata={"description": "Only addresses of this host"})
    distinct_hosts = Flag(metadata={"description": "Each address from another host"})
    distinct_zones = Flag(metadata={"description": "Each address from another zone"})

    @validates_schema
    def hosts_or_zones(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: the request has both distinct_hosts and distinct_zones"""
        if data.get("distinct_hosts") and data.get("distinct_zones"):
            raise ValidationError(
                broken("forbidden", "only one of distinct_hosts and distinct_zones").messages,
                "distinct_zones",
            )


class AssignReservedSchema(RequestSchema):
    """`data` of a request that assigns the addresses of a reservation."""

    reservation = Text(
        most=64,
        required=True,
        metadata={
            "description": "Id of a reservation of the account",
            "examples": [examples.RESERVATION_ID],
        },
    )


_FROM = {
    "from": Text(
        required=True,
        metadata={
            "description": "Account that has the addresses",
            "examples": [examples.ACCOUNT_ID],
        },
    )
}


class TransferSchema(RequestSchema):
    """`data` of `POST /v2/ips/transfer`."""

    class Meta:
        """`from` is a keyword in Python, so it cannot be an attribute."""

        unknown = EXCLUDE
        include = _FROM

    ips = Addresses(required=True, metadata=_LISTED)
    to = Text(
        required=True,
        metadata={
            "description": "Account that gets them",
            "examples": [examples.OTHER_ACCOUNT_ID],
        },
    )


class UserAuthSchema(RequestSchema):
    """`data` of `PUT /v2/user_auth` (`user_auth.json`)."""

    credentials = Text(
        most=64,
        required=True,
        metadata={
            "description": "Hash of `user:password`, in hex digits",
            "examples": ["d41d8cd98f00b204e9800998ecf8427e"],
        },
    )
    method = Text(one_of=("md5", "sha"), metadata={"description": "The hash; md5 by default"})
    account_name = Text(
        most=128,
        metadata={"description": "Name of the user's account", "examples": ["Alice"]},
    )
    account_realm = Text(most=253, metadata={"description": "Realm of the user's account"})
    realm = Text(most=253, metadata={"description": "The same as `account_realm`"})
    phone_number = Text(most=64, metadata={"description": "Accepted and ignored"})


class ApiAuthSchema(RequestSchema):
    """`data` of `PUT /v2/api_auth`."""

    api_key = Text(
        least=64,
        most=64,
        required=True,
        metadata={"description": "API key of the account", "examples": ["0123456789abcdef" * 4]},
    )


# Created once, because creating a schema takes longer than loading data with it.
_CREATE_IP, _CREATE_IPS = CreateIPSchema(), CreateIPListSchema()
_ADDRESSES, _ASSIGN, _ALLOCATE = AddressesSchema(), AssignSchema(), AllocateSchema()
_RESERVED, _TRANSFER = AssignReservedSchema(), TransferSchema()
_USER_AUTH, _API_AUTH = UserAuthSchema(), ApiAuthSchema()


def load_create(
    data: Mapping[str, Any], other_members: Iterable[str] = ()
) -> CreateIP | list[CreateIP]:
    """Return the command to add one address, or a list of such commands.

    :param other_members: the members of the envelope besides `data`; with a list, unknown ones
        are errors
    :raises ValidationFailed: with every broken rule; for a list, under `ips.<index>.<field>`
    """
    if "ips" not in data:
        return _create_command(load(_CREATE_IP, data))
    if "ip" in data:
        rule = {"message": "either ip or ips", "value": data["ip"]}
        raise ValidationFailed({"ip": {"forbidden": rule}})
    return load_import(data, other_members)


def load_import(data: Mapping[str, Any], other_members: Iterable[str] = ()) -> list[CreateIP]:
    """Return the commands to add the addresses of a list.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule, under `ips.<index>.<field>`
    """
    items = load_strictly(_CREATE_IPS, data, other_members)["ips"]
    commands: dict[str, CreateIP] = {}
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                errors[f"ips.{index}"] = _Object().wrong_type(item).messages_dict
                continue
            command = _create_command(load_strictly(_CREATE_IP, item, ()))
            if command.address in commands:
                raise ValidationFailed({"ip": repeated(item["ip"]).messages_dict})
            commands[command.address] = command
        except ValidationFailed as failed:
            errors |= {f"ips.{index}.{path}": rules for path, rules in failed.errors.items()}
    if errors:
        raise ValidationFailed(errors)
    return list(commands.values())


def _create_command(loaded: Mapping[str, Any]) -> CreateIP:
    return CreateIP(loaded["ip"], loaded["zone"], loaded["host"])


def load_release(account_id: str, data: Mapping[str, Any], *, replaced: bool) -> ReleaseIPs:
    """Return the command to release addresses of an account.

    :param replaced: whether the request has `replaced=true`
    :raises ValidationFailed: with every broken rule
    """
    addresses_ = load_addresses(data)
    if replaced and addresses_ is not None:
        rule = {"message": "either ips or replaced", "value": True}
        raise ValidationFailed({"replaced": {"forbidden": rule}})
    return ReleaseIPs(account_id, addresses_, replaced)


def load_addresses(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the addresses that a request names; None if it names none.

    :raises ValidationFailed: with every broken rule
    """
    addresses_: tuple[str, ...] | None = load(_ADDRESSES, data).get("ips")
    return addresses_


def load_assign(
    account_id: str, data: Mapping[str, Any], other_members: Iterable[str] = ()
) -> AssignIPs | AllocateIPs:
    """Return the command to assign addresses that the request names, or to allocate a quantity.

    :param other_members: the members of the envelope besides `data`; in an allocation, unknown
        ones are errors
    :raises ValidationFailed: with every broken rule
    """
    if "quantity" in data and "ips" not in data:
        return AllocateIPs(account_id, **load_strictly(_ALLOCATE, data, other_members))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    return AssignIPs(account_id, load(_ASSIGN, data)["ips"])


def load_reserved(
    account_id: str, data: Mapping[str, Any], other_members: Iterable[str]
) -> AssignReserved | None:
    """Return the command to assign the addresses of a reservation; None if the data names none.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    if "reservation" not in data:
        return None
    others = sorted(name for name in ("ips", "quantity") if name in data)
    if others:
        rule = {"message": f"either reservation or {others[0]}", "value": data["reservation"]}
        raise ValidationFailed({"reservation": {"forbidden": rule}})
    loaded = load_strictly(_RESERVED, data, other_members)
    return AssignReserved(account_id, loaded["reservation"])


def load_transfer(data: Mapping[str, Any], other_members: Iterable[str]) -> TransferIPs:
    """Return the command to transfer addresses.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    given = load_strictly(_TRANSFER, data, other_members)
    return TransferIPs(given["ips"], given["from"], given["to"])


def load_login(data: Mapping[str, Any]) -> Login:
    """Return the credentials of a user.

    :raises ValidationFailed: with every broken rule
    """
    given = load(_USER_AUTH, data)
    return Login(
        given["credentials"],
        given.get("method", "md5"),
        given.get("account_name"),
        given.get("account_realm") or given.get("realm"),
    )


def load_api_key(data: Mapping[str, Any]) -> str:
    """Return the API key of an account.

    :raises ValidationFailed: with every broken rule
    """
    return str(load(_API_AUTH, data)["api_key"])
