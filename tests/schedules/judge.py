"""Checks whether the replies of a run and the pool after it are consistent."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.schedules.operations import Operation, Pool, show_pool
from tests.schedules.world import Reply
from tests.stateful.history import Event, legal_order


@dataclass
class Told:
    """What the client of an operation was told, in all its attempts.

    :param began: the step before which it began
    :param ended: the step after which it was first told how it ended
    """

    operation: Operation
    began: float = math.inf
    ended: float = math.inf
    replies: list[Reply] = field(default_factory=list)

    @property
    def final(self) -> Reply | None:
        """The answer that says how it ended."""
        return next((reply for reply in self.replies if reply.is_final), None)


def contradictions(history: Sequence[Told]) -> Iterator[str]:
    """Operations whose attempts were told different ends."""
    for told in history:
        ends = {str(r) if r.is_done else "refused" for r in told.replies if r.is_final}
        if len(ends) > 1:
            yield f"{told.operation}: told {' and then '.join(map(str, told.replies))}"


def untrue(history: Sequence[Told], start: Pool, end: Pool) -> Iterator[str]:
    """Why there is no order of the operations that explains their answers and the last pool.

    Each operation takes place as a whole at some moment between its begin and its answer; whoever
    was told that it is not done may have met something passing of another that went on beside it;
    whoever was told nothing certain may have done all of it or nothing.
    """
    events = [
        Event(told.began, told.ended, _step(told, history, start | end))
        for told in history
        if told.operation.verb != "repairs"
    ]
    if legal_order(events, start, lambda pool: pool == end) is None:
        said = "; ".join(f"{t.operation}: {t.final or 'not told'}" for t in history)
        yield f"untrue: from {show_pool(start)} to {show_pool(end)} by {said}"


def _step(told: Told, history: Sequence[Told], pool: Pool) -> "Step":
    beside = (
        other.operation.about(pool)
        for other in history
        if other is not told and other.began <= told.ended and told.began <= other.ended
    )
    return Step(told.operation, told.final, frozenset[str]().union(*beside))


@dataclass(frozen=True)
class Step:
    """What an operation that was told this can have done.

    :param passing: addresses that others were about at the same time
    """

    operation: Operation
    reply: Reply | None
    passing: frozenset[str]

    def __call__(self, pool: Pool) -> Iterator[Pool]:
        effects = list(self.operation.effects(pool, self.passing))
        if self.reply is None:
            yield pool
            yield from (after for _, after in effects)
        elif self.reply.is_done:
            yield from (after for letters, after in effects if letters == self.reply.letters)
        elif self.operation.about(pool) & self.passing or not effects:
            yield pool


def nobody_won(history: Sequence[Told], start: Pool) -> Iterator[str]:
    """Whether all were refused, although something could be done: then by whom?"""
    possible = [t for t in history if any(True for _ in t.operation.effects(start))]
    answered = [t.final for t in history if t.operation.verb != "repairs"]
    if possible and answered and all(r and not r.is_done for r in answered):
        yield "everybody is refused, though nobody has anything"
