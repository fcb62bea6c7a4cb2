"""The parts of the standard library that let time, chance and the world in, simulated.

They are put into the modules of `kazoo_ips` under the names that those use, once in a process and
for good: so the simulation has a process of its own. What is not simulated here is the real thing.
"""

import os
import pkgutil
import random
import secrets
import select
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import cachetools
from greenlet import getcurrent

import kazoo_ips
from tests.simulation.scheduler import TIME_OVER, Process, Scheduler, Task, Wait, current_task

BEGIN = 1_700_000_000.0
"""Unix seconds at which every run begins."""


class World:
    """What is running at the moment: set for each run.

    :param connect: opens a connection to a host
    :param died: whether the process of a number has died, as far as others can tell
    """

    scheduler: Scheduler
    connect: Callable[[str, float], Any]
    died: Callable[[int], bool]


WORLD = World()


class _Part:
    """A module of which some names are simulated."""

    def __init__(self, real: Any, **simulated: Any) -> None:
        self._real = real
        self.__dict__.update(simulated)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


# Time.


def now() -> float:
    """The time in Unix seconds."""
    return BEGIN + WORLD.scheduler.now


def elapsed() -> float:
    """Seconds since the run began."""
    return WORLD.scheduler.now


def sleep(seconds: float) -> None:
    """Wait in virtual time."""
    WORLD.scheduler.sleep(seconds)


class TTLCache(cachetools.TTLCache[Any, Any]):
    """A cache that forgets in virtual time."""

    def __init__(self, maxsize: float, ttl: float, **more: Any) -> None:
        super().__init__(maxsize, ttl, **{"timer": elapsed, **more})


# Threads.


class Lock:
    """A lock for tasks."""

    def __init__(self) -> None:
        self._locked = False
        self._waiting: list[Wait] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.Lock` has it."""
        if not self._locked:
            self._locked = True
            return True
        if not blocking:
            return False
        woken = WORLD.scheduler.wait(self._waiting.append, None if timeout < 0 else timeout)
        return woken is not TIME_OVER

    def release(self) -> None:
        """As `threading.Lock` has it: it goes to whoever has waited longest."""
        while self._waiting:
            waiting = self._waiting.pop(0)
            if not waiting.over:
                waiting.wake()
                return
        self._locked = False

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._locked

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its owner may take again."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.RLock` has it."""
        if self._owner is not current_task() and not super().acquire(blocking, timeout):
            return False
        self._owner = current_task()
        self._depth += 1
        return True

    def release(self) -> None:
        """As `threading.RLock` has it."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()

    __enter__ = acquire


class Condition:
    """A condition; nobody runs while its lock is held, as nobody waits meanwhile but for it."""

    def __init__(self, lock: Any = None) -> None:
        self._waiting: list[Wait] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Condition` has it."""
        return WORLD.scheduler.wait(self._waiting.append, timeout) is not TIME_OVER

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As `threading.Condition` has it."""
        end = None if timeout is None else elapsed() + timeout
        while not (result := predicate()):
            left = None if end is None else end - elapsed()
            if (left is not None and left <= 0) or not self.wait(left):
                return predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """As `threading.Condition` has it."""
        for waiting in [w for w in self._waiting if not w.over][:n]:
            waiting.wake()
        self._waiting = [w for w in self._waiting if not w.over]

    def notify_all(self) -> None:
        """As `threading.Condition` has it."""
        self.notify(len(self._waiting))


class Event:
    """An event for tasks."""

    def __init__(self) -> None:
        self._set = False
        self._changed = Condition()

    def is_set(self) -> bool:
        """As `threading.Event` has it."""
        return self._set

    def set(self) -> None:
        """As `threading.Event` has it."""
        self._set = True
        self._changed.notify_all()

    def clear(self) -> None:
        """As `threading.Event` has it."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event` has it."""
        return bool(self._changed.wait_for(self.is_set, timeout))


class Thread:
    """A task of the process that starts it."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self._work = lambda: target(*args, **(kwargs or {})) if target else None
        self._task: Any = None

    def start(self) -> None:
        """As `threading.Thread` has it."""
        self._task = WORLD.scheduler.spawn(current_task().process, self._work)

    def is_alive(self) -> bool:
        """As `threading.Thread` has it."""
        return self._task is not None and not self._task.finished

    def join(self, timeout: float | None = None) -> None:
        """As `threading.Thread` has it, without a timeout."""
        WORLD.scheduler.join(self._task)


def get_ident() -> int:
    """The number of the current thread."""
    return current_task().number


class _OfTask:
    """What a `threading.local` of the service holds, for each task."""

    def __init__(self, real: Any) -> None:
        self.__dict__["_kind"] = type(real)

    def _here(self) -> SimpleNamespace:
        held = current_task().__dict__.setdefault("held", {})
        if self not in held:
            held[self] = SimpleNamespace()
            self._kind.__init__(held[self])
        return held[self]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._here(), name, value)


class Executor:
    """Tasks instead of a pool of threads."""

    def __init__(self, *_: object, **__: object) -> None:
        self._futures: list[_Future] = []

    def submit(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> "_Future":
        """As `concurrent.futures` has it."""
        future = _Future(lambda: work(*args, **kwargs))
        self._futures.append(future)
        return future

    def map(self, work: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """As `concurrent.futures` has it."""
        futures = [self.submit(work, *each) for each in zip(*arguments, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, **_: object) -> None:
        """Wait for all."""
        for future in self._futures:
            future.wait()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class _Future:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._error: Exception | None = None
        self._task = WORLD.scheduler.spawn(current_task().process, lambda: self._do(work))

    def _do(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._error = error
            return None

    def wait(self) -> None:
        WORLD.scheduler.join(self._task)

    def result(self, timeout: float | None = None) -> Any:
        self.wait()
        if self._error:
            raise self._error
        return self._task.result


# Chance.


class _Chance:
    """The module `random`, decided by the seed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(WORLD.scheduler.inner, name)


def token_hex(nbytes: int = 32) -> str:
    """Random hex digits."""
    return f"{WORLD.scheduler.inner.getrandbits(8 * nbytes):0{2 * nbytes}x}"


def token_bytes(nbytes: int = 32) -> bytes:
    """Random bytes."""
    return WORLD.scheduler.inner.randbytes(nbytes)


def uuid4() -> uuid.UUID:
    """A random UUID."""
    return uuid.UUID(int=WORLD.scheduler.inner.getrandbits(128), version=4)


# Processes.


def getpid() -> int:
    """The number of the current task's process; 0 before there is one."""
    task = getcurrent()
    return task.process.pid if isinstance(task, Task) else 0


def kill(pid: int, signal: int) -> None:
    """See whether a process is there; nothing else is done to it."""
    assert signal == 0
    if WORLD.died(pid):
        raise ProcessLookupError


# Connections.


def create_connection(address: tuple[str, int], timeout: float = 0) -> Any:
    """A connection to a node of the simulated cluster."""
    return WORLD.connect(address[0], timeout)


class _Poll:
    """`select.poll` for one connection."""

    def register(self, connection: Any, flags: int = 0) -> None:
        self._connection = connection

    def poll(self, timeout: float = 0) -> list[tuple[int, int]]:
        return [(0, select.POLLIN)] if self._connection.readable else []


def receive_timeout(option: int, value: Any) -> float | None:
    """The seconds that a socket option says a receive may take, or None where it is another."""
    if option != socket.SO_RCVTIMEO:
        return None
    seconds, microseconds = struct.unpack("@ll", value)
    return float(seconds) + microseconds / 1e6


SIMULATED: list[tuple[Any, Any]] = [
    (time, _Part(time, time=now, monotonic=elapsed, perf_counter=elapsed, sleep=sleep)),
    (time.time, now),
    (time.monotonic, elapsed),
    (time.perf_counter, elapsed),
    (time.sleep, sleep),
    (cachetools.TTLCache, TTLCache),
    (
        threading,
        _Part(
            threading,
            Lock=Lock,
            RLock=RLock,
            Condition=Condition,
            Event=Event,
            Thread=Thread,
            get_ident=get_ident,
        ),
    ),
    (threading.Lock, Lock),
    (threading.RLock, RLock),
    (threading.Condition, Condition),
    (threading.Event, Event),
    (threading.Thread, Thread),
    (threading.get_ident, get_ident),
    (ThreadPoolExecutor, Executor),
    (random, _Chance()),
    (secrets, _Part(secrets, token_hex=token_hex, token_bytes=token_bytes)),
    (secrets.token_hex, token_hex),
    (secrets.token_bytes, token_bytes),
    (uuid, _Part(uuid, uuid4=uuid4)),
    (uuid.uuid4, uuid4),
    (os, _Part(os, getpid=getpid, kill=kill)),
    (socket, _Part(socket, create_connection=create_connection)),
    (socket.create_connection, create_connection),
    (select, _Part(select, poll=_Poll)),
    (select.poll, _Poll),
]
"""The real thing, a module or one of its names, and what stands in for it."""


def install() -> None:
    """Put them into all modules of the service."""
    for found in pkgutil.walk_packages(kazoo_ips.__path__, "kazoo_ips."):
        if "gunicorn" not in found.name and found.name not in _PROCESS:
            import_module(found.name)
    modules = [m for name, m in sorted(sys.modules.items()) if name.split(".")[0] == "kazoo_ips"]
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, threading.local):
                setattr(module, name, _OfTask(value))
            for real, simulated in SIMULATED:
                if value is real:
                    setattr(module, name, simulated)


_PROCESS = {
    "kazoo_ips.server.worker",
    "kazoo_ips.server.client_socket",
    "kazoo_ips.server.release_switch",
}
"""What only real processes need."""


@contextmanager
def world(
    scheduler: Scheduler,
    connect: Callable[[str, float], Any],
    died: Callable[[int], bool],
) -> Iterator[None]:
    """Let all that is simulated happen here."""
    WORLD.scheduler, WORLD.connect, WORLD.died = scheduler, connect, died
    yield


def in_task(scheduler: Scheduler, process: Process, work: Callable[[], Any]) -> Any:
    """Run something as a task to its end, and everything else meanwhile."""
    task = scheduler.spawn(process, work)
    scheduler.run(lambda: task.finished)
    return task.result
