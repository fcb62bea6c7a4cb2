"""`make run`: the service on a database of its own, with sample data.

It starts gunicorn, and the embedded server unless COUCHDB_URL names a CouchDB. It stops both
together. It writes only to the folder KAZOO_IPS_DATA and to the database. This module handles
processes and ports; `samples.py` handles the content of the database.
"""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Protocol, Self

from embedded.server import HERE, EmbeddedCouch, EmbeddedError


class Child(Protocol):
    """A process that has to run as long as this one."""

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""


class Gunicorn:
    """The service in its own processes, inside a `with`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:embedded.gunicorn_conf"],
            cwd=HERE.parent,  # where gunicorn finds this folder
            env=self._environ,
            stdin=subprocess.PIPE,  # ends with this process; gunicorn watches it
            start_new_session=True,  # Ctrl-C reaches only this process, which stops gunicorn
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            # Both errors mean that all processes of its group have ended.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""
        status = self._process.poll()
        return None if status is None else f"gunicorn ended with status {status}"


class Stop:
    """Whether the process has got a signal to stop.

    A signal interrupts nothing. So `run` knows all processes that it has started.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def run(environ: Mapping[str, str]) -> None:
    """Serve until the process gets a signal to stop.

    :raises EmbeddedError: a process cannot start, or has ended
    """
    stop = Stop()
    from embedded import samples  # noqa: PLC0415 - the import is slow; Ctrl-C must work meanwhile

    port = _free_port(environ, "PORT", 8000)
    data = Path(environ.get("KAZOO_IPS_DATA") or HERE.parent / "data").resolve()
    environ = {
        "KAZOO_IPS_LOG_LEVEL": "warning",
        "KAZOO_IPS_LOG_FORMAT": "text",
        **environ,
        "KAZOO_IPS_BIND": f"127.0.0.1:{port}",
    }
    children: list[Child] = []
    with ExitStack() as started:
        if not environ.get("COUCHDB_URL"):
            couch_port = _free_port(environ, "COUCHDB_PORT", 5984)
            samples.make_folder(data)
            couch = EmbeddedCouch(data / "couchdb", couch_port)
            children.append(started.enter_context(couch))
            environ |= {"COUCHDB_URL": couch.url, "COUCHDB_ADMIN_URL": ""}
        text = samples.set_up(environ, data, port)
        children.append(started.enter_context(Gunicorn(environ)))
        while not (stop.asked or _answers(port)):
            _check(children)
        if not stop.asked:
            print(text, flush=True)
        while not stop.asked:
            _check(children)


def _check(children: list[Child]) -> None:
    for child in children:
        if failure := child.failure():
            raise EmbeddedError(failure)
    time.sleep(0.1)


def _free_port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        port = int(text)
        _wait_until_free(port)
    except (ValueError, OverflowError) as error:
        raise EmbeddedError(f"{name}: {text!r} is not a port") from error
    except OSError as error:
        why = os.strerror(error.errno or 0)  # the error's text repeats the address
        raise EmbeddedError(
            f"port {port} cannot be used: {why}; {name}=... takes another"
        ) from error
    return port


def _wait_until_free(port: int) -> None:
    """Return when a server can listen on a port.

    It waits for 3 s, because the processes of a killed `make run` may still hold the port.

    :raises OSError: no server can listen on it after that time
    """
    end = time.monotonic() + 3
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/about")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def main() -> None:
    """`python -m embedded.run`."""
    logging.disable()  # an error is printed once, below
    try:
        run(os.environ)
    except EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
