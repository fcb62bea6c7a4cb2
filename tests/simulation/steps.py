"""The states of an address in a run, and the steps from one to the next.

A step is a function from a state to the possible next states; none if the step is not possible.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.stateful.history import OptionalStep

AVAILABLE = "available"
DISABLED = "disabled"
RESTS = "~"
"""An address that rests has the owner `~X` if X had it last."""
HELD = "="
"""An address that is reserved for X has the owner `=X`."""
ABSENT = None


@dataclass(frozen=True)
class Transient:
    """A state that a call causes for a moment and then undoes.

    :param owner: the visible state
    :param call: the number of the call
    :param before: the state before and afterwards
    """

    owner: str | None
    call: int
    before: Any


@dataclass(frozen=True)
class Reserved:
    """An address that is reserved.

    :param account: the account for which it is
    :param call: the number of the call that has reserved it
    :param before: the state before, to which it returns
    """

    account: str
    call: int
    before: str

    @property
    def owner(self) -> str:
        """The visible state."""
        return HELD + self.account


State = str | None | Transient | Reserved
Step = Callable[[Any], Iterable[State]]


def owner(state: State) -> str | None:
    """Return the visible owner in a state."""
    return state.owner if isinstance(state, Transient | Reserved) else state


def is_unowned(state: State) -> bool:
    """Whether the pool has an address, and no account has it."""
    shown = owner(state)
    return shown is not None and (shown in {AVAILABLE, DISABLED} or shown[0] in RESTS + HELD)


def is_held(state: State) -> bool:
    """Whether an address is reserved."""
    shown = owner(state)
    return shown is not None and shown[0] == HELD


def is_free_for(account: str, *, by_name: bool = True) -> Callable[[str | None], bool]:
    """Whether an account may have an address."""
    free = {AVAILABLE, RESTS + account} if by_name else {AVAILABLE}
    return lambda shown: shown in free


def assign(account: str, *, by_name: bool = True) -> Step:
    """Assign an address."""
    is_free = is_free_for(account, by_name=by_name)
    return lambda s: [account] if is_free(owner(s)) else []


def released(account: str, setting: str) -> str:
    """Return the state of an address that an account has released."""
    return {"aging": RESTS + account, "drained": DISABLED}.get(setting, AVAILABLE)


def added(setting: str) -> str:
    """Return the state of an address that was added to the pool."""
    return DISABLED if setting == "drained" else AVAILABLE


def release(account: str, setting: str) -> Step:
    """Release an address of the account."""
    return lambda s: [released(account, setting)] if owner(s) == account else []


def transfer(from_: str, to: str) -> Step:
    """Transfer an address from one account to another one."""
    return lambda s: [to] if owner(s) == from_ else []


def add(setting: str) -> Step:
    """Add an address to the pool."""
    return lambda s: [added(setting)] if owner(s) is ABSENT else []


def reserve(account: str, call: int, *, by_name: bool) -> Step:
    """Reserve an address for an account by a call."""
    is_free = is_free_for(account, by_name=by_name)
    return lambda s: [Reserved(account, call, owner(s))] if is_free(owner(s)) else []


def is_held_by(call: int) -> Callable[[State], bool]:
    """Whether the reservation that a call has made holds an address."""
    return lambda s: isinstance(s, Reserved) and s.call == call


def confirm(call: int) -> Step:
    """Assign an address to the account for which a call has reserved it."""
    holds = is_held_by(call)
    return lambda s: [s.account] if holds(s) else []


def cancel(call: int) -> Step:
    """End the reservation that a call has made, if it holds the address."""
    holds = is_held_by(call)
    return lambda s: [s.before] if holds(s) else [s]


def observe_not_held(call: int) -> Step:
    """Observe that the reservation that a call has made does not hold the address."""
    holds = is_held_by(call)
    return lambda s: [] if holds(s) else [s]


def effect_if_any(step: Step) -> Step:
    """Take a step, or do not."""
    return OptionalStep(step)


def remove(force: bool) -> Step:
    """Delete an address from the pool."""

    def is_possible(state: State) -> bool:
        if force:
            return owner(state) is not ABSENT
        return is_unowned(state) and not is_held(state)

    return lambda s: [ABSENT] if is_possible(s) else []


def observe(holds: Callable[[str | None], bool]) -> Step:
    """Observe a state that fulfils the condition."""
    return lambda s: [s] if holds(owner(s)) else []


def transiently(shows: Callable[[str | None], bool], to: str | None, call: int) -> list[Step]:
    """Change the owner for a moment, or not at all.

    :param shows: whether this is possible in a state
    :param to: the owner for this moment
    :param call: the number of the call
    """

    def change(state: Any) -> Iterable[State]:
        possible = not isinstance(state, Transient) and shows(state)
        return [Transient(to, call, state)] if possible else []

    def undo(state: Any) -> Iterable[State]:
        return [state.before if isinstance(state, Transient) and state.call == call else state]

    return [effect_if_any(change), undo]
