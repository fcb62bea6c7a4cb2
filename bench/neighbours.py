"""The row about the rate limit: how much an account at full speed slows another account."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from statistics import quantiles
from urllib.parse import urlsplit

from bench import BenchError, wrk
from bench.context import Bench
from bench.measure import Spread
from bench.row import Goal, Row
from bench.servers import Gunicorn
from bench.world import World, addresses
from bench.wrk import Plan

_CONNECTIONS = 32
"""Connections of the account at full speed, which sends without pauses, whatever the reply."""
_PER_SECOND = 40
"""Requests per second of the other account, below its limit."""
_SETTLE = 8
"""Seconds in which the first account empties its bucket, on a slow machine too."""
_SECONDS = 5
"""Minimum duration of a run: p99 of 200 requests."""


def neighbours(bench: Bench) -> list[Row]:
    """The p99 of one account while another sends as fast as it can, with limits and without."""
    world = bench.middle
    limits = {"KAZOO_IPS_ACCOUNT_LIMIT": "", "KAZOO_IPS_CLIENT_LIMIT": ""}  # the defaults
    with (
        Gunicorn({**world.environment, **limits}) as limited,
        Gunicorn(world.environment) as unlimited,
    ):
        world.wait_for_archiver(by_another=True)
        rounds = [
            {
                "alone": _alone(world, limited, bench.options.seconds),
                "limited": _measure(world, limited, bench.options.seconds),
                "unlimited": _measure(world, unlimited, bench.options.seconds),
            }
            for _ in range(bench.options.rounds)
        ]
    p99 = {name: Spread.of(each[name] for each in rounds) for name in rounds[0]}
    without = Spread.of(each["unlimited"] / each["alone"] for each in rounds)
    return [
        Row(
            "neighbours",
            f"`GET …/ips/{{ip}}`, p99 while another account sends on {_CONNECTIONS} connections",
            "p99 alone",
            Goal(at_most=2),
            Spread.of(each["limited"] / each["alone"] for each in rounds),
            f"alone {p99['alone'].median:.1f} ms, beside {p99['limited'].median:.1f} ms; without"
            f" limits {p99['unlimited'].median:.1f} ms, {without.median:.1f} times",
            {"p99_ms": rounds},
        )
    ]


def _measure(world: World, service: Gunicorn, seconds: int) -> float:
    """Return the p99 in milliseconds while the measured account sends at full speed."""
    seconds = max(seconds, _SECONDS)
    flood = replace(world.plan(world.details()), url=service.url)
    with ThreadPoolExecutor(1) as background:
        running = background.submit(wrk.run, flood, _CONNECTIONS, _SETTLE + seconds + 1)
        time.sleep(_SETTLE)
        figure = _alone(world, service, seconds)
        load = running.result()
    if load.connect_errors + load.read_errors + load.write_errors + load.timeouts:
        raise BenchError(f"the account at full speed: {load}")
    return figure


def _alone(world: World, service: Gunicorn, seconds: int) -> float:
    """Return the p99 in milliseconds of requests of the operator, sent at a steady rate.

    :raises BenchError: a request fails
    """
    plan = Plan(service.url, (), {"X-Auth-Token": world.operator.token})
    connection = HTTPConnection(urlsplit(plan.url).netloc, timeout=60)
    paths = [f"/v2/ips/{address}" for address in addresses(range(100, 600))]
    took = []
    begin = time.perf_counter()
    for number in range(max(seconds, _SECONDS) * _PER_SECOND):
        due = begin + number / _PER_SECOND
        time.sleep(max(due - time.perf_counter(), 0))
        connection.request("GET", paths[number % len(paths)], headers=dict(plan.headers))
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise BenchError(f"the other account: {reply.status}")
        # The time counts from when the request was due. Otherwise a slow reply, which delays later
        # requests, would not lengthen their times.
        took.append((time.perf_counter() - due) * 1000)
    connection.close()
    return quantiles(took, n=100)[98]
