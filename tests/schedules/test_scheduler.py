"""The scheduler and the consistency check find violations, and accept correct runs."""

from collections.abc import Sequence
from contextlib import suppress

import pytest

from kazoo_ips.couch.http_connections import NoResponse
from kazoo_ips.couch.responses import Response
from tests.schedules.consistency import Call, inconsistencies
from tests.schedules.operations import Operation, read_pool
from tests.schedules.scheduler import (
    Choice,
    Client,
    Clock,
    Phase,
    Request,
    Run,
    execute,
    explore,
    read_schedule,
)
from tests.schedules.world import Reply

READ = Request("GET count", "database", frozenset({"count"}), writes=False)
WRITE = Request("PUT count", "database", frozenset({"count"}), writes=True)


class Counter:
    """Two clients that increment a counter without compare-and-swap, so that updates get lost."""

    def __init__(self, *before: Request) -> None:
        self.count = 0
        self.ends: list[int] = []
        self._before = before

    def _add(self, client: list[Client]) -> None:
        for request in self._before:
            client[0].send(request, Response)
        read = []
        client[0].send(READ, lambda: read.append(self.count) or Response())
        with suppress(NoResponse):
            client[0].send(WRITE, lambda: setattr(self, "count", read[0] + 1) or Response())

    def go(self, schedule: Sequence[Choice]) -> Run:
        """Run a schedule with a counter of zero."""
        self.count = 0
        clients: list[Client] = []
        for name in ("one", "other"):
            box: list[Client] = []
            box.append(Client(name, lambda box=box: self._add(box)))
            clients += box
        run = execute(Clock(), [Phase(lambda: clients)], schedule)
        self.ends.append(self.count)
        return run


def test_a_lost_update_is_found_with_one_preemption_and_not_with_none() -> None:
    for preemptions, ends in ((0, {2}), (1, {1, 2})):
        counter = Counter()
        list(explore(counter.go, preemptions=preemptions))
        assert set(counter.ends) == ends


def test_a_schedule_repeats_its_run() -> None:
    counter = Counter()
    runs = list(explore(counter.go, preemptions=1))
    lost = next(run for run, end in zip(runs, counter.ends, strict=True) if end == 1)
    again = counter.go(read_schedule(lost.schedule))
    assert (again.steps, counter.count) == (lost.steps, 1)


def test_orders_of_requests_without_conflict_are_skipped() -> None:
    other = Request("GET other", "database", frozenset({"other"}), writes=False)
    apart = Counter(other, other, other)
    list(explore(apart.go, preemptions=3))
    assert len(apart.ends) < 20  # of 252 orders


@pytest.mark.parametrize(("fault", "ends"), [("cut", {1, 2}), ("lost", {2})])
def test_a_fault_is_tried_at_each_request(fault: str, ends: set[int]) -> None:
    counter = Counter()
    runs = list(explore(counter.go, preemptions=0, faults=[fault]))
    assert set(counter.ends) == ends
    assert sum(fault in run.schedule for run in runs) >= 2


def test_a_late_write_is_tried_at_each_place_after_it() -> None:
    counter = Counter()
    runs = list(explore(counter.go, preemptions=1, faults=["late"]))
    at = {
        run.steps.index("one, late: PUT count")
        for run in runs
        if "one, late: PUT count" in run.steps
    }
    assert len(at) > 1


def _call(sentence: str, reply: Reply | None, began: int, ended: int) -> Call:
    return Call(Operation.read(sentence), began, ended, [reply] if reply else [])


DONE = Reply(200, "", frozenset("a"))
REFUSED = Reply(409, "datastore_conflict", frozenset())


@pytest.mark.parametrize(
    ("history", "end", "true"),
    [
        ([_call("X assigns a", DONE, 1, 2), _call("Y assigns a", DONE, 3, 4)], "a:Y", False),
        ([_call("X assigns a", DONE, 1, 2), _call("Y assigns a", REFUSED, 1, 4)], "a:X", True),
        ([_call("X assigns a", DONE, 1, 2), _call("Y assigns a", REFUSED, 1, 4)], "a:-", False),
        ([_call("X assigns a", REFUSED, 1, 2)], "a:-", False),
        ([_call("X assigns a", None, 1, 2)], "a:X", True),
        ([_call("X assigns a", DONE, 1, 2), _call("X releases a", DONE, 2, 4)], "a:-", True),
        ([_call("X releases a", DONE, 1, 2), _call("X assigns a", DONE, 3, 4)], "a:X", False),
    ],
)
def test_replies_are_consistent_if_some_order_explains_them(
    history: list[Call], end: str, true: bool
) -> None:
    assert (not list(inconsistencies(history, read_pool("a:-"), read_pool(end)))) is true
