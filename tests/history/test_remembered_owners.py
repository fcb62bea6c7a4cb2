"""A process that caches the owners of addresses notices the writes of all programs."""

import os
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.model.timelines import TenurePage
from kazoo_ips.repositories import unarchived_changes
from kazoo_ips.repositories.ips import IPRepository
from tests.history.conftest import IP, World

ADDRESSES = [f"192.0.2.{n}" for n in range(1, 5)]


def page(services: Instance, account_id: str) -> TenurePage:
    """Return the first page of an account's tenures."""
    return services.tenures.page(account_id, 50, None)


def test_a_page_reads_no_document_that_has_not_changed(world: World) -> None:
    for address in ADDRESSES:
        world.create(address)
        world.assign(address)
    world.archive()
    sent: list[str] = []
    services = composition.build(
        world.settings,
        clock=lambda: world.clock[0],
        trace=lambda method, url: sent.append(f"{method} {url}"),
    )
    first = page(services, world.account_id)
    # On a cluster the service also reads these documents to verify the list of the account.
    is_cluster = world.pool.replicas > 1
    assert sum("_bulk_get" in each for each in sent) == 1 + is_cluster
    sent.clear()
    assert page(services, world.account_id) == first
    assert sum("_bulk_get" in each for each in sent) == 2 * is_cluster
    assert any("_changes" in each for each in sent)


def test_what_another_program_takes_away_is_not_held(world: World) -> None:
    world.create()
    world.assign()
    world.archive()
    assert [t.certain for t in page(world.services, world.account_id).items] == [True]
    # The document has no trail any more. So there is no event for the end of the tenure.
    kazoo = {"status": "assigned", "assigned_to": world.other_id, "trail": None}
    world.write(**kazoo, written_generation=None)
    (taken,) = page(world.services, world.account_id).items
    assert taken.until is not None or not taken.certain
    world.archive()
    (archived,) = page(world.services, world.account_id).items
    assert archived.until is not None


def by_hand(world: World, mix: Random, address: str) -> None:
    """Change an address past the service."""
    owner = mix.choice([world.account_id, world.other_id, None])
    marks: dict[str, Any] = {"trail": None} if mix.random() < 0.3 else {}
    status = "assigned" if owner else "available"
    world.write(address, status=status, assigned_to=owner, **marks)


def change(world: World, mix: Random, address: str) -> None:
    """Change an address through the service, or past it."""
    documents = world.pool.get_all([address])
    if not documents:
        world.create(address)
    elif mix.random() < 0.4:
        by_hand(world, mix, address)
    elif documents[address].get("pvt_assigned_to"):
        world.release(address)
    elif mix.random() < 0.3:
        world.delete(address)
    else:
        world.assign(address, mix.choice([world.account_id, world.other_id]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [2000, 3])
def test_a_process_that_remembers_answers_as_one_that_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int, most: int
) -> None:
    if most < 2000 and os.environ.get("COUCHDB_URL"):
        pytest.skip("the feed of several shards has no order between them")
    monkeypatch.setattr(unarchived_changes, "_CHECKPOINT_TTL", [0.0, 0.02, 3600.0][seed % 3])
    monkeypatch.setattr(unarchived_changes, "_MOST", most)
    mix = Random(seed)
    for step in range(50):
        change(world, mix, mix.choice(ADDRESSES))
        world.clock[0] += mix.choice([0, 1, 30])
        if mix.random() < 0.25:
            world.archive(seconds=mix.choice([1, 3, 6]))
        if mix.random() < 0.6:
            for account_id in (world.account_id, world.other_id):
                fresh = page(world.process(), account_id)
                assert page(world.services, account_id) == fresh, step


def test_what_changes_while_it_is_read_is_not_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unarchived_changes, "_CHECKPOINT_TTL", 0.0)
    world.create()
    world.assign()
    world.archive()
    by_id, others = IPRepository.by_id, []

    def slow(self: IPRepository, ids: Iterable[str]) -> Any:
        found = by_id(self, ids)
        if not others:
            others.append(True)
            # Before this thread continues, the address is changed and archived, and other threads
            # read the feed from the new checkpoint.
            world.write(IP, status="available", assigned_to=None)
            world.archive()
            page(world.services, world.other_id)
        return found

    page(world.services, world.other_id)
    monkeypatch.setattr(IPRepository, "by_id", slow)
    page(world.services, world.account_id)
    assert others
    owners = world.services.tenures._unarchived.held(
        world.account_id, [IP], world.services.tenures._unarchived.of_all()
    )
    assert owners == set()
