"""Threads wait for those that are expected, and for nobody else."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import monotonic

import pytest

from kazoo_ips.processes.rendezvous import Rendezvous, leave_all
from kazoo_ips.server.client_socket import Patience
from tests.timing import LONG


def come(place: Rendezvous, expected: Event, go: Event, *, end: Callable[[], None]) -> None:
    """Be expected at a place until told to go."""
    place.expect()
    expected.set()
    assert go.wait(LONG)
    end()


@pytest.mark.parametrize("goes_there", [True, False])
def test_who_is_expected_is_waited_for_until_he_comes_or_does_not(goes_there: bool) -> None:
    place, expected, go = Rendezvous(), Event(), Event()
    with ThreadPoolExecutor(2) as threads:
        end = place.arrive if goes_there else leave_all
        coming = threads.submit(come, place, expected, go, end=end)
        assert expected.wait(LONG)
        waiting = threads.submit(place.wait, LONG)
        assert not is_over(waiting, 0.1)
        begun = monotonic()
        go.set()
        waiting.result(LONG)
        assert monotonic() - begun < LONG / 2
        coming.result()


def test_he_is_not_waited_for_longer_than_that() -> None:
    place, expected, go = Rendezvous(), Event(), Event()
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(come, place, expected, go, end=place.arrive)
        assert expected.wait(LONG)
        begun = monotonic()
        place.wait(0.1)
        assert 0.1 <= monotonic() - begun < LONG / 2
        go.set()
        coming.result()


def test_all_who_are_expected_are_waited_for() -> None:
    place, events = Rendezvous(), [(Event(), Event()) for _ in range(2)]
    with ThreadPoolExecutor(3) as threads:
        coming = [threads.submit(come, place, *each, end=place.arrive) for each in events]
        assert all(expected.wait(LONG) for expected, _ in events)
        waiting = threads.submit(place.wait, LONG)
        events[0][1].set()
        coming[0].result()
        assert not is_over(waiting, 0.1)
        events[1][1].set()
        waiting.result(LONG)


def test_who_is_alone_does_not_wait_nor_for_himself() -> None:
    place, other = Rendezvous(), Rendezvous()
    begun = monotonic()
    place.wait(LONG)
    place.expect()
    other.expect()
    place.arrive()
    place.wait(LONG)
    leave_all()
    other.wait(LONG)
    assert monotonic() - begun < LONG / 2


def test_who_waits_for_a_client_is_not_waited_for() -> None:
    place = Rendezvous()
    place.expect()
    with Patience(LONG, 1).waiting(), ThreadPoolExecutor(1) as threads:
        assert is_over(threads.submit(place.wait, LONG), LONG / 2)


def is_over(future: Future[None], seconds: float) -> bool:
    """Whether something ends within a time."""
    try:
        future.result(seconds)
    except TimeoutError:
        return False
    return True
