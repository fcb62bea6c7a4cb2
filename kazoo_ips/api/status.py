"""What runs where, and what is wrong."""

from flask import Response
from marshmallow import fields

from kazoo_ips.api import envelope
from kazoo_ips.api.event_resources import AT, member, optional
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services

routes = Routes("status", __name__, url_prefix="/v2/ips")


class WorkerSchema(ReplySchema):
    """A worker of the service."""

    host = fields.String(**member("Name of the machine"))
    pid = fields.Integer(**member("Id of the process"))
    release = fields.String(**member("Version of the service"))
    started = fields.Integer(**member("When it started, in Gregorian seconds", AT))
    seen = fields.Integer(**member("When it was last known to run, in Gregorian seconds", AT))


class ClusterSchema(ReplySchema):
    """The nodes of CouchDB."""

    version = fields.String(**member("Version of CouchDB", "3.5.0"))
    connected = fields.List(fields.String(), **member("Connected nodes; empty if not known"))
    missing = fields.List(fields.String(), **member("Nodes that are not connected"))
    replicas = fields.Integer(**member("How many nodes keep each document", 3))
    has_quorum = fields.Boolean(
        allow_none=True,
        **member(
            "Whether a majority of the replicas of each shard is connected; null if not known"
        ),
    )


class IndexSchema(ReplySchema):
    """An index of CouchDB."""

    database = fields.String(**member("The database", "dedicated_ips"))
    name = fields.String(**member("Name of the design document", "ips"))
    pending = fields.Integer(
        allow_none=True, **member("Changes that are not in the index; null if not known")
    )
    is_building = fields.Boolean(**member("Whether CouchDB is updating it"))


class BackgroundWorkSchema(ReplySchema):
    """Background work that one process of all does."""

    name = fields.String(**member("Name of the work", "history"))
    is_held = fields.Boolean(**member("Whether a process does it now"))
    behind = fields.Integer(
        allow_none=True, **member("Seconds by which it is behind; null if unknown")
    )


class FindingSchema(ReplySchema):
    """One problem that the doctor has found."""

    problem = fields.String(**member("Name of the problem", "conflict"))
    ip = fields.String(allow_none=True, **member("The address; null if there is none"))
    account_id = fields.String(allow_none=True, **member("The account; null if there is none"))


class DoctorReportSchema(ReplySchema):
    """The result of the last examination by the doctor."""

    started = fields.Integer(**member("When it began, in Gregorian seconds", AT))
    ended = fields.Integer(**member("When it ended, in Gregorian seconds", AT))
    by = fields.String(**member("`background`, or the name of the command"))
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        **member("Number of problems that are not repaired, by name"),
    )
    examples = fields.List(fields.Nested(FindingSchema), **member("Some of them"))


class StatusSchema(ReplySchema):
    """The state of all instances of the service."""

    at = fields.Integer(**member("Now, in Gregorian seconds", AT))
    problems = fields.List(fields.String(), **member("What is wrong, one sentence each"))
    workers = fields.List(fields.Nested(WorkerSchema), **member("The workers that run"))
    cluster = fields.Nested(ClusterSchema, **member("The nodes of CouchDB"))
    indexes = fields.List(fields.Nested(IndexSchema), **member("The indexes of CouchDB"))
    background = fields.List(fields.Nested(BackgroundWorkSchema), **member("The background work"))
    low_zones = fields.List(fields.String(), **member("Zones with few available addresses"))
    doctor = fields.Nested(
        DoctorReportSchema,
        allow_none=True,
        **optional("What the doctor has found; null if it has not run yet"),
        required=True,
    )


@routes.on("GET", "/status", who=Who.OPERATOR, replies=StatusSchema(), operation_id="get_status")
def fetch() -> Response:
    """What runs where: the workers, CouchDB, the background work, the doctor; what is wrong."""
    return envelope.success(services().status.as_json())
