"""The change follower handles each change at least once, in one process at a time."""

from collections.abc import Collection
from uuid import uuid4

import pytest

from kazoo_ips.background.change_follower import (
    LEASE,
    LEASE_CHECK,
    POLL,
    RETRY_INTERVAL,
    RETRY_LIMIT,
    ChangeFollower,
)
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.records import Records

DELAY = 30


class Feed:
    """Numbers, one change each."""

    def __init__(self) -> None:
        self.end = 0
        self.name = "first"

    def history(self) -> str:
        """Its name."""
        return self.name

    def changed(self, since: str, limit: int) -> tuple[str, list[int], bool]:
        """The numbers after one of them."""
        start = int(since)
        changes = list(range(start + 1, self.end + 1))[:limit]
        return str(start + len(changes)), changes, start + len(changes) < self.end


class Process:
    """A follower with a process identity of its own."""

    def __init__(self, couch: Couch, name: str, feed: Feed, time: list[int]) -> None:
        self.handled: list[int] = []
        self.refused: set[int] = set()
        self.broken = False
        self._time = time
        self._follower = ChangeFollower[int](
            name,
            feed,
            Checkpoints(Records(couch)),
            self._handle,
            delay=DELAY,
            now=lambda: time[0],
            metrics=Metrics(),
        )
        self.identity = f"elsewhere/{uuid4().hex}"

    def _handle(self, changes: Collection[int]) -> set[int]:
        if self.broken:
            raise DatastoreUnreachable("away")
        self.handled += changes
        return self.refused & set(changes)

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: int = 0) -> list[int]:
        """Advance the clock, and return what was handled meanwhile."""
        self.handled.clear()
        for _ in range(seconds + 1):
            with monkeypatch.context() as patch:
                patch.setattr(liveness, "identity", lambda: self.identity)
                self._follower.step()
            self._time[0] += bool(seconds)
        return self.handled


@pytest.fixture
def time() -> list[int]:
    """The time, in seconds."""
    return [1000]


@pytest.fixture
def feed() -> Feed:
    """An empty feed."""
    return Feed()


@pytest.fixture
def processes(couch: Couch, feed: Feed, time: list[int]) -> list[Process]:
    """Two followers with the same name on one feed."""
    name = uuid4().hex
    return [Process(couch, name, feed, time) for _ in range(2)]


def test_the_first_time_the_feed_is_followed_from_its_start(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = processes[0]
    feed.end = 5
    one.run(monkeypatch)
    assert one.run(monkeypatch, DELAY - 1) == []
    assert one.run(monkeypatch, POLL + 1) == [1, 2, 3, 4, 5]
    assert one.run(monkeypatch, 2 * DELAY) == []


def test_only_one_process_follows_at_a_time(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end = 5
    for _ in range(DELAY + POLL + 1):
        one.run(monkeypatch, 1)
        assert other.run(monkeypatch) == []


def test_another_process_takes_over_at_the_checkpoint(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end = 5
    assert one.run(monkeypatch, DELAY + POLL) == [1, 2, 3, 4, 5]
    feed.end = 7
    one.run(monkeypatch, POLL)
    other.run(monkeypatch)
    assert other.run(monkeypatch, LEASE + LEASE_CHECK + DELAY + POLL) == [6, 7]
    assert one.run(monkeypatch, POLL) == []


def test_the_lease_of_a_dead_process_is_taken_at_once(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end = 5
    monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
    assert other.run(monkeypatch, DELAY + 1) == [1, 2, 3, 4, 5]


def test_a_change_that_failed_is_retried_and_the_checkpoint_waits(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end = 5
    one.refused = {5}
    assert one.run(monkeypatch, DELAY + POLL) == [1, 2, 3, 4, 5, 5]
    assert set(one.run(monkeypatch, 3 * RETRY_INTERVAL)) == {5}
    assert other.run(monkeypatch, LEASE + LEASE_CHECK + DELAY + POLL) == [1, 2, 3, 4, 5]


def test_a_change_that_keeps_failing_is_dropped_after_an_hour(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = processes[0]
    one.run(monkeypatch)
    feed.end = 5
    one.refused = {5}
    one.run(monkeypatch, RETRY_LIMIT + DELAY + POLL + 2 * RETRY_INTERVAL)
    assert one.run(monkeypatch, 3 * RETRY_INTERVAL) == []


def test_no_change_is_lost_while_the_database_is_unreachable(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = processes[0]
    one.run(monkeypatch)
    feed.end = 5
    one.run(monkeypatch, DELAY)
    one.broken = True
    with pytest.raises(DatastoreUnreachable):
        one.run(monkeypatch, POLL + 1)
    one.broken = False
    assert one.run(monkeypatch, 1) == [1, 2, 3, 4, 5]


def test_a_database_that_was_created_again_is_followed_from_its_start(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end, feed.name = 2, "second"
    assert one.run(monkeypatch, LEASE + DELAY) == [1, 2]
    feed.end, feed.name = 1, "third"
    assert other.run(monkeypatch, LEASE + LEASE_CHECK + DELAY + POLL) == [1]
