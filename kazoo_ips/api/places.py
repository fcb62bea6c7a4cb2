"""`/v2/ips/zones/{zone}` and `/v2/ips/hosts/{host}`: their settings, and draining."""

from typing import Any

from flask import Response, g

from kazoo_ips.api import envelope, examples, place_schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import Routes, services, write
from kazoo_ips.errors import Conflict
from kazoo_ips.model import Scope
from kazoo_ips.services.states.draining import Place

routes = Routes("places", __name__, url_prefix="/v2/ips")

_HOST: dict[str, Any] = {
    "who": Who.OPERATOR,
    "replies": place_schemas.HostSchema(),
    "examples": {"host": examples.HOST},
}
_ZONE: dict[str, Any] = {
    "who": Who.OPERATOR,
    "replies": place_schemas.ZoneSchema(),
    "examples": {"zone": examples.ZONE},
}
_CHANGE: dict[str, Any] = {"dry_run": True, "raises": (Conflict,)}


@routes.on("GET", "/hosts/<host>", operation_id="get_pool_host", **_HOST)
def fetch_host(host: str) -> Response:
    """One host: how many addresses it has, and whether it is drained."""
    return _fetch(Place(Scope.HOST, host))


@routes.on("GET", "/zones/<zone>", operation_id="get_pool_zone", **_ZONE)
def fetch_zone(zone: str) -> Response:
    """One zone: how many addresses it has, and its settings."""
    return _fetch(Place(Scope.ZONE, zone))


@routes.on(
    "PATCH",
    "/hosts/<host>",
    operation_id="patch_pool_host",
    body=(place_schemas.PatchHostSchema,),
    **_HOST,
    **_CHANGE,
)
def patch_host(host: str) -> Response:
    """Drain a host, or enable it again.

    While a host is drained, its assigned addresses stay assigned. All others are `disabled`, and
    so is every address that is released or added there later. Enabling the host enables exactly
    these addresses. The service replies after a few seconds at most. It disables addresses that
    are still `pending` then in the background.
    """
    return _change(Place(Scope.HOST, host))


@routes.on(
    "PATCH",
    "/zones/<zone>",
    operation_id="patch_pool_zone",
    body=(place_schemas.PatchZoneSchema,),
    **_ZONE,
    **_CHANGE,
)
def patch_zone(zone: str) -> Response:
    """Drain a zone, enable it again, or change its other settings.

    Draining a zone does the same as draining a host. `aging_seconds` applies to the releases from
    now on.
    """
    return _change(Place(Scope.ZONE, zone))


def _fetch(place: Place) -> Response:
    return envelope.success(place_schemas.dump_place(services().places.fetch(place)))


def _change(place: Place) -> Response:
    command = place_schemas.load_change(place, g.envelope.data(), g.envelope.other_members)
    state = services().places.change(command, **write())
    return envelope.success(place_schemas.dump_place(state))
