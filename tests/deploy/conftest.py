"""Fixtures: a directory to deploy to, wheels, and clients that send requests meanwhile."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import wheels
from tests.deploy.load import Load
from tests.servers import free_port

SETTINGS = ("COUCHDB_URL", "COUCHDB_ADMIN_URL", "KAZOO_IPS_PREFIX", "KAZOO_IPS_IDENTITY_CACHE")


class Site:
    """A directory in place of a machine. It uses the dependencies of the tests."""

    def __init__(self, root: Path, environment: Mapping[str, str], libraries: Path) -> None:
        self.root = root
        self.app = root / "opt/kazoo-ips"
        self.settings = root / "etc/kazoo-ips/kazoo-ips.env"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = [name for name in SETTINGS if name in environment]
        names = (*given, "KAZOO_IPS_BIND", "KAZOO_IPS_WORKERS", "PYTHONPATH")
        values = {
            **environment,
            "KAZOO_IPS_BIND": f"127.0.0.1:{self.port}",
            "KAZOO_IPS_WORKERS": "1",
            "PYTHONPATH": str(libraries),
        }
        self.text = "".join(f"{name}={values[name]}\n" for name in names)
        # The wheel is installed without its dependencies. Python finds them in this folder.
        self.installing = {"PIP_NO_DEPS": "1", "PYTHONPATH": str(libraries)}
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("KAZOO_", "COUCHDB_"))},
            **self.installing,
            "KAZOO_IPS_ROOT": str(root),
            "PYTHON": sys.executable,
        }

    def write_settings(self, more: str = "") -> None:
        """Write the settings, as an operator does."""
        self.settings.parent.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(self.text + more)

    def run(self, *arguments: object, fails: bool = False, **environ: str) -> str:
        """Run `deploy/run.sh`, and return its output."""
        done = subprocess.run(
            [wheels.ROOT / "deploy/run.sh", *map(str, arguments)],
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output + self.log()
        return output

    def log(self) -> str:
        """Return the service's log."""
        log = self.root / "var/log/kazoo-ips/log"
        return log.read_text() if log.exists() else ""

    def serving(self) -> str:
        """The current version."""
        return (self.app / "current").resolve().name.split("-")[0]

    def snapshot(self) -> dict[str, Any]:
        """Return every file, link and directory with its time, without the log; and processes."""
        return {
            str(path.relative_to(self.root)): path.lstat().st_mtime_ns
            for path in self.root.rglob("*")
            if path.name != "log"
        }


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of the tests' environment, except this project."""
    folder = tmp_path_factory.mktemp("libraries")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "kazoo_ips" not in entry.name and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as a wheel."""
    return wheels.build(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def site(environment: dict[str, str], libraries: Path, operator: Any) -> Iterator[Site]:
    """An empty folder to deploy to, with a short name: a socket's path is at most 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="kazoo-ips-"))
    site = Site(root, environment, libraries)
    yield site
    if site.app.exists():
        site.run("undeploy", "--purge")
    shutil.rmtree(root)


@pytest.fixture
def load(site: Site, alice: Any, add: Any) -> Callable[[], Load]:
    """A function that returns the clients."""
    add("192.0.2.1")

    def make() -> Load:
        return Load(site.url, alice.token, alice.id, "192.0.2.1")

    return make
