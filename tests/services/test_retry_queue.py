"""The retry queue of a process, without a background thread."""

import time

import pytest

from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.services.retry_queue import DELAYS, RetryQueue


def test_an_address_is_due_once_after_each_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RetryQueue()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    queue.schedule_check("192.0.2.1", "alice")
    queue.schedule_check("192.0.2.1", "alice")
    assert queue.take() == []
    for delay in DELAYS:
        assert queue.take(99.0 + delay) == []
        assert queue.take(100.0 + delay) == [("192.0.2.1", "alice")]
        assert queue.take(100.0 + delay) == []


def test_work_is_repeated_until_it_succeeds() -> None:
    queue, done, broken = RetryQueue(), [], True

    def work(name: str) -> None:
        if broken:
            raise DatastoreUnreachable("away")
        done.append(name)

    for name in ("a", "b"):
        queue.repeat(name, lambda n=name: work(n))
    assert queue.work() == 0
    broken = False
    assert (queue.work(), done) == (2, ["a", "b"])
    assert queue.work() == 0


def test_work_of_the_same_name_replaces_what_failed_meanwhile() -> None:
    queue, done = RetryQueue(), []

    def fails() -> None:
        queue.repeat("a", lambda: done.append("the later"))
        raise DatastoreUnreachable("away")

    queue.repeat("a", lambda: done.append("the earlier"))
    queue.repeat("a", fails)
    assert queue.work() == 0
    assert (queue.work(), done) == (1, ["the later"])
