"""Reservations: made, extended, assigned and cancelled, by an account and by the operator."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import AllocateIPs, DedicatedIP, ListIPs
from kazoo_ips.model.commands import ReserveIPs
from kazoo_ips.model.reservations import Reservation
from tests.conftest import Member
from tests.console.browsing import Browser, confirmed, message_of


@pytest.fixture
def made(services: Instance, alice: Member, add: Callable[..., DedicatedIP]) -> Reservation:
    """A reservation of Alice for two of four addresses."""
    for n in range(1, 5):
        add(f"192.0.2.{n}", host=f"proxy{n % 2}.example.com")
    wanted = ReserveIPs(AllocateIPs(alice.id, 2, distinct_hosts=True), 1800)
    return services.reservations.reserve(wanted, uuid4().hex)


def page_of(made: Reservation) -> str:
    """Return the path of a reservation."""
    return f"/console/accounts/{made.account_id}/reservations/{made.id}"


@pytest.mark.parametrize("spread", ["", "hosts"])
def test_an_account_reserves_what_the_service_proposes(
    hers: Browser, services: Instance, alice: Member, made: Reservation, spread: str
) -> None:
    path = f"/console/accounts/{alice.id}/reservations"
    form = hers.open(path).forms["reserve"]
    form["quantity"], form["zone"], form["seconds"], form["spread"] = "2", "us-east", "900", spread
    preview = form.submit()
    proposed = [field.value for field in preview.forms["confirm"].fields["address"]]
    assert len(proposed) == 2
    assert not {*proposed} & {*made.addresses}
    assert len(services.reservations.all_open(alice.id)) == 1
    assert message_of(confirmed(preview)) == "The addresses are reserved."
    (new,) = (each for each in services.reservations.all_open(alice.id) if each.id != made.id)
    assert sorted(new.addresses) == sorted(proposed)
    assert new.until - new.started == 900
    # A second press of the button reserves no further address.
    again = preview.forms["confirm"].submit(status=400)
    assert "reserved" in again.text
    rows = hers.open(path).html.find("tbody").find_all("tr")
    assert [row.find("td").get_text() for row in rows] == ["2", "2"]


def test_too_many_addresses_are_refused(hers: Browser, alice: Member, made: Reservation) -> None:
    form = hers.open(f"/console/accounts/{alice.id}/reservations").forms["reserve"]
    form["quantity"] = "3"
    assert "only 2 are available" in form.submit(status=409).text
    form["quantity"], form["host"] = "1", " nowhere.example.com "
    assert "only 0 are available" in form.submit(status=409).text


def test_a_reservation_ends_later(hers: Browser, services: Instance, made: Reservation) -> None:
    form = hers.open(page_of(made)).forms["extend"]
    form["seconds"] = "14400"
    preview = form.submit()
    assert services.reservations.fetch(made.account_id, made.id).until == made.until
    assert "was changed" in message_of(confirmed(preview))
    assert services.reservations.fetch(made.account_id, made.id).until > made.until + 10_000
    path = f"{page_of(made)}/extend"
    assert "a number" in hers.send(path, 400, seconds="x").text
    assert "a number" in hers.send(path, 400, seconds="86401").text


def test_a_reservation_is_cancelled(hers: Browser, services: Instance, made: Reservation) -> None:
    preview = hers.open(page_of(made)).forms["cancel"].submit()
    assert made.addresses[0] in preview.text
    assert services.reservations.all_open(made.account_id)
    assert "cancelled" in message_of(confirmed(preview))
    assert services.reservations.all_open(made.account_id) == []
    assert "has ended" in preview.forms["confirm"].submit(status=404).text
    assert "has ended" in hers.open(page_of(made), status=404).text


def test_a_reservation_is_assigned(hers: Browser, services: Instance, made: Reservation) -> None:
    preview = hers.open(page_of(made)).forms["assign"].submit()
    assert "reserved, in us-east" in preview.text
    assert services.reservations.all_open(made.account_id)
    assert message_of(confirmed(preview)) == "Assigned."
    held = [line.address for line in services.lists.assigned(ListIPs(), made.account_id).items]
    assert sorted(held) == sorted(made.addresses)
    assert "nothing was assigned" in preview.forms["confirm"].submit(status=409).text


def test_the_operator_reserves_an_address_for_an_account(
    owner: Browser, services: Instance, bob: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    page = "/console/addresses/192.0.2.1"
    form = owner.open(page).forms["reserve"]
    form["account"] = "nobody"
    assert "No account has" in form.submit(status=400).text
    form["account"] = bob.account.realm
    preview = form.submit()
    assert "available, in us-east" in preview.text
    assert services.ips.fetch("192.0.2.1").status == "available"
    assert "reserved" in message_of(confirmed(preview))
    assert services.ips.fetch("192.0.2.1").reserved_for == bob.id
    link = owner.open(page).html.find("a", string="its reservation")
    confirmed(owner.open(link["href"]).forms["cancel"].submit())
    assert services.ips.fetch("192.0.2.1").status == "available"


def test_an_account_reserves_one_address_by_name(
    hers: Browser, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add()
    form = hers.open("/console/addresses/192.0.2.1").forms["reserve"]
    assert "account" not in form.fields
    confirmed(form.submit())
    assert services.ips.fetch("192.0.2.1").reserved_for == alice.id


def test_no_account_sees_or_changes_the_reservations_of_others(
    hers: Browser, services: Instance, bob: Member, made: Reservation
) -> None:
    wanted = ReserveIPs(AllocateIPs(bob.id, 1), 1800)
    other = services.reservations.reserve(wanted, uuid4().hex)
    hers.open(f"/console/accounts/{bob.id}/reservations", status=403)
    hers.open(page_of(other), status=403)
    own = f"/console/accounts/{made.account_id}/reservations/{other.id}"
    hers.open(own, status=404)
    for action, status in (("cancel", 404), ("extend", 404), ("assign", 409)):
        hers.send(f"{page_of(other)}/{action}", 403, seconds="900", confirmed="yes")
        hers.send(f"{own}/{action}", status, seconds="900", confirmed="yes")
    assert [each.until for each in services.reservations.all_open(bob.id)] == [other.until]
