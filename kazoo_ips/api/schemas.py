"""Convert `data` and the query to commands. An error lists all broken rules."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

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
    StartKey,
    Text,
    broken,
    repeated,
)
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import AllocateIPs, AssignIPs, CreateIP, ListIPs, Login

MAX_PAGE = 1000
PAGE = 50


class _Request(Schema):
    class Meta:
        """Unknown fields are ignored, as in Crossbar."""

        unknown = EXCLUDE


class CreateIPSchema(_Request):
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


class CreateIPListSchema(_Request):
    """`data` of `PUT /v2/ips` with a list. Each item has the form of `CreateIPSchema`."""

    ips = Items(
        required=True,
        metadata={"items": {"$ref": "#/components/schemas/CreateIP"}, "examples": [_NEW]},
    )


class AddressesSchema(_Request):
    """`data` of a request that assigns or releases several addresses."""

    ips = Addresses(metadata=_LISTED)


class AssignSchema(AddressesSchema):
    """`data` of a request that assigns several addresses."""

    ips = Addresses(required=True, metadata=_AVAILABLE)


class AllocateSchema(_Request):
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


class DeleteSchema(_Request):
    """The query of a delete."""

    force = Flag(
        metadata={
            "description": "Release the address first if it is assigned; delete it in any status"
        }
    )


class DryRunSchema(_Request):
    """The parameter `dry_run` of a write."""

    dry_run = Flag(
        required=True,
        metadata={"description": "Return the reply that the write would get, and write nothing"},
    )


class UserAuthSchema(_Request):
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


class ApiAuthSchema(_Request):
    """`data` of `PUT /v2/api_auth`."""

    api_key = Text(
        least=64,
        most=64,
        required=True,
        metadata={"description": "API key of the account", "examples": ["0123456789abcdef" * 4]},
    )


class ListSchema(_Request):
    """The query of a list."""

    zone = Text(
        least=0,
        metadata={"description": "Only addresses of this zone", "examples": [examples.ZONE]},
    )
    host = Text(least=0, metadata={"description": "Only addresses of this host"})
    quantity = Number(
        metadata={"description": "Number of addresses, from the first; without pages"}
    )
    page_size = Number(
        most=MAX_PAGE, metadata={"description": f"Addresses on each page; {PAGE} by default"}
    )
    start_key = StartKey(metadata={"description": "The `next_start_key` of the previous page"})
    paginate = Flag(metadata={"description": "`false`: the whole list in one reply"})


# Created once, because creating a schema takes longer than loading data with it.
_CREATE_IP, _CREATE_IPS, _DELETE = CreateIPSchema(), CreateIPListSchema(), DeleteSchema()
_ADDRESSES, _ASSIGN, _ALLOCATE = AddressesSchema(), AssignSchema(), AllocateSchema()
_USER_AUTH, _API_AUTH, _LIST = UserAuthSchema(), ApiAuthSchema(), ListSchema()
_DRY_RUN = DryRunSchema()


def load_create(data: Mapping[str, Any]) -> CreateIP | list[CreateIP]:
    """Return the command to add one address, or a list of such commands.

    :raises ValidationFailed: with every broken rule; for a list, under `ips.<index>.<field>`
    """
    if "ips" not in data:
        return _create(data)
    if "ip" in data:
        rule = {"message": "either ip or ips", "value": data["ip"]}
        raise ValidationFailed({"ip": {"forbidden": rule}})
    items = _load(_CREATE_IPS, data)["ips"]
    commands: dict[str, CreateIP] = {}
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                errors[f"ips.{index}"] = _Object().wrong_type(item).messages_dict
                continue
            command = _create(item)
            if command.address in commands:
                raise ValidationFailed({"ip": repeated(item["ip"]).messages_dict})
            commands[command.address] = command
        except ValidationFailed as failed:
            errors |= {f"ips.{index}.{path}": rules for path, rules in failed.errors.items()}
    if errors:
        raise ValidationFailed(errors)
    return list(commands.values())


def _create(data: Mapping[str, Any]) -> CreateIP:
    fields_ = _load(_CREATE_IP, data)
    return CreateIP(fields_["ip"], fields_["zone"], fields_["host"])


def load_addresses(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the addresses that a request names; None if it names none.

    :raises ValidationFailed: with every broken rule
    """
    addresses_: tuple[str, ...] | None = _load(_ADDRESSES, data).get("ips")
    return addresses_


def load_assign(account_id: str, data: Mapping[str, Any]) -> AssignIPs | AllocateIPs:
    """Return the command to assign addresses that the request names, or to allocate a quantity.

    :raises ValidationFailed: with every broken rule
    """
    if "quantity" in data and "ips" not in data:
        return AllocateIPs(account_id, **_load(_ALLOCATE, data))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    return AssignIPs(account_id, _load(_ASSIGN, data)["ips"])


def load_force(text: str | None) -> bool:
    """Return whether to release the address before it is deleted.

    :raises ValidationFailed: the text is not a boolean
    """
    return bool(_load(_DELETE, {"force": text} if text else {}).get("force"))


def load_dry_run(given: Iterable[Any]) -> bool:
    """Return whether any of these values of `dry_run` is true.

    :raises ValidationFailed: a value is not a boolean
    """
    return any([_load(_DRY_RUN, {"dry_run": value})["dry_run"] for value in given])


def load_login(data: Mapping[str, Any]) -> Login:
    """Return the credentials of a user.

    :raises ValidationFailed: with every broken rule
    """
    given = _load(_USER_AUTH, data)
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
    return str(_load(_API_AUTH, data)["api_key"])


def load_list(query: Mapping[str, str], *, everything: bool = False) -> ListIPs:
    """Return the command to list addresses.

    :param everything: whether a query without page_size and start_key means the whole list
    :raises ValidationFailed: with every broken rule
    """
    given = _load(_LIST, query) if query else {}
    paged = "quantity" not in given and given.get("paginate", True)
    if paged and everything and not {"page_size", "start_key"} & given.keys():
        paged = False
    return ListIPs(
        zone=given.get("zone") or None,
        host=given.get("host") or None,
        limit=given.get("page_size", PAGE) if paged else given.get("quantity"),
        after=given.get("start_key") if paged else None,
        paged=paged,
    )


def _load(schema: Schema, data: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as error:
        raise ValidationFailed(dict(_flat("", error.messages_dict))) from error
    return loaded


def _flat(path: str, messages: Mapping[Any, Any]) -> Any:
    """Yield marshmallow's nested errors with Crossbar's paths: `{"ips": {0: …}}` is `ips.0`."""
    for name, inner in messages.items():
        if isinstance(name, int) or not path:
            yield from _flat(f"{path}.{name}" if path else name, inner)
        else:
            yield path, messages
            return
