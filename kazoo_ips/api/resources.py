"""Convert models to JSON resources."""

from operator import attrgetter
from typing import Any

from marshmallow import EXCLUDE, Schema, fields

from kazoo_ips.api import examples
from kazoo_ips.model import CreateIP, DedicatedIP, Status
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome, AdditionResult


class ReplySchema(Schema):
    """A part of a reply's data."""

    class Meta:
        """A later release may add members, so the OpenAPI description permits unknown members."""

        unknown = EXCLUDE


class _Resource(ReplySchema):
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


def _required(description: str, example: object = None, **more: Any) -> dict[str, Any]:
    """Return the arguments of a field that every resource of its type has.

    :param more: further keywords of JSON Schema
    """
    metadata: dict[str, Any] = {"description": description}
    if example is not None:
        metadata["examples"] = [example]
    return {"metadata": {**metadata, **more}, "required": True}


ADDRESS = _required("IP address", examples.ASSIGNED[0])
ZONE = _required("Zone of the address", examples.ZONE)
HOST = _required("Host of the address", examples.HOST)
STATUS = _required(
    "`available`, `assigned`, `aging`, `reserved`, `disabled`, or a status of a newer release",
    examples=[each.value for each in Status],
    minLength=1,
)
OWNER = {**_required("Account that has the address", examples.ACCOUNT_ID), "required": False}


class _Id(fields.String):
    """The address as `id`. Resources show the attribute `address` as `id` and as `ip`."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> str:
        """:param obj: a dedicated IP"""
        return str(obj.address)


class DedicatedIPSchema(_Resource):
    """A dedicated IP."""

    id = _Id(**ADDRESS)
    ip = fields.String(attribute="address", **ADDRESS)
    zone = fields.String(**ZONE)
    host = fields.String(**HOST)
    status = fields.String(**STATUS)
    type = fields.Constant("dedicated_ip", **_required("Type of the resource"))
    assigned_to = fields.String(**OWNER)
    available_at = fields.Integer(
        attribute="rests_until",
        metadata={
            "description": "When another account can get it, in Gregorian seconds; only while it "
            "is aging"
        },
    )
    replaced_by = fields.String(
        metadata={
            "description": "Address that the account got in an evacuation to replace this one, "
            "which it has to release"
        }
    )


class ReadOnlySchema(_Resource):
    """The member `_read_only` of a dedicated IP in Crossbar."""

    id = fields.String(attribute="address", **ADDRESS)
    rev = fields.String(
        attribute="revision",
        metadata={"description": "Revision of the document; missing in a dry run"},
    )
    vsn = fields.Constant("1", **_required("Version of the document's form"))
    status = fields.String(**STATUS)
    type = fields.Constant("dedicated_ip", **_required("Type of the resource"))
    zone = fields.String(**ZONE)
    host = fields.String(**HOST)
    created = fields.Integer(**_required("Time of creation, in Gregorian seconds"))
    modified = fields.Integer(**_required("Time of the last change, in Gregorian seconds"))


class CreatedIPSchema(DedicatedIPSchema):
    """A dedicated IP that was added to the pool."""

    _read_only = fields.Nested(ReadOnlySchema, required=True)


class CreatedIPListSchema(ReplySchema):
    """Several dedicated IPs that were added to the pool."""

    ips = fields.List(fields.Nested(CreatedIPSchema), **_required("The dedicated IPs"))


class ReadOnlyDeletedSchema(ReadOnlySchema):
    """The member `_read_only` of a dedicated IP that was deleted."""

    deleted = fields.Constant(True, **_required("The document is deleted"))


class DeletedIPSchema(DedicatedIPSchema):
    """A dedicated IP that was deleted, as it was before."""

    _read_only = fields.Nested(ReadOnlyDeletedSchema, required=True)


class ChangedAddressesSchema(ReplySchema):
    """The addresses that a request has assigned or released."""

    ips = fields.List(fields.String(), **_required("The addresses", examples.AVAILABLE))


class ReleasedAddressesSchema(ChangedAddressesSchema):
    """The addresses that a request has released, and those that stay assigned."""

    left = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": "The addresses that stay assigned because this release does not know "
            "their status, each with its status"
        },
    )


class AdditionSchema(ReplySchema):
    """The result of adding one address of a list."""

    ip = fields.String(**ADDRESS)
    result = fields.String(
        **_required("The result", examples=[outcome.value for outcome in AdditionOutcome])
    )
    zone = fields.String(metadata={"description": "Zone of the address, if the pool has it"})
    host = fields.String(metadata={"description": "Host of the address, if the pool has it"})


class AdditionsSchema(ReplySchema):
    """The results of adding the addresses of a list."""

    results = fields.List(
        fields.Nested(AdditionSchema), **_required("The results, in the order of the list")
    )


NAMES = fields.List(fields.String(), metadata={"title": "NameList"})
"""A sorted list of names."""

_IP, _READ_ONLY = DedicatedIPSchema(), ReadOnlySchema()


def dump_ip(ip: DedicatedIP) -> dict[str, Any]:
    """Return a dedicated IP as JSON."""
    return _IP.dump_fast(ip)


def dump_read_only(ip: DedicatedIP, **more: Any) -> dict[str, Any]:
    """Return a dedicated IP as JSON with the member `_read_only`.

    :param more: further members of `_read_only`
    """
    return {**_IP.dump_fast(ip), "_read_only": {**_READ_ONLY.dump_fast(ip), **more}}


def dump_addition(command: CreateIP, addition: AdditionResult) -> dict[str, Any]:
    """Return the result of adding one address as JSON."""
    is_added = addition.outcome is AdditionOutcome.ADDED
    found = command if is_added else addition.ip
    place = {"zone": found.zone, "host": found.host} if found else {}
    return {"ip": command.address, "result": str(addition.outcome), **place}
