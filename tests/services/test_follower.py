"""The change follower handles each change at least once, in one process at a time."""

from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips.background import change_follower
from kazoo_ips.background.change_follower import (
    BATCH,
    LEASE,
    LEASE_CHECK,
    POLL,
    RENEW,
    RETRY_INTERVAL,
    RETRY_LIMIT,
    ChangeFollower,
    FollowerOptions,
    Pending,
)
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from kazoo_ips.repositories.records import Records

DELAY = 30
_OPTIONS = FollowerOptions(delay=DELAY)


class Feed:
    """A feed of numbers. Each number is one change."""

    def __init__(self) -> None:
        self.end = 0
        self.name = "first"
        self.read_to = 0
        self.reads = 0

    def history(self) -> str:
        """The id of the feed."""
        return self.name

    def changed(self, since: str, limit: int) -> tuple[str, list[int], bool]:
        """Return the numbers after a position."""
        start = self.end if since == "now" else int(since)
        changes = list(range(start + 1, self.end + 1))[:limit]
        self.read_to = start + len(changes)
        self.reads += 1
        return str(start + len(changes)), changes, start + len(changes) < self.end


class Store(Checkpoints):
    """A store that counts reads and writes, and loses the responses to the next writes."""

    def __init__(self, couch: Couch) -> None:
        super().__init__(Records(couch))
        self.reads = self.writes = self.answers_to_lose = 0

    def find(self, name: str) -> Checkpoint | None:
        """Count the call."""
        self.reads += 1
        return super().find(name)

    def put(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Count the call."""
        self.writes += 1
        written = super().put(checkpoint)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise DatastoreUnreachable("lost")
        return written


class Process:
    """A follower with a process identity of its own."""

    def __init__(
        self,
        couch: Couch,
        name: str,
        feed: Feed,
        time: list[int],
        options: FollowerOptions = _OPTIONS,
        pending: Pending | None = None,
    ) -> None:
        self.handled: list[int] = []
        self.refused: set[int] = set()
        self.broken = False
        self.meanwhile: Callable[[], object] = lambda: None
        self.store = Store(couch)
        self.metrics = Metrics()
        self._time = time
        self.follower = ChangeFollower[int](
            name,
            feed,
            self.store,
            self._handle,
            options=options,
            now=lambda: time[0],
            metrics=self.metrics,
            pending=pending,
        )
        self.identity = f"elsewhere/{uuid4().hex}"

    def _handle(self, changes: Collection[int]) -> set[int]:
        if self.broken:
            raise DatastoreUnreachable("away")
        self.handled += changes
        self.meanwhile()
        return self.refused & set(changes)

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: int = 0) -> list[int]:
        """Advance the clock, and return the changes that were handled meanwhile."""
        self.handled.clear()
        for _ in range(seconds + 1):
            with monkeypatch.context() as patch:
                patch.setattr(liveness, "identity", lambda: self.identity)
                self.follower.step()
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
    metrics = [one.metrics.changes_followed, one.metrics.follower_polls, one.metrics.follower_lag]
    values = {s.name: s.value for m in metrics for s in m.collect()[0].samples}
    assert values["kazoo_ips_changes_followed_total"] == 5
    assert values["kazoo_ips_follower_polls_total"] == feed.reads
    assert values["kazoo_ips_follower_lag_seconds_sum"] == DELAY


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


def test_a_dead_process_whose_clock_was_hours_ahead_is_followed_after_its_lease(
    couch: Couch, feed: Feed, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, ahead = uuid4().hex, [time[0] + 5 * 3600]
    first, second = (Process(couch, name, feed, clock) for clock in (ahead, time))
    first.run(monkeypatch)
    for _ in range(2 * LEASE):
        first.run(monkeypatch, 1)
        second.run(monkeypatch, 1)
    assert second.follower.began is None
    second.run(monkeypatch, LEASE + 2 * LEASE_CHECK)  # the first process is dead
    assert second.follower.began


def test_a_change_that_failed_is_retried_and_the_checkpoint_waits(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch)
    feed.end = 5
    one.refused = {5}
    assert one.run(monkeypatch, DELAY + POLL) == [1, 2, 3, 4, 5, 5]
    assert one.run(monkeypatch, 3 * RETRY_INTERVAL) == [5, 5, 5]
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
    feed.end = 5
    assert one.run(monkeypatch, DELAY + POLL) == [1, 2, 3, 4, 5]
    feed.end, feed.name = 2, "second"
    assert one.run(monkeypatch, LEASE + DELAY + POLL) == [1, 2]
    feed.end, feed.name = 1, "third"
    assert other.run(monkeypatch, LEASE + LEASE_CHECK + DELAY + POLL) == [1]


def test_a_process_that_loses_the_lease_during_a_step_handles_no_more(
    processes: list[Process], feed: Feed, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    feed.end = 3 * BATCH
    one.run(monkeypatch, DELAY - 1)

    def is_paused() -> None:
        time[0] += LEASE
        other.run(monkeypatch)

    one.meanwhile = is_paused
    assert len(one.run(monkeypatch)) == BATCH
    one.meanwhile = lambda: None
    assert len(other.run(monkeypatch, DELAY + POLL)) == 3 * BATCH
    assert one.run(monkeypatch, DELAY + POLL) == []


def test_a_lease_whose_renewal_was_not_answered_is_taken_again_at_once(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = processes[0]
    one.run(monkeypatch, LEASE - RENEW - 1)
    feed.end = 5
    one.store.answers_to_lose = 1
    with pytest.raises(DatastoreUnreachable):
        one.run(monkeypatch, 1)
    assert one.run(monkeypatch, DELAY + POLL) == [1, 2, 3, 4, 5]


def test_the_lease_is_neither_read_nor_written_each_second(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    for _ in range(5 * LEASE):
        one.run(monkeypatch, 1)  # two steps
        other.run(monkeypatch)
    assert (one.store.reads, other.store.writes) == (1, 0)
    assert other.store.reads <= 10 * LEASE / LEASE_CHECK + 1
    assert one.store.writes <= 10 * LEASE / (LEASE - RENEW) + 1
    assert feed.reads <= 10 * LEASE / POLL + 1
    assert other.run(monkeypatch, LEASE + LEASE_CHECK) == []
    assert other.store.writes


def test_the_checkpoint_is_stored_once_for_the_changes_of_a_step(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    feed.end = 5
    one.run(monkeypatch, DELAY - 1)
    one.store.writes = 0
    assert one.run(monkeypatch, POLL) == [1, 2, 3, 4, 5]
    assert one.store.writes == 1
    monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
    assert other.run(monkeypatch, DELAY + POLL) == []


def test_no_more_is_read_while_much_waits(
    processes: list[Process], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_follower, "BATCH", 10)
    monkeypatch.setattr(change_follower, "_MAX_BATCHES", 2)
    one = processes[0]
    feed.end = 100
    one.refused = set(range(1, 101))
    one.run(monkeypatch, DELAY - 1)
    assert feed.read_to == 20
    one.run(monkeypatch, 3 * DELAY)
    assert feed.read_to == 20
    one.refused = set()
    assert set(one.run(monkeypatch, 5 * DELAY)) == set(range(1, 101))


BLOCKING = FollowerOptions(poll=1, start="now", batch=2, max_batches=2)


class Numbers:
    """Work that is stored in the checkpoint: the numbers that are not done."""

    def __init__(self) -> None:
        self.waiting: list[int] = []

    def load(self, stored: Mapping[str, Any]) -> None:
        """Read the work from a checkpoint."""
        self.waiting = list(stored.get("numbers", []))

    def dump(self) -> Mapping[str, Any]:
        """Return the work as the checkpoint stores it."""
        return {"numbers": list(self.waiting)} if self.waiting else {}


def test_a_follower_that_starts_now_sees_later_changes_only(
    couch: Couch, feed: Feed, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid4().hex
    one, other = [Process(couch, name, feed, time, BLOCKING) for _ in range(2)]
    feed.end = 5
    assert one.run(monkeypatch) == []
    assert (one.follower.began, one.follower.is_at_end) == (1000, True)
    feed.end = 7
    # The first process dies before it handles a change. The second one starts at the position
    # where the first one has started, not at the end.
    monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
    assert other.run(monkeypatch, 3) == [6, 7]
    assert other.follower.began == 1000
    assert one.follower.began == 1000


def test_a_follower_that_is_blocked_for_hours_drops_nothing_and_keeps_its_lease(
    couch: Couch, feed: Feed, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid4().hex
    one, other = [Process(couch, name, feed, time, BLOCKING) for _ in range(2)]
    one.run(monkeypatch)
    feed.end = 9
    one.broken = True
    with pytest.raises(DatastoreUnreachable):
        one.run(monkeypatch, 2)
    for _ in range(2 * RETRY_LIMIT // 10):
        time[0] += 10
        with monkeypatch.context() as patch:
            patch.setattr(liveness, "identity", lambda: one.identity)
            assert one.follower.renew()
        assert other.run(monkeypatch) == []
    assert one.follower.next_change == 1
    assert not one.follower.is_at_end
    assert feed.read_to == 4
    one.broken = False
    assert one.run(monkeypatch, 5) == list(range(1, 10))
    assert one.follower.next_change is None
    assert one.follower.is_at_end


def test_what_is_pending_is_stored_with_the_checkpoint_and_survives_the_process(
    couch: Couch, feed: Feed, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid4().hex
    works = [Numbers(), Numbers()]
    one, other = [Process(couch, name, feed, time, BLOCKING, work) for work in works]
    one.run(monkeypatch)
    feed.end = 3
    one.meanwhile = lambda: works[0].waiting.append(one.handled[-1])
    assert one.run(monkeypatch, 2) == [1, 2, 3]
    assert works[0].waiting == [2, 3]
    works[0].waiting.remove(2)
    one.run(monkeypatch)
    monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
    assert other.run(monkeypatch, 3) == []
    assert works[1].waiting == [3]
    writes = other.store.writes
    assert other.run(monkeypatch, 5) == []
    assert other.store.writes == writes
