"""A thread waits for expected siblings, and for no other threads."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import monotonic

import pytest

from kazoo_ips.couch.batching import Siblings, withdraw
from kazoo_ips.server.client_socket import WaitLimit
from tests.timing import LONG


def come(siblings: Siblings, expected: Event, go: Event, *, end: Callable[[], None]) -> None:
    """Announce this thread as a sibling, until an event is set."""
    siblings.expect()
    expected.set()
    assert go.wait(LONG)
    end()


@pytest.mark.parametrize("goes_there", [True, False])
def test_an_expected_thread_is_waited_for_until_it_sends_or_withdraws(goes_there: bool) -> None:
    siblings, expected, go = Siblings(), Event(), Event()
    with ThreadPoolExecutor(2) as threads:
        end = siblings.arrived if goes_there else withdraw
        coming = threads.submit(come, siblings, expected, go, end=end)
        assert expected.wait(LONG)
        waiting = threads.submit(siblings.wait, LONG)
        assert not is_over(waiting, 0.1)
        begun = monotonic()
        go.set()
        waiting.result(LONG)
        assert monotonic() - begun < LONG / 2
        coming.result()


def test_the_wait_for_an_expected_thread_is_limited() -> None:
    siblings, expected, go = Siblings(), Event(), Event()
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(come, siblings, expected, go, end=siblings.arrived)
        assert expected.wait(LONG)
        begun = monotonic()
        siblings.wait(0.1)
        assert 0.1 <= monotonic() - begun < LONG / 2
        go.set()
        coming.result()


def test_all_expected_threads_are_waited_for() -> None:
    siblings, events = Siblings(), [(Event(), Event()) for _ in range(2)]
    with ThreadPoolExecutor(3) as threads:
        coming = [threads.submit(come, siblings, *each, end=siblings.arrived) for each in events]
        assert all(expected.wait(LONG) for expected, _ in events)
        waiting = threads.submit(siblings.wait, LONG)
        events[0][1].set()
        coming[0].result()
        assert not is_over(waiting, 0.1)
        events[1][1].set()
        waiting.result(LONG)


def test_a_thread_without_siblings_does_not_wait() -> None:
    siblings, other = Siblings(), Siblings()
    begun = monotonic()
    siblings.wait(LONG)
    siblings.expect()
    other.expect()
    siblings.arrived()
    siblings.wait(LONG)
    withdraw()
    other.wait(LONG)
    assert monotonic() - begun < LONG / 2


def test_a_thread_that_waits_for_a_client_is_not_expected() -> None:
    siblings = Siblings()
    siblings.expect()
    with WaitLimit(LONG, 1).waiting(), ThreadPoolExecutor(1) as threads:
        assert is_over(threads.submit(siblings.wait, LONG), LONG / 2)


def is_over(future: Future[None], seconds: float) -> bool:
    """Whether a function returns within a time."""
    try:
        future.result(seconds)
    except TimeoutError:
        return False
    return True
