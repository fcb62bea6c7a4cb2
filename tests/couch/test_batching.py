"""Group commit: which thread sends which requests, when, and what happens after an error."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kazoo_ips.couch.batching import Batcher, Siblings, withdraw
from tests.faults.conftest import wait_behind
from tests.timing import eventually


class Asked:
    """Records the requests, with a gate for each."""

    def __init__(self, max_wait: float) -> None:
        self.questions: list[list[str]] = []
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
            assert self._changed.wait_for(lambda: len(self.questions) >= count, 5), self.questions

    def _one(self, key: str) -> str:
        self._ask([key])
        return f"{key}!"

    def _all(self, keys: Sequence[str]) -> list[str | None]:
        self._ask(list(keys))
        return [None if key in self.unknown else f"{key}!" for key in keys]

    def _ask(self, keys: list[str]) -> None:
        with self._changed:
            number, gate = len(self.questions), threading.Event()
            self.questions.append(keys)
            self._gates.append(gate)
            self._changed.notify_all()
        assert gate.wait(5)
        if number in self.failing:
            raise self.failing[number]


@pytest.fixture
def asked() -> Asked:
    """Nothing yet."""
    return Asked(max_wait=5)


Start = Callable[[str], Future[str]]


@pytest.fixture
def start(asked: Asked) -> Iterator[Start]:
    """A function that sends a request in a thread of its own."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda key: threads.submit(asked.batcher.send, key)


def ask_behind_another(
    asked: Asked, start: Start, keys: str
) -> tuple[Future[str], list[Future[str]]]:
    """Ask about "a", and about each of these meanwhile; return when those are being asked.

    :returns: the first answer, which is open, and theirs
    """
    first = start("a")
    asked.wait(1)
    others = [start(key) for key in keys]
    wait_behind(asked.batcher, len(keys))
    asked.open(0)
    asked.wait(2)
    return first, others


def test_a_single_request_is_sent_at_once(asked: Asked, start: Start) -> None:
    for number, key in enumerate("ab"):
        answer = start(key)
        asked.wait(number + 1)
        asked.open(number)
        assert answer.result(5) == f"{key}!"
    assert asked.questions == [["a"], ["b"]]


def test_requests_that_arrive_meanwhile_are_sent_together(asked: Asked, start: Start) -> None:
    first, others = ask_behind_another(asked, start, "bcd")
    assert first.result(5) == "a!", "who has an answer does not wait for others"
    assert sorted(asked.questions[1]) == ["b", "c", "d"]
    asked.open(1)
    assert [each.result(5) for each in others] == ["b!", "c!", "d!"]
    assert len(asked.questions) == 2


def test_no_response_is_older_than_its_request(asked: Asked, start: Start) -> None:
    answers = [start("a")]
    for number in range(3):
        asked.wait(number + 1)
        answers.append(start("a"))
        wait_behind(asked.batcher, 1)
        asked.open(number)
    asked.wait(4)
    asked.open(3)
    assert [each.result(5) for each in answers] == ["a!"] * 4
    assert asked.questions == [["a"]] * 4


def test_a_leader_waits_for_an_expected_sibling(asked: Asked, start: Start) -> None:
    first = start("a")
    asked.wait(1)
    time.sleep(0.5)  # as long as it takes, others are waited for afterwards
    asked.open(0)
    assert first.result(5) == "a!"
    expected, go = threading.Event(), threading.Event()

    def come() -> str:
        asked.siblings.expect()
        expected.set()
        assert go.wait(5)
        return asked.batcher.send("c")

    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(come)
        assert expected.wait(5)
        second = start("b")
        assert eventually(lambda: asked.batcher._has_leader)
        go.set()
        asked.wait(2)
        asked.open(1)
        assert (second.result(5), coming.result(5)) == ("b!", "c!")
    assert asked.questions == [["a"], ["b", "c"]]


def test_a_leader_waits_no_longer_than_the_last_request_took(asked: Asked, start: Start) -> None:
    first = start("a")
    asked.wait(1)
    asked.open(0)
    assert first.result(5) == "a!"
    asked.siblings.expect()  # this thread, which asks nothing
    second = start("b")
    asked.wait(2)  # for 5 seconds, where 10 would be the longest
    asked.open(1)
    assert second.result(5) == "b!"
    withdraw()


def test_an_error_is_raised_in_all_threads_of_its_batch_only(asked: Asked, start: Start) -> None:
    asked.failing[1] = ValueError("the second fails")
    first, others = ask_behind_another(asked, start, "bc")
    after = start("d")
    wait_behind(asked.batcher, 1)
    asked.open(1)
    errors = [each.exception(5) for each in others]
    assert [str(error) for error in errors] == ["the second fails"] * 2
    assert errors[0] is not errors[1], "each thread writes its own way into the one it raises"
    asked.wait(3)
    asked.open(2)
    assert (first.result(5), after.result(5)) == ("a!", "d!")


def test_the_error_of_a_single_request_is_raised_in_its_thread_only(
    asked: Asked, start: Start
) -> None:
    asked.failing[0] = ValueError("the first fails")
    first, [second] = ask_behind_another(asked, start, "b")
    asked.open(1)
    assert isinstance(first.exception(5), ValueError)
    assert second.result(5) == "b!"


def test_a_request_without_a_response_in_the_batch_is_sent_by_itself(
    asked: Asked, start: Start
) -> None:
    asked.unknown = {"b", "d"}
    first, others = ask_behind_another(asked, start, "bcd")
    asked.open(1)
    asked.wait(4)
    assert sorted(asked.questions[2:]) == [["b"], ["d"]]
    asked.open(2)
    asked.open(3)
    assert first.result(5) == "a!"
    assert [each.result(5) for each in others] == ["b!", "c!", "d!"]


def test_a_missing_response_delays_other_threads_only_briefly() -> None:
    asked = Asked(max_wait=0.02)
    with ThreadPoolExecutor(8) as threads:
        held_up = threads.submit(asked.batcher.send, "a")
        asked.wait(1)
        others = [threads.submit(asked.batcher.send, key) for key in "bc"]
        asked.wait(3)
        assert sorted(asked.questions[1:]) == [["b"], ["c"]]
        asked.open(1)
        asked.open(2)
        assert sorted(each.result(5) for each in others) == ["b!", "c!"]
        assert not held_up.done()
        asked.open(0)
        assert held_up.result(5) == "a!"
        last = threads.submit(asked.batcher.send, "d")
        asked.wait(4)
        asked.open(3)
        assert last.result(5) == "d!"
