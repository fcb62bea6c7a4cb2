"""Evacuations with other clients and faults between the read of an address and its assignment."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import AssignIP, DedicatedIP, EvacuateHost
from kazoo_ips.model.limits import Limits
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy, Forward, Reply
from tests.services.test_jobs import clear, items, run

__all__ = ["clear"]

OLD, NEW = "old.example.com", "new.example.com"
LEAVES, FIRST, SECOND = "192.0.2.1", "192.0.2.2", "192.0.2.3"
WRITES = "-dedicated_ips/(_bulk_docs|192)"


@pytest.fixture
def host(services: Instance, add: Callable[..., DedicatedIP], clear: None, alice: Member) -> str:
    """A host with one address of an account. Another host has an available one."""
    add(LEAVES, host=OLD)
    services.ips.assign(AssignIP(alice.id, LEAVES), uuid4().hex)
    add(FIRST, host=NEW)
    return OLD


@pytest.fixture(params=[False, True], ids=["", "with a limit"])
def limit(
    request: pytest.FixtureRequest, services: Instance, host: str, alice: Member
) -> Iterator[None]:
    """No limit, or a limit that permits one more address."""
    if request.param:
        services.limits.set(alice.id, Limits(max=2), uuid4().hex)
    yield
    services.limits.set(alice.id, Limits(), uuid4().hex)


@pytest.mark.usefixtures("limit")
def test_an_evacuation_takes_another_address_if_another_client_is_faster(
    host: str,
    services: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    add: Callable[..., DedicatedIP],
    bob: Member,
) -> None:
    through = composition.build(proxied_settings, pause=lambda seconds: None)

    def takes(forward: Forward) -> Reply:
        services.ips.assign(AssignIP(bob.id, FIRST), uuid4().hex)
        add(SECOND, host=NEW)
        return forward()

    proxy.rule(takes, "PUT|POST", WRITES)
    job = through.jobs.create(EvacuateHost(host), uuid4().hex)
    assert items(services, run(through, job)) == {LEAVES: "replaced"}
    assert services.ips.fetch(LEAVES).replaced_by == SECOND
    assert services.ips.fetch(FIRST).assigned_to == bob.id


@pytest.mark.usefixtures("limit")
def test_an_address_whose_copy_cannot_be_written_is_available_again(
    host: str,
    services: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    couch: Couch,
    pool: Database,
    alice: Member,
) -> None:
    through = composition.build(proxied_settings, pause=lambda seconds: None)
    proxy.rule(faults.cut, "PUT|POST", f"{alice.id[4:]}/(_bulk_docs|192)", times=None)
    job = through.jobs.create(EvacuateHost(host), uuid4().hex)
    with suppress(DatastoreUnreachable):
        run(through, job)
    through.background.work()
    assert pool.get(FIRST)["pvt_status"] == "available"
    assert FIRST not in couch.database(account_database(alice.id)).get_all([FIRST])
