"""Whether what was seen of one address can have happened in some order.

Wing and Gong's search, forward in time as in Knossos: a configuration is where one possible order
of what has happened so far leads, that is the state of the address and which operations have taken
effect already. At the end of each operation those configurations stay in which it has. Equal ones
are kept once, as in Lowe's algorithm. When none is left, no order explains what was seen.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

ABSENT = "absent"
AVAILABLE = "available"
"""The states of an address; every other one is the account that has it."""

LIMIT = 200_000
"""Configurations after which the search is given up; see `Undecided`."""


class Undecided(Exception):
    """There are too many possible orders to look at them all."""


class Certainty(Enum):
    """What is known of an operation."""

    CERTAIN = auto()
    """It took effect once, between its begin and its end."""
    PERHAPS = auto()
    """It took effect at some time after its begin, or never, or was undone."""
    PASSING = auto()
    """It did not take effect; between begin and end it may have been seen before it was undone, or
    ended by somebody else."""


_INVERSE = {"assign": "release", "release": "assign", "create": "delete", "delete": "create"}


@dataclass(frozen=True)
class Effect:
    """What an operation does to an address, or what it saw of it.

    :param what: assign, release, create, delete, `delete by force`, or what was seen: `is`,
        `is not`, `is another's`
    :param who: the account; for what was seen, any state
    """

    what: str
    who: str = ""

    def on(self, state: str) -> str | None:
        """The state after it; None where it is not possible."""
        possible, after = {
            "assign": (state == AVAILABLE, self.who),
            "release": (state == self.who, AVAILABLE),
            "create": (state == ABSENT, AVAILABLE),
            "delete": (state == AVAILABLE, ABSENT),
            "delete by force": (state != ABSENT, ABSENT),
            "is": (state == self.who, state),
            "is not": (state != self.who, state),
            "is another's": (state not in (ABSENT, AVAILABLE, self.who), state),
        }[self.what]
        return after if possible else None

    @property
    def undone(self) -> "Effect | None":
        """The effect that takes this one back."""
        inverse = _INVERSE.get(self.what)
        return Effect(inverse, self.who) if inverse else None

    @property
    def result(self) -> str | None:
        """The state that there is after it, whatever was before; None when it tells of none."""
        states = {"assign": self.who, "is": self.who, "release": AVAILABLE, "create": AVAILABLE}
        return ABSENT if self.what.startswith("delete") else states.get(self.what)


@dataclass(frozen=True)
class Operation:
    """One operation on one address, as its caller knows it.

    :param begin: when the request was sent, in seconds of any clock that all share
    :param end: when its answer was there
    :param call: which call it is a part of
    """

    effect: Effect
    begin: float
    end: float
    certainty: Certainty = Certainty.CERTAIN
    call: int = -1


class _Configuration(NamedTuple):
    """Where one possible order leads.

    :param applied: of the operations that are open, or uncertain, those that took effect
    :param last: the uncertain operation that made this state, which alone can be undone
    """

    state: str
    applied: frozenset[int] = frozenset()
    last: int | None = None


def _least(configuration: _Configuration) -> tuple[int, list[int], str]:
    return len(configuration.applied), sorted(configuration.applied), configuration.state


def violations(operations: Iterable[Operation], initial: str) -> Iterator[Operation]:
    """The operations at whose end nothing explains what was seen; none is right.

    After each the search goes on from the state that this operation tells of.

    :raises Undecided: there are too many possible orders
    """
    return _Search(sorted(operations, key=lambda operation: operation.begin)).run(initial)


class _Search:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._open: set[int] = set()
        self._passing: set[int] = set()
        self._perhaps: dict[Effect, list[int]] = {}
        self._uncertain_ones: frozenset[int] = frozenset()

    def run(self, initial: str) -> Iterator[Operation]:
        here = {_Configuration(initial)}
        begins = [(operation.begin, 0, n) for n, operation in enumerate(self._operations)]
        ends = [
            (operation.end, 1, n)
            for n, operation in enumerate(self._operations)
            if operation.certainty is not Certainty.PERHAPS and operation.end < math.inf
        ]
        for _, is_end, n in sorted(begins + ends):
            operation = self._operations[n]
            if not is_end:
                self._begin(n, operation)
                here = {self._with_what_it_shows(configuration) for configuration in here}
                continue
            passing = operation.certainty is Certainty.PASSING
            left = set(self._without(n, here) if passing else self._with(n, here))
            (self._passing if passing else self._open).discard(n)
            if not left:
                yield operation
                left = {self._told(operation, min(here, key=_least))}
            here = self._best(left)

    def _best(self, here: set[_Configuration]) -> set[_Configuration]:
        """Without those that equal another, but that more of what is uncertain was used up."""
        best: dict[tuple[str, int | None, frozenset[int]], list[frozenset[int]]] = {}
        for state, applied, last in sorted(here, key=lambda each: len(each.applied)):
            used = applied & self._uncertain_ones
            least = best.setdefault((state, last, applied - used), [])
            if not any(less <= used for less in least):
                least.append(used)
        return {
            _Configuration(state, rest | used, last)
            for (state, last, rest), least in best.items()
            for used in least
        }

    def _begin(self, n: int, operation: Operation) -> None:
        if operation.certainty is Certainty.CERTAIN:
            self._open.add(n)
        elif operation.certainty is Certainty.PASSING:
            self._passing.add(n)
        else:
            self._perhaps.setdefault(operation.effect, []).append(n)
            self._uncertain_ones |= {n}

    def _with(self, n: int, here: set[_Configuration]) -> Iterator[_Configuration]:
        """The configurations from here in which an operation has taken effect."""
        for configuration in self._reachable(here, until=n):
            if n in configuration.applied:
                yield configuration._replace(applied=configuration.applied - {n})

    def _without(self, n: int, here: set[_Configuration]) -> Iterator[_Configuration]:
        """The configurations from here in which one that passes by is over: undone by its own
        call, unless somebody ended it before, for good."""
        for configuration in self._reachable(here):
            if n not in configuration.applied:
                yield configuration
            elif configuration.last == n:
                yield self._undo(configuration)
            else:
                yield configuration._replace(applied=configuration.applied - {n}, last=None)

    def _told(self, operation: Operation, configuration: _Configuration) -> _Configuration:
        state = operation.effect.result or configuration.state
        return self._with_what_it_shows(_Configuration(state, configuration.applied))

    def _reachable(
        self, here: set[_Configuration], until: int | None = None
    ) -> set[_Configuration]:
        """All that open operations lead to; no further where one of them has taken effect."""
        seen, ahead = set(here), list(here)
        while ahead:
            configuration = ahead.pop()
            if until in configuration.applied:
                continue
            for n in self._open - configuration.applied:
                for after in self._after(configuration, n):
                    if after not in seen:
                        seen.add(after)
                        ahead.append(after)
            if len(seen) > LIMIT:
                raise Undecided
        return seen

    def _after(self, configuration: _Configuration, n: int) -> Iterator[_Configuration]:
        effect = self._operations[n].effect
        for before in self._ways(configuration, effect):
            state = effect.on(before.state)
            assert state is not None
            last = before.last if state == before.state else None
            yield self._with_what_it_shows(_Configuration(state, before.applied | {n}, last))

    def _ways(self, configuration: _Configuration, effect: Effect) -> Iterator[_Configuration]:
        """Where an effect is possible. What is uncertain is only used where it is needed, since it
        could as well happen later."""
        if effect.on(configuration.state) is not None:
            yield configuration
            return
        ahead = [(configuration, {configuration.state})]
        while ahead:
            before, states = ahead.pop()
            for after in self._uncertain(before):
                if effect.on(after.state) is not None:
                    yield after
                elif after.state not in states:
                    ahead.append((after, states | {after.state}))

    def _uncertain(self, configuration: _Configuration) -> Iterator[_Configuration]:
        if configuration.last is not None and self._operations[configuration.last].effect.undone:
            yield self._undo(configuration)
        # Of equal ones it does not matter which took effect: the first that has not yet.
        firsts = [
            next((n for n in equal if n not in configuration.applied), None)
            for equal in self._perhaps.values()
        ]
        for n in (*firsts, *(self._passing - configuration.applied)):
            if n is not None:
                state = self._operations[n].effect.on(configuration.state)
                if state is not None:
                    made = _Configuration(state, configuration.applied | {n}, n)
                    yield self._with_what_it_shows(made)

    def _undo(self, configuration: _Configuration) -> _Configuration:
        last = configuration.last
        assert last is not None
        undone = self._operations[last].effect.undone
        state = undone and undone.on(configuration.state)
        assert state
        return self._with_what_it_shows(_Configuration(state, configuration.applied - {last}))

    def _with_what_it_shows(self, configuration: _Configuration) -> _Configuration:
        """Open operations that only saw the state see it as soon as it is there."""
        seen = {
            n
            for n in self._open - configuration.applied
            if self._operations[n].effect.on(configuration.state) == configuration.state
        }
        return configuration._replace(applied=configuration.applied | seen)
