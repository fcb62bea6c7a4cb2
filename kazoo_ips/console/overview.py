"""The first page: the zones, what changed last, and what is wrong."""

from collections import Counter
from typing import Any, NoReturn

from flask import redirect, url_for
from werkzeug.exceptions import NotFound

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import parts
from kazoo_ips.console.events import latest
from kazoo_ips.console.pages import caller, is_partial, page, pages
from kazoo_ips.console.parts import Part

_EVENTS = 12
"""Number of events on the page."""


@pages.on("GET", "", who=Who.ACCOUNT)
def overview() -> Any:
    """The pool at a glance; for an account, its own page."""
    if not caller().is_operator:
        return redirect(url_for("console.show_account", account_id=caller().account.id))
    summaries = services().summaries
    found = parts.read_region(
        zones=Part("the zones", summaries.zone_counts),
        problems=Part("what is wrong", _problems, ()),
        events=Part("what changed last", lambda: latest(_EVENTS)),
    )
    zones = found["zones"]
    if zones:
        found |= parts.read_region(
            zones=Part("when zones run out", lambda: summaries.with_forecasts(zones), zones),
        )
    total = sum((Counter(zone.counts) for zone in zones or ()), Counter())
    template = "_overview.html" if is_partial() else "overview.html"
    return page(template, total=total, **found)


def _problems() -> list[str]:
    return [*services().health.problems(), *services().status.status().problems]


@pages.on("GET", "/<path:rest>", who=Who.ANYONE)
def nothing(rest: str) -> NoReturn:
    """The page for every other path."""
    raise NotFound
