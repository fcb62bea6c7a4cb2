"""`/v2/ips`: the pool, for the operator."""

from typing import Any

from flask import Response, g

from kazoo_ips.api import (
    address_schemas,
    bodies,
    envelope,
    examples,
    lists,
    queries,
    resources,
    schemas,
)
from kazoo_ips.api.preconditions import if_match
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import Conflict, LimitReached, PreconditionFailed, PreconditionRequired
from kazoo_ips.model import DedicatedIP, DeleteIP, DisableIP, EnableIP, EndRest

routes = Routes("ips", __name__, url_prefix="/v2/ips")


@routes.on(
    "GET",
    "",
    who=Who.OPERATOR,
    replies=lists.POOL_LINES,
    query=queries.PoolSchema,
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
    "body": (bodies.CreateIPSchema, bodies.CreateIPListSchema),
    "if_match": True,
    "dry_run": True,
    "links": ("get_pool_ip", "delete_pool_ip"),
    "raises": (Conflict,),
}
"""The description of `PUT`, for the two paths that have it."""


@routes.on("PUT", "", operation_id="create_pool_ips", **CREATION)
def create() -> Response:
    """Add an address to the pool, or a list of addresses: all or none."""
    command = bodies.load_create(g.envelope.data(), g.envelope.other_members)
    if if_match():  # an address that does not exist has no revision that could match
        raise PreconditionFailed
    if isinstance(command, list):
        created = services().bulk_additions.create_all(command, **write())
        data = [resources.dump_read_only(ip) for ip in created]
        return envelope.success({"ips": data}, status=201)
    ip = services().pool.create(command, **write())
    return envelope.success(resources.dump_read_only(ip), status=201, revision=ip.revision)


@routes.on(
    "POST",
    "/import",
    who=Who.OPERATOR,
    replies=resources.AdditionsSchema(),
    body=(bodies.CreateIPListSchema,),
    dry_run=True,
    operation_id="import_pool_ips",
    links=("get_pool_ip", "delete_pool_ip"),
)
def import_list() -> Response:
    """Add the addresses of a list that the pool does not have, each independently of the others.

    The reply has a result for each address. Addresses that the pool has already are not changed,
    so the same list can be sent again.
    """
    commands = bodies.load_import(g.envelope.data(), g.envelope.other_members)
    additions = services().bulk_additions.add_each(commands, **write())
    results = zip(commands, additions, strict=True)
    return envelope.success({"results": [resources.dump_addition(c, a) for c, a in results]})


@routes.on(
    "GET",
    "/assigned",
    who=Who.OPERATOR,
    replies=lists.OWNED_LINES,
    query=queries.AllAssignedSchema,
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
    "POST",
    "/transfer",
    who=Who.BETWEEN,
    replies=resources.ChangedAddressesSchema(),
    body=(bodies.TransferSchema,),
    dry_run=True,
    operation_id="transfer_ips",
    raises=(Conflict, LimitReached),
)
def transfer() -> Response:
    """Transfer addresses from an account to another one, all or none.

    One write transfers an address, so no third account can get it in between.
    """
    command = bodies.load_transfer(g.envelope.data(), g.envelope.other_members)
    transferred = services().transfers.transfer(command, **write())
    return envelope.success({"ips": [ip.address for ip in transferred]})


@routes.on(
    "GET",
    "/<address:address>",
    who=Who.OPERATOR,
    replies=address_schemas.PoolIPSchema(),
    operation_id="get_pool_ip",
    examples={"address": examples.ASSIGNED[0]},
    links=("change_pool_ip", "delete_pool_ip"),
)
def fetch(address: str) -> Response:
    """One dedicated IP."""
    return _ip(services().ips.fetch(address))


@routes.on(
    "PATCH",
    "/<address:address>",
    who=Who.OPERATOR,
    replies=address_schemas.PoolIPSchema(),
    body=(address_schemas.ChangeIPSchema,),
    if_match=True,
    dry_run=True,
    operation_id="change_pool_ip",
    examples={"address": examples.AVAILABLE[0]},
    links=("get_pool_ip", "delete_pool_ip"),
    raises=(Conflict, PreconditionRequired),
)
def change(address: str) -> Response:
    """Change the zone, the host or the notes of an address, or its state (JSON Merge Patch).

    Members that the request leaves out do not change. The zone and the host of an assigned address
    change only with If-Match; the account keeps the address, and its copy changes too. `enabled`
    disables the address or enables it again, and `status` ends its rest; each of these two needs a
    request of its own.
    """
    data, other_members = g.envelope.data(), g.envelope.other_members
    match address_schemas.load_change(address, data, other_members, if_match()):
        case DisableIP() as command:
            return _ip(services().operator_changes.disable(command, **write()))
        case EnableIP() as command:
            return _ip(services().operator_changes.enable(command, **write()))
        case EndRest() as command:
            return _ip(services().operator_changes.end_rest(command, **write()))
        case command:
            return _ip(services().address_changes.change(command, **write()))


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
    force = schemas.load_force(g.envelope.value("force"))
    command = DeleteIP(address, force, if_match())
    ip = services().pool.delete(command, **write())
    return envelope.success(resources.dump_read_only(ip, deleted=True), revision=ip.revision)


def _ip(ip: DedicatedIP) -> Response:
    return envelope.success(address_schemas.dump_pool_ip(ip), revision=ip.revision)
