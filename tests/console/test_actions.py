"""Changes by the pages: each is shown and confirmed first, and made by the services of the API."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from webtest import Upload

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP, DedicatedIP, ListIPs
from tests.conftest import Member
from tests.console.browsing import Browser, confirmed, message_of


def holdings(services: Instance, member: Member) -> list[str]:
    """Return the addresses of an account."""
    return [line.address for line in services.lists.assigned(ListIPs(), member.id).items]


def test_the_operator_assigns_releases_and_deletes_an_address(
    owner: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    ip = add()
    path = f"/console/addresses/{ip.address}"
    form = owner.open(path).forms["assign"]
    form["account"] = alice.account.realm
    preview = form.submit()
    assert "Assign 192.0.2.1 to Alice?" in preview.text
    assert services.ips.fetch(ip.address).status == "available"
    assert message_of(confirmed(preview)) == "Assigned."
    assert services.ips.fetch(ip.address).assigned_to == alice.id

    preview = owner.open(path).forms["release"].submit()
    assert "assigned to Alice" in preview.text
    assert services.ips.fetch(ip.address).assigned_to == alice.id
    assert message_of(confirmed(preview)) == "Released."
    assert services.ips.fetch(ip.address).status == "available"

    preview = owner.open(path).forms["delete"].submit()
    assert "not in the pool" in preview.text
    assert services.ips.fetch(ip.address)
    assert "deleted" in message_of(confirmed(preview))
    owner.open(path, status=404)


def test_an_assigned_address_is_released_before_it_is_deleted(
    owner: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    preview = owner.open("/console/addresses/192.0.2.1").forms["delete"].submit()
    assert "It is released first." in preview.text
    confirmed(preview)
    assert holdings(services, alice) == []


@pytest.mark.parametrize("action", ["assign", "delete"])
def test_an_action_on_an_older_state_is_refused(
    owner: Browser,
    services: Instance,
    bob: Member,
    alice: Member,
    add: Callable[..., DedicatedIP],
    action: str,
) -> None:
    add()
    form = owner.open("/console/addresses/192.0.2.1").forms[action]
    if action == "assign":
        form["account"] = alice.id
    preview = form.submit()
    services.ips.assign(AssignIP(bob.id, "192.0.2.1"), uuid4().hex)
    reply = preview.forms["confirm"].submit(status=412)
    assert "changed after you opened the page" in reply.text
    assert services.ips.fetch("192.0.2.1").assigned_to == bob.id
    missing = {"account": alice.id, "confirmed": "yes"}
    owner.send(f"/console/addresses/192.0.2.1/{action}", 412, **missing)


def test_an_unknown_account_gets_nothing(owner: Browser, add: Callable[..., DedicatedIP]) -> None:
    add()
    form = owner.open("/console/addresses/192.0.2.1").forms["assign"]
    form["account"] = "No Such <b>"
    assert "No Such &lt;b&gt;" in form.submit(status=400).text


def test_an_account_takes_addresses_and_gives_them_back(
    hers: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    for n in range(1, 6):
        add(f"192.0.2.{n}", host=f"proxy{n % 2}.example.com")
    path = f"/console/accounts/{alice.id}"
    form = hers.open(path).forms["take"]
    form["quantity"], form["zone"], form["spread"] = "2", "us-east", "hosts"
    preview = form.submit()
    proposed = [field.value for field in preview.forms["confirm"].fields["address"]]
    assert len(proposed) == 2
    assert holdings(services, alice) == []
    assert message_of(confirmed(preview)) == "Assigned."
    assert sorted(holdings(services, alice)) == sorted(proposed)
    # A second press of the button assigns no further address.
    again = preview.forms["confirm"].submit(status=400)
    assert "already assigned" in again.text

    form = hers.open(path).forms["give-back"]
    chosen = {"csrf": form["csrf"].value, "address": proposed[0]}
    preview = hers.post(f"{path}/release", chosen)
    assert len(holdings(services, alice)) == 2
    assert message_of(confirmed(preview)) == "Released."
    assert holdings(services, alice) == proposed[1:]


def test_an_account_takes_one_address_by_name(
    hers: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    form = hers.open("/console/addresses/192.0.2.1").forms["assign"]
    assert "account" not in form.fields
    assert message_of(confirmed(form.submit())) == "Assigned."
    assert holdings(services, alice) == ["192.0.2.1"]
    assert "delete" not in hers.open("/console/addresses/192.0.2.1").forms


@pytest.mark.parametrize(
    ("quantity", "status", "text"),
    [("0", 400, "a number from 1"), ("x", 400, "a number"), ("", 400, "a number"),
     ("99999999999", 400, "a number"), ("3", 409, "3 addresses were requested, and only 1")],
)  # fmt: skip
def test_a_quantity_that_is_not_to_be_had(
    hers: Browser, alice: Member, add: Callable[..., DedicatedIP],
    quantity: str, status: int, text: str,
) -> None:  # fmt: skip
    add()
    reply = hers.send(f"/console/accounts/{alice.id}/take", status, quantity=quantity)
    assert text in reply.text


def test_nothing_chosen_is_an_error_and_not_everything(
    hers: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    hers.send(f"/console/accounts/{alice.id}/release", 400, confirmed="yes")
    assert holdings(services, alice) == ["192.0.2.1"]


def test_a_block_is_added_after_a_preview(owner: Browser, services: Instance, pool: Any) -> None:
    form = owner.open("/console/import").forms["block"]
    form["ip"], form["zone"], form["host"] = "192.0.2.8/30", "us-east", "proxy.example.com"
    preview = form.submit()
    assert "4 would be added" in preview.html.find(class_="legend").get_text()
    assert services.lists.zones() == []
    assert "imported" in message_of(confirmed(preview))
    assert len(services.lists.available(ListIPs()).items) == 4


LIST = "ip,zone,host\n192.0.2.1,us-east,a\n192.0.2.1,us-west,a\nnonsense,z,h\n192.0.2.2,b,c\n"


@pytest.mark.parametrize("way", ["text", "file", "utf-16"])
def test_a_list_is_previewed_and_then_added(
    owner: Browser, services: Instance, pool: Any, way: str
) -> None:
    form = owner.open("/console/import").forms["list"]
    if way == "text":
        form["text"] = LIST
    else:
        content = LIST.encode("utf-8" if way == "file" else "utf-16")
        form["file"] = Upload("pool.csv", content, "text/csv")
    preview = form.submit()
    assert "2 of the addresses cannot be added" in preview.text
    assert services.lists.zones() == []
    result = confirmed(preview)
    assert "What was added" in result.text
    assert "2 added" in " ".join(result.html.find(class_="legend").get_text(" ").split())
    assert services.lists.zones() == ["b", "us-east"]


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"text": "what is this\n1,2\n"}, 400, "does not name the columns"),
        ({"text": "ip,zone,host\n10.0.0.0/16,z,h\n"}, 400, "more than 20000 addresses"),
        ({"content": "not base64!"}, 400, "is damaged"),
        ({"text": "x" * 1_000_001}, 413, "too large"),
        ({}, 200, "no ip"),
    ],
)
def test_a_list_that_cannot_be_added_is_explained(
    owner: Browser, fields: dict[str, str], status: int, text: str
) -> None:
    assert text in owner.send("/console/import", status, **fields).text


@pytest.mark.parametrize("whose", ["operator", "alice"])
def test_a_webhook_is_created_changed_and_deleted(
    owner: Browser, hers: Browser, alice: Member, whose: str
) -> None:
    browser = owner if whose == "operator" else hers
    path = "/console/webhooks" if whose == "operator" else f"/console/accounts/{alice.id}/webhooks"
    form = browser.open(path).forms["create"]
    form["name"], form["uri"] = "Firewall", "https://receiver.example/firewall"
    form["zones"] = "us-east, us-west"
    shown = form.submit(status=200)
    secret = shown.html.find(class_="secret").get_text()
    assert secret.startswith("whsec_")
    assert secret == form.submit(status=200).html.find(class_="secret").get_text()
    one = shown.html.find("main").find("a")["href"]
    assert browser.open(path).text.count("https://receiver.example/firewall") == 1
    page = browser.open(one)
    assert "us-east, us-west" in page.text
    assert secret not in page.text

    assert message_of(page.forms["enable_webhook"].submit()) == "The webhook was changed."
    rotated = confirmed(browser.open(one).forms["rotate_webhook"].submit())
    assert rotated.html.find(class_="secret").get_text() not in ("", secret)
    form = browser.open(one).forms["replay_webhook"]
    form["since"] = "2026-11-01"
    assert "delivered again" in message_of(confirmed(form.submit()))
    assert "deleted" in message_of(confirmed(browser.open(one).forms["delete_webhook"].submit()))
    browser.open(one, status=404)


def test_a_webhook_with_a_bad_uri_is_explained_and_the_form_kept(owner: Browser) -> None:
    form = owner.open("/console/webhooks").forms["create"]
    form["name"], form["uri"] = "Mine", "ftp://receiver.example"
    reply = form.submit(status=400)
    assert "uri" in reply.html.find(class_="problem").get_text()
    assert reply.forms["create"]["name"].value == "Mine"


def test_a_test_event_is_sent_at_once_and_its_result_shown(owner: Browser) -> None:
    form = owner.open("/console/webhooks").forms["create"]
    form["name"], form["uri"] = "Nobody", "http://receiver.invalid/"
    one = form.submit(status=200).html.find("main").find("a")["href"]
    reply = owner.open(one).forms["test_webhook"].submit(status=200)
    assert "failure" in reply.html.find(class_="problem").get_text()
    confirmed(owner.open(one).forms["delete_webhook"].submit())


def test_the_operator_limits_an_account_which_sees_its_limits(
    owner: Browser, hers: Browser, services: Instance, alice: Member,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    for n in (1, 2):
        add(f"192.0.2.{n}")
    path = f"/console/accounts/{alice.id}/limits"
    form = owner.open(path).forms["limits"]
    form["max"], form["zones"] = "1", "us-east=1\n\n"
    preview = form.submit()
    assert "no limit" in preview.text
    assert services.limits.status(alice.id).limits.max is None
    assert message_of(confirmed(preview)) == "The limits were changed."
    services.limits.refresh()

    page = hers.open(path)
    assert "limits" not in page.forms
    assert page.html.find("meter")["aria-label"] == "0 of 1"
    hers.send(path, 403, max="5", confirmed="yes")
    reply = hers.send(f"/console/accounts/{alice.id}/take", 409, quantity="2")
    assert "may have 1 addresses" in reply.text
    for bad in ({"max": "many"}, {"zones": "us-east"}, {"zones": "us-east=x"}):
        assert "a number is required" in owner.send(path, 400, **bad).text
    form = owner.open(path).forms["limits"]
    form["max"] = form["zones"] = ""
    confirmed(form.submit())
    services.limits.refresh()
