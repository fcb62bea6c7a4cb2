"""Walks the orders in which the database requests of a few clients can follow each other.

Each client is a thread that stops before each of its requests. A schedule says at each stop who
goes on, and what goes wrong with the request, so that a run can be repeated exactly. Every run
begins from scratch. Tried are all schedules with at most so many preemptions (Musuvathi and Qadeer
2007) and one fault, depth first, of which no two come to the same: they differ in the order of
requests of which one writes what another reads or writes (dynamic partial-order reduction,
Flanagan and Godefroid 2005; with a bound on preemptions, Coons et al. 2013).

Knows HTTP; nothing of dedicated IPs.
"""

import faulthandler
import json
import math
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from kazoo_ips.couch.http_connections import ConnectFailed, Connections, NoResponse, Response

LONGEST = 400
"""Steps after which a run is taken for one that does not end."""
_PATIENCE = 60.0
"""Seconds that a client may take from one request to the next."""

FAULTS = {
    "refused": "there is no connection",
    "killed": "its worker dies before it",
    "paused": "its worker stands still until it is taken for dead, or longer",
    "lost": "it is done, and not answered",
    "cut": "it is not done, and not answered",
    "late": "it is not answered, and done at some time later",
    "accepted": "it is done, and answered with 202",
    "killed-after": "it is done, and its worker dies",
    "killed-late": "its worker dies, and it is done at some time later",
}
"""What can happen to a request that writes."""
_OF_READS = ("refused", "killed", "paused")
"""What can happen to one that reads; the others come to the same as one of these."""
_CARRIED_OUT = ("", "lost", "accepted", "killed-after")
_CARRIED_OUT_LATER = ("late", "killed-late")


class Killed(BaseException):
    """The end of a client whose worker has been killed."""


class Stuck(AssertionError):
    """A run that does not end, or cannot be repeated."""


@dataclass(frozen=True)
class Request:
    """What a request is called, and what it reads or writes.

    :param documents: of the database; None is all of them
    """

    label: str
    database: str
    documents: frozenset[str] | None
    writes: bool

    def conflicts(self, other: "Request") -> bool:
        """Whether it matters which of the two comes first."""
        if self.database != other.database or not (self.writes or other.writes):
            return False
        if self.documents is None or other.documents is None:
            return True
        return bool(self.documents & other.documents)


class Choice(NamedTuple):
    """Who goes on, and what goes wrong with its request."""

    client: int
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.client}={self.fault}" if self.fault else str(self.client)

    @classmethod
    def read(cls, text: str) -> Self:
        """The choice that `str` has made this text of."""
        client, _, fault = text.partition("=")
        return cls(int(client), fault)


class Clock:
    """The time of a run: it goes on by steps, by what clients sleep, and by what a test says."""

    def __init__(self) -> None:
        self._start = float(int(time.time()))
        self.now = self._start

    def __call__(self) -> float:
        return self.now

    def reset(self) -> None:
        """Begin again."""
        self.now = self._start


class Task(Protocol):
    """What can be chosen to go on."""

    name: str
    request: Request | None
    """Its next one; none while it sleeps."""
    done: bool
    aside: bool
    """Whether nobody waits for it."""
    sleeps_until: float

    def step(self, fault: str) -> None:
        """Go on to the next stop."""


_of_thread = threading.local()


def this_step() -> float:
    """The number of the step that the calling client is at; infinite outside of a schedule."""
    client: Client | None = getattr(_of_thread, "client", None)
    return client.at if client else math.inf


class Late:
    """A request that is under way although its client is told otherwise, or is dead."""

    aside = True
    sleeps_until = 0.0

    def __init__(self, name: str, request: Request, send: Callable[[], Response]) -> None:
        self.name, self.request = f"{name}, late", request
        self.done = False
        self._send = send

    def step(self, fault: str) -> None:
        """Arrive. Nobody reads the answer."""
        self._send()
        self.done = True


class Client:
    """One client: some work in a thread that stops before each request and each sleep."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name = name
        self.request: Request | None = None
        self.done = self.aside = self.killed = False
        self.sleeps_until = 0.0
        self.began = self.at = 0
        self.result: Any = None
        self.late: list[Late] = []
        self._work = work
        self._fault = ""
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    # What the scheduler says.

    def start(self) -> None:
        """Go as far as the first stop."""
        threading.Thread(target=self._run, name=self.name, daemon=True).start()
        self._wait()

    def step(self, fault: str) -> None:
        """Go on to the next stop."""
        if fault == "paused":
            self.aside = True
            return
        self._fault = fault
        self._go.release()
        self._wait()

    def _wait(self) -> None:
        if not self._stopped.acquire(timeout=_PATIENCE):
            faulthandler.dump_traceback(all_threads=True)
            raise Stuck(f"{self.name} does not stop after {self.request}")

    # What its thread does.

    def _run(self) -> None:
        _of_thread.client = self
        try:
            self.result = self._work()
        except Killed:
            self.killed = True
        except BaseException as error:  # a fault of the test itself, or of the service
            self.result = error
        self.done = True
        self._stopped.release()

    def _stop(self, request: Request | None) -> str:
        if self.killed:  # whoever cleans up after an exception is dead as well
            raise Killed
        self.request = request
        self._stopped.release()
        self._go.acquire()
        return self._fault

    def sleep(self, until: float) -> None:
        """Stop until others have gone on."""
        self.sleeps_until = until
        self._stop(None)
        self.sleeps_until = 0.0

    def send(self, request: Request, send: Callable[[], Response]) -> Response:
        """Stop before a request, then send it, or not."""
        fault = self._stop(request)
        answer = send() if fault in _CARRIED_OUT else None
        if fault in _CARRIED_OUT_LATER:
            self.late.append(Late(self.name, request, send))
        if fault.startswith("killed"):
            self.killed = True
            raise Killed
        if fault == "refused":
            raise ConnectFailed("the schedule says so")
        if answer is None or fault == "lost":
            raise NoResponse("the schedule says so", timed_out=True)
        return _accepted(answer) if fault == "accepted" else answer


def _accepted(answer: Response) -> Response:
    """The same answer as CouchDB gives it when it has no quorum for the write."""
    if answer.status not in (200, 201, 202):
        return answer
    content = json.loads(answer.body)
    if isinstance(content, list):
        content = [row if "error" in row else {**row, "accepted": True} for row in content]
    answer.status, answer.body = 202, json.dumps(content).encode()
    return answer


Describe = Callable[[str, str, bytes | None], Request | None]


def gated(describe: Describe) -> type[Connections]:
    """Connections to the database whose requests wait for their turn.

    :param describe: given method, target and body, what the request is about; None if that is
        nothing that is tested, and it does not stop
    """

    class Gated(Connections):
        def request(
            self,
            method: str,
            target: str,
            headers: dict[str, str],
            body: bytes | None,
            check: Callable[[Response], None] | None = None,
        ) -> Response:
            def send() -> Response:
                return Connections.request(self, method, target, headers, body, check)

            request = describe(method, target, body)
            client: Client | None = getattr(_of_thread, "client", None)
            if client is None or request is None:
                known = client or request is None or _is_main()
                assert known, f"{request} is sent by a thread that no schedule knows"
                return send()
            return client.send(request, send)

    return Gated


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def sleeping(clock: Clock) -> Callable[[float], None]:
    """What stands for `time.sleep`: a client that sleeps lets others go on, and the time too."""

    def sleep(seconds: float) -> None:
        client: Client | None = getattr(_of_thread, "client", None)
        if client is None:
            clock.now += seconds
        else:
            client.sleep(clock.now + seconds)

    return sleep


@dataclass(frozen=True)
class Phase:
    """Clients that begin when those before them have come to their end.

    :param clients: makes them; called when they shall begin
    :param after_all: whether what nobody waits for has to be at its end as well
    """

    clients: Callable[[], Sequence[Client]]
    after_all: bool = False


@dataclass
class Run:
    """One run: what was chosen at each stop, what else could have been, and what was done."""

    taken: list[Choice] = field(default_factory=list)
    cost: list[dict[int, int]] = field(default_factory=list)
    """Who could go on at each stop, and how many preemptions there were with that."""
    faults: list[Sequence[str]] = field(default_factory=list)
    """What could go wrong at each stop."""
    done: list[Request | None] = field(default_factory=list)
    """What was carried out at each stop."""
    late: list[Request] = field(default_factory=list)
    """What arrived when nobody waited for it any more."""
    steps: list[str] = field(default_factory=list)

    @property
    def preemptions(self) -> int:
        """How many there were."""
        return self.cost[-1][self.taken[-1].client] if self.taken else 0

    def races(self) -> Iterator[tuple[int, int]]:
        """A stop and a client that might as well have gone on there.

        Before a request that conflicts with a later one of that client, and where the client that
        sends it was given its turn: there it may cost no preemption.
        """
        before: list[int] = []  # of each step, those that it comes after in any case, as bits
        for at, (client, _) in enumerate(self.taken):
            mine = [i for i in range(at) if self.taken[i].client == client]
            known = before[mine[-1]] if mine else 0
            passed = known
            for i in reversed(range(at)):
                one, other = self.done[i], self.done[at]
                if i not in mine and one and other and one.conflicts(other):
                    passed |= before[i]
                    if not known >> i & 1:
                        yield i, client
                        yield self._turn(i), client
            before.append(passed | 1 << at)

    def _turn(self, at: int) -> int:
        while at and self.taken[at - 1].client == self.taken[at].client:
            at -= 1
        return at

    @property
    def schedule(self) -> str:
        """The choices, to be read by `read_schedule`."""
        return " ".join(map(str, self.taken))


def read_schedule(text: str) -> list[Choice]:
    """The choices of `Run.schedule`."""
    return [Choice.read(word) for word in text.split()]


@dataclass
class _Execution:
    clock: Clock
    schedule: Sequence[Choice]
    tasks: list[Task] = field(default_factory=list)
    last: Task | None = None
    run: Run = field(default_factory=Run)

    def go(self, phases: Sequence[Phase]) -> Run:
        for phase in phases:
            while phase.after_all and self._left(aside=True):
                self._step()
            clients = phase.clients()
            for client in clients:
                self.tasks.append(client)
                client.start()
            while self._left(aside=False):
                self._step()
        while self._left(aside=True):
            self._step()
        return self.run

    def _left(self, aside: bool) -> list[Task]:
        return [t for t in self.tasks if not t.done and (aside or not t.aside)]

    def _step(self) -> None:
        there = self._left(aside=True)
        usual = self._usual(there)
        at = len(self.run.taken)
        choice = self.schedule[at] if at < len(self.schedule) else Choice(self.tasks.index(usual))
        if choice.client >= len(self.tasks) or self.tasks[choice.client].done:
            raise Stuck(f"{choice} cannot go on:\n" + "\n".join(self.run.steps))
        task, request = self.tasks[choice.client], self.tasks[choice.client].request
        self.run.cost.append(
            {self.tasks.index(t): self.run.preemptions + self._cost(t, usual) for t in there}
        )
        self.run.taken.append(choice)
        self.run.faults.append(_faults(task))
        self.run.done.append(request if choice.fault in _CARRIED_OUT else None)
        shown = request.label if request else "goes on after a while"
        self.run.steps.append(f"{task.name}: {shown}{choice.fault and f' ({choice.fault})'}")
        self._take(task, choice.fault, at)
        if at >= LONGEST:
            raise Stuck("the run does not end:\n" + "\n".join(self.run.steps))

    def _take(self, task: Task, fault: str, at: int) -> None:
        self.clock.now = max(self.clock.now + 0.001, task.sleeps_until)
        if isinstance(task, Client):
            task.at = at + 1
            task.began = task.began or task.at
        task.step(fault)
        if isinstance(task, Client):
            self.tasks += task.late
            task.late = []
        elif task.request:
            self.run.late.append(task.request)
        self.last = None if fault == "paused" else task

    def _usual(self, there: Sequence[Task]) -> Task:
        """Who goes on when nobody is preempted."""
        if self.last in there and self.last and not self.last.sleeps_until:
            return self.last
        return min(there, key=lambda t: (t.aside, t.sleeps_until))

    def _cost(self, task: Task, usual: Task) -> int:
        """Whether somebody is preempted when this one goes on."""
        if task is usual:
            return 0
        return int(usual is self.last or task.aside or bool(task.sleeps_until))


def _faults(task: Task) -> Sequence[str]:
    if task.request is None or task.aside:
        return ()
    return tuple(FAULTS) if task.request.writes else _OF_READS


def execute(clock: Clock, phases: Sequence[Phase], schedule: Sequence[Choice] = ()) -> Run:
    """One run along a schedule, and on from its end without preemption and fault.

    :raises Stuck: it does not end, or the schedule is not one of it
    """
    random.seed(0)
    return _Execution(clock, schedule).go(phases)


def explore(
    go: Callable[[Sequence[Choice]], Run],
    *,
    preemptions: int,
    faults: Collection[str] = (),
    at_most: int | None = None,
) -> Iterator[Run]:
    """All runs with so many preemptions and at most one fault.

    :param go: makes a run from scratch
    :param faults: those to choose from
    :param at_most: so many runs, chosen the same way each time, if there are more
    """
    pick = random.Random(11)
    open_: list[tuple[list[Choice], list[str]]] = [([], [])]
    planned: set[tuple[Choice, ...]] = set()
    begun: set[tuple[Choice, ...]] = set()  # how the runs that were made began, up to each stop
    done = 0
    while open_ and (at_most is None or done < at_most):
        prefix, steps = open_.pop(-1 if at_most is None else _pick(open_, pick))
        if tuple(prefix) in begun:
            continue
        run = go(prefix)
        if run.steps[: len(steps)] != steps:
            raise Stuck("\n".join(["this went otherwise before:", *run.steps, "so:", *steps]))
        done += 1
        begun.update(tuple(run.taken[:at]) for at in range(len(run.taken) + 1))
        yield run
        for at, choice in _alternatives(run, faults):
            next_ = (*run.taken[:at], choice)
            if run.cost[at].get(choice.client, math.inf) <= preemptions and next_ not in planned:
                planned.add(next_)
                open_.append((list(next_), run.steps[:at]))


def _pick(open_: Sequence[tuple[list[Choice], list[str]]], pick: random.Random) -> int:
    """The place of one of them: of each fault as often."""
    places: dict[str, list[int]] = {}
    for place, (prefix, _) in enumerate(open_):
        places.setdefault("".join(choice.fault for choice in prefix), []).append(place)
    return pick.choice(places[pick.choice(sorted(places))])


def _alternatives(run: Run, faults: Collection[str]) -> Iterator[tuple[int, Choice]]:
    """Other choices than those taken, and where."""
    for at, client in run.races():
        yield at, Choice(client)
    for at, choice in enumerate(run.taken):
        if choice.fault:
            return
        yield from ((at, Choice(choice.client, f)) for f in run.faults[at] if f in faults)
