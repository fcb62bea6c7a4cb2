"""The running service: by systemd where there is one, else as a process of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.host import HERE, NAME, Failed, Host, run, write

PATIENCE = 120.0
"""Seconds for the supervisor to try a release, start it, and say what came of it."""


def serves(host: Host, release: Path) -> bool:
    """Whether this release serves, with the settings as they are now."""
    state = host.state()
    return (
        state.get("release") == str(release)
        and state["settings"] == host.settings.stat().st_mtime_ns
        and host.current.resolve() == release
    )


def serve(host: Host) -> str:
    """Have the supervisor serve `current`; why it would not, or nothing."""
    before = host.state()
    if before:
        os.kill(host.supervisor() or 0, signal.SIGHUP)
    elif host.systemd:
        run(["systemctl", "enable", "--quiet", NAME])
        # Returns when the service has said that it is ready.
        subprocess.run(["systemctl", "restart", NAME], check=False)
    else:
        _start_daemon(host)
    changes = before.get("changes", -1)
    if not _wait(lambda: host.state().get("changes", -1) > changes, lambda: _gone(host, before)):
        return f"it did not start: see {'journalctl -u ' + NAME if host.systemd else host.log}"
    state = host.state()
    return state["refused"] or ("" if state["healthy"] else "it is not ready: is CouchDB?")


_daemon: subprocess.Popen[bytes] | None = None


def _start_daemon(host: Host) -> None:
    """The supervisor as a process of its own, where nothing else looks after processes."""
    global _daemon  # noqa: PLW0603 - only to see it fail
    (host.run / "serving.json").unlink(missing_ok=True)
    python = host.current.resolve() / "bin" / "python"
    user = host.user()
    with host.log.open("ab") as log:
        if user:
            os.chown(host.log, user.pw_uid, user.pw_gid)
        _daemon = subprocess.Popen(
            [python, "-m", "kazoo_ips.supervisor", host.app, host.settings, host.run],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            **host.as_user(),
        )


def _gone(host: Host, before: dict[str, Any]) -> bool:
    if _daemon is not None:
        return _daemon.poll() is not None
    return (bool(before) or host.systemd) and host.supervisor() is None


def stop(host: Host) -> None:
    """Let the service finish what it has accepted, and end."""
    if host.systemd:
        subprocess.run(["systemctl", "disable", "--quiet", "--now", NAME], check=False)
        return
    supervisor = host.supervisor()
    if supervisor is not None:
        os.kill(supervisor, signal.SIGTERM)
        if not _wait(lambda: host.supervisor() is None):
            raise Failed(f"process {supervisor} does not end")


def install_unit(host: Host) -> bool:
    """Write the unit where there is systemd; whether it is another one than before."""
    text = (HERE / f"{NAME}.service").read_text()
    if not host.systemd or (host.unit.exists() and host.unit.read_text() == text):
        return False
    there_was = host.unit.exists()
    write(host.unit, text, 0o644)
    run(["systemctl", "daemon-reload"])
    return there_was


def _wait(done: Callable[[], bool], lost: Callable[[], bool] = lambda: False) -> bool:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end or lost():
            return done()
        time.sleep(0.1)
    return True
