"""The requests and replies of all clients, and the violations of the guarantees in them.

A call is one request, or with an Idempotency-Key all attempts of it. Its first final reply is its
result. Each call becomes an operation on each of its addresses, and `linearizability` searches for
an order of the operations on one address. This module checks keys and single replies.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.linearizability import (
    ABSENT,
    AVAILABLE,
    Certainty,
    Effect,
    Operation,
    Undecided,
    violations,
)

STALE = ("stale read", "stale list")
"""These are counted and are no violations: CouchDB guarantees nothing for a read or a list while a
majority of the nodes is unreachable."""

LATE_EFFECT = 120.0
"""Seconds within which a request without a final reply may still take effect."""


@dataclass
class Attempt:
    """One request and its reply; the status is 0 if there was no reply."""

    server: int
    begin: float
    end: float = math.inf
    status: int = 0
    message: str = ""
    data: Any = None

    @property
    def is_final(self) -> bool:
        """Whether the request is finished, so that the client need not repeat it."""
        return 200 <= self.status < 500 and self.status != 429 and self.message != "in_progress"

    @property
    def reply(self) -> tuple[int, str, Any]:
        """Status, message and data of the reply."""
        return self.status, self.message, self.data


@dataclass
class Call:
    """One call of a client, with all its attempts.

    :param action: assign, release, `release all`, allocate, create, delete, `delete by force`,
        read, list or `forbidden call` (of a route that only the operator may use)
    :param account: the account in the path; empty for a call by the operator
    :param addresses: the addresses in the request
    :param quantity: the number of addresses to allocate
    """

    number: int
    action: str
    account: str
    addresses: list[str]
    quantity: int = 0
    key: str | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def final(self) -> Attempt | None:
        """The first final reply."""
        return next((attempt for attempt in self.attempts if attempt.is_final), None)

    @property
    def begin(self) -> float:
        """The time of the first request."""
        return self.attempts[0].begin

    @property
    def end(self) -> float:
        """The time of the first final reply; infinite if there is none."""
        return self.final.end if self.final else math.inf

    @property
    def done(self) -> list[str]:
        """The addresses that the reply names as assigned, released, added or deleted."""
        final = self.final
        if final is None or final.status not in (200, 201):
            return []
        named = final.data.get("ips") if isinstance(final.data, dict) else None
        return named if isinstance(named, list) else self.addresses


@dataclass(frozen=True)
class Violation:
    """A violation of a guarantee."""

    kind: str
    text: str
    address: str = ""


@dataclass
class History:
    """All calls of one run.

    :param states: the state of each address at the start
    :param final: the state of each address at the end
    """

    states: dict[str, str]
    calls: list[Call] = field(default_factory=list)
    final: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a JSON line for each call. `load` reads the file."""
        lines = [{"states": self.states, "final": self.final}, *map(asdict, self.calls)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read a file that `save` wrote."""
        head, *lines = map(json.loads, path.read_text().splitlines())
        calls = [
            Call(**{**line, "attempts": [Attempt(**attempt) for attempt in line["attempts"]]})
            for line in lines
        ]
        return cls(head["states"], calls, head["final"])

    def violations(self) -> Iterator[Violation]:
        """Yield all violations."""
        for call in self.calls:
            yield from _replies(call, self.states)
            yield from _key(call)
        yield from _conflicts_without_writer(self.calls)
        for address, operations in self.operations().items():
            yield from self._order(address, operations)

    def operations(self) -> Mapping[str, list[Operation]]:
        """Return the operations on each address, with its final state as the last one."""
        made: dict[str, list[Operation]] = {address: [] for address in self.states}
        for call in self.calls:
            if call.attempts:
                for address, operation in _operations(call, self.states):
                    made[address].append(operation)
        last = 1 + max((a.begin for call in self.calls for a in call.attempts), default=0)
        ends = (a.end for call in self.calls for a in call.attempts if a.end < math.inf)
        last = max(last, 1 + max(ends, default=0))
        for address, state in self.final.items():
            made[address].append(Operation(Effect("is", state), last, last))
        return made

    def about(self, address: str) -> Iterator[str]:
        """Yield a line for each operation on an address, in the order of their begins."""
        for operation in sorted(self.operations()[address], key=lambda operation: operation.begin):
            effect, certainty = operation.effect, operation.certainty.name.lower()
            yield (
                f"{operation.begin:.3f} to {operation.end:.3f} {certainty:8}"
                f" {effect.what} {effect.who}, call {operation.call}"
            )

    def _order(self, address: str, operations: Sequence[Operation]) -> Iterator[Violation]:
        calls = {call.number: call for call in self.calls}
        try:
            for operation in violations(operations, self.states[address]):
                effect = operation.effect
                kind = _kind(calls.get(operation.call), effect)
                yield Violation(
                    kind, f"{effect.what} {effect.who}, call {operation.call}", address
                )
        except Undecided:
            yield Violation("too many possible orders", f"{len(operations)} operations", address)


def _kind(call: Call | None, effect: Effect) -> str:
    """Return the kind of a violation that shows at an operation, which need not be its cause."""
    if call is None:
        return "no order: final state"
    if call.action in ("read", "list"):
        return f"stale {call.action}"
    if effect.what == "is not" and call.action == "release all":
        return "no order: missed by release all"
    return f"no order: {'refused ' if effect.what.startswith('is') else ''}{call.action}"


def _operations(call: Call, addresses: Collection[str]) -> Iterator[tuple[str, Operation]]:
    """Yield the operations of a call, each with its address."""
    final = call.final
    if final is None:
        effects = _possible_effects(call, addresses)
        certainty, end = Certainty.UNKNOWN, math.inf
    elif final.status in (200, 201):
        effects, certainty, end = (
            _acknowledged(call, final, addresses),
            Certainty.CERTAIN,
            call.end,
        )
    else:
        effects, certainty, end = _refused(call, final), Certainty.CERTAIN, call.end
    for address, effect in effects:
        if address in addresses:  # `_replies` reports a reply that names any other address
            yield address, Operation(effect, call.begin, end, certainty, call.number)
    if final is not None and call.action in ("assign", "allocate"):
        yield from _transient(call, final, addresses)


def _possible_effects(call: Call, addresses: Collection[str]) -> Iterator[tuple[str, Effect]]:
    """Yield the effects that a call without a final reply may have."""
    what = {"allocate": "assign", "release all": "release"}.get(call.action, call.action)
    if what in ("assign", "release", "create", "delete", "delete by force"):
        whole = call.action in ("allocate", "release all")
        for address in addresses if whole else call.addresses:
            yield address, Effect(what, call.account)


def _acknowledged(
    call: Call, final: Attempt, addresses: Collection[str]
) -> Iterator[tuple[str, Effect]]:
    if call.action == "read":
        state = final.data.get("assigned_to") or final.data.get("status")
        yield call.addresses[0], Effect("is", state)
    elif call.action == "list":
        listed = {line["ip"] for line in final.data}
        for address in addresses:
            yield address, Effect("is" if address in listed else "is not", call.account)
    elif call.action == "release all":
        released = set(call.done)
        for address in addresses:
            yield address, Effect("release" if address in released else "is not", call.account)
    elif call.action != "forbidden call":
        what = "assign" if call.action == "allocate" else call.action
        for address in call.done:
            yield address, Effect(what, call.account)


def _refused(call: Call, final: Attempt) -> Iterator[tuple[str, Effect]]:
    """Yield the states that a refusal observed: its reason implies a state of the address."""
    reasons = final.data.get("ips") if isinstance(final.data, dict) else None
    if final.status == 404 and call.addresses:
        yield call.addresses[0], Effect("is", ABSENT)
    elif final.status == 400:
        wanted = call.account if call.action == "assign" else AVAILABLE
        observed = {
            "not_found": Effect("is", ABSENT),
            "superfluous": Effect("is", wanted),
            "forbidden": Effect("is another's", call.account),
        }
        for address, rule in _rules(call, final.data) or ():
            yield address, observed[rule]
    elif final.status == 409 and call.action == "create":
        yield call.addresses[0], Effect("is not", ABSENT)
    elif call.action == "delete" and reasons == {call.addresses[0]: "assigned"}:
        yield call.addresses[0], Effect("is another's")


def _rules(call: Call, data: Any) -> list[tuple[str, str]] | None:
    """Return address and rule of each entry of a 400; None if it does not fit the request."""
    places = {f"ips.{place}": address for place, address in enumerate(call.addresses)}
    if call.action not in ("assign", "release") or not isinstance(data, dict):
        return None
    entries = [(places.get(place), *rules) for place, rules in data.items()]
    known_rules = ("not_found", "superfluous", "forbidden")
    if any(len(each) != 2 or each[0] is None or each[1] not in known_rules for each in entries):
        return None
    return [(str(address), rule) for address, rule in entries]


def _transient(
    call: Call, final: Attempt, addresses: Collection[str]
) -> Iterator[tuple[str, Operation]]:
    """Yield the assignments that a call may have made and undone before its reply.

    It may do so in an attempt without a final reply, if it loses a race, or if an allocation
    chooses other addresses. No call may be refused because of its own writes. So no refusal says
    that the account has such an address already.
    """
    begun = len([attempt for attempt in call.attempts if attempt.begin < call.end])
    if call.action == "allocate" or begun > 1 or not call.done:
        own = Effect("is", call.account)
        named = {address for address, effect in _refused(call, final) if effect == own}
        done = set(call.done) if begun == 1 else set()
        for address in addresses if call.action == "allocate" else call.addresses:
            if address in addresses and address not in named | done:
                effect = Effect("assign", call.account)
                yield (
                    address,
                    Operation(effect, call.begin, call.end, Certainty.TRANSIENT, call.number),
                )


def _replies(call: Call, addresses: Collection[str]) -> Iterator[Violation]:
    """Yield the violations that a single reply shows, independent of the addresses' states."""
    for attempt in call.attempts:
        text = f"call {call.number}, {call.action}: {attempt.status} {attempt.message}"
        if attempt.status == 500:
            yield Violation("500", text)
        elif attempt.status in (401, 403) and call.action != "forbidden call":
            yield Violation("valid token refused", text)
        elif call.action == "forbidden call" and attempt.is_final and attempt.status != 403:
            yield Violation("forbidden call accepted", text)
        elif not _fits(call, attempt, addresses):
            yield Violation("reply to another request", f"{text} {attempt.data}")


def _fits(call: Call, attempt: Attempt, addresses: Collection[str]) -> bool:
    """Whether a reply fits its request."""
    if attempt.status == 400:
        return _rules(call, attempt.data) is not None
    return attempt.status not in (200, 201) or _success_fits(call, attempt.data, addresses)


def _success_fits(call: Call, data: Any, addresses: Collection[str]) -> bool:
    """Whether a successful reply fits its request."""
    if call.action == "list":
        return all(line["ip"] in addresses for line in data)
    if call.action in ("allocate", "release all"):
        ips = data["ips"]
        enough = call.action == "release all" or len(ips) == call.quantity
        return enough and len(set(ips)) == len(ips) and set(ips) <= set(addresses)
    if "ips" in data:
        return bool(data["ips"] == call.addresses)
    if data.get("id") != call.addresses[0]:
        return False
    status = {"assign": "assigned", "release": "available"}.get(call.action, data["status"])
    owner = call.account if call.action == "assign" else data.get("assigned_to")
    return (data["status"], data.get("assigned_to")) == (status, owner)


def _key(call: Call) -> Iterator[Violation]:
    """Yield the violations of a call's Idempotency-Key."""
    if call.key is None:
        return
    finals = [attempt.reply for attempt in call.attempts if attempt.is_final]
    if not finals:
        yield Violation("no final reply to a key", f"call {call.number}, {call.action}")
    elif any(reply != finals[0] for reply in finals[1:]):
        text = " | ".join(map(str, finals))
        yield Violation(
            "different replies to one key", f"call {call.number}, {call.action}: {text}"
        )


def _conflicts_without_writer(calls: Sequence[Call]) -> Iterator[Violation]:
    """Yield the calls that got a conflict although no other call used their addresses."""
    refused = [
        call
        for call in calls
        if call.final
        and (call.final.status, call.final.message) == (409, "datastore_conflict")
        and call.action in ("assign", "release", "release all")
    ]
    for call in refused:
        if not any(_overlap(call, other) for other in calls):
            yield Violation(
                "conflict without a second writer", f"call {call.number}, {call.action}"
            )


def _overlap(call: Call, other: Call) -> bool:
    if other is call or other.action in ("read", "list", "forbidden call") or not other.attempts:
        return False
    last = max(attempt.end for attempt in other.attempts)
    until = other.end if other.final else last + LATE_EFFECT
    everywhere = {"allocate", "release all"} & {call.action, other.action}
    shared = everywhere or set(call.addresses) & set(other.addresses)
    return bool(shared) and other.begin < call.end and until > call.begin


def counted(violations: Iterable[Violation]) -> dict[str, int]:
    """Return the number of violations of each kind."""
    counts: dict[str, int] = {}
    for violation in violations:
        counts[violation.kind] = counts.get(violation.kind, 0) + 1
    return counts
