"""Zones and hosts: how many addresses one has in each status, and what changed there."""

from typing import Any

from flask import request
from werkzeug.exceptions import NotFound

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import events, forms, plots
from kazoo_ips.console.pages import is_partial, page, pages
from kazoo_ips.model import Scope
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import PlaceState

_EVENTS = 12
"""Number of events on the page of a zone."""
_HOSTS = 50
"""Number of hosts on a page."""


@pages.on("GET", "/zone", who=Who.OPERATOR)
def show_zone() -> str:
    """One zone with its hosts. Its name is a parameter, because it may have any characters."""
    name = request.args.get("name", "")
    summary = services().summaries.zone(name)
    if not summary.counts:
        raise NotFound
    hosts = services().summaries.hosts(request.args.get("start_key"), _HOSTS, name)
    return page(
        "_hosts.html" if is_partial() else "zone.html",
        zone=name,
        summary=summary,
        hosts=hosts.items,
        next_page=forms.page_from(hosts.after),
        **({} if is_partial() else _details(name)),
    )


def _details(zone: str) -> dict[str, Any]:
    """Return what only the whole page of a zone shows."""
    use = plots.use_of(services().usage.series(zone))
    return {
        "use": use,
        "events": events.latest(_EVENTS, zone),
        "state": _state_of(Scope.ZONE, zone),
    }


@pages.on("GET", "/host", who=Who.OPERATOR)
def show_host() -> str:
    """One host."""
    name = request.args.get("name", "")
    summary = services().summaries.host(name)
    if not summary.counts:
        raise NotFound
    return page("host.html", host=name, summary=summary, state=_state_of(Scope.HOST, name))


def _state_of(scope: Scope, name: str) -> PlaceState:
    """Return the settings of a zone or a host."""
    return services().places.fetch(Place(scope, name))
