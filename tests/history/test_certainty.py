"""The archive has each change once, whatever happens to the archiver, and none that was undone."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.model import AssignIPs, DedicatedIP, generation
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, Transaction, TransactionLog
from tests.history.conftest import IP, World
from tests.history.kills import Killed, killed_at

IPS = (IP, "192.0.2.2")


def changes(world: World) -> None:
    """Make changes of all kinds, with a write of another program among them."""
    for address in IPS:
        world.create(address)
    world.services.ips.assign_all(AssignIPs(world.account_id, IPS), uuid4().hex)
    world.release()
    world.write(status="assigned", assigned_to=world.other_id)
    world.write("192.0.2.2", zone="elsewhere")
    world.release()
    world.delete("192.0.2.2", force=True)
    world.services.background.work()


EXPECTED = {
    IP: ["created", "assigned", "released", "assigned", "released"],
    "192.0.2.2": ["created", "assigned", "changed", "released", "deleted"],
}


@pytest.mark.parametrize("answered", [False, True])
def test_the_archiver_may_be_killed_at_each_request(world: World, answered: bool) -> None:
    """Each process is killed one request later than the one before."""
    changes(world)
    for number in range(1, 100):
        world.clock[0] += 60  # the lease of the killed process ends
        process = world.process()
        with killed_at(number, answered=answered) as count:
            try:
                world.archive(process)
            except Killed:
                continue
        assert count[0] < number
        break
    else:
        raise AssertionError("the archiver never ended")
    assert number > 8
    assert {address: world.kinds(address) for address in IPS} == EXPECTED


@pytest.mark.parametrize("number", range(1, 13))
def test_a_killed_archiver_is_followed_by_another_one(world: World, number: int) -> None:
    changes(world)
    with killed_at(number, answered=True), suppress(Killed):
        world.archive(world.process())
    world.clock[0] += 60
    world.assign()
    world.archive(world.process())
    assert world.kinds() == [*EXPECTED[IP], "assigned"]


def test_an_assignment_that_is_undone_later_is_retracted(world: World) -> None:
    world.create()
    ip = world.assign()
    world.archive()
    repository(world).save(ip.undo())
    world.archive()
    assert world.kinds() == ["created"]
    retraction = world.documents()[-1]
    assert retraction["event"] == "retracted"
    assert retraction["retracts"] == world.documents()[-2]["id"]
    world.archive(world.process())
    world.assign()
    world.archive(world.process())
    assert world.kinds() == ["created", "assigned"]
    assert [d["event"] for d in world.documents()].count("retracted") == 1


def test_an_assignment_that_was_undone_before_is_not_archived(world: World) -> None:
    world.create()
    repository(world).save(world.assign().undo())
    world.archive()
    assert [document["event"] for document in world.documents()] == ["created"]


def repository(world: World) -> IPRepository:
    return IPRepository(world.couch, ListRepository(world.couch))


@pytest.fixture
def pending(world: World) -> tuple[TransactionLog, Transaction]:
    """An assignment of two addresses whose transaction is pending, as if its process had died."""
    for address in IPS:
        world.create(address)
    done = world.services.ips.assign_all(AssignIPs(world.account_id, IPS), uuid4().hex)
    world.services.background.work()
    log = TransactionLog(Records(world.couch))
    at, request_id = done[0].modified, done[0].request_id or ""
    transaction = log.begin(Action.ASSIGN, world.account_id, request_id, at, IPS)
    for document in world.pool.get_all(IPS).values():
        written = {"pvt_written_generation": generation(document["_rev"]) + 1}
        world.pool.put({**document, **written, "pvt_transaction": transaction.id})
    return log, transaction


def test_an_assignment_is_archived_when_its_transaction_is_committed(
    world: World, pending: tuple[TransactionLog, Transaction]
) -> None:
    world.archive(seconds=20)
    assert world.documents() == []
    log, transaction = pending
    log.commit(transaction, IPS)
    world.archive()
    assert [world.kinds(address) for address in IPS] == [["created", "assigned"]] * 2


def test_an_assignment_whose_transaction_is_aborted_is_not_archived(
    world: World, pending: tuple[TransactionLog, Transaction]
) -> None:
    world.archive()
    log, transaction = pending
    log.abort(transaction)
    world.archive()
    world.clock[0] += 1000
    world.process().background.recover()
    world.archive()
    assert [world.kinds(address) for address in IPS] == [["created"]] * 2
    assert {d["event"] for address in IPS for d in world.documents(address)} == {"created"}


def test_a_transaction_that_ends_while_its_documents_are_read_is_seen(
    world: World, pending: tuple[TransactionLog, Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is undone, and its record deleted, between the reads of the documents and the record."""
    later = world.process()
    find: Callable[[TransactionLog, str], Any] = TransactionLog.find

    def ends_meanwhile(self: TransactionLog, name: str) -> Transaction | None:
        monkeypatch.setattr(TransactionLog, "find", find)
        world.clock[0] += 1000
        later.background.recover()
        return find(self, name)

    monkeypatch.setattr(TransactionLog, "find", ends_meanwhile)
    world.archive()
    assert [world.kinds(address) for address in IPS] == [["created"]] * 2
    assert {d["event"] for address in IPS for d in world.documents(address)} == {"created"}


@pytest.mark.parametrize("hours", [1, 30])
def test_nothing_is_lost_when_the_clock_is_set_back(world: World, hours: int) -> None:
    world.create()
    for _ in range(8):
        world.assign()
        world.release()
    world.archive()
    world.clock[0] -= hours * 3600
    for _ in range(8):
        world.assign()
        world.release()
    world.services.background.archive()
    for _ in range(8):
        world.assign()
        world.release()
    world.clock[0] += 60
    world.archive(seconds=90)
    assert world.kinds() == ["created", *["assigned", "released"] * 24]


def test_several_processes_write_and_archive(world: World) -> None:
    processes = [world.process() for _ in range(3)]
    world.create()
    for number in range(30):
        world.services = processes[number % 3]
        (world.release if number % 2 else world.assign)()
        for process in processes:
            process.background.archive()
        world.clock[0] += 40
    world.archive(processes[0], seconds=60)
    assert world.kinds() == ["created", *["assigned", "released"] * 15]


def test_a_deletion_is_archived_although_an_addition_after_it_was_dropped(world: World) -> None:
    world.create()
    world.delete()
    ips = repository(world)
    deletion = ips.leaves(IP)
    new = DedicatedIP.new(
        IP, "z", "h", at=1, request_id="a", trail=deletion.deleted_trail, tombstone=deletion.latest
    )
    written = ips.save(new)
    ips.drop(replace(new, revision=written.revision))
    world.archive(world.process())
    assert world.kinds() == ["created", "deleted"]
    world.create()
    world.archive(world.process())
    assert world.kinds() == ["created", "deleted", "created"]


def test_a_deletion_under_a_dropped_addition_is_continued(world: World) -> None:
    world.create()
    world.delete()
    ips = repository(world)
    deletion = ips.leaves(IP)
    new = DedicatedIP.new(
        IP, "z", "h", at=1, request_id="a", trail=deletion.deleted_trail, tombstone=deletion.latest
    )
    written = ips.save(new)
    ips.drop(replace(new, revision=written.revision))
    world.create()
    world.archive()
    assert world.kinds() == ["created", "deleted", "created"]
