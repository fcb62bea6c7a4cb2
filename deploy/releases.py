"""Releases: a virtual environment for each wheel, the links to them, and how they are removed."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.host import Failed, Host, run, say

KEPT = 5
"""Releases that are kept; older ones go with the next deployment."""


def release_name(wheel: Path) -> str:
    """The version, and a digest of what the wheel holds: the same code has the same name."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            digest.update(f"{name}\0".encode() + archive.read(name))
    return f"{wheel.name.split('-')[1]}-{digest.hexdigest()[:12]}"


def install(host: Host, release: Path, wheel: Path) -> bool:
    """Make the release's virtual environment; False when it is there."""
    complete = release / "complete"
    if complete.exists():
        return False
    if release.exists():  # somebody stopped half way
        shutil.rmtree(release)
    has_pip = importlib.util.find_spec("pip") is not None  # saves a copy in every release
    run([sys.executable, "-m", "venv", *(["--without-pip"] if has_pip else []), release])
    python = release / "bin" / "python"
    pip: list[Path | str] = (
        [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    )
    run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-input",
          "--root-user-action=ignore", "--compile", wheel.resolve()])  # fmt: skip
    try:
        subprocess.run([python, "-c", "import kazoo_ips"], check=True, cwd="/", **host.as_user())
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(
            f"the service's user cannot run {python.resolve()} ({error}): PYTHON=... names another"
        ) from error
    complete.touch()
    return True


def setup(host: Host, release: Path) -> None:
    """Databases, design documents and the signing key, as this release wants them."""
    command: list[Path | str] = [release / "bin" / "kazoo-ips", "setup"]
    for settings in (host.setup_settings, host.settings):  # the first counts last
        if settings.exists():
            python = release / "bin" / "python"
            command = [python, "-m", "kazoo_ips.settings_file", settings, *command]
    # Reads setup.env as root: the service's own user never can.
    run(command, why=f"see COUCHDB_URL in {host.settings}")


def prune(host: Host) -> None:
    """Remove the oldest releases, but neither what serves nor what served before."""
    links = (host.current, host.previous)
    wanted = {link.resolve() for link in links if link.exists()}
    by_age = sorted(host.releases.iterdir(), key=lambda path: path.stat().st_mtime)
    for release in [each for each in by_age if each not in wanted][: max(0, len(by_age) - KEPT)]:
        shutil.rmtree(release)
        say(f"removed {release.name}")


def point(link: Path, release: Path) -> None:
    """Let a link name the release, with no moment at which it names nothing."""
    new = link.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.symlink_to(release)
    new.replace(link)
