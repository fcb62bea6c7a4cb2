"""Readers of the feed, and webhooks with receivers: the changes that each of them has got."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import Any

from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from tests.clocks import ManualClock
from tests.stateful.timeline import Change
from tests.webhooks.receivers import Received, Receiver, answer

PAGE = 7
"""Events that a reader of the feed gets at once."""
FAILS = 4
"""One of this many deliveries fails."""
TIME_LIMIT = 30.0
"""Seconds within which all events are delivered."""
Timelines = dict[str, list[Change]]


def in_effect(events: Iterable[Mapping[str, Any]]) -> Timelines:
    """Return the events that are not retracted, by address, each once and in the given order."""
    by_id = {(event["ip"], event["id"]): event for event in reversed(list(events))}
    retracted = {(e["ip"], e["retracts"]) for e in by_id.values() if "retracts" in e}
    found: Timelines = {}
    for key, event in reversed(by_id.items()):
        if key not in retracted and "retracts" not in event:
            made = (event["event"], event.get("account_id"))
            found.setdefault(event["ip"], []).append(made)
    return found


def seen_by(account_id: str | None, timelines: Timelines) -> Timelines:
    """Return the part of the timelines that an account sees; None is the operator."""
    if account_id is None:
        return timelines
    seen = {address: _of_account(account_id, made) for address, made in timelines.items()}
    return {address: made for address, made in seen.items() if made}


def _of_account(account_id: str, made: Iterable[Change]) -> list[Change]:
    """Return the changes that an account sees. A transfer does not show it the new owner."""
    seen, owner = [], None
    for kind, named in made:
        if named == account_id:
            seen.append((kind, named))
        elif kind == "transferred" and owner == account_id:
            seen.append((kind, None))
        if kind != "changed":
            owner = named if kind in {"assigned", "transferred"} else None
    return seen


@dataclass
class FeedReader:
    """A client that reads the feed from the time of its creation on."""

    app: TestApp
    path: str
    headers: dict[str, str]
    since: str = "now"
    events: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Read to the end, page by page."""
        more = True
        while more:
            url = f"{self.path}?since={self.since}&limit={PAGE}"
            body = self.app.get(url, headers=self.headers).json
            self.since, more = body["since"], body["more"]
            self.events += body["data"]


class Flaky:
    """The behaviour of a receiver that replies to some requests with an error."""

    def __init__(self) -> None:
        self.accepted: list[dict[str, Any]] = []
        self._count = 0

    def __call__(self, connection: socket, received: Received) -> None:
        """Reply to a request."""
        self._count += 1
        if self._count % FAILS == 0:
            answer(500)(connection, received)
            return
        self.accepted.append(json.loads(received.body))
        answer(200)(connection, received)


@dataclass
class Subscribers:
    """The operator and accounts, each with a reader of the feed and a webhook.

    :param ids: the account id of each of them, None for the operator
    """

    settings: Settings
    clock: ManualClock
    ids: dict[str, str | None]
    readers: dict[str, FeedReader]
    receivers: dict[str, Flaky]
    _sender: Instance | None = None

    def read(self) -> None:
        """Let each reader read the feed."""
        for reader in self.readers.values():
            reader.read()

    def restart(self) -> None:
        """Start another process that sends webhooks, which has nothing in its memory."""
        self._sender = None

    def deliver(self, until: Callable[[], bool] = lambda: True) -> None:
        """Send webhooks until a condition holds, at least one round."""
        self._sender = self._sender or composition.build(self.settings, clock=self.clock)
        end = time.monotonic() + TIME_LIMIT
        while time.monotonic() < end:
            self._sender.webhook_sender.step()
            if until():
                return
            self.clock.now += 1  # the sender repeats a failed delivery after some seconds
            time.sleep(0.005)

    def check(self, timelines: Timelines) -> None:
        """Compare what each reader and each receiver has got with the timelines."""
        self.read()
        expected = {name: seen_by(each, timelines) for name, each in self.ids.items()}
        assert {name: in_effect(r.events) for name, r in self.readers.items()} == expected
        for reader in self.readers.values():
            ids = [(event["ip"], event["id"]) for event in reader.events]
            assert len(ids) == len(set(ids)), (
                "an event was delivered twice without an interruption"
            )
        self.deliver(until=lambda: self.delivered() == expected)
        assert self.delivered() == expected

    def delivered(self) -> dict[str, Timelines]:
        """Return what each receiver has got."""
        return {name: in_effect([*each.accepted]) for name, each in self.receivers.items()}


@contextmanager
def subscribed(
    settings: Settings,
    app: TestApp,
    tokens: dict[str, str],
    ids: dict[str, str],
    clock: ManualClock,
) -> Iterator[Subscribers]:
    """Create a reader and a webhook for each of the accounts, and remove the webhooks at the end.

    :param ids: the account id of each name; that of the operator reads the whole pool
    """
    paths = {n: "/v2/ips" if n == "operator" else f"/v2/accounts/{ids[n]}/ips" for n in ids}
    headers = {name: {"X-Auth-Token": tokens[name]} for name in ids}
    readers = {n: FeedReader(app, f"{paths[n]}/changes", headers[n]) for n in ids}
    with ExitStack() as stack:
        receivers = {name: Flaky() for name in ids}
        for name, behave in receivers.items():
            receiver = stack.enter_context(Receiver(behave))
            hook = {"name": "test", "uri": receiver.uri, "hook": "all"}
            url = f"{paths[name]}/webhooks"
            made = app.put_json(url, {"data": hook}, headers=headers[name]).json["data"]
            stack.callback(app.delete, f"{url}/{made['id']}", headers=headers[name])
        accounts = {n: None if n == "operator" else i for n, i in ids.items()}
        subscribers = Subscribers(settings, clock, accounts, readers, receivers)
        subscribers.read()
        yield subscribers
