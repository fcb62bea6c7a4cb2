"""The guard on CouchDB: it refuses invalid edits; Kazoo and the service work as before.

The embedded server keeps design documents but runs no `validate_doc_update`: there these tests
are skipped.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kazoo_ips import app as composition
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
    Outcome,
    ReleaseIP,
    ReleaseIPs,
    Written,
)
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from tests.api.fresh import Fresh, made_fresh
from tests.api.recorded import DATABASES
from tests.conftest import clear
from tests.guard.cases import ADDRESS, BROKEN, FREE, PASSED, REFUSED, TAKEN
from tests.timing import eventually


@pytest.fixture(scope="module")
def guarded(settings: Settings, couch: Couch) -> Iterator[Fresh]:
    """The service on a guarded pool of its own."""
    if "couchdb" not in couch.greeting():
        pytest.skip("the embedded server runs no validate_doc_update")
    with made_fresh(settings) as made:
        assert composition.databases(made.settings).guard(True)
        await_guard(
            composition.connect(made.settings.as_administrator()).database("dedicated_ips")
        )
        yield made


@pytest.fixture
def pool(guarded: Fresh) -> Iterator[Database]:
    """The guarded pool, empty."""
    database = composition.connect(guarded.settings.as_administrator()).database("dedicated_ips")
    yield database
    clear(database, lambda document: True)


def await_guard(database: Database) -> None:
    """CouchDB needs up to 67 s until it runs a new design document (`ddoc_cache`)."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            written = database.put({**FREE, "_id": "junk"}, w=database.replicas)
        except DatastoreForbidden:
            return
        gone = {"_id": "junk", "_rev": written.revision or "", "_deleted": True}
        database.put(gone, w=database.replicas)
        time.sleep(0.1)
    raise AssertionError("the pool is not guarded")


def begin(database: Database, old: dict[str, Any] | None) -> dict[str, str]:
    """Write what was there before; the revision to follow it with.

    On every node that there is: one that lags would speak of a conflict.
    """
    everywhere = database.replicas
    if old is None:
        return {}
    if old.get("_deleted"):
        taken = database.put(TAKEN, w=everywhere)
        database.put({**old, "_rev": taken.revision}, w=everywhere)
        return {}
    return {"_rev": database.put(old, w=everywhere).revision or ""}


@pytest.mark.parametrize("what", [w for w in REFUSED if ":" not in w or "junk" in w or "127" in w])
def test_an_invalid_edit_is_refused(pool: Database, what: str) -> None:
    old, new, why = REFUSED[what]
    revision = begin(pool, old)
    with pytest.raises(DatastoreForbidden, match=why):
        pool.put({**new, **revision})
    [written] = pool.put_all([{**new, **revision}])
    assert written.outcome is Outcome.REFUSED
    there = pool.find(new["_id"])
    assert there == (None if old is None else {**old, **revision})


def test_a_refused_document_does_not_affect_others_of_a_bulk_write(pool: Database) -> None:
    old, new, why = REFUSED["assigned to nobody"]
    forbidden = {**new, **begin(pool, old), "_id": ADDRESS}
    fine = {**FREE, "_id": "192.0.2.99"}
    told = pool._write_all([_Write(each, pool.replicas) for each in (forbidden, fine)])
    assert told[0] is None, "it is written by itself, and told so"
    assert told[1]
    assert told[1].result == Written(Outcome.DONE, pool.get("192.0.2.99")["_rev"])
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
        there = pool.get(document["_id"])
        free = {k: v for k, v in there.items() if k != "pvt_assigned_to"}
        free |= {"pvt_status": "available", "pvt_modified": there["pvt_modified"] + 1}
        revision = pool.put(free).revision
        taken = {**free, "pvt_status": "assigned", "pvt_assigned_to": "a" * 32, "_rev": revision}
        assert pool.remove(document["_id"], pool.put(taken).revision or "").outcome is Outcome.DONE
    for document in documents:
        assert pool.graft(document | {"_rev": f"9-{'a' * 32}"}, parent=f"8-{'b' * 32}")


def test_every_write_of_the_service_passes(guarded: Fresh, pool: Database) -> None:
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
    services.background.work()  # no thread does it here
    records = composition.connect(guarded.settings.as_administrator()).database("kazoo_ips")
    assert not list(records.range("transaction-", "transaction."))


def test_withdrawals_and_restorations_pass(guarded: Fresh, pool: Database) -> None:
    before = guarded.services.pool.create(CreateIP(ADDRESS, "us-east", "a.example.com"), "create")
    couch = composition.connect(guarded.settings)
    ips = IPRepository(couch, ListRepository(couch))
    claim = before.assign(guarded.id, at=before.modified, request_id="lost")
    claim = replace(claim, revision=ips.save(claim).revision)
    assert ips.withdraw(claim, before).outcome is Outcome.DONE
    assert pool.find(ADDRESS) is None
    later = composition.build(guarded.settings, clock=lambda: time.time() + 300)
    assert [f.problem for f in later.doctor.examine(repair=True)] == ["withdrawn"]
    there = pool.get(ADDRESS)
    assert there["pvt_status"] == "available"
    rival = {**there, "pvt_status": "assigned", "pvt_assigned_to": "b" * 32}
    assert pool.graft({**rival, "_rev": f"{there['_rev'][0]}-{'f' * 32}"}, f"1-{'0' * 32}")
    assert [f.problem for f in later.doctor.examine(repair=True)] == ["conflict"]
    assert pool.get(ADDRESS)["pvt_status"] == "available"


def test_the_doctor_repairs_documents_that_were_invalid_before(
    guarded: Fresh, pool: Database
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


def test_an_upgrade_updates_the_guard_and_not_the_views(guarded: Fresh, pool: Database) -> None:
    views = pool.get("_design/ips")["_rev"]
    there = pool.get("_design/guard")
    pool.put({**there, "validate_doc_update": "(function () {})"})
    assert composition.databases(guarded.settings).create() == ["dedicated_ips/_design/guard"]
    assert design_docs.is_current(pool, "guard")
    assert composition.databases(guarded.settings).create() == []
    assert pool.get("_design/ips")["_rev"] == views
    await_guard(pool)
