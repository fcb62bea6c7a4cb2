"""Counters, histograms and gauges, and their export in Prometheus's text format.

Under gunicorn each worker counts in files that all workers read (`multiprocess_metrics.py`).
Elsewhere the counts are in memory. No label contains text that clients choose: routes are rules
instead of paths, and there is no label for accounts.
"""

import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPMethod
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from kazoo_ips.model.history import Source
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
_BUS_RESULTS = ("confirmed", "failed")
_RECONCILIATIONS = ("done", "gone", "refused", "failed", "unauthorized", "away")
_TRIES = 3
_ARCHIVED = re.compile(rb"^kazoo_ips_history_archived_until_seconds (\S+)$", re.M)
_SCOPES = ("account", "operator")
"""Whose webhooks: those of accounts, and those of the operator."""

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

    def low_zones(self) -> Mapping[str, bool] | None:
        """Return whether each zone that has ever been low is low now, or None if not known."""

    def instances(self) -> Mapping[str, Mapping[tuple[str, ...], float]] | None:
        """Return the values of `_OF_INSTANCES` by their labels, or None if not known."""


_OF_INSTANCES = {
    "kazoo_ips_workers": ("Workers of all instances, by release.", ["release"]),
    "kazoo_ips_couchdb_nodes": ("Nodes of CouchDB, by state.", ["state"]),
    "kazoo_ips_couchdb_quorum": ("1 if most replicas of each shard are connected.", []),
    "kazoo_ips_index_pending_changes": (
        "Changes of a database that an index does not have yet.", ["database", "index"],
    ),
    "kazoo_ips_doctor_findings": (
        "Problems that the last examination by the doctor has found, by kind.", ["problem"],
    ),
    "kazoo_ips_doctor_ended_timestamp_seconds": (
        "Unix time at which the last examination of all documents has ended.", [],
    ),
}  # fmt: skip
"""Gauges of the service as a whole: their help and their labels."""


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
        for written in _WRITES:  # PromQL's increase() misses the first count
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
        self.limits_reached = Counter(
            "kazoo_ips_limits_reached",
            "Requests refused because of the limits of an account.",
            registry=own,
        )
        self.limits_exceeded = Counter(
            "kazoo_ips_limits_exceeded",
            "Addresses that another program has assigned past the limits of an account.",
            registry=own,
        )
        self.states_corrected = Counter(
            "kazoo_ips_states_corrected",
            "Addresses that were available against the rules and were corrected, by their status.",
            ["status"],
            registry=own,
        )
        self.states_bypassed = Counter(
            "kazoo_ips_states_bypassed",
            "Writes of other programs that broke the rules of aging, reservations and draining.",
            ["result"],
            registry=own,
        )
        for result in ("corrected", "taken"):  # as above
            self.states_bypassed.labels(result)
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
        self.history_years_missing = Counter(
            "kazoo_ips_history_years_missing",
            "Times that a year's database of the history was missing, and could not be created.",
            registry=own,
        )
        self.history_events = Counter(
            "kazoo_ips_history_events",
            "Events that were moved to the archive of the history, by their source.",
            ["source"],
            registry=own,
        )
        for source in Source:
            self.history_events.labels(str(source))
        self._archived_until = Gauge(
            "kazoo_ips_history_archived_until_seconds",
            "Unix time up to which the archive of the history has all changes.",
            multiprocess_mode="max",
            registry=own,
        )
        self.history_not_deleted = Counter(
            "kazoo_ips_history_not_deleted",
            "Times that a year of the history was to be deleted, and CouchDB did not permit it.",
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
        self._consumer_events = Counter(
            "kazoo_ips_consumer_events",
            "Events of the history that a consumer has handled.",
            ["consumer"],
            registry=own,
        )
        self._consumer_until = Gauge(
            "kazoo_ips_consumer_handled_until_timestamp_seconds",
            "Unix time up to which a consumer has handled all events; 0 if another process does.",
            ["consumer"],
            registry=own,
            multiprocess_mode="max",
        )
        self._consumer_failures = Counter(
            "kazoo_ips_consumer_failures",
            "Attempts of a consumer that failed, and are repeated.",
            ["consumer"],
            registry=own,
        )
        self._consumer_gaps = Counter(
            "kazoo_ips_consumer_gaps",
            "Times that events were deleted before a consumer had handled them.",
            ["consumer"],
            registry=own,
        )
        self._bus_messages = Counter(
            "kazoo_ips_bus_messages",
            "Messages to Kazoo's message bus, by broker and result.",
            ["broker", "result"],
            registry=own,
        )
        self._reconciliations = Counter(
            "kazoo_ips_reconciliations",
            "Reconciliations of accounts that Crossbar was asked for, by result.",
            ["result"],
            registry=own,
        )
        for result in _RECONCILIATIONS:  # so that increase() sees the first one
            self._reconciliations.labels(result)
        self._reconciliations_stuck = Gauge(
            "kazoo_ips_reconciliations_stuck",
            "Accounts whose reconciliation Crossbar keeps refusing.",
            registry=own,
            multiprocess_mode="max",
        )
        self.webhook_rounds = Counter(
            "kazoo_ips_webhook_rounds",
            "Rounds of the sender of webhooks. One process of all instances makes them.",
            registry=own,
        )
        self.webhook_deliveries = Counter(
            "kazoo_ips_webhook_deliveries",
            "Attempts to deliver an event to a webhook, by scope and result.",
            ["scope", "result"],
            registry=own,
        )
        self._webhook_lag = _scoped_gauge(
            "kazoo_ips_webhook_lag_seconds",
            "Age of the oldest event that waits for its delivery to a webhook, by scope.",
            own,
        )
        self._webhooks = _scoped_gauge(
            "kazoo_ips_webhooks_enabled", "Webhooks that are enabled, by scope.", own
        )
        self._webhooks_failing = _scoped_gauge(
            "kazoo_ips_webhooks_failing",
            "Enabled webhooks whose last delivery has failed, by scope.",
            own,
        )
        self.job_items = Counter(
            "kazoo_ips_job_items",
            "Addresses that jobs have worked on, by kind of job and result.",
            ["kind", "result"],
            registry=own,
        )
        self._jobs_unfinished = Gauge(
            "kazoo_ips_jobs_unfinished",
            "Jobs that have not ended.",
            registry=own,
            multiprocess_mode="max",
        )
        self._jobs_waiting = Gauge(
            "kazoo_ips_jobs_waiting_seconds",
            "Longest time since the last progress of an unfinished job.",
            registry=own,
            multiprocess_mode="max",
        )
        for scope in _SCOPES:
            for result in ("success", "failure"):
                self.webhook_deliveries.labels(scope, result)
        self._worker_starts = Counter(
            "kazoo_ips_worker_starts", "Worker processes that were started.", registry=own
        )
        self._answered: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._called: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count_poll(self) -> None:
        """Count a read of the pool's changes feed."""
        self.follower_polls.inc()

    def count_followed(self, count: int, seconds: int) -> None:
        """Count changes of the pool that were checked.

        :param seconds: the time between reading and checking them
        """
        self.follower_lag.observe(seconds)
        self.changes_followed.inc(count)

    def archived(self, until: float) -> None:
        """Record how far the archive of the history is.

        :param until: a Unix time; all changes of the pool before it are in the archive
        """
        self._archived_until.set(until)

    def consumer(self, name: str) -> "ConsumerMetrics":
        """Return the metrics of one consumer of the feed of events.

        :param name: the name without secrets
        """
        return ConsumerMetrics(
            self._consumer_events.labels(name),
            self._consumer_until.labels(name),
            self._consumer_failures.labels(name),
            self._consumer_gaps.labels(name),
        )

    def bus_messages(self, broker: str) -> Callable[[str, int], None]:
        """Return a function that counts messages to a broker, by their result.

        :param broker: the name without user and password
        """
        counters = {each: self._bus_messages.labels(broker, each) for each in _BUS_RESULTS}
        return lambda result, count: counters[result].inc(count)

    def count_reconciliation(self, result: str) -> None:
        """Count a reconciliation that Crossbar was asked for, by its result."""
        self._reconciliations.labels(result).inc()

    def stuck(self, accounts: int) -> None:
        """Set the number of accounts whose reconciliation Crossbar keeps refusing."""
        self._reconciliations_stuck.set(accounts)

    def worker_started(self) -> None:
        """Count the start of a worker. More starts than expected mean that workers died."""
        self._worker_starts.inc()
        self.show_jobs(0, 0)
        self.show_webhooks({}, {}, {})  # a dead worker may have left its values

    def show_jobs(self, unfinished: int, waiting: int) -> None:
        """Set the gauges of jobs.

        :param waiting: the longest time since the last progress of an unfinished job, in seconds
        """
        self._jobs_unfinished.set(unfinished)
        self._jobs_waiting.set(waiting)

    def show_webhooks(
        self, lag: Mapping[str, int], enabled: Mapping[str, int], failing: Mapping[str, int]
    ) -> None:
        """Set the gauges of webhooks, each by scope: `account` or `operator`.

        A process that is not the sender passes empty mappings. This sets the gauges to 0.

        :param lag: the age of the oldest event that waits, in seconds
        """
        shown = ((self._webhook_lag, lag), (self._webhooks, enabled),
                 (self._webhooks_failing, failing))  # fmt: skip
        for gauge, values_ in shown:
            for scope in _SCOPES:
                gauge.labels(scope).set(values_.get(scope, 0))

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
        counts = self._counts()
        archived = _ARCHIVED.search(counts)
        gauges.register(_Gauges(pool, self._version, float(archived[1]) if archived else 0.0))
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


@dataclass(frozen=True, slots=True)
class ConsumerMetrics:
    """The metrics of one consumer of the feed of events."""

    events: Counter
    until: Gauge
    failures: Counter
    gaps: Counter

    def count_poll(self) -> None:
        """Count nothing: a consumer that does not read the feed falls behind."""

    def count_followed(self, count: int, _seconds: int) -> None:
        """Count events that were handled."""
        self.events.inc(count)

    def count_failure(self) -> None:
        """Count an attempt that failed."""
        self.failures.inc()

    def count_gap(self) -> None:
        """Count that events were deleted before they were handled."""
        self.gaps.inc()

    def handled_until(self, at: int) -> None:
        """Set the time up to which all events are handled, in Unix seconds."""
        self.until.set(at)


def _scoped_gauge(name: str, help_: str, registry: CollectorRegistry) -> Gauge:
    """Return a gauge by scope, of which the largest value of all workers is shown."""
    return Gauge(name, help_, ["scope"], registry=registry, multiprocess_mode="max")


class _Gauges:
    """Values that are the same in every worker, determined at each scrape."""

    def __init__(self, pool: PoolCounts, version: str, archived_until: float) -> None:
        self._pool = pool
        self._archived_until = archived_until
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
        behind = max(0.0, time.time() - self._archived_until)
        yield GaugeMetricFamily(
            "kazoo_ips_history_behind_seconds",
            "Seconds by which the archive of the history is behind the pool; +Inf if not known.",
            value=behind if self._archived_until else float("inf"),
        )
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
        low = self._pool.low_zones() if counts is not None else None
        if low is not None:
            zones = GaugeMetricFamily(
                "kazoo_ips_zone_low",
                "1 if a zone has few available addresses, otherwise 0.",
                labels=["zone"],
            )
            for zone in sorted({zone for zone, _ in counts or {}}):
                zones.add_metric([printable(zone, keep="\n")], low.get(zone, False))
            yield zones
        yield from self._of_instances() if counts is not None else ()

    def _of_instances(self) -> Iterator[Metric]:
        for name, values_ in (self._pool.instances() or {}).items():
            help_, labels = _OF_INSTANCES[name]
            gauge = GaugeMetricFamily(name, help_, labels=labels)
            for given, value in sorted(values_.items()):
                gauge.add_metric([printable(label, keep="\n") for label in given], value)
            yield gauge


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
