"""Converts the reply to a command into events on each address, for the search of a legal order.

The state of an address is None (absent), an `Entry`, or a `Transient` entry: a command for several
addresses may write some of them and undo it, if another request changes one of the others.
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
    canonical_form,
)
from tests.stateful.history import Event
from tests.stateful.model import Entry, assign_problem, release_problem


@dataclass(frozen=True)
class Transient(Entry):
    """An address that a request has changed and will change back.

    :param call: the number of that request
    :param before: the owner before
    """

    call: int = -1
    before: str | None = None


State = Entry | None
Step = Callable[[Any], Iterable[State]]
Problem = Callable[[Entry | None, str], dict[str, str] | None]


@dataclass(frozen=True)
class Exchange:
    """A command, its reply, and the times of both."""

    number: int
    command: Command
    reply: Reply
    began: float
    ended: float


def with_owner(entry: Entry, owner: str | None) -> Entry:
    """Return the entry with another owner."""
    return Entry(entry.zone, entry.host, owner)


def observe(holds: Callable[[Any], bool]) -> Step:
    """Observe a state that fulfils the condition."""
    return lambda state: [state] if holds(state) else []


def changed(problem: Problem, account: str, owner: str | None) -> Step:
    """A successful write: it broke no rule."""
    return lambda state: [] if problem(state, account) else [with_owner(state, owner)]


def refused(problem: Problem, account: str, rule: str | None) -> Step:
    """A check that found this rule broken, or no rule."""
    return observe(lambda state: next(iter(problem(state, account) or [None])) == rule)


def maybe_changed(problem: Problem, account: str, owner: str | None, call: int) -> Step:
    """A write that may have happened and is undone later."""

    def step(state: State) -> list[State]:
        if state is None or problem(state, account):
            return [state]
        written = Transient(state.zone, state.host, owner, call=call, before=state.owner)
        return [written, state]

    return step


def undo(call: int) -> Step:
    """Undo the write of `maybe_changed`, unless another request has replaced it."""

    def step(state: State) -> list[State]:
        own = isinstance(state, Transient) and state.call == call
        return [with_owner(state, state.before)] if own else [state]  # type: ignore[union-attr,arg-type]

    return step


def steps(exchange: Exchange, ids: dict[str, str]) -> dict[str | None, list[Step]]:
    """Return the steps of each address; those under None apply to all other addresses.

    :param ids: the account id of each name
    """
    command, reply = exchange.command, exchange.reply
    if reply.code == 503:
        return _of_undone(exchange, command)
    if isinstance(command, ListAvailable | ListAssigned):
        return _of_list(command, reply)
    if isinstance(command, AssignMany | ReleaseMany | ReleaseAll):
        return _of_many(exchange, command)
    address = canonical_form(command.address)  # type: ignore[attr-defined]
    return {address: _of_one(command, reply, {v: k for k, v in ids.items()})}


def events(exchanges: Iterable[Exchange], address: str, ids: dict[str, str]) -> list[Event]:
    """Return the events on one address."""
    found = []
    for exchange in exchanges:
        by_address = steps(exchange, ids)
        for step in by_address.get(address, by_address.get(None, [])):
            label = f"{exchange.number}: {exchange.command} -> {exchange.reply.code}"
            found.append(Event(exchange.began, exchange.ended, step, label))
    return found


def _of_one(command: Command, reply: Reply, names: dict[str, str]) -> list[Step]:
    match command, reply.code:
        case Create(_, _, zone, host), 201:
            return [lambda state: [] if state else [Entry(zone, host)]]
        case Create(), 409:
            return [observe(lambda state: state is not None)]
        case Delete(), _:
            return _of_delete(command, reply)
        case Fetch(), 200:
            owner = names.get(reply.data.get("assigned_to"))
            seen = (reply.data["zone"], reply.data["host"], owner)
            return [observe(lambda s: s is not None and (s.zone, s.host, s.owner) == seen)]
        case Fetch(by), 404:
            return [
                observe(lambda s: s is None or (by != "operator" and s.owner not in (None, by)))
            ]
        case ((Assign() | Release()), _):
            return _of_change(command, reply)
    raise AssertionError((command, reply))


def _of_delete(command: Delete, reply: Reply) -> list[Step]:
    match reply.code, reply.data:
        case 200, _:
            return [lambda state: [None] if state and (command.force or not state.owner) else []]
        case 404, _:
            return [observe(lambda state: state is None)]
        case 409, {"ips": lost} if "assigned" in lost.values() and not command.force:
            return [observe(lambda state: state is not None and state.owner is not None)]
        case 409, _:
            return []
    raise AssertionError((command, reply))


def _change(command: OfAccount) -> tuple[Problem, str | None]:
    """Return the rules of an account's command, and the owner of the address after it."""
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
            return [observe(lambda state: state is None)]
        case 409:  # another request was first: nothing was written
            return []
    raise AssertionError((command, reply))


def _of_many(
    exchange: Exchange, command: AssignMany | ReleaseMany | ReleaseAll
) -> dict[str | None, list[Step]]:
    problem, owner = _change(command)
    account, reply = command.account, exchange.reply
    if reply.code == 200:
        # An address that is assigned again during a release of all may be released twice.
        times = Counter(map(canonical_form, reply.data["ips"]))
        return {a: [changed(problem, account, owner)] * n for a, n in times.items()}
    if reply.code == 409:
        return _of_undone(exchange, command)
    assert reply.code == 400
    assert not isinstance(command, ReleaseAll)
    broken = {int(path.split(".")[1]): next(iter(rules)) for path, rules in reply.data.items()}
    # test_pool.py: if an item is not found, the service does not check the others.
    checked = [
        i
        for i in range(len(command.addresses))
        if i in broken or "not_found" not in broken.values()
    ]
    return {
        canonical_form(command.addresses[i]): [refused(problem, account, broken.get(i))]
        for i in checked
    }


def _of_undone(exchange: Exchange, command: Command) -> dict[str | None, list[Step]]:
    assert isinstance(command, OfAccount), exchange
    problem, owner = _change(command)
    lost = {canonical_form(address) for address in exchange.reply.data.get("ips", ())}
    undone = [
        maybe_changed(problem, command.account, owner, exchange.number),
        undo(exchange.number),
    ]
    if isinstance(command, ReleaseAll):
        # The addresses that it released before the one that it lost stay released.
        undone.append(
            lambda s: [s, with_owner(s, None)] if s and s.owner == command.account else [s]
        )
        return {None: undone, **{address: [] for address in lost}}
    return {a: undone for a in _addresses(command) if a not in lost}


def _addresses(command: Command) -> list[str]:
    one = [command.address] if isinstance(command, Assign | Release) else []
    many = command.addresses if isinstance(command, AssignMany | ReleaseMany) else one
    return [canonical_form(address) for address in many]


def _of_list(command: ListAvailable | ListAssigned, reply: Reply) -> dict[str | None, list[Step]]:
    assert reply.code == 200
    owner = None if isinstance(command, ListAvailable) else command.account

    def listed(line: dict[str, str]) -> Step:
        seen = (line["zone"], line["host"], owner)
        return observe(lambda s: s is not None and (s.zone, s.host, s.owner) == seen)

    absent = observe(lambda state: state is None or state.owner != owner)
    return {None: [absent], **{canonical_form(line["ip"]): [listed(line)] for line in reply.data}}


def is_final(state: Any, entry: Entry | None) -> bool:
    """Whether the last state of a history equals the entry in the pool at the end."""
    return not isinstance(state, Transient) and bool(state == entry)
