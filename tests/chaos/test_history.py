"""Violations in replies, keys and whole histories, on histories written by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import Attempt, Call, History, counted
from tests.chaos.linearizability import ABSENT, AVAILABLE

ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class HistoryBuilder:
    """Builds a history call by call; each begins a second after the one before."""

    def __init__(self, *addresses: str) -> None:
        self.history = History(dict.fromkeys(addresses or (ONE, TWO), AVAILABLE))

    def call(
        self,
        action: str,
        account: str,
        addresses: list[str],
        *replies: tuple[int, str, Any],
        key: str | None = None,
        quantity: int = 0,
        begin: float | None = None,
    ) -> "HistoryBuilder":
        number = len(self.history.calls)
        at = float(number) if begin is None else begin
        attempts = [
            Attempt(0, at + n / 10, number + (n + 0.5) / 10, *reply)
            for n, reply in enumerate(replies)
        ]
        call = Call(number, action, account, addresses, quantity, key, attempts)
        self.history.calls.append(call)
        return self

    def kinds(self, **final: str) -> dict[str, int]:
        states = {"one": ONE, "two": TWO, "three": THREE}
        self.history.final = {states[name]: state for name, state in final.items()}
        return counted(self.history.violations())


def ips(*addresses: str) -> tuple[int, str, Any]:
    return 200, "", {"ips": list(addresses)}


def refused(place: int, rule: str) -> tuple[int, str, Any]:
    return 400, "validation error", {f"ips.{place}": {rule: {"message": "…"}}}


LOST = (0, "", None)
AWAY = (503, "datastore_unreachable", {"message": "…"})
UNDER_WAY: tuple[int, str, Any] = (409, "in_progress", {})
CONFLICT = (409, "datastore_conflict", {"ips": {ONE: "conflict"}})


def test_a_history_without_faults_passes() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE, TWO], ips(ONE, TWO))
    builder.call("assign", "b", [TWO, ONE], refused(1, "forbidden"))
    builder.call("list", "a", [], (200, "", [{"ip": ONE}, {"ip": TWO}]))
    builder.call("release", "a", [ONE], (200, "", {"id": ONE, "status": "available"}))
    builder.call("allocate", "b", [], ips(ONE), quantity=1)
    builder.call("release all", "a", [], ips(TWO))
    builder.call("delete", "", [TWO], (200, "", {"id": TWO, "status": "available"}))
    builder.call("delete", "", [ONE], (409, "datastore_conflict", {"ips": {ONE: "assigned"}}))
    builder.call("assign", "a", [TWO], (404, "bad_identifier", {}))
    builder.call("create", "", [TWO], (201, "", {"id": TWO, "status": "available"}))
    builder.call(
        "read", "", [ONE], (200, "", {"id": ONE, "status": "assigned", "assigned_to": "b"})
    )
    builder.call("forbidden call", "a", [TWO], (403, "forbidden", {}))
    assert builder.kinds(one="b", two=AVAILABLE) == {}


def test_an_address_acknowledged_to_two_accounts_is_found() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE, TWO], ips(ONE, TWO))
    builder.call("allocate", "b", [], ips(ONE), quantity=1)
    assert builder.kinds() == {"no order: allocate": 1}


def test_an_address_lost_by_a_refused_release_is_found() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE, TWO], ips(ONE, TWO))
    builder.call("release", "a", [ONE], ips(ONE))
    builder.call("release", "a", [ONE, TWO], CONFLICT, begin=1)
    builder.call("assign", "b", [TWO], ips(TWO))
    assert builder.kinds(one=AVAILABLE, two="b") == {"no order: assign": 1}


def test_an_address_that_a_release_of_all_left_out_is_found() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE, TWO], ips(ONE, TWO))
    builder.call("release all", "a", [], ips(ONE))
    assert builder.kinds() == {"no order: missed by release all": 1}


def test_a_stale_list_is_found() -> None:
    builder = (
        HistoryBuilder().call("assign", "a", [ONE], ips(ONE)).call("list", "a", [], (200, "", []))
    )
    assert builder.kinds() == {"stale list": 1}


def test_an_assignment_without_a_reply_is_found() -> None:
    builder = HistoryBuilder().call(
        "allocate", "a", [], LOST, UNDER_WAY, ips(ONE), quantity=1, key="k"
    )
    assert builder.kinds(one="a", two=AVAILABLE) == {}
    assert builder.kinds(one="a", two="a") == {"no order: final state": 1}
    assert builder.kinds(one="a", two=ABSENT) == {"no order: final state": 1}


def test_a_possible_history_is_no_violation() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE], AWAY)
    assert builder.kinds(one="a") == builder.kinds(one=AVAILABLE) == {}
    assert builder.kinds(one="b") == {"no order: final state": 1}


def test_a_write_that_lost_may_have_been_seen() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE], CONFLICT, begin=0)
    builder.call("assign", "b", [ONE], refused(0, "forbidden"), begin=0)
    assert builder.kinds(one=AVAILABLE) == {}


@pytest.mark.parametrize(
    ("second", "kinds"),
    [
        (ips(ONE), {}),
        (UNDER_WAY, {}),
        (AWAY, {}),
        (ips(TWO), {"different replies to one key": 1, "reply to another request": 1}),
        (refused(0, "superfluous"), {"different replies to one key": 1}),
    ],
    ids=["the same", "in progress", "away", "another", "refused"],
)
def test_final_replies_to_one_key_are_equal(
    second: tuple[int, str, Any], kinds: dict[str, int]
) -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE], AWAY, ips(ONE), second, key="k")
    assert builder.kinds(one="a") == kinds


def test_a_keyed_call_that_is_refused_by_its_own_first_attempt_is_found() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE], LOST, refused(0, "superfluous"), key="k")
    assert builder.kinds(one="a") == {"no order: refused assign": 1}


def test_a_key_must_have_a_final_reply() -> None:
    builder = HistoryBuilder().call("assign", "a", [ONE], AWAY, UNDER_WAY, key="k")
    assert builder.kinds() == {"no final reply to a key": 1}


def test_a_conflict_needs_another_client() -> None:
    alone = HistoryBuilder().call("assign", "a", [ONE], CONFLICT)
    alone.call("assign", "b", [TWO], ips(TWO), begin=0).call("read", "", [ONE], AWAY, begin=0)
    assert alone.kinds() == {"conflict without a second writer": 1}
    assert alone.call("assign", "b", [ONE], AWAY, begin=0).kinds() == {}


@pytest.mark.parametrize(
    ("action", "reply", "kind"),
    [
        ("assign", (200, "", {"id": TWO, "status": "assigned"}), "reply to another request"),
        ("read", (200, "", {"id": TWO, "status": "available"}), "reply to another request"),
        ("assign", refused(1, "forbidden"), "reply to another request"),
        ("assign", refused(0, "maxItems"), "reply to another request"),
        ("allocate", refused(0, "forbidden"), "reply to another request"),
        ("read", (401, "invalid_credentials", {}), "valid token refused"),
        ("read", (500, "unspecified_fault", {}), "500"),
        ("forbidden call", (201, "", {"id": ONE}), "forbidden call accepted"),
    ],
)
def test_a_reply_to_something_else_is_found(
    action: str, reply: tuple[int, str, Any], kind: str
) -> None:
    assert kind in HistoryBuilder().call(action, "a", [ONE], reply).kinds()


@pytest.mark.parametrize(
    ("taken", "right"), [([ONE, TWO], True), ([ONE], False), ([ONE, ONE], False)]
)
def test_an_allocation_has_the_requested_quantity(taken: list[str], right: bool) -> None:
    builder = HistoryBuilder(ONE, TWO, THREE).call("allocate", "a", [], ips(*taken), quantity=2)
    assert ("reply to another request" not in builder.kinds()) is right


def test_a_saved_history_has_the_same_violations(tmp_path: Path) -> None:
    builder = (
        HistoryBuilder()
        .call("assign", "a", [ONE], ips(ONE))
        .call("assign", "b", [ONE], LOST, ips(ONE))
    )
    found = builder.kinds(one="b")
    builder.history.save(tmp_path / "history")
    assert found
    assert counted(History.load(tmp_path / "history").violations()) == found
