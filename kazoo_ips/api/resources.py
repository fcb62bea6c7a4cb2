"""Convert models to JSON resources."""

from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields

from kazoo_ips.model import DedicatedIP, Listing, Status


class _Resource(Schema):
    """A JSON resource with attributes of a model and constants. Attributes that are None are left
    out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        sources, self._constants = {}, {}
        for name, field in self.dump_fields.items():
            if isinstance(field, fields.Constant):
                self._constants[name] = field.constant
            else:
                sources[name] = "address" if isinstance(field, _Id) else field.attribute or name
        self._names, self._values = tuple(sources), attrgetter(*sources.values())

    def dump_fast(self, model: Any) -> dict[str, Any]:
        """Return the same as `dump` in a sixth of the time, if no field converts its value."""
        values = zip(self._names, self._values(model), strict=True)
        return {k: v for k, v in values if v is not None} | self._constants


_EXAMPLES = {
    "ip": "1.2.3.4",
    "zone": "us-east",
    "host": "proxy1.us-east.myswitch.com",
    "account_id": "4b1ae50f5b2c4c0d9a6a0f2f3a9c7b1e",
}


def _is(description: str, example: str = "", **more: Any) -> dict[str, Any]:
    """Return the arguments of a field that every resource of its type has.

    :param example: the key of its example in `_EXAMPLES`
    :param more: further keywords of JSON Schema
    """
    metadata: dict[str, Any] = {"description": description}
    if example:
        metadata["examples"] = [_EXAMPLES[example]]
    return {"metadata": {**metadata, **more}, "required": True}


_ADDRESS = _is("IP address", "ip")
_ZONE, _HOST = _is("Zone of the address", "zone"), _is("Host of the address", "host")
_STATUS = _is(
    "`available`, `assigned`, or a status of a newer release",
    examples=[each.value for each in Status],
    minLength=1,
)
_OWNER = {**_is("Account that has the address", "account_id"), "required": False}


class _Id(fields.String):
    """The address as `id`. Resources show the attribute `address` as `id` and as `ip`."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> str:
        """:param obj: a dedicated IP"""
        return str(obj.address)


class IPSchema(_Resource):
    """A dedicated IP."""

    id = _Id(**_ADDRESS)
    ip = fields.String(attribute="address", **_ADDRESS)
    zone = fields.String(**_ZONE)
    host = fields.String(**_HOST)
    status = fields.String(**_STATUS)
    type = fields.Constant("dedicated_ip", **_is("Type of the resource"))
    assigned_to = fields.String(**_OWNER)


class ReadOnlySchema(_Resource):
    """The member `_read_only` of a dedicated IP in Crossbar."""

    id = fields.String(attribute="address", **_ADDRESS)
    rev = fields.String(
        attribute="revision",
        metadata={"description": "Revision of the document; missing in a dry run"},
    )
    vsn = fields.Constant("1", **_is("Version of the document's form"))
    status = fields.String(**_STATUS)
    type = fields.Constant("dedicated_ip", **_is("Type of the resource"))
    zone = fields.String(**_ZONE)
    host = fields.String(**_HOST)
    created = fields.Integer(**_is("Time of creation, in Gregorian seconds"))
    modified = fields.Integer(**_is("Time of the last change, in Gregorian seconds"))


class ListingSchema(_Resource):
    """One line of a list."""

    ip = fields.String(attribute="address", **_ADDRESS)
    zone = fields.String(**_ZONE)
    host = fields.String(**_HOST)
    assigned_to = fields.String(**_OWNER)


class CreatedSchema(IPSchema):
    """A dedicated IP that was added to the pool."""

    _read_only = fields.Nested(ReadOnlySchema, required=True)


class CreatedIPsSchema(Schema):
    """Several dedicated IPs that were added to the pool."""

    ips = fields.List(fields.Nested(CreatedSchema), **_is("The dedicated IPs"))


class _ReadOnlyDeletedSchema(ReadOnlySchema):
    deleted = fields.Constant(True, **_is("The document is deleted"))


class DeletedSchema(IPSchema):
    """A dedicated IP that was deleted, as it was before."""

    _read_only = fields.Nested(_ReadOnlyDeletedSchema, required=True)


class ChangedSchema(Schema):
    """The addresses that a request has assigned or released."""

    ips = fields.List(fields.String(metadata=_ADDRESS["metadata"]), **_is("The addresses"))


class ReleasedSchema(ChangedSchema):
    """The addresses that a request has released, and those that it has not released."""

    left = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": "The addresses that stay assigned because this release does not know "
            "their status, each with its status"
        },
    )


NAMES = fields.List(fields.String())
"""A sorted list of names."""

_IP, _READ_ONLY = IPSchema(), ReadOnlySchema()
_LISTING, _OWN_LISTING = ListingSchema(), ListingSchema(exclude=["assigned_to"])


def dump_ip(ip: DedicatedIP) -> dict[str, Any]:
    """Return a dedicated IP as JSON."""
    return _IP.dump_fast(ip)


def dump_read_only(ip: DedicatedIP, **more: Any) -> dict[str, Any]:
    """Return a dedicated IP as JSON with the member `_read_only`.

    :param more: further members of `_read_only`
    """
    return {**_IP.dump_fast(ip), "_read_only": {**_READ_ONLY.dump_fast(ip), **more}}


def dump_listing(listing: Listing, *, owner: bool = False) -> dict[str, Any]:
    """Return one line of a list as JSON.

    :param owner: whether the line has the account of the address
    """
    return (_LISTING if owner else _OWN_LISTING).dump_fast(listing)
