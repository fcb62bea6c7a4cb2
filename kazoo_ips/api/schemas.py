"""Convert `data` and the query to commands. An error lists all broken rules."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

from kazoo_ips.api import examples
from kazoo_ips.api.fields import (
    MAX_ADDRESSES,
    Address,
    Addresses,
    EventKey,
    Family,
    Field,
    Flag,
    Items,
    Label,
    Name,
    NameKey,
    Network,
    Number,
    ShortListKey,
    StartKey,
    Text,
    Time,
    broken,
    repeated,
)
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import (
    AllocateIPs,
    AssignIPs,
    CreateIP,
    ListAccounts,
    ListIPs,
    Login,
    ReleaseIPs,
    Status,
    TransferIPs,
)
from kazoo_ips.model.commands import AssignReserved
from kazoo_ips.model.timelines import ListEvents

MAX_PAGE = 1000
PAGE = 50
MAX_IDS = 100
"""Maximum number of ids in a query: most servers accept URLs of 8 kB."""
MAX_WAIT = 50
"""Maximum seconds that a reply waits for an event: proxies wait for a minute."""
ANY_STATUS = "all"
"""The value of `status` that means the addresses of every status."""

EVERYWHERE = frozenset(
    {
        "_", "accept", "accept_charges", "auth_token", "authorization", "jsonp", "page_size",
        "paginate", "pretty_print", "start_key", "verb",
    }
)  # fmt: skip
"""Parameters that are accepted on every route, because Crossbar reads them on every route
(`cb_context.erl`, `api_util.erl`), and `_`. jQuery gives `_` a new value in each request, so that
no cache answers it."""


IN_BODIES = EVERYWHERE | {"dry_run", "ui_metadata"}
"""Members that are accepted in the bodies of all writes. Monster UI adds `ui_metadata`."""


class RequestSchema(Schema):
    """The data or the query of a request."""

    class Meta:
        """Unknown fields are ignored, as in Crossbar."""

        unknown = EXCLUDE


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


class ReleaseSchema(RequestSchema):
    """The query of a release of several addresses."""

    replaced = Flag(
        metadata={
            "description": "Only addresses that an evacuation has replaced, and whose "
            "replacements the account has; without addresses in the body"
        }
    )


class DeleteSchema(RequestSchema):
    """The query of a delete."""

    force = Flag(
        blank=True,
        metadata={
            "description": "Release the address first if it is assigned; delete it in any status"
        },
    )


class DryRunSchema(RequestSchema):
    """The parameter `dry_run` of a write."""

    dry_run = Flag(
        metadata={"description": "Return the reply that the write would get, and write nothing"}
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


class ChangesSchema(RequestSchema):
    """The query of the feed of events."""

    since = Text(
        most=8000,
        metadata={
            "description": "The position after which the feed is read: `since` of an earlier "
            "reply; `0`, the default, is before the oldest event; `now` is the present end",
            "examples": ["0"],
        },
    )
    limit = Number(most=MAX_PAGE, metadata={"description": "Events of a reply; 100 by default"})
    feed = Text(
        one_of=("normal", "longpoll", "eventsource"),
        metadata={
            "description": "`normal`, the default: the service replies at once. `longpoll`: if "
            "there is no event, the service waits for one. `eventsource`: Server-Sent Events"
        },
    )
    timeout = Number(
        most=MAX_WAIT,
        metadata={
            "description": "Seconds after which a long poll ends without events, 30 by default, "
            "or after which a stream ends"
        },
    )


_START_KEY = {"description": "The `next_start_key` of the previous page"}


def _also(name: str) -> dict[str, str]:
    return {"description": f"The same as `{name}`, as in Crossbar"}


class PagedSchema(RequestSchema):
    """The query of a list that has pages."""

    page_size = Number(
        most=MAX_PAGE, metadata={"description": f"Lines on each page; {PAGE} by default"}
    )
    start_key: Any = StartKey(metadata=_START_KEY)
    paginate = Flag(metadata={"description": "`false`: the whole list in one reply"})


class ShortListSchema(PagedSchema):
    """The query of a list that is read as a whole: jobs, reservations."""

    start_key = ShortListKey(metadata=_START_KEY)


class ListSchema(PagedSchema):
    """The query of a list of addresses."""

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


class AccountAssignedSchema(AssignedSchema):
    """The query of the assigned addresses of an account, and on request of those below it."""

    descendants = Flag(
        metadata={
            "description": "Also the addresses of the accounts below it, sorted by account. Each "
            "line then has the account and its name"
        }
    )


_OWNER = {"description": "Only addresses of this account"}
_LABEL = {"description": "Only addresses with this label", "examples": [":".join(examples.LABEL)]}


class AllAssignedSchema(AssignedSchema):
    """The query of the assigned addresses of all accounts."""

    label = Label(metadata=_LABEL)
    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


class PoolSchema(ListSchema):
    """The query of the pool."""

    status = Text(
        least=0,
        metadata={
            "description": "The status of the addresses, or `all`. By default `available`; with "
            "`account_id`, `assigned`; with `label`, `all`",
            "examples": ["all", "assigned"],
        },
    )
    filter_status = Text(least=0, metadata=_also("status"))
    label = Label(metadata=_LABEL)
    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


class AccountsSchema(PagedSchema):
    """The query of the list of accounts."""

    start_key = Text(metadata=_START_KEY)
    account = Text(
        metadata={
            "description": "Only accounts that have this id, realm or name, as in commands",
            "examples": [examples.ACCOUNT_ID],
        }
    )
    ids = Text(
        most=40 * MAX_IDS,
        metadata={
            "description": f"Only accounts with these ids: at most {MAX_IDS}, separated by commas"
        },
    )


_TIME = "Gregorian seconds, or ISO 8601, in UTC if it has no offset"
_BETWEEN = {
    "from": Time(
        metadata={
            "description": f"Only events at this time or later: {_TIME}",
            "examples": ["2026-11-01T00:00:00Z"],
        }
    ),
    "to": Time(metadata={"description": f"Only events before this time: {_TIME}"}),
}


class TenuresSchema(PagedSchema):
    """The query of the history of an account."""

    start_key = EventKey(metadata=_START_KEY)


class EventsSchema(TenuresSchema):
    """The query of a list of events."""

    class Meta:
        """`from` is a keyword in Python, so it cannot be an attribute."""

        unknown = EXCLUDE
        include = _BETWEEN


class AddressEventsSchema(EventsSchema):
    """The query of the history of an address."""

    class Meta:
        """As in `EventsSchema`."""

        unknown = EXCLUDE
        include = _BETWEEN

    at = Time(
        rounding=math.floor,
        metadata={"description": f"Return who had the address then, and no events: {_TIME}"},
    )


class AllEventsSchema(EventsSchema):
    """The query of the history of all addresses."""

    class Meta:
        """As in `EventsSchema`."""

        unknown = EXCLUDE
        include = _BETWEEN

    account_id = Text(
        metadata={
            "description": "Only events after or before which this account had the address: its "
            "id, realm or name"
        }
    )
    zone = Text(
        metadata={
            "description": "Only events after or before which the address was in this zone",
            "examples": [examples.ZONE],
        }
    )


class ExportSchema(RequestSchema):
    """The query of the export."""

    history = Flag(metadata={"description": "`false`: leave out the events of the history"})


class SummaryPageSchema(PagedSchema):
    """The query of the summary of an account."""

    start_key = NameKey(metadata=_START_KEY)


class SummarySchema(SummaryPageSchema):
    """The query of the summary of the pool."""

    by = Text(
        one_of=("status", "zone", "host", "account"),
        metadata={"description": "One line for each of these; by default the whole pool"},
    )
    zone = Text(
        metadata={
            "description": "Only addresses of this zone; not with `by=account`",
            "examples": [examples.ZONE],
        }
    )

    @validates_schema
    def no_zone_of_accounts(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: the counts of accounts of one zone are requested"""
        if "zone" in data and data.get("by") == "account":
            text = "only one of zone and by=account"
            raise ValidationError(broken("forbidden", text).messages, "zone")


# Created once, because creating a schema takes longer than loading data with it.
_CREATE_IP, _CREATE_IPS, _DELETE = CreateIPSchema(), CreateIPListSchema(), DeleteSchema()
_ADDRESSES, _ASSIGN, _ALLOCATE = AddressesSchema(), AssignSchema(), AllocateSchema()
_RESERVED = AssignReservedSchema()
_RELEASE = ReleaseSchema()
_USER_AUTH, _API_AUTH = UserAuthSchema(), ApiAuthSchema()
_TRANSFER = TransferSchema()
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
    return load_import(data, beside)


def load_import(data: Mapping[str, Any], beside: Iterable[str] = ()) -> list[CreateIP]:
    """Return the commands to add the addresses of a list.

    :param beside: the members of the envelope besides `data`, of which unknown ones are errors
    :raises ValidationFailed: with every broken rule, under `ips.<index>.<field>`
    """
    items = load_strictly(_CREATE_IPS, data, beside)["ips"]
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
        return AllocateIPs(account_id, **load_strictly(_ALLOCATE, data, beside))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    return AssignIPs(account_id, _load(_ASSIGN, data)["ips"])


def load_reserved(
    account_id: str, data: Mapping[str, Any], beside: Iterable[str]
) -> AssignReserved | None:
    """Return the command to assign the addresses of a reservation; None if the data names none.

    :param beside: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    if "reservation" not in data:
        return None
    others = sorted(name for name in ("ips", "quantity") if name in data)
    if others:
        rule = {"message": f"either reservation or {others[0]}", "value": data["reservation"]}
        raise ValidationFailed({"reservation": {"forbidden": rule}})
    loaded = load_strictly(_RESERVED, data, beside)
    return AssignReserved(account_id, loaded["reservation"])


def load_transfer(data: Mapping[str, Any], beside: Iterable[str]) -> TransferIPs:
    """Return the command to transfer addresses.

    :param beside: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    given = load_strictly(_TRANSFER, data, beside)
    return TransferIPs(given["ips"], given["from"], given["to"])


def load_replaced(value: Any) -> bool:
    """Return whether to release only addresses that an evacuation has replaced.

    :param value: a JSON boolean or a word for one; None if the request has none
    :raises ValidationFailed: the value is not a boolean
    """
    return bool(_load(_RELEASE, {} if value is None else {"replaced": value}).get("replaced"))


def load_force(value: Any) -> bool:
    """Return whether to release the address before it is deleted.

    :param value: a JSON boolean or a word for one; None if the request has none
    :raises ValidationFailed: the value is not a boolean
    """
    return bool(_load(_DELETE, {} if value is None else {"force": value}).get("force"))


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


def is_paged(given: Mapping[str, Any], *, everything: bool = False) -> bool:
    """Return whether the reply to a request for a list is one page of it.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    """
    if everything and not {"page_size", "start_key"} & given.keys():
        return False
    return bool(given.get("paginate", True))


def load_list(given: Mapping[str, Any], *, everything: bool = False) -> ListIPs:
    """Return the command to list addresses.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    """
    paged = "quantity" not in given and is_paged(given, everything=everything)
    filters: dict[str, str | None] = {}
    ranges = [given[name] for name in ("cidr", "family") if name in given]
    for member, name in _FILTERS.items():
        both = (given.get(name), given.get(f"filter_{member}"))
        values = {str(value) for value in both if value}
        if len(values) > 1:  # no address matches both
            ranges.append(_NO_ADDRESS)
        filters[name] = min(values, default=None)
    after = given.get("start_key") if paged else None
    if after and len(after) > 3 and not given.get("descendants"):
        rule = {"message": "Field is not in the correct format"}
        raise ValidationFailed({"start_key": {"wrong_format": rule}})
    implied = Status.AVAILABLE if not given.get("label") else ANY_STATUS
    status = filters["status"] or (Status.ASSIGNED if filters["account_id"] else implied)
    return ListIPs(
        **{**filters, "status": None if status == ANY_STATUS else status},
        between=(max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else None,
        modified_from=given.get("modified_from"),
        label=given.get("label"),
        limit=given.get("page_size", PAGE) if paged else given.get("quantity"),
        after=after and after[:3],
        after_account=after[3] if after and len(after) > 3 else None,
        paged=paged,
    )


def load_summary(
    given: Mapping[str, Any], *, everything: bool = False
) -> tuple[str | None, int | None]:
    """Return the name after which a list of summaries starts, and its maximum number of lines.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    :returns: None for the start, and None for no limit
    """
    if not is_paged(given, everything=everything):
        return None, None
    return given.get("start_key"), given.get("page_size", PAGE)


def load_accounts(given: Mapping[str, Any]) -> ListAccounts:
    """Return the command to list accounts.

    :param given: the query, as `load_query` returns it
    :raises ValidationFailed: the query has both `account` and `ids`, or too many ids
    """
    name, ids = given.get("account"), given.get("ids")
    if name is not None and ids is not None:
        rule = {"message": "either account or ids", "value": ids}
        raise ValidationFailed({"ids": {"forbidden": rule}})
    listed = None if ids is None else tuple(dict.fromkeys(filter(None, ids.split(","))))
    if listed and len(listed) > MAX_IDS:
        text = f"Array must have at most {MAX_IDS} items"
        raise ValidationFailed({"ids": {"maxItems": {"message": text, "target": MAX_IDS}}})
    limit = given.get("page_size", PAGE) if given.get("paginate", True) else None
    return ListAccounts(name, listed, limit, given.get("start_key"))


def load_events(given: Mapping[str, Any], *, everything: bool = False) -> ListEvents:
    """Return the command to list events.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    :raises ValidationFailed: the end is not later than the beginning, or the query has `at` and
        other parameters
    """
    since, until = given.get("from"), given.get("to")
    if since is not None and until is not None and since >= until:
        text = "Value must be later than `from`"
        raise ValidationFailed({"to": {"minimum": {"message": text, "value": until}}})
    others = sorted({*given} - {"at"})
    if "at" in given and others:
        text = "only one of at and " + ", ".join(others)
        raise ValidationFailed({"at": {"forbidden": {"message": text, "target": others}}})
    paged = is_paged(given, everything=everything)
    return ListEvents(
        zone=given.get("zone"),
        since=since,
        until=until,
        limit=given.get("page_size", PAGE) if paged else None,
        after=given.get("start_key") if paged else None,
        paged=paged,
    )


def check_members(known: Sequence[str], members: Iterable[str]) -> None:
    """Refuse unknown members of the body of a request that needs no data.

    :param known: the parameters that the request may have in the body
    :param members: names of the members of `data`, and of the envelope
    :raises ValidationFailed: with every member that is unknown
    """
    errors = _unknown(known, {*members} - {*known})
    if errors:
        raise ValidationFailed(errors)


def _unknown(
    known: Sequence[str], names: Iterable[str]
) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Return an error for each member that the request does not have, or has in another place."""
    errors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for name in sorted({*names} - IN_BODIES):
        text = "belongs in data" if name in known else "no such member"
        text = f"{text}; this request has: {', '.join(known) or 'none'}"
        errors[name] = {"additionalProperties": {"message": text, "target": known}}
    return errors


def load_strictly(
    schema: Schema, data: Mapping[str, Any], beside: Iterable[str]
) -> dict[str, Any]:
    """Load the data of a request that Crossbar does not have.

    :param beside: names of the members of the envelope besides `data`; unknown ones are errors,
        and so are members of `data` that the request has there
    :raises ValidationFailed: with every broken rule, and every member that is unknown
    """
    known = sorted(field.data_key or name for name, field in schema.fields.items())
    errors = _unknown(known, {*data} - {*known} | {*beside})
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
    """Yield marshmallow's nested errors with Crossbar's paths: `{"ips": {0: …}}` is `ips.0`.

    An error itself has a message.
    """
    for name, inner in messages.items():
        if not path or "message" not in inner:
            yield from _flat(f"{path}.{name}" if path else name, inner)
        else:
            yield path, messages
            return
