"""Questions that several threads have at the same time, asked together.

While one thread asks, others that come wait; then the first of them asks for all of them. Nobody
waits for company, and nothing is remembered: an answer was always asked for after its question
had come. CouchDB spends on one of sixteen documents read together a quarter of what it spends on
one read alone (3.5.0, two cores: 0.2 and 0.8 ms).

Knows threads; knows neither HTTP nor documents. Standard library only.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class _Question(Generic[Answer]):
    """What a waiting thread wants to know. It is woken once: to ask, or when that is done."""

    __slots__ = ("answers", "batch", "error", "key", "woken")

    def __init__(self, key: str) -> None:
        self.key = key
        self.batch: list[_Question[Answer]] = []
        """The questions, its own first, that it is to ask; none when somebody else has."""
        self.answers: Mapping[str, Answer] = {}
        self.error: Exception | None = None
        self.woken = Lock()
        self.woken.acquire()


class Batches(Generic[Answer]):
    """Puts questions together; for any thread.

    :param ask: asks about one key
    :param ask_all: asks about several; a key that has no answer then is asked about by itself
    :param patience: seconds that a question waits for its turn, before it is asked alone: an
        answer that does not come holds up nobody else for longer
    """

    def __init__(
        self,
        ask: Callable[[str], Answer],
        ask_all: Callable[[Sequence[str]], Mapping[str, Answer]],
        patience: float,
    ) -> None:
        self._ask = ask
        self._ask_all = ask_all
        self._patience = patience
        self._lock = Lock()
        self._busy = False
        """Whether a thread asks at this moment, or has been woken to do so."""
        self._waiting: list[_Question[Answer]] = []

    def answer(self, key: str) -> Answer:
        """The answer for a key.

        :raises Exception: what asking raises, for all who asked together
        """
        with self._lock:
            question = _Question[Answer](key) if self._busy else None
            if question:
                self._waiting.append(question)
            self._busy = True
        if question is None:
            try:
                return self._ask(key)
            finally:
                self._wake_next()
        if not self._is_woken(question):
            return self._ask(key)
        if question.batch:
            self._lead(question.batch)
        if question.error:
            raise question.error
        return question.answers[key] if key in question.answers else self._ask(key)

    def _is_woken(self, question: _Question[Answer]) -> bool:
        """Wait for a question's turn; False when that takes too long."""
        if question.woken.acquire(timeout=self._patience):
            return True
        with self._lock:
            if question in self._waiting:
                self._waiting.remove(question)
                return False
        return question.woken.acquire()  # it is being asked about by now

    def _lead(self, batch: list[_Question[Answer]]) -> None:
        """Ask for all, and wake the others: with answers, an error, or nothing at all."""
        leader, *others = batch
        try:
            if others:
                leader.answers = self._ask_all([question.key for question in batch])
            else:
                leader.answers = {leader.key: self._ask(leader.key)}
        except Exception as error:
            leader.error = error
        finally:
            self._wake_next()
            for question in others:
                question.answers = leader.answers
                # Each raises one of its own: raising writes the way it takes into it.
                question.error = copy(leader.error)
                question.woken.release()

    def _wake_next(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._busy = bool(batch)
        if batch:
            batch[0].batch = batch
            batch[0].woken.release()
