"""The guard on CouchDB: it refuses invalid edits; Kazoo and the service work as before.

The embedded server stores design documents, but does not run `validate_doc_update`. On it these
tests are skipped.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Couch, Database, _Write
from kazoo_ips.errors import DatastoreForbidden
from kazoo_ips.model import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    CreateIP,
    DeleteIP,
    DisableIP,
    EnableIP,
    EndRest,
    EvacuateHost,
    MoveHost,
    Outcome,
    ReleaseIP,
    ReleaseIPs,
    Scope,
    TransferIPs,
    Written,
)
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.transactions import _LATE as LATE
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.api.own_application import OwnApplication, create_own_application
from tests.api.recorded import DATABASES
from tests.emptying import clear
from tests.guard.cases import ADDRESS, BROKEN, FREE, PASSED, REFUSED, TAKEN
from tests.timing import LONG, await_replicas, eventually

NEXT = "192.0.2.2"
HOST, OTHER_HOST = "a.example.com", "b.example.com"


@pytest.fixture(scope="module")
def guarded(settings: Settings, couch: Couch) -> Iterator[OwnApplication]:
    """The service on a guarded pool of its own."""
    if "couchdb" not in couch.greeting():
        pytest.skip("the embedded server runs no validate_doc_update")
    with create_own_application(settings) as made:
        assert composition.databases(made.settings).guard(True)
        await_guard(
            composition.connect(made.settings.as_administrator()).database("dedicated_ips")
        )
        yield made


@pytest.fixture
def pool(guarded: OwnApplication) -> Iterator[Database]:
    """The guarded pool, empty."""
    database = composition.connect(guarded.settings.as_administrator()).database("dedicated_ips")
    yield database
    clear(database, lambda document: True)


def await_guard(database: Database) -> None:
    """Wait until CouchDB runs the new design document, which takes up to 67 s (`ddoc_cache`)."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            written = database.put({**FREE, "_id": "junk"}, w=database.replicas)
        except DatastoreForbidden:
            return
        tombstone = {"_id": "junk", "_rev": written.revision or "", "_deleted": True}
        database.put(tombstone, w=database.replicas)
        time.sleep(0.1)
    raise AssertionError("the pool is not guarded")


def begin(database: Database, old: dict[str, Any] | None) -> dict[str, str]:
    """Write the old document on every node; return its revision, for the next write.

    A node that lags would report a conflict.
    """
    await_replicas(database)  # until all nodes have the deletions of the test before
    everywhere = database.replicas
    if old is None:
        return {}
    if old.get("_deleted"):
        taken = database.put(TAKEN, w=everywhere)
        database.put({**old, "_rev": taken.revision}, w=everywhere)
        return {}
    written = database.put(old, w=everywhere)
    if written.outcome is not Outcome.DONE:  # on a busy machine one node gets it later
        time.sleep(LONG / 10)
    return {"_rev": written.revision or ""}


@pytest.mark.parametrize("what", [w for w in REFUSED if ":" not in w or "junk" in w or "127" in w])
def test_an_invalid_edit_is_refused(pool: Database, what: str) -> None:
    old, new, why = REFUSED[what]
    revision = begin(pool, old)
    with pytest.raises(DatastoreForbidden, match=why):
        pool.put({**new, **revision})
    [written] = pool.put_all([{**new, **revision}])
    assert written.outcome is Outcome.REFUSED
    existing = pool.find(new["_id"])
    assert existing == (None if old is None else {**old, **revision})


def test_a_refused_document_does_not_affect_others_of_a_bulk_write(pool: Database) -> None:
    old, new, why = REFUSED["assigned to nobody"]
    forbidden = {**new, **begin(pool, old), "_id": ADDRESS}
    fine = {**FREE, "_id": "192.0.2.99"}
    outcomes = pool._write_all([_Write(each, pool.replicas) for each in (forbidden, fine)])
    assert outcomes[0] is None, "no result: the caller has to write this document by itself"
    assert outcomes[1]
    assert outcomes[1].result == Written(Outcome.DONE, pool.get("192.0.2.99")["_rev"])
    with pytest.raises(DatastoreForbidden, match=why):
        pool.write(forbidden)


@pytest.mark.parametrize("what", PASSED)
def test_a_valid_change_is_written(pool: Database, what: str) -> None:
    old, new = PASSED[what]
    assert pool.put({**new, **begin(pool, old)}).outcome is Outcome.DONE


def test_every_document_of_kazoo_can_be_replicated_and_written_again(pool: Database) -> None:
    documents = [d for d in DATABASES["dedicated_ips"] if not d["_id"].startswith("_design/")]
    written = pool.put_all([{k: v for k, v in d.items() if k != "_rev"} for d in documents])
    assert {w.outcome for w in written} == {Outcome.DONE}
    for document in documents:
        existing = pool.get(document["_id"])
        free = {k: v for k, v in existing.items() if k != "pvt_assigned_to"}
        free |= {"pvt_status": "available", "pvt_modified": existing["pvt_modified"] + 1}
        revision = pool.put(free).revision
        taken = {**free, "pvt_status": "assigned", "pvt_assigned_to": "a" * 32, "_rev": revision}
        assert pool.remove(document["_id"], pool.put(taken).revision or "").outcome is Outcome.DONE
    for document in documents:
        assert pool.graft(document | {"_rev": f"9-{'a' * 32}"}, parent=f"8-{'b' * 32}")


def test_every_write_of_the_service_passes(guarded: OwnApplication, pool: Database) -> None:
    services, account = guarded.services, guarded.id
    addresses = tuple(f"192.0.2.{n}" for n in range(1, 5))
    for address in (*addresses, "2001:db8::1"):
        services.pool.create(CreateIP(address, "us-east", "proxy1.example.com"), "create")
    services.ips.assign(AssignIP(account, ADDRESS), "one")
    services.ips.release(ReleaseIP(account, ADDRESS), "two")
    services.ips.assign_all(AssignIPs(account, addresses), "three")
    services.ips.release_all(ReleaseIPs(account, addresses[:2]), "four")
    services.allocation.allocate(AllocateIPs(account, 2), "five")
    services.pool.delete(DeleteIP("2001:db8::1", force=True), "six")
    services.ips.release_all(ReleaseIPs(account, None), "seven")
    services.pool.delete(DeleteIP(addresses[3]), "eight")
    services.pool.create(CreateIP(addresses[3], "us-west", "proxy2.example.com"), "nine")
    free = ["available"] * 4
    assert eventually(lambda: [d["pvt_status"] for d in pool.range("1", "2")] == free)
    records = composition.connect(guarded.settings.as_administrator()).database("kazoo_ips")

    def all_are_removed() -> bool:
        services.background.work()  # here no background thread runs it
        return not list(records.range("transaction-", "transaction."))

    # On a cluster some records are kept for a while.
    assert eventually(all_are_removed, seconds=LATE + LONG)


@dataclass
class States:
    """A guarded pool of two addresses on each of two hosts, which rest after their release."""

    services: Instance
    pool: Database
    clock: list[float]
    one: str
    two: str

    def status(self, address: str = ADDRESS) -> str:
        return str(self.pool.get(address)["pvt_status"])

    def assign(self, account_id: str, address: str = ADDRESS) -> None:
        self.services.ips.assign(AssignIP(account_id, address), uuid4().hex)

    def release(self, address: str = ADDRESS) -> str:
        return str(self.services.ips.release(ReleaseIP(None, address), uuid4().hex).status)

    def reserve(self, *addresses: str) -> str:
        command = ReserveIPs(AssignIPs(self.one, addresses), 600)
        return self.services.reservations.reserve(command, uuid4().hex).id


@pytest.fixture
def states(guarded: OwnApplication, pool: Database) -> States:
    # CouchDB compares times with its own clock, so that of the service stays behind it.
    clock = [time.time() - 100_000]
    services = composition.build(guarded.settings, clock=lambda: clock[0])
    two = services.accounts.create("Two", f"{uuid4().hex[:8]}.example.com", guarded.id)
    for n, host in enumerate((HOST, HOST, OTHER_HOST, OTHER_HOST), 1):
        services.pool.create(CreateIP(f"192.0.2.{n}", "z", host), uuid4().hex)
    services.places.set(ChangePlace(Place(Scope.ZONE, "z"), aging_seconds=1000))
    return States(services, pool, clock, guarded.id, two.id)


def test_addresses_rest(states: States) -> None:
    states.assign(states.one)
    assert states.release() == "aging"
    states.assign(states.one)  # the last account gets it back
    states.release()
    states.services.operator_changes.end_rest(EndRest(ADDRESS, "r"), uuid4().hex)
    states.assign(states.two)
    states.release()
    states.clock[0] += 1001
    states.assign(states.one)
    states.release()
    states.clock[0] += 1001
    states.services.background.keep_states()
    assert states.status() == "available"


def test_addresses_are_transferred(states: States) -> None:
    for address in (ADDRESS, NEXT):
        states.assign(states.one, address)
    for *addresses, from_, to in (
        (ADDRESS, states.one, states.two),
        (ADDRESS, states.two, states.one),
        (ADDRESS, NEXT, states.one, states.two),
    ):
        command = TransferIPs(tuple(addresses), from_, to)
        states.services.transfers.transfer(command, uuid4().hex)
    assert {states.pool.get(a)["pvt_assigned_to"] for a in (ADDRESS, NEXT)} == {states.two}


def test_addresses_are_disabled_and_drained(states: States) -> None:
    states.assign(states.one)
    states.services.operator_changes.disable(DisableIP(ADDRESS, "listed"), uuid4().hex)
    assert states.release() == "disabled"
    states.services.operator_changes.enable(EnableIP(ADDRESS), uuid4().hex)
    assert states.status() == "aging"
    states.reserve(NEXT)
    place = Place(Scope.HOST, HOST)
    states.services.places.change(ChangePlace(place, enabled=False, reason="r"), uuid4().hex)
    assert (states.status(), states.status(NEXT)) == ("disabled", "disabled")
    states.services.places.change(ChangePlace(place, enabled=True), uuid4().hex)
    assert (states.status(), states.status(NEXT)) == ("aging", "available")


def test_reservations_are_extended_assigned_cancelled_and_over(states: States) -> None:
    reservations, one = states.services.reservations, states.one
    held = states.reserve(ADDRESS, NEXT)
    reservations.extend(ExtendReservation(one, held, 900), uuid4().hex)
    reservations.assign(AssignReserved(one, held), uuid4().hex)
    assert states.status() == "assigned"
    reservations.cancel(one, states.reserve("192.0.2.3"), uuid4().hex)
    states.reserve("192.0.2.3")
    states.clock[0] += 601
    states.assign(states.two, "192.0.2.3")
    states.reserve("192.0.2.4")
    states.clock[0] += 601
    states.services.background.keep_states()
    assert states.status("192.0.2.4") == "available"


def test_hosts_are_moved_and_evacuated(states: States) -> None:
    for address in (ADDRESS, NEXT):
        states.assign(states.one, address)
    for command in (MoveHost(HOST, "c.example.com"), EvacuateHost("c.example.com")):
        job = states.services.jobs.create(command, uuid4().hex)
        while not job.has_ended:
            job = states.services.job_runner.step(job)
        assert (job.done, job.failed) == (2, 0)
    assert [d["pvt_status"] for d in states.pool.range("1", "2")] == ["assigned"] * 4


def test_an_address_that_kazoo_makes_available_is_corrected(states: States) -> None:
    states.services.operator_changes.disable(DisableIP(ADDRESS, "listed"), uuid4().hex)
    states.pool.put({**states.pool.get(ADDRESS), "pvt_status": "available"})
    for _ in range(8):
        states.clock[0] += 1
        states.services.background.archive()
    assert states.status() == "disabled"


def test_withdrawals_and_restorations_pass(guarded: OwnApplication, pool: Database) -> None:
    before = guarded.services.pool.create(CreateIP(ADDRESS, "us-east", "a.example.com"), "create")
    couch = composition.connect(guarded.settings)
    ips = IPRepository(couch, ListRepository(couch))
    claim = before.assign(guarded.id, at=before.modified, request_id="lost")
    claim = replace(claim, revision=ips.save(claim).revision)
    assert ips.withdraw(claim, before).outcome is Outcome.DONE
    assert pool.find(ADDRESS) is None
    later = composition.build(guarded.settings, clock=lambda: time.time() + 300)
    assert [f.problem for f in later.doctor.examine(repair=True)] == ["withdrawn"]
    existing = pool.get(ADDRESS)
    assert existing["pvt_status"] == "available"
    rival = {**existing, "pvt_status": "assigned", "pvt_assigned_to": "b" * 32}
    assert pool.graft({**rival, "_rev": f"{existing['_rev'][0]}-{'f' * 32}"}, f"1-{'0' * 32}")
    assert [f.problem for f in later.doctor.examine(repair=True)] == ["conflict"]
    assert pool.get(ADDRESS)["pvt_status"] == "available"


def test_the_doctor_repairs_documents_that_were_invalid_before(
    guarded: OwnApplication, pool: Database
) -> None:
    databases = composition.databases(guarded.settings)
    assert databases.guard(False)
    try:
        pool.put({**BROKEN["assigned to nobody"], "_rev": None} | begin(pool, FREE))
    finally:
        assert databases.guard(True)
        await_guard(pool)
    later = composition.build(guarded.settings, clock=lambda: time.time() + 300)
    found = [(f.problem, f.repaired) for f in later.doctor.examine(repair=True)]
    assert found == [("no_owner", True)]


def test_an_upgrade_updates_the_guard_and_not_the_views(
    guarded: OwnApplication, pool: Database
) -> None:
    views = pool.get("_design/ips")["_rev"]
    installed = pool.get("_design/guard")
    pool.put({**installed, "validate_doc_update": "(function () {})"})
    assert composition.databases(guarded.settings).create() == ["dedicated_ips/_design/guard"]
    assert design_docs.is_current(pool, "guard")
    assert composition.databases(guarded.settings).create() == []
    assert pool.get("_design/ips")["_rev"] == views
    await_guard(pool)
