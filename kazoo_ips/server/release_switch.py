"""The supervisor: runs gunicorn, and switches to another release or settings without downtime.

    python -m kazoo_ips.supervisor APP SETTINGS RUN

The supervisor owns the listening sockets. It starts gunicorn from the release that `APP/current`
points to, and gunicorn inherits the sockets. gunicorn itself cannot change releases: SIGHUP keeps
its master's code and import path, SIGUSR2 its interpreter and environment.

* SIGHUP: read SETTINGS again, and start gunicorn from `APP/current` on a private socket. If it is
  healthy, start another gunicorn of the same release with the listening sockets. If that one is
  healthy, the old gunicorn finishes the connections that it has accepted, and ends. Otherwise the
  old gunicorn continues to serve.
* SIGTERM, SIGINT: let gunicorn finish, then end.
* If gunicorn ends by itself, the supervisor starts it again.

`RUN/pid` is locked while the supervisor runs. `RUN/serving.json` has the result of the last
SIGHUP. All imports are at the top of the module: the files of this release may be deleted while a
newer release serves.
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

from kazoo_ips import error_texts
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.server import settings_file

log = logging.getLogger(__name__)

HEALTH_PATH = "/readyz"
"""Replies 200 if a release is healthy. Releases without this route reply 404."""
HEALTHY = (200, 404)
START_TIMEOUT = 30.0
"""Seconds in which a release must become healthy."""
GRACE_PERIOD = 45.0
"""Seconds that a gunicorn has to end before it is killed; longer than its `graceful_timeout`."""
BACKLOG = 2048
"""The maximum number of connections that wait to be accepted: gunicorn's default."""


@dataclass
class Gunicorn:
    """One gunicorn of one release.

    :param health_socket: the path of the private socket for health checks
    :param deadline: the time at which it is killed, by the monotonic clock
    """

    release: Path
    environ: Mapping[str, str] = field(repr=False)
    process: subprocess.Popen[bytes]
    health_socket: Path
    deadline: float = field(default=float("inf"))

    def status(self) -> int | None:
        """Return the HTTP status of the health check; None without a reply."""
        connection = _UnixConnection(self.health_socket)
        try:
            connection.request("GET", HEALTH_PATH, headers={"Connection": "close"})
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def ended(self) -> bool:
        """Whether it has ended. Its health socket is removed then."""
        if self.process.poll() is None:
            return False
        self.health_socket.unlink(missing_ok=True)
        return True

    def finish(self) -> None:
        """Let it finish the connections that it has accepted, and end."""
        self.deadline = time.monotonic() + GRACE_PERIOD
        self.process.terminate()


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Refused(Exception):
    """The release or the settings are refused. The message says why."""


class Supervisor:
    """Owns the listening sockets, the gunicorn that serves, and those that are ending.

    :param app: the directory with the link `current`
    :param settings: the file with the settings
    :param run: the directory for the pid file, the state and the health sockets
    """

    def __init__(self, app: Path, settings: Path, run: Path) -> None:
        self._current = app / "current"
        self._settings = settings
        self._run = run
        self._listeners: dict[str, socket.socket] = {}
        self._ending: list[Gunicorn] = []
        self._received = {signal.SIGHUP: False, signal.SIGTERM: False}
        self._started = 0
        self._changes = 0

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises Refused: the first start failed
        """
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        with (self._run / "pid").open("a+") as pid:
            self._lock(pid.fileno())
            self._serving = self._start_first()
            sd_notify("READY=1", log)
            while not self._received[signal.SIGTERM]:
                if self._received[signal.SIGHUP]:
                    self._received[signal.SIGHUP] = False
                    self._switch()
                elif self._serving.ended():
                    log.error("gunicorn ended with status %s", self._serving.process.returncode)
                    time.sleep(1)
                    self._serving = self._start(self._serving.release, self._serving.environ)
                self._reap()
                time.sleep(0.1)
            self._end()

    def _receive(self, number: int, _: object) -> None:
        self._received[signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM] = True

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"another supervisor runs: {self._run / 'pid'} is locked") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def _start_first(self) -> Gunicorn:
        """Start gunicorn, healthy or not. Without CouchDB the service replies 503."""
        environ = self._environ()
        self._listen(_binds(environ))
        first = self._start(self._current.resolve(), environ)
        status = self._wait(first, lambda status: status is not None)
        if status is None:
            self._drain(first)
            raise Refused("gunicorn does not answer")
        self._record(first.release, status in HEALTHY)
        return first

    def _switch(self) -> None:
        """Switch to the release `current` and the settings as they are now, if it is healthy."""
        release = self._current.resolve()
        try:
            environ = self._environ()
            one_worker = {**environ, "KAZOO_IPS_WORKERS": "1"}
            self._drain(self._start_healthy(release, one_worker, private=True))
            self._listen(_binds(environ))
            new = self._start_healthy(release, environ)
        except (Refused, BadSetting) as error:
            log.error("%s is refused: %s", release, error)
            self._record(self._serving.release, True, f"{error}")
        else:
            log.info("%s serves", release)
            self._drain(self._serving)
            self._serving = new
            self._record(release, True)
        self._close_all_but(_binds(self._serving.environ))

    def _start_healthy(
        self, release: Path, environ: Mapping[str, str], *, private: bool = False
    ) -> Gunicorn:
        """Start gunicorn, and wait until it is healthy.

        :param private: whether it listens on its health socket only
        :raises Refused: it does not become healthy
        """
        new = self._start(release, environ, private=private)
        status = self._wait(new, lambda status: status in HEALTHY)
        if status not in HEALTHY:
            self._drain(new)
            raise Refused(f"{HEALTH_PATH} answers {status}" if status else "it does not answer")
        return new

    def _start(
        self, release: Path, environ: Mapping[str, str], *, private: bool = False
    ) -> Gunicorn:
        # Not by the link `current`, which may change while gunicorn still imports modules.
        python = release / "bin" / "python"
        self._started += 1
        path = self._run / f"{self._started}.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as health_socket:
            health_socket.bind(str(path))
            health_socket.listen()
            binds = [] if private else _binds(environ)
            listeners = [*(self._listeners[bind] for bind in binds), health_socket]
            files = [listener.fileno() for listener in listeners]
            try:
                process = subprocess.Popen(
                    [python, "-m", "gunicorn", "-c", "python:kazoo_ips.gunicorn_conf"],
                    env={**environ, "KAZOO_IPS_BIND": ",".join(f"fd://{fd}" for fd in files)},
                    stdin=subprocess.DEVNULL,
                    pass_fds=files,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no threads
                )
            except (OSError, ValueError) as error:  # ValueError: a NUL in a setting
                raise Refused(f"{python}: {error_texts.of_os_error(error)}") from error
        return Gunicorn(release, environ, process, path)

    def _wait(self, new: Gunicorn, enough: Callable[[int | None], bool]) -> int | None:
        """Check the health until the status is acceptable, for at most `START_TIMEOUT`.

        :param enough: whether a status is acceptable
        :returns: the last status; None if gunicorn ends or the supervisor has to end
        """
        end = time.monotonic() + START_TIMEOUT
        status = None
        while not (new.ended() or self._received[signal.SIGTERM]):
            status = new.status()
            if enough(status) or time.monotonic() > end:
                return status
            time.sleep(0.1)
        return None

    def _environ(self) -> dict[str, str]:
        """Return the environment for gunicorn, with the settings of the file only."""
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
            except OSError as error:
                why = error_texts.of_os_error(error)
                raise BadSetting(f"KAZOO_IPS_BIND: {bind}: {why}") from error
            except (RuntimeError, ValueError, TypeError, OverflowError) as error:
                why = "the supervisor listens on host:port only"
                raise BadSetting(f"KAZOO_IPS_BIND: {bind}: {why}") from error

    def _close_all_but(self, binds: Sequence[str]) -> None:
        for bind in self._listeners.keys() - set(binds):
            self._listeners.pop(bind).close()

    def _drain(self, old: Gunicorn) -> None:
        """Let a gunicorn finish its connections. `_reap` removes it when it has ended."""
        old.finish()
        self._ending.append(old)

    def _reap(self) -> None:
        """Kill each old gunicorn whose grace period is over, and remove those that have ended."""
        for old in self._ending:
            if time.monotonic() > old.deadline:
                old.process.kill()
        self._ending = [old for old in self._ending if not old.ended()]

    def _end(self) -> None:
        self._drain(self._serving)
        while self._ending:
            self._reap()
            time.sleep(0.1)

    def _record(self, release: Path, healthy: bool, refused: str = "") -> None:
        """Write the result of a start or switch, for the sender of the signal.

        The file is replaced in one step, so readers see all of it or the previous one.
        """
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
    # Other settings are not checked: a newer release may have settings that are unknown here.
    return [bind.strip() for bind in (environ.get("KAZOO_IPS_BIND") or Settings.bind).split(",")]


_PRCTL = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> None:
    """Let gunicorn finish if the supervisor is killed, so that the port is free again."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _listener(bind: str) -> socket.socket:
    """Return a listening socket for `host:port` or `[host]:port`.

    :raises ValueError: the setting is a path or a file descriptor
    """
    address = parse_address(bind)
    if not isinstance(address, tuple):  # the old gunicorn would remove the path when it ends
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
    """Run `python -m kazoo_ips.supervisor`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] %(message)s")
    os.umask(0o077)
    app, settings, run = map(Path, arguments)
    try:
        Supervisor(app, settings, run).run()
    except (Refused, BadSetting) as error:
        sys.exit(f"cannot start: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
