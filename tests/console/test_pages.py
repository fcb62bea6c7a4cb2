"""Every page: who may open it, what it shows, and its headers."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.console import sessions
from kazoo_ips.console.formats import ago, number, parts, percent
from kazoo_ips.model import AssignIP, CreateIP, DedicatedIP, DeleteIP, ReleaseIP
from tests.conftest import Member
from tests.console.browsing import HTML, Browser
from tests.servers import free_port

NAME = "<script>alert(1)</script>\"'&"
"""The name of a zone. It may have any visible characters."""


@pytest.fixture
def filled(services: Instance, pool: Any, alice: Member, bob: Member) -> None:
    """A pool with a zone whose name contains HTML. Alice and Bob have an address each."""
    for address, zone in (("192.0.2.1", NAME), ("192.0.2.2", "us-east"), ("192.0.2.3", "us-east")):
        services.pool.create(CreateIP(address, zone, f"host {zone}"), uuid4().hex)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    services.ips.assign(AssignIP(bob.id, "192.0.2.2"), uuid4().hex)


def rules(wsgi: Any, method: str) -> list[Any]:
    """Return the rules of the console with a method, without those for files and the login."""
    return [
        rule
        for rule in wsgi.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and method in rule.methods
    ]


ANYONE = {"/console/login", "/console/static/<name>", "/console/<path:rest>", "/console/logout"}


def path_of(rule: Any, account: Member) -> str:
    """Return a path of a rule, with the account's id, and 192.0.2.1."""
    return re.sub(
        r"<(?:\w+:)?(\w+)>",
        lambda m: {"account_id": account.id, "address": "192.0.2.1"}.get(m[1], "0" * 32),
        rule.rule,
    )


HARMFUL = "a\x1b]0;t\x07b\u202ec\u200bd"
SHOWN = r"a\x1b]0;t\x07b\u202ec\u200bd"


def test_a_page_shows_control_characters_escaped_and_its_forms_send_them(
    owner: Browser, services: Instance, pool: Any
) -> None:
    services.pool.create(CreateIP("192.0.2.1", HARMFUL, HARMFUL), uuid4().hex)
    name = quote(HARMFUL, safe="")
    paths = ("/addresses", "/addresses/192.0.2.1", f"/host?name={name}", f"/zone?name={name}")
    shown = [owner.get(f"/console{path}", status=200).text for path in paths]
    for text in shown:
        visible = re.sub("<[^>]*>", "", text)
        assert not re.search("[\x1b\x07\u202e\u200b]", visible)
        assert SHOWN in visible
    assert f'name="name" value="{HARMFUL}"' in shown[2]


def test_without_a_login_every_page_leads_to_it(
    wsgi: Any, visitor: Browser, alice: Member
) -> None:
    for rule in rules(wsgi, "GET"):
        if rule.rule not in ANYONE:
            reply = visitor.get(path_of(rule, alice), status=303)
            assert "/console/login?next=/console" in reply.location
    for rule in rules(wsgi, "POST"):
        if rule.rule not in {"/console/login", "/console/logout"}:
            visitor.post(path_of(rule, alice), status=303)


def test_an_account_opens_no_page_of_the_operator_or_of_others(
    wsgi: Any, hers: Browser, bob: Member, filled: None
) -> None:
    statuses = {}
    for method in ("GET", "POST"):
        for rule in rules(wsgi, method):
            if rule.rule in ANYONE or rule.rule == "/console":
                continue
            path = path_of(rule, bob).replace("192.0.2.1", "192.0.2.2")
            if method == "GET":
                reply = hers.get(path, status="*")
            else:
                reply = hers.post(path, {"csrf": hers.token(), "confirmed": "yes"}, status="*")
            statuses[method, rule.rule] = reply.status_int
            assert "Bob" not in reply.text
    assert set(statuses.values()) == {403, 404}
    hidden = {rule for (_, rule), status in statuses.items() if status == 404}
    assert hidden == {
        f"/console/addresses/<address>{action}"
        for action in ("", "/assign", "/release", "/reserve")
    }


PAGES = [
    "/console", "/console/addresses", "/console/addresses?zone=us-east&status=assigned",
    "/console/addresses/192.0.2.1", "/console/addresses/192.0.2.3", "/console/accounts",
    "/console/accounts/{A}", "/console/accounts/{A}/history", "/console/accounts/{A}/webhooks",
    "/console/accounts/{A}/limits", "/console/accounts/{A}/reservations",
    "/console/history", "/console/history?from=2020-01-01&account={A}", "/console/import",
    "/console/search?q=ali", "/console/search?q=192.0.2.0/30", "/console/webhooks",
    "/console/zone?name=us-east", "/console/status", "/console/jobs",
    "/console/host?name=host%20us-east",
]  # fmt: skip


WHOLE = ("/import", "/webhooks", "/host", "/limits", "/reservations")
"""The pages of which htmx fetches no part."""


@pytest.mark.parametrize("path", PAGES)
def test_the_operator_opens_every_page(
    owner: Browser, alice: Member, filled: None, path: str
) -> None:
    path = path.replace("{A}", alice.id)
    reply = owner.open(path)
    assert reply.headers["Content-Type"] == HTML
    assert NAME not in reply.text
    assert "<script>" not in reply.text
    for name, value in {
        "Cache-Control": "no-store",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }.items():
        assert reply.headers.getall(name) == [value]
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\sstyle=|\son\w+=|https?://(?!receiver\.example)", reply.text)
    part = owner.get(path, headers={"HX-Request": "true"})  # as htmx fetches it
    assert ("<html" in part.text) == path.partition("?")[0].endswith(WHOLE)


def test_a_page_of_the_console_allows_no_other_origin(owner: Browser) -> None:
    reply = owner.get("/console", headers={"Origin": "https://evil.example"})
    assert not [name for name in reply.headers if name.startswith("Access-Control")]
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = owner.options("/console/logout", headers=preflight, status="*")
    assert not [name for name in reply.headers if name.startswith("Access-Control")]


def test_the_names_of_zones_hosts_and_accounts_are_text(
    owner: Browser, services: Instance, operator: Member, filled: None
) -> None:
    realm = f"x{uuid4().hex[:6]}.example.com"
    account = services.accounts.create("<img src=x onerror=alert(1)>", realm, operator.id)
    services.ips.assign(AssignIP(account.id, "192.0.2.3"), uuid4().hex)
    for path in ("/console", "/console/addresses", "/console/addresses/192.0.2.3",
                 "/console/accounts", f"/console/accounts/{account.id}", "/console/history",
                 f"/console/search?q={realm}", "/console/search?q=%3Cimg"):  # fmt: skip
        text = owner.open(path).text
        assert "<img src=x" not in text
    assert "&lt;img src=x" in owner.open("/console/addresses/192.0.2.3").text
    zone = owner.get("/console/zone", {"name": NAME})
    assert zone.html.find("h1").get_text().startswith(NAME)
    assert owner.get("/console/addresses", {"zone": NAME}).html.find("tbody").find("tr")


def test_an_account_sees_no_other_owner_of_its_address(
    hers: Browser, services: Instance, alice: Member, bob: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    for account in (bob, alice):
        services.ips.assign(AssignIP(account.id, "192.0.2.1"), uuid4().hex)
        if account is bob:
            services.ips.release(ReleaseIP(bob.id, "192.0.2.1"), uuid4().hex)
    text = hers.open("/console/addresses/192.0.2.1").text
    assert "Bob" not in text
    assert bob.id not in text
    assert "assigned to" in text


def test_a_low_zone_is_a_problem(owner: Browser, services: Instance, filled: None) -> None:
    services.low_zones.check()
    for path in ("/console", "/console/status"):
        problems = [each.get_text() for each in owner.open(path).html.find_all(class_="problem")]
        assert any("is low" in each for each in problems), problems


def test_an_account_sees_those_below_it_and_what_they_have(
    hers: Browser, services: Instance, alice: Member, child: Member, pool: Any,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    add()
    services.ips.assign(AssignIP(child.id, "192.0.2.1"), uuid4().hex)
    link = hers.open(f"/console/accounts/{alice.id}").html.find("a", string=child.account.name)
    assert link.find_parent("tr").find("td").get_text() == "1"
    assert "192.0.2.1" in hers.open(link["href"]).text
    assert "assigned to" in hers.open("/console/addresses/192.0.2.1").text


def test_a_deleted_address_shows_its_history(
    owner: Browser, services: Instance, add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.99")
    services.pool.delete(DeleteIP("192.0.2.99"), uuid4().hex)
    text = owner.open("/console/addresses/192.0.2.99", status=404).text
    assert "not in the pool" in text
    assert "deleted from the pool" in text


def test_a_list_goes_on_with_and_without_javascript(
    owner: Browser, add: Callable[..., DedicatedIP]
) -> None:
    for n in range(1, 61):
        add(f"192.0.2.{n}")
    first = owner.open("/console/addresses?zone=us-east")
    link = first.html.find(class_="more").find("a")
    assert link["href"] == link["data-hx-get"]
    following = owner.open(link["href"])
    part = owner.get(link["href"], headers={"HX-Request": "true"})
    lines = [page.text.count('<th scope="row">') for page in (first, following, part)]
    assert lines == [50, 10, 10]
    assert part.text.lstrip().startswith("<tr>")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/console/addresses?cidr=nonsense", "cidr"),
        ("/console/addresses?account=nobody-at-all", "No account has"),
        ("/console/addresses?start_key=x", "start key"),
        ("/console/addresses?colour=red", "no such parameter"),
        ("/console/history?from=x", "from"),
        ("/console/history?from=2026-02-01&to=2026-01-01", "later than"),
    ],
)
def test_an_invalid_filter_is_explained(owner: Browser, pool: Any, path: str, text: str) -> None:
    assert text in owner.open(path).html.find(class_="problem").get_text()


def test_a_search_for_an_address_leads_to_its_page(owner: Browser) -> None:
    reply = owner.get("/console/search?q=2001:DB8:0::1", status=302)
    assert reply.location.endswith("/console/addresses/2001:db8::1")
    assert "Nothing matches" in owner.open("/console/search?q=zzzz%3Cb%3E").text
    assert owner.open("/console/search")


def test_an_account_is_found_by_the_beginning_of_its_name(owner: Browser, alice: Member) -> None:
    for text in ("ALI", alice.account.realm[:8], alice.id):
        assert alice.id in owner.get(f"/console/search?q={text}").text


def test_without_couchdb_a_page_says_so(operator: Member) -> None:
    down = Settings(couchdb_url=f"http://127.0.0.1:{free_port()}", connect_timeout=0.1)
    browser = Browser(composition.create_app(down))
    form = browser.get("/console/login").forms["login"]
    form["account"], form["username"], form["password"] = "a", "b", "c"
    assert "CouchDB does not answer" in form.submit(status=503).text
    browser.set_cookie(sessions.COOKIE, operator.token)
    assert "CouchDB does not answer" in browser.get("/console", status=503).text
    browser.get("/console/static/console.css", status=200)


def test_the_session_expires_while_a_part_is_fetched(visitor: Browser) -> None:
    reply = visitor.get("/console", headers={"HX-Request": "true"}, status=401)
    assert reply.headers["HX-Redirect"] == "/console/login"


def test_a_bar_shows_every_status_in_one_order() -> None:
    shown = parts({"available": 1, "assigned": 3, "strange": 0, "aging": 4})
    assert [(p.status, p.start, p.width) for p in shown] == [
        ("assigned", 0, 37.5), ("aging", 37.5, 50), ("available", 87.5, 12.5),
    ]  # fmt: skip
    assert parts({}) == []


def test_numbers_and_times_are_rounded_honestly() -> None:
    assert [percent(n, 1000) for n in (0, 1, 500, 999, 1000)] == ["0", "1", "50", "99", "100"]
    assert percent(0, 0) == "0"
    assert number(1234567) == "1\u202f234\u202f567"
    assert [ago(0, s) for s in (3, 59, 60, 7200, 86_400 * 400)] == [
        "now", "59 seconds ago", "1 minute ago", "2 hours ago", "1 year ago",
    ]  # fmt: skip
