"""What whoever watches the service asks about CouchDB: whether it will do, how big the pool is.

Asked often and by many: an answer is kept for a moment, and one question is asked at a time.
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
"""Seconds that an answer about CouchDB is kept."""
COUNTED_FOR = 5.0
"""Seconds that the pool's size is kept."""

T = TypeVar("T")


class HealthService:
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
    """An answer that is good for a while. Threads that want it while it is being asked for get the
    same one, or the same error: nothing is asked under the lock.
    """

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = Lock()
        self._good_until = -math.inf
        self._answer: Future[T] = Future()
        self._answer.cancel()  # there is none yet

    def __call__(self) -> T:
        with self._lock:
            answer = self._answer
            old = answer.done() and time.monotonic() >= self._good_until
            if old:
                answer = self._answer = Future()
        if old:
            self._fill(answer)
        return answer.result()

    def _fill(self, answer: Future[T]) -> None:
        try:
            content = self._ask()
        except BaseException as error:
            self._good_until = -math.inf
            answer.set_exception(error)
        else:
            self._good_until = time.monotonic() + self._seconds
            answer.set_result(content)
