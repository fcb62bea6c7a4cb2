"""What whoever watches the service asks about CouchDB: whether it will do, how big the pool is.

Asked often and by many: an answer is kept for a moment, and one question is asked at a time.
"""

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Generic, TypeVar

from kazoo_ips.errors import KazooIPsError
from kazoo_ips.repositories.databases import Databases
from kazoo_ips.repositories.lists import ListRepository

READY_FOR = 1.0
"""Seconds that an answer about CouchDB is kept."""
COUNTED_FOR = 5.0
"""Seconds that the pool's size is kept."""

T = TypeVar("T")


class WatchService:
    """Answers soon, whatever CouchDB does.

    :param databases: what must be there, reached with little patience
    :param lists: the pool's, reached likewise
    """

    def __init__(self, databases: Databases, lists: ListRepository) -> None:
        self._problems = _Kept(databases.problems, READY_FOR)
        self._lists = lists
        self._counts = _Kept(self._count, COUNTED_FOR)

    def problems(self) -> list[str]:
        """Why requests cannot be served just now, a sentence each; empty when they can."""
        return self._problems()

    def counts(self) -> Mapping[tuple[str, str], int] | None:
        """Addresses by zone and status, or None while CouchDB does not say."""
        return self._counts()

    def _count(self) -> Mapping[tuple[str, str], int] | None:
        try:
            return self._lists.counts()
        except KazooIPsError:
            return None


class _Kept(Generic[T]):
    """An answer that is good for a while. Who asks meanwhile waits for the one under way."""

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._known is None or time.monotonic() >= self._known[0]:
                answer = self._ask()
                self._known = time.monotonic() + self._seconds, answer
            return self._known[1]
