"""From `data` and the query to commands. All that breaks a rule is reported, not the first."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

from kazoo_ips.api.fields import (
    MAX_ADDRESSES,
    Address,
    Addresses,
    After,
    Field,
    Flag,
    Items,
    Number,
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
        """Fields nobody asked for are ignored, as Crossbar does."""

        unknown = EXCLUDE


class CreateIPSchema(_Request):
    """`data` of `PUT /v2/ips`."""

    ip = Address(required=True, metadata={"description": "IP address", "examples": ["1.2.3.4"]})
    zone = Text(required=True, metadata={"description": "Zone it is in", "examples": ["us-east"]})
    host = Text(
        required=True,
        metadata={"description": "Host it is on", "examples": ["proxy1.us-east.myswitch.com"]},
    )


_LISTED = {"description": "List of IP addresses", "examples": [["1.2.3.4", "5.6.7.8"]]}


class _Object(Field):
    type_name = "object"


class CreateIPsSchema(_Request):
    """`data` of `PUT /v2/ips` with a list; each item is `data` of one."""

    ips = Items(required=True, metadata={"items": {"$ref": "#/components/schemas/CreateIP"}})


class AddressesSchema(_Request):
    """`data` of a bulk assign or release."""

    ips = Addresses(metadata=_LISTED)


class AssignSchema(AddressesSchema):
    """`data` of a bulk assign."""

    ips = Addresses(required=True, metadata=_LISTED)


class AllocateSchema(_Request):
    """`data` of an allocation: so many addresses, picked by the service."""

    quantity = Number(
        most=MAX_ADDRESSES,
        required=True,
        metadata={"description": "How many addresses", "examples": [2]},
    )
    zone = Text(metadata={"description": "Of this zone only", "examples": ["us-east"]})
    host = Text(metadata={"description": "On this host only"})
    distinct_hosts = Flag(metadata={"description": "No two on one host"})
    distinct_zones = Flag(metadata={"description": "No two in one zone"})

    @validates_schema
    def one_wish(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: distinct hosts and zones are asked for at once"""
        if data.get("distinct_hosts") and data.get("distinct_zones"):
            raise ValidationError(
                broken("forbidden", "only one of distinct_hosts and distinct_zones").messages,
                "distinct_zones",
            )


class DeleteSchema(_Request):
    """The query of a delete."""

    force = Flag(
        metadata={
            "description": "Release it first when it is assigned; delete it whatever its status"
        }
    )


class DryRunSchema(_Request):
    """Whether a write shall only be spoken of."""

    dry_run = Flag(
        required=True,
        metadata={"description": "Say what would be done or refused, and write nothing"},
    )


class UserAuthSchema(_Request):
    """`data` of `PUT /v2/user_auth` (`user_auth.json`)."""

    credentials = Text(
        most=64, required=True, metadata={"description": "Hash of `user:password`, in hex digits"}
    )
    method = Text(one_of=("md5", "sha"), metadata={"description": "The hash; md5 unless given"})
    account_name = Text(most=128, metadata={"description": "Name of the user's account"})
    account_realm = Text(most=253, metadata={"description": "Realm of the user's account"})
    realm = Text(most=253, metadata={"description": "The same as `account_realm`"})
    phone_number = Text(most=64, metadata={"description": "Accepted and ignored"})


class ApiAuthSchema(_Request):
    """`data` of `PUT /v2/api_auth`."""

    api_key = Text(
        least=64, most=64, required=True, metadata={"description": "API key of the account"}
    )


class ListSchema(_Request):
    """The query of a list."""

    zone = Text(least=0, metadata={"description": "Those of this zone", "examples": ["us-east"]})
    host = Text(least=0, metadata={"description": "Those on this host"})
    quantity = Number(metadata={"description": "The first so many, on one page"})
    page_size = Number(
        most=MAX_PAGE, metadata={"description": f"Of each page; {PAGE} unless given"}
    )
    start_key = After(metadata={"description": "The `next_start_key` of the page before"})
    paginate = Flag(metadata={"description": "`false`: all of it at once"})


# Made once: that takes longer than to load with them.
_CREATE_IP, _CREATE_IPS, _DELETE = CreateIPSchema(), CreateIPsSchema(), DeleteSchema()
_ADDRESSES, _ASSIGN, _ALLOCATE = AddressesSchema(), AssignSchema(), AllocateSchema()
_USER_AUTH, _API_AUTH, _LIST = UserAuthSchema(), ApiAuthSchema(), ListSchema()
_DRY_RUN = DryRunSchema()


def load_create(data: Mapping[str, Any]) -> CreateIP | list[CreateIP]:
    """One address to add, or a list of them.

    :raises ValidationFailed: with every broken rule, a list's by `ips.<index>.<field>`
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
    """The addresses of a bulk request, or None when it names none.

    :raises ValidationFailed: with every broken rule
    """
    addresses_: tuple[str, ...] | None = _load(_ADDRESSES, data).get("ips")
    return addresses_


def load_assign(account_id: str, data: Mapping[str, Any]) -> AssignIPs | AllocateIPs:
    """The addresses that an account names, or how many it wants.

    :raises ValidationFailed: with every broken rule
    """
    if "quantity" in data and "ips" not in data:
        return AllocateIPs(account_id, **_load(_ALLOCATE, data))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    return AssignIPs(account_id, _load(_ASSIGN, data)["ips"])


def load_force(text: str | None) -> bool:
    """Whether an assigned address shall be released, to be deleted.

    :raises ValidationFailed: neither a yes nor a no
    """
    return bool(_load(_DELETE, {"force": text} if text else {}).get("force"))


def load_dry_run(given: Iterable[Any]) -> bool:
    """Whether any of the values given for it asks for a dry run.

    :raises ValidationFailed: one is neither a yes nor a no
    """
    return any([_load(_DRY_RUN, {"dry_run": value})["dry_run"] for value in given])


def load_login(data: Mapping[str, Any]) -> Login:
    """:raises ValidationFailed: with every broken rule"""
    given = _load(_USER_AUTH, data)
    return Login(
        given["credentials"],
        given.get("method", "md5"),
        given.get("account_name"),
        given.get("account_realm") or given.get("realm"),
    )


def load_api_key(data: Mapping[str, Any]) -> str:
    """:raises ValidationFailed: with every broken rule"""
    return str(_load(_API_AUTH, data)["api_key"])


def load_list(query: Mapping[str, str], *, everything: bool = False) -> ListIPs:
    """What a list's query asks for.

    :param everything: whether all is meant when nothing is said of pages
    :raises ValidationFailed: with every broken rule
    """
    asked = _load(_LIST, query) if query else {}
    paged = "quantity" not in asked and asked.get("paginate", True)
    if paged and everything and not {"page_size", "start_key"} & asked.keys():
        paged = False
    return ListIPs(
        zone=asked.get("zone") or None,
        host=asked.get("host") or None,
        limit=asked.get("page_size", PAGE) if paged else asked.get("quantity"),
        after=asked.get("start_key") if paged else None,
        paged=paged,
    )


def _load(schema: Schema, data: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as error:
        raise ValidationFailed(dict(_flat("", error.messages_dict))) from error
    return loaded


def _flat(path: str, messages: Mapping[Any, Any]) -> Any:
    """`{"ips": {0: {rule: …}}}` as Crossbar writes it: `ips.0`."""
    for name, inner in messages.items():
        if isinstance(name, int) or not path:
            yield from _flat(f"{path}.{name}" if path else name, inner)
        else:
            yield path, messages
            return
