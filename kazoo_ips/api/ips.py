"""`/v2/ips`: the pool, for the operator."""

from typing import Any

from flask import Response, g

from kazoo_ips.api import envelope, examples, lists, resources, schemas
from kazoo_ips.api.preconditions import if_match
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import Conflict, PreconditionFailed
from kazoo_ips.model import DeleteIP

routes = Routes("ips", __name__, url_prefix="/v2/ips")


@routes.on(
    "GET",
    "",
    who=Who.OPERATOR,
    replies=lists.POOL_LINES,
    query=schemas.PoolSchema,
    csv=True,
    operation_id="list_available_pool_ips",
    links=("get_pool_ip", "delete_pool_ip"),
)
def list_available() -> Response:
    """The addresses of the pool; without filters, those that are available.

    If the filters permit other statuses, each line has `status`. The line of an assigned address
    also has `assigned_to` and `account_name`.
    """
    return lists.reply(services().lists.pool, detailed=True)


CREATION: dict[str, Any] = {
    "who": Who.OPERATOR,
    "replies": (resources.CreatedIPSchema(), resources.CreatedIPListSchema()),
    "status": 201,
    "body": (schemas.CreateIPSchema, schemas.CreateIPListSchema),
    "if_match": True,
    "dry_run": True,
    "links": ("get_pool_ip", "delete_pool_ip"),
    "raises": (Conflict,),
}
"""The description of `PUT`, for the two paths that have it."""


@routes.on("PUT", "", operation_id="create_pool_ips", **CREATION)
def create() -> Response:
    """Add an address to the pool, or a list of addresses: all or none."""
    command = schemas.load_create(g.envelope.data(), g.envelope.beside_data)
    if if_match():  # an address that does not exist has no revision that could match
        raise PreconditionFailed
    if isinstance(command, list):
        created = services().bulk_additions.create_all(command, **write())
        data = [resources.dump_read_only(ip) for ip in created]
        return envelope.success({"ips": data}, status=201)
    ip = services().pool.create(command, **write())
    return envelope.success(resources.dump_read_only(ip), status=201, revision=ip.revision)


@routes.on(
    "GET",
    "/assigned",
    who=Who.OPERATOR,
    replies=lists.OWNED_LINES,
    query=schemas.AllAssignedSchema,
    csv=True,
    operation_id="list_assigned_pool_ips",
    links=("get_pool_ip",),
)
def list_assigned() -> Response:
    """The assigned addresses of all accounts, each with its account."""
    return lists.reply(services().lists.assigned, owner=True)


@routes.on(
    "GET",
    "/zones",
    who=Who.OPERATOR,
    replies=resources.NAMES,
    csv=True,
    operation_id="list_pool_zones",
)
def list_zones() -> Response:
    """The zones of all addresses."""
    return lists.names("zone", services().lists.zones())


@routes.on(
    "GET",
    "/hosts",
    who=Who.OPERATOR,
    replies=resources.NAMES,
    csv=True,
    operation_id="list_pool_hosts",
)
def list_hosts() -> Response:
    """The hosts of all addresses."""
    return lists.names("host", services().lists.hosts())


@routes.on(
    "GET",
    "/<address:address>",
    who=Who.OPERATOR,
    replies=resources.DedicatedIPSchema(),
    operation_id="get_pool_ip",
    examples={"address": examples.ASSIGNED[0]},
    links=("delete_pool_ip",),
)
def fetch(address: str) -> Response:
    """One dedicated IP."""
    ip = services().ips.fetch(address)
    return envelope.success(resources.dump_ip(ip), revision=ip.revision)


@routes.on(
    "DELETE",
    "/<address:address>",
    who=Who.OPERATOR,
    replies=resources.DeletedIPSchema(),
    query=schemas.DeleteSchema,
    if_match=True,
    dry_run=True,
    operation_id="delete_pool_ip",
    examples={"address": examples.AVAILABLE[0]},
    raises=(Conflict,),
)
def delete(address: str) -> Response:
    """Delete an address from the pool. `force=true` releases it first."""
    data = g.envelope.members.get("data")
    members = {*g.envelope.beside_data, *(data if isinstance(data, dict) else ())}
    force = schemas.load_force(g.envelope.text("force"), members)
    command = DeleteIP(address, force, if_match())
    ip = services().pool.delete(command, **write())
    return envelope.success(resources.dump_read_only(ip, deleted=True), revision=ip.revision)
