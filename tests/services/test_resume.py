"""A request that comes again after its first attempt was done, whose note still lies about."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AllocateIPs, AssignIPs, DedicatedIP, ReleaseIPs
from kazoo_ips.repositories.journal import JournalRepository
from kazoo_ips.services import Services
from tests.conftest import Member
from tests.faults.conftest import eventually

ADDRESSES = ("192.0.2.1", "192.0.2.2")


def _owners(pool: Database) -> set[str | None]:
    return {pool.get(a).get("pvt_assigned_to") for a in ADDRESSES}


@pytest.mark.parametrize("action", ["assign", "allocate", "release"])
def test_a_note_that_shows_up_late_does_not_undo_what_was_acknowledged(
    settings: Settings,
    services: Services,
    couch: Couch,
    pool: Database,
    add: Callable[..., DedicatedIP],
    alice: Member,
    action: str,
) -> None:
    for address in ADDRESSES:
        add(address)
    if action == "release":
        services.ips.assign_all(AssignIPs(alice.id, ADDRESSES), uuid4().hex)
    request: dict[str, Callable[..., Any]] = {
        "assign": lambda *a, **k: services.ips.assign_all(AssignIPs(alice.id, ADDRESSES), *a, **k),
        "allocate": lambda *a, **k: services.allocation.allocate(
            AllocateIPs(alice.id, 2), *a, **k
        ),
        "release": lambda *a, **k: services.ips.release_all(
            ReleaseIPs(alice.id, ADDRESSES), *a, **k
        ),
    }
    request_id = uuid4().hex
    first = request[action](request_id)
    again = request[action](request_id, resumed=True)
    assert {ip.address for ip in again} == {ip.address for ip in first} == set(ADDRESSES)
    # What the first attempt's process did not come to strike out, and a lagging node hid.
    kind = "release" if action == "release" else "assign"
    JournalRepository(couch).open(kind, alice.id, request_id, first[0].modified, list(ADDRESSES))
    later = composition.build(settings, clock=lambda: time.time() + 3600)
    later.housekeeping.recover()
    owner = None if action == "release" else alice.id
    assert eventually(lambda: _owners(pool) == {owner})
    assert eventually(lambda: not list(later.doctor.examine()))
