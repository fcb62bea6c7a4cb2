"""Rows for many addresses: assigned or released by one request, or added from a file."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import BenchError
from bench.context import Bench, fetch
from bench.couch import shown
from bench.counting import Counted
from bench.measure import Spread
from bench.row import Goal, Row
from bench.scratch import Scratch
from bench.servers import ROOT
from bench.world import World, addresses, document, host, tombstone, zone
from bench.wrk import Request

_MANY = 1000
"""Addresses of a bulk request. Each round uses others, because CouchDB takes longer for a document
that was written many times."""
_THOUSANDS = 7
"""Number of groups of a thousand addresses in the pool. Each begins at a multiple of 1,250."""

_CSV = 10_000
"""Lines of the file that addresses are added from."""


# A thousand addresses in one request.


def bulk(bench: Bench) -> list[Row]:
    """Assign a thousand addresses with one request, and release them with one."""
    world = bench.writes
    bench.as_service(world)
    scratch, rows = Scratch(world), []
    seconds: dict[str, list[float]] = {"POST": [], "DELETE": [], "raw POST": [], "raw DELETE": []}
    for n in range(bench.options.rounds):
        numbers = _numbers(world, n)
        for method in ("POST", "DELETE"):
            seconds[method].append(_service_bulk(world, numbers, method))
            seconds[f"raw {method}"].append(_raw_bulk(world, scratch, numbers, method))
    for method in ("POST", "DELETE"):
        ours, raw = seconds[method], seconds[f"raw {method}"]
        counted = _count_bulk(bench, method)
        name = "assign" if method == "POST" else "release"
        rate = 2 * _MANY / Spread.of(ours).median
        rows += [
            Row(
                "bulk",
                f"`{method} …/ips`, {name} {_MANY:,}, documents/s",
                "`_bulk_docs`, pool and copies",
                Goal(at_least=0.40),
                Spread.of(theirs / mine for theirs, mine in zip(raw, ours, strict=True)),
                f"{rate:.0f} documents/s, directly {2 * _MANY / Spread.of(raw).median:.0f}",
                {"seconds": ours, "raw_seconds": raw},
            ),
            Row(
                "bulk",
                f"`{method} …/ips`, {name} {_MANY:,}, CouchDB requests",
                "counted at the database",
                Goal(at_most=10),
                Spread.of([len(counted.sent)]),
                "",
                {"sent": [shown(line) for line in counted.sent]},
            ),
        ]
    return rows


def _numbers(world: World, n: int) -> list[int]:
    """Return the numbers of a round's thousand addresses."""
    return world.available(_MANY, start=1000 + n % _THOUSANDS * 1250)


def _bulk_request(world: World, numbers: list[int], method: str) -> Request:
    body = {"data": {"ips": addresses(numbers)}}
    return Request(method, world.measured.ips, json.dumps(body))


def _give_many(world: World, numbers: list[int], method: str) -> None:
    world.give(numbers, None if method == "POST" else world.measured)


def _service_bulk(world: World, numbers: list[int], method: str) -> float:
    _give_many(world, numbers, method)
    plan = world.plan([_bulk_request(world, numbers, method)])
    fetch(world.plan(world.details(range(100, 101))))
    world.wait_for_archiver()
    start = time.perf_counter()
    fetch(plan)
    return time.perf_counter() - start


def _raw_bulk(world: World, scratch: Scratch, numbers: list[int], method: str) -> float:
    assigning = method == "POST"
    stored = scratch.stored(numbers, assigned=not assigning)
    changed = scratch.changed(stored, assigned=assigning)
    copies = scratch.some(numbers, assigned=True)
    if not assigning:
        copies = [tombstone(copy) for copy in scratch.account.load(copies)]
    return sum(
        world.couch.timed("POST", f"{database.path}/_bulk_docs", {"docs": documents})
        for database, documents in ((scratch.pool, changed), (scratch.account, copies))
    )


def _count_bulk(bench: Bench, method: str) -> Counted:
    world = bench.writes
    numbers = _numbers(world, 0)
    _give_many(world, numbers, method)
    warm = world.plan(world.details(range(100, 101)))
    return bench.counting(world).count(warm, _bulk_request(world, numbers, method))


# Imports.


def add(bench: Bench) -> list[Row]:
    """Add ten thousand addresses from a CSV file with the operator's command."""
    world = bench.empty
    bench.as_service(bench.writes)
    world.couch.headers = bench.writes.couch.headers
    what = f"`kazoo-ips add --from FILE`, {_CSV:,} addresses, documents/s"
    against, goal = "`_bulk_docs` of the same documents", Goal(at_least=0.60)
    if "--from" not in _kazoo_ips(world, "add", "--help").stdout:
        return [Row("add", what, against, goal, None, "not built")]
    scratch = Scratch(world)
    ours: list[float] = []
    raw: list[float] = []
    for n in range(min(bench.options.rounds, 7)):
        numbers = range(n * _CSV, (n + 1) * _CSV)
        ours.append(_add(world, numbers))
        raw.append(_raw_add(world, scratch, numbers))
    note = f"{_CSV / Spread.of(ours).median:.0f} documents/s with the start of the command"
    return [
        Row(
            "add",
            what,
            against,
            goal,
            Spread.of(theirs / mine for theirs, mine in zip(raw, ours, strict=True)),
            f"{note}, directly {_CSV / Spread.of(raw).median:.0f}",
            {"seconds": ours, "raw_seconds": raw},
        )
    ]


def _add(world: World, numbers: range) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "addresses.csv")
        with file.open("w", newline="") as opened:
            lines = csv.writer(opened)
            lines.writerow(["ip", "zone", "host"])
            lines.writerows(
                [a, zone(n), host(n)] for n, a in zip(numbers, addresses(numbers), strict=True)
            )
        start = time.perf_counter()
        done = _kazoo_ips(world, "add", "--from", str(file))
        seconds = time.perf_counter() - start
    if done.returncode:
        raise BenchError(f"kazoo-ips add: {done.stderr[-300:]}")
    return seconds


def _raw_add(world: World, scratch: Scratch, numbers: range) -> float:
    documents = [document(n, None) for n in numbers]
    return sum(
        world.couch.timed(
            "POST", f"{scratch.pool.path}/_bulk_docs", {"docs": documents[start : start + 1000]}
        )
        for start in range(0, len(documents), 1000)
    )


def _kazoo_ips(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("KAZOO_IPS_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("kazoo-ips")), *arguments],
        cwd=ROOT,
        env={**inherited, **world.environment},
        capture_output=True,
        text=True,
        check=False,
    )
