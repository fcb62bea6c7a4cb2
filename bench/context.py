"""What all rows of the table share: options, worlds, the bare route and the counting service."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import urllib3

from bench import BenchError
from bench.counting import CountingService
from bench.servers import Gunicorn
from bench.world import World
from bench.wrk import Plan, Request
from kazoo_ips import app
from kazoo_ips.config import Settings

WRITES = 10_000
"""The size of the pool that is written to, whatever sizes are asked for."""


@dataclass(frozen=True)
class Options:
    """What `make bench` was asked for.

    :param sizes: of the pools, in ascending order
    :param rounds: how often everything is measured
    :param seconds: how long each run of wrk is
    :param connections: of the routes measured at several; the first is for all others
    :param rows: names of rows, or none for all
    :param publish: the column of the README's table, or nothing
    """

    sizes: tuple[int, ...]
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    rows: tuple[str, ...]
    publish: str

    @classmethod
    def load(cls, environ: Mapping[str, str], engine: str) -> "Options":
        """The options of an environment.

        :raises BenchError: one is not what it should be
        """
        quick = bool(environ.get("QUICK"))
        # The embedded database indexes a thousand documents a second, so it gets no more.
        every = "1000 10000" if quick or engine == "embedded" else "1000 10000 100000"
        publish = environ.get("PUBLISH", "")
        try:
            made = cls(
                sizes=tuple(sorted(map(int, (environ.get("SIZES") or every).split()))),
                rounds=int(environ.get("ROUNDS") or (1 if quick else 5)),
                seconds=int(environ.get("SECONDS_EACH") or (1 if quick else 3)),
                connections=tuple(map(int, (environ.get("CONNECTIONS") or "8 32").split())),
                rows=tuple((environ.get("ROWS") or "").split()),
                publish=engine if publish == "1" else publish,
            )
        except ValueError as error:
            raise BenchError(f"SIZES, ROUNDS, SECONDS, CONNECTIONS: {error}") from error
        if made.publish and (quick or made.rows):
            raise BenchError("PUBLISH takes a whole run: without QUICK and ROWS")
        if not made.sizes or min(made.sizes) < 1000 or max(made.sizes) > 120_000:
            raise BenchError("SIZES: from 1000 to 120000")
        if min(made.rounds, made.seconds, *made.connections, 9) < 1 or not made.connections:
            raise BenchError("ROUNDS, SECONDS, CONNECTIONS: at least 1")
        return made


class Bench:
    """Worlds and servers, made when a row first asks for them and gone at the end.

    :param url: the database, with user and password in it
    """

    def __init__(self, url: str, options: Options) -> None:
        self.url = url
        self.options = options
        self.prefix = f"bench-{uuid4().hex[:8]}-"
        self.worlds: dict[str, World] = {}
        self._prepared = tempfile.TemporaryDirectory()
        self._running = ExitStack()
        self._bare: Gunicorn | None = None
        self._counting: tuple[World, CountingService] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_counting()
        self._running.close()
        self._prepared.cleanup()
        app.databases(self._settings(self.prefix)).delete()

    # Sizes.

    @property
    def small(self) -> World:
        """The smallest pool."""
        return self.world(self.options.sizes[0])

    @property
    def middle(self) -> World:
        """The pool that most rows are measured on: 10,000 addresses where that is asked for."""
        sizes = self.options.sizes
        return self.world(WRITES if WRITES in sizes else sizes[len(sizes) // 2])

    @property
    def large(self) -> World:
        """The largest pool."""
        return self.world(self.options.sizes[-1])

    @property
    def writes(self) -> World:
        """The pool that is written to; no views of Kazoo's are kept up to date there."""
        return self._world("writes", WRITES)

    @property
    def empty(self) -> World:
        """A pool with nothing in it yet."""
        return self._world("empty", 0)

    def world(self, size: int) -> World:
        """The pool of a size."""
        return self._world(str(size), size)

    def _world(self, name: str, size: int) -> World:
        if name not in self.worlds:
            # A name of its own each time: one that could not be made may have left something.
            mark = uuid4().hex[:4]
            made = World(self._settings(f"{self.prefix}{name}-{mark}-"), size)
            self._running.callback(made.close)
            self.worlds[name] = made
        return self.worlds[name]

    def _settings(self, prefix: str) -> Settings:
        return Settings(couchdb_url=self.url, prefix=prefix, read_timeout=60)

    # Beside the service.

    def bare(self, name: str, plan: Plan) -> Plan:
        """The bare route that returns what the service replies to a plan's first request.

        :param name: of the route, for this row only
        """
        first = plan.requests[0]
        return self.bare_reply(name, fetch(plan), first.method)

    def bare_reply(self, name: str, reply: bytes, method: str = "GET") -> Plan:
        """The bare route that returns this reply."""
        Path(self._prepared.name, name).write_bytes(reply)
        if self._bare is None:
            environment = {"BENCH_BARE": self._prepared.name}
            bare = Gunicorn(environment, "-c", "python:bench.bare_conf", "bench.bare:app")
            self._bare = self._running.enter_context(bare)
        return Plan(self._bare.url, (Request(method, f"/{name}"),))

    def counting(self, world: World) -> CountingService:
        """The service on a pool, behind a counting proxy. There is one at a time."""
        if self._counting is None or self._counting[0] is not world:
            self._stop_counting()
            service = CountingService(self.url, world.environment)
            service.start()
            self._counting = (world, service)
        return self._counting[1]

    def _stop_counting(self) -> None:
        if self._counting:
            self._counting[1].stop()
            self._counting = None

    def as_service(self, world: World) -> None:
        """Let what is sent directly carry the headers that the service sends now."""
        plan = world.plan(world.details(range(100, 101)))
        world.couch.headers = self.counting(world).headers(plan)

    def workers(self) -> list[int]:
        """The process ids of all workers that have served so far."""
        running = [world.service for world in self.worlds.values() if world.is_serving]
        return [pid for service in running for pid in service.workers()]


def fetch(plan: Plan, request: Request | None = None) -> bytes:
    """The reply to one request of a plan, its first one unless another is given.

    :raises BenchError: it is not a success
    """
    request = request or plan.requests[0]
    try:
        reply = urllib3.request(
            request.method,
            plan.url + request.path,
            body=request.body or None,
            headers={**plan.headers, "Connection": "close"},
            retries=False,
            timeout=300,
        )
    except urllib3.exceptions.HTTPError as error:
        raise BenchError(f"{request.method} {request.path}: {error}") from error
    if reply.status >= 400:
        raise BenchError(f"{request.method} {request.path}: {reply.status} {reply.data[:300]!r}")
    return reply.data
