"""Keeps the service running, and changes its release or settings without losing a request.

    python -m kazoo_ips.supervisor APP SETTINGS RUN

The listening sockets are this process's, for as long as it lives; gunicorn, started from the
release that `APP/current` points to, inherits them. gunicorn itself cannot change releases: SIGHUP
keeps its master's code and import path, SIGUSR2 its interpreter and environment.

* SIGHUP: reads SETTINGS anew and tries `APP/current` on a socket that no client knows. Only when
  it is healthy there a second gunicorn gets the listening sockets as well, and only when that is
  healthy the first is told to finish what it has accepted, and to go. Otherwise nothing changes.
* SIGTERM, SIGINT: gunicorn finishes, then this process ends.
* gunicorn that ends by itself is started again.

`RUN/pid` is locked while this runs; `RUN/serving.json` tells what came of the last SIGHUP. Imports
everything at once and little: the release it came from may be gone when another one serves.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from gunicorn.systemd import sd_notify
from gunicorn.util import parse_address

from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.server import settings_file

log = logging.getLogger(__name__)

HEALTH_PATH = "/readyz"
"""Answers 200 when a release can do its work; 404 is a release of before there was one."""
HEALTHY = (200, 404)
PATIENCE = 30.0
"""Seconds for a release to become healthy."""
FAREWELL = 45.0
"""Seconds to finish; longer than gunicorn's own `graceful_timeout`."""
BACKLOG = 2048
"""Connections that wait to be accepted, as gunicorn has it."""


@dataclass
class Gunicorn:
    """One gunicorn of one release, and the socket on which only this process asks it."""

    release: Path
    environ: Mapping[str, str] = field(repr=False)
    process: subprocess.Popen[bytes]
    door: Path
    until: float = field(default=float("inf"))
    """When it must have gone, by the monotonic clock."""

    def status(self) -> int | None:
        """The status of its answer to the question for its health; None without an answer."""
        connection = _Door(self.door)
        try:
            connection.request("GET", HEALTH_PATH, headers={"Connection": "close"})
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def ended(self) -> bool:
        """Whether it has; its door goes with it."""
        if self.process.poll() is None:
            return False
        self.door.unlink(missing_ok=True)
        return True

    def finish(self) -> None:
        """Tell it to finish what it has accepted, and to go."""
        self.until = time.monotonic() + FAREWELL
        self.process.terminate()


class _Door(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Refused(Exception):
    """The release or the settings will not do; the message says why."""


class Supervisor:
    """What serves now, what is about to go, and the sockets of both.

    :param app: the folder with `current`
    :param settings: the file with the settings
    :param run: a folder for the pid file, the state and the doors
    """

    def __init__(self, app: Path, settings: Path, run: Path) -> None:
        self._current = app / "current"
        self._settings = settings
        self._run = run
        self._listeners: dict[str, socket.socket] = {}
        self._leaving: list[Gunicorn] = []
        self._asked = {signal.SIGHUP: False, signal.SIGTERM: False}
        self._started = 0
        self._changes = 0

    def run(self) -> None:
        """Serve until a signal says otherwise.

        :raises Refused: the first start failed
        """
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        with (self._run / "pid").open("a+") as pid:
            self._lock(pid.fileno())
            self._serving = self._first()
            sd_notify("READY=1", log)
            while not self._asked[signal.SIGTERM]:
                if self._asked[signal.SIGHUP]:
                    self._asked[signal.SIGHUP] = False
                    self._change()
                elif self._serving.ended():
                    log.error("gunicorn ended with status %s", self._serving.process.returncode)
                    time.sleep(1)
                    self._serving = self._start(self._serving.release, self._serving.environ)
                self._see_off()
                time.sleep(0.1)
            self._end()

    def _note(self, number: int, _: object) -> None:
        self._asked[signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM] = True

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"another one runs: {self._run / 'pid'} is locked") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def _first(self) -> Gunicorn:
        """Start, healthy or not: without CouchDB the service says so, and waits for it."""
        environ = self._environ()
        self._listen(_binds(environ))
        first = self._start(self._current.resolve(), environ)
        status = self._wait(first, lambda status: status is not None)
        if status is None:
            self._drop(first)
            raise Refused("gunicorn does not answer")
        self._record(first.release, status in HEALTHY)
        return first

    def _change(self) -> None:
        """Go over to what `current` and the settings are now, if that is healthy."""
        release = self._current.resolve()
        try:
            environ = self._environ()
            self._drop(self._healthy(release, {**environ, "KAZOO_IPS_WORKERS": "1"}, aside=True))
            self._listen(_binds(environ))
            new = self._healthy(release, environ)
        except (Refused, BadSetting) as error:
            log.error("%s is refused: %s", release, error)
            self._record(self._serving.release, True, f"{error}")
        else:
            log.info("%s serves", release)
            self._drop(self._serving)
            self._serving = new
            self._record(release, True)
        self._close_all_but(_binds(self._serving.environ))

    def _healthy(
        self, release: Path, environ: Mapping[str, str], *, aside: bool = False
    ) -> Gunicorn:
        """A gunicorn that is; `aside` keeps the clients from it."""
        new = self._start(release, environ, aside=aside)
        status = self._wait(new, lambda status: status in HEALTHY)
        if status not in HEALTHY:
            self._drop(new)
            raise Refused(f"{HEALTH_PATH} answers {status}" if status else "it does not answer")
        return new

    def _start(
        self, release: Path, environ: Mapping[str, str], *, aside: bool = False
    ) -> Gunicorn:
        # By its real path: what it imports later comes from the same release, whatever `current`
        # is by then.
        python = release / "bin" / "python"
        self._started += 1
        door = self._run / f"{self._started}.sock"
        door.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as own:
            own.bind(str(door))
            own.listen()
            binds = [] if aside else _binds(environ)
            listeners = [*(self._listeners[bind] for bind in binds), own]
            files = [listener.fileno() for listener in listeners]
            try:
                process = subprocess.Popen(
                    [python, "-m", "gunicorn", "-c", "python:kazoo_ips.gunicorn_conf"],
                    env={**environ, "KAZOO_IPS_BIND": ",".join(f"fd://{fd}" for fd in files)},
                    stdin=subprocess.DEVNULL,
                    pass_fds=files,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no threads
                )
            except OSError as error:
                raise Refused(f"{python}: {error.strerror}") from error
        return Gunicorn(release, environ, process, door)

    def _wait(self, new: Gunicorn, enough: Callable[[int | None], bool]) -> int | None:
        """Ask until the answer is enough, or there is nobody to answer; the last answer."""
        end = time.monotonic() + PATIENCE
        status = None
        while not (new.ended() or self._asked[signal.SIGTERM]):
            status = new.status()
            if enough(status) or time.monotonic() > end:
                return status
            time.sleep(0.1)
        return None

    def _environ(self) -> dict[str, str]:
        """The environment for gunicorn: settings only from the file, nothing of systemd's."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name != "NOTIFY_SOCKET" and not name.startswith(("KAZOO_IPS_", "COUCHDB_"))
        }
        self._read = self._settings.stat().st_mtime_ns if self._settings.exists() else 0
        return {**inherited, **settings_file.read(self._settings)}

    def _listen(self, binds: Sequence[str]) -> None:
        for bind in binds:
            if bind in self._listeners:
                continue
            try:
                self._listeners[bind] = _listener(bind)
            except (OSError, RuntimeError, ValueError) as error:
                raise BadSetting(f"KAZOO_IPS_BIND: {bind}: {error}") from error

    def _close_all_but(self, binds: Sequence[str]) -> None:
        for bind in self._listeners.keys() - set(binds):
            self._listeners.pop(bind).close()

    def _see_off(self) -> None:
        for old in self._leaving:
            if time.monotonic() > old.until:
                old.process.kill()
        self._leaving = [old for old in self._leaving if not old.ended()]

    def _drop(self, other: Gunicorn) -> None:
        other.finish()
        self._leaving.append(other)

    def _end(self) -> None:
        self._drop(self._serving)
        while self._leaving:
            self._see_off()
            time.sleep(0.1)

    def _record(self, release: Path, healthy: bool, refused: str = "") -> None:
        """Tell whoever sent the signal what came of it, all at once."""
        state = {
            "changes": self._changes,
            "release": str(release),
            "settings": self._read,
            "healthy": healthy,
            "refused": refused,
        }
        self._changes += 1
        new = self._run / "serving.json.new"
        new.write_text(json.dumps(state) + "\n")
        new.replace(self._run / "serving.json")


def _binds(environ: Mapping[str, str]) -> list[str]:
    # Nothing else of the settings is looked at: a newer release may know more of them.
    return [bind.strip() for bind in (environ.get("KAZOO_IPS_BIND") or Settings.bind).split(",")]


_PRCTL = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> None:
    """Should this process be killed, gunicorn finishes too, and the port is free again."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _listener(bind: str) -> socket.socket:
    """A listening socket for `host:port` or `[host]:port`."""
    address = parse_address(bind)
    if not isinstance(address, tuple):  # gunicorn would remove a socket's path at each change
        raise ValueError("the supervisor listens on host:port only")
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def main(arguments: Sequence[str]) -> None:
    """`python -m kazoo_ips.supervisor`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] %(message)s")
    os.umask(0o077)
    app, settings, run = map(Path, arguments)
    try:
        Supervisor(app, settings, run).run()
    except (Refused, BadSetting) as error:
        sys.exit(f"cannot start: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
