"""The states of addresses while time passes, settings change and other programs write."""

from uuid import uuid4

import pytest

from kazoo_ips.errors import InsufficientIPs, ValidationFailed
from kazoo_ips.model import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    DedicatedIP,
    DisableIP,
    EnableIP,
    EndRest,
    ReleaseIPs,
    Scope,
)
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace, PlaceState
from tests.history.conftest import IP, World
from tests.timing import await_replicas

OTHER = "192.0.2.2"
ZONE, HOST = Place(Scope.ZONE, "z"), Place(Scope.HOST, "h")
REST = 1000


@pytest.fixture
def aging(world: World) -> World:
    """A zone whose addresses rest after their release, with an address of the account."""
    world.create()
    change(world, ChangePlace(ZONE, aging_seconds=REST))
    world.assign()
    return world


def change(world: World, command: ChangePlace) -> PlaceState:
    await_replicas(world.pool)  # the change reads the addresses of the place from a view
    changed = world.services.places.change(command, uuid4().hex)
    if world.pool.replicas == 1:
        return changed
    await_replicas(world.pool)  # its reply has counts from a view
    return world.services.places.fetch(command.place)


def drain(world: World, place: Place = HOST) -> PlaceState:
    return change(world, ChangePlace(place, enabled=False, reason="proxy goes"))


def enable(world: World, place: Place = HOST) -> PlaceState:
    return change(world, ChangePlace(place, enabled=True))


def allocate(world: World, quantity: int = 1, **filters: object) -> list[DedicatedIP]:
    command = AllocateIPs(world.other_id, quantity, **filters)  # type: ignore[arg-type]
    return world.services.allocation.allocate(command, uuid4().hex)


def status(world: World, address: str = IP) -> str:
    return str(world.pool.get(address)["pvt_status"])


def keep(world: World) -> int:
    """Run a round of the background work, in a process that holds the lease."""
    world.clock[0] += 40
    return world.process().background.keep_states()


# Aging.


def test_a_released_address_rests_until_its_time_and_is_then_available_for_kazoo(
    aging: World,
) -> None:
    released = aging.release()
    assert released.status == "aging"
    document = aging.pool.get(IP)
    assert document["pvt_available_at"] == document["pvt_modified"] + REST
    assert document["pvt_last_assigned_to"] == aging.account_id
    assert keep(aging) == 0
    aging.clock[0] += REST
    assert keep(aging) == 1
    document = aging.pool.get(IP)
    assert document["pvt_status"] == "available"
    assert not {"pvt_available_at", "pvt_last_assigned_to"} & set(document)
    aging.archive()
    assert aging.kinds() == ["created", "assigned", "released", "aged"]
    assert [event.after and event.after.status for event in aging.events()] == [
        "available", "assigned", "aging", "available",
    ]  # fmt: skip


def test_only_the_last_account_gets_a_resting_address_by_name(aging: World) -> None:
    aging.release()
    with pytest.raises(ValidationFailed) as refused:
        aging.assign(account_id=aging.other_id)
    rule = refused.value.errors["ips.0"]["forbidden"]
    assert rule["message"].startswith("ip is resting until 2027-01-15T")
    assert aging.assign().assigned_to == aging.account_id
    aging.release()
    aging.clock[0] += REST
    assert aging.assign(account_id=aging.other_id).assigned_to == aging.other_id


def test_a_list_with_a_resting_address_is_not_assigned_at_all(aging: World) -> None:
    aging.release()
    aging.create(OTHER)
    command = AssignIPs(aging.other_id, (OTHER, IP))
    with pytest.raises(ValidationFailed) as refused:
        aging.services.ips.assign_all(command, uuid4().hex)
    assert list(refused.value.errors) == ["ips.1"]
    assert status(aging, OTHER) == "available"


def test_an_allocation_does_not_take_what_rests_and_says_when_the_next_is_free(
    aging: World,
) -> None:
    available_at = aging.release().available_at
    with pytest.raises(InsufficientIPs) as refused:
        allocate(aging, zone="z")
    assert (refused.value.available, refused.value.resting) == (0, 1)
    assert refused.value.next_at == available_at
    aging.clock[0] += REST
    assert [ip.address for ip in allocate(aging)] == [IP]


@pytest.mark.parametrize("filters", [{}, {"zone": "z"}, {"host": "h"}, {"distinct_hosts": True}])
def test_an_allocation_takes_available_addresses_before_those_that_have_rested(
    aging: World, filters: dict[str, object]
) -> None:
    aging.release()
    aging.clock[0] += REST
    aging.create(OTHER)
    assert [ip.address for ip in allocate(aging, **filters)] == [OTHER]
    assert [ip.address for ip in allocate(aging, **filters)] == [IP]


def test_if_the_zone_permits_it_the_oldest_is_taken_when_nothing_else_is_left(
    aging: World,
) -> None:
    aging.create(OTHER)
    aging.assign(OTHER)
    aging.release(OTHER)
    aging.clock[0] += 10
    aging.release()
    change(aging, ChangePlace(ZONE, takes_oldest=True))
    assert [ip.address for ip in allocate(aging)] == [OTHER]
    assert [ip.address for ip in allocate(aging, zone="z")] == [IP]


def test_an_exact_fit_is_found_while_everything_has_rested(aging: World) -> None:
    ips = [f"192.0.2.{n}" for n in range(10, 30)]
    for address in ips:
        aging.create(address)
    taken = aging.services.ips.assign_all(AssignIPs(aging.account_id, tuple(ips)), uuid4().hex)
    assert len(taken) == 20
    aging.services.ips.release_all(ReleaseIPs(aging.account_id, None), uuid4().hex)
    with pytest.raises(InsufficientIPs):
        allocate(aging, 21)
    aging.clock[0] += REST
    assert {ip.address for ip in allocate(aging, 21)} == {IP, *ips}


def test_the_operator_ends_a_rest_with_a_reason(aging: World) -> None:
    aging.release()
    command = EndRest(IP, "the customer asks for it")
    assert aging.services.operator_changes.end_rest(command, uuid4().hex).status == "available"
    aging.archive()
    event = aging.events()[-1]
    assert (event.event, event.reason) == ("aged", "the customer asks for it")
    with pytest.raises(ValidationFailed):
        aging.services.operator_changes.end_rest(command, uuid4().hex)


def test_a_clock_that_jumps_back_lets_an_address_rest_and_forward_frees_it(aging: World) -> None:
    aging.release()
    now = aging.clock[0]
    aging.clock[0] = now - 10 * REST
    with pytest.raises(ValidationFailed):
        aging.assign(account_id=aging.other_id)
    aging.clock[0] = now + 10 * REST
    assert aging.assign(account_id=aging.other_id).status == "assigned"
    aging.clock[0] = now
    assert keep(aging) == 0
    assert aging.release().status == "aging"


def test_without_a_setting_nothing_rests(world: World) -> None:
    world.create()
    world.assign()
    assert world.release().status == "available"
    assert not [name for name in world.pool.get(IP) if name.startswith("pvt_available")]


# Writes of Kazoo


def test_an_address_that_kazoo_has_released_rests_from_then_on(aging: World) -> None:
    aging.archive()
    modified = aging.pool.get(IP)["pvt_modified"] + 5
    aging.write(status="available", assigned_to=None, modified=modified)
    aging.archive()
    document = aging.pool.get(IP)
    assert document["pvt_status"] == "aging"
    assert document["pvt_available_at"] == modified + REST
    assert document["pvt_last_assigned_to"] == aging.account_id
    aging.archive()
    assert aging.kinds() == ["created", "assigned", "released", "aged"]
    sources = [str(event.source) for event in aging.events()]
    assert sources == ["service", "service", "kazoo", "service"]


def test_an_address_that_kazoo_has_assigned_and_released_rests(aging: World) -> None:
    aging.release()
    aging.clock[0] += REST
    keep(aging)
    aging.archive()
    modified = int(aging.pool.get(IP)["pvt_modified"])
    aging.write(status="assigned", assigned_to=aging.other_id, modified=modified + 5)
    aging.archive()
    aging.write(status="available", assigned_to=None, modified=modified + 9)
    aging.archive()
    assert aging.pool.get(IP)["pvt_last_assigned_to"] == aging.other_id
    assert status(aging) == "aging"


def test_a_resting_address_that_kazoo_has_made_available_rests_again(aging: World) -> None:
    aging.release()
    aging.archive()
    before = aging.pool.get(IP)
    aging.write(status="available", modified=before["pvt_modified"] + 5)
    with pytest.raises(ValidationFailed):  # before the archiver corrects it
        aging.assign(account_id=aging.other_id)
    aging.archive()
    after = aging.pool.get(IP)
    fields = ("pvt_status", "pvt_available_at", "pvt_last_assigned_to")
    assert [after[name] for name in fields] == [before[name] for name in fields]


def test_an_address_that_kazoo_has_assigned_meanwhile_stays_assigned(aging: World) -> None:
    aging.release()
    aging.archive()
    modified = aging.pool.get(IP)["pvt_modified"]
    aging.write(status="available", modified=modified + 5)
    aging.write(status="assigned", assigned_to=aging.other_id, modified=modified + 6)
    aging.archive()
    assert status(aging) == "assigned"
    assert aging.pool.get(IP)["pvt_assigned_to"] == aging.other_id


def test_a_disabled_address_that_kazoo_has_made_available_is_disabled_again(world: World) -> None:
    world.create()
    world.services.operator_changes.disable(DisableIP(IP, "listed"), uuid4().hex)
    world.archive()
    world.write(status="available", modified=world.pool.get(IP)["pvt_modified"] + 5)
    with pytest.raises(InsufficientIPs):
        allocate(world)
    world.archive()
    document = world.pool.get(IP)
    assert (document["pvt_status"], document["pvt_disabled"]["reason"]) == ("disabled", "listed")


def test_the_doctor_finds_and_repairs_what_is_available_against_the_rules(aging: World) -> None:
    aging.release()
    aging.write(status="available", modified=aging.pool.get(IP)["pvt_modified"] + 5)
    aging.clock[0] += 60
    doctor = aging.process().doctor
    assert [(f.problem, f.repaired) for f in doctor.examine()] == [("held_back", False)]
    assert [(f.problem, f.repaired) for f in doctor.examine(repair=True)] == [("held_back", True)]
    assert status(aging) == "aging"
    assert list(doctor.examine()) == []


# Disabling and draining.


def test_an_address_is_disabled_and_enabled_with_a_reason(world: World) -> None:
    world.create()
    changes = world.services.operator_changes
    assert changes.disable(DisableIP(IP, "listed"), "one").status == "disabled"
    again = changes.disable(DisableIP(IP, "listed"), "two")
    assert again.request_id == "one"
    with pytest.raises(ValidationFailed, match=r"ips\.0"):
        world.assign()
    assert changes.enable(EnableIP(IP, "clean"), "three").status == "available"
    assert changes.enable(EnableIP(IP), "four").request_id == "three"
    world.archive()
    assert [(e.event, e.reason) for e in world.events()[1:]] == [
        ("disabled", "listed"),
        ("enabled", "clean"),
    ]


def test_an_assigned_address_that_is_disabled_keeps_its_copy_and_is_disabled_at_the_end(
    world: World,
) -> None:
    world.create()
    world.assign()
    copies = world.couch.database(account_database(world.account_id))
    copy = copies.get(IP)
    disabled = world.services.operator_changes.disable(DisableIP(IP, "listed"), uuid4().hex)
    assert (disabled.status, disabled.assigned_to) == ("assigned", world.account_id)
    world.archive()
    world.clock[0] += 60
    assert list(world.process().doctor.examine()) == []
    assert copies.get(IP) == copy
    assert world.release().status == "disabled"


def test_a_drain_keeps_what_is_assigned_and_gives_nothing_new(world: World) -> None:
    for address in (IP, OTHER, "192.0.2.3"):
        world.create(address)
    world.assign()
    world.services.operator_changes.disable(DisableIP("192.0.2.3", "listed"), uuid4().hex)
    state = drain(world)
    assert state.summary.counts == {"assigned": 1, "disabled": 2}
    assert (state.pending, state.settings.drained and state.settings.drained.reason) == (
        0,
        "proxy goes",
    )
    with pytest.raises(ValidationFailed):
        world.services.ips.assign(AssignIP(world.account_id, OTHER), uuid4().hex)
    with pytest.raises(InsufficientIPs):
        allocate(world)
    assert world.release().status == "disabled"
    assert world.create("192.0.2.4").status == "disabled"
    assert enable(world).summary.counts == {"available": 3, "disabled": 1}
    assert status(world, "192.0.2.3") == "disabled"


def test_a_drained_zone_and_host_are_enabled_one_by_one(world: World) -> None:
    world.create()
    drain(world, HOST)
    drain(world, ZONE)
    assert status(world) == "disabled"
    enable(world, HOST)
    assert world.pool.get(IP)["pvt_disabled"]["scope"] == "zone"
    enable(world, ZONE)
    assert status(world) == "available"


def test_an_address_that_is_disabled_on_its_own_too_stays_so_after_the_drain(
    world: World,
) -> None:
    world.create()
    drain(world)
    world.services.operator_changes.disable(DisableIP(IP, "listed"), uuid4().hex)
    enable(world)
    assert status(world) == "disabled"
    drain(world)
    assert world.services.operator_changes.enable(EnableIP(IP), uuid4().hex).status == "disabled"
    with pytest.raises(ValidationFailed, match="enabled"):
        world.services.operator_changes.enable(EnableIP(IP), uuid4().hex)
    enable(world)
    assert status(world) == "available"


def test_a_drain_takes_resting_addresses_and_gives_them_back_to_their_rest(aging: World) -> None:
    aging.release()
    drain(aging)
    assert status(aging) == "disabled"
    with pytest.raises(ValidationFailed):
        aging.assign()
    enable(aging)
    assert status(aging) == "aging"


def test_a_drain_that_was_killed_is_finished_in_the_background(world: World) -> None:
    world.create()
    world.create(OTHER)
    places = world.services.drains._places
    drained = ChangePlace(HOST, enabled=False, reason="proxy goes")
    settings = world.services.places._changed(drained, places.places().get(Scope.HOST, "h"))
    places.change(Scope.HOST, "h", lambda kept: settings)  # killed before it changes the addresses
    assert keep(world) == 2
    assert status(world) == status(world, OTHER) == "disabled"
    enabled = ChangePlace(HOST, enabled=True)
    places.change(Scope.HOST, "h", lambda kept: world.services.places._changed(enabled, kept))
    assert keep(world) == 2
    assert status(world) == status(world, OTHER) == "available"
    world.clock[0] += 200
    keep(world)
    assert world.services.places.fetch(HOST).settings.enabled_at is None


def test_what_a_process_releases_by_earlier_settings_is_disabled_in_seconds(world: World) -> None:
    world.create()
    world.assign()
    late = world.process()
    late.places._places.places()  # this process does not know the drain yet
    drain(world)
    released = late.ips.release_all(ReleaseIPs(world.account_id, (IP,)), uuid4().hex)
    assert [ip.status for ip in released] == ["available"]
    with pytest.raises(ValidationFailed):
        world.assign()
    world.archive()
    assert status(world) == "disabled"


def test_kazoos_release_on_a_drained_host_is_corrected_until_the_drain_ends(
    world: World,
) -> None:
    world.create()
    world.assign()
    drain(world)
    world.archive()
    world.write(
        status="available", assigned_to=None, modified=world.pool.get(IP)["pvt_modified"] + 5
    )
    world.archive()
    assert world.pool.get(IP)["pvt_disabled"]["scope"] == "host"
    enable(world)
    assert status(world) == "available"


def test_a_drain_in_batches_changes_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kazoo_ips.services.states.draining.BATCH", 3)
    for number in range(8):
        world.create(f"192.0.2.{number}")
    assert drain(world).summary.counts == {"disabled": 8}
    assert enable(world).summary.counts == {"available": 8}


def test_a_batch_leaves_out_what_is_in_conflict_and_keeps_no_other_writer_waiting(
    world: World,
) -> None:
    for address in (IP, OTHER, "192.0.2.3"):
        world.create(address)
    rival = {**world.pool.get(IP), "_rev": f"1-{'0' * 32}", "pvt_status": "quarantined"}
    world.pool._send("POST", "_bulk_docs", {"docs": [rival], "new_edits": False})
    state = drain(world)
    assert (state.summary.counts.get("disabled"), status(world, OTHER)) == (2, "disabled")
    # A writer waits for the threads that have announced a write.
    assert not world.services.ips._reader._ips._pool._writers.expected
