"""Jobs: moving and evacuating hosts, with other clients and kills in between."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import JobExists, JobNotFound
from kazoo_ips.model import (
    AssignIP,
    Attempt,
    ChangeIP,
    Changes,
    CreateIP,
    DeleteIP,
    DisableIP,
    EvacuateHost,
    MoveHost,
    ReleaseIP,
    Scope,
)
from kazoo_ips.model.jobs import ItemResult, Job, JobState
from kazoo_ips.model.limits import Limits
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.jobs import running
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.conftest import Member
from tests.emptying import remove_place_settings

OLD, NEW = "old.example.com", "new.example.com"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PART", 2)


@pytest.fixture
def clear(couch: Couch) -> Iterator[None]:
    """No jobs before and after the test."""
    records = couch.database("kazoo_ips")

    def remove() -> None:
        for document in list(records.range("job", "job\uffff")):
            records.remove(document["_id"], document["_rev"])

    remove()
    yield
    remove()


Fill = Callable[..., list[str]]


@pytest.fixture
def fill(pool: Database, clear: None, services: Instance) -> Fill:
    """A function that adds addresses, some of them for accounts."""

    def make(host: str, *owners: Member | None, zone: str = "z", first: int = 1) -> list[str]:
        made = [f"192.0.2.{n}" for n in range(first, first + len(owners))]
        for address, owner in zip(made, owners, strict=True):
            services.pool.create(CreateIP(address, zone, host), uuid4().hex)
            if owner:
                services.ips.assign(AssignIP(owner.id, address), uuid4().hex)
        return made

    return make


def run(services: Instance, job: Job) -> Job:
    """Do all steps of a job."""
    for _ in range(100):
        if job.has_ended:
            return job
        job = services.job_runner.step(job)
    raise AssertionError(job)


def items(services: Instance, job: Job) -> dict[str, str]:
    page = services.jobs.items(job, 1000)
    assert page.after is None
    return {item.address: str(item.result) for item in page.items}


def move(services: Instance, **to: str) -> Job:
    to = to or {"to_host": NEW}
    return services.jobs.create(MoveHost(OLD, **to), uuid4().hex)


# Moving


def test_a_move_takes_all_addresses_and_changes_no_owner(
    services: Instance, fill: Fill, alice: Member, bob: Member, couch: Couch
) -> None:
    made = fill(OLD, alice, None, bob, alice, None)
    elsewhere = fill("other.example.com", alice, first=10)
    job = run(services, move(services, to_host=NEW, to_zone="y"))
    assert (job.state, job.counts, job.total) == (JobState.DONE, {"moved": 5}, 5)
    assert items(services, job) == dict.fromkeys(made, "moved")
    owners = [alice.id, None, bob.id, alice.id, None]
    for address, owner in zip(made, owners, strict=True):
        ip = services.ips.fetch(address)
        assert (ip.host, ip.zone, ip.assigned_to) == (NEW, "y", owner)
        if owner:
            copy = couch.database(account_database(owner)).get(address)
            assert (copy["pvt_host"], copy["pvt_request_id"]) == (NEW, ip.request_id)
    assert services.ips.fetch(elsewhere[0]).host == "other.example.com"


def test_a_move_has_an_event_of_the_author_for_each_address(
    services: Instance, fill: Fill, alice: Member
) -> None:
    [address] = fill(OLD, alice)
    job = run(services, move(services))
    [*_, event] = services.ips.fetch(address).trail
    assert (event.kind, event.request_id, event.by) == ("changed", job.request_id, job.by)


def test_an_address_that_is_released_or_assigned_meanwhile_moves_too(
    services: Instance, fill: Fill, alice: Member, bob: Member
) -> None:
    first, second = fill(OLD, alice, None)
    job = services.job_runner.step(move(services))
    services.ips.release(ReleaseIP(alice.id, first), uuid4().hex)
    services.ips.assign(AssignIP(bob.id, second), uuid4().hex)
    job = run(services, job)
    assert job.counts == {"moved": 2}
    assert services.ips.fetch(second).assigned_to == bob.id
    assert {services.ips.fetch(a).host for a in (first, second)} == {NEW}


def test_an_address_that_another_client_moves_or_deletes_meanwhile_is_left_alone(
    services: Instance, fill: Fill
) -> None:
    first, second, third = fill(OLD, None, None, None)
    job = services.job_runner.step(move(services))
    services.pool.delete(DeleteIP(first), uuid4().hex)
    elsewhere = ChangeIP(second, Changes(host="elsewhere.example.com"))
    services.address_changes.change(elsewhere, uuid4().hex)
    job = run(services, job)
    assert items(services, job) == {first: "unchanged", second: "unchanged", third: "moved"}
    assert services.ips.fetch(second).host == "elsewhere.example.com"


def test_an_address_of_a_newer_release_stays_and_is_counted(
    services: Instance, fill: Fill, pool: Database
) -> None:
    [address] = fill(OLD, None)
    pool.put({**pool.get(address), "pvt_status": "quarantined"})
    job = run(services, move(services))
    assert (job.counts, job.failed) == ({"unknown_status": 1}, 1)
    assert [i.address for i in services.jobs.items(job, 10, failed=True).items] == [address]


def test_one_job_works_on_a_host_at_a_time(services: Instance, fill: Fill) -> None:
    fill(OLD, None)
    job = move(services)
    with pytest.raises(JobExists) as error:
        services.jobs.create(EvacuateHost(OLD), uuid4().hex)
    assert error.value.job_id == job.id
    run(services, job)
    fill(OLD, None, first=2)
    assert run(services, move(services)).counts == {"moved": 1}


@pytest.mark.parametrize("since", ["", "ended", "ended, and the host was filled again"])
def test_a_later_attempt_gets_the_job_of_the_earlier_one(
    services: Instance, fill: Fill, since: str
) -> None:
    fill(OLD, None)
    first = Attempt(uuid4().hex, 1)
    job = services.jobs.create(MoveHost(OLD, NEW), uuid4().hex, attempt=first)
    if since:
        run(services, job)
    if "filled" in since:
        fill(OLD, None, first=2)
    again = services.jobs.create(MoveHost(OLD, NEW), uuid4().hex, attempt=replace(first, number=2))
    assert (again.id, again.created) == (job.id, job.created)
    assert again.has_ended == bool(since)


def test_a_job_stops_between_two_parts(services: Instance, fill: Fill) -> None:
    made = fill(OLD, *[None] * 5)
    job = services.job_runner.step(services.job_runner.step(move(services)))
    stopping = services.jobs.stop(job.id)
    assert stopping.state is JobState.STOPPING
    job = run(services, job)
    assert (job.state, job.counts) == (JobState.STOPPED, {"moved": 2})
    assert Counter(services.ips.fetch(a).host for a in made) == {NEW: 2, OLD: 3}
    assert services.jobs.stop(job.id) == job
    with pytest.raises(JobNotFound):
        services.jobs.stop("0" * 32)


def test_old_jobs_are_deleted(settings: Settings, services: Instance, fill: Fill) -> None:
    fill(OLD, None)
    fill("x", None, first=2)
    old, running_ = run(services, move(services)), services.jobs.create(MoveHost("x", "y"), "r")
    late = composition.build(settings.as_administrator(), clock=lambda: 5e9)
    assert late.job_runner.sweep() == 1
    assert [job.id for job in services.jobs.list()] == [running_.id]
    with pytest.raises(JobNotFound):
        services.jobs.fetch(old.id)
    assert services.jobs.items(old, 10).items == ()


# Drained hosts


def drain(services: Instance, host: str, *, enabled: bool = False) -> None:
    place = Place(Scope.HOST, host)
    command = ChangePlace(place, enabled=enabled, reason="proxy goes")
    services.places.change(command, uuid4().hex)


@pytest.fixture
def drains(couch: Couch, services: Instance) -> Iterator[None]:
    """No settings of hosts after the test."""
    yield
    remove_place_settings(couch, services)


def shown(services: Instance, *addresses: str) -> list[tuple[str, bool]]:
    """The status of each address, and whether it has a mark."""
    ips = [services.ips.fetch(address) for address in addresses]
    return [(str(ip.status), ip.disabled is not None) for ip in ips]


def test_addresses_that_move_away_from_a_drained_host_are_enabled(
    services: Instance, fill: Fill, drains: None, alice: Member, couch: Couch
) -> None:
    made = fill(OLD, None, None, alice)
    services.operator_changes.disable(DisableIP(made[1], "listed"), uuid4().hex)
    drain(services, OLD)
    assert run(services, move(services)).counts == {"moved": 3}
    moved = [("available", False), ("disabled", True), ("assigned", False)]
    assert shown(services, *made) == moved
    services.drains.carry_out_all()
    drain(services, OLD, enabled=True)
    assert shown(services, *made) == moved
    assert services.ips.release(ReleaseIP(alice.id, made[2]), uuid4().hex).status == "available"


def test_addresses_that_move_to_a_drained_host_are_disabled(
    services: Instance, fill: Fill, drains: None, alice: Member
) -> None:
    free, taken, kept = made = fill(OLD, None, alice, alice)
    fill(NEW, None, first=10)
    drain(services, NEW)
    run(services, move(services))
    assert shown(services, *made) == [("disabled", True), *[("assigned", False)] * 2]
    assert services.ips.release(ReleaseIP(alice.id, kept), uuid4().hex).status == "disabled"
    [*_, event] = services.ips.fetch(free).trail
    assert (event.kind, event.state and event.state.status) == ("changed", "disabled")
    drain(services, NEW, enabled=True)
    assert shown(services, free, kept) == [("available", False)] * 2
    assert services.ips.release(ReleaseIP(alice.id, taken), uuid4().hex).status == "available"


def test_a_move_by_hand_takes_the_marks_of_the_new_host(
    services: Instance, fill: Fill, drains: None, alice: Member
) -> None:
    made = fill(OLD, None, alice)
    fill(NEW, None, first=10)
    drain(services, NEW)
    for address in made:
        change = ChangeIP(address, Changes(host=NEW), if_match=("*",))
        services.address_changes.change(change, uuid4().hex)
    assert shown(services, *made) == [("disabled", True), ("assigned", False)]
    for address in made:
        change = ChangeIP(address, Changes(host=OLD), if_match=("*",))
        services.address_changes.change(change, uuid4().hex)
    assert shown(services, *made) == [("available", False), ("assigned", False)]


def test_a_drain_leaves_an_address_that_has_moved_away_meanwhile(
    services: Instance, fill: Fill, drains: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [address] = fill(OLD, None)
    monkeypatch.setattr(services.drains, "_batches_of", lambda *_: iter([[address]]))
    run(services, move(services))
    fill(OLD, None, first=10)
    drain(services, OLD)
    assert shown(services, address) == [("available", False)]


def test_an_evacuation_takes_nothing_of_a_drained_host(
    services: Instance, fill: Fill, drains: None, pool: Database, alice: Member
) -> None:
    [old] = fill(OLD, alice)
    [available] = fill("a.example.com", None, first=10)
    drain(services, "a.example.com")
    # The state after a release by Kazoo, before the background work corrects it.
    pool.put({**pool.get(available), "pvt_status": "available", "pvt_disabled": None})
    plan = services.plans.evacuate(EvacuateHost(OLD), 1000)
    assert [(z.needed, z.available) for z in plan.zones] == [(1, 0)]
    job = run(services, evacuate(services))
    assert items(services, job) == {old: "insufficient_ips"}
    assert services.ips.fetch(available).assigned_to is None


def test_an_address_that_is_chosen_and_drained_then_is_not_given_away(
    services: Instance, fill: Fill, drains: None, pool: Database, alice: Member
) -> None:
    [old] = fill(OLD, alice)
    [available] = fill("a.example.com", None, first=10)
    services.plans.evacuate(EvacuateHost(OLD), 1000)  # caches the counts of the hosts
    job = services.job_runner.step(evacuate(services))
    drain(services, "a.example.com")
    pool.put({**pool.get(available), "pvt_status": "available", "pvt_disabled": None})
    assert items(services, run(services, job)) == {old: "insufficient_ips"}
    assert services.ips.fetch(available).assigned_to is None


# Evacuating


def evacuate(services: Instance) -> Job:
    return services.jobs.create(EvacuateHost(OLD), uuid4().hex)


def test_each_account_gets_other_addresses_and_loses_none(
    services: Instance, fill: Fill, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PART", 500)
    old = fill(OLD, alice, alice, bob, None)
    fill("a.example.com", None, None, None, first=10)
    fill("b.example.com", None, None, first=20)
    fill("c.example.com", None, zone="other", first=30)
    job = run(services, evacuate(services))
    assert (job.state, job.counts, job.total) == (JobState.DONE, {"replaced": 3}, 3)
    for address, owner in zip(old, (alice, alice, bob, None), strict=True):
        ip = services.ips.fetch(address)
        assert ip.assigned_to == (owner.id if owner else None)
        if owner:
            new = services.ips.fetch(ip.replaced_by or "")
            assert (new.assigned_to, new.zone) == (owner.id, "z")
            assert new.host != OLD
    hosts = {services.ips.fetch(services.ips.fetch(a).replaced_by or "").host for a in old[:2]}
    assert hosts == {"a.example.com", "b.example.com"}
    assert run(services, evacuate(services)).total == 0


def test_a_zone_without_enough_addresses_is_said_and_can_be_repeated(
    services: Instance, fill: Fill, alice: Member
) -> None:
    fill(OLD, alice, alice, alice)
    fill("a.example.com", None, first=10)
    plan = services.plans.evacuate(EvacuateHost(OLD), 1000)
    assert [(z.zone, z.needed, z.available, z.shortfall) for z in plan.zones] == [("z", 3, 1, 2)]
    assert [bool(item.replacement) for item in plan.items].count(True) == 1
    job = run(services, evacuate(services))
    assert (job.counts, job.failed) == ({"replaced": 1, "insufficient_ips": 2}, 2)
    fill("b.example.com", None, None, first=20)
    again = run(services, evacuate(services))
    assert (again.counts, again.total) == ({"replaced": 2}, 2)


def test_an_address_that_its_account_releases_meanwhile_is_not_replaced(
    services: Instance, fill: Fill, alice: Member
) -> None:
    first, second = fill(OLD, alice, alice)
    fill("a.example.com", None, None, first=10)
    job = services.job_runner.step(evacuate(services))
    services.ips.release(ReleaseIP(alice.id, first), uuid4().hex)
    job = run(services, job)
    assert items(services, job) == {first: "unchanged", second: "replaced"}


def test_the_mark_ends_with_the_assignment(
    services: Instance, fill: Fill, alice: Member, bob: Member
) -> None:
    [address] = fill(OLD, alice)
    fill("a.example.com", None, first=10)
    run(services, evacuate(services))
    services.ips.release(ReleaseIP(alice.id, address), uuid4().hex)
    assert services.ips.assign(AssignIP(bob.id, address), uuid4().hex).replaced_by is None
    assert services.ips.fetch(address).replaced_by is None


# Kills


class Killed(BaseException):
    """The process is killed."""


def killed_at(settings: Settings, number: int) -> Instance:
    """Return services that end at their request to CouchDB of this number, after it was sent."""
    count = 0

    def trace(_method: str, _url: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise Killed

    return composition.build(settings.as_administrator(), trace=trace, pause=lambda _: None)


@pytest.mark.parametrize("kind", ["move", "evacuate"])
def test_a_job_that_is_killed_at_any_request_is_continued(
    settings: Settings,
    services: Instance,
    fill: Fill,
    alice: Member,
    bob: Member,
    pool: Database,
    couch: Couch,
    kind: str,
) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        old = fill(OLD, alice, bob, alice, first=1)
        fill("a.example.com", None, None, None, None, first=10)
        command = MoveHost(OLD, NEW) if kind == "move" else EvacuateHost(OLD)
        job = services.jobs.create(command, uuid4().hex)
        killed = False
        try:
            run(killed_at(settings, number), job)
        except Killed:
            killed = True
        job = run(services, services.jobs.fetch(job.id))
        expected = ItemResult.MOVED if kind == "move" else ItemResult.REPLACED
        assert items(services, job) == dict.fromkeys(old, expected), number
        has = Counter(d.get("pvt_assigned_to") for d in pool.range("1", "2"))
        more = 1 if kind == "move" else 2
        assert (has[alice.id], has[bob.id]) == (2 * more, more), number
        _check_copies(services, couch, pool, (alice, bob))
        for document in list(pool.range("1", "2")):
            services.pool.delete(DeleteIP(document["_id"], force=True), uuid4().hex)
    assert number > 10


def _check_copies(
    services: Instance, couch: Couch, pool: Database, members: tuple[Member, ...]
) -> None:
    """Check that the copies agree with the pool after the repair of the background work."""
    for member in members:
        owned = {
            d["_id"]: d for d in pool.range("1", "2") if d.get("pvt_assigned_to") == member.id
        }
        services.copies.repair(member.id, [d["_id"] for d in pool.range("1", "2")])
        database = couch.database(account_database(member.id))
        copies: dict[str, Any] = database.get_all(list(owned))
        fields = ("pvt_host", "pvt_request_id", "pvt_modified")
        assert {a: [c[f] for f in fields] for a, c in copies.items()} == {
            a: [d[f] for f in fields] for a, d in owned.items()
        }


@pytest.mark.parametrize(("permitted", "result"), [(1, "limit_reached"), (2, "replaced")])
def test_an_evacuation_obeys_the_limit_of_each_account(
    services: Instance, fill: Fill, alice: Member, bob: Member, permitted: int, result: str
) -> None:
    alices, bobs = fill(OLD, alice, bob)
    fill(NEW, None, None, first=10)
    services.limits.set(alice.id, Limits(max=permitted), uuid4().hex)
    try:
        job = run(services, evacuate(services))
    finally:
        services.limits.set(alice.id, Limits(), uuid4().hex)
    assert items(services, job) == {alices: result, bobs: "replaced"}
