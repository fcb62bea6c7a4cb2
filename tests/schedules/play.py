"""Runs a scenario with one schedule after the other, and returns the violations of each run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from kazoo_ips.errors import DatastoreError
from tests.schedules.judge import Told, contradictions, nobody_won, untrue
from tests.schedules.operations import Operation, Pool, read_pool
from tests.schedules.scheduler import Choice, Client, Phase, Run, execute, this_step
from tests.schedules.world import COPIES, LEASE_AND_MORE, Look, World


@dataclass(frozen=True)
class Scenario:
    """What is asked for at the same time.

    :param start: who has which address at the beginning, as in `a:X b:- c:Y`
    :param operations: as in `X assigns ab`
    :param uncopied: addresses whose account lacks its copy at the beginning
    """

    start: str
    operations: tuple[str, ...]
    uncopied: str = ""

    def __str__(self) -> str:
        damaged = f" without copy of {self.uncopied}" if self.uncopied else ""
        return f"{self.start}{damaged}, {', '.join(self.operations)}"

    @property
    def pool(self) -> Pool:
        """The pool at the beginning."""
        return read_pool(self.start)


@dataclass
class Played:
    """A run, and what is wrong with it."""

    run: Run
    history: list[Told]
    wrong: list[str]

    def __str__(self) -> str:
        told = [f"{t.operation}: {', then '.join(map(str, t.replies))}" for t in self.history]
        return "\n".join([*self.wrong, *(f"    {s}" for s in self.run.steps), *told])


@dataclass
class _Attempt:
    told: Told
    client: Client
    worker: int


@dataclass
class Play:
    """Runs of one scenario.

    :param keyed: whether each request has an Idempotency-Key, and is sent again when its client
        was not told how it ended
    """

    world: World
    scenario: Scenario
    keyed: bool
    _history: list[Told] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)
    _attempts: list[_Attempt] = field(default_factory=list)

    @property
    def _newcomer(self) -> int:
        return len(self.scenario.operations)

    def go(self, schedule: Sequence[Choice]) -> Played:
        """One run from scratch."""
        self.world.reset()
        self._history = [Told(Operation.read(text)) for text in self.scenario.operations]
        self._keys = [uuid4().hex for _ in self._history]
        self._attempts = []
        faulty = any(choice.fault for choice in schedule)
        phases = [Phase(self._first_attempts)]
        if faulty:
            phases.append(Phase(self._afterwards))
        run = execute(self.world.clock, phases, schedule)
        wrong = [
            f"{a.client.name}: {a.client.result!r}"
            for a in self._attempts
            if isinstance(a.client.result, BaseException)
            and not (faulty and isinstance(a.client.result, DatastoreError))
        ]
        look = self._close(faulty, run)
        self._note_begin()
        wrong += contradictions(self._history)
        wrong += untrue(self._history, self.scenario.pool, look.pool)
        wrong += look.disorder
        if not faulty:
            wrong += nobody_won(self._history, self.scenario.pool)
        if self.keyed:
            wrong += [f"{t.operation}: never told" for t in self._unsettled()]
        return Played(run, self._history, wrong)

    def _first_attempts(self) -> list[Client]:
        return [self._attempt(number, number) for number in range(len(self._history))]

    def _afterwards(self) -> list[Client]:
        """Another worker recovers what is left; who was not told asks again."""
        self.world.clock.now += LEASE_AND_MORE
        again = [
            self._attempt(number, self._newcomer + 1 + number, ", again")
            for number, told in enumerate(self._history)
            if self.keyed and told.final is None and told.operation.verb != "repairs"
        ]
        return [*again, Client("another worker", self._recovery())]

    def _attempt(self, number: int, worker: int, again: str = "") -> Client:
        told = self._history[number]
        self.world.worker(worker)
        client = Client(f"{told.operation}{again}", partial(self._ask, number, worker))
        self._attempts.append(_Attempt(told, client, worker))
        return client

    def _ask(self, number: int, worker: int) -> None:
        """Send a request, and have the worker do what it puts off."""
        told = self._history[number]
        reply = self.world.ask(worker, told.operation, self._keys[number] if self.keyed else None)
        if reply:
            told.replies.append(reply)
            if reply.is_final:
                told.ended = min(told.ended, this_step())
        self.world.worker(worker).work()

    def _recovery(self) -> Callable[[], None]:
        living = [a.worker for a in self._attempts if a.client.done and not a.client.killed]
        return partial(self.world.recover, living)

    def _close(self, faulty: bool, run: Run) -> Look:
        """What is left at last, minutes later, when everybody has recovered and asked again.

        A copy that was written when nobody expected it any more is for the doctor, and so is one
        that was lacking at the start.
        """
        look = self.world.look()
        if not faulty and not look.disorder and not self._unsettled():
            return look
        self.world.clock.now += LEASE_AND_MORE
        self._recovery()()
        self.world.worker(self._newcomer)
        for number, told in enumerate(self._history):
            if self.keyed and told.operation.verb != "repairs":
                self._ask(number, self._newcomer)
        if self.scenario.uncopied or any(r.database in COPIES.values() for r in run.late):
            self.world.clock.now += LEASE_AND_MORE
            self.world.examine(self._newcomer)
        return self.world.look()

    def _unsettled(self) -> list[Told]:
        return [t for t in self._history if t.final is None and t.operation.verb != "repairs"]

    def _note_begin(self) -> None:
        for told in self._history:
            told.began = min(a.client.began for a in self._attempts if a.told is told)
