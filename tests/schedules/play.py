"""Runs a scenario with one schedule after the other, and returns the violations of each run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from kazoo_ips.errors import DatastoreError
from tests.schedules.consistency import (
    Call,
    all_refused,
    contradictions,
    inconsistencies,
    misrecorded,
)
from tests.schedules.operations import Operation, Pool, read_pool
from tests.schedules.scheduler import Choice, Client, Phase, Run, execute, this_step
from tests.schedules.world import COPIES, PAST_LEASE, Snapshot, World


@dataclass(frozen=True)
class Scenario:
    """Operations that run concurrently, and the pool in which they start.

    :param start: the account of each address at the start, as in `a:X b:- c:Y`
    :param operations: as in `X assigns ab`
    :param uncopied: addresses whose account lacks its copy at the start
    :param expired: addresses of a reservation of X that is over at the start
    :param limits: the maximum number of addresses of each account that has a limit, as in `X:1`
    :param rested: available addresses that have rested, and are still `aging`; Y had them last
    """

    start: str
    operations: tuple[str, ...]
    uncopied: str = ""
    limits: str = ""
    expired: str = ""
    rested: str = ""

    def __str__(self) -> str:
        damaged = f" without copy of {self.uncopied}" if self.uncopied else ""
        limited = f" with limits {self.limits}" if self.limits else ""
        limited += f" after a reservation of {self.expired}" if self.expired else ""
        rested = f", {self.rested} rested" if self.rested else ""
        return f"{self.start}{damaged}{limited}{rested}, {', '.join(self.operations)}"

    @property
    def limit_of(self) -> dict[str, int]:
        """The limit of each account that has one."""
        return {word[0]: int(word[2:]) for word in self.limits.split()}

    @property
    def pool(self) -> Pool:
        """The pool at the start."""
        return read_pool(self.start)


@dataclass
class Played:
    """A run and its violations, one line each."""

    run: Run
    history: list[Call]
    violations: list[str]

    def __str__(self) -> str:
        calls = [f"{c.operation}: {', then '.join(map(str, c.replies))}" for c in self.history]
        return "\n".join([*self.violations, *(f"    {s}" for s in self.run.steps), *calls])


@dataclass
class _Attempt:
    call: Call
    client: Client
    worker: int


@dataclass
class Play:
    """Runs one scenario with the schedules that it is given.

    :param keyed: whether each request has an Idempotency-Key, and is sent again if its client got
        no final reply
    """

    world: World
    scenario: Scenario
    keyed: bool
    _history: list[Call] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)
    _attempts: list[_Attempt] = field(default_factory=list)

    @property
    def _extra_worker(self) -> int:
        """The number of the worker that serves requests after the schedule has ended."""
        return len(self.scenario.operations)

    def go(self, schedule: Sequence[Choice]) -> Played:
        """Reset the databases, run one schedule and check the result."""
        self.world.reset()
        self._history = [
            Call(Operation.read(text, self.scenario.limit_of)) for text in self.scenario.operations
        ]
        self._keys = [uuid4().hex for _ in self._history]
        for call in self._history:
            call.request_id = uuid4().hex
        self._attempts = []
        faulty = any(choice.fault for choice in schedule)
        phases = [Phase(self._first_attempts)]
        if faulty:
            phases.append(Phase(self._recovery_phase))
        run = execute(self.world.clock, phases, schedule)
        violations = [
            f"{a.client.name}: {a.client.result!r}"
            for a in self._attempts
            if isinstance(a.client.result, BaseException)
            and not (faulty and isinstance(a.client.result, DatastoreError))
        ]
        snapshot = self._final_snapshot(faulty, run)
        self._set_begin()
        violations += contradictions(self._history)
        violations += inconsistencies(self._history, self.scenario.pool, snapshot.pool)
        violations += snapshot.violations
        violations += misrecorded(self._history, self.world.recorded())
        if not faulty:
            violations += all_refused(self._history, self.scenario.pool)
        if self.keyed:
            violations += [f"{c.operation}: no final reply" for c in self._without_final_reply()]
        return Played(run, self._history, violations)

    def _first_attempts(self) -> list[Client]:
        return [self._attempt(number, number) for number in range(len(self._history))]

    def _recovery_phase(self) -> list[Client]:
        """Return a second attempt of each unfinished call, and a worker that runs recovery."""
        self.world.clock.now += PAST_LEASE
        again = [
            self._attempt(number, self._extra_worker + 1 + number, ", again")
            for number, call in enumerate(self._history)
            if self.keyed and call.final is None and call.operation.verb != "repairs"
        ]
        return [*again, Client("another worker", self._recovery())]

    def _attempt(self, number: int, worker: int, again: str = "") -> Client:
        call = self._history[number]
        self.world.worker(worker)
        client = Client(f"{call.operation}{again}", partial(self._send, number, worker))
        self._attempts.append(_Attempt(call, client, worker))
        return client

    def _send(self, number: int, worker: int) -> None:
        """Send a request, and run the work that the worker defers until after its reply."""
        call = self._history[number]
        key = self._keys[number] if self.keyed else None
        reply = self.world.send(worker, call.operation, call.request_id, key)
        if reply:
            call.replies.append(reply)
            if reply.is_final:
                call.ended = min(call.ended, this_step())
        self.world.worker(worker).run_deferred_work()

    def _recovery(self) -> Callable[[], None]:
        living = [a.worker for a in self._attempts if a.client.done and not a.client.killed]
        return partial(self.world.recover, living)

    def _final_snapshot(self, faulty: bool, run: Run) -> Snapshot:
        """Return the documents minutes later, after recovery and one more attempt of keyed calls.

        A drain is carried out once more: a worker that did not know it may have put an address
        back as available. After that, nothing on the host may be available.

        Only the doctor repairs a copy that was lacking at the start, or that a late write created
        after its transaction was finished. So the doctor runs in these cases.
        """
        if any(call.operation.verb == "drains" for call in self._history):
            self.world.carry_out_drains()
        snapshot = self.world.snapshot()
        if not faulty and not snapshot.violations and not self._without_final_reply():
            return snapshot
        self.world.clock.now += PAST_LEASE
        self._recovery()()
        self.world.worker(self._extra_worker)
        for number, call in enumerate(self._history):
            if self.keyed and call.operation.verb != "repairs":
                self._send(number, self._extra_worker)
        if self.scenario.uncopied or any(r.database in COPIES.values() for r in run.late):
            self.world.clock.now += PAST_LEASE
            self.world.repair(self._extra_worker)
        return self.world.snapshot()

    def _without_final_reply(self) -> list[Call]:
        return [c for c in self._history if c.final is None and c.operation.verb != "repairs"]

    def _set_begin(self) -> None:
        for call in self._history:
            call.began = min(a.client.began for a in self._attempts if a.call is call)
