"""The places on the machine, and what is known of the service that runs there.

Below ROOT (or /):

    opt/kazoo-ips/releases/VERSION-BUILD   a virtual environment each, the last few of them
    opt/kazoo-ips/current, previous        links to the one that serves, and the one before it
    opt/kazoo-ips/bin                      `kazoo-ips` and `sup`, with the settings
    etc/kazoo-ips/kazoo-ips.env            the settings; never overwritten
    etc/kazoo-ips/setup.env                settings for `kazoo-ips setup` only, if there are any
    run/kazoo-ips, var/log/kazoo-ips       the supervisor's state; its log where no systemd is
"""

import fcntl
import json
import os
import pwd
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "kazoo-ips"
HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """It cannot be done; the message is for whoever runs this."""


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, flush=True)


class Host:
    """The places on the machine, and whether it is the whole machine or a folder.

    :param root: where `opt`, `etc`, `run` and `var` are
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
        # A folder is for whoever owns it: no user is made, no unit installed.
        self.whole = root == Path("/")
        self.systemd = self.whole and Path("/run/systemd/system").is_dir()

    def user(self) -> pwd.struct_passwd | None:
        """Who the service runs as; None is whoever runs this."""
        return pwd.getpwnam(NAME) if self.whole else None

    def as_user(self) -> dict[str, Any]:
        """The arguments for `subprocess` that say so."""
        user = self.user()
        if user is None:
            return {}
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def state(self) -> dict[str, Any]:
        """What the supervisor has written last; empty when it does not run."""
        if self.supervisor() is None:
            return {}
        try:
            state: dict[str, Any] = json.loads((self.run / "serving.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def supervisor(self) -> int | None:
        """The process id of the supervisor; None when it does not run.

        A pid file that somebody left behind is not locked.
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
def alone(host: Host) -> Iterator[None]:
    """One at a time: a second one waits for the first."""
    host.app.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(host.app, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run(command: Sequence[Path | str], why: str = "") -> None:
    """Run a command.

    :param why: what may be the reason, should it fail
    :raises Failed: its status is not 0
    """
    result = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        name = Path(command[0]).name
        raise Failed(f"{name} failed, status {result.returncode}" + (f": {why}" if why else ""))


def write(path: Path, text: str, mode: int) -> None:
    """Write a file, with its mode from the first moment; nothing when it says so already."""
    if path.exists() and path.read_text() == text:
        return
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)
