"""The paths on the machine, and the state of the service that runs there.

Below ROOT (or /):

    opt/kazoo-ips/releases/VERSION-BUILD   a virtual environment for each of the last releases
    opt/kazoo-ips/current, previous        links to the release that serves and the one before it
    opt/kazoo-ips/bin                      `kazoo-ips` and `sup`, with the settings
    etc/kazoo-ips/kazoo-ips.env            the settings; never overwritten
    etc/kazoo-ips/setup.env                optional settings for `kazoo-ips setup` only
    run/kazoo-ips, var/log/kazoo-ips       the supervisor's state; its log if there is no systemd
"""

import fcntl
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "kazoo-ips"
HERE = Path(__file__).resolve().parent


_EXTRAS = {
    "bus": re.compile(rb"^\s*KAZOO_IPS_AMQP_URL=\s*\S", re.MULTILINE),
    "otel": re.compile(rb"^\s*OTEL_EXPORTER_OTLP_(TRACES_)?ENDPOINT=\s*\S", re.MULTILINE),
}
"""The extras of the package, each with the setting that needs it."""


class Failed(Exception):
    """The action failed. The message is for the user."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


class Host:
    """The paths on the machine.

    :param root: the directory with `opt`, `etc`, `run` and `var`: `/`, or one of the user's own
    """

    def __init__(self, root: Path) -> None:
        self.app = root / "opt" / NAME
        self.releases = self.app / "releases"
        self.current = self.app / "current"
        self.previous = self.app / "previous"
        self.etc = root / "etc" / NAME
        self.settings = self.etc / "kazoo-ips.env"
        self.setup_settings = self.etc / "setup.env"
        self.run = root / "run" / NAME
        self.log = root / "var" / "log" / NAME / "log"
        self.unit = root / "etc/systemd/system" / f"{NAME}.service"
        self.sysusers = root / "etc/sysusers.d" / f"{NAME}.conf"
        # In another directory no user is created and no unit is installed.
        self.is_system = root == Path("/")
        self.systemd = self.is_system and Path("/run/systemd/system").is_dir()

    def extras(self) -> list[str]:
        """Return the extras of the package that the settings need, in alphabetical order."""
        settings = self.settings.read_bytes() if self.settings.exists() else b""
        return [name for name, setting in _EXTRAS.items() if setting.search(settings)]

    def user(self) -> pwd.struct_passwd | None:
        """Return the user that the service runs as; None for the user of this process."""
        return pwd.getpwnam(NAME) if self.is_system else None

    def as_user(self) -> dict[str, Any]:
        """Return the arguments with which `subprocess` runs a command as this user."""
        user = self.user()
        if user is None:
            return {}
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def state(self) -> dict[str, Any]:
        """Return the state that the supervisor has written last; empty if it does not run."""
        if self.supervisor() is None:
            return {}
        try:
            state: dict[str, Any] = json.loads((self.run / "serving.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def supervisor(self) -> int | None:
        """Return the process id of the supervisor; None if it does not run.

        It holds a lock on its pid file. An old pid file is not locked.
        """
        try:
            with (self.run / "pid").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except FileNotFoundError:
            pass
        return None


@contextmanager
def exclusive(host: Host) -> Iterator[None]:
    """Hold a lock, so that a second action waits for the first."""
    host.app.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(host.app, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run(command: Sequence[Path | str], hint: str = "") -> None:
    """Run a command.

    :param hint: a likely reason, added to the message if it fails
    :raises Failed: its exit status is not 0
    """
    result = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        name = Path(command[0]).name
        raise Failed(f"{name} failed, status {result.returncode}" + (f": {hint}" if hint else ""))


def write(path: Path, text: str, mode: int) -> None:
    """Write a file if its content differs. It has its mode before it has its content."""
    if path.exists() and path.read_text() == text:
        return
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)
