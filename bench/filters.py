"""Rows about filters of lists: the cost of a page in a large pool, and of building their view."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench import measure
from bench.context import Bench
from bench.measure import Leg, Spread
from bench.row import Goal, Row
from bench.world import World
from bench.wrk import Plan, Request

_VIEW = "by_address_or_time"
_FILTERS = {
    "status=all": "status=all",
    "family=4": "status=all&family=4",
    "cidr=…/26": "status=all&cidr=198.18.3.0/26",
    "cidr=…/16": "status=all&cidr=198.18.0.0/16",
    "modified_from=, all match": "status=all&modified_from=0",
    "modified_from=, none matches": "status=all&modified_from=2100-01-01",
}
_MOST_BUILDS = 60
"""Seconds of one build of both indexes from which it is not repeated."""


def filters(bench: Bench) -> Iterator[Row]:
    """A page of each filter of the operator's list, in a large and a small pool."""
    if len(bench.options.sizes) < 2:
        return
    sent: dict[int, list[int]] = {}
    for world in (bench.small, bench.large):
        service = bench.counting(world)
        # The first request of the plan fills the caches, that of the zones included.
        warm = _plan(world, _FILTERS["status=all"])
        counted = [service.count(warm, _request(query)) for query in _FILTERS.values()]
        sent[world.size] = [len(each.sent) for each in counted]
    for number, (name, query) in enumerate(_FILTERS.items()):
        small, large = bench.small, bench.large
        legs = [Leg(f"{world.size:,}", _plan(world, query)) for world in (large, small)]
        measured = measure.alternate(
            legs, bench.options.rounds, bench.options.seconds, bench.options.connections[0]
        )
        times = ", ".join(
            f"{leg} {Spread.of(load.p50_ms for load in loads).median:.2f} ms"
            for leg, loads in measured.items()
        )
        requests = " and ".join(str(counts[number]) for counts in sent.values())
        yield Row(
            "filters",
            f"`GET /v2/ips`, a page with {name}, p50 at {large.size:,}",
            f"the same at {small.size:,}",
            Goal(at_most=1.5),
            measure.ratio(measured, legs[0].name, legs[1].name, lambda load: load.p50_ms),
            f"p50 {times}; requests to CouchDB at {small.size:,} and {large.size:,}: {requests}",
            {"requests": {size: counts[number] for size, counts in sent.items()}},
        )


def index(bench: Bench) -> list[Row]:
    """The index of all our views, compared with one without the view of the filters."""
    world = bench.middle
    pairs = [_build(world)]
    while len(pairs) < bench.options.rounds and sum(pairs[0]) < _MOST_BUILDS:
        pairs.append(_build(world))
    each = Spread.of(1000 * (whole - without) / world.size for whole, without in pairs)
    return [
        Row(
            "index",
            f"index of `_design/ips` at {world.size:,}",
            f"without `{_VIEW}`",
            Goal(),
            Spread.of(whole / without for whole, without in pairs),
            f"the view takes {each.median:.3f} ms for each written address",
            {"seconds": pairs},
        )
    ]


def _build(world: World) -> tuple[float, float]:
    """Return the seconds in which the index with and without the view is built."""
    whole = world.couch.design("ips")
    views: Mapping[str, Any] = {k: v for k, v in whole["views"].items() if k != _VIEW}
    copy = world.couch.database("indexed")
    copy.create()
    try:
        copy.load(world.documents())
        world.couch.wait_until_idle()
        with_view = copy.build(whole)
        world.couch.wait_until_idle()
        return with_view, copy.build({**whole, "_id": "_design/without", "views": views})
    finally:
        copy.delete()


def _request(query: str) -> Request:
    return Request("GET", f"/v2/ips?{query}")


def _plan(world: World, query: str) -> Plan:
    return world.plan([_request(query)], world.operator)
