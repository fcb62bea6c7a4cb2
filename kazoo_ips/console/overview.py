"""The first page: the zones, what changed last, and what is wrong."""

from collections import Counter
from typing import Any, NoReturn

from flask import redirect, url_for
from werkzeug.exceptions import NotFound

from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console.events import latest
from kazoo_ips.console.pages import caller, is_partial, page, pages
from kazoo_ips.services.pool.summaries import walk

_EVENTS = 12
"""Number of events on the page."""


@pages.on("GET", "", who=Who.ACCOUNT)
def overview() -> Any:
    """The pool at a glance; for an account, its own page."""
    if not caller().is_operator:
        return redirect(url_for("console.show_account", account_id=caller().account.id))
    zones = list(walk(services().summaries.zones))
    return page(
        "_overview.html" if is_partial() else "overview.html",
        zones=zones,
        total=sum((Counter(zone.counts) for zone in zones), Counter()),
        problems=[*services().health.problems(), *services().status.status().problems],
        events=latest(_EVENTS),
    )


@pages.on("GET", "/<path:rest>", who=Who.ANYONE)
def nothing(rest: str) -> NoReturn:
    """The page for every other path."""
    raise NotFound
