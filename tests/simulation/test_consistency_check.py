"""The consistency check accepts possible histories and rejects impossible ones."""

from dataclasses import replace

import pytest

from tests.simulation.history import Call, violations
from tests.simulation.plan import Allocate, Cancel, Confirm, Reserve
from tests.simulation.steps import ABSENT, AVAILABLE
from tests.simulation.workers import Reply
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    Release,
    ReleaseAll,
    ReleaseMany,
)

A, B = "192.0.2.1", "192.0.2.2"
LOST = Reply(409, {"ips": {A: "conflict"}}, "datastore_conflict")
UNKNOWN = Reply(503, {}, "datastore_unreachable")
BUSY = Reply(409, {}, "in_progress")
SUCCESS = Reply(200, {"id": A})


def both() -> Reply:
    """Return the reply to a successful request for both addresses."""
    return Reply(200, {"ips": [A, B]})


def history(*calls: tuple[float, float, Command, Reply]) -> list[Call]:
    """Return a history of calls without keys."""
    return [
        Call(n, "client", command, None, ((began, ended, reply),))
        for n, (began, ended, command, reply) in enumerate(calls)
    ]


def wrong(
    done: list[Call], a: tuple[str | None, str | None], b: tuple[str | None, str | None]
) -> list[str]:
    """Return the violations, given each address's owner at the start and at the end."""
    return violations(done, {A: a[0], B: b[0]}, {A: a[1], B: b[1]})


HELD = Reserve("X", "X", (A, B), 0, 100)
TAKE = Confirm("X", "X", "id", (A, B), made_by=0)
EXPIRED = Reply(409, {}, "reservation_expired")
RESERVED = (0, 1, HELD, replace(both(), status=201))
FREE = (AVAILABLE, AVAILABLE)
REFUSED_RELEASE = [
    (0, 9, ReleaseMany("X", "X", (A, B)), LOST),
    (1, 8, Release("X", "X", A), SUCCESS),
]

GOOD = {
    "one of two concurrent assignments is refused": (
        history((0, 2, Assign("X", "X", A), SUCCESS), (1, 3, Assign("Y", "Y", A), LOST)),
        (AVAILABLE, "X"),
        (AVAILABLE, AVAILABLE),
    ),
    "a refused release without an effect": (
        history(*REFUSED_RELEASE),
        ("X", AVAILABLE),
        ("X", "X"),
    ),
    "an assignment without a final reply took effect": (
        history((0, 1, AssignMany("X", "X", (A, B)), UNKNOWN)),
        (AVAILABLE, "X"),
        (AVAILABLE, "X"),
    ),
    "an allocation without a final reply had no effect": (
        history((0, 1, Allocate("X", "X", 2), UNKNOWN)),
        (AVAILABLE, AVAILABLE),
        (AVAILABLE, AVAILABLE),
    ),
    "a transient assignment is read": (
        history(
            (0, 9, AssignMany("X", "X", (A, B)), LOST),
            (0, 9, Assign("Y", "Y", A), SUCCESS),
            (1, 2, Fetch("X", "X", B), Reply(200, {"status": "assigned", "assigned_to": "X"})),
        ),
        (AVAILABLE, "Y"),
        (AVAILABLE, AVAILABLE),
    ),
    "a reservation is assigned": (
        history(RESERVED, (2, 3, TAKE, both())),
        (AVAILABLE, "X"),
        (AVAILABLE, "X"),
    ),
    "a reservation is cancelled": (
        history(RESERVED, (2, 3, Cancel("X", "X", "id", (A, B), made_by=0), both())),
        FREE,
        FREE,
    ),
    "a reservation remains": (history(RESERVED), (AVAILABLE, "=X"), (AVAILABLE, "=X")),
    "a reservation whose time is over assigns nothing": (
        history(RESERVED, (101, 102, TAKE, EXPIRED)),
        FREE,
        FREE,
    ),
    "a reserved address is refused by name": (
        history(RESERVED, (2, 3, Assign("X", "X", A), Reply(400, {"ips.0": {"forbidden": {}}}))),
        (AVAILABLE, "=X"),
        (AVAILABLE, "=X"),
    ),
}

BAD = {
    "a reservation is lost": (
        history(RESERVED, (2, 3, TAKE, EXPIRED)),
        (AVAILABLE, "=X"),
        (AVAILABLE, "=X"),
    ),
    "a reservation that is over assigns": (
        history(
            RESERVED,
            (2, 3, Cancel("X", "X", "id", (A, B), made_by=0), both()),
            (4, 5, TAKE, both()),
        ),
        (AVAILABLE, "X"),
        (AVAILABLE, "X"),
    ),
    "a reserved address is given to another account": (
        history(RESERVED, (2, 3, Assign("Y", "Y", A), SUCCESS), (4, 5, TAKE, EXPIRED)),
        (AVAILABLE, "Y"),
        (AVAILABLE, "=X"),
    ),
    "a reservation ends before its time": (
        history(RESERVED, (2, 3, Assign("Y", "Y", A), SUCCESS)),
        (AVAILABLE, "Y"),
        (AVAILABLE, AVAILABLE),
    ),
    "one of two addresses of a reservation is assigned": (
        history(RESERVED, (2, 3, TAKE, UNKNOWN)),
        (AVAILABLE, "X"),
        (AVAILABLE, "=X"),
    ),
    "an address is assigned twice": (
        history((0, 2, Assign("X", "X", A), SUCCESS), (1, 3, Assign("Y", "Y", A), SUCCESS)),
        (AVAILABLE, "X"),
        (AVAILABLE, AVAILABLE),
    ),
    "an address is lost": (history(), (AVAILABLE, ABSENT), (AVAILABLE, AVAILABLE)),
    "a refused release loses an address": (
        history(*REFUSED_RELEASE, (1, 8, Assign("Y", "Y", B), SUCCESS)),
        ("X", AVAILABLE),
        ("X", "Y"),
    ),
    "one of two addresses was assigned": (
        history((0, 1, AssignMany("X", "X", (A, B)), UNKNOWN)),
        (AVAILABLE, "X"),
        (AVAILABLE, AVAILABLE),
    ),
    "an allocation assigns one address too many": (
        history((0, 1, Allocate("X", "X", 1), Reply(200, {"ips": [A]}))),
        (AVAILABLE, "X"),
        (AVAILABLE, "X"),
    ),
    "a release of all misses an address": (
        history((0, 1, ReleaseAll("X", "X"), Reply(200, {"ips": [A]}))),
        ("X", AVAILABLE),
        ("X", "X"),
    ),
    "a conflict without a second writer": (
        history((0, 1, Assign("X", "X", A), LOST)),
        (AVAILABLE, AVAILABLE),
        (AVAILABLE, AVAILABLE),
    ),
    "an address is deleted twice": (
        history((0, 1, Delete("operator", A), SUCCESS), (2, 3, Delete("operator", A), SUCCESS)),
        (AVAILABLE, ABSENT),
        (AVAILABLE, AVAILABLE),
    ),
    "an addition is refused although the address is absent": (
        history((0, 1, Create("operator", A, "zone1", "proxy1"), Reply(409, {}, ""))),
        (ABSENT, ABSENT),
        (AVAILABLE, AVAILABLE),
    ),
    "the reply names the addresses in another order": (
        history((0, 1, ReleaseMany("X", "X", (B, A)), both())),
        ("X", AVAILABLE),
        ("X", AVAILABLE),
    ),
    "an unexpected error": (
        history((0, 1, Assign("X", "X", A), Reply(500, {}, ""))),
        (AVAILABLE, AVAILABLE),
        (AVAILABLE, AVAILABLE),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_possible_history_is_accepted(name: str) -> None:
    assert wrong(*GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_an_impossible_history_is_rejected(name: str) -> None:
    assert wrong(*BAD[name]) != []


def keyed(*replies: Reply) -> list[Call]:
    """Return an assignment with a key, which was sent once for each reply."""
    attempts = tuple((float(n), n + 0.5, reply) for n, reply in enumerate(replies))
    return [Call(1, "client", Assign("X", "X", A), "key", attempts)]


def test_a_key_has_one_final_reply() -> None:
    assert (
        wrong(keyed(UNKNOWN, BUSY, SUCCESS, SUCCESS), (AVAILABLE, "X"), (AVAILABLE, AVAILABLE))
        == []
    )
    assert wrong(keyed(UNKNOWN, BUSY), (AVAILABLE, "X"), (AVAILABLE, AVAILABLE)) != []
    assert wrong(keyed(LOST, SUCCESS), (AVAILABLE, AVAILABLE), (AVAILABLE, AVAILABLE)) != []


def test_a_key_must_agree_with_its_final_reply() -> None:
    superfluous = Reply(400, {"ips.0": {"superfluous": {}}}, "validation error")
    assert wrong(keyed(UNKNOWN, superfluous), (AVAILABLE, "X"), (AVAILABLE, AVAILABLE)) != []
    assert wrong(keyed(UNKNOWN, SUCCESS), (AVAILABLE, AVAILABLE), (AVAILABLE, AVAILABLE)) != []


def test_a_read_on_an_isolated_node_may_be_outdated() -> None:
    refused = Reply(400, {"ips.0": {"superfluous": {}}}, "validation error")
    old = history((0, 1, Assign("X", "X", A), SUCCESS), (2, 3, Release("X", "X", A), refused))
    assert wrong(old, (AVAILABLE, "X"), (AVAILABLE, AVAILABLE)) != []
    assert (
        wrong([old[0], replace(old[1], isolated=True)], (AVAILABLE, "X"), (AVAILABLE, AVAILABLE))
        == []
    )


def test_a_release_of_all_may_miss_addresses_that_the_node_lacks() -> None:
    nothing = Reply(200, {"ips": []})
    left = history((0, 1, Assign("X", "X", A), SUCCESS), (2, 3, ReleaseAll("X", "X"), nothing))
    assert wrong(left, (AVAILABLE, "X"), (AVAILABLE, AVAILABLE)) != []
    assert (
        wrong([left[0], replace(left[1], lagging=True)], (AVAILABLE, "X"), (AVAILABLE, AVAILABLE))
        == []
    )


def test_an_isolated_node_may_refuse_to_delete_a_deleted_address() -> None:
    assigned = Reply(409, {"ips": {A: "assigned"}}, "datastore_conflict")
    old = history(
        (0, 1, Delete("operator", A, force=True), SUCCESS),
        (2, 3, Delete("operator", A, force=False), assigned),
    )
    assert wrong(old, ("X", None), (AVAILABLE, AVAILABLE)) != []
    assert (
        wrong([old[0], replace(old[1], isolated=True)], ("X", None), (AVAILABLE, AVAILABLE)) == []
    )
