"""Checks whether a history of concurrent events is linearizable.

This is Wing and Gong's search with backtracking. The next event is any event that began before all
remaining ones ended. The search remembers the positions from which it found no order (Lowe). An
event is a relation and not a function, since a refused request may have written something and
undone it. This module knows nothing of the service.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

State = Hashable


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

    :param final: whether a state is allowed at the end
    """
    dead: set[tuple[int, State]] = set()
    everything = (1 << len(events)) - 1
    # Each entry: the events that are done (bits), the state, and the events that can be next.
    path: list[int] = []
    stack = [(0, initial, _next(events, 0, initial))]
    while stack:
        done, state, tries = stack[-1]
        if done == everything and final(state):
            return [events[i] for i in path]
        following = next((t for t in tries if (t[0], t[1]) not in dead), None)
        if following is None:
            dead.add((done, state))
            stack.pop()
            path[-1:] = []
            continue
        now_done, now_state, index = following
        path.append(index)
        stack.append((now_done, now_state, _next(events, now_done, now_state)))
    return None


def _next(events: Sequence[Event], done: int, state: State) -> Iterable[tuple[int, State, int]]:
    left = [i for i in range(len(events)) if not done >> i & 1]
    first_end = min((events[i].ended for i in left), default=0.0)
    for i in sorted(left, key=lambda i: events[i].ended):
        if events[i].began <= first_end:
            for after in events[i].step(state):
                yield done | 1 << i, after, i
