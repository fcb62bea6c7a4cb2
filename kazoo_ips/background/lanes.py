"""Threads for work that may be slow, shared fairly between accounts."""

import logging
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

log = logging.getLogger(__name__)


class Lane:
    """A fixed number of threads. They start with the first piece of work.

    They are daemon threads: a process that ends does not wait for a slow receiver.

    :param share: maximum number of threads that the work of one group takes
    """

    def __init__(self, name: str, threads: int, share: int) -> None:
        self._name = name
        self._threads = threads
        self._share = share
        self._started = False
        self._lock = Lock()
        self._running: Counter[str] = Counter()
        self._queue: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()

    def offer(self, group: str, do: Callable[[], None]) -> bool:
        """Do a piece of work in a thread, if one is free and the group may have it.

        :returns: whether the work was accepted
        """
        with self._lock:
            if self._running.total() >= self._threads or self._running[group] >= self._share:
                return False
            self._running[group] += 1
            if not self._started:
                self._started = True
                for number in range(self._threads):
                    name = f"{self._name}-{number}"
                    Thread(target=self._work, name=name, daemon=True).start()
        self._queue.put((group, do))
        return True

    def _work(self) -> None:
        while True:
            group, do = self._queue.get()
            try:
                do()
            except Exception:  # nothing restarts the thread, so no error may end it
                log.exception("%s: unexpected error", self._name)
            finally:
                with self._lock:
                    self._running[group] -= 1
