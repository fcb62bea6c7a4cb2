"""gunicorns whose workers a test can kill one by one, and free ports."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_WITHOUT_BACKGROUND = f"file:{Path(__file__).with_name('without_background_work.py')}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Gunicorn:
    """The application under gunicorn, on a free port.

    :param environment: the settings, as environment variables
    :param log: where its output goes
    :param threads: the number of threads of each worker
    :param background: whether it runs background work; False for a server that outlives a test
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        workers: int = 4,
        threads: int = 16,
        *,
        background: bool = True,
    ) -> None:
        self._settings = "python:kazoo_ips.gunicorn_conf" if background else _WITHOUT_BACKGROUND
        self._environment = {
            **environment,
            "KAZOO_IPS_BIND": "127.0.0.1:0",
            "KAZOO_IPS_WORKERS": str(workers),
            "KAZOO_IPS_THREADS": str(threads),
        }
        self._log = log
        self.url = ""

    def __enter__(self) -> "Gunicorn":
        gunicorn = Path(sys.executable).with_name("gunicorn")
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [gunicorn, "-c", self._settings],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.url = self._listening()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Unlike `stop`, this waits for no further requests of open connections: two seconds.
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def stop(self) -> None:
        """Stop it as an operator does: it ends the requests that are under way."""
        self._process.terminate()
        self._process.wait(60)

    def kill_a_worker(self) -> None:
        """`kill -9` one of the workers, at random; gunicorn starts another."""
        workers = self.workers()
        if workers:
            os.kill(random.choice(workers), signal.SIGKILL)

    def workers(self) -> list[int]:
        """The process ids of the current workers."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def reload(self) -> None:
        """Replace all workers, one after the other."""
        self._process.send_signal(signal.SIGHUP)

    def _listening(self) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end and self._process.poll() is None:
            found = re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", self._log.read_text())
            if found:
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"gunicorn does not listen:\n{self._log.read_text()}")
