"""No order of requests, and no single fault, makes an answer untrue or loses an address.

Each scenario is walked through with the orders of its database requests that take at most two
preemptions, or with one fault and one preemption. Where there are more than `AT_MOST` of them, so
many are chosen, the same each time. For a night: `SCHEDULES_PREEMPTIONS=3` allows one more, and
`SCHEDULES_AT_MOST=0` walks all of them. What fails tells the command that repeats it.
"""

import os
import time
from collections.abc import Collection, Sequence

import pytest

from kazoo_ips.config import Settings
from tests.schedules.play import Play, Played, Scenario
from tests.schedules.scheduler import FAULTS, Choice, Run, explore, read_schedule
from tests.schedules.world import world

PREEMPTIONS = int(os.environ.get("SCHEDULES_PREEMPTIONS", "2"))
AT_MOST = {"orders": 100, "late": 40, "faults": 12}
"""Schedules of each scenario."""
if "SCHEDULES_AT_MOST" in os.environ:
    AT_MOST = dict.fromkeys(AT_MOST, int(os.environ["SCHEDULES_AT_MOST"]))

SCENARIOS = [
    Scenario("a:X b:X", ("X releases ab", "X releases a", "Y assigns b")),
    Scenario("a:- b:-", ("X assigns ab", "Y assigns b")),
    Scenario("a:- b:-", ("X assigns ab", "Y assigns ba")),
    Scenario("a:-", ("X allocates 1", "Y allocates 1")),
    Scenario("a:- b:-", ("X allocates 2", "Y allocates 1")),
    Scenario("a:X", ("X releases a", "Y assigns a")),
    Scenario("a:X b:-", ("X releases all", "X releases a", "X assigns b")),
    Scenario("a:X b:-", ("operator deletes a", "X releases a", "Y assigns b")),
    Scenario("a:-", ("operator deletes a", "X assigns a")),
    Scenario("a:X b:X", ("X releases ab", "operator deletes a")),
    Scenario("a:X b:X", ("operator repairs", "X releases ab"), uncopied="a"),
    Scenario("a:X", ("operator repairs", "X releases a"), uncopied="a"),
    Scenario("a:-", ("operator repairs", "X assigns a")),
    Scenario("a:- b:-", ("operator repairs", "X assigns ab")),
    Scenario("a:- b:-", ("operator repairs", "X allocates 1")),
    Scenario("a:X b:-", ("operator repairs", "X releases all"), uncopied="a"),
    Scenario("a:X", ("operator repairs", "operator deletes a"), uncopied="a"),
]
"""What is asked for at the same time."""

WRITES = [
    Scenario("a:-", ("X assigns a",)),
    Scenario("a:- b:-", ("X assigns ab",)),
    Scenario("a:- b:-", ("X allocates 1",)),
    Scenario("a:- b:- c:-", ("X allocates 2",)),
    Scenario("a:X", ("X releases a",)),
    Scenario("a:X b:X", ("X releases ab",)),
    Scenario("a:X", ("X releases all",)),
    Scenario("a:X b:X", ("X releases all",)),
    Scenario("", ("operator creates a",)),
    Scenario("", ("operator creates ab",)),
    Scenario("a:-", ("operator deletes a",)),
    Scenario("a:X", ("operator deletes a",)),
]
"""Each kind of write by itself."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_no_order_of_requests_breaks_a_guarantee(
    settings: Settings, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    walk(settings, scenario, request, preemptions=PREEMPTIONS, at_most=AT_MOST["orders"])


@pytest.mark.parametrize("fault", ["killed-late", "late"])
@pytest.mark.parametrize("scenario", WRITES, ids=str)
def test_an_idempotency_key_returns_the_result_whenever_its_request_arrives(
    settings: Settings, scenario: Scenario, request: pytest.FixtureRequest, fault: str
) -> None:
    walk(
        settings,
        scenario,
        request,
        keyed=True,
        preemptions=PREEMPTIONS - 1,
        faults=[fault],
        at_most=AT_MOST["late"],
    )


@pytest.mark.parametrize("keyed", [False, True], ids=["", "with keys"])
@pytest.mark.parametrize("scenario", [*WRITES, *SCENARIOS], ids=str)
def test_no_single_fault_breaks_a_guarantee(
    settings: Settings, scenario: Scenario, request: pytest.FixtureRequest, keyed: bool
) -> None:
    walk(
        settings,
        scenario,
        request,
        keyed=keyed,
        preemptions=PREEMPTIONS - 1,
        faults=FAULTS,
        at_most=AT_MOST["faults"],
    )


def walk(
    settings: Settings,
    scenario: Scenario,
    request: pytest.FixtureRequest,
    *,
    preemptions: int,
    at_most: int,
    faults: Collection[str] = (),
    keyed: bool = False,
) -> None:
    """Walk through the schedules of a scenario, or along the one that SCHEDULE names."""
    seen: list[Played] = []
    began = time.monotonic()
    with world(settings, scenario.pool, scenario.uncopied) as made:
        play = Play(made, scenario, keyed)

        def go(schedule: Sequence[Choice]) -> Run:
            seen.append(play.go(schedule))
            return seen[-1].run

        if "SCHEDULE" in os.environ:
            go(read_schedule(os.environ["SCHEDULE"]))
            print(f"\n{seen[0]}")
        else:
            for _ in explore(go, preemptions=preemptions, faults=faults, at_most=at_most or None):
                pass
    request.node.user_properties.append(("schedules", len(seen)))
    wrong = [number for number, played in enumerate(seen, 1) if played.wrong]
    if wrong:
        shortest = min((seen[number - 1] for number in wrong), key=_length)
        pytest.fail(
            f"{len(wrong)} of {len(seen)} schedules ({time.monotonic() - began:.1f} s), the first "
            f"being number {wrong[0]}. The shortest:\n{shortest}\n"
            f"Again: SCHEDULE='{shortest.run.schedule}' "
            f".venv/bin/pytest -n0 -s '{request.node.nodeid}'",
            pytrace=False,
        )


def _length(played: Played) -> tuple[int, int]:
    return played.run.preemptions, len(played.run.taken)
