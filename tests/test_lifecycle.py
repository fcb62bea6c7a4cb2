"""The transitions of an address: which ones are possible, without a database."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips.errors import (
    AlreadyAssigned,
    AssignedToAnother,
    NotAssigned,
    NotDisabled,
    NotReserved,
    NotResting,
    OutOfService,
    Reserved,
    Resting,
    RuleBroken,
    UnknownStatus,
    Unusable,
)
from kazoo_ips.model import DedicatedIP, Disabled, PlaceRules, Scope, Status, trail_events
from kazoo_ips.model.changes import Changes
from kazoo_ips.model.history import State
from kazoo_ips.model.lifecycle import TRANSITIONS
from kazoo_ips.model.trail import Event, EventKind
from kazoo_ips.repositories.documents import from_document, to_copy, to_document
from kazoo_ips.services.assigning.assignment import broken_rule

NOW, REST = 64_000_000_000, 3600
ALICE, BOB = "a" * 32, "b" * 32
AGES = PlaceRules(aging_seconds=REST)
LISTED = Disabled("listed", NOW)
DRAIN = Disabled("proxy goes", NOW - 9, scope=Scope.HOST)
DRAINED = PlaceRules(drained=DRAIN)
FREE = DedicatedIP("192.0.2.1", "z", "h", created=1, modified=1, revision="1-a")


def stamp(at: int = NOW, request_id: str = "r") -> Any:
    return {"at": at, "request_id": request_id}


TAKEN = FREE.assign(ALICE, **stamp(NOW - 5))
RESTING = TAKEN.release(ALICE, place=AGES, **stamp())
HELD = FREE.reserve(ALICE, "one", NOW + 100, **stamp())
OUT = FREE.disable(LISTED, **stamp())
STATES = {each.status: each for each in (FREE, TAKEN, RESTING, HELD, OUT)}
KAZOOS = replace(HELD, status=Status.ASSIGNED, assigned_to=BOB)
"""Kazoo has assigned a reserved address, and keeps the fields of the reservation."""
NEWER = replace(TAKEN, status="parked")
"""Only a newer release knows the status."""


def drained(ip: DedicatedIP, **fields: Any) -> DedicatedIP:
    """Return an address that is disabled by a drain, if it is disabled at all."""
    return replace(ip, disabled=DRAIN, **fields) if ip is OUT else ip


CHANGES: dict[EventKind, list[Callable[[DedicatedIP], DedicatedIP]]] = {
    EventKind.CREATED: [],
    EventKind.ASSIGNED: [
        lambda ip: ip.assign(ALICE, **stamp()),
        lambda ip: ip.assign(BOB, **stamp(NOW + 2 * REST)),
        lambda ip: ip.assign(ALICE, reservation="one", **stamp()),
    ],
    EventKind.RELEASED: [
        lambda ip: ip.release(None, **stamp()),
        lambda ip: ip.release(None, place=AGES, **stamp()),
        lambda ip: ip.release(None, place=DRAINED, **stamp()),
        lambda ip: ip.end_reservation("one", **stamp()),
        lambda ip: replace(ip, available_at=NOW + 9).end_reservation("one", **stamp()),
        lambda ip: ip.end_reservation("one", DRAINED, **stamp()),
    ],
    EventKind.TRANSFERRED: [lambda ip: ip.transfer(ALICE, BOB, **stamp())],
    EventKind.RESERVED: [
        lambda ip: ip.reserve(ALICE, "two", NOW + 3 * REST, **stamp(NOW + 2 * REST)),
        lambda ip: ip.extend("one", NOW + 500, **stamp()),
    ],
    EventKind.AGED: [
        lambda ip: ip.end_rest(**stamp(NOW + 2 * REST)),
        lambda ip: ip.end_rest(early=True, reason="asked", **stamp()),
        lambda ip: replace(ip, available_at=NOW + 9).corrected(**stamp()) or ip,
    ],
    EventKind.DISABLED: [lambda ip: ip.disable(DRAIN, **stamp(NOW + 1))],
    EventKind.ENABLED: [
        lambda ip: ip.enable(**stamp(NOW + 2 * REST)),
        lambda ip: replace(ip, available_at=NOW + 9).enable(**stamp()),
        lambda ip: ip.enable(place=DRAINED, **stamp()),
        lambda ip: (replace(ip, disabled=DRAIN) if ip.assigned_to else ip).enable(**stamp()),
    ],
    EventKind.CHANGED: [
        lambda ip: ip.change(Changes(zone="y"), **stamp()),
        lambda ip: ip.change(Changes(zone="y"), place=DRAINED, **stamp()),
        lambda ip: drained(ip).change(Changes(zone="y"), **stamp()),
        lambda ip: drained(ip, available_at=NOW + 9).change(Changes(zone="y"), **stamp()),
    ],
    EventKind.DELETED: [lambda ip: ip.delete(force=True, **stamp())],
}


def reached(kind: EventKind, ip: DedicatedIP) -> set[Status | None]:
    """Return the statuses to which the transitions of a kind lead from a state."""
    found: set[Status | None] = set()
    for change in CHANGES[kind]:
        try:
            after = change(ip)
        except RuleBroken:
            continue
        if after.trail[len(ip.trail) :] and after.trail[-1].kind == kind:
            found.add(None if kind is EventKind.DELETED else Status(after.status))
    return found


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_the_methods_make_exactly_the_transitions_of_the_table(kind: EventKind) -> None:
    if kind is EventKind.CREATED:
        made = {
            (None, DedicatedIP.new("192.0.2.1", "z", "h", place=place, **stamp()).status)
            for place in (PlaceRules(), DRAINED)
        }
    else:
        made = {(was, to) for was, ip in STATES.items() for to in reached(kind, ip)}
    allowed = TRANSITIONS[kind]
    if kind is EventKind.DELETED:  # the service releases it first
        made.discard((Status.ASSIGNED, None))
    assert made == allowed


@pytest.mark.parametrize(
    ("ip", "change", "broken"),
    [
        (RESTING, lambda ip: ip.assign(BOB, **stamp(NOW + REST - 1)), Resting),
        (RESTING, lambda ip: ip.reserve(BOB, "two", NOW + 9, **stamp()), Resting),
        (RESTING, lambda ip: ip.assign(BOB, early=True, **stamp()), Resting),
        (RESTING, lambda ip: ip.end_rest(**stamp()), NotResting),
        (RESTING, lambda ip: ip.release(ALICE, **stamp()), NotAssigned),
        (FREE, lambda ip: ip.end_rest(early=True, **stamp()), NotResting),
        (FREE, lambda ip: ip.assign(ALICE, place=DRAINED, **stamp()), OutOfService),
        (FREE, lambda ip: ip.reserve(ALICE, "x", NOW + 9, place=DRAINED, **stamp()), OutOfService),
        (FREE, lambda ip: ip.enable(**stamp()), NotDisabled),
        (FREE, lambda ip: ip.assign(ALICE, reservation="one", **stamp()), NotReserved),
        (FREE, lambda ip: ip.transfer(ALICE, BOB, **stamp()), NotAssigned),
        (TAKEN, lambda ip: ip.transfer(ALICE, ALICE, **stamp()), AlreadyAssigned),
        (TAKEN, lambda ip: ip.transfer(BOB, ALICE, **stamp()), AlreadyAssigned),
        (TAKEN, lambda ip: ip.transfer("c" * 32, BOB, **stamp()), AssignedToAnother),
        (TAKEN, lambda ip: ip.reserve(BOB, "x", NOW + 9, **stamp()), AssignedToAnother),
        (HELD, lambda ip: ip.assign(BOB, **stamp()), Reserved),
        (HELD, lambda ip: ip.assign(ALICE, **stamp()), Reserved),
        (HELD, lambda ip: ip.assign(BOB, reservation="one", **stamp()), NotReserved),
        (HELD, lambda ip: ip.assign(ALICE, reservation="one", **stamp(NOW + 100)), NotReserved),
        (HELD, lambda ip: ip.extend("two", NOW + 9, **stamp()), NotReserved),
        (HELD, lambda ip: ip.end_reservation(**stamp()), NotReserved),
        (HELD, lambda ip: ip.end_reservation("two", **stamp()), NotReserved),
        (HELD, lambda ip: ip.delete(**stamp()), Reserved),
        (KAZOOS, lambda ip: ip.end_reservation("one", **stamp()), NotReserved),
        (NEWER, lambda ip: ip.transfer(BOB, ALICE, **stamp()), UnknownStatus),
        (NEWER, lambda ip: ip.disable(LISTED, **stamp()), UnknownStatus),
        (NEWER, lambda ip: ip.enable(**stamp()), UnknownStatus),
        (NEWER, lambda ip: ip.change(Changes(zone="y"), **stamp()), UnknownStatus),
        (replace(FREE, address="127.0.0.1"), lambda ip: ip.assign(ALICE, **stamp()), Unusable),
        (
            replace(FREE, address="2001:DB8::1"),
            lambda ip: ip.assign(ALICE, others=[replace(FREE, address="2001:db8::1")], **stamp()),
            Unusable,
        ),
        (FREE, lambda ip: ip.assign(BOB, others=[NEWER], **stamp()), AssignedToAnother),
        (OUT, lambda ip: ip.assign(ALICE, **stamp()), OutOfService),
        (OUT, lambda ip: ip.reserve(ALICE, "x", NOW + 9, **stamp()), OutOfService),
        (OUT, lambda ip: ip.release(None, **stamp()), NotAssigned),
        (
            FREE.disable(DRAIN, **stamp()),
            lambda ip: ip.enable(place=PlaceRules(drained=ip.disabled), **stamp()),
            NotDisabled,
        ),
    ],
)
def test_a_transition_that_breaks_a_rule_says_which(
    ip: DedicatedIP, change: Callable[[DedicatedIP], object], broken: type[RuleBroken]
) -> None:
    with pytest.raises(broken):
        change(ip)


def test_an_address_rests_only_after_an_account_had_it() -> None:
    """Another program can assign an address to nobody."""
    assert replace(TAKEN, assigned_to=None).release(None, place=AGES, **stamp()).status == (
        Status.AVAILABLE
    )


def test_a_rest_ends_when_it_is_over_and_before_if_the_operator_says_so() -> None:
    assert RESTING.end_rest(**stamp(NOW + REST)).status is Status.AVAILABLE
    assert RESTING.end_rest(early=True, **stamp()).status is Status.AVAILABLE


def test_an_address_that_another_program_has_disabled_can_be_enabled() -> None:
    """It has no mark that says why."""
    assert replace(FREE, status=Status.DISABLED).enable(**stamp()).status is Status.AVAILABLE


def test_an_assigned_address_of_a_drained_host_can_be_enabled() -> None:
    """Its release reads the settings of the host."""
    enabled = replace(TAKEN, disabled=DRAIN).enable(place=DRAINED, **stamp())
    assert (enabled.status, enabled.disabled) == (Status.ASSIGNED, None)


@pytest.mark.parametrize("place", [PlaceRules(), DRAINED], ids=["in service", "drained"])
def test_an_address_that_is_disabled_on_its_own_stays_so_after_a_move(place: PlaceRules) -> None:
    moved = OUT.change(Changes(zone="y"), place=place, **stamp())
    assert (moved.status, moved.disabled) == (Status.DISABLED, LISTED)


def test_a_change_to_what_is_already_so_is_no_change() -> None:
    assert FREE.change(Changes(zone=FREE.zone, host=FREE.host), **stamp()) is FREE


def test_a_reservation_and_a_rest_end_at_their_time() -> None:
    assert HELD.end_reservation(**stamp(NOW + 100)).status is Status.AVAILABLE
    released = replace(FREE, modified=NOW)
    assert released.corrected(ALICE, AGES, **stamp(NOW + REST)) is None
    assert released.corrected(ALICE, AGES, **stamp(NOW + REST - 1)) is not None


def test_a_change_keeps_the_replacement_of_an_address() -> None:
    replaced = TAKEN.change(Changes(replaced_by="192.0.2.9"), **stamp())
    assert replaced.replaced_by == "192.0.2.9"
    assert replaced.change(Changes(description="x"), **stamp()).replaced_by == "192.0.2.9"


@pytest.mark.parametrize(
    "ip",
    [
        replace(HELD, reserved_until=NOW),
        replace(HELD, disabled=LISTED),
        KAZOOS,
        replace(FREE, status=Status.RESERVED, reserved_until=NOW + 9),
    ],
    ids=["it is over", "it is disabled", "another program has assigned it", "it has no id"],
)
def test_a_reservation_without_effect_does_not_prevent_a_deletion(ip: DedicatedIP) -> None:
    assert ip.delete(**stamp()).trail[-1].kind == EventKind.DELETED


def test_the_last_account_takes_a_resting_address_back_at_once() -> None:
    again = RESTING.assign(ALICE, **stamp(NOW + 1))
    assert (again.status, again.assigned_to, again.available_at) == (Status.ASSIGNED, ALICE, None)


def test_an_allocation_takes_the_oldest_only_where_the_zone_permits_it() -> None:
    permits = PlaceRules(REST, takes_oldest=True)
    assert RESTING.assign(BOB, early=True, place=permits, **stamp()).assigned_to == BOB
    with pytest.raises(Resting):
        RESTING.assign(BOB, place=permits, **stamp())


def test_an_assigned_address_that_is_disabled_stays_and_is_disabled_by_its_release() -> None:
    marked = TAKEN.disable(LISTED, **stamp())
    assert (marked.status, marked.assigned_to) == (Status.ASSIGNED, ALICE)
    assert (marked.modified, marked.request_id) == (TAKEN.modified, TAKEN.request_id)
    released = marked.release(ALICE, **stamp(NOW + 1))
    assert (released.status, released.disabled) == (Status.DISABLED, marked.disabled)
    moved = marked.transfer(ALICE, BOB, **stamp())
    assert moved.release(BOB, **stamp()).status is Status.DISABLED
    assert marked.enable(**stamp()).release(ALICE, **stamp()).status is Status.AVAILABLE


def test_a_rest_goes_on_after_a_reservation_and_after_a_drain() -> None:
    held = RESTING.reserve(ALICE, "one", NOW + 50, **stamp())
    assert held.end_reservation("one", **stamp()).status is Status.AGING
    drained = RESTING.disable(DRAIN, **stamp())
    back = drained.enable(**stamp())
    assert (back.status, back.available_at) == (Status.AGING, RESTING.available_at)
    assert drained.enable(**stamp(NOW + REST)).status is Status.AVAILABLE


@pytest.mark.parametrize("before", [FREE, RESTING, HELD], ids=lambda ip: ip.status)
def test_an_undo_restores_the_state_before(before: DedicatedIP) -> None:
    at = stamp(NOW + 1)
    taken = before.assign(ALICE, reservation=before.reservation, **at)
    undone = taken.undo()
    assert replace(undone, modified=before.modified, request_id=before.request_id) == before
    assert undone.trail[-1].kind == EventKind.UNDONE
    listed = taken.disable(LISTED, **stamp(NOW + 2)).undo()
    assert (listed.status, listed.assigned_to) == (Status.DISABLED, None)


@pytest.mark.parametrize(
    ("left", "reservation"),
    [
        (replace(FREE, available_at=NOW + 9, last_assigned_to=ALICE), None),
        (replace(HELD, status=Status.AVAILABLE), "one"),
        (replace(FREE, status=Status.AGING), None),
    ],
    ids=["a rest", "a reservation", "a status alone"],
)
def test_an_undo_restores_what_another_program_had_left(
    left: DedicatedIP, reservation: str | None
) -> None:
    undone = left.assign(ALICE, reservation=reservation, **stamp()).undo()
    assert replace(undone, modified=left.modified, request_id=left.request_id) == left


def test_an_undo_after_another_program_gave_the_address_away_is_a_release() -> None:
    """The assignment that this service made is not undone: it ended before."""
    given = replace(TAKEN, assigned_to=BOB).undo()
    assert (given.status, given.assigned_to) == (Status.AVAILABLE, None)
    assert [event[:2] for event in given.trail] == [("assigned", ALICE), ("released", BOB)]


def test_an_undo_of_a_transfer_keeps_a_disabled_address_assigned() -> None:
    back = TAKEN.transfer(ALICE, BOB, **stamp()).disable(LISTED, **stamp()).undo()
    assert (back.status, back.assigned_to, back.disabled) == (Status.ASSIGNED, ALICE, LISTED)


@pytest.mark.parametrize("before", [FREE, RESTING], ids=lambda ip: ip.status)
def test_events_after_an_assignment_that_is_undone_say_that_it_was_not_done(
    before: DedicatedIP,
) -> None:
    taken = before.assign(ALICE, **stamp(NOW + 1))
    found = Event("found", ALICE, NOW + 2, "", 3, state=State("assigned", ALICE, "z", "h"))
    withdrawn = Event("withdrawn", BOB, NOW + 2, "r", 4, was="assigned")
    taken = replace(taken, trail=(*taken.trail, found, withdrawn))
    *_, undone_found, kept, disabled = taken.disable(LISTED, **stamp(NOW + 3)).undo().trail
    assert (undone_found.account_id, undone_found.origin, kept) == (None, None, withdrawn)
    for event in (undone_found, disabled):
        assert event.state is not None
        assert event.state[:2] == ("disabled", None)
    origin = disabled.origin
    assert origin is not None
    assert (origin.status, origin.account_id) == (before.status, None)
    assert origin.available_at == before.available_at


@pytest.mark.parametrize(
    ("until", "ending"),
    [(NOW, " until 2028-01-29T17:46:40Z"), (10**15, f" until {10**15}"), (0, "")],
    ids=["a time", "a time after the calendar's end", "no time"],
)
def test_the_error_of_a_resting_address_says_until_when(until: int, ending: str) -> None:
    [rule] = broken_rule(Resting("192.0.2.1", until)).values()
    assert rule["message"] == f"{Resting('192.0.2.1', until).message}{ending}"


def test_an_undo_of_a_transfer_and_of_a_reservation() -> None:
    back = TAKEN.transfer(ALICE, BOB, **stamp()).undo()
    assert (back.status, back.assigned_to) == (Status.ASSIGNED, ALICE)
    assert RESTING.reserve(ALICE, "x", NOW + 9, **stamp()).undo().status is Status.AGING
    assert HELD.extend("one", NOW + 900, **stamp()).undo().reserved_until == NOW + 100


def test_a_transfer_is_a_release_of_the_assignment_before() -> None:
    assert TAKEN.transfer(ALICE, BOB, **stamp()).follows_release_of(TAKEN)
    ended = HELD.end_reservation("one", **stamp())
    assert not ended.follows_release_of(replace(TAKEN, trail=HELD.trail))


def kazoo_releases(ip: DedicatedIP) -> DedicatedIP:
    """Return the address after `sup kazoo_ips_maintenance release` on a node of Kazoo."""
    document = {**to_document(ip), "pvt_status": "available", "_rev": "9-a"}
    document.pop("pvt_assigned_to", None)
    return from_document({**document, "pvt_modified": NOW + 5})


@pytest.mark.parametrize(
    ("before", "place", "status"),
    [
        (RESTING, AGES, Status.AGING),
        (HELD, AGES, Status.RESERVED),
        (OUT, AGES, Status.DISABLED),
        (TAKEN, AGES, Status.AGING),
        (TAKEN, DRAINED, Status.DISABLED),
        (TAKEN.disable(LISTED, **stamp()), PlaceRules(), Status.DISABLED),
        (FREE, DRAINED, Status.DISABLED),
    ],
)
def test_an_address_that_kazoo_has_released_is_corrected_before_it_is_assigned(
    before: DedicatedIP, place: PlaceRules, status: Status
) -> None:
    now = kazoo_releases(before)
    owner = before.assigned_to
    after = now.corrected(owner, place, **stamp(NOW + 6))
    assert after is not None
    assert after.status is status
    if status is not before.status and owner and not before.disabled and not place.drained:
        assert (after.available_at, after.last_assigned_to) == (NOW + 5 + REST, owner)
    if before is not TAKEN or place.drained:
        with pytest.raises((Resting, Reserved, OutOfService)):
            now.assign(BOB, place=place, **stamp(NOW + 6))
    assert after.corrected(owner, place, **stamp(NOW + 6)) is None


@pytest.mark.parametrize("ip", [FREE, TAKEN, kazoo_releases(RESTING)])
def test_a_correct_address_is_not_corrected(ip: DedicatedIP) -> None:
    assert ip.corrected(None, PlaceRules(), **stamp(NOW + 2 * REST)) is None


def test_an_address_without_rest_is_not_corrected_by_the_clock_of_another_program() -> None:
    released = replace(FREE, modified=NOW + 60)
    assert released.corrected(ALICE, PlaceRules(), **stamp()) is None


def test_the_end_of_a_reservation_without_an_id_corrects_nothing() -> None:
    assert replace(FREE, reserved_until=NOW + 9).corrected(**stamp()) is None


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"disabled": LISTED, "reservation": "one"}, OutOfService),
        ({"reservation": "one", "reserved_until": NOW + 9, "available_at": NOW + 9}, Reserved),
        ({"available_at": NOW + 9}, Resting),
    ],
    ids=["disabled", "reserved", "resting"],
)
def test_an_address_that_another_program_made_available_is_what_its_fields_say(
    fields: dict[str, Any], shown: type[RuleBroken]
) -> None:
    with pytest.raises(shown):
        replace(FREE, **fields).assign(ALICE, **stamp())


def test_a_rest_and_a_reservation_end_although_another_program_made_the_address_available() -> (
    None
):
    held, resting = (replace(ip, status=Status.AVAILABLE) for ip in (HELD, RESTING))
    with pytest.raises(Reserved):
        held.delete(**stamp())
    assert held.end_reservation("one", **stamp()).reservation is None
    assert resting.end_rest(early=True, **stamp()).available_at is None
    with pytest.raises(NotReserved):
        resting.end_reservation(**stamp())


every = st.sampled_from([change for kind in CHANGES for change in CHANGES[kind]])


@given(st.lists(every, max_size=12))
def test_a_document_keeps_a_state_and_the_history_of_it(
    changes: list[Callable[[DedicatedIP], DedicatedIP]],
) -> None:
    ip = FREE
    for number, change in enumerate(changes, 2):
        try:
            ip = replace(change(ip), revision=f"{number}-a")
        except RuleBroken:
            continue
        document = to_document(replace(ip, revision=f"{number - 1}-a"))
        again = from_document({**document, "_rev": f"{number}-a"})
        assert replace(again, source={}, transaction=None) == replace(ip, source={})
        assert again.trail == ip.trail
        if ip.status is Status.ASSIGNED:
            assert not {
                n for n in to_copy(again) if n.startswith(("pvt_res", "pvt_dis", "pvt_av"))
            }
        events = trail_events.of_trail(ip, NOW)
        states = [(event.before, event.after) for event in events]
        for (_, after), (before, _) in pairwise(states):
            assert after is None or before is None or after[:2] == before[:2]


@given(st.lists(every, max_size=12))
def test_events_are_the_same_after_earlier_events_were_removed_from_the_trail(
    changes: list[Callable[[DedicatedIP], DedicatedIP]],
) -> None:
    ip = DedicatedIP.new("192.0.2.1", "z", "h", **stamp(1))
    for number, change in enumerate(changes, 1):
        ip = replace(ip, revision=f"{number}-a")
        try:
            after = change(ip)
        except RuleBroken:
            continue
        if after.trail[-1].kind == EventKind.DELETED:
            if ip.assigned_to:  # the service releases it first
                continue
            after = DedicatedIP.new(
                ip.address, "w", "i", trail=after.trail, tombstone=f"{number + 1}-a", **stamp()
            )
        ip = after
    events = trail_events.of_trail(ip, NOW)
    for removed in range(len(ip.trail)):
        assert (
            trail_events.of_trail(replace(ip, trail=ip.trail[removed:]), NOW) == events[removed:]
        )


@pytest.mark.parametrize(("was", "to"), [*product(STATES, STATES)])
def test_the_events_of_kazoos_writes_have_the_kind_of_the_change(was: Status, to: Status) -> None:
    before, after = (STATES[each].state for each in (was, to))
    event = trail_events.change(
        "192.0.2.1", before, trail_events.Snapshot(2, after, NOW), {}, certain=True
    )
    if was is to:
        assert event is None
    else:
        assert event is not None
        assert event.event in set(map(str, TRANSITIONS)) - {"created", "deleted", "transferred"}
