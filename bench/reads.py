"""Rows about reads: one address, lists and names, in pools of several sizes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence

from bench import BenchError, measure, wrk
from bench.context import Bench, fetch
from bench.couch import shown
from bench.measure import Leg, Spread
from bench.row import Goal, Row, loads, rates, times
from bench.world import World, host, zone
from bench.wrk import Plan, Request

_LONGEST = 45
"""Maximum seconds of one measurement of Kazoo's lists."""


def _get(world: World, path: str) -> Plan:
    return world.plan([Request("GET", world.measured.ips + path)])


# Reads, compared with the most that the route could reach.


def detail(bench: Bench) -> Iterator[Row]:
    """One address, read by a user of an account."""
    world = bench.middle
    bench.as_service(world)
    service, raw = world.plan(world.details()), world.couch.plan(world.raw_details())
    legs = [
        Leg("service", service),
        Leg("bare", bench.bare("detail", service)),
        Leg("document", raw),
    ]
    for connections in bench.options.connections:
        measured = _alternate(bench, legs, connections)
        share = measure.share_of_limit(measured, "service", "bare", ["document"])
        yield Row(
            "detail",
            f"`GET …/ips/{{ip}}`, {connections} connections",
            "L with one document read",
            Goal(at_least=0.80),
            share,
            rates(measured),
            loads(measured),
        )


def requests(bench: Bench) -> list[Row]:
    """The number of CouchDB requests of each kind of authorised read."""
    world = bench.middle
    plan, service = world.plan(world.details(range(100, 120))), bench.counting(world)
    lists = ["", "/assigned?page_size=100", "/zones", "/hosts"]
    reads = [*plan.requests, *(_get(world, path).requests[0] for path in lists)]
    counted = [service.count(plan, request) for request in reads]
    under_load = Plan(service.url, plan.requests, plan.headers)
    wrk.run(under_load, 4, 1)
    service.clear()
    done = wrk.run(under_load, 4, 4)
    mean = service.per_request(done.requests)
    sent = sorted({shown(line) for each in counted for line in each.sent})
    return [
        Row(
            "requests",
            "CouchDB requests per authorised read, warm",
            "counted at the database",
            Goal(at_least=1, at_most=1),
            Spread.of(len(each.sent) for each in counted),
            f"address, lists and names; {mean:.3f} under load, lookups of accounts included",
            {"sent": sent, "per_request_under_load": mean},
        )
    ]


def assigned(bench: Bench) -> list[Row]:
    """The list of the account's 100 addresses."""
    world = bench.middle
    account = world.measured.account.id
    view = world.pool.view(
        "ips",
        "by_assignee",
        startkey=[account],
        endkey=[account, {}],
        limit=101,
        reduce=False,
        buffer_response=True,
    )
    return _list(bench, "assigned", "/assigned?page_size=100", view, "100 addresses")


def page(bench: Bench) -> list[Row]:
    """The first page of the available addresses."""
    view = bench.middle.pool.view(
        "ips",
        "by_zone",
        startkey=["available"],
        endkey=["available", {}],
        limit=51,
        reduce=False,
        buffer_response=True,
    )
    return _list(bench, "page", "", view, "one page")


def _list(bench: Bench, name: str, path: str, view: Request, what: str) -> list[Row]:
    world = bench.middle
    bench.as_service(world)
    service = _get(world, path)
    legs = [
        Leg("service", service),
        Leg("bare", bench.bare(name, service)),
        Leg("view", world.couch.plan([view])),
    ]
    measured = _alternate(bench, legs, bench.options.connections[0])
    short = path.partition("?")[0]
    return [
        Row(
            name,
            f"`GET …/ips{short}`, {what}, {bench.options.connections[0]} connections",
            "L with one view read",
            Goal(at_least=0.75),
            measure.share_of_limit(measured, "service", "bare", ["view"]),
            rates(measured),
            loads(measured),
        )
    ]


# Lists, compared with Kazoo's views.


def zones(bench: Bench) -> Iterator[Row]:
    """The names of zones."""
    return _names(bench, "zones", "zone_listing")


def hosts(bench: Bench) -> Iterator[Row]:
    """The names of hosts."""
    return _names(bench, "hosts", "host_listing")


def _names(bench: Bench, name: str, view: str) -> Iterator[Row]:
    yield from _growth(bench, name, f"`GET …/ips/{name}`", f"/{name}", most=1.5)
    for size in bench.options.sizes:
        if size > 1000 or len(bench.options.sizes) == 1:
            yield _against_kazoo(bench, bench.world(size), name, view)


def _against_kazoo(bench: Bench, world: World, name: str, view: str) -> Row:
    bench.as_service(world)
    kazoo = world.couch.plan([world.kazoo.view("dedicated_ips", view, group=True)])
    # One client for both, which is an advantage for Kazoo's view. The first request shows how long
    # the view takes.
    once = _once(world, kazoo.requests[0].path)
    seconds = max(bench.options.seconds, min(_LONGEST, int(once * 3) + 1))
    rounds = bench.options.rounds if seconds < 10 else 1
    legs = [Leg("service", _get(world, f"/{name}")), Leg("Kazoo's view", kazoo, seconds, once)]
    measured = measure.alternate(legs, rounds, bench.options.seconds, 1)
    return Row(
        name,
        f"`GET …/ips/{name}` at {world.size:,} addresses",
        f"Kazoo's `{view}`, times faster (p50)",
        Goal(at_least=20),
        measure.ratio(measured, "Kazoo's view", "service", lambda load: load.p50_ms),
        times(measured),
        loads(measured),
    )


def _once(world: World, path: str) -> float:
    """Return the seconds of one read.

    :raises BenchError: it takes longer than a minute, CouchDB's own timeout
    """
    try:
        return world.couch.timed("GET", path)
    except BenchError as error:
        time.sleep(_LONGEST)  # CouchDB goes on working for a while
        raise BenchError(
            f"{path.partition('?')[0]} is too slow to be measured: {error}"
        ) from error


# Reads in pools of different sizes.


def growth(bench: Bench) -> Iterator[Row]:
    """A filtered page, the assigned addresses and one address, in a large and a small pool."""
    by_host = f"?host={host(3)}&page_size=5"
    yield from _growth(bench, "growth", "`GET …/ips?zone=`, one page", f"?zone={zone(3)}")
    yield from _growth(bench, "growth", "`GET …/ips?host=`, one page of 5", by_host)
    yield from _growth(bench, "growth", "`GET …/ips/assigned`", "/assigned?page_size=100")
    yield from _growth(bench, "growth", "`GET …/ips/{ip}`", None)


def summary(bench: Bench) -> Iterator[Row]:
    """The operator's counts, by one client, in a large and a small pool."""
    for by in ("", "?by=zone", "?by=host", "?by=account"):
        path = f"/v2/ips/summary{by}"
        yield from _growth(bench, "summary", f"`GET {path}`", path, connections=1)


def _growth(  # noqa: PLR0913 - what is measured, and how
    bench: Bench,
    name: str,
    what: str,
    path: str | None,
    *,
    most: float = 1.3,
    connections: int | None = None,
) -> Iterator[Row]:
    """Compare the largest and the smallest pool.

    :param path: the operator's if it is a whole one, otherwise below the addresses of the measured
        account; None for addresses in turn
    """

    def plan(world: World) -> Plan:
        if path is None:
            return world.plan(world.details())
        if path.startswith("/v2/"):
            return world.plan([Request("GET", path)], world.operator)
        return _get(world, path)

    small, large = bench.small, bench.large
    if small is large:
        return
    legs = [Leg(f"{world.size:,}", plan(world)) for world in (large, small)]
    measured = _alternate(bench, legs, connections or bench.options.connections[0])
    yield Row(
        name,
        f"{what}, p50 at {large.size:,}",
        f"the same at {small.size:,}",
        Goal(at_most=most),
        measure.ratio(measured, legs[0].name, legs[1].name, lambda load: load.p50_ms),
        times(measured),
        loads(measured),
    )


def last_page(bench: Bench) -> list[Row]:
    """The last page of the available addresses, compared with the first."""
    world = bench.large
    last = _last_page(bench, world)
    legs = [Leg("last", _get(world, last)), Leg("first", _get(world, ""))]
    measured = _alternate(bench, legs, bench.options.connections[0])
    return [
        Row(
            "last_page",
            f"last page of `GET …/ips` at {world.size:,}, p50",
            "first page of the same walk",
            Goal(at_most=1.5),
            measure.ratio(measured, "last", "first", lambda load: load.p50_ms),
            times(measured),
            loads(measured),
        )
    ]


def _last_page(bench: Bench, world: World) -> str:
    """Return the query of the last page, found in large steps first and then page by page."""
    query = ""
    for step in (1000, 50):
        while True:
            path = f"{query or '?'}&page_size={step}" if step != 50 else query
            reply = json.loads(fetch(_get(world, path)))
            if "next_start_key" not in reply:
                break
            query = f"?start_key={reply['next_start_key']}"
    return query


# Compared with Kazoo's own figures.

_KAZOO: Mapping[str, Mapping[int, float]] = {
    "ips/{ip}": {1: 152, 8: 235, 32: 227},
    "ips/assigned": {1: 66, 8: 95, 32: 99},
    "ips": {1: 88, 8: 159, 32: 164},
    "ips/zones": {1: 5.5, 8: 6.3},
    "ips/hosts": {1: 0.8},
}
"""Requests per second of Kazoo's Crossbar with 10,000 addresses on two cores."""

KAZOO_RAW = {1: 545, 8: 997, 32: 1282}
"""Requests per second for reading a document from CouchDB on that machine. The ratio to the same
figure here makes the two machines comparable."""


def kazoo(bench: Bench) -> Iterator[Row]:
    """Every read compared with Kazoo's, with 1, 8 and 32 connections."""
    world = bench.middle
    bench.as_service(world)
    paths = {
        "ips/assigned": "/assigned?page_size=100",
        "ips": "",
        "ips/zones": "/zones",
        "ips/hosts": "/hosts",
    }
    legs = [
        Leg("ips/{ip}", world.plan(world.details())),
        *(Leg(name, _get(world, path)) for name, path in paths.items()),
    ]
    names = [leg.name for leg in legs]
    scale = bench.scale(world)
    if scale:
        legs.append(Leg("document", scale))
    for connections, raw in KAZOO_RAW.items():
        measured = _alternate(bench, legs, connections)
        for name in names:
            published = _KAZOO[name].get(connections)
            value = None
            if published and scale:
                pairs = zip(measured[name], measured["document"], strict=True)
                value = Spread.of(
                    service.rate / document.rate * raw / published for service, document in pairs
                )
            rates_of = Spread.of(load.rate for load in measured[name])
            least = 20 if name in ("ips/zones", "ips/hosts") else 2.5
            theirs = f"Kazoo {published:g}" if published else "Kazoo: all time out"
            p50 = Spread.of(load.p50_ms for load in measured[name]).median
            yield Row(
                "kazoo",
                f"`{name}`, {connections} connection{'s'[: connections - 1]}, requests/s",
                "Kazoo's, scaled by raw reads",
                Goal(at_least=least),
                value,
                f"{rates_of.median:.0f} requests/s (p50 {p50:.1f} ms); {theirs}",
                loads({each: measured[each] for each in (name, "document") if each in measured}),
            )


def _alternate(
    bench: Bench, legs: Sequence[Leg], connections: int
) -> Mapping[str, list[wrk.Load]]:
    return measure.alternate(legs, bench.options.rounds, bench.options.seconds, connections)
