"""Checks whether the operations on one address are linearizable.

This is Wing and Gong's search, forward in time as in Knossos. A configuration is the result of one
possible order of the operations so far: the state of the address, and the operations that have
taken effect. At the end of an operation, only the configurations remain in which it has taken
effect. Equal configurations are kept once, as in Lowe's algorithm. If none remains, no order
explains the replies.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

ABSENT = "absent"
AVAILABLE = "available"
"""States of an address. Any other state is the id of the account that has the address."""

LIMIT = 200_000
"""The number of configurations above which the search raises `Undecided`."""


class Undecided(Exception):
    """There are too many possible orders to examine all."""


class Certainty(Enum):
    """What its reply says about whether an operation took effect."""

    CERTAIN = auto()
    """It took effect once, between its begin and its end."""
    UNKNOWN = auto()
    """It took effect at some time after its begin, or never, or was undone."""
    TRANSIENT = auto()
    """It had no lasting effect. Between its begin and its end, its effect may have been visible
    until its own call undid it or another operation replaced it."""


_INVERSE = {"assign": "release", "release": "assign", "create": "delete", "delete": "create"}


@dataclass(frozen=True)
class Effect:
    """The effect of an operation on an address, or the state that it observed.

    :param what: assign, release, create, delete, `delete by force`, or an observation: `is`,
        `is not`, `is another's`
    :param who: the account; for an observation, any state
    """

    what: str
    who: str = ""

    def on(self, state: str) -> str | None:
        """Return the state afterwards; None if the effect is not possible in this state."""
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
    def inverse(self) -> "Effect | None":
        """The effect that undoes this one; None if there is none."""
        inverse = _INVERSE.get(self.what)
        return Effect(inverse, self.who) if inverse else None

    @property
    def result(self) -> str | None:
        """The state that this effect implies, in any case; None if it implies none."""
        states = {"assign": self.who, "is": self.who, "release": AVAILABLE, "create": AVAILABLE}
        return ABSENT if self.what.startswith("delete") else states.get(self.what)


@dataclass(frozen=True)
class Operation:
    """One operation on one address.

    :param begin: when the request was sent, in seconds of a clock that all clients share
    :param end: when the reply arrived; infinite without a reply
    :param call: the number of its call
    """

    effect: Effect
    begin: float
    end: float
    certainty: Certainty = Certainty.CERTAIN
    call: int = -1


class _Configuration(NamedTuple):
    """The result of one possible order of the operations so far.

    :param applied: those of the open and of the uncertain operations that have taken effect
    :param last: the uncertain operation that caused this state; only this one can be undone
    """

    state: str
    applied: frozenset[int] = frozenset()
    last: int | None = None


def _least(configuration: _Configuration) -> tuple[int, list[int], str]:
    return len(configuration.applied), sorted(configuration.applied), configuration.state


def violations(operations: Iterable[Operation], initial: str) -> Iterator[Operation]:
    """Yield each operation at whose end no order explains the history; none if it is linearizable.

    After each such operation, the search continues from the state that this operation implies.

    :raises Undecided: there are too many possible orders
    """
    return _Search(sorted(operations, key=lambda operation: operation.begin)).run(initial)


class _Search:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._open: set[int] = set()
        self._transient: set[int] = set()
        self._unknown: dict[Effect, list[int]] = {}
        self._uncertain_numbers: frozenset[int] = frozenset()

    def run(self, initial: str) -> Iterator[Operation]:
        configurations = {_Configuration(initial)}
        begins = [(operation.begin, 0, n) for n, operation in enumerate(self._operations)]
        ends = [
            (operation.end, 1, n)
            for n, operation in enumerate(self._operations)
            if operation.certainty is not Certainty.UNKNOWN and operation.end < math.inf
        ]
        for _, is_end, n in sorted(begins + ends):
            operation = self._operations[n]
            if not is_end:
                self._begin(n, operation)
                configurations = {
                    self._with_observations(configuration) for configuration in configurations
                }
                continue
            transient = operation.certainty is Certainty.TRANSIENT
            left = set(
                self._without(n, configurations) if transient else self._with(n, configurations)
            )
            (self._transient if transient else self._open).discard(n)
            if not left:
                yield operation
                left = {self._resume_after(operation, min(configurations, key=_least))}
            configurations = self._best(left)

    def _best(self, configurations: set[_Configuration]) -> set[_Configuration]:
        """Drop each configuration that equals another one but has applied more uncertain
        operations."""
        best: dict[tuple[str, int | None, frozenset[int]], list[frozenset[int]]] = {}
        for state, applied, last in sorted(configurations, key=lambda each: len(each.applied)):
            used = applied & self._uncertain_numbers
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
        elif operation.certainty is Certainty.TRANSIENT:
            self._transient.add(n)
        else:
            self._unknown.setdefault(operation.effect, []).append(n)
            self._uncertain_numbers |= {n}

    def _with(self, n: int, configurations: set[_Configuration]) -> Iterator[_Configuration]:
        """Yield the reachable configurations in which an operation has taken effect."""
        for configuration in self._reachable(configurations, until=n):
            if n in configuration.applied:
                yield configuration._replace(applied=configuration.applied - {n})

    def _without(self, n: int, configurations: set[_Configuration]) -> Iterator[_Configuration]:
        """Yield the reachable configurations after a transient operation has ended.

        Its own call undoes it, unless another operation has changed the state since.
        """
        for configuration in self._reachable(configurations):
            if n not in configuration.applied:
                yield configuration
            elif configuration.last == n:
                yield self._undo(configuration)
            else:
                yield configuration._replace(applied=configuration.applied - {n}, last=None)

    def _resume_after(self, operation: Operation, configuration: _Configuration) -> _Configuration:
        state = operation.effect.result or configuration.state
        return self._with_observations(_Configuration(state, configuration.applied))

    def _reachable(
        self, configurations: set[_Configuration], until: int | None = None
    ) -> set[_Configuration]:
        """Return all configurations that open operations can lead to.

        :param until: do not continue from configurations in which this operation has taken effect
        """
        seen, pending = set(configurations), list(configurations)
        while pending:
            configuration = pending.pop()
            if until in configuration.applied:
                continue
            for n in self._open - configuration.applied:
                for after in self._after(configuration, n):
                    if after not in seen:
                        seen.add(after)
                        pending.append(after)
            if len(seen) > LIMIT:
                raise Undecided
        return seen

    def _after(self, configuration: _Configuration, n: int) -> Iterator[_Configuration]:
        effect = self._operations[n].effect
        for before in self._enabling(configuration, effect):
            state = effect.on(before.state)
            assert state is not None
            last = before.last if state == before.state else None
            yield self._with_observations(_Configuration(state, before.applied | {n}, last))

    def _enabling(self, configuration: _Configuration, effect: Effect) -> Iterator[_Configuration]:
        """Yield configurations in which an effect is possible.

        Uncertain operations are applied only if the effect needs them, since they may take effect
        later as well.
        """
        if effect.on(configuration.state) is not None:
            yield configuration
            return
        pending = [(configuration, {configuration.state})]
        while pending:
            before, states = pending.pop()
            for after in self._uncertain(before):
                if effect.on(after.state) is not None:
                    yield after
                elif after.state not in states:
                    pending.append((after, states | {after.state}))

    def _uncertain(self, configuration: _Configuration) -> Iterator[_Configuration]:
        if configuration.last is not None and self._operations[configuration.last].effect.inverse:
            yield self._undo(configuration)
        # Operations with equal effects are interchangeable: try the first that is not applied yet.
        firsts = [
            next((n for n in equal if n not in configuration.applied), None)
            for equal in self._unknown.values()
        ]
        for n in (*firsts, *(self._transient - configuration.applied)):
            if n is not None:
                state = self._operations[n].effect.on(configuration.state)
                if state is not None:
                    made = _Configuration(state, configuration.applied | {n}, n)
                    yield self._with_observations(made)

    def _undo(self, configuration: _Configuration) -> _Configuration:
        last = configuration.last
        assert last is not None
        undone = self._operations[last].effect.inverse
        state = undone and undone.on(configuration.state)
        assert state
        return self._with_observations(_Configuration(state, configuration.applied - {last}))

    def _with_observations(self, configuration: _Configuration) -> _Configuration:
        """Apply all open operations that only observe the current state."""
        observed = {
            n
            for n in self._open - configuration.applied
            if self._operations[n].effect.on(configuration.state) == configuration.state
        }
        return configuration._replace(applied=configuration.applied | observed)
