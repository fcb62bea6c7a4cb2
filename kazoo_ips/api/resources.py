"""From models to what the API shows of them."""

from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields

from kazoo_ips.model import DedicatedIP, Listing, Status


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


_EXAMPLES = {
    "ip": "1.2.3.4",
    "zone": "us-east",
    "host": "proxy1.us-east.myswitch.com",
    "account_id": "4b1ae50f5b2c4c0d9a6a0f2f3a9c7b1e",
}


def _is(description: str, example: str = "", **more: Any) -> dict[str, Any]:
    """What the description of the API says of a field that is always there."""
    told = {"description": description, **({"examples": [_EXAMPLES[example]]} if example else {})}
    return {"metadata": {**told, **more}, "required": True}


_ADDRESS = _is("IP address", "ip")
_ZONE, _HOST = _is("Zone the address is in", "zone"), _is("Host the address is on", "host")
_STATUS = _is(
    "`available`, `assigned`, or a word that only a newer release knows",
    examples=[each.value for each in Status],
    minLength=1,
)
_OWNER = {**_is("Account that has the address", "account_id"), "required": False}


class _Id(fields.String):
    """The address again: a resource shows it under two names, an attribute goes by one."""

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
    type = fields.Constant("dedicated_ip", **_is("What it is"))
    assigned_to = fields.String(**_OWNER)


class ReadOnlySchema(_Resource):
    """What Crossbar calls `_read_only` of a dedicated IP."""

    id = fields.String(attribute="address", **_ADDRESS)
    rev = fields.String(
        attribute="revision",
        metadata={"description": "Revision of the document; a dry run of an addition has none"},
    )
    vsn = fields.Constant("1", **_is("Version of the document's form"))
    status = fields.String(**_STATUS)
    type = fields.Constant("dedicated_ip", **_is("What it is"))
    zone = fields.String(**_ZONE)
    host = fields.String(**_HOST)
    created = fields.Integer(**_is("Gregorian seconds"))
    modified = fields.Integer(**_is("Gregorian seconds"))


class ListingSchema(_Resource):
    """One line of a list."""

    ip = fields.String(attribute="address", **_ADDRESS)
    zone = fields.String(**_ZONE)
    host = fields.String(**_HOST)
    assigned_to = fields.String(**_OWNER)


class CreatedSchema(IPSchema):
    """A dedicated IP new in the pool."""

    _read_only = fields.Nested(ReadOnlySchema, required=True)


class CreatedIPsSchema(Schema):
    """Several dedicated IPs new in the pool."""

    ips = fields.List(fields.Nested(CreatedSchema), **_is("The dedicated IPs"))


class _ReadOnlyDeletedSchema(ReadOnlySchema):
    deleted = fields.Constant(True, **_is("That the document is gone"))


class DeletedSchema(IPSchema):
    """A dedicated IP as it was when it left the pool."""

    _read_only = fields.Nested(_ReadOnlyDeletedSchema, required=True)


class ChangedSchema(Schema):
    """What a request for several addresses has assigned or released."""

    ips = fields.List(fields.String(metadata=_ADDRESS["metadata"]), **_is("The addresses"))


class ReleasedSchema(ChangedSchema):
    """What a request for several addresses has released."""

    left = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": "What the account keeps, by address: the status that this release does "
            "not know"
        },
    )


NAMES = fields.List(fields.String())
"""Names in their order, nothing else."""

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
