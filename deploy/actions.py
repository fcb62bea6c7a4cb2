"""The actions `deploy`, `rollback` and `undeploy`, on the machine itself."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from deploy.host import HERE, NAME, Failed, Host, run, say, write
from deploy.releases import (
    SOURCES,
    has_extras,
    install,
    prune,
    release_name,
    replace_link,
    setup,
)
from deploy.service import install_unit, serve, serves, stop


def serves_already(host: Host, sources: str) -> bool:
    """Return whether a release of these files serves with the current settings, and say so.

    It has to have the extras that the settings need.

    :param sources: the digest of the files that a deployment would install (`deploy/sources.py`)
    """
    release = host.current.resolve()
    file = release / SOURCES
    found = (
        file.exists()
        and file.read_text() == sources
        and has_extras(release, host.extras())
        and serves(host, release)
    )
    if found:
        say(f"{release.name} serves already: nothing to do")
    return found


def deploy(host: Host, wheel: Path, sources: str = "") -> None:
    """Install a wheel as a new release, and switch to it if it is healthy.

    If this is the first deployment, the settings have to be filled in first. Then the release is
    installed only, which is no failure.

    :param sources: the digest of the files that the wheel was built from
    :raises Failed: the new release is not healthy; the old release still serves
    """
    is_first = prepare(host)
    extras = host.extras()
    release = host.releases / release_name(wheel, extras)
    new_unit = install_unit(host)
    new = install(host, release, wheel, extras)
    if sources:
        write(release / SOURCES, sources, 0o644)
    if new:
        say(f"installed {release.name}")
    elif serves(host, release):
        say(f"{release.name} serves already: nothing to do")
        return
    if is_first:
        say(
            f"{release.name} does not serve yet: set COUCHDB_URL, with user and password, in\n"
            f"{host.settings}, and run `make deploy` again"
        )
        return
    switch(host, release, "it is not deployed")
    if new_unit and host.systemd:
        say(f"the unit has changed: run `systemctl restart {NAME}` to apply it")
    prune(host)


def rollback(host: Host) -> None:
    """Switch to the previous release. A second rollback returns to the current one.

    :raises Failed: there is no previous release, or it is not healthy
    """
    if not host.previous.exists():
        raise Failed("there is no release to go back to")
    switch(host, host.previous.resolve(), "not rolled back")


def switch(host: Host, release: Path, failure: str) -> None:
    """Switch to a release.

    Its design documents are installed first. The old release reads them too until it ends, so they
    have to work for both. If the new release is refused, the old ones are restored.

    :param failure: the result to report if the release is refused
    :raises Failed: the release is not healthy; the old release still serves
    """
    before = host.current.resolve() if host.current.exists() else None
    setup(host, release)
    replace_link(host.current, release)
    refused = serve(host)
    if refused:
        if before is None:
            stop(host)
            host.current.unlink()
        else:
            replace_link(host.current, before)
            setup(host, before)
        serving = f"; {before.name} serves as before" if before else ""
        raise Failed(f"{release.name} is not healthy ({refused}): {failure}{serving}")
    if before not in (None, release):
        replace_link(host.previous, before)
    say(f"{release.name} serves")


def undeploy(host: Host, purge: bool) -> None:
    """Remove the service.

    :param purge: whether to remove the settings, the log and the user as well
    """
    stop(host)
    for path in (host.unit, host.sysusers):
        path.unlink(missing_ok=True)
    if host.systemd:
        run(["systemctl", "daemon-reload"])
    if not any(host.app.iterdir()):  # created by the lock
        host.app.rmdir()
    directories = (host.app, host.run, *((host.etc, host.log.parent) if purge else ()))
    to_remove = [directory for directory in directories if directory.exists()]
    for directory in to_remove:
        shutil.rmtree(directory)
        say(f"removed {directory}")
    if not to_remove:
        say("nothing to remove")
    if purge and host.is_system:
        subprocess.run(["userdel", NAME], check=False)
    elif host.etc.exists():
        say(f"kept {host.etc}")


def prepare(host: Host) -> bool:
    """Create the user, directories, settings and commands that are missing.

    :returns: whether it has written the settings, which have to be filled in
    """
    if host.is_system:
        create_user(host)
    for directory in (host.releases, host.app / "bin"):
        directory.mkdir(parents=True, exist_ok=True)
    _create_directory(host, host.etc, 0o750)
    if not host.systemd:  # systemd creates these two
        _create_directory(host, host.run, 0o750)
        _create_directory(host, host.log.parent, 0o750)
    is_first = not host.settings.exists()
    if is_first:
        write(host.settings, (HERE / "kazoo-ips.env").read_text(), 0o640)
        say(f"wrote {host.settings}")
    host.settings.chmod(0o640)
    user = host.user()
    if user:  # root owns them; the service may read them
        os.chown(host.etc, 0, user.pw_gid)
        os.chown(host.settings, 0, user.pw_gid)
    for command in ("kazoo-ips", "sup"):
        write(host.app / "bin" / command, _command(host, command), 0o755)
    return is_first


def _create_directory(host: Host, directory: Path, mode: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(mode)
    user = host.user()
    if user:
        os.chown(directory, user.pw_uid, user.pw_gid)


def create_user(host: Host) -> None:
    """Create the user that the service runs as, by sysusers if there is systemd."""
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        if shutil.which("systemd-sysusers"):
            host.sysusers.parent.mkdir(exist_ok=True)
            write(host.sysusers, (HERE / "sysusers.conf").read_text(), 0o644)
            run(["systemd-sysusers", host.sysusers])
        else:
            run(["useradd", "--system", "--user-group", "--home-dir", "/", "--no-create-home",
                  "--shell", "/usr/sbin/nologin", NAME])  # fmt: skip


def _command(host: Host, name: str) -> str:
    bin = host.app / "current" / "bin"
    return (
        "#!/bin/sh\n"
        f"# {name} of the release that serves, with the service's settings.\n"
        f'exec {bin}/python -m kazoo_ips.settings_file {host.settings} {bin}/{name} "$@"\n'
    )
