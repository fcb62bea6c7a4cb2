"""What a command's reply says about each address, as events for the search of a legal order.

A state is None, or where an address is, whose it is, and a mark while a request holds it that will
give it back: several addresses are assigned one by one, and if one is lost the others return.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    ListAssigned,
    ListAvailable,
    OfAccount,
    Release,
    ReleaseAll,
    ReleaseMany,
    Reply,
    as_kept,
)
from tests.stateful.history import Event
from tests.stateful.model import Entry, assign_problem, release_problem


@dataclass(frozen=True)
class Held(Entry):
    """An address that a request has changed and will change back.

    :param mark: of that request
    :param before: whose it was
    """

    mark: int = -1
    before: str | None = None


State = Entry | None
Step = Callable[[Any], Iterable[State]]
Problem = Callable[[Entry | None, str], dict[str, str] | None]


@dataclass(frozen=True)
class Exchange:
    """A command, its reply, and when it was sent and answered."""

    number: int
    command: Command
    reply: Reply
    began: float
    ended: float


def owned(entry: Entry, owner: str | None) -> Entry:
    """The address in the hands of somebody, whatever held it before."""
    return Entry(entry.zone, entry.host, owner)


def when(holds: Callable[[Any], bool]) -> Step:
    """A look at the address, that changes nothing."""
    return lambda state: [state] if holds(state) else []


def changed(problem: Problem, account: str, owner: str | None) -> Step:
    """A write that went well: nothing was in its way."""
    return lambda state: [] if problem(state, account) else [owned(state, owner)]


def refused(problem: Problem, account: str, rule: str | None) -> Step:
    """A check that found this rule broken, or none."""
    return when(lambda state: next(iter(problem(state, account) or [None])) == rule)


def maybe_held(problem: Problem, account: str, owner: str | None, mark: int) -> Step:
    """A write that may have happened, to be undone."""

    def step(state: State) -> list[State]:
        if state is None or problem(state, account):
            return [state]
        held = Held(state.zone, state.host, owner, mark=mark, before=state.owner)
        return [held, state]

    return step


def given_back(mark: int) -> Step:
    """The undoing, if there is anything left to undo."""

    def step(state: State) -> list[State]:
        mine = isinstance(state, Held) and state.mark == mark
        return [owned(state, state.before)] if mine else [state]  # type: ignore[union-attr,arg-type]

    return step


def steps(exchange: Exchange, ids: dict[str, str]) -> dict[str | None, list[Step]]:
    """What it says, by address; under None what it says of all the others.

    :param ids: the account id of each name
    """
    command, reply = exchange.command, exchange.reply
    if reply.code == 503:
        return _of_lost(exchange, command)
    if isinstance(command, ListAvailable | ListAssigned):
        return _of_list(command, reply)
    if isinstance(command, AssignMany | ReleaseMany | ReleaseAll):
        return _of_many(exchange, command)
    address = as_kept(command.address)  # type: ignore[attr-defined]
    return {address: _of_one(command, reply, {v: k for k, v in ids.items()})}


def events(exchanges: Iterable[Exchange], address: str, ids: dict[str, str]) -> list[Event]:
    """The history of one address."""
    found = []
    for exchange in exchanges:
        said = steps(exchange, ids)
        for step in said.get(address, said.get(None, [])):
            label = f"{exchange.number}: {exchange.command} -> {exchange.reply.code}"
            found.append(Event(exchange.began, exchange.ended, step, label))
    return found


def _of_one(command: Command, reply: Reply, names: dict[str, str]) -> list[Step]:
    match command, reply.code:
        case Create(_, _, zone, host), 201:
            return [lambda state: [] if state else [Entry(zone, host)]]
        case Create(), 409:
            return [when(lambda state: state is not None)]
        case Delete(), _:
            return _of_delete(command, reply)
        case Fetch(), 200:
            owner = names.get(reply.data.get("assigned_to"))
            seen = (reply.data["zone"], reply.data["host"], owner)
            return [when(lambda s: s is not None and (s.zone, s.host, s.owner) == seen)]
        case Fetch(by), 404:
            return [when(lambda s: s is None or (by != "operator" and s.owner not in (None, by)))]
        case ((Assign() | Release()), _):
            return _of_change(command, reply)
    raise AssertionError((command, reply))


def _of_delete(command: Delete, reply: Reply) -> list[Step]:
    match reply.code, reply.data:
        case 200, _:
            return [lambda state: [None] if state and (command.force or not state.owner) else []]
        case 404, _:
            return [when(lambda state: state is None)]
        case 409, {"ips": lost} if "assigned" in lost.values() and not command.force:
            return [when(lambda state: state is not None and state.owner is not None)]
        case 409, _:
            return []
    raise AssertionError((command, reply))


def _change(command: OfAccount) -> tuple[Problem, str | None]:
    """What may be in the way of an account's command, and whose the address is after it."""
    if isinstance(command, Assign | AssignMany):
        return assign_problem, command.account
    return release_problem, None


def _of_change(command: Assign | Release, reply: Reply) -> list[Step]:
    problem, owner = _change(command)
    match reply.code:
        case 200:
            return [changed(problem, command.account, owner)]
        case 400:
            return [refused(problem, command.account, next(iter(reply.data["ips.0"])))]
        case 404:
            return [when(lambda state: state is None)]
        case 409:  # lost a race: nothing was written
            return []
    raise AssertionError((command, reply))


def _of_many(
    exchange: Exchange, command: AssignMany | ReleaseMany | ReleaseAll
) -> dict[str | None, list[Step]]:
    problem, owner = _change(command)
    account, reply = command.account, exchange.reply
    if reply.code == 200:
        # Releasing all goes on while somebody assigns: an address may be there twice.
        times = Counter(map(as_kept, reply.data["ips"]))
        return {a: [changed(problem, account, owner)] * n for a, n in times.items()}
    if reply.code == 409:
        return _of_lost(exchange, command)
    assert reply.code == 400
    assert not isinstance(command, ReleaseAll)
    broken = {int(path.split(".")[1]): next(iter(rules)) for path, rules in reply.data.items()}
    # test_pool.py: an item that is not found keeps the others from being looked at.
    looked_at = [
        i
        for i in range(len(command.addresses))
        if i in broken or "not_found" not in broken.values()
    ]
    return {
        as_kept(command.addresses[i]): [refused(problem, account, broken.get(i))]
        for i in looked_at
    }


def _of_lost(exchange: Exchange, command: Command) -> dict[str | None, list[Step]]:
    assert isinstance(command, OfAccount), exchange
    problem, owner = _change(command)
    lost = {as_kept(address) for address in exchange.reply.data.get("ips", ())}
    undone = [
        maybe_held(problem, command.account, owner, exchange.number),
        given_back(exchange.number),
    ]
    if isinstance(command, ReleaseAll):
        # What it released before it came upon the one it lost stays released.
        undone.append(lambda s: [s, owned(s, None)] if s and s.owner == command.account else [s])
        return {None: undone, **{address: [] for address in lost}}
    return {a: undone for a in _addresses(command) if a not in lost}


def _addresses(command: Command) -> list[str]:
    one = [command.address] if isinstance(command, Assign | Release) else []
    many = command.addresses if isinstance(command, AssignMany | ReleaseMany) else one
    return [as_kept(address) for address in many]


def _of_list(command: ListAvailable | ListAssigned, reply: Reply) -> dict[str | None, list[Step]]:
    assert reply.code == 200
    owner = None if isinstance(command, ListAvailable) else command.account

    def listed(line: dict[str, str]) -> Step:
        seen = (line["zone"], line["host"], owner)
        return when(lambda s: s is not None and (s.zone, s.host, s.owner) == seen)

    absent = when(lambda state: state is None or state.owner != owner)
    return {None: [absent], **{as_kept(line["ip"]): [listed(line)] for line in reply.data}}


def settled(state: Any, entry: Entry | None) -> bool:
    """Whether the last state of a history is what was found in the end."""
    return not isinstance(state, Held) and bool(state == entry)
