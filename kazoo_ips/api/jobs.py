"""Jobs of the operator: moving and evacuating a host, and the progress of that."""

from flask import Response, g, request

from kazoo_ips.api import envelope, fields, job_schemas, lists, queries
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.errors import JobExists
from kazoo_ips.model import EvacuateHost, MoveHost

routes = Routes("jobs", __name__, url_prefix="/v2/ips")

_JOB = job_schemas.JobSchema()


@routes.on(
    "POST",
    "/hosts/<host>/move",
    who=Who.OPERATOR,
    replies=(_JOB, job_schemas.MovePlanSchema()),
    status=202,
    body=(job_schemas.MoveHostSchema,),
    dry_run=True,
    operation_id="move_host",
    links=("get_job", "stop_job"),
    raises=(JobExists,),
)
def move(host: str) -> Response:
    """Move all addresses of a host to another host or zone. Each account keeps its addresses.

    The reply is the job, which continues after the reply. A dry run returns what would move.
    """
    command = job_schemas.load_move(host, g.envelope.data(), g.envelope.other_members)
    if g.get("dry_run"):
        return envelope.success(job_schemas.dump_move_plan(services().plans.move(command)))
    return _created(command)


@routes.on(
    "POST",
    "/hosts/<host>/evacuate",
    who=Who.OPERATOR,
    replies=(_JOB, job_schemas.EvacuationPlanSchema()),
    status=202,
    dry_run=True,
    operation_id="evacuate_host",
    links=("get_job", "stop_job"),
    raises=(JobExists,),
)
def evacuate(host: str) -> Response:
    """Give each account on a host additional addresses of the same zone, on other hosts.

    An account keeps the old addresses until it releases them. Each of them names its replacement
    in `replaced_by`. The reply is the job, which continues after the reply. A dry run returns the
    plan.
    """
    command = EvacuateHost(host)
    if g.get("dry_run"):
        plan = services().plans.evacuate(command, job_schemas.SHOWN)
        return envelope.success(job_schemas.dump_evacuation_plan(plan))
    return _created(command)


def _created(command: MoveHost | EvacuateHost) -> Response:
    job = services().jobs.create(command, g.request_id, attempt=g.get("attempt"))
    response = envelope.success(job_schemas.dump(job), status=202)
    response.headers["Location"] = f"/v2/ips/jobs/{job.id}"
    return response


@routes.on(
    "GET",
    "/jobs",
    who=Who.OPERATOR,
    replies=job_schemas.JobListItemSchema(many=True),
    query=queries.ShortListSchema,
    csv=True,
    operation_id="list_jobs",
    links=("get_job", "stop_job"),
)
def list_all() -> Response:
    """The jobs of the last 30 days, the latest first."""
    found = services().jobs.list()
    return lists.short(found, lambda job: job.order, job_schemas.dump, job_schemas.COLUMNS)


@routes.on(
    "GET",
    "/jobs/<job_id>",
    who=Who.OPERATOR,
    replies=job_schemas.JobWithItemsSchema(),
    query=job_schemas.JobQuerySchema,
    operation_id="get_job",
    links=("stop_job",),
)
def fetch(job_id: str) -> Response:
    """One job: its state, its progress, and a page of its addresses with their results."""
    job = services().jobs.fetch(job_id)
    given = g.query
    page = services().jobs.items(
        job,
        given.get("page_size", queries.PAGE) if given.get("paginate", True) else None,
        given.get("start_key", (0, 0)),
        failed=bool(given.get("failed")),
    )
    items = [job_schemas.dump_item(item) for item in page.items]
    return envelope.success(
        {**job_schemas.dump(job), "items": items},
        page_size=len(items),
        start_key=request.args.get("start_key"),
        next_start_key=fields.start_key(page.after) if page.after else None,
    )


@routes.on(
    "DELETE",
    "/jobs/<job_id>",
    who=Who.OPERATOR,
    replies=_JOB,
    dry_run=True,
    operation_id="stop_job",
    links=("get_job",),
)
def stop(job_id: str) -> Response:
    """Stop a job. It finishes the addresses that it is changing now, and changes no others.

    A job that has ended does not change.
    """
    job = services().jobs.stop(job_id, dry_run=g.get("dry_run", False))
    return envelope.success(job_schemas.dump(job))
