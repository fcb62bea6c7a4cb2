"""Rows about processes: memory, start, many clients at once, the first build of an index."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

from bench import BenchError, kazoo_views, wrk
from bench.context import Bench, fetch
from bench.measure import Spread
from bench.row import Goal, Row, loads
from bench.servers import Gunicorn, memory, processor_time, reset_peak
from bench.world import OURS, World
from bench.wrk import Plan, Request

_CLIENTS = 64
_MOST_BUILDS = 150.0
"""A comparison of index builds that takes more seconds than this is made only once."""


def everything(bench: Bench) -> list[Row]:
    """`paginate=false` over the whole pool, by the operator: memory, first byte and speed."""
    world = bench.large
    path = "/v2/ips?paginate=false"
    available = urlencode({"startkey": '["available"]', "endkey": '["available",{}]'})
    view = f"{world.pool.path}/_design/ips/_view/by_zone?reduce=false&{available}"
    # The service archives the addresses first, which would slow the lists.
    _ = world.service
    world.wait_for_archiver()
    grown, first_bytes, seconds, csv_seconds, view_seconds = [], [], [], [], []
    for _ in range(bench.options.rounds):
        # A new service each time, because a process does not return memory that it has used.
        with Gunicorn(world.environment) as service:
            plan = _at(service, world.plan([Request("GET", "/v2/ips")], world.operator))
            wrk.run(plan, bench.options.connections[0], 1)
            before = {pid: memory(pid) for pid in service.workers()}
            for pid in before:
                reset_peak(pid)
            first_byte, whole = _stream(plan, path)
            grown.append(max(memory(pid, "VmHWM") - was for pid, was in before.items()))
            first_bytes.append(first_byte)
            seconds.append(whole)
            csv = replace(plan, headers={**plan.headers, "Accept": "text/csv"})
            csv_seconds.append(_stream(csv, path)[1])
            view_seconds.append(world.couch.timed("GET", view))
    what = f"`GET /v2/ips?paginate=false` over {world.size:,}"
    took = f"{Spread.of(seconds).median:.1f} s in all"
    return [
        Row(
            "stream",
            f"{what}, memory in MB",
            "the worker before",
            Goal(at_most=32),
            Spread.of(grown),
            took,
            {"seconds": seconds},
        ),
        Row(
            "stream",
            f"{what}, time of the first byte",
            "whole time",
            Goal(at_most=0.10),
            Spread.of(first / whole for first, whole in zip(first_bytes, seconds, strict=True)),
            f"{Spread.of(first_bytes).median:.3f} s of {took}",
            {"seconds": first_bytes},
        ),
        Row(
            "stream",
            f"{what}, addresses/s",
            "CouchDB streams the view",
            Goal(at_least=0.7),
            Spread.of(v / s for v, s in zip(view_seconds, seconds, strict=True)),
            f"{took}; the view {Spread.of(view_seconds).median:.1f} s",
            {"seconds": seconds, "view_seconds": view_seconds},
        ),
        Row(
            "stream",
            f"{what}, addresses/s as CSV",
            "as JSON",
            Goal(at_least=0.95),
            Spread.of(s / c for s, c in zip(seconds, csv_seconds, strict=True)),
            f"{Spread.of(csv_seconds).median:.1f} s in all",
            {"seconds": csv_seconds},
        ),
    ]


def _stream(plan: Plan, path: str) -> tuple[float, float]:
    """Return the seconds until the first byte of a reply's body, and until the last."""
    connection = HTTPConnection(urlsplit(plan.url).netloc, timeout=600)
    start = time.perf_counter()
    connection.request("GET", path, headers=dict(plan.headers))
    reply = connection.getresponse()
    reply.read(1)
    first = time.perf_counter() - start
    while reply.read(65_536):
        pass
    whole = time.perf_counter() - start
    connection.close()
    if reply.status != 200:
        raise BenchError(f"{path}: {reply.status}")
    return first, whole


def build(bench: Bench) -> list[Row]:
    """The first build of our design document, and of Kazoo's."""
    rows = []
    for size in bench.options.sizes:
        world = bench.world(size)
        _ = world.kazoo
        pairs = [(world.seconds["ours"], world.seconds["kazoo"])]
        while len(pairs) < bench.options.rounds and sum(pairs[0]) < _MOST_BUILDS:
            pairs.append(_build(world))
        ours = Spread.of(own for own, _ in pairs).median
        theirs = Spread.of(kazoo for _, kazoo in pairs).median
        rows.append(
            Row(
                "build",
                f"first build of our design document at {size:,}",
                "Kazoo's",
                Goal(at_most=0.5) if world is bench.large else Goal(),
                Spread.of(own / kazoo for own, kazoo in pairs),
                f"{ours:.1f} s; Kazoo's {theirs:.1f} s",
                {"seconds": pairs},
            )
        )
    return rows


def _build(world: World) -> tuple[float, float]:
    """Return the seconds of both builds in another database with the same documents."""
    copy = world.couch.database("built")
    copy.create()
    try:
        copy.load(world.documents())
        world.couch.wait_until_idle()
        ours = sum(copy.build(copy.couch.design(name)) for name in OURS)
        world.couch.wait_until_idle()
        return ours, copy.build(kazoo_views.DESIGN)
    finally:
        copy.delete()


def clients(bench: Bench) -> list[Row]:
    """64 clients on two workers: the ratio of p99 to p50, and the number of errors."""
    world = bench.middle
    plan = world.plan(world.details())
    runs = [
        wrk.run(plan, _CLIENTS, max(bench.options.seconds, 3)) for _ in range(bench.options.rounds)
    ]
    p99 = Spread.of(load.p99_ms for load in runs).median
    return [
        Row(
            "clients",
            f"{_CLIENTS} clients on 2 workers, `GET …/ips/{{ip}}`: p99",
            "p50",
            Goal(at_most=10),
            Spread.of(load.p99_ms / load.p50_ms for load in runs),
            f"p99 {p99:.0f} ms",
            loads({"service": runs}),
        ),
        Row(
            "clients",
            f"{_CLIENTS} clients on 2 workers: errors",
            f"of {sum(load.requests for load in runs):,} requests",
            Goal(at_most=0),
            Spread.greatest(float(load.errors) for load in runs),
        ),
    ]


def cold_start(bench: Bench) -> list[Row]:
    """The time from the end of a worker to the first authenticated reply of the next."""
    world = bench.middle
    seconds = []
    with Gunicorn({**world.environment, "KAZOO_IPS_WORKERS": "1"}) as service:
        plan = _at(service, world.plan(world.details(range(100, 101))))
        for _ in range(max(bench.options.rounds, 3)):
            fetch(plan)
            old = service.workers()
            start = time.perf_counter()
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            # The master owns the listening socket, where the request waits for the new worker.
            _fetch_from_next(plan)
            seconds.append(time.perf_counter() - start)
            if service.workers() == old:
                raise BenchError("the worker was not replaced")
    return [
        Row(
            "start",
            "cold start of a worker, to its first authorised reply",
            "seconds",
            Goal(at_most=1),
            Spread.of(seconds),
        )
    ]


def _fetch_from_next(plan: Plan) -> None:
    """Fetch from a worker that starts now. The killed one may still accept the connection."""
    end = time.monotonic() + 60
    while True:
        try:
            fetch(plan)
            return
        except BenchError:
            if time.monotonic() > end:
                raise


def cpu(bench: Bench) -> Iterator[Row]:
    """The processor time of the workers for one address, compared with the bare route."""
    world = bench.middle
    service = world.plan(world.details())
    plans = {"service": service, "bare": bench.bare("cpu", service)}
    for connections in (1, *bench.options.connections):
        used: dict[str, list[float]] = {name: [] for name in plans}
        for plan in plans.values():
            wrk.run(plan, connections, 1)
        # Not earlier: a gunicorn that answers may still have to start its second worker.
        workers = {"service": world.service.workers(), "bare": bench.bare_workers()}
        for _ in range(bench.options.rounds):
            for name, plan in plans.items():
                before = processor_time(workers[name])
                load = wrk.run(plan, connections, bench.options.seconds)
                if load.errors or not load.requests:
                    raise BenchError(f"{name}: {load.errors} of {load.requests} requests failed")
                used[name].append((processor_time(workers[name]) - before) * 1e6 / load.requests)
        note = ", ".join(f"{name} {Spread.of(each).median:.0f} µs" for name, each in used.items())
        yield Row(
            "cpu",
            f"`GET …/ips/{{ip}}`, {connections} connections, processor time",
            "the bare route",
            Goal(),
            Spread.of(a / b for a, b in zip(used["service"], used["bare"], strict=True)),
            note,
            {"microseconds": used},
        )


def worker_memory(bench: Bench) -> list[Row]:
    """The memory of all workers at the end of the run."""
    world = bench.middle
    wrk.run(world.plan(world.details()), bench.options.connections[0], 1)
    return [
        Row(
            "memory",
            "RSS of a worker after the whole run",
            "MB",
            Goal(at_most=80),
            Spread.greatest(memory(pid) for pid in bench.workers()),
            "the greatest",
        )
    ]


def _at(service: Gunicorn, plan: Plan) -> Plan:
    return Plan(service.url, plan.requests, plan.headers)
