"""Readers see every change, also while the archiver works, is behind or does not run."""

import os
from random import Random

import pytest

from kazoo_ips import app as composition
from kazoo_ips.model import GREGORIAN_EPOCH, AssignIPs
from kazoo_ips.model.history import HistoryEvent, State
from kazoo_ips.model.timelines import ListEvents
from kazoo_ips.repositories import unarchived_changes
from kazoo_ips.repositories.pool_feed import PoolFeed
from tests.history.conftest import START, World

ADDRESSES = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
Truth = dict[str, list[tuple[int, State | None]]]


def listed(world: World, query: ListEvents) -> list[HistoryEvent]:
    """All events of a list, by pages of three."""
    read = world.services.history.of_address if query.address else world.services.history.events
    found: list[HistoryEvent] = []
    after = None
    while True:
        page = read(ListEvents(query.address, query.account_id, limit=3, after=after))
        found += page.items
        after = page.after
        if after is None:
            return found


def change(world: World, mix: Random, truth: Truth, address: str = "") -> None:
    """Change an address, by default a random one, and record its state from now on."""
    address = address or mix.choice(ADDRESSES)
    now = int(world.clock[0]) + GREGORIAN_EPOCH
    state = truth[address][-1][1] if truth.get(address) else None
    after: State | None = State("available", None, "z", "h")
    if state is None:
        world.create(address)
    elif state.account_id:
        world.release(address)
    elif mix.random() < 0.25:
        world.delete(address)
        after = None
    else:
        owner = mix.choice([world.account_id, world.other_id])
        world.assign(address, owner)
        after = State("assigned", owner, "z", "h")
    truth.setdefault(address, []).append((now, after))


@pytest.mark.parametrize("seed", range(3))
def test_answers_do_not_depend_on_the_archiver(world: World, seed: int) -> None:
    mix, truth = Random(seed), Truth()
    for _ in range(40):
        change(world, mix, truth)
        if mix.random() < 0.2:
            world.archive(seconds=mix.choice([1, 2, 6]))
        world.clock[0] += mix.choice([0, 0, 1, 30])
        now = int(world.clock[0]) + GREGORIAN_EPOCH
        for address, states in truth.items():
            holder = world.services.history.holder(address, now)
            state = states[-1][1]
            assert (holder.status, holder.account_id) == (
                (state.status, state.account_id) if state else ("deleted", None)
            )
            assert holder.certain
            assert [e.after for e in listed(world, ListEvents(address=address))] == [
                after for _, after in reversed(states)
            ]
    world.clock[0] += 1
    before = {
        query: listed(world, query)
        for query in (
            ListEvents(),
            ListEvents(account_id=world.account_id),
            *(ListEvents(address=address) for address in truth),
        )
    }
    assert len(before[ListEvents()]) == sum(map(len, truth.values()))
    world.archive(seconds=10)
    for query, events in before.items():
        found = listed(world, query)
        assert [event.id for event in found] == [event.id for event in events]
        assert [event.after for event in found] == [event.after for event in events]
    assert {e.id for e in before[ListEvents()]} == {
        e.id for address in truth for e in world.events(address)
    }
    for address, states in truth.items():
        for at in sorted({at + d for at, _ in states for d in (-1, 0, 1)}):
            state = next((after for when, after in reversed(states) if when <= at), None)
            holder = world.services.history.holder(address, at)
            assert holder.account_id == (state.account_id if state else None), (address, at)


def test_a_request_for_several_addresses_is_in_lists_at_once(world: World) -> None:
    for address in ADDRESSES:
        world.create(address)
    world.services.ips.assign_all(AssignIPs(world.account_id, tuple(ADDRESSES)), "r" * 32)
    found = listed(world, ListEvents(account_id=world.account_id))
    assert {event.address for event in found} == set(ADDRESSES)
    assert {event.request_id for event in found} == {"r" * 32}


def test_a_write_of_kazoo_is_listed_once(world: World) -> None:
    world.create()
    world.archive()
    at = int(world.clock[0]) + GREGORIAN_EPOCH
    world.write(status="assigned", assigned_to=world.account_id, modified=at)
    world.clock[0] += 1
    before = listed(world, ListEvents(address="192.0.2.1"))
    world.archive()
    after = listed(world, ListEvents(address="192.0.2.1"))
    assert [(e.event, e.id) for e in before] == [(e.event, e.id) for e in after]
    assert [e.event for e in after] == ["assigned", "created"]
    assert len(listed(world, ListEvents(account_id=world.account_id))) == 1


def test_an_archive_far_behind_still_shows_the_latest_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unarchived_changes, "_MOST", 2)
    for number in range(1, 6):
        world.create(f"192.0.2.{number}")
        world.clock[0] += 1
    found = {event.address for event in listed(world, ListEvents())}
    assert len(found) >= 2
    if not os.environ.get("COUCHDB_URL"):  # the feed of several shards has no order between them
        assert found == {"192.0.2.4", "192.0.2.5"}
    assert len(listed(world, ListEvents(address="192.0.2.1"))) == 1


def test_after_a_restore_of_the_pool_every_document_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create()
    world.archive()
    world.pool.delete()
    composition.databases(world.settings).create()
    # The checkpoint has a sequence of the old database. CouchDB gives the new database another id;
    # the embedded server does not.
    monkeypatch.setattr(PoolFeed, "history", lambda self: "restored")
    world.services = world.process()
    world.create("192.0.2.9")
    assert "192.0.2.9" in {event.address for event in listed(world, ListEvents())}


def test_an_undone_assignment_is_in_no_list(world: World) -> None:
    created = world.create()
    world.assign()
    assigned = world.services.history.events(ListEvents()).items[0]
    ip = world.services.ips.fetch("192.0.2.1")
    undone = ip.undo()
    assert ip.revision != created.revision
    assert assigned.event == "assigned"
    world.write(
        status="available", assigned_to=None,
        trail=[
            {"event": e.kind, "at": e.at, "request_id": e.request_id, "generation": e.generation}
            for e in undone.trail
        ],
        written_generation=3,
    )  # fmt: skip
    for query in (ListEvents(), ListEvents(address="192.0.2.1")):
        assert [event.event for event in listed(world, query)] == ["created"]


def test_who_had_an_address_until_it_was_released_takes_one_read(world: World) -> None:
    sent: list[str] = []
    services = composition.build(
        world.settings, clock=lambda: world.clock[0], trace=lambda method, url: sent.append(url)
    )

    def asked(seconds: float) -> tuple[str | None, float | None, bool]:
        world.clock[0] += 1
        services.background.archive()  # reads how far the archive is
        services.history.of_address(ListEvents(address="192.0.2.1"))  # reads the retractions
        sent.clear()
        found = services.history.holder("192.0.2.1", int(START + seconds) + GREGORIAN_EPOCH)
        until = found.until and found.until - START - GREGORIAN_EPOCH
        of_archive = [url for url in sent if "_view/by_address" in url]
        assert len(sent) - len(of_archive) <= 1, sent
        return found.status, until, len(sent) == 1

    world.create()
    world.clock[0] += 100
    world.assign()
    world.clock[0] += 100
    world.release()
    assert asked(50) == ("available", 100, False), "the archiver has not begun"
    world.archive()
    assert asked(150) == ("assigned", 200, False), "the event at the end is too recent"
    world.clock[0] += 100
    world.archive()
    world.clock[0] += 10  # until the process reads the checkpoint again
    assert asked(50) == ("available", 100, True)
    assert asked(150) == ("assigned", 200, True)
    assert asked(200) == ("available", None, False), "perhaps it was assigned a moment ago"


@pytest.mark.parametrize("seed", range(3))
def test_what_happens_during_a_question_changes_no_answer_about_the_time_before(
    world: World, seed: int
) -> None:
    mix, truth = Random(seed), Truth()
    address, bursts = ADDRESSES[0], 0

    def meanwhile(method: str, url: str) -> None:
        nonlocal bursts
        if bursts and mix.random() < 0.5:
            bursts -= 1
            for _ in range(mix.choice([1, 3, 8])):  # eight are more than a trail keeps
                act()

    def act() -> None:
        world.clock[0] += mix.choice([1, 61, 100])
        change(world, mix, truth, address)
        if mix.random() < 0.5:
            world.archive(seconds=4)

    asking = composition.build(
        world.settings, clock=lambda: world.clock[0], pause=lambda seconds: None, trace=meanwhile
    )
    for _ in range(25):
        act()
        if mix.random() < 0.5:  # so that the archive has the beginnings of the last tenures
            world.clock[0] += 200
            world.archive()
        asking.background.archive()
        known = [*truth[address]]
        at = mix.choice([when for when, _ in known[-6:]]) + mix.choice([0, 0, 1, 50])
        at = min(at, int(world.clock[0]) + GREGORIAN_EPOCH)
        world.clock[0] += 1
        bursts = 1
        found = asking.history.holder(address, at)
        bursts = 0
        number = max(n for n, (when, _) in enumerate(truth[address]) if when <= at)
        since, state = truth[address][number]
        ends = {when for when, _ in truth[address][number + 1 : number + 2]}
        ends |= {None} if number == len(known) - 1 else set()
        assert (found.since, found.account_id) == (since, state.account_id if state else None)
        assert found.until in ends
        assert found.certain
