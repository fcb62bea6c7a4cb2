"""Zones and hosts: how many addresses one has in each status, and what changed there."""

from flask import request
from werkzeug.exceptions import NotFound

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import events, forms, parts, plots
from kazoo_ips.console.pages import is_partial, page, pages
from kazoo_ips.console.parts import Part
from kazoo_ips.model import Scope, Summary, SummaryPage
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
    start = request.args.get("start_key")
    summaries = services().summaries
    found = parts.read(
        summary=Part("its counts", lambda: summaries.zone_count(name)),
        hosts=Part("its hosts", lambda: summaries.hosts(start, _HOSTS, name), SummaryPage(())),
        **({} if is_partial() else _details(name)),
    )
    summary = found["summary"]
    if summary is not None:
        if not summary.counts:
            raise NotFound
        found |= parts.read(
            summary=Part("when it runs out", lambda: _with_forecast(summary), summary)
        )
    hosts = found.pop("hosts")
    return page(
        "_hosts.html" if is_partial() else "zone.html",
        zone=name,
        hosts=hosts.items,
        next_page=forms.page_from(hosts.after),
        **found,
    )


def _with_forecast(summary: Summary) -> Summary:
    return services().summaries.with_forecasts([summary])[0]


def _details(zone: str) -> dict[str, Part]:
    """Return what only the whole page of a zone shows."""
    return {
        "use": Part("its use over time", lambda: plots.use_of(services().usage.series(zone))),
        "events": Part("what changed last", lambda: events.latest(_EVENTS, zone)),
        "state": Part("its settings", lambda: _state_of(Scope.ZONE, zone)),
    }


@pages.on("GET", "/host", who=Who.OPERATOR)
def show_host() -> str:
    """One host."""
    name = request.args.get("name", "")
    found = parts.read(
        summary=Part("its counts", lambda: services().summaries.host(name)),
        state=Part("whether it is drained", lambda: _state_of(Scope.HOST, name)),
    )
    if found["summary"] is not None and not found["summary"].counts:
        raise NotFound
    return page("host.html", host=name, **found)


def _state_of(scope: Scope, name: str) -> PlaceState:
    """Return the settings of a zone or a host."""
    return services().places.fetch(Place(scope, name))
