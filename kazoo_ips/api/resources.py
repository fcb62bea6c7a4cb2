"""From models to what the API shows of them."""

from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields

from kazoo_ips.model import DedicatedIP, Listing


class _Resource(Schema):
    """What the API shows of a model: attributes as they are, and constants; nothing for None."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        sources, self._constants = {}, {}
        for name, shown in self.dump_fields.items():
            if isinstance(shown, fields.Constant):
                self._constants[name] = shown.constant
            else:
                sources[name] = "address" if isinstance(shown, _Id) else shown.attribute or name
        self._names, self._values = tuple(sources), attrgetter(*sources.values())

    def show(self, model: Any) -> dict[str, Any]:
        """The same as `dump`, where no field changes its value, in a sixth of the time."""
        values = zip(self._names, self._values(model), strict=True)
        return {k: v for k, v in values if v is not None} | self._constants


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


class ReadOnlySchema(_Resource):
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
    return _IP.show(ip)


def dump_read_only(ip: DedicatedIP, **more: Any) -> dict[str, Any]:
    """A dedicated IP with what Crossbar keeps from writing."""
    return {**_IP.show(ip), "_read_only": {**_READ_ONLY.show(ip), **more}}


def dump_listing(listing: Listing, *, owner: bool = False) -> dict[str, Any]:
    """One line of a list.

    :param owner: whether it says whose the address is
    """
    return (_LISTING if owner else _OWN_LISTING).show(listing)
