"""Rows about a mixed load: 80 % reads of an address, 15 % lists, 5 % writes, in random order."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench import wrk
from bench.context import Bench
from bench.measure import Spread
from bench.row import Goal, Row, loads
from bench.servers import Gunicorn
from bench.world import World, addresses, zone
from bench.wrk import Load, Plan, Request

_CLIENTS = (1, 8, 32, 128)
LISTS = ("/assigned?page_size=100", "", f"?zone={zone(3)}", "/zones")
"""The lists of the mixture, below the path of an account's addresses."""
_MOST_PER_SECOND = 4000
"""More requests per second than the machine can handle, so that there are enough writes."""


def day(bench: Bench) -> Iterator[Row]:
    """Send a day's mixture to one instance, and to three at the same time."""
    world = bench.writes
    with ExitStack() as running:
        instances = [world.service]
        for count in (1, 3):
            while len(instances) < count:
                instances.append(running.enter_context(Gunicorn(world.environment)))
            for clients in _CLIENTS:
                measured = [
                    _run(bench, world, instances, clients) for _ in range(bench.options.rounds)
                ]
                yield _row(count, clients, measured)


def _row(instances: int, clients: int, measured: Sequence[Load]) -> Row:
    def median(name: str) -> float:
        return Spread.of(getattr(load, name) for load in measured).median

    many = f"{clients} client{'s'[: clients - 1]}, {instances} instance{'s'[: instances - 1]}"
    return Row(
        "day",
        f"a day's mixture, {many}",
        "requests that failed",
        Goal(at_most=0),
        Spread.greatest(load.errors for load in measured),
        f"{median('rate'):.0f} requests/s, p50 {median('p50_ms'):.1f} ms, "
        f"p95 {median('p95_ms'):.1f} ms, p99 {median('p99_ms'):.1f} ms",
        loads({"day": measured}),
    )


def _run(bench: Bench, world: World, instances: Sequence[Gunicorn], clients: int) -> Load:
    seconds = bench.options.seconds
    plan = _mixture(world, _MOST_PER_SECOND * seconds)
    urls = [each.url for each in instances][:clients]
    world.wait_for_archiver()
    wrk.run(world.plan(world.details()), clients, 1)
    each = -(-clients // len(urls))
    return wrk.run(Plan(urls[0], plan.requests, plan.headers, True, tuple(urls[1:])),
                   each * len(urls), seconds)  # fmt: skip


def _mixture(world: World, count: int) -> Plan:
    """Return this number of requests of one account, in random order, each write to another
    address.
    """
    chance, ours = random.Random(count), world.measured
    writes = world.available(count // 20)
    taken, free = writes[::2], writes[1::2]
    world.give(free, None)
    world.give(taken, ours)
    requests = [ours.single("POST", each) for each in addresses(free)]
    requests += [ours.single("DELETE", each) for each in addresses(taken)]
    requests += [Request("GET", ours.ips + chance.choice(LISTS)) for _ in range(count * 15 // 100)]
    details = world.details()
    requests += [chance.choice(details) for _ in range(count - len(requests))]
    chance.shuffle(requests)
    return world.plan(requests)
