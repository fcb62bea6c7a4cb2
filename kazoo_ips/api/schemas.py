"""Convert `data` and the query to commands. An error lists all broken rules."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

from kazoo_ips.api import examples
from kazoo_ips.api.fields import (
    MAX_ADDRESSES,
    Address,
    Addresses,
    Family,
    Field,
    Flag,
    Items,
    Name,
    Network,
    Number,
    StartKey,
    Text,
    Time,
    broken,
    repeated,
)
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import AllocateIPs, AssignIPs, CreateIP, ListIPs, Login, Status

MAX_PAGE = 1000
PAGE = 50
ANY_STATUS = "all"
"""The value of `status` that means the addresses of every status."""

EVERYWHERE = frozenset(
    {
        "_", "accept", "accept_charges", "auth_token", "authorization", "jsonp", "page_size",
        "paginate", "pretty_print", "start_key", "verb",
    }
)  # fmt: skip
"""Parameters that are accepted on every route, because Crossbar reads them on every route
(`cb_context.erl`, `api_util.erl`), and `_`, which jQuery adds so that caches do not reply."""


IN_BODIES = EVERYWHERE | {"dry_run", "ui_metadata"}
"""Members that are accepted in the bodies of all writes. Monster UI adds `ui_metadata`."""


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
        blank=True,
        metadata={
            "description": "Release the address first if it is assigned; delete it in any status"
        },
    )


class DryRunSchema(_Request):
    """The parameter `dry_run` of a write."""

    dry_run = Flag(
        metadata={"description": "Return the reply that the write would get, and write nothing"}
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


def _also(name: str) -> dict[str, str]:
    return {"description": f"The same as `{name}`, as in Crossbar"}


class ListSchema(_Request):
    """The query of a list."""

    zone = Text(
        least=0,
        metadata={"description": "Only addresses of this zone", "examples": [examples.ZONE]},
    )
    filter_zone = Text(least=0, metadata=_also("zone"))
    host = Text(least=0, metadata={"description": "Only addresses of this host"})
    filter_host = Text(least=0, metadata=_also("host"))
    cidr = Network(
        metadata={
            "description": "Only addresses of this CIDR block; one address is a block too",
            "examples": ["192.0.2.0/24"],
        }
    )
    family = Family(metadata={"description": "Only IPv4 or only IPv6 addresses"})
    modified_from = Time(
        metadata={
            "description": "Only addresses that were changed at this time or later: Gregorian "
            "seconds, or ISO 8601, in UTC if it has no offset",
            "examples": ["2026-11-01T00:00:00Z"],
        }
    )
    quantity = Number(
        metadata={"description": "Number of addresses, from the first; without pages"}
    )
    page_size = Number(
        most=MAX_PAGE, metadata={"description": f"Addresses on each page; {PAGE} by default"}
    )
    start_key = StartKey(metadata={"description": "The `next_start_key` of the previous page"})
    paginate = Flag(metadata={"description": "`false`: the whole list in one reply"})


_FILTERS = {"zone": "zone", "host": "host", "status": "status", "assigned_to": "account_id"}
"""Members of a dedicated IP, each with the parameter that means the same as Crossbar's parameter
`filter_` with the member's name."""
_NO_ADDRESS = ("g", "")
"""A range of sort keys that contains no address."""


class AvailableSchema(ListSchema):
    """The query of the available addresses."""

    status = Text(
        one_of=("available",), metadata={"description": "The status of all of this list"}
    )
    filter_status = Text(one_of=("available",), metadata=_also("status"))


class AssignedSchema(ListSchema):
    """The query of the assigned addresses of an account."""

    status = Text(one_of=("assigned",), metadata={"description": "The status of all of this list"})
    filter_status = Text(one_of=("assigned",), metadata=_also("status"))


_OWNER = {"description": "Only addresses of this account"}


class AllAssignedSchema(AssignedSchema):
    """The query of the assigned addresses of all accounts."""

    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


class PoolSchema(ListSchema):
    """The query of the pool."""

    status = Text(
        least=0,
        metadata={
            "description": "The status of the addresses, or `all`. By default `available`; with "
            "`account_id`, `assigned`",
            "examples": ["all", "assigned"],
        },
    )
    filter_status = Text(least=0, metadata=_also("status"))
    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


# Created once, because creating a schema takes longer than loading data with it.
_CREATE_IP, _CREATE_IPS, _DELETE = CreateIPSchema(), CreateIPListSchema(), DeleteSchema()
_ADDRESSES, _ASSIGN, _ALLOCATE = AddressesSchema(), AssignSchema(), AllocateSchema()
_USER_AUTH, _API_AUTH = UserAuthSchema(), ApiAuthSchema()
_DRY_RUN = DryRunSchema()


def load_create(data: Mapping[str, Any], beside: Iterable[str] = ()) -> CreateIP | list[CreateIP]:
    """Return the command to add one address, or a list of such commands.

    :param beside: the members of the envelope besides `data`; with a list, unknown ones are errors
    :raises ValidationFailed: with every broken rule; for a list, under `ips.<index>.<field>`
    """
    if "ips" not in data:
        return _create_command(_load(_CREATE_IP, data))
    if "ip" in data:
        rule = {"message": "either ip or ips", "value": data["ip"]}
        raise ValidationFailed({"ip": {"forbidden": rule}})
    items = _load_strictly(_CREATE_IPS, data, beside)["ips"]
    commands: dict[str, CreateIP] = {}
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                errors[f"ips.{index}"] = _Object().wrong_type(item).messages_dict
                continue
            command = _create_command(_load_strictly(_CREATE_IP, item))
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


def load_addresses(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the addresses that a request names; None if it names none.

    :raises ValidationFailed: with every broken rule
    """
    addresses_: tuple[str, ...] | None = _load(_ADDRESSES, data).get("ips")
    return addresses_


def load_assign(
    account_id: str, data: Mapping[str, Any], beside: Iterable[str] = ()
) -> AssignIPs | AllocateIPs:
    """Return the command to assign addresses that the request names, or to allocate a quantity.

    :param beside: the members of the envelope besides `data`; in an allocation, unknown ones are
        errors
    :raises ValidationFailed: with every broken rule
    """
    if "quantity" in data and "ips" not in data:
        return AllocateIPs(account_id, **_load_strictly(_ALLOCATE, data, beside))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    return AssignIPs(account_id, _load(_ASSIGN, data)["ips"])


def load_force(text: str | None, members: Iterable[str] = ()) -> bool:
    """Return whether to release the address before it is deleted.

    :param members: the members of `data` and of the envelope, which must be known
    :raises ValidationFailed: the text is not a boolean, or a member is unknown
    """
    given = {"force": text} if text else {}
    return bool(_load_strictly(_DELETE, given, members).get("force"))


def load_dry_run(given: Iterable[Any]) -> bool:
    """Return whether any of these values of `dry_run` is true.

    :raises ValidationFailed: a value is not a boolean
    """
    return any([_load(_DRY_RUN, {"dry_run": value})["dry_run"] for value in given])


def load_query(
    schemas: Sequence[Schema], query: Iterable[tuple[str, str]], *, write: bool = False
) -> dict[str, Any]:
    """Return the parameters of a query, converted by their schemas.

    :param schemas: their fields are the parameters that the route knows, besides `EVERYWHERE`
    :param query: each parameter as it was sent
    :param write: whether the route writes; then this function accepts `dry_run`, and a route that
        supports no dry run refuses it later
    :raises ValidationFailed: with every broken rule: an unknown parameter, a parameter that was
        given twice, an invalid value
    """
    known = sorted({name for schema in schemas for name in schema.fields})
    given: dict[str, str] = {}
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for name, value in query:
        if name not in known:
            if name not in EVERYWHERE and not (write and name == "dry_run"):
                text = "no such parameter; this route knows: " + (", ".join(known) or "none")
                errors[name] = {"additionalProperties": {"message": text, "target": known}}
        elif name in given:
            text = "given more than once; this route knows: " + ", ".join(known)
            errors[name] = {"uniqueItems": {"message": text, "target": known, "value": value}}
        else:
            given[name] = value
    loaded: dict[str, Any] = {}
    for schema in schemas:
        try:
            loaded |= _load(schema, {k: v for k, v in given.items() if k in schema.fields})
        except ValidationFailed as failed:
            errors = {**failed.errors, **errors}
    if errors:
        raise ValidationFailed(errors)
    return loaded


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


def load_list(given: Mapping[str, Any], *, everything: bool = False) -> ListIPs:
    """Return the command to list addresses.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    """
    paged = "quantity" not in given and given.get("paginate", True)
    if paged and everything and not {"page_size", "start_key"} & given.keys():
        paged = False
    filters: dict[str, str | None] = {}
    ranges = [given[name] for name in ("cidr", "family") if name in given]
    for member, name in _FILTERS.items():
        both = (given.get(name), given.get(f"filter_{member}"))
        values = {str(value) for value in both if value}
        if len(values) > 1:  # no address matches both
            ranges.append(_NO_ADDRESS)
        filters[name] = min(values, default=None)
    status = filters["status"] or (Status.ASSIGNED if filters["account_id"] else Status.AVAILABLE)
    return ListIPs(
        **{**filters, "status": None if status == ANY_STATUS else status},
        between=(max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else None,
        modified_from=given.get("modified_from"),
        limit=given.get("page_size", PAGE) if paged else given.get("quantity"),
        after=given.get("start_key") if paged else None,
        paged=paged,
    )


def _load_strictly(
    schema: Schema, data: Mapping[str, Any], beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Load the data of a request that Crossbar does not have.

    :param beside: names of further members; unknown ones are errors
    :raises ValidationFailed: with every broken rule, and every member that is unknown
    """
    known = sorted(schema.fields)
    unknown = sorted({*data, *beside} - {*known, *IN_BODIES})
    text = f"no such member; this request has: {', '.join(known)}"
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {
        name: {"additionalProperties": {"message": text, "target": known}} for name in unknown
    }
    try:
        loaded = _load(schema, data)
    except ValidationFailed as failed:
        raise ValidationFailed({**failed.errors, **errors}) from failed
    if errors:
        raise ValidationFailed(errors)
    return loaded


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
