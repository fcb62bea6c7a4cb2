"""An allocation that finds too few addresses tries again only if it may then find more."""

from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, Scope
from kazoo_ips.services.assigning.allocation import _ATTEMPTS
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.api.couchdb import kazoo_document
from tests.conftest import Member
from tests.emptying import remove_place_settings

FREE, TWIN, OTHER = "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"
DRAINED = "proxy2.example.com"


@pytest.fixture
def pauses() -> list[float]:
    """The pauses between attempts."""
    return []


@pytest.fixture
def worker(settings: Settings, pauses: list[float], pool: Database) -> Instance:
    """The services, with an empty pool."""
    return composition.build(settings, pause=pauses.append)


def available(worker: Instance, account: Member, quantity: int) -> int:
    """The number of available addresses that the error of an allocation names."""
    with pytest.raises(InsufficientIPs) as raised:
        worker.allocation.allocate(AllocateIPs(account.id, quantity), uuid4().hex)
    return raised.value.available


@pytest.mark.parametrize("unusable", ["127.0.0.1", TWIN])
def test_unusable_addresses_are_not_waited_for(
    worker: Instance, pool: Database, alice: Member, pauses: list[float], unusable: str
) -> None:
    pool.put_all([kazoo_document(each) for each in (FREE, OTHER, unusable)])
    assert available(worker, alice, 3) == 2
    assert worker.ips.fetch(FREE).assigned_to is None
    assert pauses == []


def test_another_spelling_of_an_assigned_address_is_not_waited_for(
    worker: Instance, pool: Database, alice: Member, bob: Member, pauses: list[float]
) -> None:
    pool.put_all([kazoo_document(FREE, owner=bob.id), kazoo_document(TWIN)])
    assert available(worker, alice, 1) == 0
    assert pauses == []


def test_a_drained_host_is_not_waited_for(
    worker: Instance, pool: Database, couch: Any, alice: Member, pauses: list[float]
) -> None:
    pool.put_all([kazoo_document("192.0.2.3", host=DRAINED)])
    worker.places.set(ChangePlace(Place(Scope.HOST, DRAINED), enabled=False))
    worker.drains.carry_out_all()
    try:
        # As another program adds it. The service disables it within seconds.
        pool.put_all([kazoo_document(FREE, host=DRAINED), kazoo_document(OTHER)])
        assert available(worker, alice, 2) == 1
        assert pauses == []
    finally:
        remove_place_settings(couch, worker)


def test_another_request_that_may_be_undone_is_waited_for(
    worker: Instance, pool: Database, alice: Member, bob: Member, pauses: list[float]
) -> None:
    assigned = kazoo_document(FREE, owner=bob.id)
    pool.put_all([{**assigned, "pvt_transaction": "assign-unknown"}, kazoo_document(TWIN)])
    assert available(worker, alice, 1) == 0
    assert len(pauses) == _ATTEMPTS - 1


def test_what_another_request_has_taken_is_waited_for(
    worker: Instance, pool: Database, alice: Member, bob: Member, pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pool.put_all([kazoo_document(FREE), kazoo_document(OTHER, owner=bob.id)])
    # A view that lags proposes both addresses and counts them.
    monkeypatch.setattr(worker.allocation._supply, "count", lambda command: 2)
    monkeypatch.setattr(
        worker.allocation._supply,
        "propose",
        lambda command, taken, tried, rooms: [a for a in (FREE, OTHER) if a not in tried],
    )
    assert available(worker, alice, 2) == 1
    assert len(pauses) == _ATTEMPTS - 1
    assert worker.ips.fetch(FREE).assigned_to is None
