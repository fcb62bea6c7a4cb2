"""What clients were told, held against what can have happened.

For each address there must be an order of all that was done in which every reply is true: the
search is that of `tests/stateful/history.py`. What nobody was told the end of may have been done
or not, at any later time; of several addresses all or none. A refused assignment may have held its
addresses for a moment. A refused release has done nothing at all.

A node that hears no other one answers reads with what it has, and gives no sign of it (as CouchDB
does, whatever `r` says). What was only read at such a time may be old, and is not held against
anybody; what was written is. Nor is what a release of all addresses leaves out for a node's sake
that was away and has not been given all that it missed: a list is read from one copy.

An address that was added and deleted may come back as available, once: CouchDB has no way to say
that a new document is not to follow one that was deleted since. It may be on its way to a node.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.simulation.plan import Allocate, Repair
from tests.simulation.workers import Reply
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    OfAccount,
    Release,
    ReleaseAll,
    ReleaseMany,
)
from tests.stateful.history import Event, legal_order

FREE = "nobody"
GONE = None
NEVER = float("inf")
_MOST = 200_000
"""Ways of meaning all that nobody knows; no seed has had more."""


@dataclass(frozen=True)
class Held:
    """An address as a request shows it for a moment, which will be as it was again."""

    owner: str | None
    mark: int
    before: str | None


State = str | None | Held
Step = Callable[[Any], Iterable[State]]
Told = Mapping[str, Sequence[Step]]
"""What is said of each address, in one of the ways that a reply can be meant."""


@dataclass(frozen=True)
class Done:
    """Something that a client did, with all its attempts.

    :param ended: when the last reply came, or NEVER if that said nothing
    :param attempts: when each began and what was replied
    """

    number: int
    client: str
    command: Command
    key: str | None
    attempts: tuple[tuple[float, float, Reply], ...]
    alone: bool = False
    """Whether some node heard no other one during the attempt that counts."""
    lagging: bool = False
    """Whether some node was away then, or shortly before, and may not know what it missed."""

    @property
    def began(self) -> float:
        """When it was first asked for."""
        return self.attempts[0][0]

    @property
    def counting(self) -> tuple[float, float, Reply]:
        """The attempt whose reply counts: the first final one."""
        return next((each for each in self.attempts if is_final(each[2])), self.attempts[-1])

    @property
    def reply(self) -> Reply:
        """The reply that counts."""
        return self.counting[2]

    @property
    def ended(self) -> float:
        """When that came; what is not known to have ended may happen at any later time."""
        return self.counting[1] if is_final(self.reply) else NEVER

    def __str__(self) -> str:
        said = ", ".join(
            f"{began:.4f}-{ended:.4f}: {reply.status} {reply.message or ''} {reply.data or ''}"
            for began, ended, reply in self.attempts
        )
        key = f" [{self.key}]" if self.key else ""
        return f"{self.number}: {self.client} {self.command}{key} -> {said}"


def is_final(reply: Reply) -> bool:
    """Whether a reply says what was done: not a failure, nor that somebody is still at it."""
    return 200 <= reply.status < 500 and reply.message != "in_progress"


# What a state shows, and steps.


def owner(state: State) -> str | None:
    """Whose the address is to whoever looks."""
    return state.owner if isinstance(state, Held) else state


def take(account: str) -> Step:
    """It becomes an account's."""
    return lambda s: [account] if owner(s) == FREE else []


def give(account: str) -> Step:
    """It becomes available."""
    return lambda s: [FREE] if owner(s) == account else []


def add() -> Step:
    """It comes into the pool."""
    return lambda s: [FREE] if owner(s) is GONE else []


def remove(force: bool) -> Step:
    """It goes out of the pool."""
    return lambda s: [GONE] if owner(s) is not GONE and (force or owner(s) == FREE) else []


def when(holds: Callable[[str | None], bool]) -> Step:
    """It is looked at."""
    return lambda s: [s] if holds(owner(s)) else []


def held(shows: Callable[[str | None], bool], to: str | None, mark: int) -> list[Step]:
    """It may be shown as somebody's for a moment.

    :param shows: whether it can be, by whose it is otherwise
    """

    def hold(state: Any) -> Iterable[State]:
        can_be = not isinstance(state, Held) and shows(state)
        return [state, Held(to, mark, state)] if can_be else [state]

    def let_go(state: Any) -> Iterable[State]:
        return [state.before if isinstance(state, Held) and state.mark == mark else state]

    return [hold, let_go]


def touched(command: Command, addresses: Sequence[str]) -> Sequence[str]:
    """The addresses that a command may change."""
    match command:
        case Assign(_, _, a) | Release(_, _, a) | Create(_, a) | Delete(_, a):
            return [a]
        case AssignMany(_, _, wanted) | ReleaseMany(_, _, wanted):
            return wanted
        case ReleaseAll() | Allocate() | Repair():
            return addresses
    return []


def does(command: Command) -> Step:
    """What a command does to each address that it changes."""
    match command:
        case Assign() | AssignMany() | Allocate():
            return take(command.account)
        case Release() | ReleaseMany() | ReleaseAll():
            return give(command.account)
        case Create():
            return add()
        case Delete():
            return remove(command.force)
    raise AssertionError(command)


def _all(command: Command, changed: Iterable[str]) -> Told:
    return {address: [does(command)] for address in changed}


def meanings(done: Done, addresses: Sequence[str]) -> list[Told]:
    """The ways in which it can be meant; one, unless it is not known what was done."""
    command, reply = done.command, done.reply
    kept = isinstance(command, Delete) and "assigned" in _lost(reply).values()
    exists = isinstance(command, Create) and reply.status == 409
    only_read = isinstance(command, Fetch) or reply.status in (400, 404) or kept or exists
    if isinstance(command, Repair) or (done.alone and only_read):
        return [{}]
    if not is_final(reply):
        return _unknown(done, addresses)
    if reply.status >= 400:
        return _refused(done, addresses)
    if isinstance(command, Fetch):
        shown = reply.data["assigned_to"] if reply.data["status"] == "assigned" else FREE
        return [{command.address: [when(lambda o: o == shown)]}]
    changed = reply.data.get("ips") or touched(command, addresses)
    if isinstance(command, ReleaseAll):
        changed = reply.data["ips"]
        others = {a: [when(lambda o: o != command.account)] for a in addresses if a not in changed}
        seen = {} if done.alone or done.lagging else others
        return [{**seen, **_all(command, changed)}]
    if isinstance(command, Allocate):
        assert len(set(changed)) == command.quantity, done
    else:
        assert list(changed) == list(touched(command, addresses)), done
    way = _all(command, changed)
    if isinstance(command, Allocate) or not is_final(done.attempts[0][2]):
        # What was tried first and given up may have shown, and so may an earlier attempt.
        tried = _nothing(done, addresses)
        way = {a: [*tried.get(a, ()), *way.get(a, ())] for a in {**tried, **way}}
    return [way]


def _nothing(done: Done, addresses: Sequence[str]) -> Told:
    """It came to nothing, but may have shown for a moment: only nothing looks released."""
    command, mark = done.command, done.number
    match command:
        case Assign() | AssignMany() | Allocate():
            shown = held(lambda o: o == FREE, command.account, mark)
        case Create():
            shown = held(lambda o: o is GONE, FREE, mark)
        case Delete():
            shown = held(lambda o: o is not GONE, GONE, mark)
        case _:
            return {}
    return {address: shown for address in touched(command, addresses)}


def _unknown(done: Done, addresses: Sequence[str]) -> list[Told]:
    command, nothing = done.command, _nothing(done, addresses)
    if isinstance(command, Fetch):
        return [{}]
    if isinstance(command, ReleaseAll):
        some: Step = lambda s: [s, FREE] if owner(s) == command.account else [s]  # noqa: E731
        return [{address: [some] for address in addresses}]
    wanted = touched(command, addresses)
    size = command.quantity if isinstance(command, Allocate) else len(wanted)
    return [nothing, *(_all(command, each) for each in itertools.combinations(wanted, size))]


_RULES: dict[str, Callable[[Command, str], Callable[[str | None], bool]]] = {
    "not_found": lambda command, account: lambda o: o is GONE,
    "forbidden": lambda command, account: lambda o: o not in (GONE, FREE, account),
    "superfluous": lambda command, account: (
        (lambda o: o == account)
        if isinstance(command, Assign | AssignMany)
        else (lambda o: o == FREE)
    ),
}


def _refused(done: Done, addresses: Sequence[str]) -> list[Told]:
    command, reply = done.command, done.reply
    match reply.status, command:
        case 404, Fetch(_, account, address):
            return [{address: [when(lambda o: o not in (FREE, account))]}]
        case 404, Assign(address=address) | Release(address=address) | Delete(address=address):
            return [{address: [when(lambda o: o is GONE)]}]
        case 400, OfAccount(_, account):
            wanted = touched(command, addresses)
            return [
                {
                    wanted[int(place.split(".")[1])]: [
                        when(_RULES[next(iter(rule))](command, account))
                    ]
                    for place, rule in reply.data.items()
                }
            ]
        case 409, Create(_, address):
            return [{address: [when(lambda o: o is not GONE)]}]
        case 409, Delete(_, address) if "assigned" in _lost(reply).values():
            return [{address: [when(lambda o: o not in (GONE, FREE))]}]
        case 409, _:
            return [_nothing(done, addresses)]
    raise AssertionError(done)


def _lost(reply: Reply) -> Mapping[str, str]:
    """Why it could not be had, by address."""
    lost = reply.data.get("ips") if reply.status == 409 and reply.data else None
    return lost or {}


# The judgement.


def judge(
    history: Sequence[Done], begin: Mapping[str, str | None], end: Mapping[str, str | None]
) -> list[str]:
    """What is wrong with a history; empty when nothing is.

    :param begin: whose each address was: FREE, an account's name, GONE
    :param end: whose it is after everything
    """
    addresses = list(begin)
    strange = [f"told {d.reply.status}: {d}" for d in history if d.reply.status == 500]
    if strange:
        return strange
    wrong = [w for d in history for w in _untrue(d, history, addresses)]
    try:
        told = [meanings(done, addresses) for done in history]
    except AssertionError as error:
        return [f"no answer to what was asked: {error}"]
    speaking = {a: [i for i, ways in enumerate(told) if any(a in w for w in ways)] for a in begin}

    added = {
        a: [
            d.began for d in history if d.command == _creation(d.command, a) and not _is_refused(d)
        ]
        for a in begin
    }

    @cache
    def possible(address: str, choice: tuple[int, ...]) -> bool:
        events = [
            Event(history[i].began, history[i].ended, step)
            for i, chosen in zip(speaking[address], choice, strict=True)
            for step in told[i][chosen].get(address, ())
        ]
        events += [Event(began, NEVER, _add_again) for began in added[address]]
        return legal_order(events, begin[address], lambda s: s == end[address]) is not None

    impossible: dict[str, None] = {}
    choices = itertools.product(*(range(len(ways)) for ways in told))
    for choice in itertools.islice(choices, _MOST):
        bad = next((a for a in begin if not possible(a, _of(choice, speaking[a]))), None)
        if bad is None:
            return wrong
        impossible[bad] = None
    return [
        *wrong,
        *(f"{a}: {begin[a]} at first, {end[a]} in the end, and no order" for a in impossible),
    ]


def _creation(command: Command, address: str) -> Create | None:
    return command if isinstance(command, Create) and command.address == address else None


def _is_refused(done: Done) -> bool:
    return 400 <= done.reply.status < 500 and is_final(done.reply)


def _add_again(state: Any) -> Iterable[State]:
    """A copy may hear of an addition after the deletion that followed, and makes it anew then."""
    return [state, FREE] if owner(state) is GONE else [state]


def _of(choice: Sequence[int], places: Iterable[int]) -> tuple[int, ...]:
    return tuple(choice[i] for i in places)


def _untrue(done: Done, history: Sequence[Done], addresses: Sequence[str]) -> list[str]:
    """Replies that no order can prove wrong: a lost race against nobody, a key's two replies."""
    wrong = []
    finals = [reply for *_, reply in done.attempts if is_final(reply)]
    if any(reply != finals[0] for reply in finals[1:]):
        wrong.append(f"two final replies: {done}")
    if done.key and not finals:
        wrong.append(f"unsettled key: {done}")
    if done.reply.message == "datastore_conflict" and not isinstance(done.command, Create):
        lost = [a for a, why in done.reply.data.get("ips", {}).items() if why == "conflict"]
        for address in lost:
            rivals = [
                other
                for other in history
                if other is not done
                and address in touched(other.command, addresses)
                and other.began <= done.ended
                and other.ended >= done.began
            ]
            if not rivals:
                wrong.append(f"{address}: conflict with nobody: {done}")
    return wrong
