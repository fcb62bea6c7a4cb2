"""Zones and hosts on a cluster, whose views may lag behind a write."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model import DedicatedIP, Scope
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy, Forward, Reply

PLACES = {Scope.ZONE: ("zone", "by_zone"), Scope.HOST: ("host", "by_host")}


def without_rows(forward: Forward) -> Reply:
    """The response of a replica that lacks the latest write."""
    reply = forward()
    body = b'{"rows":[]}\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return replace(reply, head=head % len(body), body=body)


@pytest.mark.parametrize("scope", PLACES)
def test_a_place_is_found_right_after_its_first_address_was_added(
    proxy: FaultProxy, proxied_settings: Settings, add: Callable[..., DedicatedIP], scope: Scope
) -> None:
    services = composition.build(proxied_settings)
    name, view = PLACES[scope]
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    add("192.0.2.1", zone="zone", host="host")
    lagging = proxy.rule(without_rows, "GET", f"_view/{view}$")
    command = ChangePlace(Place(scope, name), enabled=False, reason="new")
    assert services.places.set(command, dry_run=True).summary.total == 1
    assert lagging.met
    with pytest.raises(BadIdentifier):
        services.places.fetch(Place(scope, "missing"))
