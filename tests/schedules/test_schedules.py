"""No order of requests, and no single fault, causes a wrong reply or loses an address.

The tests run each scenario with all schedules that have at most two preemptions. With one fault
and one preemption they run a sample of `AT_MOST` schedules, the same each time. To run more, for
example overnight: `SCHEDULES_PREEMPTIONS=3` allows one more preemption, and
`SCHEDULES_AT_MOST=0` runs all schedules with a fault. A failure prints the command to repeat it.
"""

import os
import time
from collections.abc import Collection, Iterator, Sequence

import pytest

from kazoo_ips.config import Settings
from tests.own_databases import own_databases
from tests.schedules.play import Play, Played, Scenario
from tests.schedules.scheduler import FAULTS, Choice, Run, explore, read_schedule
from tests.schedules.world import Site, World

PREEMPTIONS = int(os.environ.get("SCHEDULES_PREEMPTIONS", "2"))
AT_MOST = {"orders": 0, "late": 20, "faults": 6}
"""The maximum number of schedules of each scenario; 0 is all of them."""
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
    Scenario("a:- b:-", ("X allocates 1", "X allocates 1"), limits="X:1"),
    Scenario("a:- b:-", ("X assigns a", "X assigns b", "Y assigns a"), limits="X:1"),
    Scenario("a:X b:-", ("X releases a", "X assigns b"), limits="X:1"),
    Scenario("a:- b:-", ("X reserves ab", "Y assigns b")),
    Scenario("a:x b:x", ("X confirms ab", "X confirms ab", "Y assigns b")),
    Scenario("a:x b:x", ("X confirms ab", "X cancels ab", "Y assigns a")),
    Scenario("a:- b:-", ("X confirms ab", "Y assigns a", "Y reserves b"), expired="ab"),
    Scenario("a:- b:-", ("X reserves a", "X allocates 1"), limits="X:1"),
    Scenario("a:X b:- c:-", ("X assigns bc", "X releases a", "X allocates 1"), limits="X:2"),
    Scenario("a:-", ("operator repairs rests", "Y assigns a", "X allocates 1"), rested="a"),
    Scenario("a:~Y b:-", ("Y assigns a", "X assigns a", "X allocates 1")),
    Scenario("a:- b:X", ("operator drains host", "Y allocates 1", "X releases b")),
    Scenario("a:-", ("operator drains host", "X assigns a")),
    Scenario("a:X b:X", ("X gives ab", "X releases a", "Y assigns a")),
    Scenario("a:X b:X", ("X gives ab", "Y releases a")),
    Scenario("a:X", ("X gives a", "X releases a", "Y assigns a")),
    Scenario("a:X b:- c:-", ("X gives a", "Y allocates 1"), limits="Y:1"),
    Scenario("a:-", ("operator moves a", "X assigns a", "X releases a")),
    Scenario("a:X b:X", ("operator moves a", "X releases ab")),
    Scenario("a:X", ("operator moves a", "X gives a")),
]
"""Concurrent operations."""

WRITES = [
    Scenario("a:-", ("X assigns a",)),
    Scenario("a:- b:-", ("X assigns ab",)),
    Scenario("a:- b:-", ("X allocates 1",)),
    Scenario("a:- b:- c:-", ("X allocates 2",)),
    Scenario("a:- b:-", ("X assigns a",), limits="X:1"),
    Scenario("a:- b:-", ("X allocates 1",), limits="X:1"),
    Scenario("a:- b:-", ("X reserves ab",)),
    Scenario("a:x b:x", ("X confirms ab",)),
    Scenario("a:x b:x", ("X cancels ab",)),
    Scenario("a:X", ("X gives a",)),
    Scenario("a:X b:X", ("X gives ab",)),
    Scenario("a:-", ("operator moves a",)),
    Scenario("a:X", ("operator moves a",)),
    Scenario("a:X", ("X releases a",)),
    Scenario("a:X b:X", ("X releases ab",)),
    Scenario("a:X", ("X releases all",)),
    Scenario("a:X b:X", ("X releases all",)),
    Scenario("", ("operator creates a",)),
    Scenario("", ("operator creates ab",)),
    Scenario("a:-", ("operator deletes a",)),
    Scenario("a:X", ("operator deletes a",)),
]
"""Each kind of write alone."""


@pytest.fixture(scope="module")
def site(settings: Settings) -> Iterator[Site]:
    """Databases for all scenarios."""
    with own_databases(settings, identity_cache=1e6) as own:
        yield Site(own)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_no_order_of_requests_breaks_a_guarantee(
    site: Site, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    run_schedules(site, scenario, request, preemptions=PREEMPTIONS, at_most=AT_MOST["orders"])


@pytest.mark.parametrize("fault", ["killed-late", "late"])
@pytest.mark.parametrize("scenario", WRITES, ids=str)
def test_an_idempotency_key_returns_the_result_whenever_its_request_arrives(
    site: Site, scenario: Scenario, request: pytest.FixtureRequest, fault: str
) -> None:
    run_schedules(
        site,
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
    site: Site, scenario: Scenario, request: pytest.FixtureRequest, keyed: bool
) -> None:
    run_schedules(
        site,
        scenario,
        request,
        keyed=keyed,
        preemptions=PREEMPTIONS - 1,
        faults=FAULTS,
        at_most=AT_MOST["faults"],
    )


def run_schedules(
    where: Site,
    scenario: Scenario,
    request: pytest.FixtureRequest,
    *,
    preemptions: int,
    at_most: int,
    faults: Collection[str] = (),
    keyed: bool = False,
) -> None:
    """Run the schedules of a scenario, or only the one in the environment variable SCHEDULE."""
    runs: list[Played] = []
    began = time.monotonic()
    start = (scenario.pool, scenario.uncopied, scenario.limit_of, scenario.expired)
    made = World(where, *start, scenario.rested)
    with made.scheduled():
        play = Play(made, scenario, keyed)

        def go(schedule: Sequence[Choice]) -> Run:
            runs.append(play.go(schedule))
            return runs[-1].run

        if "SCHEDULE" in os.environ:
            go(read_schedule(os.environ["SCHEDULE"]))
            print(f"\n{runs[0]}")
        else:
            for _ in explore(go, preemptions=preemptions, faults=faults, at_most=at_most or None):
                pass
    request.node.user_properties.append(("schedules", len(runs)))
    failed = [number for number, played in enumerate(runs, 1) if played.violations]
    if failed:
        shortest = min((runs[number - 1] for number in failed), key=_length)
        pytest.fail(
            f"{len(failed)} of {len(runs)} schedules failed ({time.monotonic() - began:.1f} s), "
            f"the first is number {failed[0]}. The shortest:\n{shortest}\n"
            f"To repeat it: SCHEDULE='{shortest.run.schedule}' "
            f".venv/bin/pytest -n0 -s '{request.node.nodeid}'",
            pytrace=False,
        )


def _length(played: Played) -> tuple[int, int]:
    return played.run.preemptions, len(played.run.taken)
