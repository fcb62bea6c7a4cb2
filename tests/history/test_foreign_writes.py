"""The history has the writes of Kazoo, Fauxton and scripts, or a gap in their place.

The embedded database keeps no earlier revisions, like CouchDB after a compaction.
"""

import os
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Database
from kazoo_ips.model import GREGORIAN_EPOCH, generation
from kazoo_ips.model.history import HistoryEvent, Source
from kazoo_ips.model.timelines import ListEvents, position
from tests.history.conftest import IP, START, World
from tests.timing import eventually

NOW = int(START) + GREGORIAN_EPOCH


def kazoo_assigns(world: World, account_id: str = "", at: int = NOW) -> str:
    owner = account_id or world.account_id
    return world.write(status="assigned", assigned_to=owner, modified=at)


def kazoo_releases(world: World, at: int = NOW) -> str:
    return world.write(status="available", assigned_to=None, modified=at)


def kazoo_creates(world: World) -> None:
    document = {
        "_id": IP, "pvt_type": "dedicated_ip", "pvt_status": "available", "pvt_zone": "z",
        "pvt_host": "h", "pvt_created": NOW, "pvt_modified": NOW, "pvt_vsn": "1",
    }  # fmt: skip
    assert world.pool.put(document).revision


def foreign(world: World) -> list[HistoryEvent]:
    return [event for event in world.events() if event.source is not Source.SERVICE]


def test_kazoos_writes_are_events(world: World) -> None:
    world.create()
    world.archive()
    revision = kazoo_assigns(world, at=NOW + 50)
    world.archive()
    kazoo_releases(world, at=NOW + 60)
    world.archive()
    assigned, released = foreign(world)
    assert (assigned.event, assigned.account_id, assigned.at) == (
        "assigned", world.account_id, NOW + 50,
    )  # fmt: skip
    assert (released.event, released.account_id) == ("released", world.account_id)
    assert assigned.revision == revision
    assert assigned.certain


@pytest.mark.parametrize("restarts", [False, True])
def test_a_write_of_kazoo_under_one_of_the_service_is_an_event(
    world: World, restarts: bool
) -> None:
    world.create()
    world.archive()
    kazoo_assigns(world)
    world.release()
    kazoo_assigns(world, world.other_id)
    world.archive(world.process() if restarts else None)
    world.release()
    world.archive(world.process() if restarts else None)
    assert world.kinds() == ["created", *["assigned", "released"] * 2]
    assert [event.source for event in world.events()] == [
        Source.SERVICE, Source.KAZOO, Source.SERVICE, Source.KAZOO, Source.SERVICE,
    ]  # fmt: skip


def test_an_address_of_kazoo_is_known_from_its_document(world: World) -> None:
    kazoo_creates(world)
    world.archive()
    kazoo_assigns(world, at=NOW + 5)
    world.archive()
    world.release()
    world.archive()
    assert world.kinds() == ["created", "assigned", "released"]
    assert [event.certain for event in world.events()] == [True, True, True]


@pytest.mark.parametrize("times", [1, 2])
def test_an_address_from_before_the_history_has_first_events(world: World, times: int) -> None:
    kazoo_creates(world)
    kazoo_assigns(world, at=NOW - 1000)
    for _ in range(times):
        world.couch.database("kazoo_ips").delete()
        world.couch.database("kazoo_ips").create()
        world.archive(world.process())
    created, assigned = world.events()
    assert (created.event, created.at, created.certain) == ("created", NOW, True)
    assert (assigned.event, assigned.at, assigned.certain) == ("assigned", NOW - 1000, False)


def test_an_address_from_before_the_history_is_known_after_restarts(world: World) -> None:
    kazoo_creates(world)
    world.archive()
    for _ in range(3):
        kazoo_assigns(world)
        world.archive(world.process())
        world.archive(world.process())
        kazoo_releases(world)
        world.archive(world.process())
    assert world.kinds() == ["created", *["assigned", "released"] * 3]


def test_several_writes_are_found_or_a_gap_says_that_they_are_missing(world: World) -> None:
    world.create()
    world.archive()
    missing = [kazoo_assigns(world), kazoo_releases(world)]
    last = kazoo_assigns(world, world.other_id)
    world.archive()
    world.archive(world.process())
    *rest, end = foreign(world)
    if not os.environ.get("COUCHDB_URL"):
        assert [(e.event, e.revision, e.source) for e in rest] == [
            ("unknown", revision, Source.GAP) for revision in missing
        ]
        assert not end.certain
    else:
        assert [(e.event, e.revision) for e in rest] == list(
            zip(["assigned", "released"], missing, strict=True)
        )
        assert end.certain
    assert (end.event, end.account_id, end.revision) == ("assigned", world.other_id, last)


@pytest.mark.skipif(not os.environ.get("COUCHDB_URL"), reason="it always compacts")
@pytest.mark.parametrize("compacted", [False, True])
def test_a_compaction_between_writes_leaves_a_gap(world: World, compacted: bool) -> None:
    world.create()
    world.archive()
    revisions = [kazoo_assigns(world), kazoo_releases(world), kazoo_assigns(world)]
    if compacted:
        compact(world)
    world.release()
    if compacted:
        compact(world)
    world.archive(world.process())
    kinds = (
        ["unknown", "unknown", "assigned"] if compacted else ["assigned", "released", "assigned"]
    )
    assert [(e.event, e.revision) for e in foreign(world)] == list(
        zip(kinds, revisions, strict=True)
    )
    assert world.kinds() == ["created", *kinds, "released"]


def compact(world: World) -> None:
    """Let CouchDB remove the bodies of earlier revisions."""
    resource = world.pool._resource
    resource.post("_compact", headers={"Content-Type": "application/json"})
    eventually(lambda: not world.pool.info()["compact_running"])


def test_the_state_after_a_gap_is_an_event(world: World) -> None:
    world.create()
    world.archive()
    kazoo_assigns(world)
    last = kazoo_releases(world)
    world.archive()
    assert foreign(world)[-1].revision == last


def test_a_gap_comes_before_the_next_known_write(world: World) -> None:
    world.create()
    world.archive()
    kazoo_assigns(world, at=NOW + 8)
    last = kazoo_assigns(world, world.other_id, at=NOW + 9)
    if os.environ.get("COUCHDB_URL"):
        compact(world)
    world.clock[0] += 20
    world.archive(world.process())
    found = world.services.history.of_address(ListEvents(address=IP)).items
    assert [event.event for event in found] == ["assigned", "unknown", "created"]
    assert found[0].revision == last
    world.release()
    world.archive(world.process())
    now = int(world.clock[0]) + GREGORIAN_EPOCH
    holder = world.services.history.holder(IP, now)
    assert (holder.status, holder.certain) == ("available", True)


def test_a_gap_is_recorded_once(world: World, make_process: Callable[[], Instance]) -> None:
    world.create()
    world.archive()
    kazoo_assigns(world)
    kazoo_releases(world)
    world.archive(make_process())
    before = world.documents()
    kazoo_assigns(world)
    world.archive(make_process())
    assert world.documents()[: len(before)] == before
    assert len(world.documents()) == len(before) + 1


def test_a_write_that_changes_nothing_is_no_event(world: World) -> None:
    world.create()
    world.assign()
    world.write(note="hello")
    world.archive()
    world.write(note="hello again")
    world.archive()
    world.release()
    world.archive()
    assert world.kinds() == ["created", "assigned", "released"]


def test_an_edit_of_the_zone_is_an_event_of_the_time_when_it_was_found(world: World) -> None:
    world.create()
    world.archive()
    world.clock[0] += 1000
    world.write(zone="elsewhere")
    world.archive()
    [event] = foreign(world)
    assert event.event == "changed"
    assert event.before
    assert event.after == event.before._replace(zone="elsewhere")
    assert event.at > NOW + 1000
    assert not event.certain


def delete_as_another_program(world: World, *, soft: bool) -> None:
    """Delete the address as Kazoo or a script does.

    :param soft: whether to mark the document as deleted, in place of writing a bare tombstone
    """
    if soft:
        world.write(deleted=True)
    else:
        world.pool.remove(IP, world.pool.get(IP)["_rev"])


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_a_deletion_by_another_program_is_an_event(
    world: World, restarts: bool, soft: bool
) -> None:
    world.create()
    world.assign()
    world.archive()
    delete_as_another_program(world, soft=soft)
    for _ in range(2):
        world.archive(world.process() if restarts else None)
    deleted = world.events()[-1]
    assert world.kinds() == ["created", "assigned", "deleted"]
    assert (deleted.source, deleted.after) == (Source.KAZOO, None)
    assert deleted.before
    assert deleted.before.account_id == world.account_id


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_what_was_not_archived_before_a_deletion_by_another_program(
    world: World, restarts: bool, again: bool, soft: bool
) -> None:
    world.create()
    if again:
        world.delete()
        world.archive()
        world.create()
    world.archive()
    world.assign()
    world.release()
    delete_as_another_program(world, soft=soft)
    for _ in range(2):
        world.archive(world.process() if restarts else None)
    lives = ["created", "deleted"] if again else []
    if soft or os.environ.get("COUCHDB_URL"):
        assert world.kinds() == [*lives, "created", "assigned", "released", "deleted"]
    else:
        assert world.kinds() == [*lives, "created", "unknown", "unknown", "deleted"]


@pytest.mark.parametrize("soft", [False, True])
def test_a_life_between_two_reads_of_the_archiver_is_in_the_history(
    world: World, soft: bool
) -> None:
    world.create()
    world.delete()
    world.archive()
    world.create()
    world.assign()
    delete_as_another_program(world, soft=soft)
    world.archive()
    world.archive(world.process())
    kinds = ["unknown", "unknown"]
    if soft or os.environ.get("COUCHDB_URL"):
        kinds = ["created", "assigned"]
    assert world.kinds() == ["created", "deleted", *kinds, "deleted"]


@pytest.mark.parametrize("restarts", [False, True])
def test_an_address_that_the_service_adds_again_was_deleted(world: World, restarts: bool) -> None:
    world.create()
    world.archive()
    assigned = world.assign()
    deleted = world.pool.remove(IP, world.pool.get(IP)["_rev"])
    assert deleted.revision
    world.create()
    world.archive(world.process() if restarts else None)
    world.archive(world.process())
    if os.environ.get("COUCHDB_URL"):
        assert world.kinds() == ["created", "assigned", "deleted", "created"]
    else:  # CouchDB has no body of the assignment any more, which was not archived
        assert world.kinds() == ["created", "unknown", "deleted", "created"]
        assert world.events()[1].revision == assigned.revision
    assert world.events()[-2].revision == deleted.revision
    holder = world.services.history.holder(IP, int(world.clock[0]) + GREGORIAN_EPOCH)
    assert (holder.status, holder.certain) == ("available", True)


@pytest.mark.parametrize("archived", ["not yet", "the addition", "the deletion"])
@pytest.mark.parametrize("owned", [False, True])
def test_an_address_that_is_back_after_its_deletion_has_all_events(
    world: World, monkeypatch: pytest.MonkeyPatch, archived: str, owned: bool
) -> None:
    """A node of a cluster has received the addition after the deletion (simulation, seed 1692)."""
    world.create()
    added = world.pool.get(IP)
    if archived == "the addition":
        world.archive()
    if owned:
        world.assign()
    world.delete(force=True)
    if archived == "the deletion":
        world.archive()
    [tombstone] = world.pool.leaves(IP)
    revision = Database.revision
    monkeypatch.setattr(  # the embedded database keeps no earlier revisions
        Database,
        "revision",
        lambda pool, name, rev: (
            tombstone if rev == tombstone["_rev"] else revision(pool, name, rev)
        ),
    )
    back = world.pool.put({name: each for name, each in added.items() if name != "_rev"}).revision
    world.archive(world.process())
    lives = ["created", *(["assigned", "released"] if owned else []), "deleted", "created"]
    assert world.kinds() == lives
    assert [event.source for event in world.events()] == [
        *[Source.SERVICE] * (len(lives) - 1), Source.KAZOO,
    ]  # fmt: skip
    assert world.events()[-1].revision == back
    world.assign()
    world.archive(world.process())
    assert world.kinds() == [*lives, "assigned"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_creation_over_a_deletion_of_the_service_hides_no_event(
    world: World, restarts: bool
) -> None:
    world.create()
    world.archive()
    world.assign()
    world.release()
    world.delete()
    kazoo_creates(world)
    world.archive(world.process() if restarts else None)
    if os.environ.get("COUCHDB_URL"):
        assert world.kinds() == ["created", "assigned", "released", "deleted", "created"]
        assert [e.source for e in foreign(world)] == [Source.KAZOO]
    else:
        assert world.kinds() == ["created", *["unknown"] * 3, "changed"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_write_without_the_trail_hides_no_event(world: World, restarts: bool) -> None:
    world.create()
    world.archive()
    world.assign()
    world.write(trail=None, status="available", assigned_to=None)
    world.archive(world.process() if restarts else None)
    if os.environ.get("COUCHDB_URL"):
        assert world.kinds() == ["created", "assigned", "released"]
    else:
        assert world.kinds() == ["created", "unknown", "changed"]


def test_a_second_creation_is_one_event_in_lists(world: World) -> None:
    world.create()
    world.delete()
    world.archive()
    kazoo_creates(world)
    world.archive()
    assert world.kinds() == ["created", "deleted", "created"]
    for query, listed in (
        (ListEvents(address=IP), world.services.history.of_address),
        (ListEvents(), world.services.history.events),
    ):
        assert {e.id for e in listed(query).items} == {e.id for e in world.events()}


def test_documents_that_are_no_addresses_have_no_events(world: World) -> None:
    name = uuid4().hex
    world.pool.put({"_id": name, "pvt_type": "other"})
    world.archive()
    world.pool.remove(name, world.pool.get(name)["_rev"])
    world.archive()
    assert world.documents(name) == []


@pytest.mark.parametrize("edit", ["deletion", "edit by hand"])
def test_what_follows_while_the_archiver_reads_is_later_in_every_list(
    world: World, edit: str
) -> None:
    due: list[Callable[[], object]] = []

    def meanwhile(method: str, url: str) -> None:
        if due and "dedicated_ips" in url and "_changes" not in url:
            turns.append(url)
            if len(turns) == turn:
                world.clock[0] += 1
                due.pop()()
            world.clock[0] += 5  # as if CouchDB were slow

    archiver = composition.build(
        world.settings, clock=lambda: world.clock[0], pause=lambda seconds: None, trace=meanwhile
    )
    reached = 0
    for turn in range(1, 9):
        address, turns = f"192.0.2.{turn}", list[str]()
        world.create(address)
        world.archive(archiver)
        revision = str(world.pool.get(address)["_rev"])
        if edit == "deletion":
            world.pool.put({"_id": address, "_rev": revision, "_deleted": True})
            due.append(partial(world.create, address))
        else:
            world.clock[0] += 100
            world.write(address, zone="y")
            due.append(partial(world.assign, address))
        world.archive(archiver)
        reached += not due
        due.clear()
        world.archive(archiver)
        events = sorted(world.events(address), key=position)
        generations = [generation(event.revision) for event in events]
        assert generations == sorted(generations), (turn, events)
    assert reached >= 2
