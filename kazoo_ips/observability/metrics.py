"""Counters, histograms and gauges, and their export in Prometheus's text format.

Under gunicorn each worker counts in files that all workers read (`multiprocess_metrics.py`).
Elsewhere the counts are in memory. No label contains text that clients choose: routes are rules
instead of paths, and there is no label for accounts.
"""

import re
import struct
import time
from collections.abc import Iterator, Mapping
from http import HTTPMethod
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from kazoo_ips.model.names import printable

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

NO_ANSWER, SENT_AGAIN = 0, -1
"""The status of a request without a response of CouchDB: it failed, or it was sent again."""

METHODS = frozenset(HTTPMethod)
"""Methods of requests that are a label of their own."""
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUCHDB_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LAG_SECONDS = (30, 35, 40, 60, 90, 120, 300, 600)
_OUTCOMES = {
    NO_ANSWER: "no_answer",
    SENT_AGAIN: "sent_again",
    404: "missing",
    409: "conflict",
    412: "conflict",
}
_TRIES = 3

_OLD_NAMES = {
    b"kazoo_ips_addresses_restored_total": b"kazoo_ips_addresses_brought_back_total",
    b"kazoo_ips_background_failures_total": b"kazoo_ips_housekeeping_failures_total",
    b"kazoo_ips_conflicts_resolved_total": b"kazoo_ips_conflicts_settled_total",
    b"kazoo_ips_copies_repaired_total": b"kazoo_ips_copies_mended_total",
    b"kazoo_ips_transactions_recovered_total": b"kazoo_ips_claims_recovered_total",
}
"""The former names of counters. Dashboards and alarms of operators may use them."""
_RENAMED = re.compile(rb"^(?:# \w+ )?(%b)\b.*\n" % b"|".join(_OLD_NAMES), re.M)

# The series `_created` are not used, and do not exist with several processes.
disable_created_metrics()  # type: ignore[no-untyped-call]


class PoolCounts(Protocol):
    """The source of the number of addresses in the pool."""

    def counts(self) -> Mapping[tuple[str, str], int] | None:
        """Return the addresses by zone and status, or None while CouchDB does not answer."""


class Metrics:
    """The metrics of one process. Several instances in one process are independent.

    :param version: the version of the service
    """

    def __init__(self, version: str = "") -> None:
        self._own = own = CollectorRegistry()
        self._version = version
        self._requests = Counter(
            "kazoo_ips_requests",
            "Requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=own,
        )
        self._request_seconds = Histogram(
            "kazoo_ips_request_duration_seconds",
            "Time from the first to the last byte of a request, by route and method.",
            ["route", "method"],
            buckets=_REQUEST_SECONDS,
            registry=own,
        )
        self._calls = Counter(
            "kazoo_ips_couchdb_requests",
            "Requests sent to CouchDB, by kind and outcome. A repeated request counts twice.",
            ["kind", "outcome"],
            registry=own,
        )
        for written in _WRITES:  # increase() does not see a counter that begins with 1
            self._calls.labels(written, "no_quorum")
        self._call_seconds = Histogram(
            "kazoo_ips_couchdb_request_duration_seconds",
            "Time until the response of CouchDB was read, by kind.",
            ["kind"],
            buckets=_COUCHDB_SECONDS,
            registry=own,
        )
        self.conflicts_resolved = Counter(
            "kazoo_ips_conflicts_resolved",
            "Addresses whose conflicting revisions were resolved to one.",
            registry=own,
        )
        self.addresses_restored = Counter(
            "kazoo_ips_addresses_restored",
            "Addresses restored to the pool after all writers had withdrawn.",
            registry=own,
        )
        self.transactions_recovered = Counter(
            "kazoo_ips_transactions_recovered",
            "Transactions of dead processes that were completed or rolled back.",
            registry=own,
        )
        self.copies_repaired = Counter(
            "kazoo_ips_copies_repaired",
            "Copies in accounts' databases that did not agree with the pool and were corrected.",
            registry=own,
        )
        self.changes_followed = Counter(
            "kazoo_ips_changes_followed",
            "Changes of the pool whose addresses the change follower has checked.",
            registry=own,
        )
        self.follower_polls = Counter(
            "kazoo_ips_follower_polls",
            "Reads of the pool's changes feed. One process of all instances makes them.",
            registry=own,
        )
        self.follower_lag = Histogram(
            "kazoo_ips_follower_lag_seconds",
            "Time from reading a change to checking its address. 30 to 35 s is intended.",
            buckets=_LAG_SECONDS,
            registry=own,
        )
        self.background_failures = Counter(
            "kazoo_ips_background_failures",
            "Rounds of the background worker that ended with an error.",
            registry=own,
        )
        self.logins_refused = Counter(
            "kazoo_ips_couchdb_logins_refused",
            "Times that CouchDB refused the service's user or password. A pause followed each.",
            registry=own,
        )
        self.requests_limited = Counter(
            "kazoo_ips_requests_limited",
            "Requests with a valid token that a rate limit has refused, by limit.",
            ["limit"],
            registry=own,
        )
        for limit in ("account", "client", "key"):  # so that increase() sees the first one
            self.requests_limited.labels(limit)
        self._worker_starts = Counter(
            "kazoo_ips_worker_starts", "Worker processes that were started.", registry=own
        )
        self._answered: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._called: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def worker_started(self) -> None:
        """Count the start of a worker. More starts than expected mean that workers died."""
        self._worker_starts.inc()

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count a request that was answered.

        :param route: the rule of the route, or a fixed word if there is none
        :param status: three digits
        """
        key = route, method, status
        children = self._answered.get(key)
        if children is None:
            label = method if method in METHODS else "other"
            children = self._answered[route, label, status] = (
                self._requests.labels(route, label, status),
                self._request_seconds.labels(route, label),
            )
        children[0].inc()
        children[1].observe(seconds)

    def count_call(self, method: str, url: str, status: int, seconds: float) -> None:
        """Count a request to CouchDB.

        :param status: the status of the response, `NO_ANSWER` or `SENT_AGAIN`
        """
        key = kind(method, url), status
        children = self._called.get(key)
        if children is None:
            children = self._called[key] = (
                self._calls.labels(key[0], outcome(*key)),
                self._call_seconds.labels(key[0]),
            )
        children[0].inc()
        children[1].observe(seconds)

    def text(self, pool: PoolCounts) -> bytes:
        """Return the counts of all workers and the current gauges in Prometheus's text format."""
        gauges = CollectorRegistry()
        gauges.register(_Gauges(pool, self._version))
        counts = self._counts()
        old = (
            match[0].replace(match[1], _OLD_NAMES[match[1]]) for match in _RENAMED.finditer(counts)
        )
        return counts + b"".join(old) + generate_latest(gauges)

    def _counts(self) -> bytes:
        if not values.ValueClass._multiprocess:
            return generate_latest(self._own)
        for left in reversed(range(_TRIES)):
            all_workers = CollectorRegistry()
            MultiProcessCollector(all_workers)  # type: ignore[no-untyped-call]
            try:
                return generate_latest(all_workers)
            except struct.error:  # a worker is just creating its file
                if not left:
                    raise
                time.sleep(0.01)
        raise AssertionError


class _Gauges:
    """Values that are the same in every worker, determined at each scrape."""

    def __init__(self, pool: PoolCounts, version: str) -> None:
        self._pool = pool
        self._version = version

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering sends no request to CouchDB."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges. Those of the pool are left out while CouchDB does not answer."""
        build = GaugeMetricFamily(
            "kazoo_ips_build_info",
            "Always 1. The label is the version of the service.",
            labels=["version"],
        )
        build.add_metric([self._version], 1)
        yield build
        counts = self._pool.counts()
        yield GaugeMetricFamily(
            "kazoo_ips_couchdb_up",
            "1 if CouchDB has returned the size of the pool, otherwise 0.",
            value=counts is not None,
        )
        if counts is not None:
            addresses = GaugeMetricFamily(
                "kazoo_ips_pool_addresses",
                "Addresses in the pool, by zone and status.",
                labels=["zone", "status"],
            )
            for labels, count in sorted(counts.items()):
                addresses.add_metric([printable(label, keep="\n") for label in labels], count)
            yield addresses


def kind(method: str, url: str) -> str:
    """Return the kind of a request to CouchDB, as used in labels."""
    path = url.partition("?")[0]
    if "/_" in path:
        for part, word in _KINDS.items():
            if part in path:
                return word
    if method in ("GET", "HEAD"):
        return "read"
    return "delete" if method == "DELETE" else "write"


_WRITES = ("write", "bulk_write", "delete")
_KINDS = {
    "/_view/": "view",
    "/_bulk_docs": "bulk_write",
    "/_all_docs": "bulk_read",
    "/_bulk_get": "bulk_read",
    "/_find": "find",
    "/_view_cleanup": "maintenance",
    "/_all_dbs": "maintenance",
    "/_changes": "maintenance",
}


def outcome(kind: str, status: int) -> str:
    """Return the outcome of a request to CouchDB, as used in labels.

    :param status: as for `count_call`
    """
    if status == 202 and kind in _WRITES:
        return "no_quorum"
    if status in _OUTCOMES:
        return _OUTCOMES[status]
    return "ok" if status < 400 else "refused" if status < 500 else "failed"
