"""A scheduler of tasks and timed events in virtual time.

A task is a greenlet. It runs until it waits; then the scheduler runs the next event. Time does not
pass while a task or an event runs, so a run depends on its seed alone. This module knows neither
CouchDB nor the service.
"""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """Ends a task whose process was killed."""


class Stuck(AssertionError):
    """Tasks wait, and no event is left that can wake them, or the time limit has passed."""


class Process:
    """Tasks that are killed together.

    :param pid: the process id
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.alive = True
        self.tasks: dict[Task, None] = {}


class Task(greenlet):
    """A thread of a process."""

    def __init__(self, scheduler: "Scheduler", process: Process, work: Callable[[], Any]) -> None:
        super().__init__(self._run, scheduler.hub)
        self.scheduler = scheduler
        self.number = next(scheduler.numbers)
        self.process = process
        self.work = work
        self.result: Any = None
        self.finished = False
        self._at_end: list[Callable[[], None]] = []
        process.tasks[self] = None

    def _run(self, *_: object) -> None:
        try:
            self.result = self.work()
        except Killed:
            pass
        except BaseException as error:
            self.scheduler.errors.append(error)
        self.end()

    def end(self) -> None:
        """Mark the task as finished, whether it returned or was killed."""
        self.process.tasks.pop(self, None)
        self.finished = True
        for call in self._at_end:
            self.scheduler.after(0, call)
        self._at_end = []

    def when_finished(self, call: Callable[[], None]) -> None:
        """Call back when the task has finished."""
        if self.finished:
            self.scheduler.after(0, call)
        else:
            self._at_end.append(call)


class Wait:
    """One wait of a task, until another task wakes it or it times out."""

    __slots__ = ("_task", "over")

    def __init__(self, task: Task) -> None:
        self._task = task
        self.over = False

    def wake(self, value: Any = None) -> None:
        """Continue the task at this moment of virtual time; only the first call has an effect."""
        if not self.over:
            self.over = True
            self._task.scheduler.after(0, self._go_on, value)

    def _go_on(self, value: Any) -> None:
        if not self._task.finished:
            self._task.switch(value)


TIMED_OUT = object()


class Scheduler:
    """The virtual time, the random generators, and the queue of events.

    :param seed: of both random generators
    :param is_traced: whether `trace` gets the requests, which takes a twentieth of a run
    """

    def __init__(self, seed: int, *, is_traced: bool = True) -> None:
        self.is_traced = is_traced
        self.pause_factor = 1.0
        """How many times longer the pauses of the service are, as on a busy machine."""
        self.hub = getcurrent()
        self.now = 0.0
        self.chance = Random(seed)
        """Random numbers of the simulated cluster."""
        self.inner = Random(seed + 1)
        """Random numbers of the service: separate, so that a change of the service changes little
        in the cluster."""
        self.trace: list[str] = []
        self.errors: list[BaseException] = []
        """Exceptions that ended a task."""
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self.numbers = count(1)

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Schedule a call."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), call, arguments))

    def spawn(self, process: Process, work: Callable[[], Any]) -> Task:
        """Start a task."""
        task = Task(self, process, work)
        self.after(0, self._start, task)
        return task

    @staticmethod
    def _start(task: Task) -> None:
        if not task.finished:
            task.switch()

    def kill(self, process: Process) -> None:
        """Kill a process: its tasks stop where they are. They must not call this themselves."""
        process.alive = False
        for task in list(process.tasks):
            if not task:  # it has not started
                task.end()
            else:
                task.throw(Killed)

    def wait(self, ready: Callable[[Wait], None], seconds: float | None = None) -> Any:
        """Suspend the current task.

        :param ready: called with the `Wait` that wakes the task
        :param seconds: the timeout
        :returns: the value passed to `Wait.wake`, or TIMED_OUT
        """
        task = current_task()
        if not task.process.alive:
            raise Killed
        wait = Wait(task)
        ready(wait)
        if seconds is not None:
            self.after(seconds, wait.wake, TIMED_OUT)
        return self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Suspend the current task for a time."""
        task = current_task()
        if not task.process.alive:
            raise Killed
        self.after(seconds, Wait(task).wake)
        self.hub.switch()

    def join(self, task: Task) -> Any:
        """Suspend the current task until another one has finished, and return its result."""
        if not task.finished:
            self.wait(lambda wait: task.when_finished(wait.wake))
        return task.result

    def run(self, until: Callable[[], bool], limit: float = 10_000) -> None:
        """Run events.

        :param until: stop when this returns true
        :param limit: maximum virtual seconds
        :raises Stuck: no event is left, or the limit has passed
        """
        end = self.now + limit
        while not until():
            if not self._due or self.now > end:
                raise Stuck(f"at {self.now:.3f}")
            self.now, _, call, arguments = heapq.heappop(self._due)
            call(*arguments)
            if self.errors:
                raise self.errors[0]

    def run_for(self, seconds: float) -> None:
        """Run the events of the next seconds."""
        over: list[bool] = []
        self.after(seconds, over.append, True)
        self.run(lambda: bool(over), limit=seconds + 1)

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:10.6f} {line}")


def current_task() -> Task:
    """Return the task that is running."""
    task = getcurrent()
    assert isinstance(task, Task), "only tasks can wait"
    return task
