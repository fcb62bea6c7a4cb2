"""Checks whether the replies of a run and the pool after it are consistent."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.schedules.operations import Operation, Pool, kept, show_pool
from tests.schedules.world import Recorded, Reply
from tests.stateful.history import Event, legal_order


@dataclass
class Call:
    """An operation, and the replies to all attempts of it.

    :param began: the step before which the first attempt began
    :param ended: the step after which the first final reply arrived
    :param request_id: the id of the request, the same in all attempts
    """

    operation: Operation
    began: float = math.inf
    ended: float = math.inf
    replies: list[Reply] = field(default_factory=list)
    request_id: str = ""

    @property
    def final(self) -> Reply | None:
        """The first final reply."""
        return next((reply for reply in self.replies if reply.is_final), None)


def contradictions(history: Sequence[Call]) -> Iterator[str]:
    """Yield the calls that got different final replies."""
    for call in history:
        finals = {str(r) if r.is_done else "refused" for r in call.replies if r.is_final}
        if len(finals) > 1:
            yield f"{call.operation}: different replies: {', then '.join(map(str, call.replies))}"


def inconsistencies(history: Sequence[Call], start: Pool, end: Pool) -> Iterator[str]:
    """Yield a message if no order of the operations explains the replies and the final pool.

    Each operation takes effect at once, at some moment between its begin and its final reply. A
    refused operation may have read an intermediate state of a concurrent one. An operation without
    a final reply may have taken effect completely or not at all.
    """
    events = [
        Event(call.began, call.ended, _step(call, history, start | end))
        for call in history
        if call.operation.verb != "repairs"
    ]
    if legal_order(events, start, lambda pool: kept(pool) == end) is None:
        replies = "; ".join(f"{c.operation}: {c.final or 'no final reply'}" for c in history)
        yield f"no order explains {show_pool(start)} to {show_pool(end)} by {replies}"


_KINDS = {
    "assigns": "assigned",
    "allocates": "assigned",
    "reserves": "reserved",
    "confirms": "assigned",
    "cancels": "released",
    "releases": "released",
    "gives": "transferred",
    "creates": "created",
    "moves": "changed",
    "deletes": "deleted",
}


def misrecorded(history: Sequence[Call], recorded: Sequence[Recorded]) -> Iterator[str]:
    """Yield the calls whose events in the trails do not agree with their replies.

    An acknowledged change has exactly one event. A refused one has none, unless another client has
    read it and based its own write on it.
    """
    for call in history:
        if call.final is None or call.operation.verb not in _KINDS:
            continue
        kind = _KINDS[call.operation.verb]
        own = [r for r in recorded if (r.kind, r.request_id) == (kind, call.request_id)]
        if not call.final.is_done:
            last = {r.letter: r for r in recorded}
            own = [r for r in own if r is last[r.letter]]
        expected = sorted(call.final.letters) if call.final.is_done else []
        if sorted(r.letter for r in own) != expected:
            yield f"{call.operation}: {call.final}, and the trails have {own}"


def _step(call: Call, history: Sequence[Call], pool: Pool) -> "Step":
    concurrent = (
        other.operation.about(pool)
        for other in history
        if other is not call and other.began <= call.ended and call.began <= other.ended
    )
    return Step(call.operation, call.final, frozenset[str]().union(*concurrent))


@dataclass(frozen=True)
class Step:
    """The possible effects of an operation that got this reply.

    :param concurrent: addresses that concurrent operations may read or write
    """

    operation: Operation
    reply: Reply | None
    concurrent: frozenset[str]

    def __call__(self, pool: Pool) -> Iterator[Pool]:
        effects = list(self.operation.effects(pool, self.concurrent))
        if self.reply is None:
            yield pool
            yield from (after for _, after in effects)
        elif self.reply.is_done:
            yield from (after for letters, after in effects if self.reply.fits(letters))
        elif self.operation.about(pool) & self.concurrent or not effects:
            yield pool


def all_refused(history: Sequence[Call], start: Pool) -> Iterator[str]:
    """Yield a message if every operation was refused although one of them was possible."""
    possible = [c for c in history if any(True for _ in c.operation.effects(start))]
    finals = [c.final for c in history if c.operation.verb != "repairs"]
    if possible and finals and all(reply and not reply.is_done for reply in finals):
        yield "every operation was refused, although one was possible"
