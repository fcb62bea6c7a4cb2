"""A drain at a URL sends its request again until the service has changed all addresses."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from kazoo_ips.model import DisableIP, Scope, Status
from kazoo_ips.remote.client import Service
from kazoo_ips.remote.services import RemoteServices, connect
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.conftest import Member
from tests.emptying import remove_place_settings

HOST = Place(Scope.HOST, "proxy1.example.com")
ADDRESSES = tuple(f"192.0.2.{n}" for n in range(1, 6))


@pytest.fixture
def at_url(
    couch: Couch, services: Instance, add: Callable[..., Any], live: str, operator: Member
) -> Iterator[RemoteServices]:
    """The services at the URL. The pool has some addresses on one host."""
    remote = connect(Service(live, operator.token))
    for address in ADDRESSES:
        add(address, host=HOST.name)
    yield remote
    remove_place_settings(couch, services)
    remote.places.fetch(HOST)  # the service reads the settings


def test_a_drain_goes_on_until_no_address_is_left(
    at_url: RemoteServices, services: Instance
) -> None:
    services.places.set(ChangePlace(HOST, enabled=False, reason="broken"))
    assert services.places.fetch(HOST).pending == len(ADDRESSES)
    assert sum(at_url.drains.carry_out(HOST, "drain-1")) == len(ADDRESSES)
    found = [services.ips.fetch(each) for each in ADDRESSES]
    assert {(ip.status, ip.request_id) for ip in found} == {(Status.DISABLED, "drain-1")}


def test_the_end_of_a_drain_leaves_what_is_disabled_by_itself(
    at_url: RemoteServices, services: Instance
) -> None:
    services.operator_changes.disable(DisableIP(ADDRESSES[0], "blocklisted"), "0" * 32)
    services.places.change(ChangePlace(HOST, enabled=False, reason="broken"), "0" * 32)
    services.places.set(ChangePlace(HOST, enabled=True))
    assert sum(at_url.drains.carry_out(HOST, "enable-1")) == len(ADDRESSES) - 1
    assert services.places.fetch(HOST).summary.counts == {"available": 4, "disabled": 1}
