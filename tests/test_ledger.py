"""What counts against the limits of an account, and which reservations are open.

Without a database.
"""

from dataclasses import replace
from typing import Any

import pytest

from kazoo_ips.errors import LimitReached
from kazoo_ips.model import DedicatedIP, Disabled, Status
from kazoo_ips.model.limits import Ledger, Limits, counted_for
from kazoo_ips.model.reservations import MAX_SECONDS, Reservation, ReservationBook

NOW = 64_000_000_000
ALICE = "a" * 32
IP = DedicatedIP("192.0.2.1", "z", "h", created=1, modified=1)
HELD = replace(
    IP,
    status=Status.RESERVED,
    reserved_for=ALICE,
    reserved_until=NOW + 1,
    reservation="one",
)
OPEN = Reservation("one", ALICE, (IP.address,), NOW - 9, NOW + 1)
MARK = Disabled("listed", NOW)


@pytest.mark.parametrize(
    ("before", "after", "settles"),
    [
        (Limits(), Limits(max=5), 2),
        (Limits(max=5), Limits(max=4), 1),
        (Limits(max=5), Limits(descendants_max=9), 2),
        (Limits(descendants_max=9), Limits(descendants_max=8), 1),
        (Limits(descendants_max=9), Limits(max=5), 1),
    ],
    ids=["the first limits", "the same", "those below too", "of all the same", "of its own only"],
)
def test_addresses_are_counted_again_if_limits_count_more_than_before(
    before: Limits, after: Limits, settles: int
) -> None:
    ledger = Ledger(ALICE, before, settles=1)
    assert ledger.with_limits(after, at=NOW, settles=2).settles == settles


def test_a_ledger_says_what_is_used_of_each_limit() -> None:
    limits = Limits(max=5, zones={"z": 3, "y": 1}, descendants_max=9)
    own = {"192.0.2.1": "z", "192.0.2.2": "z", "192.0.2.3": "x"}
    ledger = Ledger(ALICE, limits, own=own, below=frozenset({"192.0.2.4"}))
    assert ledger.used_in_zones == {"x": 1, "z": 2}
    assert [tuple(each) for each in ledger.usage] == [
        ("zones", "z", 3, 2),
        ("zones", "y", 1, 0),
        ("max", None, 5, 3),
        ("descendants_max", None, 9, 4),
    ]


def test_a_limit_permits_as_many_addresses_as_it_says() -> None:
    ledger = Ledger(ALICE, Limits(max=2), settles=5, counted=5)
    others = [replace(IP, address=f"192.0.2.{number}") for number in (2, 3)]
    assert len(ledger.with_claim("assign-1", ALICE, [IP, others[0]]).own) == 2
    with pytest.raises(LimitReached):
        ledger.with_claim("assign-1", ALICE, [IP, *others])
    assert ledger.is_settled
    assert not replace(ledger, counted=4).is_settled


def test_a_limit_that_is_exceeded_permits_what_does_not_exceed_it_further() -> None:
    own = {"192.0.2.1": "z", "192.0.2.2": "z"}
    ledger = Ledger(ALICE, Limits(max=1), own=own)
    assert ledger.with_claim("assign-1", ALICE, [IP]).own == own
    with pytest.raises(LimitReached):
        ledger.with_claim("assign-1", ALICE, [replace(IP, address="192.0.2.3")])


@pytest.mark.parametrize(
    ("fields", "account_id"),
    [
        ({}, ALICE),
        ({"reserved_until": NOW}, None),
        ({"reserved_until": None}, None),
        ({"reservation": None}, None),
        ({"disabled": MARK}, None),
        ({"status": Status.ASSIGNED, "assigned_to": "b"}, "b"),
        ({"status": "parked", "assigned_to": "b"}, "b"),
        ({"status": Status.AVAILABLE}, ALICE),
    ],
    ids=[
        "reserved", "it is over", "it has no end", "it has no id", "disabled", "assigned", "newer",
        "another program has made it available",
    ],
)  # fmt: skip
def test_an_address_counts_for_the_account_that_has_it_or_may_get_it(
    fields: dict[str, Any], account_id: str | None
) -> None:
    assert counted_for(replace(HELD, **fields), NOW) == account_id


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({}, True),
        ({"reservation": "two"}, False),
        ({"reserved_for": "b"}, False),
        ({"reserved_until": NOW}, False),
        ({"reserved_until": None}, False),
        ({"disabled": MARK}, False),
    ],
)
def test_a_reservation_holds_an_address_whose_document_says_so(
    fields: dict[str, Any], holds: bool
) -> None:
    assert OPEN.holds(replace(HELD, **fields), NOW) is holds


def test_reservations_that_are_over_for_a_day_leave_the_book() -> None:
    over = [replace(OPEN, id=str(n), until=NOW - MAX_SECONDS + n) for n in (0, 1)]
    book = ReservationBook(ALICE, {each.id: each for each in over})
    assert {*book.with_reservation(OPEN, NOW).reservations} == {"1", "one"}


def test_reservations_that_are_over_or_cancelled_are_not_open() -> None:
    earlier = replace(OPEN, id="two", started=NOW - 10)
    others = (
        replace(OPEN, id="three", until=NOW),
        replace(OPEN, id="four", cancelled_by="r"),
    )
    book = ReservationBook(ALICE, {each.id: each for each in (OPEN, earlier, *others)})
    assert book.open_at(NOW) == [earlier, OPEN]
