"""From models to what the API shows of them."""

from typing import Any

from marshmallow import Schema, fields, post_dump

from kazoo_ips.model import DedicatedIP, Listing


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
