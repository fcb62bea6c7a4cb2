"""The search of a legal order, on histories written by hand."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    ListAssigned,
    ListAvailable,
    Release,
    Reply,
)
from tests.stateful.history import Event, OptionalStep, legal_order
from tests.stateful.model import Entry
from tests.stateful.observed import Exchange, events, is_final

IP = "192.0.2.2"
FREE = Entry("us-east", "proxy1.example.com")
ALICES = Entry("us-east", "proxy1.example.com", "alice")
IDS = {"alice": "a1", "bob": "b1"}
SHOWN = {"ip": IP, "zone": "us-east", "host": "proxy1.example.com"}


def write(value: int) -> Callable[[Any], list[Any]]:
    return lambda state: [value]


def read(value: int) -> Callable[[Any], list[Any]]:
    return lambda state: [state] if state == value else []


# A register, as in the literature.


@pytest.mark.parametrize(
    "history",
    [
        [],
        [Event(0, 1, write(1)), Event(2, 3, read(1))],
        [Event(0, 3, write(1)), Event(1, 2, read(0))],
        [Event(0, 3, write(1)), Event(1, 2, read(1))],
        [Event(0, 9, write(1)), Event(1, 2, read(0)), Event(3, 4, read(1))],
        [Event(0, 5, write(1)), Event(0, 5, write(2)), Event(6, 7, read(1))],
        [Event(0, 9, read(2)), Event(1, 3, write(1)), Event(2, 5, write(2)), Event(6, 7, read(2))],
    ],
)
def test_a_legal_history_has_an_order(history: list[Event]) -> None:
    order = legal_order(history, 0)
    assert order is not None
    assert sorted(map(id, order)) == sorted(map(id, history))
    state: Any = 0
    for place, event in enumerate(order):
        assert all(event.began <= later.ended for later in order[place:])
        [state] = event.step(state)


@pytest.mark.parametrize(
    "history",
    [
        [Event(0, 1, read(1))],
        [Event(0, 1, write(1)), Event(2, 3, read(0))],
        [Event(0, 9, write(1)), Event(1, 2, read(1)), Event(3, 4, read(0))],
        [Event(0, 1, write(1)), Event(2, 3, write(2)), Event(4, 5, read(1))],
        [Event(0, 5, write(1)), Event(0, 5, write(2)), Event(6, 7, read(1)), Event(8, 9, read(2))],
    ],
)
def test_an_illegal_history_has_no_order(history: list[Event]) -> None:
    assert legal_order(history, 0) is None


def test_the_final_state_is_checked() -> None:
    both = [Event(0, 5, write(1)), Event(0, 5, write(2))]
    assert legal_order(both, 0, lambda state: state == 1) is not None
    assert legal_order(both, 0, lambda state: state == 3) is None


def test_a_long_history_without_an_order_is_rejected_in_time() -> None:
    busy = [Event(n, n + 4.5, write(n % 3)) for n in range(60)]
    assert legal_order([*busy, Event(100, 101, read(7))], 0) is None


def one_of_all_orders(events: list[Event], last: int) -> bool:
    """Whether any order of all events leads to a state, each with the effect that it has there."""
    for order in itertools.permutations(events):
        if any(b.ended < a.began for a, b in itertools.combinations(order, 2)):
            continue
        states = {0}
        for event in order:
            states = {after for state in states for after in event.step(state)}
        if last in states:
            return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Some events of a register, of which some perhaps have no effect."""
    made = []
    for _ in range(draw(st.integers(0, 5))):
        began, lasts = draw(st.integers(0, 6)), draw(st.sampled_from([0, 1, 3, math.inf]))
        value = draw(st.integers(0, 2))
        step = draw(
            st.sampled_from([write(value), read(value), *[OptionalStep(write(value))] * 2])
        )
        made.append(Event(began, began + lasts, step))
    return made


@given(histories(), st.integers(0, 2))
@settings(max_examples=1000, deadline=None)
def test_an_order_is_found_exactly_if_one_of_all_orders_is_legal(
    history: list[Event], last: int
) -> None:
    order = legal_order(history, 0, lambda state: state == last)
    assert (order is not None) == one_of_all_orders(history, last)


def test_many_events_that_may_have_no_effect_take_no_time() -> None:
    events = [Event(n, math.inf, OptionalStep(read(7))) for n in range(60)]
    assert legal_order([*events, Event(100, 101, read(1))], 0) is None


# Addresses.


def ok(data: Any = None) -> Reply:
    return Reply(200, None, data)


def broken(rule: str) -> Reply:
    return Reply(400, "validation error", {"ips.0": {rule: {"message": "", "value": IP}}})


def found(
    *exchanges: tuple[float, float, Command, Reply],
    start: Entry | None = FREE,
    end: Entry | None = None,
    other: str = IP,
) -> bool:
    """Whether the exchanges have a legal order for the address.

    :param end: the entry of the address at the end
    """
    made = [Exchange(n, c, r, began, ended) for n, (began, ended, c, r) in enumerate(exchanges)]
    return legal_order(events(made, other, IDS), start, lambda s: is_final(s, end)) is not None


ASSIGN_A, ASSIGN_B = Assign("alice", "alice", IP), Assign("bob", "bob", IP)
RELEASE_A = Release("alice", "alice", IP)


def test_one_of_two_concurrent_assignments_wins() -> None:
    race = ((0, 5, ASSIGN_A, ok()), (1, 6, ASSIGN_B, broken("forbidden")))
    assert found(*race, end=ALICES)


def test_two_concurrent_assignments_cannot_both_win() -> None:
    assert not found((0, 5, ASSIGN_A, ok()), (1, 6, ASSIGN_B, ok()), end=ALICES)


def test_two_assignments_can_win_with_a_release_between() -> None:
    both = ((0, 5, ASSIGN_A, ok()), (1, 6, ASSIGN_B, ok()), (2, 4, RELEASE_A, ok()))
    assert found(*both, end=Entry(FREE.zone, FREE.host, "bob"))
    assert not found(*both, end=ALICES)


def test_an_assigned_address_cannot_be_available_later() -> None:
    listed = ListAvailable("bob", "bob")
    assert not found((0, 1, ASSIGN_A, ok()), (2, 3, listed, ok([SHOWN])), end=ALICES)
    assert found((0, 1, ASSIGN_A, ok()), (2, 3, listed, ok([])), end=ALICES)
    assert found((0, 3, ASSIGN_A, ok()), (1, 2, listed, ok([SHOWN])), end=ALICES)


def test_a_list_of_an_account_has_its_addresses() -> None:
    listed = ListAssigned("alice", "alice")
    assert found((0, 1, listed, ok([SHOWN])), start=ALICES, end=ALICES)
    assert not found((0, 1, listed, ok([])), start=ALICES, end=ALICES)
    assert not found((0, 1, listed, ok([SHOWN])), start=FREE, end=FREE)


def test_a_lost_update_is_noticed() -> None:
    history = ((0, 1, ASSIGN_A, ok()), (2, 3, RELEASE_A, ok()))
    assert not found(*history, end=ALICES)
    assert found(*history, end=FREE)


def test_an_address_is_created_once() -> None:
    create = Create("operator", IP, FREE.zone, FREE.host)
    exists = Reply(409, "datastore_conflict", {"message": "conflicting documents"})
    assert found(
        (0, 1, create, Reply(201, None, {})), (0, 1, create, exists), start=None, end=FREE
    )
    twice = ((0, 1, create, Reply(201, None, {})), (0, 1, create, Reply(201, None, {})))
    assert not found(*twice, start=None, end=FREE)


def test_a_forced_deletion_takes_the_address_from_its_account_too() -> None:
    assert found((0, 1, Delete("operator", IP, True), ok({})), start=ALICES, end=None)
    assert not found((0, 1, Delete("operator", IP), ok({})), start=ALICES, end=None)


def test_the_writes_of_a_lost_bulk_request_may_be_seen_until_they_are_undone() -> None:
    many = AssignMany("alice", "alice", (IP, "192.0.2.10"))
    lost = Reply(409, "datastore_conflict", {"ips": {"192.0.2.10": "conflict"}, "message": ""})
    seen = ((0, 9, many, lost), (3, 4, ASSIGN_B, broken("forbidden")))
    assert found(*seen, end=FREE)
    assert found((0, 9, many, lost), end=FREE)
    assert not found(*seen, end=ALICES), "the write was not undone"
    assert not found((0, 1, many, lost), (2, 3, ASSIGN_B, broken("forbidden")), end=FREE)
    assert not found((0, 9, many, lost), end=ALICES, other="192.0.2.10")


def test_a_list_item_without_an_error_was_valid_when_it_was_read() -> None:
    many = AssignMany("alice", "alice", ("192.0.2.10", IP))
    assert found((0, 1, many, broken("forbidden")), end=FREE)
    assert not found((0, 1, many, broken("forbidden")), start=ALICES, end=ALICES)
