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

CERTAIN, UNKNOWN, TRANSIENT = Certainty.CERTAIN, Certainty.UNKNOWN, Certainty.TRANSIENT


def op(
    begin: float, end: float, what: str, who: str = "", certainty: Certainty = CERTAIN
) -> Operation:
    return Operation(Effect(what, who), begin, end, certainty)


def unknown(begin: float, what: str, who: str = "") -> Operation:
    return op(begin, math.inf, what, who, UNKNOWN)


def contradictions(*operations: Operation, initial: str = AVAILABLE) -> list[tuple[float, str]]:
    """Return end and effect of each operation at which a contradiction shows."""
    return [(o.end, o.effect.what) for o in violations(operations, initial)]


POSSIBLE = {
    "nothing happens": [],
    "one after the other": [
        op(0, 1, "assign", "a"),
        op(2, 3, "release", "a"),
        op(4, 5, "assign", "b"),
    ],
    "concurrent, with only one possible order": [
        op(0, 9, "assign", "b"),
        op(0, 8, "release", "a"),
        op(1, 7, "assign", "a"),
    ],
    "an order that differs from the order of the ends": [
        op(0, 10, "assign", "a"),
        op(0, 12, "release", "a"),
        op(1, 9, "assign", "b"),
    ],
    "refused because another has it": [op(0, 3, "assign", "a"), op(1, 2, "is another's", "b")],
    "observed before it was assigned": [op(0, 3, "assign", "a"), op(1, 4, "is", AVAILABLE)],
    "an unknown assignment that took effect": [unknown(0, "assign", "a"), op(5, 6, "is", "a")],
    "an unknown assignment that had no effect": [
        unknown(0, "assign", "a"),
        op(5, 6, "assign", "b"),
    ],
    "an unknown assignment that took effect late": [
        unknown(0, "assign", "a"),
        op(5, 6, "is", AVAILABLE),
        op(7, 8, "is", "a"),
    ],
    "an unknown assignment that was undone": [
        unknown(0, "assign", "a"),
        op(5, 6, "is", "a"),
        op(7, 8, "assign", "b"),
    ],
    "two unknown operations that explain a third": [
        op(0, 1, "assign", "a"),
        unknown(2, "release", "a"),
        unknown(3, "assign", "b"),
        op(5, 6, "is another's", "a"),
    ],
    "a transient assignment that is observed": [
        op(0, 5, "assign", "a", TRANSIENT),
        op(3, 9, "is another's", "b"),
        op(6, 9, "assign", "b"),
    ],
    "a transient assignment that its account releases": [
        op(0, 5, "assign", "a", TRANSIENT),
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
    "a state observed between two unknown operations": [
        op(0, 1, "assign", "a"),
        unknown(2, "release", "a"),
        unknown(2, "assign", "b"),
        unknown(2, "release", "b"),
        op(3, 9, "is", "b"),
        op(4, 5, "assign", "a"),
    ],
}

IMPOSSIBLE = {
    "assigned twice": ([op(0, 1, "assign", "a"), op(2, 3, "assign", "b")], [(3, "assign")]),
    "assigned twice at once": (
        [op(0, 3, "assign", "a"), op(1, 2, "assign", "b")],
        [(3, "assign")],
    ),
    "released twice": (
        [op(0, 1, "assign", "a"), op(2, 5, "release", "a"), op(2, 5, "release", "a")],
        [(5, "release")],
    ),
    "released by another account": (
        [op(0, 1, "assign", "a"), op(2, 3, "release", "b")],
        [(3, "release")],
    ),
    "refused although it is available": ([op(2, 3, "is another's", "a")], [(3, "is another's")]),
    "missed by a release of all": (
        [op(0, 1, "assign", "a"), op(2, 3, "is not", "a")],
        [(3, "is not")],
    ),
    "lost by a refused release": (
        [op(0, 1, "assign", "a"), op(2, 3, "is", "a"), op(4, 5, "assign", "b")],
        [(5, "assign")],
    ),
    "released by no operation": (
        [op(0, 1, "assign", "a"), op(9, 9, "is", AVAILABLE)],
        [(9, "is")],
    ),
    "assigned by no operation": ([op(9, 9, "is", "a")], [(9, "is")]),
    "an unknown operation took effect before it was sent": (
        [unknown(5, "assign", "a"), op(1, 2, "is", "a")],
        [(2, "is")],
    ),
    "an unknown operation took effect twice": (
        [
            unknown(0, "assign", "a"),
            op(1, 2, "release", "a"),
            op(3, 4, "is", AVAILABLE),
            op(5, 6, "is", "a"),
        ],
        [(6, "is")],
    ),
    "undone after another operation depended on it": (
        [
            unknown(0, "assign", "a"),
            op(1, 2, "release", "a"),
            op(3, 4, "assign", "a"),
            op(5, 6, "is", AVAILABLE),
        ],
        [(6, "is")],
    ),
    "a transient assignment that stayed": (
        [op(0, 5, "assign", "a", TRANSIENT), op(7, 8, "is", "a")],
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


@pytest.mark.parametrize("history", POSSIBLE.values(), ids=POSSIBLE)
def test_a_possible_history_passes(history: list[Operation]) -> None:
    assert contradictions(*history) == []


@pytest.mark.parametrize(("history", "where"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_history_is_found_at_the_operation_that_shows_it(
    history: list[Operation], where: list[tuple[float, str]]
) -> None:
    assert contradictions(*history) == where


EFFECTS = st.one_of(
    st.builds(Effect, st.sampled_from(["assign", "release"]), st.sampled_from("ab")),
    st.sampled_from([Effect("create"), Effect("delete"), Effect("delete by force")]),
    st.builds(Effect, st.just("is"), st.sampled_from(["a", "b", AVAILABLE, ABSENT])),
    st.builds(Effect, st.sampled_from(["is not", "is another's"]), st.sampled_from("ab")),
)
TIMES = st.tuples(st.integers(0, 12), st.integers(0, 8))
CERTAIN_OPERATIONS = st.builds(lambda e, t: Operation(e, t[0], t[0] + t[1]), EFFECTS, TIMES)


@st.composite
def linearizable_histories(draw: st.DrawFn) -> list[Operation]:
    """Generate linearizable histories: each operation spans the moment of its effect."""
    state, history = AVAILABLE, []
    for moment, effect in enumerate(draw(st.lists(EFFECTS, max_size=12))):
        after = effect.on(state)
        if after is not None:
            before, later = draw(st.tuples(st.floats(0, 3), st.floats(0, 3)))
            certainty = draw(st.sampled_from([CERTAIN, CERTAIN, UNKNOWN]))
            end = math.inf if certainty is UNKNOWN else moment + later
            history.append(Operation(effect, moment - before, end, certainty))
            state = after
    return history


@given(linearizable_histories())
def test_a_possible_history_passes_with_any_duration_of_requests(history: list[Operation]) -> None:
    assert contradictions(*history) == []


def some_order_is_possible(history: list[Operation]) -> bool:
    """Whether the history is linearizable, found by trying every order."""
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


@given(st.lists(CERTAIN_OPERATIONS, max_size=6))
def test_the_search_agrees_with_trying_every_order(history: list[Operation]) -> None:
    assert (contradictions(*history) == []) == some_order_is_possible(history)


ANY_OPERATIONS = st.builds(
    lambda e, t, c: Operation(e, t[0], math.inf if c is UNKNOWN else t[0] + t[1], c),
    EFFECTS,
    TIMES,
    st.sampled_from([CERTAIN, CERTAIN, UNKNOWN]),
) | st.builds(
    lambda who, t: Operation(Effect("assign", who), t[0], t[0] + t[1], TRANSIENT),
    st.sampled_from("ab"),
    TIMES,
)


class Moment(NamedTuple):
    """One moment of one order.

    :param left: the operations that have to follow
    :param unused: the uncertain operations that have not taken effect
    :param last: the uncertain operation that caused this state
    """

    state: str
    left: frozenset[int]
    unused: frozenset[int]
    last: int | None = None


def steps(history: list[Operation], now: Moment) -> Iterator[Moment]:
    """Yield all next moments; uncertain operations may take effect or be undone at any moment."""
    horizon = min(history[n].end for n in now.left)
    undone = None if now.last is None else history[now.last].effect.inverse
    if now.last is not None and undone:
        yield Moment(undone.on(now.state) or "", now.left, now.unused | {now.last})
    for n in now.left | now.unused:
        operation, after = history[n], history[n].effect.on(now.state)
        if operation.begin > horizon:
            continue
        if operation.certainty is TRANSIENT and n != now.last:
            last = now.last if n in now.unused else None
            yield Moment(now.state, now.left - {n}, now.unused - {n}, last)
        if after is not None and operation.certainty is CERTAIN:
            last = now.last if after == now.state else None
            yield Moment(after, now.left - {n}, now.unused, last)
        elif after is not None and n in now.unused:
            yield Moment(after, now.left, now.unused - {n}, n)


def some_order_completes(history: list[Operation]) -> bool:
    """Whether any order completes the history, found by taking every possible step."""
    left = frozenset(n for n, o in enumerate(history) if o.certainty is not UNKNOWN)
    uncertain = frozenset(n for n, o in enumerate(history) if o.certainty is not CERTAIN)
    pending = [Moment(AVAILABLE, left, uncertain)]
    seen = set(pending)
    while pending:
        now = pending.pop()
        if not now.left:
            return True
        new = set(steps(history, now)) - seen
        seen |= new
        pending += new
    return False


@given(st.lists(ANY_OPERATIONS, max_size=6))
def test_the_search_agrees_with_trying_every_order_of_uncertain_operations(
    history: list[Operation],
) -> None:
    history = [o for o in history if o.certainty is CERTAIN or not o.effect.what.startswith("is")]
    assert (contradictions(*history) == []) == some_order_completes(history)
