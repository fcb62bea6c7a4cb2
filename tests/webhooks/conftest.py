"""Senders of several processes, on databases of their own."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.background import webhook_sender
from kazoo_ips.background.lease import Lease
from kazoo_ips.background.webhook_sender import WebhookSender
from kazoo_ips.config import Settings
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import Author, HistoryEvent, State
from kazoo_ips.model.webhooks import DeliveryProgress, Webhook
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.outbound.destinations import Destinations
from kazoo_ips.outbound.http_sender import HTTPSender
from kazoo_ips.repositories.accounts import AccountRepository
from kazoo_ips.repositories.checkpoints import Checkpoints
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.webhooks import WebhookRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.webhooks.delivery import Deliverer
from kazoo_ips.services.webhooks.management import WebhookService
from kazoo_ips.services.webhooks.shared_feed import SharedFeed

LOOPBACK = "127.0.0.0/8"
STATE = State("available", None, "us-east", "proxy1.example.com")


class Events:
    """A feed in memory. A position is the number of events before it, in one of two spellings."""

    def __init__(self) -> None:
        self.all: list[HistoryEvent] = []
        self.name = "first"
        self.reads = 0
        self.error: Exception | None = None

    def history(self) -> str:
        """The id of the feed."""
        return self.name

    def changed(self, since: str, limit: int) -> tuple[str, Sequence[HistoryEvent], bool]:
        """Return the events after a position."""
        self.reads += 1
        if self.error:
            raise self.error
        if since == "now":
            return str(len(self.all)), [], False
        start = int(since)
        events = self.all[start : start + limit]
        end = start + len(events)
        return str(end), events, end < len(self.all)

    def add(self, number: int = 1, **more: Any) -> list[str]:
        """Append events; return their ids."""
        new = [event(**more) for _ in range(number)]
        self.all += new
        return [each.id for each in new]


def event(account: str | None = None, address: str = "192.0.2.1", **more: Any) -> HistoryEvent:
    """Return the event of the assignment of an address to an account."""
    made = HistoryEvent(
        id=uuid4().hex,
        address=address,
        event="assigned",
        at=int(time.time()) + GREGORIAN_EPOCH,
        account_id=account,
        before=STATE,
        after=STATE._replace(status="assigned", account_id=account),
        by=Author(account, "user"),
        request_id="request",
    )
    return replace(made, **more)


class Process:
    """One process: its sender, and its service for clients."""

    def __init__(self, settings: Settings, events: Events, clock: Callable[[], float]) -> None:
        self.couch = composition.connect(settings)
        records = Records(self.couch)
        self.metrics = Metrics()
        self.webhooks = WebhookRepository(records)
        destinations = Destinations.parse(LOOPBACK)
        self.feed = SharedFeed(events)

        def now() -> int:
            return int(clock()) + GREGORIAN_EPOCH

        accounts = AccountService(AccountRepository(self.couch), now, 0)
        self.deliverer = Deliverer(
            self.webhooks,
            accounts,
            self.feed,
            HTTPSender(destinations, timeout=2.0),
            clock=clock,
            metrics=self.metrics,
        )
        self.service = WebhookService(
            self.webhooks, events, self.deliverer, destinations, clock=clock, limit=60
        )
        self.checkpoints = Checkpoints(records)
        self.sender = WebhookSender(
            Lease("webhooks", self.checkpoints, now),
            self.webhooks,
            self.feed,
            self.deliverer,
            now,
            self.metrics,
        )

    def run_until(self, done: Callable[[], object], seconds: float = 10.0) -> None:
        """Run rounds of the sender until a condition holds."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "the condition did not hold in time"
            self.sender.step()
            time.sleep(0.01)

    def run_for(self, seconds: float) -> None:
        """Run rounds of the sender for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sender.step()
            time.sleep(0.01)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.metrics._own.get_sample_value(f"kazoo_ips_{name}", labels) or 0.0


class World:
    """One database with several processes, and a clock that can be set."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events = Events()
        self.ahead = 0.0
        self.first = self.process()

    def clock(self) -> float:
        """The time in Unix seconds."""
        return time.time() + self.ahead

    def process(self) -> Process:
        """Return another process."""
        return Process(self.settings, self.events, self.clock)

    def hook(self, uri: str, account: str | None = None, **more: Any) -> Webhook:
        """Create a webhook of an account, by default of the operator."""
        content = {"name": "test", "uri": uri, "hook": "all", **more}
        return self.first.service.create(account, content)

    def progress(self, webhook: Webhook) -> DeliveryProgress:
        """Return the stored progress of a webhook."""
        progress = self.first.webhooks.progress(webhook.id)
        assert progress
        return progress


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Databases without webhooks, and short intervals."""
    for name, value in (("RELOAD", 0.1), ("LOOK", 0.03), ("_PAUSE_AFTER_ERROR", 0.2)):
        monkeypatch.setattr(webhook_sender, name, value)
    own = replace(settings.as_administrator(), prefix=f"{settings.prefix}{uuid4().hex[:6]}-")
    couch = composition.connect(own)
    for name in ("kazoo_ips", "accounts"):
        couch.database(name).create()
    yield World(own)
    for name in couch.databases():
        couch.database(name).delete()
