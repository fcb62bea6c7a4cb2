"""The running service: a unit of systemd, or a background process if there is no systemd."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.host import HERE, NAME, Failed, Host, run, write

TIMEOUT = 120.0
"""Seconds for the supervisor to check a release, switch to it, and write the result."""


def serves(host: Host, release: Path) -> bool:
    """Whether this release serves with the current settings."""
    state = host.state()
    return (
        state.get("release") == str(release)
        and state["settings"] == host.settings.stat().st_mtime_ns
        and host.current.resolve() == release
    )


def serve(host: Host) -> str:
    """Let the supervisor switch to `current`; return why it refused, or an empty string."""
    before = host.state()
    if before:
        os.kill(host.supervisor() or 0, signal.SIGHUP)
    elif host.systemd:
        run(["systemctl", "enable", "--quiet", NAME])
        # Returns when the supervisor has reported that it is ready.
        subprocess.run(["systemctl", "restart", NAME], check=False)
    else:
        _start_daemon(host)
    changes = before.get("changes", -1)
    if not _wait(lambda: host.state().get("changes", -1) > changes, lambda: _ended(host, before)):
        return f"it did not start: see {'journalctl -u ' + NAME if host.systemd else host.log}"
    state = host.state()
    return state["refused"] or ("" if state["healthy"] else "it is not ready: check CouchDB")


_daemon: subprocess.Popen[bytes] | None = None


def _start_daemon(host: Host) -> None:
    """Start the supervisor as a background process."""
    global _daemon  # noqa: PLW0603 - to notice when it ends
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


def _ended(host: Host, before: dict[str, Any]) -> bool:
    """Whether the supervisor has ended."""
    if _daemon is not None:
        return _daemon.poll() is not None
    return (bool(before) or host.systemd) and host.supervisor() is None


def stop(host: Host) -> None:
    """Let the service finish the connections that it has accepted, and end.

    :raises Failed: it has not ended in time
    """
    if host.systemd:
        subprocess.run(["systemctl", "disable", "--quiet", "--now", NAME], check=False)
        return
    supervisor = host.supervisor()
    if supervisor is not None:
        os.kill(supervisor, signal.SIGTERM)
        if not _wait(lambda: host.supervisor() is None):
            raise Failed(f"process {supervisor} does not end")


def install_unit(host: Host) -> bool:
    """Write the unit if there is systemd; return whether it replaced a different one."""
    text = (HERE / f"{NAME}.service").read_text()
    if not host.systemd or (host.unit.exists() and host.unit.read_text() == text):
        return False
    existed = host.unit.exists()
    write(host.unit, text, 0o644)
    run(["systemctl", "daemon-reload"])
    return existed


def _wait(done: Callable[[], bool], failed: Callable[[], bool] = lambda: False) -> bool:
    end = time.monotonic() + TIMEOUT
    while not done():
        if time.monotonic() > end or failed():
            return done()
        time.sleep(0.1)
    return True
