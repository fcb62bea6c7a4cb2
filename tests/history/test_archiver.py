"""Each acknowledged change of an address has exactly one event in the archive."""

from uuid import uuid4

import pytest

from kazoo_ips.model import GREGORIAN_EPOCH, CreateIP, DedicatedIP, generation
from kazoo_ips.model.history import Source, State
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from tests.history.conftest import IP, START, World

FREE = State("available", None, "z", "h")
NOW = int(START) + GREGORIAN_EPOCH


def test_each_change_is_an_event(world: World) -> None:
    created = world.create()
    assigned = world.assign()
    world.release()
    world.assign(account_id=world.other_id)
    world.archive()
    taken = State("assigned", world.account_id, "z", "h")
    events = world.events()
    assert [(e.event, e.before, e.after) for e in events] == [
        ("created", None, FREE),
        ("assigned", FREE, taken),
        ("released", taken, FREE),
        ("assigned", FREE, taken._replace(account_id=world.other_id)),
    ]
    assert [e.account_id for e in events] == [
        None, world.account_id, world.account_id, world.other_id,
    ]  # fmt: skip
    assert {e.source for e in events} == {Source.SERVICE}
    assert all(e.certain for e in events)
    assert [e.request_id for e in events[:2]] == [created.request_id, assigned.request_id]
    assert [e.revision for e in events[:2]] == [created.revision, assigned.revision]
    assert {e.at for e in events} == {int(START) + GREGORIAN_EPOCH}


def test_a_deletion_of_an_assigned_address_is_two_events(world: World) -> None:
    world.create()
    world.assign()
    world.delete(force=True)
    world.archive()
    assert world.kinds() == ["created", "assigned", "released", "deleted"]


def test_an_address_that_is_added_again_has_both_lives(world: World) -> None:
    for _ in range(2):
        world.create()
        world.delete()
    world.create()
    world.archive()
    assert world.kinds() == ["created", "deleted", "created", "deleted", "created"]


def test_the_same_request_may_do_the_same_twice_in_a_second(world: World) -> None:
    world.create()
    for _ in range(3):
        world.assign(request_id="a")
        world.release(request_id="b")
    world.archive()
    assert world.kinds() == ["created", *["assigned", "released"] * 3]


def test_events_are_archived_while_a_release_of_the_addresses_is_pending(world: World) -> None:
    """The mark of the release says nothing about the events before it."""
    world.create()
    given = world.assign()
    log = TransactionLog(Records(world.couch))
    begun = log.begin(Action.RELEASE, world.account_id, uuid4().hex, given.modified, (IP,))
    document = world.pool.get(IP)
    written = generation(document["_rev"]) + 1
    world.write(transaction=begun.id, written_generation=written)
    world.archive()
    assert world.kinds() == ["created", "assigned"]


def test_two_archivers_do_no_harm(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    first = world.documents()
    world.couch.database("kazoo_ips").delete()
    world.couch.database("kazoo_ips").create()
    world.archive(world.process())
    assert world.documents() == first


def test_events_are_archived_within_seconds(world: World) -> None:
    world.archive()
    world.create()
    world.archive(seconds=5)
    assert world.kinds() == ["created"]


@pytest.mark.parametrize("forgets", [False, True])
def test_events_stay_in_the_document_until_they_are_archived(world: World, forgets: bool) -> None:
    world.create()
    for _ in range(12):
        world.assign()
        world.release()
        world.clock[0] += 120
    assert len(world.pool.get(IP)["pvt_trail"]) == 25
    world.archive(world.process() if forgets else None)
    world.services.background.archive()
    world.clock[0] += 120
    world.services.background.archive()
    world.assign()
    assert len(world.pool.get(IP)["pvt_trail"]) == 4
    world.archive()
    assert world.kinds() == ["created", *["assigned", "released"] * 12, "assigned"]


def test_an_address_that_is_imported_again_has_both_lives(world: World) -> None:
    world.create()
    for _ in range(3):
        world.assign()
        world.delete(force=True)
        world.services.bulk_additions.add([CreateIP(IP, "z", "h")], uuid4().hex, {})
    world.archive()
    assert world.kinds() == ["created", *["assigned", "released", "deleted", "created"] * 3]


def test_a_creation_that_did_not_read_a_tombstone_is_an_event(world: World) -> None:
    """Another client has deleted the address after the service read the tombstones."""
    world.create()
    world.delete()
    world.archive()
    new = DedicatedIP.new(IP, "z", "h", at=NOW, request_id="a")
    IPRepository(world.couch, ListRepository(world.couch)).save(new)
    world.archive(world.process())
    world.assign()
    world.archive(world.process())
    assert sorted(world.kinds()) == ["assigned", "created", "created", "deleted"]
