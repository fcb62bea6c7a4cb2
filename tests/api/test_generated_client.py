"""A client that openapi-python-client generates from the description, checked and run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kazoo_ips.model import DedicatedIP
from tests.conftest import Member
from tests.openapi_check import document

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("client_program.py")
PRINTED = """\
listed ['192.0.2.1'] us-east 1
next page ['192.0.2.2'] True
allocated assigned True
insufficient_ips 9 1
validation error {'not_found': 'ip not found'}
bad_identifier 192.0.2.99
401 invalid_credentials
"""


def run(*command: str | Path, folder: Path) -> str:
    """Run a program of this Python's environment that has to succeed; return what it prints."""
    binaries = Path(sys.executable).parent
    done = subprocess.run(
        [binaries / command[0], *command[1:]],
        cwd=folder,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_generated_client_has_types_and_works(
    live: str, alice: Member, add: Callable[..., DedicatedIP], tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    run(
        "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none",
        "--output-path", "kazoo_ips_client", "--fail-on-warning",
        folder=tmp_path,
    )  # fmt: skip
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.read_text())
    run("mypy", "--strict", "--python-version=3.11", program, folder=tmp_path)

    add("192.0.2.1")
    add("192.0.2.2")
    assert run("python", program, live, alice.token, alice.id, folder=tmp_path) == PRINTED
