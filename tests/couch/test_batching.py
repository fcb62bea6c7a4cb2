"""Group commit: which thread sends which requests, when, and what happens after an error."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kazoo_ips.couch.batching import Batcher, Siblings, withdraw
from tests.faults.conftest import wait_until_pending
from tests.timing import eventually


class GatedBatches:
    """A batcher whose requests are recorded, and held until a test opens the gate of each."""

    def __init__(self, max_wait: float) -> None:
        self.requests: list[list[str]] = []
        self.failing: dict[int, Exception] = {}
        self.unknown: set[str] = set()
        self._gates: list[threading.Event] = []
        self._changed = threading.Condition()
        self.siblings = Siblings()
        self.batcher: Batcher[str, str] = Batcher(
            self._one, self._all, max_wait, self.siblings, max_gather=10
        )

    def open(self, number: int) -> None:
        """Open the gate of the first, second, … request."""
        with self._changed:
            self._gates[number].set()

    def wait(self, count: int) -> None:
        """Wait until this number of requests was sent."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, 5), self.requests

    def _one(self, key: str) -> str:
        self._record([key])
        return f"{key}!"

    def _all(self, keys: Sequence[str]) -> list[str | None]:
        self._record(list(keys))
        return [None if key in self.unknown else f"{key}!" for key in keys]

    def _record(self, keys: list[str]) -> None:
        with self._changed:
            number, gate = len(self.requests), threading.Event()
            self.requests.append(keys)
            self._gates.append(gate)
            self._changed.notify_all()
        assert gate.wait(5)
        if number in self.failing:
            raise self.failing[number]


@pytest.fixture
def gated() -> GatedBatches:
    """A batcher that has sent no request yet."""
    return GatedBatches(max_wait=5)


Start = Callable[[str], Future[str]]


@pytest.fixture
def start(gated: GatedBatches) -> Iterator[Start]:
    """A function that sends a request in a thread of its own."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda key: threads.submit(gated.batcher.send, key)


def send_while_another_is_open(
    gated: GatedBatches, start: Start, keys: str
) -> tuple[Future[str], list[Future[str]]]:
    """Send a request for "a", and one for each key meanwhile; return when the latter are sent.

    :returns: the future of the first request, which has its response, and those of the others
    """
    first = start("a")
    gated.wait(1)
    others = [start(key) for key in keys]
    wait_until_pending(gated.batcher, len(keys))
    gated.open(0)
    gated.wait(2)
    return first, others


def test_a_single_request_is_sent_at_once(gated: GatedBatches, start: Start) -> None:
    for number, key in enumerate("ab"):
        answer = start(key)
        gated.wait(number + 1)
        gated.open(number)
        assert answer.result(5) == f"{key}!"
    assert gated.requests == [["a"], ["b"]]


def test_requests_that_arrive_meanwhile_are_sent_together(
    gated: GatedBatches, start: Start
) -> None:
    first, others = send_while_another_is_open(gated, start, "bcd")
    assert first.result(5) == "a!", "a thread with its response does not wait for others"
    assert sorted(gated.requests[1]) == ["b", "c", "d"]
    gated.open(1)
    assert [each.result(5) for each in others] == ["b!", "c!", "d!"]
    assert len(gated.requests) == 2


def test_no_response_is_older_than_its_request(gated: GatedBatches, start: Start) -> None:
    answers = [start("a")]
    for number in range(3):
        gated.wait(number + 1)
        answers.append(start("a"))
        wait_until_pending(gated.batcher, 1)
        gated.open(number)
    gated.wait(4)
    gated.open(3)
    assert [each.result(5) for each in answers] == ["a!"] * 4
    assert gated.requests == [["a"]] * 4


def test_a_leader_waits_for_an_expected_sibling(gated: GatedBatches, start: Start) -> None:
    first = start("a")
    gated.wait(1)
    time.sleep(0.5)  # the next leader waits at most as long as this request took
    gated.open(0)
    assert first.result(5) == "a!"
    expected, go = threading.Event(), threading.Event()

    def send_as_sibling() -> str:
        gated.siblings.expect()
        expected.set()
        assert go.wait(5)
        return gated.batcher.send("c")

    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(send_as_sibling)
        assert expected.wait(5)
        second = start("b")
        assert eventually(lambda: gated.batcher._has_leader)
        go.set()
        gated.wait(2)
        gated.open(1)
        assert (second.result(5), coming.result(5)) == ("b!", "c!")
    assert gated.requests == [["a"], ["b", "c"]]


def test_a_leader_waits_no_longer_than_the_last_request_took(
    gated: GatedBatches, start: Start
) -> None:
    first = start("a")
    gated.wait(1)
    gated.open(0)
    assert first.result(5) == "a!"
    gated.siblings.expect()  # this thread, which sends no request
    second = start("b")
    gated.wait(2)  # for 5 seconds; the maximum is 10
    gated.open(1)
    assert second.result(5) == "b!"
    withdraw()


def test_an_error_is_raised_in_all_threads_of_its_batch_only(
    gated: GatedBatches, start: Start
) -> None:
    gated.failing[1] = ValueError("the second fails")
    first, others = send_while_another_is_open(gated, start, "bc")
    after = start("d")
    wait_until_pending(gated.batcher, 1)
    gated.open(1)
    errors = [each.exception(5) for each in others]
    assert [str(error) for error in errors] == ["the second fails"] * 2
    assert errors[0] is not errors[1], (
        "each thread adds its own traceback to the error that it raises"
    )
    gated.wait(3)
    gated.open(2)
    assert (first.result(5), after.result(5)) == ("a!", "d!")


def test_the_error_of_a_single_request_is_raised_in_its_thread_only(
    gated: GatedBatches, start: Start
) -> None:
    gated.failing[0] = ValueError("the first fails")
    first, [second] = send_while_another_is_open(gated, start, "b")
    gated.open(1)
    assert isinstance(first.exception(5), ValueError)
    assert second.result(5) == "b!"


def test_a_request_without_a_response_in_the_batch_is_sent_by_itself(
    gated: GatedBatches, start: Start
) -> None:
    gated.unknown = {"b", "d"}
    first, others = send_while_another_is_open(gated, start, "bcd")
    gated.open(1)
    gated.wait(4)
    assert sorted(gated.requests[2:]) == [["b"], ["d"]]
    gated.open(2)
    gated.open(3)
    assert first.result(5) == "a!"
    assert [each.result(5) for each in others] == ["b!", "c!", "d!"]


def test_a_missing_response_delays_other_threads_only_briefly() -> None:
    gated = GatedBatches(max_wait=0.02)
    with ThreadPoolExecutor(8) as threads:
        hold_request = threads.submit(gated.batcher.send, "a")
        gated.wait(1)
        others = [threads.submit(gated.batcher.send, key) for key in "bc"]
        gated.wait(3)
        assert sorted(gated.requests[1:]) == [["b"], ["c"]]
        gated.open(1)
        gated.open(2)
        assert sorted(each.result(5) for each in others) == ["b!", "c!"]
        assert not hold_request.done()
        gated.open(0)
        assert hold_request.result(5) == "a!"
        last = threads.submit(gated.batcher.send, "d")
        gated.wait(4)
        gated.open(3)
        assert last.result(5) == "d!"
