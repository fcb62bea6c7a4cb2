"""Replacements for the parts of the standard library that are not deterministic.

These are time, threads, random numbers, processes and connections. `install` puts them into the
modules of `kazoo_ips` in place of the originals. This cannot be undone, so the simulation runs in
its own process. All other parts of the library are the originals.
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
from tests.simulation.scheduler import TIMED_OUT, Process, Scheduler, Task, Wait, current_task

START_TIME = 1_700_000_000.0
"""The Unix time at which every run starts."""


class World:
    """The simulation that the replacements use. It is set for each run.

    :param connect: opens a connection to a host
    :param died: whether other workers can detect that the process with this id was killed
    """

    scheduler: Scheduler
    connect: Callable[[str, float], Any]
    died: Callable[[int], bool]


WORLD = World()


class _PatchedModule:
    """A module of which some names are replaced."""

    def __init__(self, real: Any, **simulated: Any) -> None:
        self._real = real
        self.__dict__.update(simulated)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


# Time.


def now() -> float:
    """Return the virtual time in Unix seconds."""
    return START_TIME + WORLD.scheduler.now


def elapsed() -> float:
    """Return the seconds since the run started."""
    return WORLD.scheduler.now


def sleep(seconds: float) -> None:
    """Wait in virtual time."""
    WORLD.scheduler.sleep(seconds * WORLD.scheduler.pause_factor)


class TTLCache(cachetools.TTLCache[Any, Any]):
    """A cache whose entries expire in virtual time."""

    def __init__(self, maxsize: float, ttl: float, **more: Any) -> None:
        super().__init__(maxsize, ttl, **{"timer": elapsed, **more})


# Threads.


class Lock:
    """A lock for tasks."""

    __slots__ = ("_locked", "_waiting")

    def __init__(self) -> None:
        self._locked = False
        self._waiting: list[Wait] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As in `threading.Lock`."""
        if not self._locked:
            self._locked = True
            return True
        if not blocking:
            return False
        woken = WORLD.scheduler.wait(self._waiting.append, None if timeout < 0 else timeout)
        return woken is not TIMED_OUT

    def release(self) -> None:
        """As in `threading.Lock`. The task that has waited longest gets the lock."""
        while self._waiting:
            waiting = self._waiting.pop(0)
            if not waiting.over:
                waiting.wake()
                return
        self._locked = False

    def locked(self) -> bool:
        """As in `threading.Lock`."""
        return self._locked

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its owner may acquire again."""

    __slots__ = ("_depth", "_owner")

    def __init__(self) -> None:
        super().__init__()
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As in `threading.RLock`."""
        if self._owner is not current_task() and not super().acquire(blocking, timeout):
            return False
        self._owner = current_task()
        self._depth += 1
        return True

    def release(self) -> None:
        """As in `threading.RLock`."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()

    __enter__ = acquire


class Condition:
    """A condition. It needs no lock: a task that holds the lock waits for the condition only, so
    no other task runs in the meantime."""

    def __init__(self, lock: Any = None) -> None:
        self._waiting: list[Wait] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        """As in `threading.Condition`."""
        return WORLD.scheduler.wait(self._waiting.append, timeout) is not TIMED_OUT

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As in `threading.Condition`."""
        end = None if timeout is None else elapsed() + timeout
        while not (result := predicate()):
            left = None if end is None else end - elapsed()
            if (left is not None and left <= 0) or not self.wait(left):
                return predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """As in `threading.Condition`."""
        for waiting in [w for w in self._waiting if not w.over][:n]:
            waiting.wake()
        self._waiting = [w for w in self._waiting if not w.over]

    def notify_all(self) -> None:
        """As in `threading.Condition`."""
        self.notify(len(self._waiting))


class Event:
    """An event for tasks."""

    def __init__(self) -> None:
        self._set = False
        self._changed = Condition()

    def is_set(self) -> bool:
        """As in `threading.Event`."""
        return self._set

    def set(self) -> None:
        """As in `threading.Event`."""
        self._set = True
        self._changed.notify_all()

    def clear(self) -> None:
        """As in `threading.Event`."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """As in `threading.Event`."""
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
        """As in `threading.Thread`."""
        self._task = WORLD.scheduler.spawn(current_task().process, self._work)

    def is_alive(self) -> bool:
        """As in `threading.Thread`."""
        return self._task is not None and not self._task.finished

    def join(self, timeout: float | None = None) -> None:
        """As in `threading.Thread`, without a timeout."""
        WORLD.scheduler.join(self._task)


def get_ident() -> int:
    """Return the number of the current task."""
    return current_task().number


class _TaskLocal:
    """The replacement of a `threading.local`: each task has its own values."""

    def __init__(self, real: Any) -> None:
        self.__dict__["_kind"] = type(real)

    def _of_current_task(self) -> SimpleNamespace:
        values = current_task().__dict__.setdefault("values", {})
        if self not in values:
            values[self] = SimpleNamespace()
            self._kind.__init__(values[self])
        return values[self]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_current_task(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of_current_task(), name, value)


class Executor:
    """An executor that starts a task for each call."""

    def __init__(self, *_: object, **__: object) -> None:
        self._futures: list[_Future] = []

    def submit(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> "_Future":
        """As in `concurrent.futures`."""
        future = _Future(lambda: work(*args, **kwargs))
        self._futures.append(future)
        return future

    def map(self, work: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """As in `concurrent.futures`."""
        futures = [self.submit(work, *each) for each in zip(*arguments, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, **_: object) -> None:
        """Wait for all tasks."""
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


# Random numbers.


class _Chance:
    """The module `random`, with the generator of the run."""

    def __getattr__(self, name: str) -> Any:
        return getattr(WORLD.scheduler.inner, name)


def token_hex(nbytes: int = 32) -> str:
    """As in `secrets`, with the generator of the run."""
    return f"{WORLD.scheduler.inner.getrandbits(8 * nbytes):0{2 * nbytes}x}"


def token_bytes(nbytes: int = 32) -> bytes:
    """As in `secrets`, with the generator of the run."""
    return WORLD.scheduler.inner.randbytes(nbytes)


def uuid4() -> uuid.UUID:
    """As in `uuid`, with the generator of the run."""
    return uuid.UUID(int=WORLD.scheduler.inner.getrandbits(128), version=4)


# Processes.


def getpid() -> int:
    """Return the id of the current task's process; 0 outside of a task."""
    task = getcurrent()
    return task.process.pid if isinstance(task, Task) else 0


def kill(pid: int, signal: int) -> None:
    """Check whether a process exists. Signal 0 is the only one that the service sends."""
    assert signal == 0
    if WORLD.died(pid):
        raise ProcessLookupError


# Connections.


def create_connection(address: tuple[str, int], timeout: float = 0) -> Any:
    """Open a connection to a node of the simulated cluster."""
    return WORLD.connect(address[0], timeout)


class _Poll:
    """`select.poll` for one connection."""

    def register(self, connection: Any, flags: int = 0) -> None:
        self._connection = connection

    def poll(self, timeout: float = 0) -> list[tuple[int, int]]:
        return [(0, select.POLLIN)] if self._connection.readable else []


def receive_timeout(option: int, value: Any) -> float | None:
    """Return the seconds of the option SO_RCVTIMEO; None for any other option."""
    if option != socket.SO_RCVTIMEO:
        return None
    seconds, microseconds = struct.unpack("@ll", value)
    return float(seconds) + microseconds / 1e6


SIMULATED: list[tuple[Any, Any]] = [
    (time, _PatchedModule(time, time=now, monotonic=elapsed, perf_counter=elapsed, sleep=sleep)),
    (time.time, now),
    (time.monotonic, elapsed),
    (time.perf_counter, elapsed),
    (time.sleep, sleep),
    (cachetools.TTLCache, TTLCache),
    (
        threading,
        _PatchedModule(
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
    (secrets, _PatchedModule(secrets, token_hex=token_hex, token_bytes=token_bytes)),
    (secrets.token_hex, token_hex),
    (secrets.token_bytes, token_bytes),
    (uuid, _PatchedModule(uuid, uuid4=uuid4)),
    (uuid.uuid4, uuid4),
    (os, _PatchedModule(os, getpid=getpid, kill=kill)),
    (socket, _PatchedModule(socket, create_connection=create_connection)),
    (socket.create_connection, create_connection),
    (select, _PatchedModule(select, poll=_Poll)),
    (select.poll, _Poll),
]
"""Pairs of an original (a module or one of its names) and its replacement."""


def install() -> None:
    """Put the replacements into all modules of the service."""
    for found in pkgutil.walk_packages(kazoo_ips.__path__, "kazoo_ips."):
        if "gunicorn" not in found.name and found.name not in _PROCESS_ONLY:
            import_module(found.name)
    modules = [m for name, m in sorted(sys.modules.items()) if name.split(".")[0] == "kazoo_ips"]
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, threading.local):
                setattr(module, name, _TaskLocal(value))
            for real, simulated in SIMULATED:
                if value is real:
                    setattr(module, name, simulated)


_PROCESS_ONLY = {
    "kazoo_ips.server.worker",
    "kazoo_ips.server.client_socket",
    "kazoo_ips.server.release_switch",
}
"""Modules that only real processes import."""


@contextmanager
def world(
    scheduler: Scheduler,
    connect: Callable[[str, float], Any],
    died: Callable[[int], bool],
) -> Iterator[None]:
    """Let the replacements use this simulation."""
    WORLD.scheduler, WORLD.connect, WORLD.died = scheduler, connect, died
    yield


def in_task(scheduler: Scheduler, process: Process, work: Callable[[], Any]) -> Any:
    """Run a function as a task, together with all other tasks, until it returns."""
    task = scheduler.spawn(process, work)
    scheduler.run(lambda: task.finished)
    return task.result
