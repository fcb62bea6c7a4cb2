"""`python -m bench`: measures rows of the table, and prints each row once it is measured.

The options are environment variables, which `make bench` passes on: SIZES, ROUNDS, SECONDS,
CONNECTIONS, ROWS, QUICK, PUBLISH and COUCHDB_URL. `bench/README.md` explains them.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping

from bench import (
    BenchError,
    accounts,
    archive,
    bulk,
    console,
    day,
    filters,
    history,
    neighbours,
    processes,
    readers,
    reads,
    report,
    states,
    writes,
    wrk,
)
from bench.context import Bench, Options
from bench.couch import Couch
from bench.row import Goal, Measure, Row
from bench.servers import database
from embedded import EmbeddedError
from kazoo_ips.errors import KazooIPsError

ROWS: Mapping[str, Measure] = {
    "detail": reads.detail,
    "requests": reads.requests,
    "assigned": reads.assigned,
    "page": reads.page,
    "zones": reads.zones,
    "hosts": reads.hosts,
    "growth": reads.growth,
    "summary": reads.summary,
    "last_page": reads.last_page,
    "filters": filters.filters,
    "kazoo": reads.kazoo,
    "history_at": history.at,
    "history_account": history.account,
    "console": console.pages,
    "cpu": processes.cpu,
    "clients": processes.clients,
    "stream": processes.everything,
    "neighbours": neighbours.neighbours,
    "readers": readers.readers,
    "start": processes.cold_start,
    "bulk": bulk.bulk,
    "assign": writes.assign,
    "release": writes.release,
    "held_back": states.held_back,
    "spread": states.spread,
    "limits": states.limits,
    "day": day.day,
    "accounts": accounts.accounts,
    "doctor": accounts.doctor,
    "sequential": writes.one_after_the_other,
    "archiver": archive.archiver,
    "archiver_cost": archive.cost,
    "add": bulk.add,
    "build": processes.build,
    "index": filters.index,
    "memory": processes.worker_memory,
}
"""The rows in the order in which they are measured: reads first, while all indexes are current."""


def run(environ: Mapping[str, str]) -> int:
    """Measure; return the exit status, which is 1 if a row could not be measured.

    :raises BenchError: nothing can be measured
    """
    wrk.program()
    start = time.monotonic()
    with database(environ.get("COUCHDB_URL")) as url:
        engine = Couch(url, "").engine()
        options = Options.load(environ, engine[0])
        unknown = set(options.rows) - set(ROWS)
        if unknown:
            raise BenchError(f"ROWS: unknown: {', '.join(unknown)}; known: {', '.join(ROWS)}")
        if options.publish and options.publish not in report.COLUMNS:
            raise BenchError(f"PUBLISH: 1, or one of {', '.join(report.COLUMNS)}")
        earlier = report.load(options.publish) if options.publish and options.rows else None
        rows: list[Row] = []
        print(report.heading(), flush=True)
        with Bench(url, options) as bench:
            for name in options.rows or ROWS:
                for row in _measured(name, bench):
                    rows.append(row)
                    print(report.line(row), flush=True)
        results = report.to_json(rows, options, engine, time.monotonic() - start)
    seconds = results["whole_run_seconds"]
    if earlier:
        results = report.with_rows(earlier, results, options.rows)
    path = report.save(results, options.publish or "latest")
    if options.publish:
        report.publish()
    print(f"\n{seconds} s; raw figures in {path}")
    return int(any(row.raw.get("failed") for row in rows))


def _measured(name: str, bench: Bench) -> Iterator[Row]:
    try:
        Couch(bench.url, bench.prefix).wait_until_idle()
        yield from ROWS[name](bench)
    except (BenchError, KazooIPsError, OSError) as error:
        note = f"not measured: {error}".replace("\n", " ")[:300]
        yield Row(name, name, "", Goal(), None, note, {"failed": True})


def main() -> None:
    """Run the benchmark. All processes that it started are stopped, also after an error."""
    logging.disable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(run(os.environ))
    except (BenchError, EmbeddedError, KazooIPsError) as error:
        sys.exit(f"make bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
