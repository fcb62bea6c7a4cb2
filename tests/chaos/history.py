"""The requests and replies of all clients, and the violations of the guarantees in them.

A call is one thing a client wanted: one request, or with an Idempotency-Key as many as it took.
Its first final reply is what it was told. For each address the calls become operations, and
`linearizability` looks for an order of them; keys and single replies are judged here.
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
"""What is counted and is no violation: single reads and lists promise nothing while a majority of
the nodes is away."""

SETTLED_AFTER = 120.0
"""Seconds that a request may still have an effect after it was answered 503 or not at all."""


@dataclass
class Attempt:
    """One request and its reply; the status is 0 when there was none."""

    server: int
    begin: float
    end: float = math.inf
    status: int = 0
    message: str = ""
    data: Any = None

    @property
    def is_final(self) -> bool:
        """Whether the reply says what was done, so that nobody need ask again."""
        return 200 <= self.status < 500 and self.status != 429 and self.message != "in_progress"

    @property
    def told(self) -> tuple[int, str, Any]:
        """What the reply says."""
        return self.status, self.message, self.data


@dataclass
class Call:
    """One thing that a client wanted.

    :param action: assign, release, `release all`, allocate, create, delete, `delete by force`,
        read, list or trespass
    :param account: whose addresses it is about; empty for the operator's own
    :param addresses: those asked for
    :param quantity: how many are to be allocated
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
        """The first reply that is final."""
        return next((attempt for attempt in self.attempts if attempt.is_final), None)

    @property
    def begin(self) -> float:
        """When it was first sent."""
        return self.attempts[0].begin

    @property
    def end(self) -> float:
        """When it was known what it did."""
        return self.final.end if self.final else math.inf

    @property
    def done(self) -> list[str]:
        """The addresses that it was told were assigned, released, added or deleted."""
        final = self.final
        if final is None or final.status not in (200, 201):
            return []
        named = final.data.get("ips") if isinstance(final.data, dict) else None
        return named if isinstance(named, list) else self.addresses


@dataclass(frozen=True)
class Violation:
    """Something that no right service does."""

    kind: str
    text: str
    address: str = ""


@dataclass
class History:
    """All calls of one run.

    :param states: each address's state at the start
    :param final: each address's state at the end
    """

    states: dict[str, str]
    calls: list[Call] = field(default_factory=list)
    final: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it down, a line a call, for reading and for `load`."""
        lines = [{"states": self.states, "final": self.final}, *map(asdict, self.calls)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @classmethod
    def load(cls, path: Path) -> "History":
        """What `save` wrote."""
        head, *lines = map(json.loads, path.read_text().splitlines())
        calls = [
            Call(**{**line, "attempts": [Attempt(**attempt) for attempt in line["attempts"]]})
            for line in lines
        ]
        return cls(head["states"], calls, head["final"])

    def violations(self) -> Iterator[Violation]:
        """Everything that is wrong with it."""
        for call in self.calls:
            yield from _replies(call, self.states)
            yield from _key(call)
        yield from _conflicts_with_nobody(self.calls)
        for address, operations in self.operations().items():
            yield from self._order(address, operations)

    def operations(self) -> Mapping[str, list[Operation]]:
        """What is known to have been done to each address, and at the end what there is."""
        made: dict[str, list[Operation]] = {address: [] for address in self.states}
        for call in self.calls:
            if call.attempts:
                for address, operation in _operations(call, self.states):
                    made[address].append(operation)
        over = 1 + max((a.begin for call in self.calls for a in call.attempts), default=0)
        ends = (a.end for call in self.calls for a in call.attempts if a.end < math.inf)
        over = max(over, 1 + max(ends, default=0))
        for address, state in self.final.items():
            made[address].append(Operation(Effect("is", state), over, over))
        return made

    def about(self, address: str) -> Iterator[str]:
        """What is known of one address, a line an operation, in the order of their begins."""
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
            yield Violation("too many orders", f"{len(operations)} operations", address)


def _kind(call: Call | None, effect: Effect) -> str:
    """What it is called when no order explains an operation: where it shows, which need not be the
    operation that was wrong."""
    if call is None:
        return "no order: the end"
    if call.action in ("read", "list"):
        return f"stale {call.action}"
    if effect.what == "is not" and call.action == "release all":
        return "no order: left by release all"
    return f"no order: {'refused ' if effect.what.startswith('is') else ''}{call.action}"


def _operations(call: Call, known: Collection[str]) -> Iterator[tuple[str, Operation]]:
    """What a call tells of each address."""
    final = call.final
    if final is None:
        effects = _wanted(call, known)
        certainty, end = Certainty.PERHAPS, math.inf
    elif final.status in (200, 201):
        effects, certainty, end = _acknowledged(call, final, known), Certainty.CERTAIN, call.end
    else:
        effects, certainty, end = _refused(call, final), Certainty.CERTAIN, call.end
    for address, effect in effects:
        if address in known:  # what else is named is a violation of its own
            yield address, Operation(effect, call.begin, end, certainty, call.number)
    if final is not None and call.action in ("assign", "allocate"):
        yield from _passing(call, final, known)


def _wanted(call: Call, known: Collection[str]) -> Iterator[tuple[str, Effect]]:
    """What a call may have done to which address."""
    what = {"allocate": "assign", "release all": "release"}.get(call.action, call.action)
    if what in ("assign", "release", "create", "delete", "delete by force"):
        whole = call.action in ("allocate", "release all")
        for address in known if whole else call.addresses:
            yield address, Effect(what, call.account)


def _acknowledged(
    call: Call, final: Attempt, known: Collection[str]
) -> Iterator[tuple[str, Effect]]:
    if call.action == "read":
        state = final.data.get("assigned_to") or final.data.get("status")
        yield call.addresses[0], Effect("is", state)
    elif call.action == "list":
        listed = {line["ip"] for line in final.data}
        for address in known:
            yield address, Effect("is" if address in listed else "is not", call.account)
    elif call.action == "release all":
        released = set(call.done)
        for address in known:
            yield address, Effect("release" if address in released else "is not", call.account)
    elif call.action != "trespass":
        what = "assign" if call.action == "allocate" else call.action
        for address in call.done:
            yield address, Effect(what, call.account)


def _refused(call: Call, final: Attempt) -> Iterator[tuple[str, Effect]]:
    """What a refusal says that there was: the reply names the state it was met by."""
    reasons = final.data.get("ips") if isinstance(final.data, dict) else None
    if final.status == 404 and call.addresses:
        yield call.addresses[0], Effect("is", ABSENT)
    elif final.status == 400:
        mine = call.account if call.action == "assign" else AVAILABLE
        seen = {
            "not_found": Effect("is", ABSENT),
            "superfluous": Effect("is", mine),
            "forbidden": Effect("is another's", call.account),
        }
        for address, rule in _rules(call, final.data) or ():
            yield address, seen[rule]
    elif final.status == 409 and call.action == "create":
        yield call.addresses[0], Effect("is not", ABSENT)
    elif call.action == "delete" and reasons == {call.addresses[0]: "assigned"}:
        yield call.addresses[0], Effect("is another's")


def _rules(call: Call, data: Any) -> list[tuple[str, str]] | None:
    """What a 400 says of which address; None where it cannot be about what was asked."""
    places = {f"ips.{place}": address for place, address in enumerate(call.addresses)}
    if call.action not in ("assign", "release") or not isinstance(data, dict):
        return None
    said = [(places.get(place), *rules) for place, rules in data.items()]
    known = ("not_found", "superfluous", "forbidden")
    if any(len(each) != 2 or each[0] is None or each[1] not in known for each in said):
        return None
    return [(str(address), rule) for address, rule in said]


def _passing(
    call: Call, final: Attempt, known: Collection[str]
) -> Iterator[tuple[str, Operation]]:
    """What a call may have taken and given back before its reply: in an attempt without a final
    reply, in a race that it lost, as a choice that it dropped. Never what its refusal names: no
    call is refused for what it did itself."""
    begun = len([attempt for attempt in call.attempts if attempt.begin < call.end])
    if call.action == "allocate" or begun > 1 or not call.done:
        named = {address for address, _ in _refused(call, final)}
        done = set(call.done) if begun == 1 else set()
        for address in known if call.action == "allocate" else call.addresses:
            if address in known and address not in named | done:
                effect = Effect("assign", call.account)
                yield (
                    address,
                    Operation(effect, call.begin, call.end, Certainty.PASSING, call.number),
                )


def _replies(call: Call, known: Collection[str]) -> Iterator[Violation]:
    """What is wrong with single replies, whatever happened to the addresses."""
    for attempt in call.attempts:
        said = f"call {call.number}, {call.action}: {attempt.status} {attempt.message}"
        if attempt.status == 500:
            yield Violation("500", said)
        elif attempt.status in (401, 403) and call.action != "trespass":
            yield Violation("a good token refused", said)
        elif call.action == "trespass" and attempt.is_final and attempt.status != 403:
            yield Violation("an account taken for another", said)
        elif not _is_about(call, attempt, known):
            yield Violation("the answer to something else", f"{said} {attempt.data}")


def _is_about(call: Call, attempt: Attempt, known: Collection[str]) -> bool:
    """Whether a reply can be about what was asked."""
    if attempt.status == 400:
        return _rules(call, attempt.data) is not None
    return attempt.status not in (200, 201) or _answers(call, attempt.data, known)


def _answers(call: Call, data: Any, known: Collection[str]) -> bool:
    """Whether a good reply is about what was asked."""
    if call.action == "list":
        return all(line["ip"] in known for line in data)
    if call.action in ("allocate", "release all"):
        ips = data["ips"]
        enough = call.action == "release all" or len(ips) == call.quantity
        return enough and len(set(ips)) == len(ips) and set(ips) <= set(known)
    if "ips" in data:
        return bool(data["ips"] == call.addresses)
    if data.get("id") != call.addresses[0]:
        return False
    status = {"assign": "assigned", "release": "available"}.get(call.action, data["status"])
    owner = call.account if call.action == "assign" else data.get("assigned_to")
    return (data["status"], data.get("assigned_to")) == (status, owner)


def _key(call: Call) -> Iterator[Violation]:
    """What is wrong with a call's Idempotency-Key."""
    if call.key is None:
        return
    finals = [attempt.told for attempt in call.attempts if attempt.is_final]
    if not finals:
        yield Violation("a key not settled", f"call {call.number}, {call.action}")
    elif any(told != finals[0] for told in finals[1:]):
        text = " | ".join(map(str, finals))
        yield Violation("two answers to one key", f"call {call.number}, {call.action}: {text}")


def _conflicts_with_nobody(calls: Sequence[Call]) -> Iterator[Violation]:
    """Calls that were told of a conflict while nobody else was at their addresses."""
    refused = [
        call
        for call in calls
        if call.final
        and (call.final.status, call.final.message) == (409, "datastore_conflict")
        and call.action in ("assign", "release", "release all")
    ]
    for call in refused:
        if not any(_met(call, other) for other in calls):
            yield Violation("a conflict with nobody", f"call {call.number}, {call.action}")


def _met(call: Call, other: Call) -> bool:
    if other is call or other.action in ("read", "list", "trespass") or not other.attempts:
        return False
    last = max(attempt.end for attempt in other.attempts)
    until = other.end if other.final else last + SETTLED_AFTER
    everywhere = {"allocate", "release all"} & {call.action, other.action}
    shared = everywhere or set(call.addresses) & set(other.addresses)
    return bool(shared) and other.begin < call.end and until > call.begin


def counted(violations: Iterable[Violation]) -> dict[str, int]:
    """How many there are of each kind."""
    counts: dict[str, int] = {}
    for violation in violations:
        counts[violation.kind] = counts.get(violation.kind, 0) + 1
    return counts
