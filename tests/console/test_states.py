"""Disabling and enabling addresses, hosts and zones, and the settings of zones."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP, DedicatedIP
from tests.conftest import Member
from tests.console.browsing import Browser, confirmed, message_of

HOST = "proxy1.example.com"


def status(services: Instance, address: str = "192.0.2.1") -> str:
    """Return the status of an address."""
    return str(services.ips.fetch(address).status)


def test_an_address_is_taken_out_of_service_and_back(
    owner: Browser, services: Instance, add: Callable[..., DedicatedIP]
) -> None:
    add()
    path = "/console/addresses/192.0.2.1"
    form = owner.open(path).forms["disable"]
    form["reason"] = "blocklisted"
    preview = form.submit()
    assert "disabled: blocklisted" in preview.text
    assert status(services) == "available"
    assert message_of(confirmed(preview)) == "The address was changed."
    page = owner.open(path)
    assert "blocklisted" in page.html.find("dl").get_text()
    assert "assign" not in page.forms
    confirmed(page.forms["enable"].submit())
    assert status(services) == "available"
    owner.send(f"{path}/disable", 400, revision="x", confirmed="yes")  # without a reason


@pytest.mark.parametrize("scope", ["host", "zone"])
def test_a_place_is_drained_and_enabled(
    owner: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP], scope: str
) -> None:
    for n in (1, 2):
        add(f"192.0.2.{n}", host=HOST)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    path = f"/console/{scope}?name={HOST if scope == 'host' else 'us-east'}"
    form = owner.open(path).forms["drain"]
    form["reason"] = "the proxy is replaced"
    preview = form.submit()
    cells = [cell.get_text() for cell in preview.html.find("tbody").find_all(["th", "td"])]
    assert cells == ["assigned", "1", "1", "disabled", "0", "1", "available", "1", "0"]
    assert status(services, "192.0.2.2") == "available"
    assert "drained" in message_of(confirmed(preview))
    assert [status(services, f"192.0.2.{n}") for n in (1, 2)] == ["assigned", "disabled"]
    page = owner.open(path)
    assert "the proxy is replaced" in page.html.find(class_="problem").get_text()
    assert "enabled" in message_of(confirmed(page.forms["drain"].submit()))
    assert status(services, "192.0.2.2") == "available"


def test_a_zone_lets_addresses_rest_until_the_operator_ends_it(
    owner: Browser, services: Instance, alice: Member, bob: Member,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    add()
    form = owner.open("/console/zone?name=us-east").forms["settings"]
    form["aging_days"], form["when_empty"] = "7", "oldest"
    preview = form.submit()
    assert "7 days" in preview.text
    assert message_of(confirmed(preview)) == "The settings were changed."
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    confirmed(owner.open("/console/addresses/192.0.2.1").forms["release"].submit())
    page = owner.open("/console/addresses/192.0.2.1")
    assert "Alice" in page.html.find("dl").get_text()
    refused = page.forms["assign"]
    refused["account"] = bob.id
    assert "resting" in refused.submit(status=400).text
    form = page.forms["end-rest"]
    form["reason"] = "needed"
    confirmed(form.submit())
    assert status(services) == "available"
    form = owner.open("/console/zone?name=us-east").forms["settings"]
    form["aging_days"] = "0"
    confirmed(form.submit())
    owner.send("/console/zone/settings", 400, name="us-east", aging_days="x")


def test_an_unknown_place_is_an_error(owner: Browser, add: Callable[..., DedicatedIP]) -> None:
    owner.send("/console/host/state", 404, name="nothing", reason="x")
    owner.send("/console/other/state", 400, name="nothing", reason="x")


def test_the_reason_for_a_disabled_address_is_the_operators(
    owner: Browser, hers: Browser, services: Instance, alice: Member,
    add: Callable[..., DedicatedIP],
) -> None:  # fmt: skip
    add()
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    form = owner.open("/console/addresses/192.0.2.1").forms["disable"]
    form["reason"] = "secret reason"
    confirmed(form.submit())
    page = hers.open("/console/addresses/192.0.2.1")
    assert "enable" not in page.forms
    assert "secret reason" not in page.html.find("dl").get_text()
