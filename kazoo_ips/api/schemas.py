"""From `data` and the query to commands, from models to resources.

A broken rule is reported in Crossbar's words (`kz_json_schema.erl`), and all of them together.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, validates_schema

from kazoo_ips import addresses
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import AllocateIPs, AssignIPs, CreateIP, DedicatedIP, Listing, ListIPs, Login

MAX_ADDRESSES = 1000
MAX_PAGE = 1000
PAGE = 50
_DIGITS = re.compile(r"[0-9]{1,9}")


def _broken(rule: str, message: str, **more: Any) -> ValidationError:
    return ValidationError({rule: {"message": message, **more}})


class _Field(fields.Field[Any]):
    """A field that complains in Crossbar's words."""

    type_name = "string"

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        """What marshmallow itself finds: a missing value or a null."""
        if key == "required":
            return _broken("required", "Field is required but missing", value=self.name)
        return self.wrong_type(None)

    def wrong_type(self, value: Any) -> ValidationError:
        """The value is not of this field's type."""
        return _broken(
            "type",
            f"Value did not match type(s): {self.type_name}",
            target=self.type_name,
            value=value,
        )


class Text(_Field):
    """A string of a certain length, or one of a few."""

    def __init__(
        self, least: int = 1, most: int | None = None, one_of: tuple[str, ...] = (), **more: Any
    ) -> None:
        super().__init__(**more)
        self._least, self._most, self._one_of = least, most, one_of

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong_type(value)
        if self._one_of and value not in self._one_of:
            raise _broken(
                "enum", "Value not found in enumerated list", target=self._one_of, value=value
            )
        if len(value) < self._least:
            raise _broken(
                "minLength",
                f"String must be at least {self._least} characters",
                target=self._least,
                cause=value,
                value=value,
            )
        if self._most is not None and len(value) > self._most:
            raise _broken(
                "maxLength",
                f"String must not be more than {self._most} characters",
                target=self._most,
                cause=value,
                value=value,
            )
        return value


class Number(_Field):
    """A whole number, in a query or a body."""

    type_name = "integer"

    def __init__(self, most: int | None = None, **more: Any) -> None:
        super().__init__(**more)
        self._most = most

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        number = value
        if isinstance(value, str) and _DIGITS.fullmatch(value):  # in a query
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool):
            raise self.wrong_type(value)
        if number < 1:
            raise _broken("minimum", "Value must be at least 1", target=1, value=number)
        if self._most is not None and number > self._most:
            raise _broken(
                "maximum", f"Value must be at most {self._most}", target=self._most, value=number
            )
        return number


class Flag(_Field):
    """A yes or no, in a query or a body."""

    type_name = "boolean"

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        word = str(value).lower()
        if word not in words:
            raise self.wrong_type(value)
        return words[word]


class Address(_Field):
    """An IPv4 or IPv6 address, in whatever spelling; its canonical one is kept."""

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        """A null is no address, which is all that Crossbar says of it."""
        return super().make_error(key, **kwargs) if key == "required" else _not_an_address(None)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        canonical = addresses.canonical(value)
        if canonical is None:
            raise _not_an_address(value)
        return canonical


class Addresses(_Field):
    """A list of addresses, each spelled as it was sent, none twice."""

    type_name = "array"

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.wrong_type(value)
        if not value:
            raise _broken("minItems", "The list must have at least 1 items", target=1, value=value)
        if len(value) > MAX_ADDRESSES:
            raise _broken(
                "maxItems",
                f"The list must have at most {MAX_ADDRESSES} items",
                target=MAX_ADDRESSES,
                value=len(value),
            )
        errors, seen = {}, set()
        for index, item in enumerate(value):
            canonical = addresses.canonical(item)
            if canonical is None:
                errors[index] = _not_an_address(item).messages
            elif canonical in seen:
                errors[index] = _broken(
                    "uniqueItems", "List of items is not unique", value=item
                ).messages
            seen.add(canonical)
        if errors:
            raise ValidationError(errors)
        return tuple(value)


class After(_Field):
    """A `start_key`, as the last page's `next_start_key` had it."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, str, str]:
        try:
            zone, order, last = json.loads(base64.urlsafe_b64decode(value.encode()))
            if all(isinstance(part, str) for part in (zone, order, last)):
                return zone, order, last
        except (TypeError, ValueError, RecursionError):
            pass
        raise _broken("wrong_format", "Field is not in the correct format", value=value)


def _not_an_address(value: Any) -> ValidationError:
    return _broken("not_one_schema_valid", "failed to validate", value=value)


def start_key(after: tuple[str, str, str] | None) -> str | None:
    """The `next_start_key` of a page: opaque, safe in a URL."""
    return after and base64.urlsafe_b64encode(json.dumps(after).encode()).decode()


class _Request(Schema):
    class Meta:
        """Fields nobody asked for are ignored, as Crossbar does."""

        unknown = EXCLUDE


class CreateIPSchema(_Request):
    """`data` of `PUT /v2/ips`."""

    ip = Address(required=True)
    zone = Text(required=True)
    host = Text(required=True)


class AddressesSchema(_Request):
    """`data` of a bulk assign or release."""

    ips = Addresses()


class AllocateSchema(_Request):
    """`data` of an allocation: so many addresses, picked by the service."""

    quantity = Number(most=MAX_ADDRESSES, required=True)
    zone = Text()
    host = Text()
    distinct_hosts = Flag()
    distinct_zones = Flag()

    @validates_schema
    def one_wish(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: distinct hosts and zones are asked for at once"""
        if data.get("distinct_hosts") and data.get("distinct_zones"):
            raise ValidationError(
                _broken("forbidden", "only one of distinct_hosts and distinct_zones").messages,
                "distinct_zones",
            )


class UserAuthSchema(_Request):
    """`data` of `PUT /v2/user_auth` (`user_auth.json`)."""

    credentials = Text(most=64, required=True)
    method = Text(one_of=("md5", "sha"))
    account_name = Text(most=128)
    account_realm = Text(most=253)
    realm = Text(most=253)
    phone_number = Text(most=64)


class ApiAuthSchema(_Request):
    """`data` of `PUT /v2/api_auth`."""

    api_key = Text(least=64, most=64, required=True)


class ListSchema(_Request):
    """The query of a list."""

    zone = Text(least=0)
    host = Text(least=0)
    quantity = Number()
    page_size = Number(most=MAX_PAGE)
    start_key = After()
    paginate = Flag()


def load_create(data: Mapping[str, Any]) -> CreateIP:
    """:raises ValidationFailed: with every broken rule"""
    fields_ = _load(CreateIPSchema(), data)
    return CreateIP(fields_["ip"], fields_["zone"], fields_["host"])


def load_addresses(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The addresses of a bulk request, or None when it names none.

    :raises ValidationFailed: with every broken rule
    """
    addresses_: tuple[str, ...] | None = _load(AddressesSchema(), data).get("ips")
    return addresses_


def load_assign(account_id: str, data: Mapping[str, Any]) -> AssignIPs | AllocateIPs:
    """The addresses that an account names, or how many it wants.

    :raises ValidationFailed: with every broken rule
    """
    if "quantity" in data and "ips" not in data:
        return AllocateIPs(account_id, **_load(AllocateSchema(), data))
    if "quantity" in data:
        rule = {"message": "either ips or quantity", "value": data["quantity"]}
        raise ValidationFailed({"quantity": {"forbidden": rule}})
    if "ips" not in data:
        rule = {"message": "Field is required but missing", "value": "ips"}
        raise ValidationFailed({"ips": {"required": rule}})
    return AssignIPs(account_id, load_addresses(data) or ())


def load_login(data: Mapping[str, Any]) -> Login:
    """:raises ValidationFailed: with every broken rule"""
    given = _load(UserAuthSchema(), data)
    return Login(
        given["credentials"],
        given.get("method", "md5"),
        given.get("account_name"),
        given.get("account_realm") or given.get("realm"),
    )


def load_api_key(data: Mapping[str, Any]) -> str:
    """:raises ValidationFailed: with every broken rule"""
    return str(_load(ApiAuthSchema(), data)["api_key"])


def load_list(query: Mapping[str, str], *, everything: bool = False) -> ListIPs:
    """What a list's query asks for.

    :param everything: whether all is meant when nothing is said of pages
    :raises ValidationFailed: with every broken rule
    """
    asked = _load(ListSchema(), query)
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


class _Resource(Schema):
    @post_dump
    def without_nothing(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """`assigned_to` is there only while assigned."""
        return {k: v for k, v in data.items() if v is not None}


class _Id(fields.String):
    """The address again: a resource shows it under two names, an attribute goes by one."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> str:
        """:param obj: a dedicated IP"""
        return str(obj.address)


class IPSchema(_Resource):
    """A dedicated IP."""

    id = _Id()
    ip = fields.String(attribute="address")
    zone = fields.String()
    host = fields.String()
    status = fields.String()
    type = fields.Constant("dedicated_ip")
    assigned_to = fields.String()


class ReadOnlySchema(Schema):
    """What Crossbar calls `_read_only` of a dedicated IP."""

    id = fields.String(attribute="address")
    rev = fields.String(attribute="revision")
    vsn = fields.Constant("1")
    status = fields.String()
    type = fields.Constant("dedicated_ip")
    zone = fields.String()
    host = fields.String()
    created = fields.Integer()
    modified = fields.Integer()


class ListingSchema(_Resource):
    """One line of a list."""

    ip = fields.String(attribute="address")
    zone = fields.String()
    host = fields.String()
    assigned_to = fields.String()


_IP, _READ_ONLY = IPSchema(), ReadOnlySchema()
_LISTING, _OWN_LISTING = ListingSchema(), ListingSchema(exclude=["assigned_to"])


def dump_ip(ip: DedicatedIP) -> dict[str, Any]:
    """A dedicated IP as the API shows it."""
    resource: dict[str, Any] = _IP.dump(ip)
    return resource


def dump_read_only(ip: DedicatedIP, **more: Any) -> dict[str, Any]:
    """A dedicated IP with what Crossbar keeps from writing."""
    return {**dump_ip(ip), "_read_only": {**_READ_ONLY.dump(ip), **more}}


def dump_listing(listing: Listing, *, owner: bool = False) -> dict[str, Any]:
    """One line of a list.

    :param owner: whether it says whose the address is
    """
    resource: dict[str, Any] = (_LISTING if owner else _OWN_LISTING).dump(listing)
    return resource
