"""The row about readers of the feed: how much clients that wait for events slow other requests."""

import itertools
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

from bench import BenchError, wrk
from bench.context import Bench
from bench.measure import Spread
from bench.row import Goal, Row
from bench.world import World, addresses
from kazoo_ips import app
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, State

READERS = 1000
"""Clients that wait at the same time."""
_EVENTS = 10
"""Events per second, each of which every client gets."""
_CONNECTIONS = 8
_PATH = "/v2/ips/changes?feed=eventsource&since=now"


def readers(bench: Bench) -> list[Row]:
    """The p99 of reads of one address while 1,000 clients wait for events, and without them."""
    world = bench.middle
    bench.as_service(world)
    plan, seconds = world.plan(world.details()), max(bench.options.seconds, 5)
    wrk.run(plan, _CONNECTIONS, 2)
    rounds = []
    for _ in range(bench.options.rounds):
        with _changing(world):
            without = wrk.run(plan, _CONNECTIONS, seconds)
            with _Readers(world) as connected:
                waiting = wrk.run(plan, _CONNECTIONS, seconds)
        if without.errors + waiting.errors or not connected.received:
            raise BenchError(f"readers: {without}, {waiting}, {connected.received} bytes")
        rounds.append({"without": without.p99_ms, "with": waiting.p99_ms})
    p99 = {name: Spread.of(each[name] for each in rounds) for name in rounds[0]}
    return [
        Row(
            "readers",
            f"`GET …/ips/{{ip}}`, p99 while {READERS:,} clients get {_EVENTS} events/s",
            "p99 without these clients",
            Goal(at_most=1.2),
            Spread.of(each["with"] / each["without"] for each in rounds),
            f"without {p99['without'].median:.1f} ms, with {p99['with'].median:.1f} ms",
            {"p99_ms": rounds},
        )
    ]


class _Readers:
    """Clients that read the feed as streams. One thread reads all that they receive."""

    def __init__(self, world: World) -> None:
        self.received = 0
        self._world = world
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "_Readers":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        parts = urlsplit(self._world.service.url)
        head = f"GET {_PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        request = f"{head}X-Auth-Token: {self._world.operator.token}\r\n\r\n".encode()
        for _ in range(READERS):
            client = socket.create_connection((parts.hostname, parts.port or 80), 30)
            client.sendall(request)
            if not client.recv(4096).startswith(b"HTTP/1.1 200 "):
                raise BenchError("readers: a client was refused")
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _read(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                self.received += len(key.fileobj.recv(65_536))


@contextmanager
def _changing(world: World) -> Iterator[None]:
    """Store events at a steady rate, as the archiver does."""
    archive, stop = app.build(world.settings).archive, threading.Event()

    def run() -> None:
        for address in itertools.cycle(addresses(range(100, 600))):
            if stop.wait(1 / _EVENTS):
                return
            archive.append([_event(address)])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _event(address: str) -> HistoryEvent:
    before = State("available", None, "zone", "host")
    return HistoryEvent(
        uuid4().hex, address, HistoryEventKind.ASSIGNED, int(time.time()) + GREGORIAN_EPOCH,
        uuid4().hex, before, before._replace(status="assigned"), Author(uuid4().hex), uuid4().hex,
    )  # fmt: skip
