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
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.lists import ListRepository

READY_FOR = 1.0
"""Seconds that the state of CouchDB is cached."""
COUNTED_FOR = 5.0
"""Seconds that the size of the pool is cached."""

T = TypeVar("T")


class HealthService:
    """Health checks that return within seconds even if CouchDB does not answer.

    :param databases: the databases, with short timeouts
    :param lists: the lists of the pool, with short timeouts
    """

    def __init__(self, databases: Databases, lists: ListRepository) -> None:
        self._problems = _Cached(databases.problems, READY_FOR)
        self._lists = lists
        self._counts = _Cached(self._count, COUNTED_FOR)

    def problems(self) -> list[str]:
        """Return the reasons why requests cannot be served, one sentence each."""
        return self._problems()

    def counts(self) -> Mapping[tuple[str, str], int] | None:
        """Return the addresses by zone and status, or None while CouchDB does not answer."""
        return self._counts()

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
