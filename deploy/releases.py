"""Releases: a virtual environment for each wheel, and the links to them."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from deploy.host import Failed, Host, run, say

SOURCES = "sources"
"""The file of a release with the digest of the files that it was built from."""
KEPT = 5
"""Number of releases that are kept. A deployment removes older ones."""


def release_name(wheel: Path, extras: Sequence[str]) -> str:
    """Return the version, a digest of the wheel's files, and the extras.

    The same code has the same name.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            digest.update(f"{name}\0".encode() + archive.read(name))
    build = f"{wheel.name.split('-')[1]}-{digest.hexdigest()[:12]}"
    return "-".join([build, *extras])


def has_extras(release: Path, extras: Sequence[str]) -> bool:
    """Whether a release has exactly these extras."""
    return release.name.split("-")[2:] == list(extras)


def install(host: Host, release: Path, wheel: Path, extras: Sequence[str]) -> bool:
    """Create the release's virtual environment; return False if it exists already.

    :param extras: the extras of the package to install
    :raises Failed: a command failed, or the service's user cannot run the release
    """
    complete = release / "complete"
    if complete.exists():
        return False
    if release.exists():  # an earlier deployment was interrupted
        shutil.rmtree(release)
    has_pip = importlib.util.find_spec("pip") is not None  # then no release needs a copy of pip
    run([sys.executable, "-m", "venv", *(["--without-pip"] if has_pip else []), release])
    python = release / "bin" / "python"
    pip: list[Path | str] = (
        [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    )
    run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-input",
          "--root-user-action=ignore", "--compile",
          f"{wheel.resolve()}[{','.join(extras)}]" if extras else wheel.resolve()])  # fmt: skip
    try:
        subprocess.run([python, "-c", "import kazoo_ips"], check=True, cwd="/", **host.as_user())
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(
            f"the service's user cannot run {python.resolve()} ({error}): "
            "set PYTHON=... to another one"
        ) from error
    complete.touch()
    return True


def setup(host: Host, release: Path) -> None:
    """Create or update databases, design documents and the signing key for this release.

    :raises Failed: `kazoo-ips setup` of this release failed
    """
    command: list[Path | str] = [release / "bin" / "kazoo-ips", "setup"]
    for settings in (host.setup_settings, host.settings):  # the first overrides the second
        if settings.exists():
            python = release / "bin" / "python"
            command = [python, "-m", "kazoo_ips.settings_file", settings, *command]
    # This runs as root, because the service's user may not read setup.env.
    run(command, hint=f"see COUCHDB_URL in {host.settings}")


def prune(host: Host) -> None:
    """Remove the oldest releases, but never the current and the previous one."""
    links = (host.current, host.previous)
    in_use = {link.resolve() for link in links if link.exists()}
    by_age = sorted(host.releases.iterdir(), key=lambda path: path.stat().st_mtime)
    for release in [each for each in by_age if each not in in_use][: max(0, len(by_age) - KEPT)]:
        shutil.rmtree(release)
        say(f"removed {release.name}")


def replace_link(link: Path, release: Path) -> None:
    """Point a link to the release, in one step."""
    new = link.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.symlink_to(release)
    new.replace(link)
