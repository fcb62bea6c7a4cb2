"""Histories that are as they should be, and some that are not, as the judge sees them."""

from dataclasses import replace

import pytest

from tests.simulation.history import FREE, GONE, Done, judge
from tests.simulation.plan import Allocate
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
DONE = Reply(200, {"id": A})


def both() -> Reply:
    """The reply to a request about both addresses."""
    return Reply(200, {"ips": [A, B]})


def history(*calls: tuple[float, float, Command, Reply]) -> list[Done]:
    """What was done, without keys."""
    return [
        Done(n, "client", command, None, ((began, ended, reply),))
        for n, (began, ended, command, reply) in enumerate(calls)
    ]


def wrong(
    done: list[Done], a: tuple[str | None, str | None], b: tuple[str | None, str | None]
) -> list[str]:
    """What is wrong, where each address was and is somebody's."""
    return judge(done, {A: a[0], B: b[0]}, {A: a[1], B: b[1]})


REFUSED_RELEASE = [
    (0, 9, ReleaseMany("X", "X", (A, B)), LOST),
    (1, 8, Release("X", "X", A), DONE),
]

GOOD = {
    "two at once, one of them too late": (
        history((0, 2, Assign("X", "X", A), DONE), (1, 3, Assign("Y", "Y", A), LOST)),
        (FREE, "X"),
        (FREE, FREE),
    ),
    "a refused release, and what it left": (history(*REFUSED_RELEASE), ("X", FREE), ("X", "X")),
    "nobody knows, and it was done": (
        history((0, 1, AssignMany("X", "X", (A, B)), UNKNOWN)),
        (FREE, "X"),
        (FREE, "X"),
    ),
    "nobody knows, and it was not": (
        history((0, 1, Allocate("X", "X", 2), UNKNOWN)),
        (FREE, FREE),
        (FREE, FREE),
    ),
    "seen in the hands of one who gives it back": (
        history(
            (0, 9, AssignMany("X", "X", (A, B)), LOST),
            (0, 9, Assign("Y", "Y", A), DONE),
            (1, 2, Fetch("X", "X", B), Reply(200, {"status": "assigned", "assigned_to": "X"})),
        ),
        (FREE, "Y"),
        (FREE, FREE),
    ),
}

BAD = {
    "two are told that they have it": (
        history((0, 2, Assign("X", "X", A), DONE), (1, 3, Assign("Y", "Y", A), DONE)),
        (FREE, "X"),
        (FREE, FREE),
    ),
    "it is gone": (history(), (FREE, GONE), (FREE, FREE)),
    "a refused release loses an address": (
        history(*REFUSED_RELEASE, (1, 8, Assign("Y", "Y", B), DONE)),
        ("X", FREE),
        ("X", "Y"),
    ),
    "half of it was done": (
        history((0, 1, AssignMany("X", "X", (A, B)), UNKNOWN)),
        (FREE, "X"),
        (FREE, FREE),
    ),
    "one more than was asked for": (
        history((0, 1, Allocate("X", "X", 1), Reply(200, {"ips": [A]}))),
        (FREE, "X"),
        (FREE, "X"),
    ),
    "all but one that was there before": (
        history((0, 1, ReleaseAll("X", "X"), Reply(200, {"ips": [A]}))),
        ("X", FREE),
        ("X", "X"),
    ),
    "a race lost against nobody": (
        history((0, 1, Assign("X", "X", A), LOST)),
        (FREE, FREE),
        (FREE, FREE),
    ),
    "deleted twice and made once": (
        history((0, 1, Delete("operator", A), DONE), (2, 3, Delete("operator", A), DONE)),
        (FREE, GONE),
        (FREE, FREE),
    ),
    "refused for what never was": (
        history((0, 1, Create("operator", A, "zone1", "proxy1"), Reply(409, {}, ""))),
        (GONE, GONE),
        (FREE, FREE),
    ),
    "another answer than was asked for": (
        history((0, 1, ReleaseMany("X", "X", (B, A)), both())),
        ("X", FREE),
        ("X", FREE),
    ),
    "a failure that nobody foresaw": (
        history((0, 1, Assign("X", "X", A), Reply(500, {}, ""))),
        (FREE, FREE),
        (FREE, FREE),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_possible_history_is_accepted(name: str) -> None:
    assert wrong(*GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_an_impossible_history_is_rejected(name: str) -> None:
    assert wrong(*BAD[name]) != []


def keyed(*replies: Reply) -> list[Done]:
    """An assignment with a key that was asked for as often as there are replies."""
    attempts = tuple((float(n), n + 0.5, reply) for n, reply in enumerate(replies))
    return [Done(1, "client", Assign("X", "X", A), "key", attempts)]


def test_a_key_has_one_final_reply() -> None:
    assert wrong(keyed(UNKNOWN, BUSY, DONE, DONE), (FREE, "X"), (FREE, FREE)) == []
    assert wrong(keyed(UNKNOWN, BUSY), (FREE, "X"), (FREE, FREE)) != []
    assert wrong(keyed(LOST, DONE), (FREE, FREE), (FREE, FREE)) != []


def test_a_key_must_agree_with_its_final_reply() -> None:
    superfluous = Reply(400, {"ips.0": {"superfluous": {}}}, "validation error")
    assert wrong(keyed(UNKNOWN, superfluous), (FREE, "X"), (FREE, FREE)) != []
    assert wrong(keyed(UNKNOWN, DONE), (FREE, FREE), (FREE, FREE)) != []


def test_a_read_on_an_isolated_node_may_be_outdated() -> None:
    refused = Reply(400, {"ips.0": {"superfluous": {}}}, "validation error")
    old = history((0, 1, Assign("X", "X", A), DONE), (2, 3, Release("X", "X", A), refused))
    assert wrong(old, (FREE, "X"), (FREE, FREE)) != []
    assert wrong([old[0], replace(old[1], alone=True)], (FREE, "X"), (FREE, FREE)) == []


def test_a_release_of_all_may_miss_addresses_that_the_node_lacks() -> None:
    nothing = Reply(200, {"ips": []})
    left = history((0, 1, Assign("X", "X", A), DONE), (2, 3, ReleaseAll("X", "X"), nothing))
    assert wrong(left, (FREE, "X"), (FREE, FREE)) != []
    assert wrong([left[0], replace(left[1], lagging=True)], (FREE, "X"), (FREE, FREE)) == []


def test_an_isolated_node_may_refuse_to_delete_a_deleted_address() -> None:
    assigned = Reply(409, {"ips": {A: "assigned"}}, "datastore_conflict")
    old = history(
        (0, 1, Delete("operator", A, force=True), DONE),
        (2, 3, Delete("operator", A, force=False), assigned),
    )
    assert wrong(old, ("X", None), (FREE, FREE)) != []
    assert wrong([old[0], replace(old[1], alone=True)], ("X", None), (FREE, FREE)) == []
