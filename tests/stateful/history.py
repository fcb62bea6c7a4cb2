"""Whether what happened to one address at the same time could have happened one after the other.

The search of Wing and Gong: take any event that began before all others that are left had ended,
try it, go on with the rest, go back when stuck; remember the positions that led nowhere (Lowe).
An event is a relation rather than a function, since a refused request may have done something and
undone it. Knows nothing of the service.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

State = Hashable


@dataclass(frozen=True)
class Event:
    """One thing that happened, at some moment between two.

    :param step: from the state before it to the states that it may leave; none if it cannot be
    :param label: for whoever reads a history that has no order
    """

    began: float
    ended: float
    step: Callable[[State], Iterable[State]]
    label: str = ""


def legal_order(
    events: Sequence[Event], initial: State, final: Callable[[State], bool] = lambda state: True
) -> list[Event] | None:
    """An order of the events in which each is possible, or None if there is none.

    :param final: whether a state may be the last one
    """
    dead: set[tuple[int, State]] = set()
    everything = (1 << len(events)) - 1
    # Where the search stands: what is done, the state, and what can be tried from there.
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
