"""What `make deploy`, `make rollback` and `make undeploy` do on the machine."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from deploy.host import HERE, NAME, Failed, Host, run, say, write
from deploy.releases import install, point, prune, release_name, setup
from deploy.service import install_unit, serve, serves, stop


def deploy(host: Host, wheel: Path) -> None:
    """Install a wheel beside what serves, try it, and go over to it.

    :raises Failed: it is not healthy; what served before still does
    """
    prepare(host)
    release = host.releases / release_name(wheel)
    new_unit = install_unit(host)
    if install(host, release, wheel):
        say(f"installed {release.name}")
    elif serves(host, release):
        say(f"{release.name} serves already: nothing to do")
        return
    switch(host, release, "it is not deployed")
    if new_unit and host.systemd:
        say(f"the unit has changed: that counts from the next `systemctl restart {NAME}` on")
    prune(host)


def rollback(host: Host) -> None:
    """Go back to the release before; a second time comes back to this one."""
    if not host.previous.exists():
        raise Failed("there is no release to go back to")
    switch(host, host.previous.resolve(), "not rolled back")


def switch(host: Host, release: Path, otherwise: str) -> None:
    """Have `release` serve, and remember what did.

    Design documents come first; the release that serves reads them as well until it goes, so they
    suit the release before. When the new one is refused, they are put back.
    """
    before = host.current.resolve() if host.current.exists() else None
    setup(host, release)
    point(host.current, release)
    refused = serve(host)
    if refused:
        if before is None:
            stop(host)
            host.current.unlink()
        else:
            point(host.current, before)
            setup(host, before)
        stays = f"; {before.name} serves as before" if before else ""
        raise Failed(f"{release.name} is not healthy ({refused}): {otherwise}{stays}")
    if before not in (None, release):
        point(host.previous, before)
    say(f"{release.name} serves")


def undeploy(host: Host, purge: bool) -> None:
    """Remove it all but the settings and the log; those as well when asked to."""
    stop(host)
    for path in (host.unit, host.sysusers):
        path.unlink(missing_ok=True)
    if host.systemd:
        run(["systemctl", "daemon-reload"])
    for folder in (host.app, host.run, *((host.etc, host.log.parent) if purge else ())):
        if folder.exists():
            shutil.rmtree(folder)
            say(f"removed {folder}")
    if purge and host.whole:
        subprocess.run(["userdel", NAME], check=False)
    elif host.etc.exists():
        say(f"kept {host.etc}")


def prepare(host: Host) -> None:
    """Make user, folders, settings and commands where they are missing."""
    if host.whole:
        make_user(host)
    for folder in (host.releases, host.app / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    _own(host, host.etc, 0o750)
    if not host.systemd:  # which makes them itself
        _own(host, host.run, 0o750)
        _own(host, host.log.parent, 0o750)
    if not host.settings.exists():
        write(host.settings, (HERE / "kazoo-ips.env").read_text(), 0o640)
        say(f"wrote {host.settings}: set COUCHDB_URL there")
    host.settings.chmod(0o640)
    user = host.user()
    if user:  # root's own; the service reads them
        os.chown(host.etc, 0, user.pw_gid)
        os.chown(host.settings, 0, user.pw_gid)
    for command in ("kazoo-ips", "sup"):
        write(host.app / "bin" / command, _command(host, command), 0o755)


def _own(host: Host, folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    user = host.user()
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)


def make_user(host: Host) -> None:
    """The user that the service runs as, by sysusers where there is systemd."""
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
