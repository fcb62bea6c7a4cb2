"""`make run`: the service on a database of its own, with something in it to look at.

Starts the embedded server, unless COUCHDB_URL names a CouchDB, and gunicorn; stops both together.
Everything it writes is in one folder, KAZOO_IPS_DATA, or in the CouchDB named. Knows processes and
ports; what is in the database is `samples`'s.
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
    """What runs as long as this does."""

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""


class Gunicorn:
    """The service in its own processes, for the length of a `with`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:embedded.gunicorn_conf"],
            cwd=HERE.parent,  # where gunicorn finds this folder
            env=self._environ,
            stdin=subprocess.PIPE,  # ends with this process; gunicorn watches it
            start_new_session=True,  # Ctrl-C is for its parent, which stops it in good order
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError, PermissionError):  # nothing is left of its group
                os.killpg(process.pid, signal.SIGKILL)

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""
        status = self._process.poll()
        return None if status is None else f"gunicorn ended with status {status}"


class Stop:
    """Whether a signal has asked to stop.

    Nothing is interrupted: what was begun is finished, so that all that was started is known.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def run(environ: Mapping[str, str]) -> None:
    """Serve until a signal comes.

    :raises EmbeddedError: it cannot start, or something it started has ended
    """
    stop = Stop()
    from embedded import samples  # noqa: PLC0415 - takes its time, in which Ctrl-C counts too

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
        why = os.strerror(error.errno or 0)  # its own text names the address again
        raise EmbeddedError(
            f"port {port} cannot be used: {why}; {name}=... takes another"
        ) from error
    return port


def _wait_until_free(port: int) -> None:
    """Return when a server can listen on a port.

    :raises OSError: none can, for 3 s: as long may what a killed `make run` has started hold it
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
    logging.disable()  # what goes wrong here is told once, below
    try:
        run(os.environ)
    except EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
