"""Checks whether a history of concurrent events is linearizable.

This is Wing and Gong's search with backtracking. The next event is any event that began before all
remaining ones ended. The search remembers the positions from which it found no order (Lowe). An
event is a relation and not a function, since a refused request may have written something and
undone it. This module knows nothing of the service.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

State = Hashable


@dataclass(frozen=True)
class OptionalStep:
    """The step of an event that may have no effect, in any state.

    :param effect: returns the possible states after a state if the event has an effect
    """

    effect: Callable[[Any], Iterable[State]]

    def __call__(self, state: State) -> list[State]:
        """Return the possible states after a state."""
        return [state, *self.effects(state)]

    def effects(self, state: State) -> list[State]:
        """Return the possible states after a state, without the state itself."""
        return [after for after in self.effect(state) if after != state]


@dataclass(frozen=True)
class Event:
    """An event that takes effect at some moment between its begin and its end.

    :param step: returns the possible states after a state; none if the event is not possible
    :param label: the text of the event in a failure
    """

    began: float
    ended: float
    step: Callable[[State], Iterable[State]]
    label: str = ""


def legal_order(
    events: Sequence[Event], initial: State, final: Callable[[State], bool] = lambda state: True
) -> list[Event] | None:
    """Return an order of the events in which each is possible, or None if there is none.

    Optional events that have no effect are left out. They would have a place in any order, and
    the search would try each combination of them.

    :param final: whether a state is allowed at the end
    """
    optional = sum(1 << i for i, each in enumerate(events) if isinstance(each.step, OptionalStep))
    required = (1 << len(events)) - 1 & ~optional
    dead: set[tuple[int, State]] = set()
    # Each entry: the events that are done (bits), the state, and the events that can be next.
    path: list[int] = []
    stack = [(0, initial, _next(events, optional, 0, initial))]
    while stack:
        done, state, tries = stack[-1]
        if not required & ~done and final(state):
            return [events[i] for i in path]
        following = next((t for t in tries if (t[0], t[1]) not in dead), None)
        if following is None:
            dead.add((done, state))
            stack.pop()
            path[-1:] = []
            continue
        now_done, now_state, index = following
        path.append(index)
        stack.append((now_done, now_state, _next(events, optional, now_done, now_state)))
    return None


def _next(
    events: Sequence[Event], optional: int, done: int, state: State
) -> Iterable[tuple[int, State, int]]:
    left = [i for i in range(len(events)) if not done >> i & 1]
    first_end = min((events[i].ended for i in left if not optional >> i & 1), default=math.inf)
    for i in sorted(left, key=lambda i: events[i].ended):
        event = events[i]
        if event.began > first_end:
            continue
        step = event.step.effects if isinstance(event.step, OptionalStep) else event.step
        for after in step(state):
            yield done | 1 << i | _over(events, left, optional, event.began), after, i


def _over(events: Sequence[Event], left: Iterable[int], optional: int, began: float) -> int:
    """Return the optional events that cannot have an effect after an event that began then."""
    return sum(1 << i for i in left if optional >> i & 1 and events[i].ended < began)
