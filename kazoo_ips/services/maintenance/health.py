"""Health checks: whether CouchDB is usable, and the size of the pool.

Monitoring calls them often. So results are cached for a moment, and only one thread at a time
queries CouchDB.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.low_zones import LowMarkRepository
from kazoo_ips.services.maintenance.findings import PROBLEMS
from kazoo_ips.services.maintenance.status import StatusService

READY_FOR = 1.0
"""Seconds that the state of CouchDB is cached."""
COUNTED_FOR = 5.0
"""Seconds that the size of the pool is cached."""
STATUS_FOR = 30.0
"""Seconds that the state of all instances is cached."""

T = TypeVar("T")


class HealthService:
    """Health checks that return within seconds even if CouchDB does not answer.

    :param databases: the databases, with short timeouts
    :param lists: the lists of the pool, with short timeouts
    :param marks: which zones are low, with short timeouts
    :param status: what runs where, with short timeouts
    """

    def __init__(
        self,
        databases: Databases,
        lists: ListRepository,
        marks: LowMarkRepository,
        status: StatusService,
    ) -> None:
        self._problems = _Cached(databases.problems, READY_FOR)
        self._lists = lists
        self._marks = marks
        self._counts = _Cached(self._count, COUNTED_FOR)
        self._low = _Cached(self._read_low, COUNTED_FOR)
        self._status = status
        self._instances = _Cached(self._read_instances, STATUS_FOR)

    def problems(self) -> list[str]:
        """Return the reasons why requests cannot be served, one sentence each."""
        return self._problems()

    def counts(self) -> Mapping[tuple[str, str], int] | None:
        """Return the addresses by zone and status, or None while CouchDB does not answer."""
        return self._counts()

    def low_zones(self) -> Mapping[str, bool] | None:
        """Return whether each zone that has ever been low is low now, or None if not known."""
        return self._low()

    def instances(self) -> Mapping[str, Mapping[tuple[str, ...], float]] | None:
        """Return the gauges of all instances and of CouchDB, or None if not known.

        :returns: by the name of the metric, the value for each tuple of labels
        """
        return self._instances()

    def _read_instances(self) -> Mapping[str, Mapping[tuple[str, ...], float]] | None:
        try:
            status = self._status.status()
        except KazooIPsError:
            return None
        cluster, doctor = status.cluster, status.doctor
        gauges: dict[str, dict[tuple[str, ...], float]] = {
            "kazoo_ips_workers": {(release,): n for release, n in status.releases.items()},
            "kazoo_ips_index_pending_changes": {
                (index.database, index.name): index.pending
                for index in status.indexes
                if index.pending is not None
            },
        }
        if cluster.has_quorum is not None:
            gauges["kazoo_ips_couchdb_nodes"] = {
                ("connected",): len(cluster.connected), ("missing",): len(cluster.missing),
            }  # fmt: skip
            gauges["kazoo_ips_couchdb_quorum"] = {(): cluster.has_quorum}
        if doctor is not None:
            gauges["kazoo_ips_doctor_findings"] = {
                (problem,): doctor.counts.get(problem, 0) for problem in PROBLEMS
            }
            ended = doctor.ended - GREGORIAN_EPOCH
            gauges["kazoo_ips_doctor_ended_timestamp_seconds"] = {(): ended}
        return gauges

    def _read_low(self) -> Mapping[str, bool] | None:
        try:
            return {zone: mark.low for zone, mark in self._marks.read().zones.items()}
        except KazooIPsError:
            return None

    def _count(self) -> Mapping[tuple[str, str], int] | None:
        try:
            return self._lists.counts()
        except KazooIPsError:
            return None


class _Cached(Generic[T]):
    """A result that is cached for some seconds.

    While one thread fetches the result, other threads wait for its result or error. The lock is
    not held during the fetch.
    """

    def __init__(self, fetch: Callable[[], T], seconds: float) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._lock = Lock()
        self._valid_until = -math.inf
        self._future: Future[T] = Future()
        self._future.cancel()  # there is no result yet

    def __call__(self) -> T:
        with self._lock:
            future = self._future
            expired = future.done() and time.monotonic() >= self._valid_until
            if expired:
                future = self._future = Future()
        if expired:
            self._fill(future)
        return future.result()

    def _fill(self, future: Future[T]) -> None:
        try:
            content = self._fetch()
        except BaseException as error:
            self._valid_until = -math.inf
            future.set_exception(error)
        else:
            self._valid_until = time.monotonic() + self._seconds
            future.set_result(content)
