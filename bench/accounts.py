"""Rows about many accounts: 10,000 with ten addresses each, if SIZES includes 100,000."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import measure
from bench.context import Bench
from bench.crowd import Crowd
from bench.measure import Leg, Spread
from bench.row import Goal, Row, loads, rates, times
from bench.world import addresses
from bench.wrk import Plan, Request
from kazoo_ips import app
from kazoo_ips.config import Settings
from kazoo_ips.repositories.accounts import account_database

_EACH = 10
_READERS = 4
"""Number of concurrent direct reads, as many as the doctor sends."""


def accounts(bench: Bench) -> Iterator[Row]:
    """Read by many accounts and by one, and let the doctor examine all of them."""
    crowd = bench.crowd(min(10_000, bench.options.sizes[-1] // _EACH), _EACH)
    many = f"{len(crowd.ids):,} accounts"
    for what, path in (("one address", ""), ("assigned", "/assigned")):
        legs = [
            Leg("many accounts", _reads(crowd, path, len(crowd.ids))),
            Leg("one account", _reads(crowd, path, 1)),
        ]
        measured = measure.alternate(
            legs, bench.options.rounds, bench.options.seconds, bench.options.connections[0]
        )
        yield Row(
            "accounts",
            f"{what}, {many} in turn, p50",
            "one account",
            Goal(),
            measure.ratio(measured, "many accounts", "one account", lambda load: load.p50_ms),
            f"{times(measured)}; {rates(measured)}",
            loads(measured),
        )
    yield _doctor(bench, crowd, many)


def _reads(crowd: Crowd, path: str, accounts_: int) -> Plan:
    """Return reads by the operator, which may read all accounts with one token."""
    requests = []
    for n in range(accounts_):
        [first, *_] = addresses(crowd.numbers_of(n)[:1])
        below = path or f"/{first}"
        requests.append(Request("GET", f"/v2/accounts/{crowd.ids[n]}/ips{below}"))
    return crowd.plan(requests, crowd.operator)


def doctor(bench: Bench) -> list[Row]:
    """Let the doctor examine the largest pool, whose addresses belong to few accounts."""
    world = bench.large
    world.couch.wait_until_idle()
    changes = f"{world.pool.path}/_changes?include_docs=true"
    return [
        Row(
            "doctor",
            f"the doctor, a pool of {world.size:,} addresses",
            "one read of all documents of the pool",
            Goal(at_most=2),
            *_examined(bench, world.settings, lambda: world.couch.timed("GET", changes)),
        )
    ]


def _doctor(bench: Bench, crowd: Crowd, many: str) -> Row:
    """Compare the doctor with one read of each database that it has to read."""
    return Row(
        "accounts",
        f"the doctor, {many} with {_EACH} addresses each",
        "one read of all documents of the pool and of each account",
        Goal(at_most=3),
        *_examined(bench, crowd.settings, lambda: _read_directly(crowd)),
    )


def _examined(
    bench: Bench, settings: Settings, read: Callable[[], float]
) -> tuple[Spread, str, dict[str, Any]]:
    """Let the doctor examine a pool, and read its documents directly, in turns.

    :param read: reads them, and returns the seconds that this took
    :returns: the value, the note and the raw figures of a row
    """
    doctor, direct = [], []
    for _ in range(min(bench.options.rounds, 3)):
        services = app.build(settings)
        start = time.perf_counter()
        found = list(services.doctor.examine())
        doctor.append(time.perf_counter() - start)
        direct.append(read())
    note = (
        f"{Spread.of(doctor).median:.1f} s, {len(found)} findings; "
        f"the reads {Spread.of(direct).median:.1f} s"
    )
    ratio = Spread.of(d / r for d, r in zip(doctor, direct, strict=True))
    return ratio, note, {"seconds": doctor, "read_seconds": direct}


def _read_directly(crowd: Crowd) -> float:
    start = time.perf_counter()
    crowd.couch.send("GET", f"{crowd.pool.path}/_changes?include_docs=true")
    with ThreadPoolExecutor(_READERS) as readers:
        reading = [
            readers.submit(
                crowd.couch.send,
                "GET",
                f"{crowd.couch.database(account_database(each)).path}/_all_docs?include_docs=true",
            )
            for each in crowd.ids
        ]
        for each in reading:
            each.result()
    return time.perf_counter() - start
