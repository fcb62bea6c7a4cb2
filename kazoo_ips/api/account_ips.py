"""`/v2/accounts/{account_id}/ips`: the addresses of an account, and those that it can get."""

from functools import partial

from flask import Response, g

from kazoo_ips.api import (
    bodies,
    envelope,
    examples,
    ips,
    lists,
    queries,
    resources,
    schemas,
)
from kazoo_ips.api.preconditions import if_match
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, caller, services, write
from kazoo_ips.errors import Conflict, InsufficientIPs, LimitReached, ReservationExpired
from kazoo_ips.model import AllocateIPs, AssignIP, DedicatedIP, ReleaseIP

routes = Routes("account_ips", __name__, url_prefix="/v2/accounts/<account_id>/ips")

_AVAILABLE = {"address": examples.AVAILABLE[0]}
_ASSIGNED = {"address": examples.ASSIGNED[0]}


@routes.on(
    "GET",
    "",
    who=Who.ACCOUNT,
    replies=lists.LINES,
    query=queries.AvailableSchema,
    csv=True,
    operation_id="list_available_ips",
    links=("get_ip", "assign_ip"),
)
def list_available(account_id: str) -> Response:
    """The available addresses."""
    return lists.reply(services().lists.available)


@routes.on("PUT", "", operation_id="create_pool_ips_from_account", **ips.CREATION)
def create(account_id: str) -> Response:
    """Add an address to the pool.

    Crossbar's documentation shows this path in its curl example.
    """
    return ips.create()


@routes.on(
    "POST",
    "",
    who=Who.ACCOUNT,
    replies=resources.ChangedAddressesSchema(),
    body=(
        bodies.AssignSchema,
        bodies.AllocateSchema,
        bodies.AssignReservedSchema,
    ),
    body_name="AssignOrAllocate",
    dry_run=True,
    operation_id="assign_ips",
    links=("get_ip", "release_ip", "release_ips"),
    raises=(Conflict, InsufficientIPs, LimitReached, ReservationExpired),
)
def assign_all(account_id: str) -> Response:
    """Assign addresses, all or none.

    The body names the addresses, a quantity of available addresses for the service to choose, or a
    reservation of the account.
    """
    data, other_members = g.envelope.data(), g.envelope.other_members
    reserved = bodies.load_reserved(account_id, data, other_members)
    if reserved:
        return _addresses(services().reservations.assign(reserved, **write()))
    command = bodies.load_assign(account_id, data, other_members)
    if isinstance(command, AllocateIPs):
        return _addresses(services().allocation.allocate(command, **write()))
    return _addresses(services().ips.assign_all(command, **write()))


@routes.on(
    "DELETE",
    "",
    who=Who.ACCOUNT,
    replies=resources.ReleasedAddressesSchema(),
    body=(bodies.AddressesSchema,),
    optional_body=True,
    dry_run=True,
    query=schemas.ReleaseSchema,
    operation_id="release_ips",
    links=("get_ip", "assign_ip"),
    raises=(Conflict,),
)
def release_all(account_id: str) -> Response:
    """Release addresses, all or none.

    The body names the addresses. Without a body, all addresses of the account are released; with
    `replaced=true`, only those that an evacuation of their host has replaced.
    """
    data = g.envelope.data(required=False)
    replaced = schemas.load_replaced(g.envelope.value("replaced"))
    command = bodies.load_release(account_id, data, replaced=replaced)
    ips = services().ips.release_all(command, **write())
    left = {ip.address: ip.status for ip in ips if not ip.has_known_status}
    released = [ip.address for ip in ips if ip.has_known_status]
    return envelope.success({"ips": released, **({"left": left} if left else {})})


@routes.on(
    "GET",
    "/assigned",
    who=Who.ACCOUNT,
    replies=lists.OWNED_LINES,
    query=queries.AccountAssignedSchema,
    csv=True,
    operation_id="list_assigned_ips",
    links=("get_ip", "release_ip"),
)
def list_assigned(account_id: str) -> Response:
    """The addresses that are assigned to the account, and on request to the accounts below it.

    With `descendants=true` the addresses of the account come first, then those of each account
    below it, by the account's id. A page can have fewer lines than `page_size`, or none, although
    more pages follow.
    """
    if g.query.get("descendants"):
        in_tree = services().tree_lists.assigned
        return lists.reply(partial(in_tree, account_id=account_id), owner=True)
    return lists.reply(partial(services().lists.assigned, account_id=account_id))


@routes.on("GET", "/zones", who=Who.ACCOUNT, replies=resources.NAMES, csv=True)
def list_zones(account_id: str) -> Response:
    """The zones of all addresses in the pool."""
    return lists.names("zone", services().lists.zones())


@routes.on("GET", "/hosts", who=Who.ACCOUNT, replies=resources.NAMES, csv=True)
def list_hosts(account_id: str) -> Response:
    """The hosts of all addresses in the pool."""
    return lists.names("host", services().lists.hosts())


@routes.on(
    "GET",
    "/<address:address>",
    who=Who.ACCOUNT,
    replies=resources.DedicatedIPSchema(),
    operation_id="get_ip",
    examples=_ASSIGNED,
    links=("assign_ip", "release_ip"),
)
def fetch(account_id: str, address: str) -> Response:
    """One dedicated IP."""
    return _ip(services().ips.fetch(address, caller()))


@routes.on(
    "POST",
    "/<address:address>",
    who=Who.ACCOUNT,
    replies=resources.DedicatedIPSchema(),
    ignores_body=True,
    if_match=True,
    dry_run=True,
    operation_id="assign_ip",
    examples=_AVAILABLE,
    links=("get_ip", "release_ip"),
    raises=(Conflict, LimitReached),
)
def assign(account_id: str, address: str) -> Response:
    """Assign one address.

    Kazoo's SDKs send the whole document in the body. The service ignores it.
    """
    command = AssignIP(account_id, address, if_match())
    return _ip(services().ips.assign(command, **write()))


@routes.on(
    "DELETE",
    "/<address:address>",
    who=Who.ACCOUNT,
    replies=resources.DedicatedIPSchema(),
    ignores_body=True,
    if_match=True,
    dry_run=True,
    operation_id="release_ip",
    examples=_ASSIGNED,
    links=("get_ip", "assign_ip"),
    raises=(Conflict,),
)
def release(account_id: str, address: str) -> Response:
    """Release one address."""
    command = ReleaseIP(account_id, address, if_match())
    return _ip(services().ips.release(command, **write()))


def _ip(ip: DedicatedIP) -> Response:
    return envelope.success(resources.dump_ip(ip), revision=ip.revision)


def _addresses(changed: list[DedicatedIP]) -> Response:
    return envelope.success({"ips": [ip.address for ip in changed]})
