"""Rows about the archiver of the history: how fast it is, and how much it slows requests.

For the comparison without the archiver, the benchmark holds the lease of the archiver, so that no
process of the same service archives.
"""

import json
import time
from collections.abc import Callable, Iterator
from statistics import quantiles
from threading import Event, Thread

from bench import BenchError, measure, wrk
from bench.context import Bench
from bench.measure import Spread
from bench.row import Goal, Row, loads, rates
from bench.world import World, addresses, gregorian_now, host, zone
from bench.wrk import Load, Request
from kazoo_ips.couch.client import Document
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.documents import to_document
from kazoo_ips.repositories.history_years import database_name, year

_CHANGES_PER_SECOND = 200
_WRITES_PER_SECOND = 10
_LAG_SECONDS = 20
"""Seconds for which changes are made, to measure the lag of their events."""
_EVENTS = 10_000
"""Number of events of the backlog whose rate is measured."""


# How fast the archiver is.


def archiver(bench: Bench) -> Iterator[Row]:
    """Measure the events per second of a backlog, and the lag behind a stream of changes."""
    world = bench.empty
    rounds = [_backlog(world, n) for n in range(min(bench.options.rounds, 3))]
    size = world.couch.send("GET", _history(world))["sizes"]["active"]
    views = world.couch.send("GET", f"{_history(world)}/_design/history/_info")
    indexed = views["view_index"]["sizes"]["active"]
    count = len(rounds) * _EVENTS
    yield Row(
        "archiver",
        f"archiver, backlog of {_EVENTS:,} changes, events/s",
        "events per second",
        Goal(at_least=1000),
        Spread.of(rounds),
        f"an event takes {size / count:.0f} bytes, and {indexed / count:.0f} in the indexes",
        {"rates": rounds},
    )
    lags = _lags(world)
    p99 = quantiles(lags, n=100)[98]
    yield Row(
        "archiver",
        f"archiver, {_CHANGES_PER_SECOND} changes/s, p99 from a change to its event in the feed",
        "seconds",
        Goal(at_most=5),
        Spread(p99, min(lags), max(lags), len(lags)),
        f"p50 {quantiles(lags, n=2)[0]:.1f} s; in brackets the extremes of {len(lags):,} events",
        {"lags": [round(lag, 3) for lag in lags]},
    )


def _history(world: World) -> str:
    return world.couch.database(database_name(year(gregorian_now()))).path


def _created(numbers: range) -> list[Document]:
    """Return documents of new addresses as the service writes them, each with one event."""
    now = gregorian_now()
    made = (
        DedicatedIP.new(a, zone(n), host(n), at=now, request_id=f"{n:032x}")
        for n, a in zip(numbers, addresses(numbers), strict=True)
    )
    return [to_document(ip) for ip in made]


def _backlog(world: World, n: int) -> float:
    """Return the events per second at which the service archives new documents of a pool."""
    world.service  # noqa: B018 - the first use starts it
    world.wait_for_archiver()
    with world.without_archiver():
        world.pool.load(_created(range(n * _EVENTS, (n + 1) * _EVENTS)))
        world.pool.resolve(["ips"])
        world.couch.wait_until_idle()
    first, counted, end = 0.0, 0, time.monotonic() + 600
    while time.monotonic() < end:
        count = int(world.couch.send("GET", _history(world))["doc_count"]) - n * _EVENTS
        if count >= _EVENTS and first:
            return (count - counted) / (time.monotonic() - first)
        if count > _EVENTS // 20 and not first:  # until then a worker has waited for the lease
            first, counted = time.monotonic(), count
        time.sleep(0.1)
    raise BenchError(f"the archiver has not stored {_EVENTS} events")


def _lags(world: World) -> list[float]:
    """Return the seconds between each change and the moment at which the feed has its event."""
    world.wait_for_archiver()
    written: dict[str, float] = {}
    seen: dict[str, float] = {}
    over = Event()
    since = world.couch.send("GET", f"{_history(world)}/_changes?since=now")["last_seq"]
    reader = Thread(target=_read, args=(world, since, seen, over))
    reader.start()
    each = _CHANGES_PER_SECOND // _WRITES_PER_SECOND
    begin = time.monotonic()
    for n in range(_LAG_SECONDS * _WRITES_PER_SECOND):
        time.sleep(max(0.0, begin + n / _WRITES_PER_SECOND - time.monotonic()))
        documents = _created(range(90_000 + n * each, 90_000 + (n + 1) * each))
        world.couch.send("POST", f"{world.pool.path}/_bulk_docs", {"docs": documents})
        written |= dict.fromkeys((d["_id"] for d in documents), time.monotonic())
    end = time.monotonic() + 60
    while len(seen) < len(written) and time.monotonic() < end:
        time.sleep(0.1)
    over.set()
    reader.join()
    if len(seen) < len(written):
        raise BenchError(f"the feed has {len(seen)} of {len(written)} events")
    return [seen[address] - at for address, at in written.items()]


def _read(world: World, since: str, seen: dict[str, float], over: Event) -> None:
    while not over.is_set():
        path = f"{_history(world)}/_changes?include_docs=true&since={since}"
        feed = world.couch.send("GET", path)
        now, since = time.monotonic(), feed["last_seq"]
        for row in feed["results"]:
            seen.setdefault(row["doc"].get("ip", ""), now)
        time.sleep(0.05)


# How much the archiver slows requests.

_CALLS = {
    "assign": ("POST", "{ip}", ""),
    "release": ("DELETE", "{ip}", ""),
    "allocate": ("POST", "", json.dumps({"data": {"quantity": 1}})),
}
"""The measured calls: method, path below the account's addresses, and body."""
_SECONDS, _MOST = 6, 500
"""The seconds of one run, and a limit of calls per second. The pool gets an address for each call
that a run can make. The archiver starts after two seconds of the run."""


def cost(bench: Bench) -> Iterator[Row]:
    """Measure assignments, releases and allocations with and without the archiver."""
    world = bench.writes
    world.service  # noqa: B018 - the first use starts it
    rounds = []
    for _ in range(min(bench.options.rounds, 3)):
        with world.without_archiver():
            without = _loads(bench, world, lambda: None)
        world.wait_for_archiver()
        rounds.append((_loads(bench, world, world.wait_for_archiver), without))
    for key in rounds[0][0]:
        name, connections = key
        measured = {
            leg: [each[index][key] for each in rounds]
            for index, leg in enumerate(("with", "without"))
        }
        alone = connections == 1
        yield Row(
            "archiver_cost",
            f"{name}, {connections} connection{'' if alone else 's'}, seconds per call",
            "the same without the archiver",
            Goal(at_most=1.05),
            measure.ratio(measured, "without", "with", lambda load: load.rate),
            rates(measured),
            loads(measured),
        )


def _loads(bench: Bench, world: World, settle: Callable[[], None]) -> dict[tuple[str, int], Load]:
    """Measure each call once, with one connection and with several."""
    found = {}
    for name, (method, path, body) in _CALLS.items():
        for connections in (1, bench.options.connections[0]):
            numbers = world.available(_MOST * _SECONDS)
            world.give(numbers, world.measured if method == "DELETE" else None)
            below = f"{world.measured.ips}/{path}".rstrip("/")
            requests = [Request(method, below.format(ip=a), body) for a in addresses(numbers)]
            settle()
            load = wrk.run(world.plan(requests), connections, _SECONDS)
            if load.errors:
                raise BenchError(f"{name}: {load.errors} of {load.requests} requests failed")
            found[name, connections] = load
    return found
