"""The context of all rows: options, worlds, the bare route and the counting service."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import urllib3

from bench import BenchError
from bench.couch import Couch, Document
from bench.counting import CountingService
from bench.crowd import Crowd
from bench.servers import Gunicorn
from bench.world import World, addresses
from bench.wrk import Plan, Request
from kazoo_ips import app
from kazoo_ips.config import Settings

WRITES = 10_000
"""The size of the pool for the rows about writes, independent of SIZES."""


@dataclass(frozen=True)
class Options:
    """The options of `make bench`.

    :param sizes: the sizes of the pools, in ascending order
    :param rounds: how often each comparison is measured
    :param seconds: the duration of each run of wrk
    :param connections: the numbers of connections; most routes are measured with the first only
    :param rows: the names of the rows; empty for all
    :param publish: the column of the table in `results`; empty if nothing is published
    :param scale_url: a CouchDB of this machine. Direct reads of it show how fast the machine is
        compared with that of Kazoo's figures; empty if nothing is compared with these
    """

    sizes: tuple[int, ...]
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    rows: tuple[str, ...]
    publish: str
    scale_url: str

    @classmethod
    def load(cls, environ: Mapping[str, str], engine: str) -> "Options":
        """Return the options of an environment.

        :param engine: the kind of the measured database, `couchdb` or `embedded`
        :raises BenchError: an option is invalid
        """
        quick = bool(environ.get("QUICK"))
        # The embedded database keeps the rows of all views in memory, so its pools are smaller.
        every = "1000 10000" if quick or engine == "embedded" else "1000 10000 100000"
        publish = environ.get("PUBLISH", "")
        # Kazoo's machine was measured by reads of a CouchDB, so the embedded database is no scale.
        measured = environ.get("COUCHDB_URL", "") if engine == "couchdb" else ""
        try:
            made = cls(
                sizes=tuple(sorted(map(int, (environ.get("SIZES") or every).split()))),
                rounds=int(environ.get("ROUNDS") or (1 if quick else 5)),
                seconds=int(environ.get("SECONDS_EACH") or (1 if quick else 3)),
                connections=tuple(map(int, (environ.get("CONNECTIONS") or "8 32").split())),
                rows=tuple((environ.get("ROWS") or "").split()),
                publish=engine if publish == "1" else publish,
                scale_url=environ.get("SCALE_URL") or measured,
            )
        except ValueError as error:
            raise BenchError(f"SIZES, ROUNDS, SECONDS, CONNECTIONS: {error}") from error
        if made.publish and quick:
            raise BenchError("PUBLISH: not with QUICK")
        if not made.sizes or min(made.sizes) < 1000 or max(made.sizes) > 1_000_000:
            raise BenchError("SIZES: from 1000 to 1000000")
        if min(made.rounds, made.seconds, *made.connections, 9) < 1 or not made.connections:
            raise BenchError("ROUNDS, SECONDS, CONNECTIONS: at least 1")
        return made


class Bench:
    """Worlds and servers. They are created when a row first needs them, and removed at the end.

    :param url: the URL of the database, with user and password
    """

    def __init__(self, url: str, options: Options) -> None:
        self.url = url
        self.options = options
        self.prefix = f"bench-{uuid4().hex[:8]}-"
        self.worlds: dict[str, World] = {}
        self._prepared = tempfile.TemporaryDirectory()
        self._running = ExitStack()
        self._bare: Gunicorn | None = None
        self._scales: dict[int, Plan] = {}
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
        """The pool for most rows: that of 10,000 addresses, if it is among the sizes."""
        sizes = self.options.sizes
        return self.world(WRITES if WRITES in sizes else sizes[len(sizes) // 2])

    @property
    def large(self) -> World:
        """The largest pool."""
        return self.world(self.options.sizes[-1])

    @property
    def writes(self) -> World:
        """The pool for rows about writes. It has no views of Kazoo."""
        return self._world("writes", WRITES)

    @property
    def empty(self) -> World:
        """An empty pool."""
        return self._world("empty", 0)

    def world_of_its_own(
        self, name: str, size: int, change: Callable[[list[Document]], None] | None = None
    ) -> World:
        """A pool of a size for a row that changes its documents.

        :param change: changes the documents before they are written for the first time
        """
        return self._world(f"{name}{size}", size, change)

    def crowd(self, accounts: int, each: int) -> Crowd:
        """A pool of so many accounts with so many addresses each."""
        made = Crowd(self._settings(f"{self.prefix}crowd-{uuid4().hex[:4]}-"), accounts, each)
        self._running.callback(made.close)
        self.worlds["crowd"] = made
        return made

    def world(self, size: int) -> World:
        """The pool of a size."""
        return self._world(str(size), size)

    def _world(
        self, name: str, size: int, change: Callable[[list[Document]], None] | None = None
    ) -> World:
        if name not in self.worlds:
            # Each try has a name of its own, because a failed one may have left documents.
            mark = uuid4().hex[:4]
            made = World(self._settings(f"{self.prefix}{name}-{mark}-"), size, change)
            self._running.callback(made.close)
            self.worlds[name] = made
        return self.worlds[name]

    def _settings(self, prefix: str) -> Settings:
        return Settings(couchdb_url=self.url, prefix=prefix, read_timeout=60)

    # Servers that the service is compared with.

    def bare(self, name: str, plan: Plan) -> Plan:
        """Return a plan for the bare route, with the service's reply to a plan's first request.

        :param name: the name of the route, which only this row uses
        """
        first = plan.requests[0]
        return self.bare_reply(name, fetch(plan), first.method)

    def bare_reply(self, name: str, reply: bytes, method: str = "GET") -> Plan:
        """Return a plan for the bare route, with this reply."""
        Path(self._prepared.name, name).write_bytes(reply)
        if self._bare is None:
            environment = {"BENCH_BARE": self._prepared.name}
            bare = Gunicorn(environment, "-c", "python:bench.bare_conf", "bench.bare:app")
            self._bare = self._running.enter_context(bare)
        return Plan(self._bare.url, (Request(method, f"/{name}"),))

    def bare_workers(self) -> list[int]:
        """Return the process ids of the workers of the bare route."""
        return self._bare.workers() if self._bare else []

    def counting(self, world: World) -> CountingService:
        """Return a service on a pool behind a counting proxy. It replaces the previous one."""
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
        """Use the headers of the service for requests that are sent to CouchDB directly."""
        plan = world.plan(world.details(range(100, 101)))
        world.couch.headers = self.counting(world).headers(plan)

    def scale(self, world: World) -> Plan | None:
        """Return direct reads of a pool's documents, which show how fast this machine is.

        They are sent to the CouchDB of SCALE_URL. If that is not the measured one, it gets a copy
        of the pool.

        :returns: None if there is no such CouchDB
        """
        if not self.options.scale_url:
            return None
        if self.options.scale_url == self.url:
            return world.couch.plan(world.raw_details())
        if world.size not in self._scales:
            couch = Couch(self.options.scale_url, f"{self.prefix}scale{world.size}-")
            if couch.engine()[0] != "couchdb":
                raise BenchError("SCALE_URL: a CouchDB is needed")
            copy = couch.database("dedicated_ips")
            copy.create()
            self._running.callback(copy.delete)
            copy.load(world.documents())
            copy.build(couch.design("ips"))
            couch.wait_until_idle()
            couch.headers = world.couch.headers | couch.login
            reads = map(copy.read, addresses(range(100, 600)))
            self._scales[world.size] = couch.plan(reads)
        return self._scales[world.size]

    def workers(self) -> list[int]:
        """Return the process ids of the workers of all services that were used so far."""
        running = [world.service for world in self.worlds.values() if world.is_serving]
        return [pid for service in running for pid in service.workers()]


def fetch(plan: Plan, request: Request | None = None) -> bytes:
    """Return the reply to a request of a plan, by default to its first one.

    :raises BenchError: the request fails
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
