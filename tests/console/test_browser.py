"""The pages in a real browser: with and without JavaScript, by keyboard, on a phone, with axe."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import AllocateIPs, AssignIP, CreateIP
from kazoo_ips.model.commands import ReserveIPs
from kazoo_ips.model.limits import Limits
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from kazoo_ips.repositories.records import Records
from tests.browsers import complaints_of
from tests.conftest import Member

pytestmark = pytest.mark.slow

PAGES = [
    "/console", "/console/addresses", "/console/addresses/192.0.2.1",
    "/console/addresses/192.0.2.2", "/console/accounts", "/console/accounts/{A}",
    "/console/accounts/{A}/history",
    "/console/accounts/{A}/webhooks", "/console/accounts/{A}/limits",
    "/console/accounts/{A}/reservations", "/console/accounts/{A}/reservations/{R}",
    "/console/history", "/console/import",
    "/console/search?q=alice", "/console/webhooks", "/console/zone?name=us-east",
    "/console/status",
    "/console/jobs",
    "/console/host?name=proxy1.example.com",
    "/console/nothing",
]  # fmt: skip


LONG = "n" * 255
"""The longest name of a zone or a host."""


@pytest.fixture
def filled(services: Instance, pool: Any, alice: Member) -> None:
    """A pool with 60 addresses; Alice has one."""
    commands = [CreateIP(f"192.0.2.{n}", "us-east", "proxy1.example.com") for n in range(1, 61)]
    services.bulk_additions.create_all(commands, uuid4().hex)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)


@pytest.fixture
def visit(chromium: Chromium, live: str) -> Iterator[Callable[..., Page]]:
    """A function that logs an account in, in a new browser window.

    The service's pages may cause no error of the browser, and no request to another host.
    """
    opened: list[tuple[Page, list[str]]] = []

    def make(member: Member, **options: Any) -> Page:
        page = chromium.new_context(base_url=live, **options).new_page()
        page.set_default_timeout(20_000)
        complaints = complaints_of(page)
        page.on(
            "request",
            lambda sent: None if sent.url.startswith(live) else complaints.append(sent.url),
        )
        opened.append((page, complaints))
        page.goto("/console/login")
        page.get_by_label("Account").fill(member.account.realm)
        page.get_by_label("User").fill("admin")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/console**")
        return page

    yield make
    for page, complaints in opened:
        page.context.close()
        assert [c for c in complaints if "404" not in c] == []


def test_axe_finds_no_violation_on_any_page(
    visit: Callable[..., Page], packages: Path, services: Instance, operator: Member,
    alice: Member, filled: None,
) -> None:  # fmt: skip
    wanted = ReserveIPs(AllocateIPs(alice.id, 3), 1800)
    reserved = services.reservations.reserve(wanted, uuid4().hex)
    axe = (packages / "axe-core" / "axe.min.js").read_text()
    page = visit(operator, viewport={"width": 390, "height": 900})
    found: dict[str, Any] = {}

    def check(name: str) -> None:
        """Check the open page with axe: all rules in light colours, the contrast in dark ones."""
        # Nothing is wider than a phone's window; tables scroll by themselves.
        wide = page.evaluate("document.documentElement.scrollWidth") > 390
        page.evaluate(axe)
        found[name] = [*violations(page, "{}"), *(["too wide"] if wide else [])]
        page.emulate_media(color_scheme="dark")
        found[name] += violations(page, "{runOnly: ['color-contrast']}")
        page.emulate_media(color_scheme="light")

    for path in PAGES:
        page.goto(path.replace("{A}", alice.id).replace("{R}", reserved.id))
        check(path)
    page.goto("/console/addresses/192.0.2.2")
    page.get_by_role("button", name="Delete from the pool").click()
    check("confirm")
    page.get_by_role("button", name="Log out").click()
    check("login")
    assert {name: each for name, each in found.items() if each} == {}


@pytest.fixture
def lengthy(
    services: Instance, couch: Couch, pool: Any, operator: Member, member: Callable[..., Member]
) -> Iterator[dict[str, str]]:
    """A pool, an account and a follower with long names, and what to replace in `PAGES`."""
    account = member("a" * 40, operator)
    for number in (1, 2):
        services.pool.create(CreateIP(f"192.0.2.{number}", LONG, LONG), uuid4().hex)
    services.ips.assign(AssignIP(account.id, "192.0.2.1"), uuid4().hex)
    services.limits.set(account.id, Limits(9, {LONG: 8}), uuid4().hex)
    wanted = ReserveIPs(AllocateIPs(account.id, 1), 1800)
    reserved = services.reservations.reserve(wanted, uuid4().hex)
    receiver = {"uri": f"https://example.com/{LONG}", "name": "n" * 64, "hook": "object"}
    owners = (account.id, None)
    webhooks = [services.webhooks.create(owner, receiver) for owner in owners]
    checkpoints = Checkpoints(Records(couch))
    follower = checkpoints.put(Checkpoint(f"bus-{LONG}", "another machine/1", 0, "0", ""))
    yield {"{A}": account.id, "{R}": reserved.id, "us-east": LONG, "proxy1.example.com": LONG}
    for owner, webhook in zip(owners, webhooks, strict=True):
        services.webhooks.delete(owner, webhook.id)
    assert follower
    couch.database("kazoo_ips").remove(f"follower-{follower.name}", follower.revision)


def test_no_page_is_wider_than_a_phone_however_long_its_names_are(
    visit: Callable[..., Page], operator: Member, lengthy: dict[str, str]
) -> None:
    page = visit(operator, viewport={"width": 390, "height": 900})
    wide = []
    for pattern in PAGES:
        path = pattern
        for part, name in lengthy.items():
            path = path.replace(part, name)
        page.goto(path)
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path)
    assert wide == []


def violations(page: Page, options: str) -> list[str]:
    """Return what axe finds on a page."""
    result = page.evaluate(f"axe.run({options})")
    return [
        json.dumps([each["id"], [node["html"] for node in each["nodes"]]])
        for each in result["violations"]
    ]


@pytest.mark.parametrize("javascript", [True, False])
def test_an_address_is_assigned_and_released(
    visit: Callable[..., Page], operator: Member, filled: None, javascript: bool
) -> None:
    page = visit(operator, java_script_enabled=javascript)
    page.get_by_role("searchbox").fill("192.0.2.7")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_label("Account").fill("Alice")
    page.get_by_role("button", name="Assign").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Assign 192.0.2.7 to Alice?")
    page.get_by_role("button", name="Assign").click()
    expect(page.get_by_role("status")).to_have_text("Assigned.")
    page.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Release").click()
    expect(page.get_by_role("status")).to_have_text("Released.")
    expect(page.locator(".timeline")).to_contain_text("released by Alice")


@pytest.mark.parametrize("javascript", [True, False])
def test_an_account_takes_addresses_and_gives_them_back(
    visit: Callable[..., Page], alice: Member, filled: None, javascript: bool
) -> None:
    page = visit(alice, java_script_enabled=javascript)
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Choose").click()
    page.get_by_role("button", name="Assign").click()
    expect(page.locator(".wide tbody tr")).to_have_count(3)
    page.get_by_label("192.0.2.1", exact=True).check()
    page.get_by_role("button", name="Release the chosen ones").click()
    page.get_by_role("button", name="Release").click()
    expect(page.locator(".wide tbody tr")).to_have_count(2)


@pytest.mark.parametrize("javascript", [True, False])
def test_an_account_reserves_addresses_extends_and_cancels_the_reservation(
    visit: Callable[..., Page], alice: Member, filled: None, javascript: bool
) -> None:
    page = visit(alice, java_script_enabled=javascript)
    page.get_by_role("navigation", name="Console").get_by_role("link", name="Reservations").click()
    page.get_by_label("How many").fill("2")
    page.get_by_label("How long").select_option("1 hour")
    page.get_by_role("button", name="Choose").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Reserve 2 addresses for Alice?")
    page.get_by_role("button", name="Reserve").click()
    expect(page.get_by_role("status")).to_have_text("The addresses are reserved.")
    expect(page.locator(".wide tbody tr")).to_have_count(2)
    expect(page.locator("dl")).to_contain_text(re.compile("in (1 hour|59 minutes)"))
    page.get_by_label("End it from now in").select_option("4 hours")
    page.get_by_role("button", name="Change its end").click()
    page.get_by_role("button", name="Change").click()
    expect(page.locator("dl")).to_contain_text(re.compile("in [34] hours"))
    page.get_by_role("button", name="Cancel it").click()
    page.get_by_role("button", name="Cancel the reservation").click()
    expect(page.get_by_role("status")).to_have_text("The reservation was cancelled.")
    expect(page.locator(".wide")).to_contain_text("Nothing is reserved")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_long_list_goes_on(
    visit: Callable[..., Page], operator: Member, filled: None, javascript: bool
) -> None:
    page = visit(operator, java_script_enabled=javascript)
    page.goto("/console/addresses")
    page.get_by_role("link", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(60 if javascript else 10)


@pytest.mark.parametrize("javascript", [True, False])
def test_a_block_is_added(
    visit: Callable[..., Page], operator: Member, pool: Any, javascript: bool
) -> None:
    page = visit(operator, java_script_enabled=javascript)
    page.get_by_role("link", name="Add", exact=True).click()
    page.get_by_label("Addresses one, a block, or a range").fill("192.0.2.8/30")
    page.get_by_label("Zone").fill("us-east")
    page.get_by_label("Host").fill("proxy1.example.com")
    page.locator("#block").get_by_role("button").click()
    page.get_by_role("button", name="Add 4").click()
    expect(page.get_by_role("status")).to_have_text("The addresses were imported.")


def test_results_of_a_search_follow_what_is_typed(
    visit: Callable[..., Page], operator: Member, alice: Member, filled: None
) -> None:
    page = visit(operator)
    page.goto("/console/search")
    page.get_by_label("Address, block, account").press_sequentially("ali")
    expect(page.locator("#results")).to_contain_text(alice.account.realm)
    page.goto("/console/accounts")
    page.get_by_label("Name or realm").press_sequentially(alice.account.realm)
    expect(page.locator("#accounts tr")).to_have_count(1)


def test_everything_is_reached_by_keyboard(
    visit: Callable[..., Page], operator: Member, filled: None
) -> None:
    page = visit(operator)
    page.goto("/console")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto("/console/addresses/192.0.2.7")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "account":
            break
    page.keyboard.type("Alice")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Assign 192.0.2.7 to Alice?")


def test_no_script_reads_the_cookie_and_no_script_of_a_page_runs(
    visit: Callable[..., Page], operator: Member, services: Instance, pool: Any
) -> None:
    zone = (
        "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
    )
    services.pool.create(CreateIP("192.0.2.1", zone, zone), uuid4().hex)
    page = visit(operator)
    for path in ("/console", "/console/addresses", "/console/addresses/192.0.2.1"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text("document.title")
        assert "hacked" not in page.title()
        assert page.evaluate("document.cookie") == ""


def test_no_other_page_shows_the_console_in_a_frame(chromium: Chromium, live: str) -> None:
    other = chromium.new_context().new_page()
    refused: list[str] = []
    other.on("console", lambda message: refused.append(message.text))
    other.set_content(f'<iframe src="{live}/console/login"></iframe>')
    other.wait_for_timeout(500)
    assert "frame-ancestors" in " ".join(refused)
    assert "Log in" not in other.frames[-1].content()
    other.context.close()


def test_a_form_of_another_site_is_refused(
    visit: Callable[..., Page], operator: Member, services: Instance, filled: None
) -> None:
    page = visit(operator)
    other = page.context.new_page()
    target = f"{page.url.partition('/console')[0]}/console/addresses/192.0.2.2/delete"
    other.set_content(
        f'<form method="post" action="{target}"><input name="confirmed" value="yes">'
        "<button>Win</button></form>"
    )
    other.get_by_role("button").click()
    other.wait_for_load_state()
    assert services.ips.fetch("192.0.2.2")
    assert "deleted" not in other.content()
