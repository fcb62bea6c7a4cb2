"""Concurrent writes share one request to CouchDB, and each thread has its own outcome."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import Conflict, DatastoreMissing, DatastoreUnreachable
from kazoo_ips.model import AssignIP, DedicatedIP, ReleaseIP
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import hold_request
from tests.faults.proxy import FaultProxy
from tests.timing import eventually

FIRST, SECOND, THIRD, FOURTH = (f"192.0.2.{n}" for n in range(1, 5))
POOL = "-dedicated_ips/"
BULK = f"{POOL}_bulk_docs"

Assign = Callable[[str, Member], Future[DedicatedIP]]
Together = Callable[[], Iterator[Assign]]


@pytest.fixture
def batching_services(
    proxy: FaultProxy,
    proxied_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    operator: Member,
) -> Instance:
    """The services behind the proxy, whose writes wait for a batch without a limit."""
    monkeypatch.setattr("kazoo_ips.couch.client._MAX_WAIT_WRITE", 30)
    return composition.build(proxied_settings)


@pytest.fixture
def together(
    batching_services: Instance, proxy: FaultProxy, add: Callable[..., DedicatedIP], alice: Member
) -> Together:
    """Assignments that start while `FIRST` is assigned. They are sent in one request."""
    for address in (FIRST, SECOND, THIRD, FOURTH):
        add(address)
    database = batching_services.ips._reader._ips._pool

    @contextmanager
    def writes() -> Iterator[Assign]:
        def call(address: str, who: Member) -> Callable[[], DedicatedIP]:
            return partial(batching_services.ips.assign, AssignIP(who.id, address), uuid4().hex)

        held = hold_request(proxy, "PUT", f"{POOL}{FIRST}", call(FIRST, alice), database._writes)
        with held as (first, begin):
            yield lambda address, who: begin(call(address, who))
        assert first.result(30).assigned_to == alice.id

    return writes  # type: ignore[return-value]


def owners(pool: Database, *addresses: str) -> list[str | None]:
    return [pool.get(address).get("pvt_assigned_to") for address in addresses]


def copies(couch: Couch, who: Member) -> set[str]:
    found = couch.database(account_database(who.id)).select({"pvt_type": "dedicated_ip"}, 100)
    return {document["_id"] for document in found}


def written(proxy: FaultProxy) -> list[str]:
    """The writes to the pool, in their order."""
    sent = (r.request for r in proxy.records if POOL in r.request.path)
    return [
        f"{r.method} {r.path.partition(POOL)[2]}"
        for r in sent
        if r.method == "PUT" or r.path.endswith("_bulk_docs")
    ]


def test_each_thread_has_its_own_outcome_of_one_request(
    together: Together,
    proxy: FaultProxy,
    pool: Database,
    couch: Couch,
    alice: Member,
    bob: Member,
) -> None:
    with together() as begin:
        second, third, fourth = begin(SECOND, alice), begin(THIRD, bob), begin(FOURTH, bob)
        pool.put({**pool.get(FOURTH), "pvt_zone": "moved"})  # another client writes first
    assert second.result().assigned_to == alice.id
    assert third.result().revision == pool.get(THIRD)["_rev"]
    with pytest.raises(Conflict):
        fourth.result()
    assert written(proxy) == [f"PUT {FIRST}", "POST _bulk_docs"]
    assert owners(pool, SECOND, THIRD, FOURTH) == [alice.id, bob.id, None]
    assert (copies(couch, alice), copies(couch, bob)) == ({FIRST, SECOND}, {THIRD})


def test_one_of_two_writers_of_the_same_address_wins(
    together: Together, pool: Database, couch: Couch, alice: Member, bob: Member
) -> None:
    with together() as begin:
        rivals = {bob.id: begin(SECOND, bob), alice.id: begin(SECOND, alice)}
        third = begin(THIRD, bob)
    assert third.result().assigned_to == bob.id
    won = [account for account, rival in rivals.items() if not rival.exception()]
    assert owners(pool, SECOND) == won
    assert [type(r.exception()) for r in rivals.values() if r.exception()] == [Conflict]
    assert (SECOND in copies(couch, alice)) == (won == [alice.id])
    assert (SECOND in copies(couch, bob)) == (won == [bob.id])


@pytest.mark.parametrize("fault", [faults.lose_reply, faults.error_afterwards])
def test_each_thread_reads_its_unanswered_write_back(
    together: Together,
    proxy: FaultProxy,
    pool: Database,
    couch: Couch,
    alice: Member,
    bob: Member,
    fault: faults.Fault,
) -> None:
    proxy.rule(fault, "POST", BULK)
    with together() as begin:
        second, third = begin(SECOND, alice), begin(THIRD, bob)
    assert (second.result().assigned_to, third.result().assigned_to) == (alice.id, bob.id)
    assert owners(pool, SECOND, THIRD) == [alice.id, bob.id]
    assert (copies(couch, alice), copies(couch, bob)) == ({FIRST, SECOND}, {THIRD})


def test_a_write_that_never_arrived_assigns_nothing(
    together: Together, proxy: FaultProxy, pool: Database, alice: Member, bob: Member
) -> None:
    proxy.rule(faults.cut, "POST", BULK)
    with together() as begin:
        second, third = begin(SECOND, alice), begin(THIRD, bob)
    for each in (second, third):
        assert isinstance(each.exception(), DatastoreUnreachable)
    assert owners(pool, SECOND, THIRD) == [None, None]


def test_without_a_quorum_all_are_withdrawn(
    together: Together,
    proxy: FaultProxy,
    pool: Database,
    couch: Couch,
    batching_services: Instance,
    alice: Member,
    bob: Member,
) -> None:
    proxy.rule(faults.answer_202, "POST", BULK)
    with together() as begin:
        second, third = begin(SECOND, alice), begin(THIRD, bob)
    for each in (second, third):
        assert isinstance(each.exception(), DatastoreUnreachable)
    assert (copies(couch, alice), copies(couch, bob)) == ({FIRST}, set())
    for address in (SECOND, THIRD):
        assert batching_services.ips.fetch(address).assigned_to is None


def test_copies_are_written_and_removed_together(
    batching_services: Instance,
    proxy: FaultProxy,
    add: Callable[..., DedicatedIP],
    couch: Couch,
    alice: Member,
) -> None:
    database = batching_services.copies._copies._couch.database(account_database(alice.id))
    steps = [
        (
            lambda a: batching_services.ips.assign(AssignIP(alice.id, a), uuid4().hex),
            {FIRST, SECOND, THIRD},
        ),
        (lambda a: batching_services.ips.release(ReleaseIP(alice.id, a), uuid4().hex), set()),
    ]
    for address in (FIRST, SECOND, THIRD):
        add(address)
    for step, left in steps:
        proxy.clear()
        held = hold_request(
            proxy, "PUT", f"{alice.id[4:]}/{FIRST}", partial(step, FIRST), database._writes
        )
        with held as (first, begin):
            others = [begin(partial(step, address)) for address in (SECOND, THIRD)]
        for each in (first, *others):
            each.result(30)
        sent = [r.request for r in proxy.records if alice.id[4:] in r.request.path]
        wrote = [r.path.split("/")[-1] for r in sent if r.method == "PUT"]
        assert wrote == [FIRST]
        assert [r.path.split("/")[-1] for r in sent if "_bulk_docs" in r.path] == ["_bulk_docs"]
        assert eventually(lambda left=left: copies(couch, alice) == left)


def test_all_threads_get_the_error_of_a_missing_database(
    proxied_settings: Settings, proxy: FaultProxy
) -> None:
    nowhere = composition.connect(proxied_settings).database("not-there")
    a, b, c = (partial(nowhere.write, {"_id": i}) for i in "abc")
    with hold_request(proxy, "PUT", "not-there/a", a, nowhere._writes) as (first, begin):
        others = [begin(b), begin(c)]
    for each in (first, *others):
        with pytest.raises(DatastoreMissing):
            each.result(30)
