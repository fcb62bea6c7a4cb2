"""Virtual time: tasks that run one at a time, and what happens when.

A task is a greenlet. It runs until it waits for something; then whatever is due next happens. No
time passes while anything runs, so a run depends on nothing but its seed. Knows nothing of CouchDB
or of the service.
"""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """The process of this task has died: it does nothing any more."""


class Stuck(AssertionError):
    """A task waits for what will never happen."""


class Process:
    """What dies together: tasks, and whatever they hold.

    :param pid: its number
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
        """It is over, whether it came to its end or not."""
        self.process.tasks.pop(self, None)
        self.finished = True
        for call in self._at_end:
            self.scheduler.after(0, call)
        self._at_end = []

    def when_finished(self, call: Callable[[], None]) -> None:
        """Call back when it is over."""
        if self.finished:
            self.scheduler.after(0, call)
        else:
            self._at_end.append(call)


class Wait:
    """A task that waits, until it is woken once or its time is over."""

    __slots__ = ("_task", "over")

    def __init__(self, task: Task) -> None:
        self._task = task
        self.over = False

    def wake(self, value: Any = None) -> None:
        """Let the task go on, at this moment of virtual time."""
        if not self.over:
            self.over = True
            self._task.scheduler.after(0, self._go_on, value)

    def _go_on(self, value: Any) -> None:
        if not self._task.finished:
            self._task.switch(value)


TIME_OVER = object()


class Scheduler:
    """Time, chance, and everything that is due.

    :param seed: decides whatever is left to chance
    """

    def __init__(self, seed: int) -> None:
        self.hub = getcurrent()
        self.now = 0.0
        self.chance = Random(seed)
        """For the simulated world."""
        self.inner = Random(seed + 1)
        """For the services, so that a change there changes as little as can be here."""
        self.trace: list[str] = []
        self.errors: list[BaseException] = []
        """What no task should have raised."""
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self.numbers = count(1)

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have something happen a little later."""
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
        """End a process: its tasks stop where they are. Not to be called by one of them."""
        process.alive = False
        for task in list(process.tasks):
            if not task:  # it has not begun
                task.end()
            else:
                task.throw(Killed)

    def wait(self, ready: Callable[[Wait], None], seconds: float | None = None) -> Any:
        """Let the current task wait.

        :param ready: is given what wakes it up
        :returns: what it is woken with, or TIME_OVER
        """
        task = current_task()
        if not task.process.alive:
            raise Killed
        wait = Wait(task)
        ready(wait)
        if seconds is not None:
            self.after(seconds, wait.wake, TIME_OVER)
        return self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Let the current task wait for a time."""
        self.wait(lambda wait: self.after(seconds, wait.wake))

    def join(self, task: Task) -> Any:
        """Let the current task wait for the end of another one; its result."""
        if not task.finished:
            self.wait(lambda wait: task.when_finished(wait.wake))
        return task.result

    def run(self, until: Callable[[], bool], limit: float = 10_000) -> None:
        """Let happen what is due.

        :param until: whether that is enough
        :param limit: virtual seconds after which something is wrong
        :raises Stuck: it never is
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
        """Let happen what is due within a time."""
        over: list[bool] = []
        self.after(seconds, over.append, True)
        self.run(lambda: bool(over), limit=seconds + 1)

    def note(self, line: str) -> None:
        """Write a line of the run's trace."""
        self.trace.append(f"{self.now:10.6f} {line}")


def current_task() -> Task:
    """The task that runs at this moment."""
    task = getcurrent()
    assert isinstance(task, Task), "only tasks can wait"
    return task
