"""The search for an order, on histories written by hand and on generated ones."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.linearizability import (
    ABSENT,
    AVAILABLE,
    Certainty,
    Effect,
    Operation,
    violations,
)

CERTAIN, PERHAPS, PASSING = Certainty.CERTAIN, Certainty.PERHAPS, Certainty.PASSING


def op(
    begin: float, end: float, what: str, who: str = "", certainty: Certainty = CERTAIN
) -> Operation:
    return Operation(Effect(what, who), begin, end, certainty)


def perhaps(begin: float, what: str, who: str = "") -> Operation:
    return op(begin, math.inf, what, who, PERHAPS)


def wrong(*operations: Operation, initial: str = AVAILABLE) -> list[tuple[float, str]]:
    """When and in which operation each contradiction shows."""
    return [(o.end, o.effect.what) for o in violations(operations, initial)]


RIGHT = {
    "nothing happens": [],
    "one after the other": [
        op(0, 1, "assign", "a"),
        op(2, 3, "release", "a"),
        op(4, 5, "assign", "b"),
    ],
    "at the same time, in the only order there is": [
        op(0, 9, "assign", "b"),
        op(0, 8, "release", "a"),
        op(1, 7, "assign", "a"),
    ],
    "an order that the ends do not have": [
        op(0, 10, "assign", "a"),
        op(0, 12, "release", "a"),
        op(1, 9, "assign", "b"),
    ],
    "refused because another has it": [op(0, 3, "assign", "a"), op(1, 2, "is another's", "b")],
    "refused before it was taken": [op(0, 3, "assign", "a"), op(1, 4, "is", AVAILABLE)],
    "an unknown assignment that took effect": [perhaps(0, "assign", "a"), op(5, 6, "is", "a")],
    "one that did not": [perhaps(0, "assign", "a"), op(5, 6, "assign", "b")],
    "one that came late": [
        perhaps(0, "assign", "a"),
        op(5, 6, "is", AVAILABLE),
        op(7, 8, "is", "a"),
    ],
    "one that was undone": [
        perhaps(0, "assign", "a"),
        op(5, 6, "is", "a"),
        op(7, 8, "assign", "b"),
    ],
    "two unknown ones that make room for a third": [
        op(0, 1, "assign", "a"),
        perhaps(2, "release", "a"),
        perhaps(3, "assign", "b"),
        op(5, 6, "is another's", "a"),
    ],
    "a claim seen before it is withdrawn": [
        op(0, 5, "assign", "a", PASSING),
        op(3, 9, "is another's", "b"),
        op(6, 9, "assign", "b"),
    ],
    "a claim that its account gives up before it is withdrawn": [
        op(0, 5, "assign", "a", PASSING),
        op(1, 2, "release", "a"),
        op(6, 7, "assign", "b"),
    ],
    "added, deleted, added": [
        op(0, 1, "delete"),
        op(2, 3, "is", ABSENT),
        op(4, 5, "create"),
        op(6, 7, "assign", "a"),
        op(8, 9, "delete by force"),
    ],
    "what was seen between two unknown ones": [
        op(0, 1, "assign", "a"),
        perhaps(2, "release", "a"),
        perhaps(2, "assign", "b"),
        perhaps(2, "release", "b"),
        op(3, 9, "is", "b"),
        op(4, 5, "assign", "a"),
    ],
}

WRONG = {
    "assigned twice": ([op(0, 1, "assign", "a"), op(2, 3, "assign", "b")], [(3, "assign")]),
    "assigned twice at once": (
        [op(0, 3, "assign", "a"), op(1, 2, "assign", "b")],
        [(3, "assign")],
    ),
    "released twice": (
        [op(0, 1, "assign", "a"), op(2, 5, "release", "a"), op(2, 5, "release", "a")],
        [(5, "release")],
    ),
    "another's released": ([op(0, 1, "assign", "a"), op(2, 3, "release", "b")], [(3, "release")]),
    "refused though nobody has it": ([op(2, 3, "is another's", "a")], [(3, "is another's")]),
    "left out of what was released": (
        [op(0, 1, "assign", "a"), op(2, 3, "is not", "a")],
        [(3, "is not")],
    ),
    "lost by a refused release": (
        [op(0, 1, "assign", "a"), op(2, 3, "is", "a"), op(4, 5, "assign", "b")],
        [(5, "assign")],
    ),
    "gone without anybody's doing": (
        [op(0, 1, "assign", "a"), op(9, 9, "is", AVAILABLE)],
        [(9, "is")],
    ),
    "taken without anybody's doing": ([op(9, 9, "is", "a")], [(9, "is")]),
    "an unknown one took effect before it was sent": (
        [perhaps(5, "assign", "a"), op(1, 2, "is", "a")],
        [(2, "is")],
    ),
    "an unknown one took effect twice": (
        [
            perhaps(0, "assign", "a"),
            op(1, 2, "release", "a"),
            op(3, 4, "is", AVAILABLE),
            op(5, 6, "is", "a"),
        ],
        [(6, "is")],
    ),
    "undone after it was built upon": (
        [
            perhaps(0, "assign", "a"),
            op(1, 2, "release", "a"),
            op(3, 4, "assign", "a"),
            op(5, 6, "is", AVAILABLE),
        ],
        [(6, "is")],
    ),
    "a withdrawn claim that stayed": (
        [op(0, 5, "assign", "a", PASSING), op(7, 8, "is", "a")],
        [(8, "is")],
    ),
    "two contradictions": (
        [
            op(0, 1, "assign", "a"),
            op(2, 3, "assign", "b"),
            op(4, 5, "release", "b"),
            op(6, 7, "is", "a"),
        ],
        [(3, "assign"), (7, "is")],
    ),
    "added twice": ([op(0, 1, "create")], [(1, "create")]),
    "deleted while assigned": ([op(0, 1, "assign", "a"), op(2, 3, "delete")], [(3, "delete")]),
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT)
def test_a_possible_history_passes(history: list[Operation]) -> None:
    assert wrong(*history) == []


@pytest.mark.parametrize(("history", "where"), WRONG.values(), ids=WRONG)
def test_an_impossible_history_is_found_at_the_operation_that_shows_it(
    history: list[Operation], where: list[tuple[float, str]]
) -> None:
    assert wrong(*history) == where


EFFECTS = st.one_of(
    st.builds(Effect, st.sampled_from(["assign", "release"]), st.sampled_from("ab")),
    st.sampled_from([Effect("create"), Effect("delete"), Effect("delete by force")]),
    st.builds(Effect, st.just("is"), st.sampled_from(["a", "b", AVAILABLE, ABSENT])),
    st.builds(Effect, st.sampled_from(["is not", "is another's"]), st.sampled_from("ab")),
)
TIMES = st.tuples(st.integers(0, 12), st.integers(0, 8))
CERTAINLY = st.builds(lambda e, t: Operation(e, t[0], t[0] + t[1]), EFFECTS, TIMES)


@st.composite
def happened(draw: st.DrawFn) -> list[Operation]:
    """A history with an order: each operation spans the moment at which it takes effect."""
    state, history = AVAILABLE, []
    for moment, effect in enumerate(draw(st.lists(EFFECTS, max_size=12))):
        after = effect.on(state)
        if after is not None:
            before, later = draw(st.tuples(st.floats(0, 3), st.floats(0, 3)))
            certainty = draw(st.sampled_from([CERTAIN, CERTAIN, PERHAPS]))
            end = math.inf if certainty is PERHAPS else moment + later
            history.append(Operation(effect, moment - before, end, certainty))
            state = after
    return history


@given(happened())
def test_a_possible_history_passes_with_any_duration_of_requests(history: list[Operation]) -> None:
    assert wrong(*history) == []


def can_have_happened(history: list[Operation]) -> bool:
    """The same question, answered by trying every order."""
    for order in itertools.permutations(history):
        pairs = itertools.combinations(order, 2)
        if any(later.end < earlier.begin for earlier, later in pairs):
            continue
        state: str | None = AVAILABLE
        for operation in order:
            state = None if state is None else operation.effect.on(state)
        if state is not None:
            return True
    return False


@given(st.lists(CERTAINLY, max_size=6))
def test_the_search_agrees_with_trying_every_order(history: list[Operation]) -> None:
    assert (wrong(*history) == []) == can_have_happened(history)


ANY = st.builds(
    lambda e, t, c: Operation(e, t[0], math.inf if c is PERHAPS else t[0] + t[1], c),
    EFFECTS,
    TIMES,
    st.sampled_from([CERTAIN, CERTAIN, PERHAPS]),
) | st.builds(
    lambda who, t: Operation(Effect("assign", who), t[0], t[0] + t[1], PASSING),
    st.sampled_from("ab"),
    TIMES,
)


class Moment(NamedTuple):
    """One moment of one order: the state, the operations still to come, those uncertain ones that
    have not taken effect, and the one of them that made this state."""

    state: str
    left: frozenset[int]
    unused: frozenset[int]
    last: int | None = None


def steps(history: list[Operation], now: Moment) -> Iterator[Moment]:
    """All that can happen next, where what is uncertain may come and go at any moment."""
    horizon = min(history[n].end for n in now.left)
    undone = None if now.last is None else history[now.last].effect.undone
    if now.last is not None and undone:
        yield Moment(undone.on(now.state) or "", now.left, now.unused | {now.last})
    for n in now.left | now.unused:
        operation, after = history[n], history[n].effect.on(now.state)
        if operation.begin > horizon:
            continue
        if operation.certainty is PASSING and n != now.last:
            last = now.last if n in now.unused else None
            yield Moment(now.state, now.left - {n}, now.unused - {n}, last)
        if after is not None and operation.certainty is CERTAIN:
            last = now.last if after == now.state else None
            yield Moment(after, now.left - {n}, now.unused, last)
        elif after is not None and n in now.unused:
            yield Moment(after, now.left, now.unused - {n}, n)


def some_order_ends(history: list[Operation]) -> bool:
    """Whether any order comes to the end of the history, found by taking every step there is."""
    left = frozenset(n for n, o in enumerate(history) if o.certainty is not PERHAPS)
    uncertain = frozenset(n for n, o in enumerate(history) if o.certainty is not CERTAIN)
    ahead = [Moment(AVAILABLE, left, uncertain)]
    seen = set(ahead)
    while ahead:
        now = ahead.pop()
        if not now.left:
            return True
        new = set(steps(history, now)) - seen
        seen |= new
        ahead += new
    return False


@given(st.lists(ANY, max_size=6))
def test_the_search_agrees_with_trying_every_order_of_uncertain_operations(
    history: list[Operation],
) -> None:
    history = [o for o in history if o.certainty is CERTAIN or not o.effect.what.startswith("is")]
    assert (wrong(*history) == []) == some_order_ends(history)
