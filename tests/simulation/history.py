"""Checks the replies of a run for consistency.

For each address there must be an order of all operations in which every reply is correct.
`tests/stateful/history.py` searches for it. A call without a final reply may take effect at any
later time or never, but for all of its addresses or none. A refused assignment may have been
visible for a moment. A refused release has no effect at any time.

A node that cannot reach any other one serves reads from its own replica without an error (as
CouchDB does, for every `r`). So a reply that depends on a read at such a time is not checked; a
reply to a write is. A release of all addresses may miss addresses of a node that was unreachable
and lacks changes, since a list is read from one replica.

An address that was added and deleted may become available again, but only once: a node may receive
the addition after the deletion, and then CouchDB cannot refuse the new document.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tests.simulation.plan import Allocate, Cancel, Confirm, OfReservation, Repair, Reserve
from tests.simulation.steps import (
    ABSENT,
    HELD,
    Step,
    Transient,
    add,
    added,
    assign,
    cancel,
    confirm,
    effect_if_any,
    is_free_for,
    is_held_by,
    is_unowned,
    observe,
    observe_not_held,
    owner,
    release,
    remove,
    reserve,
    transfer,
    transiently,
)
from tests.simulation.workers import Reply
from tests.stateful.commands import (
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    Move,
    OfAccount,
    Release,
    ReleaseAll,
    ReleaseMany,
    Transfer,
)
from tests.stateful.history import Event, legal_order

UNFINISHED = float("inf")
_MAX_CHOICES = 200_000
"""The maximum number of combinations of interpretations; no seed has needed more."""

Constraints = Mapping[str, Sequence[Step]]
"""For each address the steps that one interpretation of a reply implies."""


@dataclass(frozen=True)
class Call:
    """A call of a client, with all its attempts.

    :param attempts: begin, end and reply of each
    """

    number: int
    client: str
    command: Command
    key: str | None
    attempts: tuple[tuple[float, float, Reply], ...]
    isolated: bool = False
    """Whether some node could not reach any other one during the decisive attempt."""
    lagging: bool = False
    """Whether some node was unreachable then or shortly before, and may lack changes."""
    setting: str = ""
    """The setting of all zones in the plan."""

    @property
    def began(self) -> float:
        """The time of the first request."""
        return self.attempts[0][0]

    @property
    def decisive(self) -> tuple[float, float, Reply]:
        """The attempt with the first final reply; without one, the last attempt."""
        return next((each for each in self.attempts if is_final(each[2])), self.attempts[-1])

    @property
    def reply(self) -> Reply:
        """The reply to the decisive attempt."""
        return self.decisive[2]

    @property
    def ended(self) -> float:
        """The time of the first final reply; UNFINISHED without one."""
        return self.decisive[1] if is_final(self.reply) else UNFINISHED

    def __str__(self) -> str:
        replies = ", ".join(
            f"{began:.4f}-{ended:.4f}: {reply.status} {reply.message or ''} {reply.data or ''}"
            for began, ended, reply in self.attempts
        )
        key = f" [{self.key}]" if self.key else ""
        return f"{self.number}: {self.client} {self.command}{key} -> {replies}"


def is_final(reply: Reply) -> bool:
    """Whether the request is finished: not a server error, and not `in_progress`."""
    return 200 <= reply.status < 500 and reply.message != "in_progress"


def addresses_of(command: Command, addresses: Sequence[str]) -> Sequence[str]:
    """Return the addresses that a command may change."""
    match command:
        case Assign(_, _, a) | Release(_, _, a) | Create(_, a) | Delete(_, a) | Move(_, a):
            return [a]
        case AssignMany(_, _, wanted) | ReleaseMany(_, _, wanted) | Transfer(_, wanted):
            return wanted
        case Reserve(_, _, wanted) if wanted:
            return wanted
        case OfReservation():
            return command.addresses
        case ReleaseAll() | Allocate() | Reserve() | Repair():
            return addresses
    return []


def effect_of(call: Call) -> Step:
    """Return the step that a call takes on each address that it changes."""
    command, setting = call.command, call.setting
    match command:
        case Assign() | AssignMany() | Allocate():
            return assign(command.account, by_name=not isinstance(command, Allocate))
        case Release() | ReleaseMany() | ReleaseAll():
            return release(command.account, setting)
        case Reserve() | OfReservation():
            return _effect_of_reservation(call)
        case Transfer(_, _, from_id, to_id):
            return transfer(from_id, to_id)
        case Create():
            return add(setting)
        case Delete():
            return remove(command.force)
    raise AssertionError(command)


def _effect_of_reservation(call: Call) -> Step:
    command = call.command
    if isinstance(command, Reserve):
        return reserve(command.account, call.number, by_name=bool(command.addresses))
    assert isinstance(command, OfReservation)
    ends = cancel if isinstance(command, Cancel) else confirm
    return ends(command.made_by)


def _all(call: Call, changed: Iterable[str]) -> Constraints:
    return {address: [effect_of(call)] for address in changed}


def interpretations(call: Call, addresses: Sequence[str]) -> list[Constraints]:
    """Return the possible interpretations of a call: one if its reply is final."""
    command, reply = call.command, call.reply
    assigned = isinstance(command, Delete) and "assigned" in _reasons(reply).values()
    exists = isinstance(command, Create) and reply.status == 409
    expired = reply.message == "reservation_expired"
    refused = reply.status in (400, 404) or assigned or exists or expired
    only_read = isinstance(command, Fetch) or refused
    if isinstance(command, Repair) or (call.isolated and only_read):
        return [{}]
    if not is_final(reply):
        return _unknown(call, addresses)
    if reply.status >= 400:
        refusal = _reservation_ended if isinstance(command, OfReservation) else _refusal
        return [_after_attempts(call, each, addresses) for each in refusal(call, addresses)]
    if isinstance(command, Fetch | Move):
        return [{command.address: [observe(_is_as_shown(reply))]}]
    changed = reply.data.get("ips") or addresses_of(command, addresses)
    if isinstance(command, ReleaseAll):
        changed = reply.data["ips"]
        others = {
            a: [observe(lambda o: o != command.account)] for a in addresses if a not in changed
        }
        seen = {} if call.isolated or call.lagging else others
        return [{**seen, **_all(call, changed)}]
    if isinstance(command, Allocate) or (isinstance(command, Reserve) and not command.addresses):
        assert len(set(changed)) == command.quantity, call
    else:
        assert list(changed) == list(addresses_of(command, addresses)), call
    return [_done(call, changed, addresses)]


def _done(call: Call, changed: Sequence[str], addresses: Sequence[str]) -> Constraints:
    """Return the constraints of a call that has changed these addresses."""
    command, constraints = call.command, _all(call, changed)
    if isinstance(command, Allocate) or not is_final(call.attempts[0][2]):
        # Assignments that an allocation or an earlier attempt undid may have been visible.
        tried = _no_lasting_effect(call, addresses)
        constraints = {
            a: [*tried.get(a, ()), *constraints.get(a, ())] for a in {**tried, **constraints}
        }
    return constraints


def _is_as_shown(reply: Reply) -> Callable[[str | None], bool]:
    """Return whether an address has the owner that a reply shows, or none."""
    shown = reply.data["assigned_to"] if reply.data["status"] == "assigned" else None
    return (lambda o: o == shown) if shown else is_unowned


def _no_lasting_effect(call: Call, addresses: Sequence[str]) -> Constraints:
    """Return the steps of a call that had no lasting effect but may have been visible.

    A release that is undone is never visible.
    """
    command, number = call.command, call.number
    match command:
        case Assign() | AssignMany() | Allocate():
            by_name = not isinstance(command, Allocate)
            is_free = is_free_for(command.account, by_name=by_name)
            shown = transiently(is_free, command.account, number)
        case Reserve():
            is_free = is_free_for(command.account, by_name=bool(command.addresses))
            shown = transiently(is_free, HELD + command.account, number)
        case Confirm():
            shown = transiently(is_held_by(command.made_by), command.account, number)
        case Cancel():  # each address by itself
            shown = [effect_if_any(cancel(command.made_by))]
        case Transfer(_, _, from_id, to_id):
            shown = transiently(lambda o: o == from_id, to_id, number)
        case Create():
            shown = transiently(lambda o: o is ABSENT, added(call.setting), number)
        case Delete():
            shown = transiently(lambda o: o is not ABSENT, ABSENT, number)
        case _:
            return {}
    return {address: shown for address in addresses_of(command, addresses)}


def _unknown(call: Call, addresses: Sequence[str]) -> list[Constraints]:
    command, nothing = call.command, _no_lasting_effect(call, addresses)
    if isinstance(command, Fetch | Move):
        return [{}]
    if isinstance(command, Cancel):
        return [nothing]
    if isinstance(command, ReleaseAll):
        some = effect_if_any(effect_of(call))
        return [{address: [some] for address in addresses}]
    wanted = addresses_of(command, addresses)
    chosen = isinstance(command, Allocate) or (
        isinstance(command, Reserve) and not command.addresses
    )
    size = command.quantity if chosen else len(wanted)
    return [nothing, *(_all(call, each) for each in itertools.combinations(wanted, size))]


_RULES: dict[str, Callable[[Command, str], Callable[[str | None], bool]]] = {
    "not_found": lambda command, account: lambda o: o is ABSENT,
    "forbidden": lambda command, account: (
        (lambda o: o is not ABSENT and o != account and not is_free_for(account)(o))
        if isinstance(command, Assign | AssignMany | Reserve)
        else (lambda o: o is not ABSENT and o != account and not is_unowned(o))
    ),
    "superfluous": lambda command, account: (
        (lambda o: o == account)
        if isinstance(command, Assign | AssignMany | Reserve)
        else is_unowned
    ),
}


_TRANSFER_RULES: dict[str, Callable[[str, str], Callable[[str | None], bool]]] = {
    "not_found": lambda from_id, to_id: lambda o: o is ABSENT,
    "forbidden": lambda from_id, to_id: (
        lambda o: o is not ABSENT and o not in {from_id, to_id} and not is_unowned(o)
    ),
    "superfluous": lambda from_id, to_id: lambda o: o == to_id or is_unowned(o),
}


def _refused_by(rule: str, command: Command) -> Step:
    """Return the observation that a rule refuses an address of a command."""
    if isinstance(command, Transfer):
        return observe(_TRANSFER_RULES[rule](command.from_id, command.to_id))
    assert isinstance(command, OfAccount)
    return observe(_RULES[rule](command, command.account))


def _refusal(call: Call, addresses: Sequence[str]) -> list[Constraints]:
    command, reply = call.command, call.reply
    match reply.status, command:
        case 404, Fetch(_, account, address):
            return [{address: [observe(lambda o: o != account and not is_unowned(o))]}]
        case 404, Assign() | Release() | Delete() | Move():
            [address] = addresses_of(command, addresses)
            return [{address: [observe(lambda o: o is ABSENT)]}]
        case 400, OfAccount() | Transfer():
            wanted = addresses_of(command, addresses)
            return [
                {
                    wanted[int(place.split(".")[1])]: [_refused_by(next(iter(rule)), command)]
                    for place, rule in reply.data.items()
                }
            ]
        case 409, Create(_, address):
            return [{address: [observe(lambda o: o is not ABSENT)]}]
        case 409, Delete(_, address) if "assigned" in _reasons(reply).values():
            return [{address: [observe(lambda o: o is not ABSENT and not is_unowned(o))]}]
        case 409 | 412, _:
            return [_no_lasting_effect(call, addresses)]
    raise AssertionError(call)


def _reservation_ended(call: Call, addresses: Sequence[str]) -> list[Constraints]:
    """Return the possible reasons for a refusal of a request about a reservation."""
    command, reply = call.command, call.reply
    assert isinstance(command, OfReservation)
    ended = observe_not_held(command.made_by)
    if isinstance(command, Cancel) and reply.status == 404:
        return [{address: [ended] for address in command.addresses}]
    if reply.message == "reservation_expired":
        return [{address: [ended]} for address in command.addresses]
    return [_no_lasting_effect(call, addresses)]


def _after_attempts(call: Call, refused: Constraints, addresses: Sequence[str]) -> Constraints:
    """Return the constraints of a refusal, with what earlier attempts did and undid before.

    No call is refused because of its own writes. So an address that the refusal says the account
    has already was not assigned by these attempts.
    """
    command, reply = call.command, call.reply
    undone = isinstance(command, Assign | AssignMany | Reserve | Transfer) and reply.status in (
        400,
        404,
    )
    if not undone or is_final(call.attempts[0][2]):
        return refused
    wanted = addresses_of(command, addresses)
    rules = reply.data.items() if reply.status == 400 else ()
    own = {wanted[int(place.split(".")[1])] for place, rule in rules if "superfluous" in rule}
    tried = {a: s for a, s in _no_lasting_effect(call, addresses).items() if a not in own}
    return {a: [*tried.get(a, ()), *refused.get(a, ())] for a in {**tried, **refused}}


def _reasons(reply: Reply) -> Mapping[str, str]:
    """Return the reason for the refusal of each address."""
    reasons = reply.data.get("ips") if reply.status == 409 and reply.data else None
    return reasons or {}


# The check.


def violations(
    history: Sequence[Call], begin: Mapping[str, str | None], end: Mapping[str, str | None]
) -> list[str]:
    """Return the violations in a history, one line each.

    :param begin: the owner of each address at the start: AVAILABLE, an account's name, or ABSENT
    :param end: the owner of each address at the end
    """
    addresses = list(begin)
    failed = [f"status {c.reply.status}: {c}" for c in history if c.reply.status == 500]
    if failed:
        return failed
    wrong = [w for c in history for w in _invalid_replies(c, history, addresses)]
    try:
        by_call = [interpretations(call, addresses) for call in history]
    except AssertionError as error:
        return [f"the reply does not fit the request: {error}"]
    constraining = {
        a: [i for i, alternatives in enumerate(by_call) if any(a in w for w in alternatives)]
        for a in begin
    }

    add_again = _adding_again(history[0].setting if history else "")
    additions = {
        a: [
            c.began for c in history if c.command == _creation(c.command, a) and not _is_refused(c)
        ]
        for a in begin
    }

    expiries = [*_expiries(history)]

    @cache
    def possible(address: str, choice: tuple[int, ...]) -> bool:
        events = [
            Event(history[i].began, history[i].ended, step)
            for i, chosen in zip(constraining[address], choice, strict=True)
            for step in by_call[i][chosen].get(address, ())
        ]
        events += [Event(began, UNFINISHED, add_again) for began in additions[address]]
        events += expiries
        final = lambda s: not isinstance(s, Transient) and owner(s) == end[address]  # noqa: E731
        return legal_order(events, begin[address], final) is not None

    impossible: dict[str, None] = {}
    choices = itertools.product(*(range(len(alternatives)) for alternatives in by_call))
    for choice in itertools.islice(choices, _MAX_CHOICES):
        bad = next((a for a in begin if not possible(a, _of(choice, constraining[a]))), None)
        if bad is None:
            return wrong
        impossible[bad] = None
    return [
        *wrong,
        *(
            f"{a}: no order leads from {begin[a] or 'absent'} to {end[a] or 'absent'}"
            for a in impossible
        ),
    ]


def _expiries(history: Iterable[Call]) -> Iterator[Event]:
    """Yield the possible ends of reservations by time, in whole seconds."""
    for call in history:
        if isinstance(call.command, Reserve) and not _is_refused(call):
            ends = call.began + call.command.seconds - 1
            yield Event(ends, UNFINISHED, effect_if_any(cancel(call.number)))


def _creation(command: Command, address: str) -> Create | None:
    return command if isinstance(command, Create) and command.address == address else None


def _is_refused(call: Call) -> bool:
    return 400 <= call.reply.status < 500 and is_final(call.reply)


def _adding_again(setting: str) -> Step:
    """Add an address again: a replica may receive the addition after a later deletion."""
    return effect_if_any(add(setting))


def _of(choice: Sequence[int], places: Iterable[int]) -> tuple[int, ...]:
    return tuple(choice[i] for i in places)


def _invalid_replies(call: Call, history: Sequence[Call], addresses: Sequence[str]) -> list[str]:
    """Return the violations that do not depend on an order: of keys, and of conflicts."""
    wrong = []
    finals = [reply for *_, reply in call.attempts if is_final(reply)]
    if any(reply != finals[0] for reply in finals[1:]):
        wrong.append(f"different final replies: {call}")
    if call.key and not finals:
        wrong.append(f"no final reply to a key: {call}")
    if call.reply.message == "datastore_conflict" and not isinstance(call.command, Create):
        lost = [a for a, why in call.reply.data.get("ips", {}).items() if why == "conflict"]
        for address in lost:
            rivals = [
                other
                for other in history
                if other is not call
                and address in addresses_of(other.command, addresses)
                and other.began <= call.ended
                and other.ended >= call.began
            ]
            if not rivals:
                wrong.append(f"{address}: conflict without a second writer: {call}")
    return wrong
