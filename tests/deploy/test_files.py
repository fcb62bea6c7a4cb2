"""Configuration files, checked by the programs that read them if they are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.wheels import ROOT
from tests.servers import free_port

PATH = f"{os.environ['PATH']}:/usr/sbin"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program, path=PATH), reason=f"needs {program}")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, check=False
    )


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "deploy/kazoo-ips.service").read_text()
    unit = tmp_path / "kazoo-ips.service"
    # systemd-analyze requires that the program exists, which is the case only on a deployed
    # machine.
    unit.write_text(text.replace("/opt/kazoo-ips/current/bin/python", sys.executable))
    assert run("systemd-analyze", "verify", unit).stderr == ""
    unit.write_text(text.replace("PrivateTmp=yes", "PrivateTpm=yes"))
    assert "PrivateTpm" in run("systemd-analyze", "verify", unit).stderr


@needs("nginx")
def test_nginx_accepts_the_example(tmp_path: Path) -> None:
    site = tmp_path / "site.conf"
    text = (ROOT / "deploy/nginx.conf").read_text().replace("/var/log/nginx", str(tmp_path))
    # nginx opens its listening sockets. This port needs no privileges; IPv6 may be missing.
    text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    text = text.replace("    listen [::]:80;", "")
    site.write_text(text)
    config = tmp_path / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {tmp_path / name}; "
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths} include {site}; }}\n"
    )
    output = run("nginx", "-t", "-c", config)
    assert output.returncode == 0, output.stderr


@needs("shellcheck")
def test_shellcheck_accepts_the_scripts() -> None:
    assert run("shellcheck", ROOT / "deploy/run.sh").stdout == ""
