"""Pages of the console leave out a part if CouchDB cannot answer its view."""

from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP, CreateIP
from tests.conftest import Member
from tests.console.browsing import Browser
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy

ADDRESS, ZONE, HOST = "192.0.2.1", "us-east", "proxy1.example.com"
LEFT_OUT = "Left out now"
PAGES = [
    "",
    "/addresses",
    f"/addresses?zone={ZONE}&host={HOST}&family=4",
    "/addresses?label=a:b",
    f"/addresses/{ADDRESS}",
    "/accounts",
    "/accounts/{account}",
    "/accounts/{account}/history",
    "/accounts/{account}/limits",
    "/accounts/{account}/reservations",
    "/history",
    f"/zone?name={ZONE}",
    f"/host?name={HOST}",
    f"/search?q={ZONE}",
    "/search?q=a:b",
    "/search?q=192.0.2.0/24",
    "/jobs",
    "/webhooks",
    "/status",
]
VIEWS = {
    "ips/by_address_or_time", "ips/by_assignee", "ips/by_host", "ips/by_label", "ips/by_zone",
    "history/by_account", "history/by_address", "history/by_day", "history/by_zone",
}  # fmt: skip


@pytest.fixture
def browser(
    proxied_wsgi: Any, operator: Member, services: Instance, pool: Any, alice: Member
) -> Browser:
    """The operator's browser, behind the proxy, and an address that Alice has."""
    services.pool.create(CreateIP(ADDRESS, ZONE, HOST), uuid4().hex)
    services.ips.assign(AssignIP(alice.id, ADDRESS), uuid4().hex)
    browser = Browser(proxied_wsgi)
    browser.log_in(operator)
    return browser


def view_path(view: str) -> str:
    design, name = view.split("/")
    return f"_design/{design}/_view/{name}$"


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_page_leaves_out_what_a_view_cannot_answer(
    browser: Browser, proxy: FaultProxy, alice: Member, view: str
) -> None:
    shown = 0
    for path in PAGES:
        url = f"/console{path.format(account=alice.id)}"
        rule = proxy.rule(faults.cut, "GET|POST", view_path(view), times=None)
        without = browser.open(url)
        # The events of one address need no view.
        expected = bool(rule.met) and view != "history/by_address"
        assert (LEFT_OUT in without.text) == expected, url
        shown += bool(rule.met)
        proxy.clear()
        assert LEFT_OUT not in browser.open(url).text, url
    assert shown


def test_what_is_left_out_is_not_shown_as_if_there_were_none(
    browser: Browser, proxy: FaultProxy, alice: Member
) -> None:
    proxy.rule(faults.cut, "GET|POST", "/_view/", times=None)
    nothing = {
        "": "The pool is empty",
        "/addresses": "No address matches",
        f"/accounts/{alice.id}": "has no addresses",
        f"/accounts/{alice.id}/history": "has never had",
        "/history": "No event matches",
        f"/zone?name={ZONE}": "does not run out",
        f"/search?q={ZONE}": "Nothing matches",
    }
    for path, text in nothing.items():
        page = browser.open(f"/console{path}").text
        assert text not in page
        assert LEFT_OUT in page


def test_a_zone_shows_its_counts_while_the_history_is_indexed(
    browser: Browser, proxy: FaultProxy
) -> None:
    proxy.rule(faults.cut, "GET|POST", "_design/history/_view/", times=None)
    page = browser.open(f"/console/zone?name={ZONE}")
    assert "1 addresses" in page.text
    assert HOST in page.text
    assert "its use over time" in page.text


def test_more_rows_of_a_table_are_an_error_if_they_cannot_be_read(
    browser: Browser, proxy: FaultProxy
) -> None:
    proxy.rule(faults.cut, "GET|POST", "/_view/", times=None)
    reply = browser.get("/console/history", headers={"HX-Request": "true"}, status=503)
    assert LEFT_OUT not in reply.text
    overview = browser.get("/console", headers={"HX-Request": "true"}, status=200)
    assert overview.text.count(LEFT_OUT) == 1
