"""The processes that are measured: gunicorn and the database."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from bench import BenchError
from embedded import EmbeddedCouch

ROOT = Path(__file__).parents[1]
_START = 60
"""Seconds in which a server must answer for the first time."""
_BUSY = 600
"""Seconds in which the workers must have read a pool that is new to them."""
_IDLE = 0.05
"""Seconds of processor time in one second; background work without changes takes a tenth of it."""


class Gunicorn:
    """An application under gunicorn with the service's settings. It runs inside a `with`.

    :param environment: settings that differ from the defaults
    :param arguments: arguments of gunicorn
    """

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        self._environment = environment
        self._arguments = arguments or ("-c", "python:kazoo_ips.gunicorn_conf")
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # The defaults are measured, so the user's own settings are removed.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("KAZOO_IPS_")}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *self._arguments],
            cwd=ROOT,
            env={**inherited, **self._environment, "KAZOO_IPS_BIND": f"127.0.0.1:{self.port}"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches this process only, which then stops gunicorn
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError, PermissionError):  # all processes have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children]

    def wait_until_idle(self) -> None:
        """Wait until its background work is done: its workers use little processor time.

        :raises BenchError: it takes longer than `_BUSY` seconds
        """
        end, used = time.monotonic() + _BUSY, processor_time(self.workers())
        while time.monotonic() < end:
            time.sleep(1)
            before, used = used, processor_time(self.workers())
            if used - before < _IDLE:
                return
        raise BenchError(f"the workers are still busy after {_BUSY} s")

    def _wait(self) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end and self._process.poll() is None:
            if answers(self.port):
                return
            time.sleep(0.05)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")
        raise BenchError(f"gunicorn does not answer: {said[-2000:]}")


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Yield the URL of the database: the given one, or that of an empty embedded server."""
    if url:
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as folder, EmbeddedCouch(Path(folder)) as couch:
        yield couch.url


def address(url: str) -> str:
    """Return a URL without user and password, for wrk."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 5984}"


def answers(port: int) -> bool:
    """Whether an HTTP server answers at that port."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_START)
    try:
        connection.request("GET", "/v2/about")
        connection.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


# Processor time and memory, as Linux reports them.


def processor_time(pids: Iterable[int]) -> float:
    """Return the seconds of processor time that processes have used, in user and system mode."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, name: str = "VmRSS") -> float:
    """Return the memory of a process in MB: `VmRSS` is the current size, `VmHWM` the maximum."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def reset_peak(pid: int) -> None:
    """Reset `VmHWM` to the current size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
