"""Jobs as JSON, in requests and replies."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validates_schema

from kazoo_ips.api import examples
from kazoo_ips.api.event_resources import AT, AuthorSchema, iso_time, member, optional
from kazoo_ips.api.fields import Flag, JobKey, Name, broken
from kazoo_ips.api.queries import PagedSchema
from kazoo_ips.api.resources import ReplySchema
from kazoo_ips.api.schemas import load_strictly
from kazoo_ips.model import MoveHost
from kazoo_ips.model.history import Author
from kazoo_ips.model.jobs import ItemResult, Job, JobItem, JobKind, JobState
from kazoo_ips.services.history import times
from kazoo_ips.services.jobs.plans import EvacuationPlan, MovePlan

SHOWN = 1000
"""Maximum number of addresses in the plan of an evacuation."""
COLUMNS = [
    "id", "kind", "state", "host", "to_host", "to_zone", "created", "created_iso_8601", "updated",
    "updated_iso_8601", "ended", "ended_iso_8601", *(f"by_{name}" for name in Author._fields),
    "request_id", "total", "done", "failed",
    *(f"results_{each.value}" for each in ItemResult),
]  # fmt: skip
"""The columns of jobs in CSV."""


class MoveHostSchema(Schema):
    """`data` of `POST /v2/ips/hosts/{host}/move`."""

    class Meta:
        """`load_strictly` reports unknown members."""

        unknown = EXCLUDE

    host = Name(metadata={"description": "The new host", "examples": [examples.OTHER_HOST]})
    zone = Name(metadata={"description": "The new zone; by default each address keeps its own"})

    @validates_schema
    def has_destination(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: the request has neither host nor zone"""
        if not data:
            raise ValidationError(
                broken("required", "Field is required but missing", value="host").messages, "host"
            )


class JobQuerySchema(PagedSchema):
    """The query of a job: which of its addresses are shown."""

    start_key = JobKey(metadata={"description": "The `next_start_key` of the previous page"})
    failed = Flag(
        metadata={"description": "Only addresses that the job could not move or replace"}
    )


class JobSchema(ReplySchema):
    """A job."""

    id = fields.String(**member("Id", examples.JOB_ID))
    kind = fields.String(**member("What it does", JobKind.MOVE.value))
    state = fields.String(
        **member(
            "State of the job: " + ", ".join(f"`{each.value}`" for each in JobState), "running"
        )
    )
    host = fields.String(**member("The host whose addresses it changes", examples.HOST))
    to_host = fields.String(**optional("The new host, if the job is a move"))
    to_zone = fields.String(**optional("The new zone, if the job is a move"))
    created = fields.Integer(**member("When it was created, in Gregorian seconds", AT))
    created_iso_8601 = fields.String(**iso_time())
    updated = fields.Integer(**member("When it last made progress, in Gregorian seconds", AT))
    updated_iso_8601 = fields.String(**iso_time())
    ended = fields.Integer(**optional("When it ended, in Gregorian seconds", AT))
    ended_iso_8601 = fields.String(**iso_time())
    by = fields.Nested(AuthorSchema, **member("Who has created it"))
    request_id = fields.String(**member("The request that has created it"))
    total = fields.Integer(**member("Number of its addresses", 256))
    done = fields.Integer(**member("Number of addresses that have a result", 250))
    failed = fields.Integer(**member("Number of addresses that it could not move or replace", 1))
    results = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        **member(
            "How many addresses have each result: "
            + ", ".join(f"`{each.value}`" for each in ItemResult)
        ),
    )


class JobListItemSchema(JobSchema):
    """One line of the list of jobs."""


class JobItemSchema(ReplySchema):
    """One address of a job, or of the plan of one."""

    ip = fields.String(**member("IP address", examples.ASSIGNED[0]))
    zone = fields.String(**member("Zone of the address when the job began", examples.ZONE))
    account_id = fields.String(**optional("Account that had it then", examples.ACCOUNT_ID))
    replaced_by = fields.String(**optional("Address that the account gets in addition"))
    result = fields.String(**optional("The result; missing while there is none"))


class JobWithItemsSchema(JobSchema):
    """A job with a page of its addresses."""

    items = fields.List(fields.Nested(JobItemSchema), **member("Addresses, with their results"))


class MovePlanCountSchema(ReplySchema):
    """How many addresses of one zone and one status would move."""

    zone = fields.String(**member("Zone", examples.ZONE))
    status = fields.String(**member("Status", "available"))
    addresses = fields.Integer(**member("How many addresses", 200))


class MovePlanSchema(ReplySchema):
    """What a move would do: the reply of a dry run."""

    host = fields.String(**member("The host", examples.HOST))
    to_host = fields.String(**optional("The new host"))
    to_zone = fields.String(**optional("The new zone"))
    total = fields.Integer(**member("How many addresses would move", 256))
    statuses = fields.Dict(
        keys=fields.String(), values=fields.Integer(), **member("How many have each status")
    )
    zones = fields.Dict(
        keys=fields.String(), values=fields.Integer(), **member("How many are in each zone")
    )
    counts = fields.List(
        fields.Nested(MovePlanCountSchema), **member("How many of each zone have each status")
    )


class ZonePlanSchema(ReplySchema):
    """What an evacuation needs of a zone."""

    zone = fields.String(**member("Zone", examples.ZONE))
    needed = fields.Integer(**member("How many addresses have to be replaced", 20))
    available = fields.Integer(**member("How many are available on other hosts", 12))
    shortfall = fields.Integer(**member("How many addresses cannot be replaced", 8))


class EvacuationPlanSchema(ReplySchema):
    """What an evacuation would do: the reply of a dry run."""

    host = fields.String(**member("The host", examples.HOST))
    total = fields.Integer(**member("How many addresses would be replaced", 20))
    shortfall = fields.Integer(**member("How many addresses cannot be replaced", 8))
    zones = fields.List(fields.Nested(ZonePlanSchema), **member("The zones, by name"))
    items = fields.List(
        fields.Nested(JobItemSchema),
        **member(f"The first {SHOWN} addresses, with addresses that are available now"),
    )


_MOVE = MoveHostSchema()


def load_move(host: str, data: Mapping[str, Any], other_members: Iterable[str]) -> MoveHost:
    """Return the command to move the addresses of a host.

    :param other_members: the members of the envelope besides `data`; unknown ones are errors
    :raises ValidationFailed: with every broken rule
    """
    given = load_strictly(_MOVE, data, other_members)
    return MoveHost(host, given.get("host"), given.get("zone"))


def dump(job: Job) -> dict[str, Any]:
    """Return a job as JSON."""
    moments = {"created": job.created, "updated": job.updated, "ended": job.ended}
    at = {name: moment for name, moment in moments.items() if moment is not None}
    to = {"to_host": job.to_host, "to_zone": job.to_zone}
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "host": job.host,
        **_present(to),
        **at,
        **_present({f"{name}_iso_8601": times.iso_8601(moment) for name, moment in at.items()}),
        "by": _present(job.by._asdict()),
        "request_id": job.request_id,
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "results": dict(sorted(job.counts.items())),
    }


def dump_item(item: JobItem) -> dict[str, Any]:
    """Return one address of a job as JSON."""
    rest = {
        "account_id": item.account_id,
        "replaced_by": item.replacement,
        "result": item.result and item.result.value,
    }
    return {"ip": item.address, "zone": item.zone, **_present(rest)}


def dump_move_plan(plan: MovePlan) -> dict[str, Any]:
    """Return what a move would do as JSON."""
    command = plan.command
    statuses: dict[str, int] = {}
    zones: dict[str, int] = {}
    for (status, zone), count in sorted(plan.counts.items()):
        statuses[status] = statuses.get(status, 0) + count
        zones[zone] = zones.get(zone, 0) + count
    return {
        "host": command.host,
        **_present({"to_host": command.to_host, "to_zone": command.to_zone}),
        "total": sum(zones.values()),
        "statuses": statuses,
        "zones": zones,
        "counts": [
            {"zone": zone, "status": status, "addresses": count}
            for (status, zone), count in sorted(plan.counts.items())
        ],
    }


def dump_evacuation_plan(plan: EvacuationPlan) -> dict[str, Any]:
    """Return what an evacuation would do as JSON."""
    zones = [
        {
            "zone": zone.zone,
            "needed": zone.needed,
            "available": zone.available,
            "shortfall": zone.shortfall,
        }
        for zone in plan.zones
    ]
    return {
        "host": plan.command.host,
        "total": plan.total,
        "shortfall": sum(zone.shortfall for zone in plan.zones),
        "zones": zones,
        "items": [dump_item(item) for item in plan.items],
    }


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
