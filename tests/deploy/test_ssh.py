"""Deployment over ssh: to this machine, by a real ssh server with its own keys."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import wheels
from tests.deploy.conftest import Site
from tests.servers import free_port

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh-keygen")), reason="needs OpenSSH's server"
)


@pytest.fixture
def ssh(site: Site, tmp_path: Path) -> Iterator[str]:
    """The ssh command for a server on this machine, as this user."""
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key]
        subprocess.run(command, check=True)
    port = free_port()
    config = tmp_path / "sshd_config"
    environ = " ".join(f"{name}={value}" for name, value in site.installing.items())
    config.write_text(
        f"Port {port}\n"
        "ListenAddress 127.0.0.1\n"
        f"HostKey {tmp_path / 'host'}\n"
        f"AuthorizedKeysFile {tmp_path / 'user.pub'}\n"
        "StrictModes no\n"  # the user who runs the tests owns the folder
        "PasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "PidFile none\n"
        f"SetEnv {environ}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the folder that Debian's start script creates
    client = tmp_path / "ssh_config"
    client.write_text(
        f"Host *\n  Port {port}\n  IdentityFile {tmp_path / 'user'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {tmp_path / 'known'}\n  StrictHostKeyChecking accept-new\n"
        "  LogLevel ERROR\n"
    )
    assert SSHD
    log = tmp_path / "log"
    with subprocess.Popen([SSHD, "-D", "-f", config, "-E", log]) as server:
        end = time.monotonic() + 20
        while "listening" not in (log.read_text() if log.exists() else ""):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"ssh -F {client}"
        server.terminate()


def test_a_deployment_over_ssh_leaves_nothing_but_the_service(
    site: Site, ssh: str, wheel: Path
) -> None:
    newer = wheels.changed(wheel, "8.1.0")
    over_ssh = {"HOST": f"{getpass.getuser()}@127.0.0.1", "SSH": ssh}
    folders = {str(path) for path in Path("/tmp").glob("tmp.*")}
    site.write_settings()
    assert "serves" in site.run("deploy", newer, **over_ssh)
    assert site.serving() == "8.1.0"
    assert "no release to go back to" in site.run("rollback", fails=True, **over_ssh)
    assert "removed" in site.run("undeploy", "--purge", **over_ssh)
    assert not site.app.exists()
    assert not site.settings.exists()
    assert {str(path) for path in Path("/tmp").glob("tmp.*")} <= folders
