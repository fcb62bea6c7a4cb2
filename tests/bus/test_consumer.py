"""Consumers of the feed: no event is lost, and a blocked consumer delays no other."""

from collections.abc import Collection, Sequence
from uuid import uuid4

import pytest

from kazoo_ips.background import consumer
from kazoo_ips.background.consumer import BEFORE_START, Consumer
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable, ReceiverUnavailable
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.records import Records
from kazoo_ips.services.kazoo.bus import Bus
from kazoo_ips.services.kazoo.document_changes import BusMessage, DocumentChanges
from tests.bus.events import AT, A, EventList, assigned
from tests.bus.rabbitmq import Listener, RabbitMQ


class Process:
    """A consumer with a process identity and a receiver of its own."""

    oldest = None

    def __init__(self, couch: Couch, name: str, feed: EventList, time: list[int]) -> None:
        self.taken: list[HistoryEvent] = []
        self.is_away = False
        self.works = self.rests = 0
        self.metrics = Metrics()
        self.identity = f"elsewhere/{uuid4().hex}"
        self._time = time
        self.consumer = Consumer(
            name,
            feed,
            Checkpoints(Records(couch)),
            self,
            now=lambda: time[0],
            metrics=self.metrics.consumer(name),
        )

    def take(self, events: Collection[HistoryEvent]) -> tuple[()]:
        """Take events, unless the receiver is unavailable."""
        if self.is_away:
            raise ReceiverUnavailable("away")
        self.taken += events
        return ()

    def work(self) -> None:
        """Count it."""
        self.works += 1

    def forget(self) -> None:
        """Count it."""
        self.rests += 1

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: int) -> list[HistoryEvent]:
        """Advance the clock, and return the events that were taken meanwhile."""
        self.taken.clear()
        for _ in range(seconds):
            with monkeypatch.context() as patch:
                patch.setattr(liveness, "identity", lambda: self.identity)
                self.consumer.step()
            self._time[0] += 1
        return self.taken

    def value(self, name: str) -> float:
        """The value of a metric."""
        found = self.metrics._own.get_sample_value(name, {"consumer": self.consumer.name})
        assert found is not None
        return found

    @property
    def handled_until(self) -> float:
        """The time up to which all events are handled, in Gregorian seconds."""
        name = "kazoo_ips_consumer_handled_until_timestamp_seconds"
        return self.value(name) + GREGORIAN_EPOCH


@pytest.fixture
def time() -> list[int]:
    """The time, in Gregorian seconds."""
    return [AT]


@pytest.fixture
def feed() -> EventList:
    """A feed with an event from before the start of the consumer."""
    made = EventList()
    made.events.append(assigned())
    return made


@pytest.fixture
def processes(couch: Couch, feed: EventList, time: list[int]) -> list[Process]:
    """Two processes with the same consumer."""
    name = f"test-{uuid4().hex}"
    return [Process(couch, name, feed, time) for _ in range(2)]


def test_a_new_consumer_takes_only_events_after_its_start(
    processes: list[Process], feed: EventList, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    assert one.run(monkeypatch, 2) == []
    feed.events += (new := [assigned(at=time[0]) for _ in range(500)])
    assert one.run(monkeypatch, 2) == new
    assert one.value("kazoo_ips_consumer_events_total") == 500
    assert other.run(monkeypatch, 2) == []
    assert (one.works, one.rests) == (3, 1)
    assert (other.works, other.rests) == (0, 2)


def test_events_of_the_time_before_the_start_are_left_out_though_they_are_archived_later(
    processes: list[Process], feed: EventList, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = processes[0]
    feed.events.clear()  # the pool has no history yet
    one.run(monkeypatch, 2)
    old = [assigned(at=AT - BEFORE_START - n) for n in range(1, 5)]
    feed.events += [*old, new := assigned(at=AT - BEFORE_START)]
    assert one.run(monkeypatch, 2) == [new]


def test_a_receiver_that_was_unavailable_for_days_gets_all_events_in_order(
    processes: list[Process], feed: EventList, time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch, 1)
    one.is_away = True
    first = time[0]
    sent = []
    for _ in range(12):
        sent += [assigned(at=time[0]) for _ in range(450)]
        feed.events += sent[-450:]
        one.run(monkeypatch, 40)
        time[0] += 4 * 3600  # the process was paused, and has lost its lease
        one.run(monkeypatch, 40)
        assert one.handled_until == first
    failures = one.value("kazoo_ips_consumer_failures_total")
    assert 12 <= failures <= 12 * 8
    one.is_away = False
    assert one.run(monkeypatch, 40) == sent
    assert one.handled_until == time[0] - 1
    assert other.run(monkeypatch, 1) == []


def test_the_lease_is_kept_while_the_receiver_is_unavailable(
    processes: list[Process], feed: EventList, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = processes
    one.run(monkeypatch, 1)
    feed.events.append(assigned(at=AT))
    one.is_away = True
    for _ in range(5 * consumer.LEASE):
        one.run(monkeypatch, 1)
        other.run(monkeypatch, 1)
    assert other.works == 0


def test_the_log_of_a_day_without_a_receiver_is_short(
    processes: list[Process], feed: EventList, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = processes[0]
    one.run(monkeypatch, 1)
    feed.events.append(assigned(at=AT))
    one.is_away = True
    with caplog.at_level("WARNING", logger=consumer.__name__):
        one.run(monkeypatch, 1000)
    assert len(caplog.records) == 6  # 1, 2, 4, 8, 16 and 32 failures
    one.is_away = False
    with caplog.at_level("INFO", logger=consumer.__name__):
        one.run(monkeypatch, 40)
    assert "it takes events again" in caplog.text


def test_deleted_events_are_reported_and_the_oldest_is_next(
    processes: list[Process], feed: EventList, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one, other = processes
    feed.events += [assigned(at=AT) for _ in range(4)]
    one.run(monkeypatch, 1)
    feed.events += (new := [assigned(at=AT) for _ in range(2)])
    feed.deleted = 6
    monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
    kept = feed.events[:5]
    assert other.run(monkeypatch, 2) == [*kept, *new]
    assert other.value("kazoo_ips_consumer_gaps_total") == 1
    assert "events were deleted before they were handled" in caplog.text


# With a real broker


class Lossy:
    """A client of a broker whose process dies after publishing, before it has the confirms."""

    def __init__(self, rabbitmq: RabbitMQ) -> None:
        self._broker = rabbitmq.broker()
        self.dies = False

    def publish(self, messages: Sequence[BusMessage]) -> None:
        """Publish, and die if the test says so."""
        self._broker.publish(messages)
        if self.dies:
            raise DatastoreUnreachable("the process is killed here")

    def close_if_idle(self) -> None:
        """Close it."""
        self._broker.close_if_idle()

    def close(self) -> None:
        """Close it."""
        self._broker.close()


def bus(couch: Couch, name: str, feed: EventList, time: list[int], broker: Lossy) -> Process:
    """A process whose receiver is a broker."""
    made = Process(couch, name, feed, time)
    receiver = Bus(broker, DocumentChanges("1"), made.metrics.bus_messages("test"))
    made.consumer._receiver = receiver
    return made


@pytest.mark.slow
def test_a_process_that_dies_after_publishing_is_followed_by_one_that_publishes_again(
    couch: Couch, rabbitmq: RabbitMQ, feed: EventList, time: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name, clients = f"test-{uuid4().hex}", [Lossy(rabbitmq), Lossy(rabbitmq)]
    one, other = [bus(couch, name, feed, time, client) for client in clients]
    with Listener(rabbitmq, {"all": ["#"]}) as listener:
        one.run(monkeypatch, 1)
        feed.events.append(assigned(A, at=AT))
        clients[0].dies = True
        with pytest.raises(DatastoreUnreachable):
            one.run(monkeypatch, 1)
        first = listener.bodies("all")
        monkeypatch.setattr(liveness, "is_dead", lambda name: name == one.identity)
        other.run(monkeypatch, 2)
        assert listener.bodies("all") == first
        assert len(first) == 3
        other.run(monkeypatch, 5)
        assert listener.bodies("all") == []


@pytest.mark.slow
def test_a_broker_that_is_killed_for_hours_gets_everything_and_delays_no_other(
    couch: Couch, rabbitmq: RabbitMQ, feed: EventList, time: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    down = bus(couch, f"test-{uuid4().hex}", feed, time, Lossy(rabbitmq))
    up = Process(couch, f"test-{uuid4().hex}", feed, time)
    down.run(monkeypatch, 1)
    up.run(monkeypatch, 1)
    rabbitmq.kill()
    try:
        feed.events += (sent := [assigned(at=time[0]) for _ in range(300)])
        down.run(monkeypatch, 3)
        assert up.run(monkeypatch, 3) == sent
        time[0] += 7200
        down.run(monkeypatch, 60)
    finally:
        rabbitmq.start()
    failed = down.metrics._own.get_sample_value(
        "kazoo_ips_bus_messages_total", {"broker": "test", "result": "failed"}
    )
    assert failed is not None
    assert failed >= 600
    with Listener(rabbitmq, {"all": ["doc_edited.dedicated_ips.#"]}) as listener:
        down.run(monkeypatch, 40)
        assert len(listener.bodies("all")) == 300
