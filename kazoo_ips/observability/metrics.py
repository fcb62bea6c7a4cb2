"""What is counted, and how it is told to Prometheus.

Under gunicorn each worker counts in files that all of them read (`multiprocess_metrics.py`);
elsewhere in memory. No label holds what callers choose freely: routes are rules, not paths, and no
account is named. Knows neither HTTP nor CouchDB beyond methods, URLs and statuses.
"""

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

from kazoo_ips.observability import request_context

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

NO_ANSWER, SENT_AGAIN = 0, -1
"""What stands for a status of CouchDB where it sent none: that was that, or it was asked again."""

_METHODS = frozenset(HTTPMethod)
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

# Series that nobody asks for; several processes have none of them anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]


class PoolCounts(Protocol):
    """Where the pool's size comes from, at the moment of asking."""

    def counts(self) -> Mapping[tuple[str, str], int] | None:
        """Addresses by zone and status, or None while CouchDB does not say."""


class Metrics:
    """The counts of one process; several in one process do not know of each other.

    :param version: of the service
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
            "Requests sent to CouchDB, by kind and outcome; one that is sent again counts twice.",
            ["kind", "outcome"],
            registry=own,
        )
        self._call_seconds = Histogram(
            "kazoo_ips_couchdb_request_duration_seconds",
            "Time until CouchDB's answer was read, by kind.",
            ["kind"],
            buckets=_COUCHDB_SECONDS,
            registry=own,
        )
        self.conflicts_settled = Counter(
            "kazoo_ips_conflicts_settled",
            "Addresses with conflicting revisions of which one was kept.",
            registry=own,
        )
        self.addresses_brought_back = Counter(
            "kazoo_ips_addresses_brought_back",
            "Addresses that all claims were withdrawn from, put back into the pool.",
            registry=own,
        )
        self.claims_recovered = Counter(
            "kazoo_ips_claims_recovered",
            "Claims that a dead process left half done, undone.",
            registry=own,
        )
        self.copies_mended = Counter(
            "kazoo_ips_copies_mended",
            "Copies in accounts' databases that did not agree with the pool and were mended.",
            registry=own,
        )
        self.changes_followed = Counter(
            "kazoo_ips_changes_followed",
            "Changes of the pool that were looked at once more.",
            registry=own,
        )
        self.follower_polls = Counter(
            "kazoo_ips_follower_polls",
            "Looks at the pool's changes; one process of all makes them.",
            registry=own,
        )
        self.follower_lag = Histogram(
            "kazoo_ips_follower_lag_seconds",
            "Time from reading a change to looking at it; half a minute is meant.",
            buckets=_LAG_SECONDS,
            registry=own,
        )
        self.housekeeping_failures = Counter(
            "kazoo_ips_housekeeping_failures",
            "Rounds of housekeeping that ended with an error.",
            registry=own,
        )
        self.logins_refused = Counter(
            "kazoo_ips_couchdb_logins_refused",
            "Times that CouchDB refused the service's user or password; a pause followed.",
            registry=own,
        )
        self._worker_starts = Counter(
            "kazoo_ips_worker_starts", "Worker processes that were started.", registry=own
        )
        self._answered: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._called: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def worker_started(self) -> None:
        """Count a worker process; more than was asked for means that some have died."""
        self._worker_starts.inc()

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count a request that was answered.

        :param route: the rule, or a word for what has none
        :param status: three digits
        """
        key = route, method, status
        children = self._answered.get(key)
        if children is None:
            known = method if method in _METHODS else "other"
            children = self._answered[route, known, status] = (
                self._requests.labels(route, known, status),
                self._request_seconds.labels(route, known),
            )
        children[0].inc()
        children[1].observe(seconds)

    def count_call(self, method: str, url: str, status: int, seconds: float) -> None:
        """Count a request to CouchDB, here and for the work that it was sent for.

        :param status: of the answer, `NO_ANSWER` or `SENT_AGAIN`
        """
        current = request_context.current()
        if current is not None:
            current.calls += 1
            current.seconds += seconds
        key = kind(method, url), status
        children = self._called.get(key)
        if children is None:
            children = self._called[key] = (
                self._calls.labels(key[0], _outcome(*key)),
                self._call_seconds.labels(key[0]),
            )
        children[0].inc()
        children[1].observe(seconds)

    def text(self, pool: PoolCounts) -> bytes:
        """All of it in Prometheus's text form: every worker's counts, and the pool as it is."""
        present = CollectorRegistry()
        present.register(_Present(pool, self._version))
        return self._counts() + generate_latest(present)

    def _counts(self) -> bytes:
        if not values.ValueClass._multiprocess:
            return generate_latest(self._own)
        for left in reversed(range(_TRIES)):
            everybodys = CollectorRegistry()
            MultiProcessCollector(everybodys)  # type: ignore[no-untyped-call]
            try:
                return generate_latest(everybodys)
            except struct.error:  # a worker is making its file at this moment
                if not left:
                    raise
                time.sleep(0.01)
        raise AssertionError


class _Present:
    """What is so at the moment of asking, whichever worker is asked."""

    def __init__(self, pool: PoolCounts, version: str) -> None:
        self._pool = pool
        self._version = version

    def describe(self) -> list[Metric]:
        """Nothing: to be registered costs no question to CouchDB."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges; the pool's are left out while nobody knows them."""
        build = GaugeMetricFamily(
            "kazoo_ips_build_info", "Always 1; the label tells what runs.", labels=["version"]
        )
        build.add_metric([self._version], 1)
        yield build
        counts = self._pool.counts()
        yield GaugeMetricFamily(
            "kazoo_ips_couchdb_up",
            "Whether CouchDB told the size of the pool.",
            value=counts is not None,
        )
        if counts is not None:
            addresses = GaugeMetricFamily(
                "kazoo_ips_pool_addresses",
                "Addresses in the pool, by zone and status.",
                labels=["zone", "status"],
            )
            for labels, count in sorted(counts.items()):
                addresses.add_metric(labels, count)
            yield addresses


def kind(method: str, url: str) -> str:
    """What kind of question or order a request to CouchDB is, in a word."""
    path = url.partition("?")[0]
    if "/_" in path:
        for part, word in _KINDS.items():
            if part in path:
                return word
    if method in ("GET", "HEAD"):
        return "read"
    return "delete" if method == "DELETE" else "write"


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


def _outcome(kind: str, status: int) -> str:
    if status == 202 and kind in ("write", "bulk_write", "delete"):
        return "no_quorum"
    if status in _OUTCOMES:
        return _OUTCOMES[status]
    return "ok" if status < 400 else "refused" if status < 500 else "failed"
