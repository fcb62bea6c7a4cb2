"""Lists have each event once, even if the archive and a document have different events.

Other programs may write a document several times before the service writes it again. The archiver
compares all revisions. The document has only the last state.
"""

from random import Random

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.timelines import ListEvents
from kazoo_ips.repositories import unarchived_changes
from tests.history.conftest import IP, World
from tests.history.test_remembered_owners import ADDRESSES, change


def listed(services: Instance, address: str | None = None) -> list[str]:
    """Return the ids of the events in a list: of one address, or of all."""
    query = ListEvents(address=address, limit=500)
    history = services.history
    page = history.events(query) if address is None else history.of_address(query)
    return sorted(event.id for event in page.items)


def archived(world: World, *addresses: str) -> list[str]:
    """The ids of the archive's events."""
    return sorted(event.id for address in addresses for event in world.events(address))


def touch(world: World) -> None:
    """Write the document of an address past the service, without changes."""
    world.clock[0] += 1
    world.write(modified=int(world.clock[0]) + GREGORIAN_EPOCH)


@pytest.mark.parametrize("seed", range(8))
def test_once_the_archive_has_everything_lists_have_its_events(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # With a checkpoint that is never read again, all documents are read and merged each time.
    monkeypatch.setattr(unarchived_changes, "_CHECKPOINT_TTL", 0.0 if seed % 2 else 3600.0)
    mix = Random(seed)
    for step in range(40):
        change(world, mix, mix.choice(ADDRESSES[:2]))
        world.clock[0] += mix.choice([0, 1, 30, 90])
        if mix.random() < 0.3:
            world.archive(seconds=mix.choice([1, 2]))  # at this time the archive may lack events
        if mix.random() < 0.3:
            world.archive()
            assert listed(world.services) == archived(world, *ADDRESSES[:2]), step
            for address in ADDRESSES[:2]:
                if found := archived(world, address):
                    assert listed(world.services, address) == found, step


def test_a_write_by_kazoo_that_changes_nothing_repeats_no_event(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    world.write(status="available", assigned_to=None)
    world.archive()
    touch(world)
    before = archived(world, IP)
    assert listed(world.services, IP) == before
    world.archive()
    assert listed(world.services, IP) == archived(world, IP) == before


def test_an_address_without_a_trail_is_not_assigned_twice(world: World) -> None:
    world.create()
    without_trail = {"trail": None, "written_generation": None}
    world.write(status="assigned", assigned_to=world.account_id, **without_trail)
    world.archive()
    touch(world)
    before = archived(world, IP)
    assert listed(world.services, IP) == before
    world.archive()
    assert listed(world.services, IP) == archived(world, IP) == before


def test_a_trail_that_begins_with_an_archived_write_of_kazoo(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    touch(world)
    for _ in range(4):  # until the assignment is no longer in the trail
        world.clock[0] += 90
        world.archive()
        world.release()
        world.assign()
    world.archive()
    assert listed(world.services, IP) == archived(world, IP)


def test_what_kazoo_wrote_after_the_archiver_read_is_listed_once(world: World) -> None:
    world.create()
    world.assign()
    world.write(status="available", assigned_to=None)
    world.archive()
    touch(world)
    world.write(status="assigned", assigned_to=world.other_id)
    kinds = [e.event for e in world.services.history.of_address(ListEvents(address=IP)).items]
    assert kinds == ["assigned", "released", "assigned", "created"]
    world.archive()
    assert listed(world.services, IP) == archived(world, IP)
