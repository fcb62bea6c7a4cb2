"""Explores the possible orders (schedules) of the database requests of a few clients.

Each client is a thread that stops before each of its requests. At each stop, a schedule names the
client that continues and the fault of its request. So a schedule repeats a run exactly. Every run
starts from the same state. `explore` runs all schedules with at most one fault and a bounded
number of preemptions (Musuvathi and Qadeer 2007), depth first. Of several equivalent schedules it
runs one. Two requests conflict if one writes what the other reads or writes. Two schedules are
equivalent if all conflicting requests have the same order in both (dynamic partial-order
reduction, Flanagan and Godefroid 2005; with bounded preemptions, Coons et al. 2013).

This module knows HTTP and nothing of dedicated IPs.
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

from kazoo_ips.couch.http_connections import ConnectFailed, Connections, NoResponse
from kazoo_ips.couch.responses import Response

LONGEST = 400
"""Steps after which a run fails because it does not end."""
_STEP_TIMEOUT = 60.0
"""Seconds that a client may take from one request to the next."""

FAULTS = {
    "refused": "the connection is refused",
    "killed": "the worker is killed before it sends the request",
    "paused": "the worker is paused until its lease has expired, or longer",
    "lost": "CouchDB writes, and its response is lost",
    "cut": "the request is lost, and so there is no response",
    "late": "there is no response, and CouchDB writes at some later time",
    "accepted": "CouchDB writes and responds with 202",
    "killed-after": "CouchDB writes, and the worker is killed",
    "killed-late": "the worker is killed, and CouchDB writes at some later time",
}
"""The faults of a request that writes."""
_READ_FAULTS = ("refused", "killed", "paused")
"""The faults of a request that reads. Each other fault has the same effect as one of these."""
_SENT = ("", "lost", "accepted", "killed-after")
_SENT_LATE = ("late", "killed-late")


class Killed(BaseException):
    """Ends the thread of a client whose worker was killed."""


class Stuck(AssertionError):
    """A run does not end, or a repeated run takes other steps."""


@dataclass(frozen=True)
class Request:
    """A request to the database.

    :param label: its text in the list of steps
    :param documents: the ids of the documents that it reads or writes; None for all
    """

    label: str
    database: str
    documents: frozenset[str] | None
    writes: bool

    def conflicts(self, other: "Request") -> bool:
        """Whether the order of the two requests can change a result."""
        if self.database != other.database or not (self.writes or other.writes):
            return False
        if self.documents is None or other.documents is None:
            return True
        return bool(self.documents & other.documents)


class Choice(NamedTuple):
    """The client that continues, and the fault of its request (empty for none)."""

    client: int
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.client}={self.fault}" if self.fault else str(self.client)

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse the text that `str` returns."""
        client, _, fault = text.partition("=")
        return cls(int(client), fault)


class Clock:
    """The time of a run. Steps, sleeping clients and tests advance it."""

    def __init__(self) -> None:
        self._start = float(int(time.time()))
        self.now = self._start

    def __call__(self) -> float:
        return self.now

    def reset(self) -> None:
        """Return to the time at which every run starts."""
        self.now = self._start


class Task(Protocol):
    """A client or a late request. A schedule can choose it to continue."""

    name: str
    request: Request | None
    """The next request; None while the client sleeps."""
    done: bool
    unawaited: bool
    """Whether a phase may end before this task: it is a paused client or a late request."""
    sleeps_until: float

    def step(self, fault: str) -> None:
        """Continue to the next stop."""


_of_thread = threading.local()


def this_step() -> float:
    """Return the number of the calling client's current step; infinite outside of a schedule."""
    client: Client | None = getattr(_of_thread, "client", None)
    return client.at if client else math.inf


class Late:
    """A request that arrives after its client got an error or was killed."""

    unawaited = True
    sleeps_until = 0.0

    def __init__(self, name: str, request: Request, send: Callable[[], Response]) -> None:
        self.name, self.request = f"{name}, late", request
        self.done = False
        self._send = send

    def step(self, fault: str) -> None:
        """Send the request and ignore the response."""
        self._send()
        self.done = True


class Client:
    """A client: a thread that stops before each request and each sleep."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name = name
        self.request: Request | None = None
        self.done = self.unawaited = self.killed = False
        self.sleeps_until = 0.0
        self.began = self.at = 0
        self.result: Any = None
        self.late: list[Late] = []
        self._work = work
        self._fault = ""
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    # Called by the scheduler.

    def start(self) -> None:
        """Start the thread and wait until it has reached its first stop."""
        threading.Thread(target=self._run, name=self.name, daemon=True).start()
        self._wait()

    def step(self, fault: str) -> None:
        """Continue to the next stop."""
        if fault == "paused":
            self.unawaited = True
            return
        self._fault = fault
        self._go.release()
        self._wait()

    def _wait(self) -> None:
        if not self._stopped.acquire(timeout=_STEP_TIMEOUT):
            faulthandler.dump_traceback(all_threads=True)
            raise Stuck(f"{self.name} does not stop after {self.request}")

    # Called in the client's thread.

    def _run(self) -> None:
        _of_thread.client = self
        try:
            self.result = self._work()
        except Killed:
            self.killed = True
        except BaseException as error:  # an error of the test itself, or of the service
            self.result = error
        self.done = True
        self._stopped.release()

    def _stop(self, request: Request | None) -> str:
        if self.killed:  # a killed worker does not run its `finally` blocks
            raise Killed
        self.request = request
        self._stopped.release()
        self._go.acquire()
        return self._fault

    def sleep(self, until: float) -> None:
        """Stop, so that other clients continue until this time."""
        self.sleeps_until = until
        self._stop(None)
        self.sleeps_until = 0.0

    def send(self, request: Request, send: Callable[[], Response]) -> Response:
        """Stop before a request, then send it unless the fault prevents that."""
        fault = self._stop(request)
        response = send() if fault in _SENT else None
        if fault in _SENT_LATE:
            self.late.append(Late(self.name, request, send))
        if fault.startswith("killed"):
            self.killed = True
            raise Killed
        if fault == "refused":
            raise ConnectFailed("a fault of the schedule")
        if response is None or fault == "lost":
            raise NoResponse("a fault of the schedule", timed_out=True)
        return _accepted(response) if fault == "accepted" else response


def _accepted(response: Response) -> Response:
    """Change the response into CouchDB's response to a write that has no quorum."""
    if response.status not in (200, 201, 202):
        return response
    content = json.loads(response.body)
    if isinstance(content, list):
        content = [row if "error" in row else {**row, "accepted": True} for row in content]
    response.status, response.body = 202, json.dumps(content).encode()
    return response


Describe = Callable[[str, str, bytes | None], Request | None]


def gated(describe: Describe) -> type[Connections]:
    """Return a class of connections whose requests stop until the schedule continues them.

    :param describe: called with method, target and body; returns what the request reads or writes,
        or None if the request is not part of the schedule and does not stop
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
                allowed = client or request is None or _is_main()
                assert allowed, f"{request} is sent by a thread that is not part of the schedule"
                return send()
            return client.send(request, send)

    return Gated


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def sleeping(clock: Clock) -> Callable[[float], None]:
    """Return a replacement of `time.sleep`: other clients continue, and the clock advances."""

    def sleep(seconds: float) -> None:
        client: Client | None = getattr(_of_thread, "client", None)
        if client is None:
            clock.now += seconds
        else:
            client.sleep(clock.now + seconds)

    return sleep


@dataclass(frozen=True)
class Phase:
    """Clients that start when those of the phase before have ended.

    :param clients: creates the clients when the phase starts
    :param after_all: whether paused clients and late requests must have ended as well
    """

    clients: Callable[[], Sequence[Client]]
    after_all: bool = False


@dataclass
class Run:
    """One run: the choice at each stop, its alternatives, and the requests that were sent."""

    taken: list[Choice] = field(default_factory=list)
    cost: list[dict[int, int]] = field(default_factory=list)
    """At each stop: the clients that could continue, and the preemptions of the run with each."""
    faults: list[Sequence[str]] = field(default_factory=list)
    """At each stop: the possible faults."""
    done: list[Request | None] = field(default_factory=list)
    """At each stop: the request that was sent, if any."""
    late: list[Request] = field(default_factory=list)
    """The requests that arrived late."""
    steps: list[str] = field(default_factory=list)

    @property
    def preemptions(self) -> int:
        """The number of preemptions in the run."""
        return self.cost[-1][self.taken[-1].client] if self.taken else 0

    def races(self) -> Iterator[tuple[int, int]]:
        """Yield stops, each with another client that could have continued there.

        For each pair of conflicting requests that could have had the other order, it yields two
        stops: the one before the first request, and the one at which that request's client began
        its consecutive steps. A switch at the latter may need no preemption.
        """
        # For each step a bit set of the steps that happen before it in every equivalent schedule.
        before: list[int] = []
        for at, (client, _) in enumerate(self.taken):
            own = [i for i in range(at) if self.taken[i].client == client]
            own_before = before[own[-1]] if own else 0
            all_before = own_before
            for i in reversed(range(at)):
                one, other = self.done[i], self.done[at]
                if i not in own and one and other and one.conflicts(other):
                    all_before |= before[i]
                    if not own_before >> i & 1:
                        yield i, client
                        yield self._took_over(i), client
            before.append(all_before | 1 << at)

    def _took_over(self, at: int) -> int:
        """Return the step at which the client of step `at` began its consecutive steps."""
        while at and self.taken[at - 1].client == self.taken[at].client:
            at -= 1
        return at

    @property
    def schedule(self) -> str:
        """The choices as a text that `read_schedule` parses."""
        return " ".join(map(str, self.taken))


def read_schedule(text: str) -> list[Choice]:
    """Parse the text of `Run.schedule`."""
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
            while phase.after_all and self._left(unawaited=True):
                self._step()
            clients = phase.clients()
            for client in clients:
                self.tasks.append(client)
                client.start()
            while self._left(unawaited=False):
                self._step()
        while self._left(unawaited=True):
            self._step()
        return self.run

    def _left(self, unawaited: bool) -> list[Task]:
        return [t for t in self.tasks if not t.done and (unawaited or not t.unawaited)]

    def _step(self) -> None:
        ready = self._left(unawaited=True)
        usual = self._usual(ready)
        at = len(self.run.taken)
        choice = self.schedule[at] if at < len(self.schedule) else Choice(self.tasks.index(usual))
        if choice.client >= len(self.tasks) or self.tasks[choice.client].done:
            raise Stuck(f"{choice} cannot continue:\n" + "\n".join(self.run.steps))
        task, request = self.tasks[choice.client], self.tasks[choice.client].request
        self.run.cost.append(
            {self.tasks.index(t): self.run.preemptions + self._cost(t, usual) for t in ready}
        )
        self.run.taken.append(choice)
        self.run.faults.append(_faults(task))
        self.run.done.append(request if choice.fault in _SENT else None)
        shown = request.label if request else "continues after a sleep"
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

    def _usual(self, ready: Sequence[Task]) -> Task:
        """Return the task that continues if no task is preempted."""
        if self.last in ready and self.last and not self.last.sleeps_until:
            return self.last
        return min(ready, key=lambda t: (t.unawaited, t.sleeps_until))

    def _cost(self, task: Task, usual: Task) -> int:
        """Return 1 if running this task preempts another one, otherwise 0."""
        if task is usual:
            return 0
        return int(usual is self.last or task.unawaited or bool(task.sleeps_until))


def _faults(task: Task) -> Sequence[str]:
    if task.request is None or task.unawaited:
        return ()
    return tuple(FAULTS) if task.request.writes else _READ_FAULTS


def execute(clock: Clock, phases: Sequence[Phase], schedule: Sequence[Choice] = ()) -> Run:
    """Run a schedule, then continue without preemptions and faults until all tasks have ended.

    :raises Stuck: the run does not end, or the schedule chooses a task that cannot continue
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
    """Yield all runs with at most this number of preemptions and at most one fault.

    :param go: resets everything and runs a schedule
    :param faults: the faults to try
    :param at_most: the maximum number of runs; if more exist, the same sample is taken each time
    """
    pick = random.Random(11)
    open_: list[tuple[list[Choice], list[str]]] = [([], [])]
    planned: set[tuple[Choice, ...]] = set()
    begun: set[tuple[Choice, ...]] = set()  # all prefixes of the runs so far
    done = 0
    while open_ and (at_most is None or done < at_most):
        prefix, steps = open_.pop(-1 if at_most is None else _pick(open_, pick))
        if tuple(prefix) in begun:
            continue
        run = go(prefix)
        if run.steps[: len(steps)] != steps:
            raise Stuck("\n".join(["repeated with other steps:", *run.steps, "before:", *steps]))
        done += 1
        begun.update(tuple(run.taken[:at]) for at in range(len(run.taken) + 1))
        yield run
        for at, choice in _alternatives(run, faults):
            next_ = (*run.taken[:at], choice)
            if run.cost[at].get(choice.client, math.inf) <= preemptions and next_ not in planned:
                planned.add(next_)
                open_.append((list(next_), run.steps[:at]))


def _pick(open_: Sequence[tuple[list[Choice], list[str]]], pick: random.Random) -> int:
    """Return the index of a random entry; each fault has the same probability."""
    places: dict[str, list[int]] = {}
    for place, (prefix, _) in enumerate(open_):
        places.setdefault("".join(choice.fault for choice in prefix), []).append(place)
    return pick.choice(places[pick.choice(sorted(places))])


def _alternatives(run: Run, faults: Collection[str]) -> Iterator[tuple[int, Choice]]:
    """Yield each stop with a choice that the run did not take there."""
    for at, client in run.races():
        yield at, Choice(client)
    for at, choice in enumerate(run.taken):
        if choice.fault:
            return
        yield from ((at, Choice(choice.client, f)) for f in run.faults[at] if f in faults)
