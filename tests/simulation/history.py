"""What clients were told, held against what can have happened.

For each address there must be an order of all that was done in which every reply is true: the
search is that of `tests/stateful/history.py`. What nobody was told the end of may have been done
or not, at any later time; of several addresses all or none. A refused assignment may have held its
addresses for a moment. A refused release has done nothing at all.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

    @property
    def began(self) -> float:
        """When it was first asked for."""
        return self.attempts[0][0]

    @property
    def reply(self) -> Reply:
        """The reply that counts."""
        return next((r for *_, r in self.attempts if is_final(r)), self.attempts[-1][2])

    @property
    def ended(self) -> float:
        """When that came; what is not known to have ended may happen at any later time."""
        return next((e for _, e, r in self.attempts if is_final(r)), NEVER)

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


def held(from_: str | None, to: str | None, mark: int) -> list[Step]:
    """It may be shown as somebody's for a moment."""

    def hold(state: Any) -> Iterable[State]:
        shown = [Held(to, mark, state)] if not isinstance(state, Held) and state == from_ else []
        return [state, *shown]

    def let_go(state: Any) -> Iterable[State]:
        return [state.before if isinstance(state, Held) and state.mark == mark else state]

    return [hold, let_go]


def meanings(done: Done, addresses: Sequence[str]) -> list[Told]:
    """The ways in which it can be meant; one, unless it is not known what was done."""
    command, reply = done.command, done.reply
    if isinstance(command, Repair):
        return [{}]
    if reply.status >= 400 or not reply.status:
        return _refused(done, addresses) if is_final(reply) else _unknown(done, addresses)
    match command:
        case Assign(_, account, address):
            return [{address: [take(account)]}]
        case Release(_, account, address):
            return [{address: [give(account)]}]
        case AssignMany(_, account, wanted) | ReleaseMany(_, account, wanted):
            assert reply.data["ips"] == list(wanted), done
            act = take if isinstance(command, AssignMany) else give
            return [{a: [act(account)] for a in wanted}]
        case ReleaseAll(_, account):
            released = reply.data["ips"]
            others = {a: [when(lambda o: o != account)] for a in addresses if a not in released}
            return [{**others, **{a: [give(account)] * released.count(a) for a in released}}]
        case Allocate(_, account, quantity):
            assert len(set(reply.data["ips"])) == quantity, done
            return [{a: [take(account)] for a in reply.data["ips"]}]
        case Create(_, address):
            return [{address: [add()]}]
        case Delete(_, address, force):
            return [{address: [remove(force)]}]
        case Fetch(_, _, address):
            shown = reply.data.get("assigned_to")
            status = reply.data["status"]
            return [{address: [when(lambda o: o == (shown if status == "assigned" else FREE))]}]
    raise AssertionError(done)


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


def _nothing(done: Done, addresses: Sequence[str]) -> Told:
    """It came to nothing, but may have shown for a moment."""
    command = done.command
    match command:
        case Assign() | AssignMany() | Allocate():
            return {
                a: held(FREE, command.account, done.number) for a in touched(command, addresses)
            }
        case Create(_, address):
            return {address: held(GONE, FREE, done.number)}
    return {}


def _unknown(done: Done, addresses: Sequence[str]) -> list[Told]:
    command, nothing = done.command, _nothing(done, addresses)
    match command:
        case Assign(_, account, address):
            return [nothing, {address: [take(account)]}]
        case Release(_, account, address):
            return [nothing, {address: [give(account)]}]
        case AssignMany(_, account, wanted):
            return [nothing, {a: [take(account)] for a in wanted}]
        case ReleaseMany(_, account, wanted):
            return [nothing, {a: [give(account)] for a in wanted}]
        case ReleaseAll(_, account):
            some: Step = lambda s: [s, FREE] if owner(s) == account else [s]  # noqa: E731
            return [{a: [some] for a in addresses}]
        case Allocate(_, account, quantity):
            chosen = itertools.combinations(addresses, quantity)
            return [nothing, *({a: [take(account)] for a in each} for each in chosen)]
        case Create(_, address):
            return [nothing, {address: [add()]}]
        case Delete(_, address, force):
            return [nothing, {address: [remove(force)]}]
    return [{}]


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
        case 409, Delete(_, address) if "assigned" in reply.data.get("ips", {}).values():
            return [{address: [when(lambda o: o not in (GONE, FREE))]}]
        case 409, _:
            return [_nothing(done, addresses)]
    raise AssertionError(done)


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
    told = [meanings(done, addresses) for done in history]
    known: dict[tuple[str, tuple[int, ...]], bool] = {}

    def possible(address: str, choice: Sequence[int]) -> bool:
        key = (
            address,
            tuple(c for c, t in zip(choice, told, strict=True) if _speaks_of(t, address)),
        )
        if key not in known:
            known[key] = _is_possible(address, choice)
        return known[key]

    def _is_possible(address: str, choice: Sequence[int]) -> bool:
        events = [
            Event(done.began, done.ended, step, str(done.number))
            for done, chosen, ways in zip(history, choice, told, strict=True)
            for step in ways[chosen].get(address, ())
        ]

        return legal_order(events, begin[address], lambda s: s == end[address]) is not None

    choices = itertools.product(*(range(len(ways)) for ways in told))
    impossible: dict[str, None] = {}
    for choice in itertools.islice(choices, 20_000):
        bad = next((a for a in addresses if not possible(a, choice)), None)
        if bad is None:
            return wrong
        impossible[bad] = None
    return [
        *wrong,
        *(f"{a}: {begin[a]} at first, {end[a]} in the end, and no order" for a in impossible),
    ]


def _speaks_of(ways: Sequence[Told], address: str) -> bool:
    return any(address in way for way in ways)


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
