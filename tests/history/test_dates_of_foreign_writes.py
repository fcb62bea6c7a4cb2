"""Writes without a time of their own: a person edits a document, and `pvt_modified` stays.

The archive gives such a write the time at which it was read. A document alone shows an older time.
"""

import pytest

from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.timelines import ListEvents
from kazoo_ips.services.history.queries import pages
from tests.history.conftest import IP, START, World

NOW = int(START) + GREGORIAN_EPOCH


def edit(world: World, account_id: str, seconds: int = 1000) -> int:
    """Edit an address by hand some time after the last change, and return the time."""
    world.clock[0] += seconds
    world.write(status="assigned", assigned_to=account_id)
    return int(world.clock[0]) + GREGORIAN_EPOCH


def line_by_line(world: World, address: str | None = None) -> list[str]:
    """The kinds of the events of a list that is read with one line to a page."""
    history = world.services.history
    list_page = history.of_address if address else history.events
    query = ListEvents(address=address)
    return [e.event for each in pages(list_page, query, size=1) for e in each.items]


def test_pages_of_an_address_have_an_edit_once(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    edit(world, world.other_id)
    world.archive()
    assert line_by_line(world, IP) == ["assigned", "assigned", "created"]
    assert line_by_line(world) == ["assigned", "assigned", "created"]


def test_an_edit_is_not_dated_before_it_was_possible(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    edited = edit(world, world.other_id)
    for _ in range(2):  # before the archive has it, and after that
        before = world.services.history.holder(IP, edited - 500)
        assert before.account_id == world.account_id
        now = world.services.history.holder(IP, edited + 9)
        assert (now.account_id, now.certain) == (world.other_id, False)
        world.archive()


def test_an_edit_of_an_address_that_only_kazoo_has_written(world: World) -> None:
    document = {
        "_id": IP, "pvt_type": "dedicated_ip", "pvt_status": "assigned", "pvt_zone": "z",
        "pvt_assigned_to": world.account_id, "pvt_host": "h", "pvt_created": NOW,
        "pvt_modified": NOW, "pvt_vsn": "1",
    }  # fmt: skip
    assert world.pool.put(document).revision
    world.archive()
    edited = edit(world, world.other_id)
    for process in (world.services, world.process()):
        before = process.history.holder(IP, edited - 500)
        assert before.account_id == world.account_id
        world.archive(process)
    assert line_by_line(world, IP) == ["assigned", "assigned", "created"]


@pytest.mark.parametrize("away", [0, 1000])
def test_a_deletion_that_waited_for_the_archiver_has_no_certain_time(
    world: World, away: int
) -> None:
    world.create()
    world.archive()
    created = int(world.clock[0]) + GREGORIAN_EPOCH
    document = world.pool.get(IP)
    assert world.pool.put({"_id": IP, "_rev": document["_rev"], "_deleted": True}).revision
    world.clock[0] += away
    world.archive(world.process() if away else None)
    deleted = next(event for event in world.events() if event.event == "deleted")
    assert deleted.certain == (not away)
    holder = world.services.history.holder(IP, created)
    assert (holder.status, holder.certain) == ("available", not away)
